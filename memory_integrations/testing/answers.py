"""How a stand-in answers: by plain rules, from what it is given.

What it can say comes from there, so that a memory visibly matters: without one it does not know.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.utils.json_schema import dereference_refs

from memory_integrations.delimiters import MEMORY_NOTE, strip_injected
from memory_integrations.messages import Message
from memory_integrations.statements import statements
from memory_integrations.tokens import TokenCounter

DO_NOT_KNOW = "I do not know."

_COUNTER = TokenCounter()
_MEMORY_TOOLS = frozenset(("remember_fact", "forget_fact", "search_memory"))
_BLOCK = re.compile(r"<memory:(facts|conversation|recalled)>\r?\n(.*?)\n</memory:\1>", re.DOTALL)
# A speaker has three words at most, so that "Nothing was found for: dogs" is no memory.
_MEMORY = re.compile(r"(?:[-*] )?(?:(\d{1,2} [A-Z][a-z]+ \d{4}) )?([^:\s]+(?: [^:\s]+){0,2}): (.+)", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?？])\s+|\n+")
_QUESTION = re.compile(
    r"(?:who|whose|what|which|where|when|how)(?:['’]?s\b| (?:(?!i\b)\w+ ){0,2}?"
    r"(?:is|are|am|was|were|do|does|did|can|will|should)\b)|tell me\b|do you (?:know|remember)\b",
    re.IGNORECASE,
)
_FORGET = re.compile(r"(?:please |now |can you |could you )*forget (?:about )?(?:that|my) (.+)", re.IGNORECASE)
_STOP = frozenset(
    """a about again an and any are as at be been but by can could did do does ever for had has have he her here hers
    him his how i if in is it its just know me mine my myself not now of on or our please question answer remember said
    say she should so some tell that the their them then there these they this those to user was we were what whats
    when where which whom whose why will with would you your yours am s t m d re ve ll""".split()
)


def _stem(word: str) -> str:
    """A word without its plural and what else English adds, roughly: enough to see "dog" in "dogs"."""
    return re.sub(r"(?<=\w{3})(?:ing|(?<![aeiou])ed|es|(?<!s)s|e)$", "", word.casefold()).replace("y", "i")


def _words(text: str) -> frozenset[str]:
    return frozenset(_stem(word) for word in re.findall(r"[^\W_]+", text.casefold()) if word not in _STOP)


# Words of a question that say little, and what they may be called where the answer is. They count for nothing where the
# question has a word that says more: whoever asks for "the name of my cat" does not ask for "name".
_GENERAL = {
    _stem(word): _words(meant)
    for words, meant in (
        ("name call", "name call"),
        ("who", "name"),
        ("live", "live city home address location town move"),
        ("from", "hometown born grew"),
        ("old", "age birthday"),
        ("like prefer favourite favorite", "like love enjoy prefer preference favourite favorite hobby interest"),
        ("work job", "work job occupation employer company profession"),
        ("speak", "speak spoken language"),
        ("eat", "eat food diet allergy"),
        ("allergic", "allergic allergy"),
    )
    for word in words.split()
}


class StandInError(RuntimeError):
    """The stand-in was asked to fail, or cannot do what it was forced to do."""


def fail_where_asked(fail_after: int | None, words: int | None = None) -> None:
    """Fail as a stand-in is asked to.

    Args:
        fail_after: After so many words of a stream, or at its end; None means never.
        words: How many words there were; None at the end.

    Raises:
        StandInError: It is asked to.
    """
    if fail_after is not None and words in (None, fail_after):
        raise StandInError(f"The stand-in failed, as fail_after={fail_after} asks.")


class _Said(NamedTuple):
    """Something that was said before."""

    text: str
    speaker: str = "user"
    when: str = ""


class _Given(NamedTuple):
    """What a prompt holds."""

    request: str  # the latest user message, without what was injected
    facts: dict[str, Any]
    said: list[_Said]  # what answers best comes first
    results: list[tuple[str, str]]  # of tools, since the request: their names and what they gave

    @property
    def question(self) -> str:
        """The questions of the request; nothing where it asks nothing."""
        return " ".join(filter(_is_question, _SENTENCE_END.split(self.request)))


class _Filling(NamedTuple):
    """What arguments are made of."""

    text: str
    number: float = 1
    truth: bool = True
    items: bool = False  # whether an array has one


class _Asked(NamedTuple):
    """What a question looks for."""

    telling: frozenset[str]
    general: list[frozenset[str]]  # for each general word what it may mean

    def score(self, about: frozenset[str], value: frozenset[str] = frozenset()) -> tuple[int, int]:
        """How many telling words are there, then how many general ones; zeros for what does not answer.

        A fact's value alone answers only what asks for nothing else: "the weather in Lisbon" does not ask for the city.
        """
        if self.telling and self.telling.isdisjoint(about) and not self.telling <= value:
            return 0, 0
        return len(self.telling & (about | value)), sum(not meant.isdisjoint(about) for meant in self.general)


# Gathering


def gather(messages: Sequence[BaseMessage]) -> _Given:
    """Everything in the messages that an answer may come from."""
    texts = [Message(role="any", content=message.content).text for message in messages]
    own = [strip_injected(text).replace(MEMORY_NOTE, "").strip() for text in texts]
    latest = max((i for i, m in enumerate(messages) if isinstance(m, HumanMessage) and own[i]), default=len(messages))
    names = {call["id"]: call["name"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls}
    facts: dict[str, Any] = {}
    recalled: list[_Said] = []
    talk: list[_Said] = []
    results: list[tuple[str, str]] = []
    for i, (message, text) in enumerate(zip(messages, texts, strict=True)):
        blocks = [] if isinstance(message, AIMessage) else _BLOCK.findall(text)
        for kind, body in blocks:
            if kind == "facts":
                facts |= _facts(body)
            else:  # of what was said, the latest first; of what was found, the best, which it is
                recalled += _memories(body)[:: -1 if kind == "conversation" else 1]
        if isinstance(message, SystemMessage):
            facts |= _facts(own[i])
        elif isinstance(message, ToolMessage):
            name = message.name or names.get(message.tool_call_id, "tool")
            recalled += _memories(own[i]) if name == "search_memory" else []
            results += [(name, own[i])] if i > latest else []
        elif isinstance(message, HumanMessage | AIMessage) and own[i] and i < latest:
            talk.insert(0, _Said(own[i], "user" if isinstance(message, HumanMessage) else "assistant"))
    said = sorted([*talk, *recalled], key=lambda said: said.speaker == "assistant")
    return _Given(own[latest] if latest < len(own) else "", facts, said, results)


def _facts(text: str) -> dict[str, Any]:
    """The JSON objects in a text, as one; of a fact with its history the current value."""
    found: dict[str, Any] = {}
    position = text.find("{")
    while position >= 0:
        try:
            value, position = json.JSONDecoder().raw_decode(text, position)
            found |= value
        except (ValueError, RecursionError):
            position += 1
        position = text.find("{", position)
    return {k: v["current"] if isinstance(v, dict) and {*v} == {"current", "history"} else v for k, v in found.items()}


def _memories(body: str) -> list[_Said]:
    """The memories of a block: what is indented goes on with the line before."""
    matches = (_MEMORY.fullmatch(line) for line in re.split(r"\n(?!  )", body))
    return [_Said(m[3].replace("\n  ", "\n"), m[2], m[1] or "") for m in matches if m]


def _is_question(sentence: str) -> bool:
    return "?" in sentence or "？" in sentence or bool(_QUESTION.match(sentence.strip()))


# Answering


def answer(given: _Given) -> tuple[str, bool]:
    """The answer, and whether it is one."""
    found = [f"{name}: {text}" for name, text in given.results if name not in _MEMORY_TOOLS]
    if found:
        return "\n".join(found), True
    if given.request and not given.question:
        return f"Noted: {textwrap.shorten(given.request, 80, placeholder=' …').rstrip(' .!')}.", True
    best = _best(given)
    return best or DO_NOT_KNOW, best is not None


def _best(given: _Given) -> str | None:
    """What answers the question best, or None."""
    if given.facts and re.search(r"\babout (?:me|myself)\b", given.question.casefold()):
        return " ".join(_sentence(key, value) for key, value in given.facts.items())
    asked = _asked(given.question, given.facts)
    scores = {_sentence(key, given.facts[key]): score for key, score in _score_facts(given.facts, asked).items()}
    for said in given.said:
        # What was asked before answers nothing, and its own echoes say nothing new.
        echo = said.speaker == "assistant" and said.text.startswith(("Noted: ", "You said: ", "I said: "))
        parts = () if echo else _SENTENCE_END.split(said.text)
        if stated := " ".join(part for part in parts if not _is_question(part) and not _FORGET.match(part)):
            scores.setdefault(_quotation(said), asked.score(_words(f"{said.when} {said.speaker} {stated}")))
    return _highest(scores)


def _asked(text: str, facts: Mapping[str, Any]) -> _Asked:
    """The words that count; the user's own name only says of whom."""
    words = _words(text) - _words(f"{facts.get('name', '')} {facts.get('preferred_name', '')}")
    return _Asked(words - _GENERAL.keys(), [meant for word, meant in _GENERAL.items() if word in words])


