"""What a process that is forked from this one must not take over: locks that its parent's threads hold, for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """An object that a forked process has from its parent."""

    def leave_to_parent(self) -> None:
        """In a forked process: what the parent's threads hold, and have half done, is theirs."""


class Lock(Protocol):
    """A lock that its holder may take again."""

    def acquire(self) -> bool:
        """Take it."""

    def release(self) -> None:
        """Give it up."""


_inherited: WeakSet[Inherited] = WeakSet()


def inherited(one: Inherited) -> None:
    """See that an object's ``leave_to_parent`` is called in every process that is forked from this one."""
    _inherited.add(one)


def in_child(call: Callable[[], None]) -> None:
    """Call something in every process that is forked from this one, where the system can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


def waits_for(lock: Lock) -> None:
    """Let no fork come while a thread holds a lock, which must be able to give it up whatever other threads hold."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


def _leave_to_parent() -> None:
    for one in list(_inherited):
        one.leave_to_parent()


in_child(_leave_to_parent)
