"""What managing short-term memory may decide, and the checks that every decision passes before it is carried out.

Whoever proposes, rules or a model: the code disposes. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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


Decision = Keep | Delete | Compress | Promote


@dataclass(frozen=True, slots=True)
class Skipped:
    """A decision that was not carried out, and why."""

    decision: Decision
    why: str


@dataclass(frozen=True, slots=True)
class ManagementPlan:
    """What is to be done, already validated against the entries it was made for.

    Attributes:
        decisions: In the order in which they are carried out.
        skipped: What was proposed and failed validation.
        source: Who proposed it: "rule" or "llm".
        tokens_before: Tokens of short-term memory when it was made.
        failed: Why there is no plan; None when there is one, also where it has nothing to do.
        calls: Model calls that it took.
        scope: Whose memory it is for; a plan made by hand may leave it out.
    """

    decisions: tuple[Decision, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    source: str = "rule"
    tokens_before: int = 0
    failed: str | None = None
    calls: int = 0
    scope: str | None = None


@dataclass(frozen=True, slots=True)
class ManagementReceipt:
    """What was done; ``MemoryManager.undo`` takes it back.

    Attributes:
        decisions: What was carried out.
        skipped: What was not, and why.
        failed: Why nothing was done; None when it worked, also where there was nothing to do.
        tokens_before: Tokens of short-term memory before.
        tokens_after: And after.
        calls: Model calls that it took.
        entries_before: The entries as they were.
        fact_events: Numbers of the journal's events that it wrote.
        scope: Whose memory it was done to.
    """

    decisions: tuple[Decision, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    failed: str | None = None
    tokens_before: int = 0
    tokens_after: int = 0
    calls: int = 0
    entries_before: tuple[Entry, ...] = field(default=(), repr=False)
    fact_events: tuple[int, ...] = ()
    scope: str | None = None


def validate(
    proposed: Iterable[Decision],
    entries: Sequence[Entry],
    policy: ShortTermPolicy,
    count: Callable[[str], int],
) -> tuple[list[Decision], list[Skipped]]:
    """Split decisions into those that may be carried out and those that may not.

    Unknown entries are skipped; the latest ``min_entries``, pinned and system entries are neither deleted nor
    compressed; a compression is shorter in tokens and not empty; a promotion names a key and a value; an entry
    is deleted or compressed once.

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
    for decision in proposed:
        why = _objection(decision, known.get(decision.entry_id), free, changed, count)
        if why:
            skipped.append(Skipped(decision, why))
            continue
        accepted.append(decision)
        if isinstance(decision, Delete | Compress):
            changed.add(decision.entry_id)
    return accepted, skipped


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
    if isinstance(decision, Promote) and (not decision.key.strip() or decision.value in (None, "", [], {})):
        return "a fact needs a key and a value"
    return None


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