def _score_facts(facts: Mapping[str, Any], asked: _Asked) -> dict[str, tuple[int, int]]:
    """The scores by key: first the keys that are asked for, and "name" before "dog_name"."""
    known = [key for key, value in facts.items() if value not in (None, "", [], {})]
    keys = sorted(known, key=lambda key: (-len(asked.telling & _words(key)), len(_words(key))))
    return {key: asked.score(_words(key), _words(_shown(facts[key]))) for key in keys}


def _highest(scores: Mapping[str, tuple[int, int]]) -> str | None:
    best = max(scores, key=lambda name: scores[name], default=None)
    return best if best is not None and any(scores[best]) else None


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _sentence(key: str, value: Any) -> str:
    return f"Your {key.replace('_', ' ')} is {_shown(value)}."


def _quotation(said: _Said) -> str:
    who = "I" if said.speaker == "assistant" else "You"
    return f'{who} said: "{said.text}"' + (f" ({said.when})" if said.when else "")


# Calling tools


def calls_for(
    given: _Given, tools: Sequence[Mapping[str, Any]], choice: Any, schemas: Collection[str]
) -> list[tuple[str, dict[str, Any]]]:
    """The calls to make, each tool's at most once a request, so that no agent goes on forever."""
    if isinstance(choice, Mapping):
        choice = choice.get("function", choice).get("name")
    functions = [tool["function"] for tool in tools if "function" in tool and choice != "none"]
    parameters = {f["name"]: {"type": "object", **dereference_refs(f.get("parameters", {}))} for f in functions}
    forced = choice in ("any", "required", True) or choice in parameters
    done = dict(given.results)
    if refused := [name for name in schemas if forced and name in done]:
        raise StandInError(f"The stand-in cannot fill {refused[0]}: {done[refused[0]]}")
    names = [name for name in ([choice] if choice in parameters else parameters) if name not in done]
    answers = [name for name in names if forced and name in schemas]
    from_request = _Filling(given.request)
    calls = [
        (name, {**_filled(parameters[name], from_request), **args})
        for name in names
        if name not in answers
        for args in _wanted(name, parameters[name], given)
    ]
    if forced and not calls:
        filling = _from_answer(given) if answers else from_request
        calls = [(name, _filled(parameters[name], filling)) for name in (answers or names)[:1]]
    return calls


