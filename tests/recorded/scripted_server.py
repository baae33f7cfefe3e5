"""An HTTP server that speaks OpenAI's protocol and is no model: every answer is made by plain rules.

The recorded tests are recorded from it, and not from a model. It shows
that our requests and the real clients fit together, and what becomes of answers and faults; of how well a model manages
memory it shows nothing.

- Chat is answered by ``StandInChatModel``: with tool calls, and streamed.
- What our management prompt asks is decided here, by :func:`managed`.
- A vector of ``/embeddings`` counts the stems of a text, so that texts with common words are similar.
- A ``response_format`` is checked as the stricter hosts do: see :func:`objection`.
- A model's name chooses a fault: ``scripted-500``, ``ft:gpt-4o-mini:scripted-slow``; see :data:`FAULTS`.

The same request gets the same bytes, apart from what "once" says.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from langchain_core.messages import convert_to_messages

from memory_integrations.statements import statements
from memory_integrations.testing import StandInChatModel

CREATED = 1_714_564_800  # 2024-05-01 12:00 UTC, as the tests' clock
SLOW = 1.0  # seconds; the clients of the tests wait for less
DIMENSIONS = 64

FAULTS = {
    "429-once": "too many requests, and an answer when asked again",
    "429": "too many requests",
    "401": "a key that is not accepted",
    "400": "more tokens than the model takes",
    "500": "an error of the server",
    "slow": "an answer that comes too late",
    "disconnect": "the connection ends in the middle of an answer",
    "cut-off": "an answer that ends in its middle, since the model may say no more",
    "filtered": "an answer that a content filter withheld",
    "refusal": "a refusal in the place of an answer of the schema",
    "malformed": "a body that is no JSON",
    "html": "a page of a proxy, with status 200",
    "no-choices": "a body with no answer in it",
    "empty": "an answer of no words",
    "prose": "an answer that holds no decisions",
    "prose-once": "the same where a schema is asked for, and decisions where it is not",
    "wrong-types": "an answer that is JSON, but not of the schema",
    "stream-cut-off": "a stream that ends in the middle",
    "stream-error": "a stream that says in its middle that something failed",
}

_ERRORS = {
    "429": ("Too many requests.", "rate_limit_exceeded"),
    "401": ("The key is not accepted.", "invalid_api_key"),
    "400": ("The prompt has more tokens than this model takes.", "context_length_exceeded"),
    "500": ("Something failed here.", "server_error"),
}


@contextmanager
def running() -> Iterator[str]:
    """The server at work; gives the base URL for clients."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.refused = set()  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        asked = json.loads(raw)
        fault = _fault(asked["model"])
        if fault == "429-once":
            refused: set[bytes] = self.server.refused  # type: ignore[attr-defined]
            if raw in refused:
                refused.remove(raw)
                fault = ""
            else:
                refused.add(raw)
                fault = "429"
        if fault in _ERRORS:
            return self._send_error(int(fault), *_ERRORS[fault])
        if fault == "malformed":
            return self._send(200, '{"choices": [{"message": {"content": "')
        if fault == "html":
            return self._send(200, "<html><body>Please log in.</body></html>", "text/html")
        if fault == "slow":
            time.sleep(SLOW)
        if self.path.endswith("/embeddings"):
            return self._send(200, json.dumps(_embedded(asked)))
        if wrong := objection(asked.get("response_format") or {}):
            return self._send_error(400, wrong, "invalid_schema")
        answer = _answer(asked, fault)
        if asked.get("stream"):
            return self._send(200, _stream(answer, asked, fault), "text/event-stream")
        return self._send(200, json.dumps(answer), short=fault == "disconnect")

    def _send_error(self, status: int, message: str, code: str) -> None:
        self._send(status, json.dumps({"error": {"message": message, "type": code, "code": code, "param": None}}))

    def _send(self, status: int, text: str, kind: str = "application/json", short: bool = False) -> None:
        body = text.encode()
        try:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.send_header("connection", "close")  # clients keep connections longer than a test's event loop lives
            if status >= 400:
                self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if short else body)
            if short:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
        except OSError:  # the client waited no longer
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _fault(model: str) -> str:
    name = model.rpartition("scripted-")[2]
    return name if name in FAULTS else ""


# Chat


