"""What a user of the LlamaIndex face writes, for the type checker: every public name, used as documented. Not run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, assert_type

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine import ContextChatEngine, SimpleChatEngine
from llama_index.core.llms.llm import LLM
from llama_index.core.memory import BaseMemory, Memory
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore
from llama_index.core.tools import RetrieverTool

from memory_integrations import MemoryFilter, MemoryManager, MemoryScope
from memory_integrations.llama_index import (
    FeatureMemoryBlock,
    LongTermMemoryBlock,
    LongTermRetriever,
    ManagedChatMemory,
)
from memory_integrations.testing import StandInLLM


def manager(llm: LLM, embedding: BaseEmbedding) -> MemoryManager:
    return MemoryManager("user:ann", llm_client=llm, embeddings=embedding)


def engines(memory: MemoryManager) -> list[str]:
    chat_memory: BaseMemory = ManagedChatMemory(memory, "user:ann/session:monday")
    simple = SimpleChatEngine.from_defaults(llm=StandInLLM(delay=0.1), memory=chat_memory)
    retriever = LongTermRetriever(memory, k=3, score_threshold=0.2, since=datetime(2025, 1, 1, tzinfo=UTC))
    context = ContextChatEngine.from_defaults(
        retriever, memory=ManagedChatMemory(memory=memory, scope=MemoryScope("ann", "s"), max_tokens=2000, recall=5)
    )
    return [str(simple.chat("Hello")), str(context.chat("Hello"))]


async def agent(memory: MemoryManager) -> Any:
    tool = RetrieverTool.from_defaults(LongTermRetriever(memory=memory, filter=MemoryFilter(role="user")))
    return await FunctionAgent(llm=StandInLLM(), tools=[tool]).run("Hello", memory=ManagedChatMemory(memory))


def chat_memory(memory: MemoryManager) -> dict[str, Any]:
    made = ManagedChatMemory.from_defaults(chat_history=[ChatMessage("Hello")], memory=memory, token_limit=500)
    assert_type(made, ManagedChatMemory)
    made.put(ChatMessage("Hello"))
    shown: list[ChatMessage] = made.get("Where do I live?")
    made.set(shown)
    made.set(made.get_all())
    again = ManagedChatMemory.from_dict(made.to_dict(), memory=memory)
    again.reset()
    return again.to_dict()


async def blocks(memory: MemoryManager) -> list[ChatMessage]:
    store = Memory.from_defaults(
        session_id="monday",
        memory_blocks=[
            FeatureMemoryBlock(memory=memory, priority=1, max_tokens=300, include_history=True),
            LongTermMemoryBlock(memory=memory, priority=2, k=5, remember_all=False),
        ],
    )
    return await store.aget()


def query(memory: MemoryManager) -> list[NodeWithScore]:
    response = RetrieverQueryEngine.from_args(LongTermRetriever(memory), llm=StandInLLM()).query("Where?")
    return list(response.source_nodes)
