"""Which messages of a conversation are known already: LlamaIndex's have no ids, and engines tell the whole again."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Collection, Hashable, Sequence
from dataclasses import replace

from memory_integrations.arrival import new_id
from memory_integrations.forks import inherited
from memory_integrations.manager import MemoryManager
from memory_integrations.messages import Message
from memory_integrations.short_term import ShortTermMemory

_KNOWN = 50_000
"""Of so many messages of a session, the latest, it is known what they said."""
_CERTAIN = 3
"""So many messages in a row that say what was said last are those; or fewer, where one has its id."""


class Conversation:
    """What this process knows of a session's messages, in order: what they said, and their ids."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Held while messages are named and taken in, so that none is named twice."""
        self.begun = False
        """Whether something was told in this process, and not only resumed."""
        self._said: dict[str, int] = {}
        self._forgotten: set[str] = set()
        self._resumed = False
        self._recollected = False
        inherited(self)

    def leave_to_parent(self) -> None:
        """In a forked process: the lock is the parent's."""
        self.lock = threading.RLock()

    def resume(self, memory: MemoryManager) -> None:
        """Bring the conversation back that another process left, once.

        Raises:
            StoreError: A store cannot be read; the next call tries again.
        """
        if self._resumed:
            return
        with self.lock:
            if not self._resumed:
                self._note(memory.resume())
                self._resumed = True

    def recollect(self, memory: MemoryManager) -> None:
        """Note what another process stored of the conversation, once.

        Raises:
            StoreError: The store cannot be read; the next call tries again.
        """
        with self.lock:
            if not self._recollected:
                session = memory.scope.session_id
                self._note([said for said in memory.long_term.messages(session) if said.session_id == session])
                self._recollected = True

    def forget(self, memory: ShortTermMemory) -> None:
        """Forget what was said; it does not come back. Told again, it is said anew."""
        with self.lock:
            self._forgotten = {*self._said, *(entry.id for entry in memory.entries)}
            self._said.clear()
            self._resumed = True

    def named(self, told: Sequence[Message], memory: ShortTermMemory) -> list[Message]:
        """The messages under the ids that they have here, new ones under new ids.

        Args:
            told: The conversation, or the end of it, oldest first; messages that have ids keep them, of two with the
                same id the first.
            memory: What else was said in the session, through other components.
        """
        self.begun = True
        self._note([entry.original or entry.message for entry in memory.entries])
        first = {message.id: i for i, message in reversed(list(enumerate(told)))}
        told = [
            self._here(message, memory) if first[message.id] == i else _said_anew(message)
            for i, message in enumerate(told)
        ]
        ids = _match(list(self._said.items()), [(message.id, hash(_said(message))) for message in told])
        named = [replace(message, id=id_ or new_id()) for message, id_ in zip(told, ids, strict=True)]
        self._note(named)
        return named

    def unknown(self, told: Sequence[Message], memory: ShortTermMemory) -> list[Message]:
        """Those messages of :meth:`named` that were not known."""
        known = {*self._said, *(entry.id for entry in memory.entries)}
        return [message for message in self.named(told, memory) if message.id not in known]

    def new(self, message: Message, memory: ShortTermMemory) -> Message:
        """A message that is said now, under an id."""
        self.begun = True
        message = self._here(message, memory)
        named = message if message.id and message.id not in self._said else replace(message, id=new_id())
        self._note([named])
        return named

    def _here(self, message: Message, memory: ShortTermMemory) -> Message:
        """The message as one of this conversation: copied from another, or forgotten here, it is said anew."""
        id_ = message.id
        if id_ is None or id_ in self._said or memory.get(id_) is not None:
            return message
        if message.session_id in (None, memory.session_id) and id_ not in self._forgotten:
            return message
        return _said_anew(message)

    def _note(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.id:
                self._said.setdefault(message.id, hash(_said(message)))  # half the room of the texts
        while len(self._said) > _KNOWN:
            del self._said[next(iter(self._said))]


def conversation_of(memory: MemoryManager) -> Conversation:
    """What this process knows of the messages of a manager's session."""
    known: Conversation = memory.attached.setdefault("llama_index", Conversation())
    return known


def _said_anew(message: Message) -> Message:
    return replace(message, id=None, session_id=None, created_at=None)


def _said(message: Message) -> Hashable:
    """What a message says, as far as a store that keeps its text alone knows it."""
    text = message.text.strip()
    if text:
        return message.role, text
    calls = tuple((call.id, call.name) for call in message.tool_calls)
    return message.role, message.tool_call_id, calls, repr(message.content)


def _match(known: Sequence[tuple[str, Hashable]], told: Sequence[tuple[str | None, Hashable]]) -> list[str | None]:
    """The ids of what is told again; None for what is new.

    A message that has an id is that one, and no other is. What stands somewhere in the conversation as it is told is
    that part of it. Where it begins with the end of the conversation, what follows is new, also where it says what was
    said before. Else each is the first that says the same: something was changed in between.
    """
    named = {own for own, _ in told if own}
    said = [id_ if id_ in named else text for id_, text in known]
    begin, length = _overlap(said, [own or text for own, text in told])
    apart = _one_by_one(known, told, named)
    is_certain = length >= _CERTAIN or any(own for own, _ in told[:length])
    if length < len(told) and not is_certain and sum(map(bool, apart)) > length + 1:
        return apart
    ids = [id_ for id_, _ in known[begin : begin + length]]
    return [own or id_ for (own, _), id_ in zip(told, [*ids, *[None] * (len(told) - length)], strict=True)]


def _overlap(said: Sequence[Hashable], texts: Sequence[Hashable]) -> tuple[int, int]:
    """Where what is told begins in what was said, and how much of it: all, or up to the latest that was said."""
    if not texts:
        return 0, 0
    # As Knuth, Morris and Pratt do it: however often the same is said, each message is looked at about twice.
    borders = [0] * len(texts)
    for i in range(1, len(texts)):
        length = borders[i - 1]
        while length and texts[i] != texts[length]:
            length = borders[length - 1]
        borders[i] = length + (texts[i] == texts[length])
    length, whole = 0, None
    for i, text in enumerate(said):
        while length and (length == len(texts) or text != texts[length]):
            length = borders[length - 1]
        length += text == texts[length]
        if length == len(texts):
            whole = i + 1 - length  # the latest counts
    return (len(said) - length, length) if whole is None else (whole, len(texts))


def _one_by_one(
    known: Sequence[tuple[str, Hashable]], told: Sequence[tuple[str | None, Hashable]], named: Collection[str]
) -> list[str | None]:
    free: defaultdict[Hashable, deque[str]] = defaultdict(deque)
    for id_, said in known:
        if id_ not in named:
            free[said].append(id_)
    return [own or (free[text].popleft() if free.get(text) else None) for own, text in told]
