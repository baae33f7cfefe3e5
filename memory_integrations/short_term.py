"""The running conversation, in the process, under a policy."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from memory_integrations.arrival import arrived, new_id, utc_now
from memory_integrations.delimiters import strip_injected
from memory_integrations.errors import ManagementError, MessageError
from memory_integrations.forks import inherited
from memory_integrations.messages import Content, Message
from memory_integrations.policies import (
    DropReason,
    Entry,
    Selection,
    ShortTermPolicy,
    at_target,
    choose_evictions,
    expired,
    latest_user,
    over_limits,
    select_whole,
    selecting,
)
from memory_integrations.tokens import TokenCounter, check_budget
from memory_integrations.views import View, warn_of_overflow

_GONE_KNOWN = 5_000
"""Of so many messages that are gone, and up to twice as many, a conversation knows the ids: they do not come back."""


class _Prepared(NamedTuple):
    """A state of a conversation, ready to be viewed."""

    entries: Sequence[Entry]
    select: Callable[[int], Selection]
    until: datetime | None
    """When the next entry expires."""


class ShortTermMemory:
    """A conversation under a :class:`ShortTermPolicy`. Safe for threads; gone with the process.

    Args:
        policy: What is kept; the default keeps 4,000 tokens.
        session_id: Given to messages that name no session.
        counter: Counts tokens; exact for ``cl100k_base`` by default.
        clock: Gives the time, aware; for tests.
    """

    def __init__(
        self,
        policy: ShortTermPolicy | None = None,
        *,
        session_id: str | None = None,
        counter: TokenCounter | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.policy = policy or ShortTermPolicy()
        self.session_id = session_id
        self.counter = counter or TokenCounter()
        self._clock = clock
        self._lock = threading.RLock()
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        # Ids that were here: why they are not any more, and what they said, as a hash.
        self._gone: dict[str, tuple[DropReason, int]] = {}
        self._gone_before: dict[str, tuple[DropReason, int]] = {}
        self.has_forgotten = False
        """Whether ids that were here longest ago are not known any more."""
        # What was compressed before a restart, by ids: what it said, and what it is shown by.
        self._shorter: dict[str, tuple[Message, str]] = {}
        self._tokens = 0
        self._revision = 0
        self.attached: dict[str, Any] = {}
        """What components that use the conversation know of it besides; once something was said, it stays with that."""
        self.told_again: frozenset[str] | None = None
        """What whoever keeps the conversation tells again at each turn, by ids, so that this need not keep it."""
        self.to_be_resumed = False
        """Whether long-term memory has what belongs here; its owner brings it back at the first use."""
        self._views: dict[int | None, tuple[datetime | None, View]] = {}
        self._prepared: _Prepared | None = None
        inherited(self)

    def leave_to_parent(self) -> None:
        """In a forked process: the lock is the parent's, one of whose threads may have been half way."""
        self._lock = threading.RLock()
        self.restore(self.entries)

    # Writing

    def held(self) -> AbstractContextManager[Any]:
        """Lets several calls of this thread be one step: other threads' changes wait until it is left."""
        return self._lock

    def add(
        self,
        content: Content,
        role: str = "user",
        *,
        name: str | None = None,
        id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Add what somebody said, and evict what the policy no longer holds.

        Args:
            content: Text, or a list of content blocks.
            role: "user", "assistant", "system" or "tool".
            name: Who speaks, where the role does not say it.
            id: The message's id; one is given where it is None. An id that is already here leaves one message.
            metadata: Anything else.

        Returns:
            The message's id.

        Raises:
            MessageError: The content is empty or the role is no text.
        """
        if not content or (isinstance(content, str) and content.isspace()):
            raise MessageError(f"content={content!r}: expected something said. Leave an empty message out.")
        now = self._clock()
        return self._admit(Message(role, content, name, id or new_id(), self.session_id, now, metadata or {}), now)

    def add_message(self, message: Message) -> str:
        """Add a message, whole and whatever its content; see :meth:`add`."""
        now = self._clock()
        known = self._entries.get(message.id) if message.id else None
        if known is not None and message.created_at is None:  # the time it arrived at first is its time
            message = replace(message, created_at=known.created_at)
        return self._admit(arrived(message, self.session_id, now), now)

    def extend(self, messages: Iterable[Message]) -> list[str]:
        """Add messages in order, with nothing of other threads between them; returns their ids."""
        with self._lock:
            return [self.add_message(message) for message in messages]

    def delete(self, entry_id: str) -> bool:
        """Delete an entry; False when there is none of that id."""
        with self._lock:
            entry = self._entries.pop(entry_id, None)
            if entry is None:
                return False
            self._note_gone(entry, "deleted")
            self._tokens -= entry.tokens
            self._changed()
            return True

    def compress_entry(self, entry_id: str, new_content: str) -> Entry:
        """Show an entry by a shorter text; what was said stays with it as ``original``.

        Blocks of injected memory in the text are left out, as they are of a message.

        Returns:
            The compressed entry.

        Raises:
            ManagementError: There is no such entry, the new content is empty, or it is not shorter in tokens.
        """
        with self._lock:
            entry = self._entries.get(entry_id)
            if entry is None:
                raise ManagementError(f"entry {entry_id!r}: there is no such entry; it may have been evicted.")
            shorter = strip_injected(new_content)
            message = replace(entry.message, content=shorter)
            tokens = self._count(message)
            if not shorter.strip() or tokens >= entry.tokens:
                raise ManagementError(
                    f"entry {entry_id!r}: its {entry.tokens} tokens were to be compressed to {tokens}: "
                    "expected a shorter text that is not empty. The entry was left as it is."
                )
            return self._put(replace(entry, message=message, tokens=tokens, original=entry.original or entry.message))

    def expand_entry(self, original: Message) -> Entry:
        """Show an entry as it was said; one that is gone comes back in its place in time, and may go again.

        Args:
            original: The message as it was said.

        Returns:
            The entry.
        """
        assert original.id is not None and original.created_at is not None  # it has arrived before
        with self._lock:
            self._shorter.pop(original.id, None)
            known = self._entries.get(original.id)
            entry = Entry(original.id, original, self._count(original), original.created_at)
            if known is not None:
                return self._put(replace(known, message=original, tokens=entry.tokens, original=None))
            later = [other for other in self._entries.values() if other.created_at > original.created_at]
            self._entries[entry.id] = entry
            for other in later:
                self._entries.move_to_end(other.id)
            self._tokens += entry.tokens
            self._changed()
            return entry

    def pin(self, entry_id: str, pinned: bool = True) -> bool:
        """Protect an entry from eviction and management, or no longer; False when there is none of that id."""
        return self._replace(entry_id, pinned=pinned)

    def touch(self, entry_id: str) -> bool:
        """Note that an entry was used, which lifts its retention; False when there is none of that id."""
        with self._lock:
            entry = self._entries.get(entry_id)
            return entry is not None and self._replace(entry_id, accesses=entry.accesses + 1)

    def remember_managed(self, deleted: Iterable[str], compressed: Mapping[str, tuple[Message, str]]) -> None:
        """Take over what managing did before a restart: for messages that are told again.

        Args:
            deleted: The ids of those that stay away.
            compressed: What others said, and the text that they are shown by, by their ids.
        """
        with self._lock:
            self._gone |= dict.fromkeys(deleted, ("deleted", 0))
            self._shorter |= compressed
            self._changed()

    def forget_managed(self, entry_ids: Iterable[str]) -> None:
        """Show entries as they were said, those that are deleted when they are told again."""
        with self._lock:
            for entry_id in entry_ids:
                self._gone.pop(entry_id, None)
                self._gone_before.pop(entry_id, None)
                self._shorter.pop(entry_id, None)
                entry = self._entries.get(entry_id)
                if entry is not None and entry.original is not None:
                    self.expand_entry(entry.original)

    def clear(self) -> int:
        """Forget everything; returns how many entries there were."""
        with self._lock:
            count = len(self._entries)
            self._entries.clear()
            self._gone, self._gone_before, self._shorter = {}, {}, {}
            self.has_forgotten = False
            self._tokens = 0
            self.to_be_resumed = False
            self._changed()
            return count

    def arrange(self, entry_ids: Sequence[str]) -> None:
        """Keep these entries alone, in this order; ids of none are passed over."""
        with self._lock:
            kept = [self._entries[id_] for id_ in dict.fromkeys(entry_ids) if id_ in self._entries]
            self.restore(kept)

    def restore(self, entries: Iterable[Entry]) -> None:
        """Make these the entries, in this order: the way back from a change."""
        with self._lock:
            self._entries = OrderedDict((entry.id, entry) for entry in entries)
            for entry_id in self._entries:  # what is here is not gone
                self._gone.pop(entry_id, None)
                self._gone_before.pop(entry_id, None)
            self._tokens = sum(entry.tokens for entry in self._entries.values())
            self._changed()

    # Reading

    @property
    def entries(self) -> list[Entry]:
        """The entries, oldest first; a snapshot."""
        with self._lock:
            return list(self._entries.values())

    @property
    def last(self) -> Entry | None:
        """The latest entry, or None."""
        with self._lock:
            return next(reversed(self._entries.values()), None)

    @property
    def total_tokens(self) -> int:
        """Tokens of all contents."""
        return self._tokens

    @property
    def revision(self) -> int:
        """A number that grows with every change."""
        return self._revision

    def get(self, entry_id: str) -> Entry | None:
        """The entry of an id, or None."""
        return self._entries.get(entry_id)

    def knows(self, message: Message) -> bool:
        """Whether a message was added as it is, be it evicted, deleted or compressed since."""
        with self._lock:
            entry = self._entries.get(message.id or "")
            if entry is None:
                gone = self._gone.get(message.id or "") or self._gone_before.get(message.id or "")
                return gone is not None and (gone[0] == "deleted" or gone[1] == hash(message.text))
            return _says_the_same(entry.original or entry.message, message)

    def is_outdated_by(self, message: Message) -> bool:
        """Whether what was compressed under a message's id said something else."""
        with self._lock:
            entry = self._entries.get(message.id or "")
            said = entry.original if entry is not None else self._shorter.get(message.id or "", (None, ""))[0]
            return said is not None and said.text != message.text

    def as_said(self, entry: Entry) -> Entry:
        """The entry before it was compressed; itself, where it was not."""
        if entry.original is None:
            return entry
        return replace(entry, message=entry.original, original=None, tokens=self._count(entry.original))

    def why_gone(self, entry_id: str) -> DropReason | None:
        """Why an entry that was here is not any more; None where it is here, or is not known."""
        if entry_id in self._entries:
            return None
        gone = self._gone.get(entry_id) or self._gone_before.get(entry_id)
        return gone[0] if gone else None

    @property
    def is_blank(self) -> bool:
        """Whether nothing was said since it began, or was cleared."""
        return not (self._entries or self._gone or self._gone_before)

    def is_as_managed(self, again: ShortTermMemory) -> bool:
        """Whether all that was done to its entries is what managing did, of which another one was told."""
        with self._lock:
            gone = {**self._gone_before, **self._gone}
            deleted = {id_ for id_, (reason, _) in gone.items() if reason == "deleted"}
            return deleted <= again._gone.keys() and all(
                not entry.pinned and again._as_managed(self.as_said(entry)).message == entry.message
                for entry in self._entries.values()
            )

    def __len__(self) -> int:
        return len(self._entries)

    def get_context(self, max_tokens: int | None = None) -> View:
        """What a model should see of the conversation, within a budget.

        System and pinned entries, the latest user message, then the newest that fit. A tool call stays with its
        results, and the first message that is not a system one is a user's. The same view object comes back
        while nothing changed.

        Args:
            max_tokens: The budget in tokens; None means the policy's ``max_tokens`` less ``reserved_tokens``.

        Raises:
            BudgetError: The budget is negative or not an integer.

        Warns:
            BudgetWarning: What must be shown is over the budget.
        """
        known = self._known_view(max_tokens)
        if known is not None:
            return known
        view = self.view(max_tokens)
        budget = self._budget(max_tokens)
        if view.tokens > budget:
            warn_of_overflow(view.tokens, budget)
        return view

    def view(self, max_tokens: int | None = None) -> View:
        """What :meth:`get_context` gives, without its warning: for those who try several budgets."""
        known = self._known_view(max_tokens)
        if known is not None:
            return known
        budget, prepared = self._budget(max_tokens), self._prepare()
        view = View(prepared.select(budget), prepared.entries)
        with self._lock:
            if prepared is self._prepared:
                self._views[max_tokens] = (prepared.until, view)
        return view

    def viewing(self, messages: Iterable[Message]) -> Callable[[int | None], View]:
        """Views of a conversation that is kept elsewhere, such as an agent's state, under this memory's policy.

        What is known here of a message holds for it: its age, its pin, its compressed text. What was deleted here or
        expired is left out, the latest user message excepted; of what was evicted for its tokens the budget decides.

        Args:
            messages: The conversation, oldest first.

        Returns:
            A function that gives the view within a budget of tokens; None means the policy's.
        """
        now = self._clock()
        entries = [self._entry_of(message, now) for message in messages]
        latest = latest_user(entries)
        gone = {
            entry.id: reason
            for entry in entries
            if (reason := self.why_gone(entry.id)) in ("deleted", "expired") and entry.id != latest
        }
        shown = [entry for entry in entries if entry.id not in gone]

        select = selecting(shown, now, self.policy)

        def view(max_tokens: int | None) -> View:
            chosen = select(self._budget(max_tokens))
            return View(replace(chosen, reasons={**chosen.reasons, **gone}), entries)

        return view

    def whole(self, messages: Iterable[Message]) -> View:
        """What an agent did in a turn that is under way: nothing of it is too old, deleted, or over a budget."""
        now = self._clock()
        entries = [self._entry_of(message, now) for message in messages]
        return View(select_whole(entries), entries)

    # Inside

    def _entry_of(self, message: Message, now: datetime) -> Entry:
        """The entry that a message has here, or would have."""
        entry = self._entries.get(message.id or "")
        if entry is None:
            message = arrived(message, self.session_id, now)
            assert message.id is not None and message.created_at is not None  # given on arrival
            return self._as_managed(Entry(message.id, message, self._count(message), message.created_at))
        same = _says_the_same(entry.original or entry.message, message)
        if same and entry.original is not None:
            return entry
        tokens = entry.tokens if same else self._count(message)
        return Entry(entry.id, message, tokens, entry.created_at, entry.accesses, entry.pinned)

    def _known_view(self, max_tokens: int | None) -> View | None:
        """The view of a budget, where nothing changed and nothing expired since it was made."""
        until, view = self._views.get(max_tokens, (None, None))
        return view if until is None or self._clock() <= until else None

    def _prepare(self) -> _Prepared:
        """What views of all budgets have in common, worked out once for each state."""
        with self._lock:
            now, prepared = self._clock(), self._prepared
            if prepared is None or (prepared.until is not None and now > prepared.until):
                entries = list(self._entries.values())
                select = selecting(entries, now, self.policy)
                prepared = self._prepared = _Prepared(entries, select, self._valid_until(entries, now))
            return prepared

    def _budget(self, max_tokens: int | None) -> int:
        budget = check_budget(max_tokens)
        return max(self.policy.max_tokens - self.policy.reserved_tokens, 0) if budget is None else budget

    def _admit(self, message: Message, now: datetime) -> str:
        assert message.id is not None and message.created_at is not None  # given on arrival
        entry = Entry(message.id, message, self._count(message), message.created_at)
        with self._lock:
            known = self._entries.get(entry.id)
            if known is not None:
                if known.message == message or known.original == message:
                    return entry.id
                entry = replace(entry, accesses=known.accesses, pinned=known.pinned)
                self._tokens -= known.tokens
            elif self._shorter:
                entry = self._as_managed(entry)
            self._entries[entry.id] = entry
            self._tokens += entry.tokens
            self._evict(now)
            self._changed()
        return entry.id

    def _as_managed(self, entry: Entry) -> Entry:
        """An entry by the text that it was compressed to before a restart, where it still says the same."""
        said, shorter = self._shorter.get(entry.id, (None, ""))
        if said is None or said.text != entry.message.text:
            return entry
        message = replace(entry.message, content=shorter)
        return replace(entry, message=message, tokens=self._count(message), original=entry.message)

    def _count(self, message: Message) -> int:
        count, content, calls = self.counter.count, message.content, message.tool_calls
        if calls and not isinstance(content, str):  # providers may repeat calls there
            ids = [call.id for call in calls]
            content = [block for block in content if not _is_call(block, ids)]
        tokens = self.counter.count_content(content)
        for call in calls:
            tokens += count(call.name) + count(json.dumps(dict(call.arguments), ensure_ascii=False, default=str))
        return tokens

    def _put(self, entry: Entry) -> Entry:
        """Put an entry in the place of the one with its id."""
        self._tokens += entry.tokens - self._entries[entry.id].tokens
        self._entries[entry.id] = entry
        self._changed()
        return entry

    def _replace(self, entry_id: str, **changes: Any) -> bool:
        with self._lock:
            entry = self._entries.get(entry_id)
            if entry is not None:
                self._put(replace(entry, **changes))
            return entry is not None

    def _changed(self) -> None:
        self._revision += 1
        self._prepared = None
        if self._views:
            self._views = {}

    def _evict(self, now: datetime) -> None:
        policy, entries = self.policy, self._entries
        over = over_limits(self._tokens, len(entries), policy)
        if not over and not expired(next(iter(entries.values())), now, policy):
            return
        # The usual case, the oldest of a plain conversation must go, without looking at all the others.
        if over and policy.decay_half_life is None and policy.max_age is None:
            latest = latest_user(entries.values())
            while over and len(entries) > policy.min_entries:
                oldest = next(iter(entries.values()))
                if oldest.protected or oldest.id == latest:
                    break
                del entries[oldest.id]
                self._note_gone(oldest, "budget")
                self._tokens -= oldest.tokens
                over = not at_target(self._tokens, len(entries), policy)
            if not over:
                return
        for entry_id in choose_evictions(list(entries.values()), now, policy, begun=over):
            entry = entries.pop(entry_id)
            self._tokens -= entry.tokens
            self._note_gone(entry, "expired" if expired(entry, now, policy) else "budget")

    def _note_gone(self, entry: Entry, reason: DropReason) -> None:
        self._gone[entry.id] = reason, hash((entry.original or entry.message).text)
        if len(self._gone) > _GONE_KNOWN:  # the older half is forgotten at once: one by one would cost more
            self.has_forgotten = self.has_forgotten or bool(self._gone_before)
            self._gone, self._gone_before = {}, self._gone

    def _valid_until(self, entries: Sequence[Entry], now: datetime) -> datetime | None:
        """When the next entry expires."""
        if self.policy.max_age is None:
            return None
        try:
            ages = [entry.created_at + self.policy.max_age for entry in entries if not entry.protected]
        except OverflowError:  # an age that no entry can reach
            return None
        return min((moment for moment in ages if moment >= now), default=None)


def _is_call(block: str | Mapping[str, Any], ids: Collection[str]) -> bool:
    """Whether a content block is the call of one of these ids."""
    if not isinstance(block, Mapping) or block.get("type") == "text":
        return False
    return (block.get("call_id") or block.get("id")) in ids


def _says_the_same(message: Message, other: Message) -> bool:
    """Whether another message says what one does. A view leaves unanswered calls out: given back, it is no edit."""
    return (
        message.content == other.content
        and message.role == other.role
        and message.name == other.name
        and all(call in message.tool_calls for call in other.tool_calls)
        and (message.tool_call_id or "") == (other.tool_call_id or "")  # LangChain has no result without an id
    )
