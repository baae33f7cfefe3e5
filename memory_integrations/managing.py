"""Managing one session: what a manager is asked, and what is done of what it answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from memory_integrations.decisions import Compress, Decision, Delete, Forget, Keep, Promote, Skipped, validate
from memory_integrations.errors import FactError, ManagementError
from memory_integrations.features import FeatureMemory
from memory_integrations.managed import ManagementLog
from memory_integrations.messages import Message
from memory_integrations.plans import ManagementPlan, ManagementReceipt, ManagementRequest, Manager, applied, planned
from memory_integrations.policies import Entry
from memory_integrations.rules import RuleManager
from memory_integrations.scopes import MemoryScope
from memory_integrations.short_term import ShortTermMemory

_log = logging.getLogger("memory_integrations")
_NO_FACT = object()


@dataclass(frozen=True, slots=True)
class Managing:
    """What managing a session needs.

    Attributes:
        scope: The session.
        manager: Whoever plans.
        memory: The conversation.
        features: The facts of its owner.
        log: Gives what managing writes down of the session; called when there is something to write.
        count: Counts the tokens of a text.
        clock: Gives the time, aware.
    """

    scope: MemoryScope
    manager: Manager
    memory: ShortTermMemory
    features: FeatureMemory
    log: Callable[[], ManagementLog]
    count: Callable[[str], int]
    clock: Callable[[], datetime]

    def plan(self) -> ManagementPlan:
        """Ask the manager; where it fails, the plan says so and nothing is to be done."""
        request = self._request()
        if self._is_below(request):
            return planned((), request, self.count, source="llm")
        try:
            return _expected(self.manager.invoke(request))
        except Exception as error:
            return _failed(request, error)

    async def aplan(self) -> ManagementPlan:
        """Async twin of :meth:`plan`: the manager is awaited, the rest is done in threads."""
        request = await asyncio.to_thread(self._request)
        if self._is_below(request):
            return planned((), request, self.count, source="llm")
        try:
            return _expected(await self.manager.ainvoke(request))
        except Exception as error:
            return _failed(request, error)

    def carry_out(self, plan: ManagementPlan) -> ManagementReceipt:
        """Do what a plan says and still holds; whoever calls holds the conversation.

        Raises:
            StoreError: A fact or an original could not be written; the facts before it were, the entries are unchanged.
        """
        memory = self.memory
        before, tokens_before = memory.entries, memory.total_tokens
        if plan.failed:
            return ManagementReceipt(
                skipped=plan.skipped, failed=plan.failed, tokens_before=tokens_before, tokens_after=tokens_before,
                calls=plan.calls, usage=plan.usage,
            )  # fmt: skip
        current, changed = _unchanged(plan, before)
        accepted, refused = validate(current, before, memory.policy, self.count)
        self.features.refresh()
        done: list[Decision] = []
        events: list[int] = []
        learnt: set[str] = set()
        skipped = [*plan.skipped, *changed, *refused]
        said = {entry.id: entry for entry in before}
        for decision in accepted:
            why = self._changed_since(decision, plan, learnt, said[decision.entry_id]) or self._learn(
                decision, plan.source, events, learnt
            )
            if why:
                skipped.append(Skipped(decision, why))
            else:
                done.append(decision)
        receipt = ManagementReceipt(
            decisions=tuple(done),
            skipped=tuple(skipped),
            tokens_before=tokens_before,
            tokens_after=sum(entry.tokens for entry in applied(before, done, self.count)),
            calls=plan.calls,
            usage=plan.usage,
            entries_before=tuple(before),
            fact_events=tuple(events),
            scope=str(self.scope),
        )
        if any(not isinstance(decision, Keep) for decision in done):
            receipt = self._write_down(receipt)
        for decision in done:
            if isinstance(decision, Delete):
                memory.delete(decision.entry_id)
            elif isinstance(decision, Compress):
                memory.compress_entry(decision.entry_id, decision.content)
        return receipt

    def _request(self) -> ManagementRequest:
        """What whoever manages is given now."""
        self.features.refresh()
        return ManagementRequest(
            entries=tuple(self.memory.entries),
            facts=self.features.all(),
            policy=self.memory.policy,
            now=self.clock(),
            facts_changed=self.features.changes(),
            scope=str(self.scope),
        )

    def _is_below(self, request: ManagementRequest) -> bool:
        """Whether so little was said that no model is called."""
        return not isinstance(self.manager, RuleManager) and request.tokens <= request.policy.threshold

    def _changed_since(
        self, decision: Decision, plan: ManagementPlan, learnt: Collection[str], said: Entry
    ) -> str | None:
        """Why a decision on a fact comes too late; of a plan made by hand it is not known what it was made for."""
        if not plan.before or not isinstance(decision, Promote | Forget) or decision.key in learnt:
            return None
        erased = self.features.erased_at(decision.key)
        if erased is not None and said.created_at <= erased:
            return "the fact was erased after this was said"
        now, was = self.features.get(decision.key, _NO_FACT), plan.facts.get(decision.key, _NO_FACT)
        if now is was or now == was or (isinstance(decision, Promote) and now == decision.value):
            return None
        return "the fact was changed after the plan was made"

    def _learn(self, decision: Decision, source: str, events: list[int], learnt: set[str]) -> str | None:
        """Change the fact that a decision is about, and note the event and the key; or say why not."""
        features = self.features
        if isinstance(decision, Forget):
            event = features.retract(decision.key, source, decision.entry_id)
            if event is None:
                return "there is no such fact"
            events.append(event)
        if isinstance(decision, Promote):
            if decision.key in features and features.get(decision.key) == decision.value:
                return "the fact is known already"
            try:
                event = features.set(decision.key, decision.value, source, decision.confidence, decision.entry_id)
            except FactError as error:
                return str(error)
            events.append(event)
        if isinstance(decision, Promote | Forget):
            learnt.add(decision.key)
        return None

    def _write_down(self, receipt: ManagementReceipt) -> ManagementReceipt:
        """Write down what is about to be done, and what entries said that will be compressed."""
        log = self.log()
        compressed = {decision.entry_id for decision in receipt.decisions if isinstance(decision, Compress)}
        for entry in receipt.entries_before:
            if entry.id in compressed:
                log.keep(entry.original or entry.message)
        return log.note(receipt)


def turns_ended(said: Sequence[Message], before: Entry | None) -> int:
    """How many turns end in what is said: each with its answer, or with a tool's result where the user then goes on.

    An agent that calls tools is in the middle of its turn.

    Args:
        said: Messages of a session, oldest first.
        before: The entry of what was said before them.
    """
    answers = sum(message.role == "assistant" and not message.tool_calls for message in said)
    earlier = [] if before is None else [before.message]
    left = sum(_is_work(one) and then.role == "user" for one, then in pairwise([*earlier, *said]))
    return answers + left


def _is_work(message: Message) -> bool:
    return message.role == "tool" or bool(message.tool_calls)


def _expected(plan: Any) -> ManagementPlan:
    if not isinstance(plan, ManagementPlan):
        raise ManagementError(f"The manager gave {type(plan).__name__}: expected a ManagementPlan.")
    return plan


def _failed(request: ManagementRequest, error: Exception) -> ManagementPlan:
    """The plan where a manager failed: whatever a model, its client or its answer did, nothing is changed."""
    _log.warning("managing short-term memory failed: %s", type(error).__name__)
    return ManagementPlan(
        source="llm",
        tokens_before=request.tokens,
        failed=f"{type(error).__name__}: {error}",
        calls=1,
        scope=request.scope,
        before=request.entries,
        after=request.entries,
        facts=request.facts,
    )


def _unchanged(plan: ManagementPlan, entries: Sequence[Entry]) -> tuple[list[Decision], list[Skipped]]:
    """A plan's decisions on what is still as it was when the plan was made, and the others."""
    was = {entry.id: entry.message for entry in plan.before}
    now = {entry.id: entry.message for entry in entries}
    kept: list[Decision] = []
    changed: list[Skipped] = []
    for decision in plan.decisions:
        id_ = decision.entry_id
        if id_ in was and id_ in now and was[id_] != now[id_]:
            changed.append(Skipped(decision, "the entry was changed after the plan was made"))
        else:
            kept.append(decision)
    return kept, changed
