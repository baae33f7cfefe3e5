"""What managing short-term memory asks, plans and reports: values, and how a plan is made of proposals. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from html import escape
from typing import Any, Protocol

from memory_integrations.decisions import Compress, Decision, Delete, Forget, Keep, Promote, Skipped, states, validate
from memory_integrations.messages import transcript_line
from memory_integrations.policies import Entry, ShortTermPolicy


@dataclass(frozen=True, slots=True)
class ManagementRequest:
    """What whoever manages is given.

    Args:
        entries: Short-term memory, oldest first.
        facts: The facts that are known, by key.
        policy: The limits.
        now: The time, for age and decay.
        facts_changed: When facts were last set or deleted, by key.
        scope: Whose memory it is.
    """

    entries: tuple[Entry, ...]
    facts: Mapping[str, Any]
    policy: ShortTermPolicy
    now: datetime
    facts_changed: Mapping[str, datetime] = field(default_factory=dict)
    scope: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens of all entries."""
        return sum(entry.tokens for entry in self.entries)


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
        usage: Tokens that the model calls took, ``input_tokens`` and ``output_tokens``, as far as models say.
        before: The entries that it was made for; what changed since is left as it is.
        after: The entries as they will be.
        facts: The facts that were known; where there is a ``before``, one that changed since is left as it is.
    """

    decisions: tuple[Decision, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    source: str = "rule"
    tokens_before: int = 0
    failed: str | None = None
    calls: int = 0
    scope: str | None = None
    usage: Mapping[str, int] = field(default_factory=dict)
    before: tuple[Entry, ...] = field(default=(), repr=False)
    after: tuple[Entry, ...] = field(default=(), repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def diff(self) -> PlanDiff:
        """What it changes, before and after, with tokens: text when printed, a table in a notebook."""
        return PlanDiff(self)


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
        usage: Tokens that the model calls took, ``input_tokens`` and ``output_tokens``, as far as models say.
        entries_before: The entries as they were.
        fact_events: Numbers of the journal's events that it wrote.
        scope: Whose memory it was done to.
        number: Its number in the session's journal; None where nothing was done.
        at: When it was done, in UTC; None where nothing was.
    """

    decisions: tuple[Decision, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    failed: str | None = None
    tokens_before: int = 0
    tokens_after: int = 0
    calls: int = 0
    usage: Mapping[str, int] = field(default_factory=dict)
    entries_before: tuple[Entry, ...] = field(default=(), repr=False)
    fact_events: tuple[int, ...] = ()
    scope: str | None = None
    number: int | None = None
    at: datetime | None = None


class Manager(Protocol):
    """Whoever manages: a LangChain Runnable is one."""

    def invoke(self, input: ManagementRequest, /) -> ManagementPlan:
        """The plan for a request."""

    async def ainvoke(self, input: ManagementRequest, /) -> ManagementPlan:
        """Async twin of ``invoke``."""


def planned(
    proposed: Iterable[Decision],
    request: ManagementRequest,
    count: Callable[[str], int],
    *,
    source: str,
    skipped: Sequence[Skipped] = (),
    calls: int = 0,
    usage: Mapping[str, int] | None = None,
) -> ManagementPlan:
    """The plan of proposals: those that may be carried out, and why the others may not.

    Args:
        proposed: In order.
        request: What they were proposed for.
        count: Counts tokens.
        source: Who proposed them.
        skipped: What was not even a proposal.
        calls: Model calls that it took.
        usage: Tokens that they took.
    """
    entries = request.entries
    accepted, refused = validate(proposed, entries, request.policy, count)
    said = {entry.id: entry for entry in entries}
    decisions: list[Decision] = []
    for decision in accepted:
        why = _objection_to_fact(decision, request, said)
        if why:
            refused.append(Skipped(decision, why))
        else:
            decisions.append(decision)
    return ManagementPlan(
        decisions=tuple(decisions),
        skipped=(*skipped, *refused),
        source=source,
        tokens_before=request.tokens,
        calls=calls,
        scope=request.scope,
        usage=usage or {},
        before=entries,
        after=tuple(applied(entries, decisions, count)),
        facts=request.facts,
    )


def _objection_to_fact(decision: Decision, request: ManagementRequest, said: Mapping[str, Entry]) -> str | None:
    if not isinstance(decision, Promote | Forget):
        return None
    entry = said[decision.entry_id]
    changed = request.facts_changed.get(decision.key)
    if changed is not None and changed > entry.created_at:
        return "the fact was changed after this was said"
    known = decision.key in request.facts
    if isinstance(decision, Forget):
        return None if known else "there is no such fact"
    if known and request.facts[decision.key] == decision.value:
        return "the fact is known already"
    return None if states(decision.value, (entry.original or entry.message).text) else "the message does not say it"


def applied(entries: Sequence[Entry], decisions: Iterable[Decision], count: Callable[[str], int]) -> list[Entry]:
    """The entries as decisions leave them."""
    deleted = {decision.entry_id for decision in decisions if isinstance(decision, Delete)}
    shorter = {decision.entry_id: decision.content for decision in decisions if isinstance(decision, Compress)}
    return [
        replace(
            entry,
            message=replace(entry.message, content=shorter[entry.id]),
            tokens=count(shorter[entry.id]),
            original=entry.original or entry.message,
        )
        if entry.id in shorter
        else entry
        for entry in entries
        if entry.id not in deleted
    ]


class PlanDiff:
    """What a plan changes: what it says of each entry and fact, before and after. Entries that stay are left out.

    Args:
        plan: The plan.
    """

    def __init__(self, plan: ManagementPlan) -> None:
        self.plan = plan
        before = {entry.id: entry for entry in plan.before}
        after = {entry.id: entry for entry in plan.after}
        self.rows = [
            _row(decision, before.get(decision.entry_id), after.get(decision.entry_id), plan.facts)
            for decision in plan.decisions
            if not isinstance(decision, Keep)
        ]

    @property
    def summary(self) -> str:
        """How many changes, and tokens before and after; or why there is no plan."""
        plan = self.plan
        if plan.failed:
            return f"failed: {plan.failed}; nothing is changed"
        left = sum(entry.tokens for entry in plan.after)
        changes = f"{len(self.rows)} change{'' if len(self.rows) == 1 else 's'}"
        skipped = f", {len(plan.skipped)} skipped" if plan.skipped else ""
        return f"{changes}{skipped}, {plan.tokens_before:,} tokens before, {left:,} after"

    def __str__(self) -> str:
        lines = [self.summary]
        for what, before, after, why in self.rows:
            lines.append(f"{what}{f'  # {why}' if why else ''}")
            lines += [f"- {line}" for line in before.splitlines()]
            lines += [f"+ {line}" for line in after.splitlines()]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cell = "style='text-align:left;vertical-align:top;white-space:pre-wrap;overflow-wrap:anywhere'"
        head = "".join(
            f"<th {cell[:-1]};width:{width}%'>{name}</th>"
            for name, width in (("", 16), ("before", 36), ("after", 34), ("why", 14))
        )
        rows = "".join(
            "<tr>" + "".join(f"<td {cell}>{escape(part)}</td>" for part in row) + "</tr>" for row in self.rows
        )
        table = f"<table style='width:100%;max-width:960px;table-layout:fixed;margin:0'><tr>{head}</tr>{rows}</table>"
        return f"<p>{escape(self.summary)}</p>{table if rows else ''}"


def _row(
    decision: Decision, before: Entry | None, after: Entry | None, facts: Mapping[str, Any]
) -> tuple[str, str, str, str]:
    """What is done, what was, what will be, and why."""
    if isinstance(decision, Promote | Forget):
        was = f"{decision.key} = {facts[decision.key]!r}" if decision.key in facts else ""
        is_now = f"{decision.key} = {decision.value!r}" if isinstance(decision, Promote) else ""
        return "fact", was, is_now, decision.reason
    name = type(decision).__name__.lower()
    told = f"{name} {before.message.speaker}, {before.tokens} tokens" if before else name
    if isinstance(decision, Compress) and before and after:
        return f"{told} to {after.tokens}", before.content, after.content, decision.reason
    return told, _said(before) if before else "", "", decision.reason


def _said(entry: Entry) -> str:
    """What an entry says, and the tools that it calls."""
    return transcript_line(entry.message).removeprefix(f"{entry.message.speaker}: ").strip()
