"""The conversations of one process: which are kept, which are let go of, and what waits to be stored of them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from memory_integrations.errors import MemoryIntegrationError, MessageError, ScopeError
from memory_integrations.forks import inherited
from memory_integrations.messages import Message
from memory_integrations.scopes import MemoryScope
from memory_integrations.short_term import ShortTermMemory

_CLAIMED = 20_000  # of so many messages it is known whose they are
_UNIQUE = 16  # characters of an id that nobody else's message has by chance
_KEPT = 1000  # conversations that nobody holds stay in memory
_RELEASED_KNOWN = 100_000  # of so many that went it is known that they are to come back
_PAUSE = 60.0  # seconds until a message that is refused for what it says is tried again, twice as many each time
_AT_ONCE = 2  # looked at by one call, so that they become fewer again
_LOOKS_AGAIN_AFTER = 60.0  # seconds until it is asked again what other processes erased of a conversation


class Sessions:
    """One conversation for each scope, shared by whoever asks for it. A server meets sessions without end.

    Args:
        begin: Makes the conversation of a scope, as it was managed.
        comes_back: Whether a conversation that is let go of comes back as it is: told again, or from long-term memory.
    """

    def __init__(
        self,
        begin: Callable[[MemoryScope], ShortTermMemory],
        comes_back: Callable[[MemoryScope, ShortTermMemory], bool],
    ) -> None:
        self._begin = begin
        self._comes_back = comes_back
        self._lock = threading.Lock()
        self._held: WeakValueDictionary[MemoryScope, ShortTermMemory] = WeakValueDictionary()
        self._recent: OrderedDict[MemoryScope, ShortTermMemory] = OrderedDict()
        self._staying: WeakKeyDictionary[ShortTermMemory, int] = WeakKeyDictionary()  # by their revisions
        self._released: OrderedDict[MemoryScope, None] = OrderedDict()
        self._looked: WeakKeyDictionary[ShortTermMemory, float] = WeakKeyDictionary()
        self._look_again_at = 0.0
        self._turns: dict[MemoryScope, int] = {}
        self._waiting: dict[MemoryScope, list[Message]] = {}
        self._refused: dict[int, tuple[float, float]] = {}  # until when, after which pause, by identities of messages
        self._claimed: OrderedDict[tuple[str | None, str | None, int], str] = OrderedDict()
        inherited(self)

    def leave_to_parent(self) -> None:
        """In a forked process: the lock is the parent's, and so is what waits: it may be erased there meanwhile."""
        self._lock = threading.Lock()
        self._waiting, self._refused = {}, {}

    def of(self, scope: MemoryScope) -> ShortTermMemory:
        """The one conversation of a scope in this process; for how long: see :meth:`release`.

        Raises:
            StoreError: How it was managed cannot be read.
        """
        with self._lock:
            found = self._held.get(scope)
        made = found if found is not None else self._begin(scope)  # it reads, which others need not wait for
        with self._lock:
            found = self._held.setdefault(scope, made)
            if found is made and scope in self._released:
                del self._released[scope]
                found.to_be_resumed = True
            self._recent[scope] = found
            self._recent.move_to_end(scope)
            return found

    def get(self, scope: MemoryScope) -> ShortTermMemory | None:
        """The conversation of a scope, where it is in memory."""
        with self._lock:
            return self._held.get(scope)

    def within(self, scope: MemoryScope) -> list[ShortTermMemory]:
        """The conversations in memory that are erased with a scope: of an owner those of every session."""
        with self._lock:
            return [memory for one, memory in self._held.items() if _is_within(one, scope)]

    def forget(self, scope: MemoryScope) -> int:
        """Clear the conversations :meth:`within` a scope; returns how many messages they had in memory."""
        with self._lock:
            for one in [one for one in self._released if _is_within(one, scope)]:
                del self._released[one]
        return sum(conversation.clear() for conversation in self.within(scope))

    def settle(self, scope: MemoryScope) -> None:
        """Wait until what is being done to the conversations :meth:`within` a scope is done."""
        for conversation in self.within(scope):
            with conversation.held():
                pass

    def release(self) -> None:
        """Let go of conversations that were used longest ago, where more are kept than need be.

        Of those that nobody holds, and that come back as they are: from long-term memory at their next use, or since
        whoever keeps them tells them again.
        """
        for _ in range(_AT_ONCE):
            with self._lock:
                if len(self._recent) <= _KEPT:
                    return
                scope, conversation = next(iter(self._recent.items()))
                self._recent.move_to_end(scope)  # where it stays, the next in turn is looked at next time
                revision = conversation.revision
                if self._must_stay(scope, conversation) or self._staying.get(conversation) == revision:
                    continue
            if not self._can_go(scope, conversation):
                self._staying[conversation] = revision
                continue
            with self._lock:
                if conversation.revision != revision or self._must_stay(scope, conversation):
                    continue
                comes_back = conversation.told_again is None and (len(conversation) > 0 or conversation.to_be_resumed)
                self._recent.pop(scope, None)
                alive = ref(conversation)
                del conversation
                if (used := alive()) is not None:  # somebody holds it
                    self._recent[scope] = used
                    continue
                self._turns.pop(scope, None)
                if comes_back:
                    self._released[scope] = None
                if len(self._released) > _RELEASED_KNOWN:
                    self._released.popitem(last=False)

    def _must_stay(self, scope: MemoryScope, conversation: ShortTermMemory) -> bool:
        """Whether something is known of it that nothing would bring back: of what was cleared or erased, nothing is."""
        return scope in self._waiting or bool(conversation.attached and not conversation.is_blank)

    def _can_go(self, scope: MemoryScope, conversation: ShortTermMemory) -> bool:
        if conversation.to_be_resumed or conversation.is_blank:
            return True  # it was not used since it came back, or since it was cleared
        return self._comes_back(scope, conversation)

    def is_due(self, scope: MemoryScope, new_turns: int, every: int) -> bool:
        """Count turns of a conversation; whether ``every`` of them are full, after which it counts anew."""
        with self._lock:
            turns = self._turns.get(scope, 0) + new_turns
            self._turns[scope] = turns % every
        return turns >= every

    def may_be_outdated(self, conversation: ShortTermMemory) -> bool:
        """Whether it is time to ask what other processes erased of a conversation; so it is once a minute."""
        now = time.monotonic()
        with self._lock:
            since = now - self._looked.setdefault(conversation, now)
            is_due = since > _LOOKS_AGAIN_AFTER and now > self._look_again_at
            if is_due:
                self._looked[conversation] = now
        return is_due

    def ask_later(self) -> None:
        """Note that what others erased could not be asked: for a minute no conversation waits for that again."""
        self._look_again_at = time.monotonic() + _LOOKS_AGAIN_AFTER

    def claim(
        self, scope: MemoryScope, messages: Iterable[Message], ask: Callable[[], Mapping[str, str]] | None = None
    ) -> None:
        """Note whose conversation messages are from.

        Args:
            scope: The conversation that they are told in.
            messages: The messages.
            ask: Gives the users that a store has them of, by their ids, where that is not known in this process.

        Raises:
            ScopeError: The same message of the same session is another user's already: two users share a thread.
        """
        if (user := scope.user_id) is None or scope.session_id is None:  # of no thread, nobody shares one
            return
        names = {
            message.id: (scope.session_id, message.id, hash(message.text))
            for message in messages
            # "1" is everybody's, and so may an application's greeting be.
            if message.role == "user" and message.id and len(message.id) >= _UNIQUE
        }
        asked: Mapping[str, str] = {}
        while True:
            with self._lock:
                owners = {id_: self._claimed.get(name) or asked.get(id_) or user for id_, name in names.items()}
                others = {id_ for id_, owner in owners.items() if owner != user}
                if others or ask is None or not names:
                    for id_ in others or names:
                        self._claimed.setdefault(names[id_], owners[id_])
                    while len(self._claimed) > _CLAIMED:
                        self._claimed.popitem(last=False)
                    break
            asked, ask = ask(), None
        if others:
            raise ScopeError(
                f"The thread {scope.session_id!r} holds messages of another user than {user!r}. Give each user threads "
                "of their own: their ids must differ, since a checkpointer knows no users. Nothing was stored."
            )

    # What waits to be stored in long-term memory

    def wait(self, scope: MemoryScope, messages: Iterable[Message]) -> None:
        """Keep messages of a conversation until they are stored; what is told anew takes the place of the former."""
        told = {message.id or id(message): message for message in messages}
        with self._lock:
            before = self._waiting.get(scope, [])
            waiting = [told.pop(message.id or id(message), message) for message in before]
            for message in {*map(id, before)} - {*map(id, waiting)}:
                self._refused.pop(message, None)
            if waiting or told:
                self._waiting[scope] = [*waiting, *told.values()]

    def waiting(self, scope: MemoryScope, *, refused: bool = True) -> list[Message]:
        """The messages of a conversation that are not yet stored; with those that were refused just now, or without."""
        now = time.monotonic()
        with self._lock:
            return [
                message
                for message in self._waiting.get(scope, ())
                if refused or self._refused.get(id(message), (now, 0))[0] <= now
            ]

    def stored(self, scope: MemoryScope, messages: Sequence[Message]) -> None:
        """Note that messages wait no longer."""
        done = set(map(id, messages))
        with self._lock:
            for message in done.intersection(self._refused):
                del self._refused[message]
            left = [message for message in self._waiting.get(scope, ()) if id(message) not in done]
            self._waiting.pop(scope, None)
            if left:
                self._waiting[scope] = left

    def refused(self, scope: MemoryScope, message: Message, error: MemoryIntegrationError) -> MemoryIntegrationError:
        """Note that a message was refused for what it says, and let it wait alone.

        One that an embedding refuses is tried again after ever longer pauses: it may be no more than a limited rate.
        One that is no JSON never will be stored, and waits no longer.

        Returns:
            The error that says so.
        """
        if isinstance(error, MessageError):
            self.stored(scope, [message])
            return MessageError(f"The message {message.id!r} of {scope} stays out of long-term memory. {error}")
        with self._lock:
            pause = 2 * self._refused.get(id(message), (0, _PAUSE / 2))[1]
            self._refused[id(message)] = time.monotonic() + pause, pause
        return error

    def scopes_waiting(self, within: MemoryScope | None = None) -> list[MemoryScope]:
        """The conversations of which something waits, of a scope or of all."""
        with self._lock:
            return [scope for scope in self._waiting if within is None or _is_within(scope, within)]


def _is_within(one: MemoryScope, scope: MemoryScope) -> bool:
    return one == scope or (scope == scope.owner and one.owner == scope)