def _wanted(name: str, parameters: Mapping[str, Any], given: _Given) -> list[dict[str, Any]]:
    """The arguments of the calls of a tool that the request asks for, as far as they are not filled in anyway."""
    if name == "remember_fact":
        as_text = parameters.get("properties", {}).get("value", {}).get("type") == "string"
        return [{"key": key, "value": _shown(v) if as_text else v} for key, v in statements(given.request)]
    if name == "forget_fact":
        return [{"key": key} for key in _to_forget(given)]
    if name == "search_memory":
        return [{"query": given.question}] if given.question and _best(given) is None else []
    return [{}] if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", given.request) else []


def _to_forget(given: _Given) -> list[str]:
    """The keys of the facts that the user wants forgotten."""
    keys: list[str] = []
    for match in filter(None, map(_FORGET.match, _SENTENCE_END.split(given.request))):
        what = match[1].rstrip(" .!?")
        best = _highest(_score_facts(given.facts, _asked(what, given.facts)))
        stated = [key for key, _ in statements(what)]
        keys += stated or [best or "_".join(re.findall(r"[^\W_]+", what.lower()))]
    return list(dict.fromkeys(keys))


def _from_answer(given: _Given) -> _Filling:
    text, known = answer(given)
    number = re.search(r"-?\d{1,15}(?:\.\d{1,15})?", text)
    return _Filling(text, float(number[0]) if number else 0, known, items=True)


def _filled(schema: Mapping[str, Any], filling: _Filling) -> Any:
    """A value that a JSON schema asks for."""
    if options := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        # {} is left of a schema that holds itself, and ends there.
        return _filled(min(options, key=lambda option: (not option, option.get("type") == "null")), filling)
    if "const" in schema or schema.get("enum"):
        return schema["const"] if "const" in schema else schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    if kind == "object":
        fields = schema.get("properties", {})
        names = schema.get("required") or (fields if filling.items else ())
        return {name: _filled(fields.get(name, {}), filling) for name in names}
    if kind == "array":
        return [_filled(schema.get("items", {}), filling)] if filling.items else []
    if kind in ("integer", "number"):
        number = min(max(filling.number, schema.get("minimum", filling.number)), schema.get("maximum", float("inf")))
        return int(number) if number == int(number) or kind == "integer" else number
    return {"boolean": filling.truth, "null": None}.get(kind, filling.text[: schema.get("maxLength")])


def with_ids(calls: Sequence[tuple[str, dict[str, Any]]], messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """The calls as langchain has them; ids are the same for the same conversation and differ within it."""
    before = [(message.content, getattr(message, "tool_calls", None)) for message in messages]
    made = []
    for i, (name, args) in enumerate(calls):
        digest = blake2b(f"{before}{i}{name}{args}".encode("utf-8", "replace"), digest_size=12).hexdigest()
        made.append({"name": name, "args": args, "id": f"call_{digest}", "type": "tool_call"})
    return made


def tokens_of(messages: Sequence[BaseMessage]) -> int:
    """The tokens of messages, their calls included."""
    calls = [json.dumps(m.tool_calls, default=str) for m in messages if isinstance(m, AIMessage) and m.tool_calls]
    return sum(_COUNTER.count_content(message.content) for message in messages) + sum(map(_COUNTER.count, calls))
