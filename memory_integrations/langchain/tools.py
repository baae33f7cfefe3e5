"""Memory as tools that a model may call. Whose memory it is, the run says; the model's arguments cannot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

from langchain.tools import ToolRuntime
from langchain_core.messages import HumanMessage
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import Field

from memory_integrations.delimiters import as_data, delimit
from memory_integrations.errors import MemoryIntegrationError, ScopeError
from memory_integrations.features import FeatureMemory
from memory_integrations.langchain import identity
from memory_integrations.langchain.messages import is_summary
from memory_integrations.manager import MemoryManager
from memory_integrations.messages import as_aware

_log = logging.getLogger("memory_integrations")

Text = Annotated[str, Field(max_length=2000)]
Value = Text | bool | int | float | list[Text]
_KEY_LENGTH = 100  # characters
_AT_MOST = 20  # memories that are found, or keys that are named
Key = Annotated[
    str, Field(min_length=1, max_length=_KEY_LENGTH, description="A short name in snake_case, such as 'home_city'.")
]
_Result = TypeVar("_Result")


def memory_tools(memory: MemoryManager, *, require_user: bool = True) -> list[BaseTool]:
    """Tools with which a model remembers and forgets facts and searches what was said, for ``create_agent(tools=)``.

    They work inside an agent or a ``ToolNode``, which gives them the run.

    ``remember_fact(key, value)``, ``forget_fact(key)`` and ``search_memory(query, since, until, limit)``. A fact that
    a model remembers has ``source="tool"`` and names the user message that it was said in. The artifact of
    ``search_memory`` is the list of memories with their ids and scores. What cannot be done is told to the model, and
    a store that fails is logged besides.

    Args:
        memory: The memory; one of the global scope serves every user.
        require_user: Whether a run must name a user; see ``MemoryMiddleware``.

    Raises:
        ScopeError: At a call: the run names no user, or another one than the memory's.
    """
    identity.expect_memory(memory)

    def of(runtime: ToolRuntime[Any, Any]) -> MemoryManager:
        return identity.of_run(memory, runtime.config, runtime.context, require_user=require_user)

    def facts_of(runtime: ToolRuntime[Any, Any]) -> FeatureMemory:
        users = of(runtime)
        return _told(lambda: users.features)

    def remember_fact(
        key: Key,
        value: Annotated[Value, Field(description="What is true now, as the user put it.")],
        runtime: ToolRuntime[Any, Any],
    ) -> str:
        """Remember a fact about the user for good, such as a name, a preference or a plan. Replaces the old value."""
        features, said = facts_of(runtime), _latest_user_message(runtime.state)
        _told(lambda: features.set(key, value, source="tool", message_id=said))
        return f"Remembered: {key}."

    def forget_fact(key: Key, runtime: ToolRuntime[Any, Any]) -> str:
        """Forget a fact about the user that is no longer true. What was said in conversations stays in memory."""
        features = facts_of(runtime)
        if _told(lambda: features.delete(key)):
            return f"Forgotten: {key}."
        return f"There is no fact {key!r}. Known are: {_nearest(key, features.keys())}."

    def search_memory(
        query: Annotated[str, Field(min_length=1, description="What to look for, as a question or in keywords.")],
        runtime: ToolRuntime[Any, Any],
        since: Annotated[datetime | None, Field(description="Only what was said at this time or later.")] = None,
        until: Annotated[datetime | None, Field(description="Only what was said before this time.")] = None,
        limit: Annotated[int, Field(ge=1, le=_AT_MOST, description="How many memories at most.")] = 5,
    ) -> tuple[str, list[dict[str, Any]]]:
        """Search everything that was said in earlier conversations with this user."""
        long_term = of(runtime).long_term
        said = [message_id] if (message_id := _latest_user_message(runtime.state)) else []
        first, end = since and as_aware(since), until and as_aware(until)
        hits = _told(lambda: long_term.search(query, limit, since=first, until=end, without=said))
        found = [{**hit.metadata, "id": hit.id, "score": hit.score, "text": hit.text} for hit in hits]
        return delimit("recalled", "\n".join(hit.text for hit in hits)) or "Nothing was found.", found

    return [
        _tool(remember_fact),
        _tool(forget_fact),
        _tool(search_memory, response_format="content_and_artifact"),
    ]


def _tool(function: Callable[..., Any], **options: Any) -> BaseTool:
    """A tool of a function and, in a thread, of its async twin."""

    async def in_thread(**arguments: Any) -> Any:
        return await asyncio.to_thread(function, **arguments)

    return StructuredTool.from_function(function, in_thread, name=function.__name__, handle_tool_error=True, **options)


def _told(call: Callable[[], _Result]) -> _Result:
    """What a call gives; where it fails, the model is told what of it is about its arguments, and can tell the user."""
    try:
        return call()
    except ScopeError:
        raise
    except MemoryIntegrationError as error:
        if isinstance(error, ValueError):
            raise ToolException(f"Not done: {error}") from error
        _log.error("a memory tool failed: %s", error)  # where stores are is nobody's business but the operator's
        raise ToolException("Not done: the memory cannot be reached now. Try again later.") from error


def _nearest(key: str, keys: Sequence[str]) -> str:
    """The keys that are most like one that is none, as a line; those that a model may name."""
    named = get_close_matches(key, [known for known in keys if len(known) <= _KEY_LENGTH], _AT_MOST, cutoff=0)
    others = [f"{len(keys) - len(named)} others"] if len(named) < len(keys) else []
    return ", ".join([*map(as_data, named), *others]) or "none"


def _latest_user_message(state: Any) -> str | None:
    """The id of the message that the agent is answering."""
    if isinstance(state, dict):
        state = state.get("messages", ())
    messages = state if isinstance(state, list | tuple) else getattr(state, "messages", ())
    said = (m for m in reversed(messages) if isinstance(m, HumanMessage) and not is_summary(m))
    return next((message.id for message in said), None)
