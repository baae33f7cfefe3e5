"""Memory for ``langchain.agents.create_agent``: what the model is given at each call, and what is kept of a turn."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Literal

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage

from memory_integrations.context import Context
from memory_integrations.delimiters import MEMORY_NOTE, delimit
from memory_integrations.errors import MemoryIntegrationError, ScopeError, StoreError
from memory_integrations.langchain import identity
from memory_integrations.langchain.messages import (
    all_to_langchain,
    extended,
    from_langchain,
    is_summary,
    with_summary_marked,
)
from memory_integrations.layout import SAID_BY_CALL
from memory_integrations.manager import MemoryManager
from memory_integrations.messages import Message
from memory_integrations.tokens import check_budget

_log = logging.getLogger("memory_integrations")

_MARKS_SUMMARIES = tuple(map(int, re.findall(r"\d+", version("langchain"))[:3])) >= (1, 2, 6)
_NEWEST = 2_000  # messages of a thread that are followed; older ones were, when they were new

Placement = Literal["user", "last", "system"]


class MemoryMiddleware(AgentMiddleware[AgentState[Any], Any]):
    """Gives an agent the user's memory at each model call, and remembers each turn.

    The model sees the facts at the end of the system message, the conversation under the memory's ``ShortTermPolicy``,
    and what is recalled for the latest user message. All of it is put into the request alone: the agent's state stays
    whole and holds no injected text, so nothing piles up. While nothing changes, the request is the same byte for
    byte, so a provider's prompt cache holds.

    What the user said is stored before the model is called, so that a failed or cancelled run leaves it; the rest of
    the turn is stored when the agent is done.

    The user and the thread come from the run: ``configurable`` (``user_id``, ``thread_id``) or the runtime's context.
    One middleware over a manager of the global scope serves every user.

    Args:
        memory: The memory.
        max_tokens: The budget of facts, conversation and recalled memories together, in tokens; None means the policy's
            ``max_tokens``. What came after the latest user message (the agent's own work) comes on top.
        recall: How many memories at most; 0 recalls nothing.
        placement: Where recalled memories go. "user": at the end of the latest user message, so that all that stands
            before it stays the same while the agent works. "last": in a message of their own at the very end. "system":
            behind the facts.
        remember: Whether turns are stored; without, nothing is learnt from them either.
        require_user: Whether a run must name a user. Without one, its thread alone has the memory.
        on_error: What becomes of a store that fails. "log": the agent goes on and answers without it, and the error is
            logged. "raise": a failed reading raises at once, a failed writing once the answer is in the state.
        note: What the model is told of the blocks that memory is given in.

    Raises:
        BudgetError: The budget is negative or not an integer.
        ScopeError: In a run: it names no user, or another one than the memory's.
    """

    def __init__(
        self,
        memory: MemoryManager,
        *,
        max_tokens: int | None = None,
        recall: int = 10,
        placement: Placement = "user",
        remember: bool = True,
        require_user: bool = True,
        on_error: Literal["log", "raise"] = "log",
        note: str = MEMORY_NOTE,
    ) -> None:
        super().__init__()
        identity.expect_memory(memory)
        if not isinstance(recall, int) or recall < 0:
            raise ValueError(f"recall={recall!r}: expected a whole number of memories, 0 or more.")
        if placement not in ("user", "last", "system"):
            raise ValueError(f"placement={placement!r}: expected 'user', 'last' or 'system'.")
        if on_error not in ("log", "raise"):
            raise ValueError(f"on_error={on_error!r}: expected 'log' or 'raise'.")
        self.tools = []
        self.memory = memory
        self.max_tokens = check_budget(max_tokens)
        self.recall = recall
        self.placement = placement
        self.remember = remember
        self.require_user = require_user
        self.on_error = on_error
        self.note = note

    # The hooks, sync and async

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Give the model the memory."""
        return handler(self._with_memory(request))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """Async twin of :meth:`wrap_model_call`."""
        return await handler(await asyncio.to_thread(self._with_memory, request))

    def after_agent(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """Remember the turn."""
        self._keep(state, runtime)
        return None

    async def aafter_agent(self, state: AgentState[Any], runtime: Any) -> dict[str, Any] | None:
        """Async twin of :meth:`after_agent`."""
        await asyncio.to_thread(self._keep, state, runtime)
        return None

    # Inside

    def _of(self, runtime: Any) -> MemoryManager:
        """The memory of the run's user."""
        context = getattr(runtime, "context", None)
        return identity.of_run(self.memory, context=context, require_user=self.require_user)

    def _with_memory(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        memory, read = self._of(request.runtime), _Reader()
        try:
            self._follow(memory, read.all(request.state["messages"]))
        except ScopeError:  # two users in one thread
            raise
        except MemoryIntegrationError as error:
            # Not the last word: the turn is stored again when the agent is done.
            _log.warning("what the user said is not stored yet: %s", error)
        try:
            context = memory.get_context_of(read.all(request.messages), self.max_tokens, recall=self.recall)
        except MemoryIntegrationError as error:
            self._failed("the agent answers without its memory", error)
            return request
        return self._injected(request, context)

    def _keep(self, state: AgentState[Any], runtime: Any) -> None:
        """Store what is new of the turn."""
        memory = self._of(runtime)
        try:
            try:
                self._follow(memory, _Reader().all(state["messages"]))
            except StoreError:  # what was said waits, and the answer with it
                self._remember_answer(memory, state)
                raise
            self._remember_answer(memory, state)
        except ScopeError:
            raise
        except MemoryIntegrationError as error:
            self._failed("the turn was not remembered", error)

    def _follow(self, memory: MemoryManager, messages: Sequence[Message]) -> None:
        if self.remember:
            said = [message for message in messages if not is_summary(message.raw)][-_NEWEST:]
            memory.short_term.told_again = frozenset(message.id for message in said if message.id)
            memory.follow(said, unanswered=True)

    def _remember_answer(self, memory: MemoryManager, state: AgentState[Any]) -> None:
        """Remember a structured answer: what stands in the conversation is the call of its schema, without text."""
        if self.remember and (answer := _structured_answer(state)):
            memory.remember([answer])

    def _failed(self, what: str, error: MemoryIntegrationError) -> None:
        if self.on_error == "raise":
            raise error
        _log.error("%s: %s", what, error)

    def _injected(self, request: ModelRequest[Any], context: Context) -> ModelRequest[Any]:
        """The request with what memory gives it."""
        messages = all_to_langchain(context.messages)
        facts = delimit("facts", context.features) if context.features != "{}" else ""
        recalled = delimit("recalled", context.long_term)
        if recalled and self.placement == "user":
            latest = max(i for i, message in enumerate(context.messages) if message.role == "user")
            messages[latest] = extended(messages[latest], recalled)
        elif recalled and self.placement == "last":
            messages.append(HumanMessage(recalled))
        about = "\n\n".join(filter(None, (self.note, facts, recalled if self.placement == "system" else "")))
        return _with_system(request, messages, about)


class _Reader:
    """Reads a request's messages, each once: the state's are mostly those that the model is shown."""

    def __init__(self) -> None:
        self._read: dict[int, Message] = {}

    def all(self, messages: Sequence[AnyMessage]) -> list[Message]:
        if not _MARKS_SUMMARIES:
            messages = with_summary_marked(messages)
        for message in messages:
            if id(message) not in self._read:
                self._read[id(message)] = from_langchain(message)
        return [self._read[id(message)] for message in messages]


def _with_system(request: ModelRequest[Any], messages: list[Any], text: str) -> ModelRequest[Any]:
    """The request with these messages and a text at the end of its one system message."""
    changes: dict[str, Any] = {"messages": messages}
    prompt = request.system_prompt
    if not prompt and messages and isinstance(messages[0], SystemMessage):  # a state that carries its own
        messages[0] = extended(messages[0], text)
    elif hasattr(request, "system_message"):
        changes["system_message"] = extended(request.system_message or SystemMessage(""), text)
    else:  # langchain before 1.1
        changes["system_prompt"] = f"{prompt}\n\n{text}" if prompt else text
    return request.override(**changes)


def _structured_answer(state: Mapping[str, Any]) -> Message | None:
    """An answer that is nothing but the call of a schema, as JSON: it is what the assistant said."""
    if state.get("structured_response") is None:
        return None
    last = next((m for m in reversed(state["messages"]) if isinstance(m, AIMessage)), None)
    if last is None or last.text or not last.tool_calls:
        return None
    said = json.dumps(last.tool_calls[-1]["args"], ensure_ascii=False, default=str)
    return Message("assistant", said, id=last.id, metadata={SAID_BY_CALL: True})
