"""What the tests of agents share: a model that does what a test says and remembers what it was given."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

Reply = Callable[[list[BaseMessage]], "str | AIMessage"]


class Scripted(BaseChatModel):
    """Answers by a function of what it is given, in whole or word by word; keeps what it was given in ``seen``."""

    reply: Any = lambda messages: "Noted."
    _seen: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def seen(self) -> list[list[BaseMessage]]:
        return self._seen

    @property
    def last(self) -> list[BaseMessage]:
        """What it was given last."""
        return self._seen[-1]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _answer(self, messages: Sequence[BaseMessage]) -> AIMessage:
        with self._lock:
            self._seen.append([message.model_copy() for message in messages])
        answer = self.reply(list(messages))
        return AIMessage(answer) if isinstance(answer, str) else answer

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages))])

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        answer = self._answer(messages)
        if answer.tool_calls:
            calls: list[Any] = [
                {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"], "index": i}
                for i, call in enumerate(answer.tool_calls)
            ]
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=calls))
            return
        for word in answer.text.split(" "):
            yield ChatGenerationChunk(message=AIMessageChunk(content=f"{word} "))

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def calls(*asked: tuple[str, dict[str, Any]], text: str = "", first: int = 0) -> AIMessage:
    """An answer that calls tools, all at once."""
    return AIMessage(
        text,
        tool_calls=[{"name": name, "args": args, "id": f"call-{first + i}"} for i, (name, args) in enumerate(asked)],
    )


def run_of(user: str | None = "ann", thread: str | None = "t1") -> dict[str, Any]:
    """A run's config."""
    named = {"user_id": user, "thread_id": thread}
    return {"configurable": {name: value for name, value in named.items() if value is not None}}


def texts(messages: Sequence[BaseMessage]) -> list[str]:
    return [message.text for message in messages]
