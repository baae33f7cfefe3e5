"""A stand-in for a LangChain chat model."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, run_in_executor
from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr

from memory_integrations.testing.answers import answer, calls_for, fail_where_asked, gather, tokens_of, with_ids


class StandInChatModel(BaseChatModel):
    """A stand-in for a chat model, NOT a language model: it answers by rules from what the prompt holds.

    It reads facts (JSON in ``<memory:facts>`` or in a system message), memories (``<memory:recalled>`` and
    ``<memory:conversation>``), earlier messages and tool results. A statement is noted; a question is answered by the
    fact, or by the words, that share most with it; else it says ``I do not know.`` It understands nothing, and English
    only. The same input gives the same answer.

    It calls ``remember_fact``, ``forget_fact`` and ``search_memory`` where the user's message calls for it, any other
    tool that the message names, and fills the schema of a structured answer.

    Args:
        delay: Seconds before each streamed word.
        fail_after: Every call raises :class:`StandInError`: a stream after so many words, or after its last.
    """

    delay: float = 0
    fail_after: int | None = None
    _seen: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    @property
    def seen(self) -> list[list[BaseMessage]]:
        """The messages that it was given, a list for each call in the order of their beginning."""
        return self._seen

    @property
    def model_name(self) -> str:
        """What traces call it; not to be taken for a language model."""
        return "stand-in"

    @property
    def _llm_type(self) -> str:
        return "stand-in"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "delay": self.delay, "fail_after": self.fail_after}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools to call.

        Args:
            tools: Tools, functions, classes, or their schemas.
            tool_choice: "any", "required" or a tool's name forces a call; "none" forbids any.
            **kwargs: Passed on; those for a provider change nothing.
        """
        converted = [convert_to_openai_tool(tool) for tool in tools]
        schemas = [
            schema["function"]["name"]
            for tool, schema in zip(tools, converted, strict=True)
            # What with_structured_output says; and in a response_format's tool there is nothing that could be run.
            if "ls_structured_output_format" in kwargs
            or (isinstance(tool, StructuredTool) and tool.func is None and tool.coroutine is None)
        ]
        return self.bind(tools=converted, tool_choice=tool_choice, answer_schemas=schemas, **kwargs)

    def _reply(self, messages: list[BaseMessage], kwargs: Mapping[str, Any]) -> AIMessage:
        # One append, which no other thread can come between; copies, because graphs change messages in place.
        self._seen.append([message.model_copy() for message in messages])
        given = gather(messages)
        tools, schemas = kwargs.get("tools") or (), kwargs.get("answer_schemas") or ()
        calls = with_ids(calls_for(given, tools, kwargs.get("tool_choice"), schemas), messages)
        reply = AIMessage(content="" if calls else answer(given)[0], tool_calls=calls)
        spent, made = tokens_of(messages), tokens_of([reply])
        reply.usage_metadata = UsageMetadata(input_tokens=spent, output_tokens=made, total_tokens=spent + made)
        reply.response_metadata = {"model_name": self.model_name}
        return reply

    def _pieces(self, messages: list[BaseMessage], kwargs: Mapping[str, Any]) -> list[ChatGenerationChunk]:
        """The reply word by word; what is merged by adding, such as usage, is on the last piece alone."""
        reply = self._reply(messages, kwargs)
        words = re.findall(r"\s*\S+\s*", str(reply.content)) or [""]
        pieces = [AIMessageChunk(content=word) for word in words[:-1]]
        calls = [
            {"name": call["name"], "args": json.dumps(call["args"]), "id": call["id"], "index": i}
            for i, call in enumerate(reply.tool_calls)
        ]
        last: dict[str, Any] = {
            "tool_call_chunks": calls,
            "chunk_position": "last",
            "usage_metadata": reply.usage_metadata,
        }
        pieces.append(AIMessageChunk(content=words[-1], response_metadata=reply.response_metadata, **last))
        return [ChatGenerationChunk(message=piece) for piece in pieces]

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = self._reply(messages, kwargs)
        fail_where_asked(self.fail_after)
        return ChatResult(generations=[ChatGeneration(message=reply)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for i, piece in enumerate(self._pieces(messages, kwargs)):
            fail_where_asked(self.fail_after, i)
            time.sleep(self.delay)
            if run_manager:
                run_manager.on_llm_new_token(piece.text, chunk=piece)
            yield piece
        fail_where_asked(self.fail_after)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        # In a thread: the first count reads an encoding from the disk.
        for i, piece in enumerate(await run_in_executor(None, self._pieces, messages, kwargs)):
            fail_where_asked(self.fail_after, i)
            await asyncio.sleep(self.delay)
            if run_manager:
                await run_manager.on_llm_new_token(piece.text, chunk=piece)
            yield piece
        fail_where_asked(self.fail_after)
