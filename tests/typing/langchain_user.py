"""What a user of the LangChain face writes, for the type checker: every public name, used as documented. Not run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_type

from langchain.agents import create_agent
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tools import BaseTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.base import BaseStore

from memory_integrations import ManagementPlan, MemoryFilter, MemoryManager
from memory_integrations.langchain import (
    LongTermRetriever,
    MemoryMiddleware,
    MemoryStore,
    ShortTermChatMessageHistory,
    build_manager_chain,
    memory_prompt,
    memory_tools,
)
from memory_integrations.testing import StandInChatModel

RUN: RunnableConfig = {"configurable": {"user_id": "ann", "thread_id": "monday"}}


@dataclass
class Context:
    """A run's context."""

    user_id: str


def agent(memory: MemoryManager, model: BaseChatModel) -> str:
    tools: list[BaseTool] = memory_tools(memory)
    made = create_agent(
        model,
        tools=tools,
        middleware=[MemoryMiddleware(memory, max_tokens=4000, recall=5, placement="last", on_error="raise")],
        checkpointer=InMemorySaver(),
        store=MemoryStore(memory),
        context_schema=Context,
    )
    result = made.invoke({"messages": [{"role": "user", "content": "Hello"}]}, RUN, context=Context("ann"))
    return str(result["messages"][-1].text)


def chain(memory: MemoryManager) -> str:
    def history(session_id: str) -> BaseChatMessageHistory:
        return ShortTermChatMessageHistory(memory, session_id, remember=False)

    prompt = memory_prompt(memory, system="Be kind.", recall_tokens=300)
    assert_type(prompt, ChatPromptTemplate)
    answering = RunnableWithMessageHistory(
        prompt | StandInChatModel() | StrOutputParser(),
        history,
        input_messages_key="input",
        history_messages_key="history",
    )
    return str(answering.invoke({"input": "Hello"}, {"configurable": {"session_id": "monday"}}))


async def retrieve(memory: MemoryManager) -> list[Document]:
    retriever = LongTermRetriever(
        memory=memory,
        k=3,
        score_threshold=0.2,
        since=datetime(2025, 1, 1, tzinfo=UTC),
        filter=MemoryFilter(role="user"),
    )
    return [*retriever.invoke("holiday plans", RUN), *await retriever.ainvoke("tea")]


def manage(memory: MemoryManager, model: BaseChatModel) -> str:
    memory.manager = build_manager_chain(model).with_retry(stop_after_attempt=2)
    plan = memory.manage_short_term(dry_run=True)
    return str(plan.diff()) if isinstance(plan, ManagementPlan) else ""


async def store(memory: MemoryManager) -> None:
    kept: BaseStore = MemoryStore(memory, namespace=("memories", "{user_id}"))
    kept.put(("memories", "ann"), "1", {"content": "likes tea"}, ttl=60)
    await kept.asearch(("memories", "ann"), query="tea")
