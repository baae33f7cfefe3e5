"""What the tests of LlamaIndex share: engines, agents, ways to ask them, and what a model was given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.memory.types import BaseMemory
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from memory_integrations.testing import StandInLLM

SYSTEM = "You are a lighthouse keeper."


class Shelf(BaseRetriever):
    """Finds the same node for every question."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text="The tower is 31 metres high."), score=1.0)]


def simple(llm: Any, memory: BaseMemory) -> BaseChatEngine:
    return SimpleChatEngine.from_defaults(llm=llm, memory=memory, system_prompt=SYSTEM)


def context(llm: Any, memory: BaseMemory) -> BaseChatEngine:
    return ContextChatEngine.from_defaults(Shelf(), llm=llm, memory=memory, system_prompt=SYSTEM)


def condense_plus_context(llm: Any, memory: BaseMemory) -> BaseChatEngine:
    return CondensePlusContextChatEngine.from_defaults(Shelf(), llm=llm, memory=memory, system_prompt=SYSTEM)


def condense_question(llm: Any, memory: BaseMemory) -> BaseChatEngine:
    """It takes no system prompt."""
    query_engine = RetrieverQueryEngine.from_args(Shelf(), llm=llm, streaming=isinstance(llm, Streaming))
    return CondenseQuestionChatEngine.from_defaults(query_engine, llm=llm, memory=memory)


class Streaming(StandInLLM):
    """Marks a model whose query engine is to stream."""


ENGINES = [simple, context, condense_plus_context, condense_question]

Ask = Callable[[BaseChatEngine, str], str]


def chat(engine: BaseChatEngine, text: str, **options: Any) -> str:
    return str(engine.chat(text, **options))


def achat(engine: BaseChatEngine, text: str, **options: Any) -> str:
    async def ask() -> str:
        return str(await engine.achat(text, **options))

    return asyncio.run(ask())


def stream_chat(engine: BaseChatEngine, text: str, **options: Any) -> str:
    response = engine.stream_chat(text, **options)
    return "".join(response.response_gen)


def astream_chat(engine: BaseChatEngine, text: str, **options: Any) -> str:
    async def ask() -> str:
        response = await engine.astream_chat(text, **options)
        return "".join([part async for part in response.async_response_gen()])

    return asyncio.run(ask())


WAYS = [chat, achat, stream_chat, astream_chat]


def function_agent(llm: Any, tools: Sequence[Any] = ()) -> Any:
    return FunctionAgent(llm=llm, tools=list(tools), system_prompt=SYSTEM, streaming=False)


def streaming_agent(llm: Any, tools: Sequence[Any] = ()) -> Any:
    return FunctionAgent(llm=llm, tools=list(tools), system_prompt=SYSTEM, streaming=True)


def react_agent(llm: Any, tools: Sequence[Any] = ()) -> Any:
    return ReActAgent(llm=llm, tools=list(tools), system_prompt=SYSTEM, streaming=False)


def workflow(llm: Any, tools: Sequence[Any] = ()) -> Any:
    agent = FunctionAgent(
        name="keeper", description="Keeps.", llm=llm, tools=list(tools), system_prompt=SYSTEM, streaming=False
    )
    return AgentWorkflow(agents=[agent])


AGENTS = [function_agent, streaming_agent, react_agent, workflow]


async def run(agent: Any, text: str | None, memory: BaseMemory, **options: Any) -> str:
    handler: Awaitable[Any] = agent.run(user_msg=text, memory=memory, **options)
    return str((await handler).response.content)


def given(messages: Sequence[ChatMessage]) -> str:
    """All that a model was given, as lines."""
    return "\n".join(f"{message.role.value}: {message.content}" for message in messages)