def _answer(asked: Mapping[str, Any], fault: str) -> dict[str, Any]:
    """A chat completion."""
    digest = blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=12).hexdigest()
    said, usage = _said(asked, digest)
    reason = "tool_calls" if said.get("tool_calls") else "stop"
    by_schema = "response_format" in asked
    if fault == "cut-off":
        said["content"], reason = said["content"][: len(said["content"]) // 2], "length"
    elif fault == "filtered":
        said["content"], reason = "", "content_filter"
    elif fault == "refusal":
        said |= {"content": None, "refusal": "I would rather not."} if by_schema else {"content": "I would rather not."}
    elif fault == "empty":
        said["content"] = ""
    elif fault == "prose" or (fault == "prose-once" and by_schema):
        said["content"] = "I would delete the greeting and keep the rest."
    elif fault == "wrong-types":
        said["content"] = json.dumps({"decisions": "none", "facts": 3})
    choice = {"index": 0, "message": said, "finish_reason": reason, "logprobs": None}
    return {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "created": CREATED,
        "model": asked["model"],
        "choices": [] if fault == "no-choices" else [choice],
        "usage": usage,
    }


def _said(asked: Mapping[str, Any], digest: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The answer's message, and the tokens that it took."""
    messages, tools = convert_to_messages(asked["messages"]), asked.get("tools") or []
    prompt = "\n".join(message.text for message in messages)
    reply = StandInChatModel().bind(tools=tools, tool_choice=asked.get("tool_choice")).invoke(messages)
    calls = [(call["name"], call["args"]) for call in reply.tool_calls]
    content: str | None = reply.text
    if messages[0].text.startswith("You keep the short-term memory of a conversation in order."):
        decided = managed(prompt)
        content = json.dumps(decided, ensure_ascii=False)
        if tools:
            content, calls = None, [(tools[0]["function"]["name"], decided)]
        elif "response_format" not in asked:  # where only the prompt asks for JSON, models like to wrap it
            content = f"Here is what I would do:\n\n```json\n{content}\n```"
    said: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if calls:
        said["tool_calls"] = [
            {
                "id": f"call_{digest}{i}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(args, ensure_ascii=False)},
            }
            for i, (name, args) in enumerate(calls)
        ]
    spent, made = _tokens(prompt), _tokens(f"{content}{calls}")
    return said, {"prompt_tokens": spent, "completion_tokens": made, "total_tokens": spent + made}


def _tokens(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def _stream(answer: Mapping[str, Any], asked: Mapping[str, Any], fault: str) -> str:
    """The same answer as server-sent events, a word at a time."""
    choice = answer["choices"][0]
    said = choice["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word} for word in re.findall(r"\s*\S+", said["content"] or "")]
    for i, call in enumerate(said.get("tool_calls", ())):
        arguments = call["function"]["arguments"]
        half = len(arguments) // 2
        named = {**call, "index": i, "function": {**call["function"], "arguments": ""}}
        deltas.append({"tool_calls": [named]})
        deltas += [
            {"tool_calls": [{"index": i, "function": {"arguments": part}}]}
            for part in (arguments[:half], arguments[half:])
        ]
    head = {**answer, "object": "chat.completion.chunk"}
    del head["choices"], head["usage"]
    events = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if fault == "stream-cut-off":
        return _events(events[: len(events) // 2])[:-40]
    if fault == "stream-error":
        return _events([*events[:3], {"error": {"message": "Something failed here.", "code": "server_error"}}])
    events.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if (asked.get("stream_options") or {}).get("include_usage"):
        events.append({**head, "choices": [], "usage": answer["usage"]})
    return f"{_events(events)}data: [DONE]\n\n"


def _events(events: list[dict[str, Any]]) -> str:
    return "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events)


# Managing

_ENTRY = re.compile(r"\[(e\d+)\]( \(protected\))? (\d+) tokens, (?:[^:\n]* )?(\w+): (.*(?:\n  .*)*)")
_FACT = re.compile(r'^"(.+?)": (.+)$', re.MULTILINE)
_GREETING = re.compile(
    r"(?:hello|hi|hey|good (?:morning|evening)|thanks|thank you|bye)\b[^.!?]{0,30}[.!?]?", re.IGNORECASE
)
_GONE = re.compile(r"I no longer (?:work|live|have|like)\b", re.IGNORECASE)
_KEY_OF_GONE = {"work": "employer", "live": "city", "have": "pet", "like": "preference"}
_ELSEWHERE = (
    ("city", re.compile(r"Ich wohne (?:jetzt )?in (\w+(?: am \w+)?)")),
    ("city", re.compile(r"私は(\w+?)に住んでいます")),
    ("name", re.compile(r"Меня зовут (\w+)")),
)
_LONG = 40  # tokens


def managed(prompt: str) -> dict[str, Any]:
    """What becomes of the entries and facts of our management prompt.

    Greetings go, long entries are cut down to their first sentence, and what users state of themselves is set; "I no
    longer work ..." removes the fact. Others' statements are left alone.
    """
    known = {match[1]: match[2] for match in _FACT.finditer(prompt.partition("Entries, oldest first")[0])}
    decisions: list[dict[str, Any]] = []
    facts: dict[str, dict[str, Any]] = {}
    for name, protected, tokens, role, text in _ENTRY.findall(prompt):
        text = text.replace("\n  ", "\n")
        if not protected and _GREETING.fullmatch(text.strip()):
            decisions.append({"id": name, "action": "DELETE", "content": None, "reason": "a greeting"})
        elif not protected and int(tokens) > _LONG and len(first := re.split(r"(?<=[.!?。])\s", text)[0]) < len(text):
            decisions.append({"id": name, "action": "COMPRESS", "content": first, "reason": "long"})
        if role == "user":
            for key, value in [*statements(text), *_in_other_languages(text)]:
                facts[key] = _change("SET", key, value, name)
            for match in _GONE.finditer(text):
                key = _KEY_OF_GONE[match[0].rpartition(" ")[2].lower()]
                if key in known:
                    facts[key] = _change("REMOVE", key, None, name)
    return {"decisions": decisions, "facts": list(facts.values())}


def _in_other_languages(text: str) -> list[tuple[str, str]]:
    return [(key, match[1]) for key, pattern in _ELSEWHERE if (match := pattern.search(text))]


def _change(operation: str, key: str, value: Any, entry: str) -> dict[str, Any]:
    return {"op": operation, "key": key, "value": value, "from": entry, "confidence": 0.9, "reason": "the user says so"}


_NOT_IN_A_STRICT_SCHEMA = frozenset(("default", "minimum", "maximum", "multipleOf", "format", "pattern", "minLength"))


def objection(response_format: Mapping[str, Any]) -> str | None:
    """What a host objects to in a strict schema that takes the fewest keywords; None where it takes it.

    Azure and the earlier models refuse these keywords with status 400; later models take some of them.
    """
    described = response_format.get("json_schema", {})
    return _refused(described.get("schema"), ()) if described.get("strict") else None


def _refused(schema: Any, path: tuple[str, ...]) -> str | None:
    if isinstance(schema, list):
        return next(filter(None, (_refused(part, path) for part in schema)), None)
    if not isinstance(schema, dict):
        return None
    for keyword in sorted(_NOT_IN_A_STRICT_SCHEMA & schema.keys()):
        if path[-1:] != ("properties",):
            return f"Invalid schema: in {'/'.join(path) or 'the whole'} {keyword!r} is not permitted."
    if "properties" in schema and path[-1:] != ("properties",):
        missing = set(schema["properties"]) - set(schema.get("required", ()))
        if missing or schema.get("additionalProperties") is not False:
            return f"Invalid schema: in {'/'.join(path) or 'the whole'} all must be required, and nothing else taken."
    return next(filter(None, (_refused(part, (*path, name)) for name, part in schema.items())), None)


# Embeddings


def _embedded(asked: Mapping[str, Any]) -> dict[str, Any]:
    texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
    rows = [{"object": "embedding", "index": i, "embedding": _vector(text)} for i, text in enumerate(texts)]
    spent = sum(map(_tokens, texts))
    usage = {"prompt_tokens": spent, "total_tokens": spent}
    return {"object": "list", "model": asked["model"], "data": rows, "usage": usage}


def _vector(text: str) -> list[float]:
    """How often stems of a text fall into each of so many places, of length 1; words of few letters count for less."""
    counts = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.casefold()):
        place = blake2b(word[:5].encode(), digest_size=2).digest()
        counts[int.from_bytes(place) % DIMENSIONS] += 1.0 if len(word) > 3 else 0.1
    length = sum(count * count for count in counts) ** 0.5 or 1.0
    return [round(count / length, 3) for count in counts]
