"""Reading what a model answered that was asked to manage memory: as JSON, however it is wrapped. Pure.

Every answer is either read or :class:`UnreadableReplyError` says why not; what it holds is proposals, which
``plans.planned`` checks.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from memory_integrations.decisions import Compress, Decision, Delete, Forget, Keep, Promote, Skipped
from memory_integrations.errors import ManagementError
from memory_integrations.messages import DEEPEST, is_deeper
from memory_integrations.policies import Entry

# None is tried anew at every place of what another try has read: the time grows with the length of an answer.
_LANGUAGE = re.compile(r"[\w-]*\s*")
_TEXT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*+("|\\?\Z)|,(?=\s*[}\]])', re.DOTALL)
_COMMA = re.compile(r",(?=\s*[}\]])")
_MOST_STARTS = 200  # places in an answer at which JSON may begin
_LONGEST_LITERAL = len("false")
_LONGEST = 1_000_000  # characters of an answer that are read
_CONFIDENCE = 0.8
"""What a fact claims for which the model gave no confidence."""


class UnreadableReplyError(ManagementError):
    """A model's answer that holds no decisions.

    Attributes:
        usage: Tokens that it took all the same.
        calls: Model calls that it took.
    """

    def __init__(self, message: str, usage: Mapping[str, int] | None = None, calls: int = 1) -> None:
        super().__init__(message)
        self.usage = dict(usage or {})
        self.calls = calls


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered, not yet checked.

    Args:
        decisions: What it says of entries, each mostly a mapping.
        facts: What it says of facts, likewise.
        usage: Tokens that it took.
        calls: Model calls that it took.
    """

    decisions: Sequence[Any]
    facts: Sequence[Any]
    usage: Mapping[str, int] = field(default_factory=dict)
    calls: int = 1


def read_reply(answer: Any) -> Reply:
    """Read an answer: a mapping that is one already, or text that holds one.

    Around the JSON there may be prose and fences; in it trailing commas, or Python's quotes in the place of JSON's.

    Raises:
        UnreadableReplyError: It is empty, cut off, or holds nothing of the kind.
    """
    if isinstance(answer, Mapping):
        reply = _as_reply(answer)
        if reply is None:
            raise UnreadableReplyError(f"the answer has neither decisions nor facts: {_start(answer)}")
        return reply
    if not isinstance(answer, str) or not answer.strip():
        raise UnreadableReplyError("the answer is empty")
    for found in _json_in(answer[:_LONGEST]):
        reply = _as_reply(found)
        if reply is not None:
            return reply
    raise UnreadableReplyError(f"the answer is no JSON object with decisions or facts: {_start(answer)}")


def _as_reply(found: Any) -> Reply | None:
    """A reply, where JSON is one: an object with a list of decisions or of facts, or a list of decisions."""
    try:
        json.dumps(found, default=str)
    except (TypeError, ValueError, RecursionError):  # such as a number of thousands of digits, which is never shown
        return None
    if is_deeper(found, DEEPEST):
        return None
    if isinstance(found, list) and found and all(isinstance(item, Mapping) and "action" in item for item in found):
        return Reply(found, ())
    if not isinstance(found, Mapping):
        return None
    lists = [found.get(name) for name in ("decisions", "facts")]
    if all(part is None for part in lists) or not all(part is None or isinstance(part, list) for part in lists):
        return None
    decisions, facts = (part or [] for part in lists)
    return Reply(decisions, facts)


def _json_in(text: str) -> Iterator[Any]:
    """Every whole JSON object and list in a text, those in fences first; of what is cut off no part."""
    fenced = [_LANGUAGE.sub("", part, count=1) for part in text.split("```")[1:-1:2]]
    for part in [*fenced, text]:
        cleaned = _TEXT.sub(_without_comma, part).rstrip()
        end = 0
        for start in [match.start() for match in re.finditer(r"[{\[]", cleaned)][:_MOST_STARTS]:
            if start < end:
                continue  # inside what was read
            try:
                found, end = json.JSONDecoder(strict=False).raw_decode(cleaned, start)
            except json.JSONDecodeError as error:
                if error.msg.startswith("Unterminated") or error.pos >= len(cleaned) - _LONGEST_LITERAL:
                    break  # whatever stands in it was to be part of something larger
                continue
            except (ValueError, RecursionError):  # too many digits, or too deep
                break
            yield found
        yield from _python_in(part)


