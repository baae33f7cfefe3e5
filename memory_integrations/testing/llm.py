"""A stand-in for a LlamaIndex LLM."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from pydantic import PrivateAttr

from memory_integrations.delimiters import delimit
from memory_integrations.langchain.messages import to_langchain
from memory_integrations.llama_index.messages import from_llama_index, own
from memory_integrations.testing.answers import fail_where_asked
from memory_integrations.testing.chat_model import StandInChatModel

_REACT = ("Thought:", "Action:", "Answer:")
# What the condensing chat engines ask: their question is the answer.
_FOLLOW_UP = re.compile(
    r"<Follow Up Message>\n(?P<a>.*)\n\s*<Standalone question>|Follow Up Input: (?P<b>.*)\n\s*Standalone question:",
    re.DOTALL,
)
# Where LlamaIndex's own prompts hold memories: the blocks of its Memory, and what a query engine found.
_MEMORY = re.compile(r"\s*<memory>\n(.*?)\n</memory>\s*", re.DOTALL)
_BLOCK = re.compile(r"<(facts|recalled)>\n(.*?)\n</\1>", re.DOTALL)
_FOUND = re.compile(r"Context information is below\.\n-+\n(.*)\n-+\n.*?\nQuery: (.*)\nAnswer:\s*", re.DOTALL)


class StandInLLM(FunctionCallingLLM):
    """A stand-in for a LlamaIndex LLM, NOT a language model: it answers as :class:`StandInChatModel` does.

    It calls tools as that does, reads what LlamaIndex's ``Memory`` and query engines put into a prompt, and answers a
    ReAct agent in its form, and a condensing chat engine with the question as it is.

    Args:
        delay: Seconds before each streamed word.
        fail_after: Every call raises ``StandInError``: a stream after so many words, or after its last.
    """

    delay: float = 0
    fail_after: int | None = None
    _seen: list[list[ChatMessage]] = PrivateAttr(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        """The name under which it is serialised."""
        return "StandInLLM"

    @property
    def seen(self) -> list[list[ChatMessage]]:
        """The messages that it was given, a list for each call; a completion's prompt is a user's message."""
        return self._seen

    @property
    def metadata(self) -> LLMMetadata:
        """What engines ask of a model."""
        return LLMMetadata(
            context_window=128_000, is_chat_model=True, is_function_calling_model=True, model_name="stand-in"
        )

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The answer to a conversation."""
        reply = self._reply(messages, kwargs)
        fail_where_asked(self.fail_after)
        return reply

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The answer word by word."""
        return self._pieces(messages, kwargs)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to a prompt."""
        return CompletionResponse(text=self.chat([ChatMessage(content=prompt)], **kwargs).message.content or "")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The answer to a prompt, word by word."""
        for piece in self._pieces([ChatMessage(content=prompt)], kwargs):
            yield CompletionResponse(text=piece.message.content or "", delta=piece.delta)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Async twin of :meth:`chat`."""
        return await asyncio.to_thread(self.chat, messages, **kwargs)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Async twin of :meth:`stream_chat`."""

        async def pieces() -> ChatResponseAsyncGen:
            rest = self._pieces(messages, kwargs)
            while (piece := await asyncio.to_thread(next, rest, None)) is not None:
                yield piece

        return pieces()

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Async twin of :meth:`complete`."""
        return await asyncio.to_thread(self.complete, prompt, formatted, **kwargs)

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """Async twin of :meth:`stream_complete`."""
        pieces = await self.astream_chat([ChatMessage(content=prompt)], **kwargs)

        async def completions() -> CompletionResponseAsyncGen:
            async for piece in pieces:
                yield CompletionResponse(text=piece.message.content or "", delta=piece.delta)

        return completions()

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The calls of an answer.

        Raises:
            ValueError: There is none, and ``error_on_no_tool_call``.
        """
        calls = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        if not calls and error_on_no_tool_call:
            raise ValueError("The stand-in called no tool.")
        return [
            ToolSelection(
                tool_id=call.tool_call_id or "",
                tool_name=call.tool_name,
                tool_kwargs=call.tool_kwargs if isinstance(call.tool_kwargs, dict) else json.loads(call.tool_kwargs),
            )
            for call in calls
        ]

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[Any],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        asked = [ChatMessage(content=user_msg)] if isinstance(user_msg, str) else [user_msg] if user_msg else []
        return {
            "messages": [*(chat_history or []), *asked],
            "tools": [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools],
            "tool_choice": "any" if tool_required else kwargs.pop("tool_choice", None),
            **kwargs,
        }

    def _reply(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponse:
        self._seen.append([own(message) for message in messages])
        if (asked := _FOLLOW_UP.search(messages[-1].content or "")) is not None:
            return ChatResponse(message=ChatMessage((asked["a"] or asked["b"]).strip(), role=MessageRole.ASSISTANT))
        options = {name: kwargs[name] for name in ("tools", "tool_choice") if kwargs.get(name)}
        said = [to_langchain(from_llama_index(_marked(message))) for message in messages]
        reply = StandInChatModel().invoke(said, **options)
        text = str(reply.text)
        if all(mark in (messages[0].content or "") for mark in _REACT):
            text = f"Thought: I can answer without using any more tools.\nAnswer: {text}"
        message = ChatMessage(role=MessageRole.ASSISTANT, content=text or None)
        message.blocks += [
            ToolCallBlock(tool_call_id=call["id"], tool_name=call["name"], tool_kwargs=call["args"])
            for call in reply.tool_calls
        ]
        return ChatResponse(message=message, raw={"usage": dict(reply.usage_metadata or {})})

    def _pieces(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponseGen:
        """The reply as it grows, the calls with its last word."""
        reply = self._reply(messages, kwargs)
        words = re.findall(r"\s*\S+\s*", reply.message.content or "") or [""]
        for i, word in enumerate(words):
            fail_where_asked(self.fail_after, i)
            time.sleep(self.delay)
            message = ChatMessage(role=MessageRole.ASSISTANT, content="".join(words[: i + 1]))
            if i == len(words) - 1:
                message.blocks += [block for block in reply.message.blocks if isinstance(block, ToolCallBlock)]
            yield ChatResponse(message=message, delta=word, raw=reply.raw)
        fail_where_asked(self.fail_after)


def _marked(message: ChatMessage) -> ChatMessage:
    """A copy in which memories are marked as the stand-in reads them."""
    copy = own(message)
    for block in copy.blocks:
        if isinstance(block, TextBlock):
            text = _MEMORY.sub(lambda memory: _BLOCK.sub(r"<memory:\1>\n\2\n</memory:\1>", memory[1]), block.text)
            if (found := _FOUND.fullmatch(text)) is not None:
                text = f"{delimit('recalled', found[1])}\n{found[2]}"
            block.text = text
    return copy
