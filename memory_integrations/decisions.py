"""What managing short-term memory may decide, and the checks that every decision passes before it is carried out.

Whoever proposes, rules or a model: the code disposes. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from memory_integrations.delimiters import strip_injected
from memory_integrations.messages import DEEPEST, is_deeper, with_unicode
from memory_integrations.policies import Entry, ShortTermPolicy, evictable


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave an entry as it is."""

    entry_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an entry from short-term memory; long-term memory still has it."""

    entry_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Compress:
    """Show an entry by a shorter text."""

    entry_id: str
    content: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Promote:
    """Set a fact that an entry states; the entry stays."""

    entry_id: str
    key: str
    value: Any
    reason: str = ""
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete a fact that an entry says is no longer so; the entry stays, and so does the fact's history."""

    entry_id: str
    key: str
    reason: str = ""


Decision = Keep | Delete | Compress | Promote | Forget


@dataclass(frozen=True, slots=True)
class Skipped:
    """A decision that was not carried out, and why."""

    decision: Decision
    why: str


def validate(
    proposed: Iterable[Decision],
    entries: Sequence[Entry],
    policy: ShortTermPolicy,
    count: Callable[[str], int],
) -> tuple[list[Decision], list[Skipped]]:
    """Split decisions into those that may be carried out and those that may not.

    Unknown entries are skipped; the latest ``min_entries``, pinned and system entries are neither deleted nor
    compressed; a compression is shorter in tokens and says what the entry says; facts are what users say, with a key
    and a value; an entry is deleted or compressed once; a tool call and its results go together or stay.

    Args:
        proposed: The decisions, in order.
        entries: The entries now, oldest first.
        policy: Gives ``min_entries``.
        count: Counts tokens.
    """
    known = {entry.id: entry for entry in entries}
    free = {entry.id for entry in evictable(entries, policy)}
    changed: set[str] = set()
    accepted: list[Decision] = []
    skipped: list[Skipped] = []
    for given in proposed:
        if isinstance(given, Promote) and is_deeper(given.value, DEEPEST):
            skipped.append(Skipped(given, f"the value is nested more than {DEEPEST} deep"))
            continue
        decision = _storable(given)
        why = _objection(decision, known.get(decision.entry_id), free, changed, count)
        if why:
            skipped.append(Skipped(decision, why))
            continue
        accepted.append(decision)
        if isinstance(decision, Delete | Compress):
            changed.add(decision.entry_id)
    torn = _torn({decision.entry_id for decision in accepted if isinstance(decision, Delete)}, entries)
    if torn:
        tearing = [one for one in accepted if isinstance(one, Delete) and one.entry_id in torn]
        accepted = [one for one in accepted if not (isinstance(one, Delete) and one.entry_id in torn)]
        skipped += [Skipped(one, "a tool call and its results go together or stay") for one in tearing]
    return accepted, skipped


def _storable(decision: Decision) -> Decision:
    """The decision with texts as a message has them: models answer with half a surrogate pair, or a block of memory."""
    texts = {f.name: with_unicode(getattr(decision, f.name)) for f in fields(decision)}
    if isinstance(decision, Compress):
        texts["content"] = strip_injected(texts["content"])
    return replace(decision, **texts)


def _torn(deleted: Collection[str], entries: Sequence[Entry]) -> set[str]:
    """Of what is deleted, the tool calls and results of which a part would stay."""
    if not deleted:
        return set()
    exchanges: dict[str, set[str]] = {}
    calls: dict[str, str] = {}  # the latest message that made a call, by the call
    for entry in entries:
        if entry.message.tool_calls:
            exchanges[entry.id] = {entry.id}
            calls |= {call.id: entry.id for call in entry.message.tool_calls}
        elif entry.role == "tool" and entry.message.tool_call_id in calls:
            exchanges[calls[entry.message.tool_call_id]].add(entry.id)
    return {id_ for parts in exchanges.values() if not parts <= set(deleted) for id_ in parts}


