"""The conversations of one process: which are kept, which are let go of, and what waits to be stored of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from weakref import WeakValueDictionary

from memory_integrations.errors import ScopeError
from memory_integrations.messages import Message
from memory_integrations.scopes import MemoryScope
from memory_integrations.short_term import ShortTermMemory

_CLAIMED = 20_000  # of so many messages it is known whose they are
_UNIQUE = 16  # characters of an id that nobody else's message has by chance
_KEPT = 1000  # conversations that nobody holds stay in memory
_RELEASED_KNOWN = 100_000


class Sessions:
    """One conversation for each scope, shared by whoever asks for it. A server meets sessions without end.

    Args:
        begin: Makes the conversation of a scope, as it was managed.
        can_be_resumed: Whether what was said in a conversation can be brought back, and no more than that.
    """

    def __init__(
        self,
        begin: Callable[[MemoryScope], ShortTermMemory],
        can_be_resumed: Callable[[MemoryScope, ShortTermMemory], bool],
    ) -> None:
        self._begin = begin
        self._can_be_resumed = can_be_resumed
        self._lock = threading.Lock()
        self._held: WeakValueDictionary[MemoryScope, ShortTermMemory] = WeakValueDictionary()
        self._recent: OrderedDict[MemoryScope, ShortTermMemory] = OrderedDict()
        self._released: OrderedDict[MemoryScope, None] = OrderedDict()
        self._turns: dict[MemoryScope, int] = {}
        self._waiting: dict[MemoryScope, list[Message]] = {}
        self._claimed: OrderedDict[tuple[str | None, str | None, int], str] = OrderedDict()

    def of(self, scope: MemoryScope) -> ShortTermMemory:
        """The one conversation of a scope in this process; for how long: see :meth:`release_one`.

        Raises:
            StoreError: How it was managed cannot be read.
        """
        with self._lock:
            found = self._held.get(scope)
            if found is None:
                found = self._held[scope] = self._begin(scope)
                found.to_be_resumed = scope in self._released
                self._released.pop(scope, None)
            self._recent[scope] = found
            self._recent.move_to_end(scope)
            return found

    def of_owner(self, owner: MemoryScope) -> list[ShortTermMemory]:
        """Every conversation whose durable memories an owner has."""
        with self._lock:
            return [memory for scope, memory in self._held.items() if scope.owner == owner]

    def release_one(self) -> None:
        """Let go of the conversation that was used longest ago, where more are kept than need be and it can come back.

        One that somebody holds stays all the same, while it is held.
        """
        with self._lock:
            if len(self._recent) <= _KEPT:
                return
            scope, conversation = next(iter(self._recent.items()))
            self._recent.move_to_end(scope)  # where it must stay, the next in turn is asked next time
            revision = conversation.revision
        if conversation.diverged or self.waiting(scope) or not self._can_be_resumed(scope, conversation):
            return
        with self._lock:
            if conversation.revision == revision and self._recent.pop(scope, None) is not None:
                self._turns.pop(scope, None)
                if len(conversation) or conversation.to_be_resumed:
                    self._released[scope] = None
                if len(self._released) > _RELEASED_KNOWN:
                    self._released.popitem(last=False)

    def is_due(self, scope: MemoryScope, new_turns: int, every: int) -> bool:
        """Count turns of a conversation; whether ``every`` of them are full, after which it counts anew."""
        with self._lock:
            turns = self._turns.get(scope, 0) + new_turns
            self._turns[scope] = turns % every
        return turns >= every

    def claim(self, scope: MemoryScope, messages: Iterable[Message]) -> None:
        """Note whose conversation messages are from.

        Raises:
            ScopeError: The same message of the same session is another user's already: two users share a thread.
        """
        if scope.user_id is None:
            return
        with self._lock:
            for message in messages:
                if not message.id or len(message.id) < _UNIQUE:
                    continue  # "1" is everybody's
                name = scope.session_id, message.id, hash(message.text)
                owner = self._claimed.setdefault(name, scope.user_id)
                if owner != scope.user_id:
                    raise ScopeError(
                        f"The thread {scope.session_id!r} holds messages of another user than {scope.user_id!r}. Give "
                        "each user threads of their own: their ids must differ, since a checkpointer knows no users. "
                        "Nothing was stored."
                    )
            while len(self._claimed) > _CLAIMED:
                self._claimed.popitem(last=False)

    # What waits to be stored in long-term memory

    def wait(self, scope: MemoryScope, messages: Iterable[Message]) -> None:
        """Keep messages of a conversation until they are stored."""
        with self._lock:
            self._waiting.setdefault(scope, []).extend(messages)

    def waiting(self, scope: MemoryScope) -> list[Message]:
        """The messages of a conversation that are not yet stored."""
        with self._lock:
            return list(self._waiting.get(scope, ()))

    def stored(self, scope: MemoryScope, messages: Sequence[Message]) -> None:
        """Note that messages wait no longer."""
        done = set(map(id, messages))
        with self._lock:
            left = [message for message in self._waiting.get(scope, ()) if id(message) not in done]
            self._waiting.pop(scope, None)
            if left:
                self._waiting[scope] = left

    def scopes_waiting(self) -> list[MemoryScope]:
        """The conversations of which something waits."""
        with self._lock:
            return list(self._waiting)