def _without_comma(found: re.Match[str]) -> str:
    """Nothing in the place of a comma before a bracket; a text as it is, and of one that never ends what is no text."""
    if found[0] == ",":
        return ""
    return found[0] if found[1] == '"' else _COMMA.sub("", found[0])


def _python_in(text: str) -> Iterator[Any]:
    """The whole as a Python literal, which is how some models write JSON."""
    text = text.strip()
    if text.startswith(("{", "[")) and "\\" not in text:  # of an escape that is none Python would warn
        try:
            yield ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return


Proposed = tuple[list[Decision], list[Skipped]]
"""What a reply proposes, and those parts of it that are no proposals, with the reason."""


def decide_entries(reply: Reply, aliases: Mapping[str, Entry], known_keys: Sequence[str]) -> Proposed:
    """What a reply proposes for entries.

    Args:
        reply: The reply.
        aliases: The entries by the names that the model was shown.
        known_keys: The keys of known facts, whose spelling a proposed key takes on.
    """
    return _proposed(reply.decisions, _entry_decision, aliases, known_keys)


def extract_facts(reply: Reply, aliases: Mapping[str, Entry], known_keys: Sequence[str]) -> Proposed:
    """What a reply proposes for facts: which to set and which to remove; see :func:`decide_entries`."""
    return _proposed(reply.facts, _fact_decision, aliases, known_keys)


def _proposed(
    items: Sequence[Any],
    read: Callable[[Mapping[str, Any], Mapping[str, Entry], Sequence[str]], Decision | str],
    aliases: Mapping[str, Entry],
    known_keys: Sequence[str],
) -> Proposed:
    proposed: list[Decision] = []
    skipped: list[Skipped] = []
    for item in items:
        found = read(item, aliases, known_keys) if isinstance(item, Mapping) else f"it is no object: {_start(item)}"
        if isinstance(found, str):
            named = item.get("id") or item.get("from") if isinstance(item, Mapping) else None
            skipped.append(Skipped(Keep(named if isinstance(named, str) else "?"), found))
        else:
            proposed.append(found)
    return proposed, skipped


def _entry_decision(item: Mapping[str, Any], aliases: Mapping[str, Entry], known_keys: Sequence[str]) -> Decision | str:
    """A decision on an entry, or why there is none."""
    entry = _entry(item.get("id"), aliases)
    if entry is None:
        return f"there is no entry {item.get('id')!r:.40}"
    action = str(item.get("action", "")).strip().upper()
    reason = _text(item.get("reason"))
    if action == "KEEP":
        return Keep(entry.id, reason)
    if action == "DELETE":
        return Delete(entry.id, reason)
    if action == "COMPRESS":
        content = item.get("content")
        return Compress(entry.id, content.strip(), reason) if isinstance(content, str) else "it has no content"
    if action == "PROMOTE":
        return _fact_decision({**item, "op": "SET", "from": item.get("id")}, aliases, known_keys)
    return f"there is no action {item.get('action')!r:.40}"


def _fact_decision(item: Mapping[str, Any], aliases: Mapping[str, Entry], known_keys: Sequence[str]) -> Decision | str:
    """A decision on a fact, or why there is none."""
    entry = _entry(item.get("from"), aliases)
    if entry is None:
        return f"the fact comes from no entry: {item.get('from')!r:.40}"
    key = item.get("key")
    if not isinstance(key, str) or not key.strip():
        return "the fact has no key"
    key = normalised_key(key, known_keys)
    operation = str(item.get("op", "SET")).strip().upper()
    reason = _text(item.get("reason"))
    if operation == "REMOVE":
        return Forget(entry.id, key, reason)
    if operation != "SET":
        return f"there is no operation {item.get('op')!r:.40}"
    confidence = item.get("confidence")
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
        confidence = _CONFIDENCE
    return Promote(entry.id, key, item.get("value"), reason, float(confidence))


def normalised_key(key: str, known: Sequence[str]) -> str:
    """A key in snake_case, in its own script; where a known one is the same but for spelling, that one."""
    plain = _plain(key)
    return next((other for other in known if _plain(other) == plain), plain or key.strip())


def _plain(key: str) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", unicodedata.normalize("NFKC", key))
    return "_".join(re.findall(r"[^\W_]+", spaced.casefold()))


def _entry(alias: Any, aliases: Mapping[str, Entry]) -> Entry | None:
    if isinstance(alias, int) and not isinstance(alias, bool):
        alias = f"e{alias}"
    return aliases.get(alias.strip().strip("[]").lower()) if isinstance(alias, str) else None


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _start(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except (ValueError, RecursionError):
        return type(value).__name__