def _objection(
    decision: Decision,
    entry: Entry | None,
    free: Collection[str],
    changed: Collection[str],
    count: Callable[[str], int],
) -> str | None:
    if entry is None:
        return "there is no such entry"
    if isinstance(decision, Delete | Compress):
        if decision.entry_id not in free:
            return "the entry is protected: among the latest, pinned, or a system message"
        if decision.entry_id in changed:
            return "another decision changes the entry already"
    if isinstance(decision, Compress):
        if not decision.content.strip():
            return "the compressed text is empty"
        if not isinstance(entry.message.content, str) or entry.message.tool_calls:
            return "only plain text can be compressed"
        if count(decision.content) >= entry.tokens:
            return "the compressed text is not shorter"
        if not says_what(decision.content, (entry.original or entry.message).text):
            return "the compressed text says something else"
    if isinstance(decision, Promote | Forget):
        if entry.role != "user":
            return "facts are what users say: no answer and no tool's output becomes one"
        if not decision.key.strip() or (isinstance(decision, Promote) and decision.value in (None, "", [], {})):
            return "a fact needs a key and a value"
    return None


_WORD = re.compile(r"[^\W_]+")
_BEGINNING = 5  # characters: what inflected forms of a word have in common
_LEAST_SHARED = 0.3
_LONG = 30  # different words: a text of more is not said in fewer than so many telling ones of them
_LEAST_OF_LONG = 3
_TELLING = 4  # characters, or digits: shorter words are in every text
# Scripts written without spaces, of which every character counts as a word.
_WIDE = re.compile(r"[\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff]")


def says_what(compressed: str, original: str) -> bool:
    """Whether a text shares enough words with what it shortens not to be a placeholder, an excuse or a translation.

    Three in ten of its words, by their beginnings, so that inflection and some paraphrase are free; and of a long text
    at least three words that are not in every text.
    """
    words, known = _beginnings(compressed), _beginnings(original)
    shared = words & known
    if len(known) > _LONG and sum(map(_is_telling, shared)) < _LEAST_OF_LONG:
        return False
    return bool(words) and len(shared) >= _LEAST_SHARED * len(words)


def _is_telling(word: str) -> bool:
    return len(word) >= _TELLING or not word.isalpha() or _WIDE.match(word) is not None


def states(value: Any, text: str) -> bool:
    """Whether a text says a value, as far as its words show: at least half of them, of each text in it.

    Numbers and truth values may be said in any words.
    """
    return _stated(value, _beginnings(text))


def _stated(value: Any, said: set[str]) -> bool:
    if isinstance(value, list | tuple):
        return all(_stated(item, said) for item in value)
    if isinstance(value, dict):
        return all(_stated(item, said) for item in value.values())
    words = _beginnings(value) if isinstance(value, str) else set()
    return not words or 2 * len(words & said) >= len(words)


def _beginnings(text: str) -> set[str]:
    text = text.casefold()
    wide = _WIDE.findall(text)
    return {*wide, *(word[:_BEGINNING] for word in _WORD.findall(_WIDE.sub(" ", text)))}


def undone(before: Sequence[Entry], now: Sequence[Entry], decisions: Iterable[Decision]) -> list[Entry]:
    """The entries after taking decisions back: what they changed as it was, the rest as it is now.

    What was said anew since under the id of a changed entry stays, and so do pins and accesses.
    """
    changed = {decision.entry_id: decision for decision in decisions if isinstance(decision, Delete | Compress)}
    current = {entry.id: entry for entry in now}
    known = {entry.id for entry in before}
    kept = [_restored(entry, current.get(entry.id), changed.get(entry.id)) for entry in before]
    return [entry for entry in kept if entry is not None] + [entry for entry in now if entry.id not in known]


def _restored(before: Entry, now: Entry | None, decision: Delete | Compress | None) -> Entry | None:
    if decision is None:
        return now
    if now is None:
        return before
    if isinstance(decision, Compress) and now.original is not None and now.message.content == decision.content:
        return replace(before, pinned=now.pinned, accesses=now.accesses)
    return now
