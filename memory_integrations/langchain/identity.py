"""Whose memory a run is about: the user and the session that the run itself names, never the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

from memory_integrations.errors import ScopeError
from memory_integrations.manager import MemoryManager
from memory_integrations.scopes import MemoryScope

USER = "user_id"
SESSIONS = ("thread_id", "session_id")
"""The names of a session, in ``configurable`` and in the runtime's context; the first that is there counts."""


def expect_memory(memory: object) -> None:
    """See that a component was given a memory.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(memory, MemoryManager):
        raise TypeError(
            f"memory={memory!r:.80}: expected a MemoryManager, such as MemoryManager(data_dir='data/memory')."
        )


def of_run(
    memory: MemoryManager,
    config: RunnableConfig | None = None,
    context: Any = None,
    *,
    require_user: bool | None = None,
) -> MemoryManager:
    """The memory of the user and the session that a run names.

    What the run does not name is the manager's own: a manager of ``user:123`` needs no user in the run.

    Args:
        memory: The manager that a component was given.
        config: The run's config; None means the one that is under way.
        context: The run's context, a mapping or an object, of which ``user_id`` and ``thread_id`` count.
        require_user: True: a user must be known; False: a user or a session; None: neither, and the memory is then the
            manager's own.

    Raises:
        ScopeError: What is required is not known; or the run names two users, or another user than the manager's.
    """
    configurable = ensure_config(config).get("configurable") or {}
    user = _agreed(USER, [_id(USER, source) for source in (context, configurable)], memory.scope.user_id)
    sessions = (_id(name, source) for source in (context, configurable) for name in SESSIONS)
    session = next((found for found in sessions if found is not None), memory.scope.session_id)
    if require_user and user is None:
        raise ScopeError(
            f"The run names no user. Pass config={{'configurable': {{'{USER}': ...}}}}, or a context with {USER}; or "
            "give a memory that is a user's; or allow it by require_user=False: then the session alone has the memory."
        )
    if require_user is False and user is None and session is None:
        raise ScopeError(
            f"The run names neither a user nor a session, so everybody would share one memory. Pass "
            f"config={{'configurable': {{'{SESSIONS[0]}': ...}}}}, or '{USER}' too."
        )
    return memory.for_scope(MemoryScope(user, session))


def user_of_run() -> str | None:
    """The user that the config of the run that is under way names; None where it names none."""
    return _id(USER, ensure_config().get("configurable") or {})


def _agreed(name: str, found: list[str | None], own: str | None) -> str | None:
    """The one value that is named; several that differ are a mistake that would show one user another's memory."""
    values = set(found) - {None}
    if own is not None:
        values.add(own)
    if len(values) > 1:
        raise ScopeError(
            f"{name} is {found[0]!r} in the run's context, {found[1]!r} in its config and {own!r} in the memory that "
            "this component was given: expected one. Nothing was read or written."
        )
    return next(iter(values), None)


def _id(name: str, source: Any) -> str | None:
    """An identifier in a mapping or an object; None where it is not there or empty."""
    value = source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
    if value is None or value == "":
        return None
    if isinstance(value, int | UUID) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ScopeError(f"{name}={value!r}: expected text, a whole number or a UUID.")
    return value
