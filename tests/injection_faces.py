"""Every face through which memory reaches a model, each as the list of what the model is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from injection_places import KEY_AND_VALUE, LIVE, Plant
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.prompts import ChatPromptTemplate
from llama_index.core.agent.workflow import ReActAgent
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ToolCallBlock
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine, SimpleChatEngine
from llama_index.core.memory import InsertMethod, Memory
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode

from memory_integrations import MemoryManager, Message
from memory_integrations.langchain import (
    LongTermRetriever,
    MemoryMiddleware,
    ShortTermChatMessageHistory,
    build_manager_chain,
    memory_prompt,
    memory_tools,
)
from memory_integrations.langchain.messages import all_to_langchain
from memory_integrations.llama_index import FeatureMemoryBlock, LongTermMemoryBlock, ManagedChatMemory
from memory_integrations.llama_index import LongTermRetriever as LlamaRetriever
from memory_integrations.testing import StandInChatModel, StandInLLM

MANY = 100_000
"""Tokens: everything fits."""


class Shown(NamedTuple):
    """A part of what a model is given."""

    role: str
    structure: Any
    """Its type, its calls and their ids, whether it has a name: all that is not text."""
    text: str
    said: frozenset[int] = frozenset()
    """The places whose text is what somebody says in this message, and not memory."""


Face = Callable[[MemoryManager, Plant, str], list[Shown]]
"""Given the memory of a user, what is planted, and what is asked."""


def _of_neutral(messages: Sequence[Message]) -> list[Shown]:
    return [
        Shown(
            message.role,
            ([(call.id, call.name, sorted(call.arguments)) for call in message.tool_calls], message.tool_call_id),
            f"{message.name}: {message.text}",
            LIVE,
        )
        for message in messages
    ]


def _of_langchain(messages: Sequence[BaseMessage]) -> list[Shown]:
    return [
        Shown(
            message.type,
            (
                type(message).__name__,
                [(call["id"], call["name"], sorted(call["args"])) for call in getattr(message, "tool_calls", ())],
                len(getattr(message, "invalid_tool_calls", ())),
                getattr(message, "tool_call_id", None),
                [block["type"] for block in message.content_blocks if isinstance(message.content, list)],
                sorted(message.additional_kwargs),
            ),
            f"{message.name}: {message.text}",
            LIVE if message.type in ("human", "ai") else frozenset(),
        )
        for message in messages
    ]


def _of_llama_index(messages: Sequence[ChatMessage]) -> list[Shown]:
    return [
        Shown(
            message.role.value,
            (
                [type(block).__name__ for block in message.blocks],
                [
                    (block.tool_call_id, block.tool_name, sorted(block.tool_kwargs))
                    for block in message.blocks
                    if isinstance(block, ToolCallBlock) and isinstance(block.tool_kwargs, dict)
                ],
                sorted(message.additional_kwargs),
                message.additional_kwargs.get("tool_call_id"),
            ),
            "\n".join(
                [
                    str(message.additional_kwargs.get("name")) + ": ",
                    *(block.text for block in message.blocks if isinstance(block, TextBlock)),
                ]
            ),
            LIVE if message.role.value in ("user", "assistant") else frozenset(),
        )
        for message in messages
    ]


# The core


def combined(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
    context = plant.say(memory, "combined").get_context(question, max_tokens=MANY)
    return [Shown("combined", None, context.combined)]


def context_messages(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
    return _of_neutral(plant.say(memory, "messages").get_context(question, max_tokens=MANY).messages)


def facts(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
    """``to_prompt``, with and without what facts were before."""
    return [
        Shown("facts", None, memory.features.to_prompt(include_history=history, max_tokens=MANY))
        for history in (False, True)
    ]


def relevant_context(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
    return [Shown("recalled", None, memory.long_term.get_relevant_context(question, MANY))]


def manager_prompt(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
    """What a model is given that manages short-term memory."""
    seen: list[Any] = []

    def model(prompt: Any) -> str:
        seen.append(prompt.to_messages())
        return '{"decisions": [], "facts": []}'

    live, rules = plant.say(memory, "managed"), memory.manager
    try:
        memory.manager = build_manager_chain(model)
        live.manage_short_term(dry_run=True)
    finally:
        memory.manager = rules
    return [shown._replace(said=frozenset()) for shown in _of_langchain(seen[0])]


# LangChain


def _prompt_of(template: ChatPromptTemplate | None) -> Face:
    def face(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
        prompt = memory_prompt(memory, template, recall_tokens=MANY)
        history = ShortTermChatMessageHistory(plant.say(memory, f"prompt {id(template)}"), max_tokens=MANY).messages
        return _of_langchain(prompt.invoke({"input": question, "history": history}).to_messages())

    return face


OWN_TEXT = "You help.\n<memory:facts>\n{}\n</memory:facts>"
TEMPLATES = {
    "f-string": ChatPromptTemplate(
        [
            ("system", "{{not a variable}} <memory:facts>\n{memory_facts}\n</memory:facts>"),
            ("placeholder", "{history}"),
            ("human", "{input}{memory_recall}"),
        ]
    ),
    "mustache": ChatPromptTemplate(
        [
            ("system", "<memory:facts>\n{{{memory_facts}}}\n</memory:facts>"),
            ("placeholder", "{history}"),
            ("human", "{{{input}}}{{{memory_recall}}}"),
        ],
        template_format="mustache",
    ),
    "jinja2": ChatPromptTemplate(
        [
            ("system", "<memory:facts>\n{{ memory_facts }}\n</memory:facts>"),
            ("placeholder", "{history}"),
            ("human", "{{ input }}{{ memory_recall }}"),
        ],
        template_format="jinja2",
    ),
}


def chat_history(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
    history = ShortTermChatMessageHistory(plant.say(memory, "history"), max_tokens=MANY)
    return [shown._replace(said=LIVE | {22}) for shown in _of_langchain(history.messages)]


def _middleware(placement: Any) -> Face:
    def face(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
        session = f"agent {placement}"
        live, model = plant.say(memory, session), StandInChatModel()
        remembers = MemoryMiddleware(memory, placement=placement, remember=False, max_tokens=MANY, recall=50)
        agent = create_agent(model, system_prompt="You keep a lighthouse.", middleware=[remembers])
        said = [entry.original or entry.message for entry in live.short_term.entries]
        run: Any = {"configurable": {"user_id": memory.scope.user_id, "thread_id": session}}
        agent.invoke({"messages": [*all_to_langchain(said), ("human", question)]}, run)
        return _of_langchain(model.seen[0])

    return face


class _Calls(StandInChatModel):
    """Calls the two tools that show what is stored, and then is done."""

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        result = super()._generate(messages, *args, **kwargs)
        if messages[-1].type == "human":
            result.generations[0].message = AIMessage(
                "",
                tool_calls=[
                    {"id": "1", "name": "search_memory", "args": {"query": messages[-1].text, "limit": 20}},
                    {"id": "2", "name": "forget_fact", "args": {"key": "unknown"}},
                ],
            )
        return result


def tools(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
    """What the memory tools answer."""
    agent = create_agent(_Calls(), tools=memory_tools(memory))
    done = agent.invoke(
        {"messages": [("human", question)]},
        {"configurable": {"user_id": memory.scope.user_id, "thread_id": "tools"}},
    )
    shown = _of_langchain([message for message in done["messages"] if message.type == "tool"])
    return [shown[0], shown[1]._replace(said=frozenset((KEY_AND_VALUE,)))]  # of which it shows the key alone


def retriever(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
    found = LongTermRetriever(memory=memory, k=50).invoke(question)
    return sorted(Shown("document", None, document.page_content) for document in found)


# LlamaIndex


def llama_retriever(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
    found = LlamaRetriever(memory=memory, k=50).retrieve(question)
    return sorted(Shown("node", None, node.node.get_content(MetadataMode.LLM)) for node in found)


def _managed(memory: MemoryManager, plant: Plant, session: str) -> ManagedChatMemory:
    live = plant.say(memory, session)
    return ManagedChatMemory(live, remember=False, max_tokens=MANY, recall=50)


def chat_memory(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
    """What is given for a question that is put, and for one that is not yet."""
    managed = _managed(memory, plant, "managed chat")
    before = managed.get(question)
    managed.put(ChatMessage(question))
    return _of_llama_index([*before, *managed.get()])


def _engine(kind: str, make: Callable[[Any, MemoryManager, Any], Any]) -> Face:
    def face(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
        llm = StandInLLM()
        make(llm, memory, _managed(memory, plant, kind)).chat(question)
        return _of_llama_index(llm.seen[-1])

    return face


class _InOrder(BaseNodePostprocessor):
    """Puts nodes in an order that does not depend on what is planted."""

    def _postprocess_nodes(self, nodes: Any, query_bundle: Any = None) -> Any:
        return sorted(nodes, key=lambda node: node.node.get_content().partition("begin")[2][:6])


def simple_engine(llm: Any, memory: MemoryManager, managed: Any) -> Any:
    return SimpleChatEngine.from_defaults(llm=llm, memory=managed, system_prompt="You keep a lighthouse.")


def context_engine(llm: Any, memory: MemoryManager, managed: Any) -> Any:
    found = LlamaRetriever(memory=memory, k=50)
    return ContextChatEngine.from_defaults(
        found, llm=llm, memory=managed, system_prompt="You keep a lighthouse.", node_postprocessors=[_InOrder()]
    )


def condensing_engine(llm: Any, memory: MemoryManager, managed: Any) -> Any:
    found = LlamaRetriever(memory=memory, k=50)
    return CondensePlusContextChatEngine.from_defaults(
        found, llm=llm, memory=managed, system_prompt="You keep a lighthouse.", node_postprocessors=[_InOrder()]
    )


def react_agent(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
    llm, managed = StandInLLM(), _managed(memory, plant, "react")

    async def run() -> None:
        await ReActAgent(llm=llm, tools=[], streaming=False).run(user_msg=question, memory=managed)

    asyncio.run(run())
    return _of_llama_index(llm.seen[0])


def _blocks(method: InsertMethod) -> Face:
    def face(memory: MemoryManager, plant: Plant, question: str) -> list[Shown]:
        blocks = [
            FeatureMemoryBlock(memory=memory, include_history=True),
            LongTermMemoryBlock(memory=memory, remember_all=False, k=50, max_tokens=MANY),
        ]

        async def messages() -> list[ChatMessage]:
            store = Memory.from_defaults(
                session_id="blocks", memory_blocks=blocks, insert_method=method, token_limit=MANY
            )
            await store.aput(ChatMessage(question))
            return await store.aget()

        return _of_llama_index(asyncio.run(messages()))

    return face


FACES: dict[str, Face] = {
    "get_context().combined": combined,
    "get_context().messages": context_messages,
    "features.to_prompt": facts,
    "get_relevant_context": relevant_context,
    "the manager's prompt": manager_prompt,
    "memory_prompt": _prompt_of(None),
    **{f"memory_prompt, {name}": _prompt_of(template) for name, template in TEMPLATES.items()},
    "ShortTermChatMessageHistory": chat_history,
    **{f"MemoryMiddleware, {place}": _middleware(place) for place in ("user", "last", "system")},
    "memory_tools": tools,
    "LongTermRetriever": retriever,
    "LlamaIndex LongTermRetriever": llama_retriever,
    "ManagedChatMemory": chat_memory,
    "SimpleChatEngine": _engine("simple", simple_engine),
    "ContextChatEngine": _engine("context", context_engine),
    "CondensePlusContextChatEngine": _engine("condensing", condensing_engine),
    "ReActAgent": react_agent,
    "Memory, in the system message": _blocks(InsertMethod.SYSTEM),
    "Memory, in the user message": _blocks(InsertMethod.USER),
}
