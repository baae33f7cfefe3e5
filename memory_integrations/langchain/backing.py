"""Writing a conversation to another chat history, which may keep no ids and may fail: everything is in it once.

What a write leaves undone waits in this process, and the next reading or writing does it.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b

from langchain_core.messages import BaseMessage

from memory_integrations.errors import MemoryIntegrationError, StoreUnavailableError
from memory_integrations.forks import inherited
from memory_integrations.langchain.messages import from_langchain
from memory_integrations.manager import MemoryManager
from memory_integrations.messages import Message
from memory_integrations.short_term import ShortTermMemory

_PLACES = 10_000
"""Of so many messages of a session it is known which they are in a backing that keeps no ids."""


class _Backed:
    """What this process knows of a session's backing, which may keep no ids, and may fail to be written."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        """Held for a moment only, also on an event loop: what manages the conversation holds that for much longer."""
        self.tried: list[BaseMessage] = []
        """What a write failed for; some of it may be there."""
        self.untried: list[BaseMessage] = []
        """What was to be written after that."""
        self.counts: Counter[str] = Counter()
        """How often the backing had each text, where it keeps no ids, before the write that failed."""
        self.ids: dict[tuple[str, int], str] = {}
        """The ids that messages have here, by what they say and for which time."""
        self.writes = 0
        inherited(self)

    def leave_to_parent(self) -> None:
        """In a forked process: the lock is the parent's."""
        self.lock = threading.Lock()


_ATTACHED = "langchain backing"


def forget(memory: ShortTermMemory) -> None:
    """Forget what waits to be written, and what is known of a session's backing."""
    memory.attached.pop(_ATTACHED, None)


class Writing:
    """One reading and writing of a backing: afterwards everything is in it once, or waits for the next.

    Args:
        memory: The memory of the session.
        backing: What the backing is called.
        added: What is to be written besides.
        remember: Whether long-term memory has it too, which then knows what was erased.

    Attributes:
        earlier: What it had, each message under its id.
        missing: What it lacks.
    """

    def __init__(self, memory: MemoryManager, backing: str, added: Sequence[BaseMessage], remember: bool) -> None:
        self.earlier: list[BaseMessage] = []
        self.missing: list[BaseMessage] = []
        self._backing = backing
        self._planned = False
        self._memory = memory.short_term
        self._still_there: Callable[[Sequence[Message]], Sequence[Message]] = memory.still_there if remember else list
        self._tag = memory.scope.tag
        self._known: _Backed = self._memory.attached.setdefault(_ATTACHED, _Backed())
        with self._known.lock:  # taken, so that no two write the same
            self._tried, self._known.tried = self._known.tried, []
            self._untried, self._known.untried = self._known.untried, []
        self._added = added

    @property
    def whole(self) -> list[BaseMessage]:
        """The conversation, once everything is written."""
        return by_id([*self.earlier, *self.missing])

    def plan(self, whole: Iterable[BaseMessage]) -> None:
        """See what is missing.

        Raises:
            StoreError: It cannot be asked what was erased since; everything waits on.
        """
        whole, known = list(whole), self._known
        said = [None if message.id else _said(message) for message in whole]
        kept = {message.id for message in whole if message.id}
        self._counts = Counter(text for text in said if text)
        self._writes = known.writes
        # What was erased or deleted since is written no more.
        there = self._not_erased([*self._tried, *self._untried])
        self._tried = [message for message in self._tried if message.id in there]
        self._untried = [message for message in self._untried if message.id in there]
        with known.lock:
            before = Counter(known.counts)
            for message in self._tried:
                text = _said(message)
                if message.id in kept:
                    continue
                if before[text] < self._counts[text]:  # it was written before the write failed
                    before[text] += 1
                    self._note(text, before[text], message)
                else:
                    self.missing.append(message)
        self.earlier = by_id(self._named(whole, said))
        written = {message.id: message for message in (*self.earlier, *self.missing)}
        for message in (*self._untried, *self._added):
            if message.id not in written or _said(written[message.id]) != _said(message):
                self.missing.append(message)
                written[message.id] = message
        self._keeps_ids = bool(whole) and len(kept) == len(whole)
        self._planned = True

    def __enter__(self) -> Writing:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        known = self._known
        with known.lock:
            if error is None:
                alone = known.writes == self._writes
                for message in () if self._keeps_ids else self.missing:
                    text = _said(message)
                    self._counts[text] += 1
                    while not alone and (text, self._counts[text]) in known.ids:  # another one said it meanwhile
                        self._counts[text] += 1
                    self._note(text, self._counts[text], message)
                known.writes += bool(self.missing)
            elif self._planned:
                known.tried, known.counts = [*self.missing, *known.tried], self._counts
            else:
                known.tried = [*self._tried, *known.tried]
                known.untried = [*self._untried, *self._added, *known.untried]
        if isinstance(error, Exception) and not isinstance(error, MemoryIntegrationError):
            raise StoreUnavailableError(
                f"The backing {self._backing} could not be read or written ({error}). What it lacks is "
                "kept in this process; the next call writes it."
            ) from error

    def _not_erased(self, waiting: Iterable[BaseMessage]) -> set[str | None]:
        """The ids of those that were taken into the conversation, and neither erased with it nor deleted since."""
        said: list[Message] = []
        for message in map(from_langchain, waiting):
            entry = self._memory.get(message.id or "")
            if entry is not None:
                said.append(entry.original or entry.message)  # with its time
            elif self._memory.knows(message):
                said.append(message)
        return {message.id for message in self._still_there(said)} if said else set()

    def _named(self, whole: Iterable[BaseMessage], said: Iterable[str | None]) -> Iterable[BaseMessage]:
        """The messages of a backing under their ids; where it keeps none, the same message always gets the same."""
        counts: Counter[str] = Counter()
        for message, text in zip(whole, said, strict=True):
            if text is None:
                yield message
                continue
            counts[text] += 1
            id_ = self._known.ids.get((text, counts[text]))
            # Others' sessions may have this one's name, and say the same.
            yield message.model_copy(update={"id": id_ or f"b-{_short(self._tag + text)}-{counts[text]}"})

    def _note(self, text: str, count: int, message: BaseMessage) -> None:
        """Note which message says a text for the first, second, ... time."""
        ids = self._known.ids
        ids[text, count] = message.id or ""
        if len(ids) > _PLACES:
            del ids[next(iter(ids))]


def _said(message: BaseMessage) -> str:
    """Who says what, as a short text; what else there is to a message a backing may not keep."""
    content = json.dumps([message.type, message.content], sort_keys=True, default=str)
    return _short(content)


def _short(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def by_id(messages: Iterable[BaseMessage]) -> list[BaseMessage]:
    """The messages, of each id the latest, in the place of the first."""
    return list({message.id: message for message in messages}.values())
