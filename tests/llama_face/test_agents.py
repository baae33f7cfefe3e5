"""Agents and workflows with our memory: what a model is given at each step, and what is kept of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core")

from llama_helpers import AGENTS, SYSTEM, function_agent, given, react_agent, run, streaming_agent, workflow
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, TextBlock, ToolCallBlock
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context
from strategies import Clock

from memory_integrations import MemoryManager, MemoryScope
from memory_integrations.langchain import ShortTermChatMessageHistory
from memory_integrations.llama_index import ManagedChatMemory
from memory_integrations.testing import StandInLLM

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecationWarning")  # the framework's own


@pytest.fixture
def memory(tmp_path: Path, clock: Clock) -> Iterator[MemoryManager]:
    """Ann's, who lives in Oslo and once said that she plays the oboe."""
    with MemoryManager("user:ann", data_dir=tmp_path, clock=clock) as memory:
        memory.set_fact("city", "Oslo")
        memory.for_scope("user:ann/session:old").add_turn("I play the oboe in an orchestra.", "A fine instrument.")
        yield memory


def in_session(memory: MemoryManager, **options: Any) -> ManagedChatMemory:
    return ManagedChatMemory(memory, "user:ann/session:s1", **options)


def tide(place: str = "here") -> str:
    """When the tide turns at a place."""
    return f"High water at four, {place}."


TIDE = FunctionTool.from_defaults(tide)


@pytest.mark.parametrize("agent", AGENTS)
async def test_p36_the_model_receives_everything(agent: Any, memory: MemoryManager) -> None:
    llm = StandInLLM()
    made, chat_memory = agent(llm), in_session(memory)
    await run(made, "The lamp is lit.", chat_memory)
    answer = await run(made, "Which instrument do I play?", chat_memory)
    assert "oboe" in answer
    last = llm.seen[-1]
    text = given(last)
    assert SYSTEM in str(last[0].content)
    assert '"city": "Oslo"' in text
    assert "I play the oboe in an orchestra." in text
    assert "user: The lamp is lit." in text
    assert last[-1].role == MessageRole.USER
    assert last[-1].blocks[-1].text == "Which instrument do I play?"  # type: ignore[union-attr]
    assert text.count("<memory:facts>") == 1


async def test_p36_a_react_agent_without_a_system_prompt_has_the_facts(memory: MemoryManager) -> None:
    """It drops the first system message that it finds."""
    llm = StandInLLM()
    await run(ReActAgent(llm=llm, tools=[], streaming=False), "Where do I live?", in_session(memory))
    assert '"city": "Oslo"' in given(llm.seen[-1])


@pytest.mark.parametrize("agent", [function_agent, streaming_agent, workflow])
async def test_p36_tool_calls_their_arguments_and_results_are_kept(agent: Any, memory: MemoryManager) -> None:
    llm, chat_memory = StandInLLM(), in_session(memory)
    answer = await run(agent(llm, [TIDE]), "Please call tide.", chat_memory)
    assert answer == "tide: High water at four, here."
    messages = chat_memory.get_all()
    assert [message.role.value for message in messages] == ["user", "assistant", "tool", "assistant"]
    call = messages[1].blocks[-1]
    assert isinstance(call, ToolCallBlock)
    assert call.tool_name == "tide"
    assert messages[2].additional_kwargs["tool_call_id"] == call.tool_call_id
    shown = chat_memory.get("And now?")
    assert [message.role.value for message in shown if message.role != MessageRole.SYSTEM] == [
        "user", "assistant", "tool", "assistant"
    ]  # fmt: skip
    assert [message.text for message in memory.long_term.messages("s1")] == ["Please call tide.", answer]
    # At each step the question, what memory has for it, and the agent's work:
    assert [message.role.value for message in llm.seen[-1]] == ["system", "user", "assistant", "tool"]
    assert all('"city": "Oslo"' in given(messages) for messages in llm.seen)


@pytest.mark.parametrize("agent", AGENTS)
async def test_p10_nothing_injected_is_stored(agent: Any, memory: MemoryManager) -> None:
    chat_memory = in_session(memory)
    made = agent(StandInLLM(), [TIDE])
    for text in ("Where do I live?", "Please call tide.", "Which instrument do I play?"):
        await run(made, text, chat_memory)
    kept = [message.text for message in memory.long_term.messages("s1")]
    kept += [str(message.content) for message in chat_memory.get_all()]
    assert not [text for text in kept if "<memory:" in text]


async def test_a_question_in_two_blocks_is_known_at_each_step(memory: MemoryManager) -> None:
    llm = StandInLLM()
    asked = ChatMessage(blocks=[TextBlock(text="Please call tide."), TextBlock(text="Which instrument do I play?")])
    await function_agent(llm, [TIDE]).run(user_msg=asked, memory=in_session(memory))
    assert [message.role.value for message in llm.seen[-1]] == ["system", "user", "assistant", "tool"]
    assert llm.seen[0][1] == llm.seen[-1][1]


async def test_the_state_of_a_workflow_stays_out_of_memory(memory: MemoryManager) -> None:
    """An agent writes its state into the message that it was given."""
    llm, chat_memory = StandInLLM(), in_session(memory)
    agent = FunctionAgent(llm=llm, tools=[], system_prompt=SYSTEM, initial_state={"lamp": "lit"}, streaming=False)
    await run(agent, "Where do I live?", chat_memory)
    assert "lamp" in str(llm.seen[-1][-1].blocks[-1].text)  # type: ignore[union-attr]
    assert chat_memory.get_all()[0].content == "Where do I live?"
    assert "lamp" not in given(chat_memory.get())


class HandsOver(StandInLLM):
    """Hands over to the carpenter, who answers."""

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        reply = super().chat(messages, **kwargs)
        if "harbour" not in str(messages[0].content):
            return reply
        order = {"to_agent": "carpenter", "reason": "Wood."}
        call = ToolCallBlock(tool_call_id="call_1", tool_name="handoff", tool_kwargs=order)
        return ChatResponse(message=ChatMessage(role="assistant", blocks=[call]))


async def test_an_agent_that_is_handed_over_to_gets_memory_where_the_first_got_it(memory: MemoryManager) -> None:
    """The first one's call and its result are put by then: the question is no longer the last message."""
    llm, chat_memory = HandsOver(), in_session(memory)
    agents = [
        FunctionAgent(name=name, description=text, llm=llm, system_prompt=text, streaming=False)
        for name, text in (("pilot", "Knows the harbour."), ("carpenter", "Knows wood."))
    ]
    made = AgentWorkflow(agents=agents, root_agent="pilot")
    await run(made, "Which instrument do I play?", chat_memory)
    first, second = llm.seen
    assert [message.role.value for message in first] == ["system", "user"]
    assert [message.role.value for message in second] == ["system", "user", "assistant", "tool"]
    assert first[1] == second[1]
    assert "<memory:facts>" in str(second[1].content)


async def test_a_run_with_the_whole_history_stores_it_once(memory: MemoryManager) -> None:
    chat_memory = in_session(memory)
    agent = function_agent(StandInLLM(), [TIDE])
    await run(agent, "Please call tide.", chat_memory)
    for _ in range(3):
        history = [*chat_memory.get_all()]
        await run(agent, "Yes.", ManagedChatMemory(memory, "user:ann/session:s1"), chat_history=history)
    said = [message.text for message in memory.long_term.messages("s1")]
    assert said == ["Please call tide.", "tide: High water at four, here.", *["Yes.", "Noted: Yes."] * 3]
    assert len(chat_memory.get_all()) == 10


async def test_a_history_alone_may_be_asked(memory: MemoryManager) -> None:
    llm, chat_memory = StandInLLM(), in_session(memory)
    history = [ChatMessage("I saw a whale."), ChatMessage("Noted.", role="assistant"), ChatMessage("Where do I live?")]
    assert await run(function_agent(llm), None, chat_memory, chat_history=history) == "Your city is Oslo."
    assert len(chat_memory.get_all()) == 4


async def test_a_context_goes_through_json_and_goes_on(memory: MemoryManager) -> None:
    """P37: a workflow's context is serialised with its memory in it."""
    llm, chat_memory = StandInLLM(), in_session(memory)
    agent = function_agent(llm, [TIDE])
    first = Context(agent)
    await run(agent, "Please call tide.", chat_memory, ctx=first)
    restored = Context.from_dict(agent, first.to_dict())
    await agent.run(user_msg="Which instrument do I play?", ctx=restored)
    assert "oboe" in given(llm.seen[-1])
    assert "Please call tide." in given(llm.seen[-1])
    assert len(chat_memory.get_all()) == 6  # one conversation
    assert memory.long_term.count() == 2 + 4


async def test_p21_agents_of_many_users_in_one_loop(tmp_path: Path) -> None:
    with MemoryManager(data_dir=tmp_path) as memory:
        llm = StandInLLM()
        agents = [function_agent(llm), react_agent(llm), workflow(llm)]

        async def talk(number: int) -> None:
            chat_memory = ManagedChatMemory(memory, MemoryScope(f"user-{number}", "s"))
            for step in range(10):
                await run(agents[number % 3], f"I am user {number} and this is remark {step}.", chat_memory)

        await asyncio.gather(*map(talk, range(10)))
        for number in range(10):
            said = [m.text for m in memory.for_scope(MemoryScope(f"user-{number}", "s")).long_term.messages("s")]
            assert len(said) == 20
            assert all(f"user {number} " in text for text in said[::2])
        for messages in llm.seen:
            assert len({name for name in range(10) if f"I am user {name} " in given(messages)}) == 1


async def test_one_user_in_both_frameworks(memory: MemoryManager) -> None:
    """What was said through LlamaIndex is read through LangChain in the same session, and the other way round."""
    chat_memory = in_session(memory)
    await run(function_agent(StandInLLM(), [TIDE]), "Please call tide.", chat_memory)
    history = ShortTermChatMessageHistory(memory, "s1")
    messages = history.messages
    assert [message.type for message in messages] == ["human", "ai", "tool", "ai"]
    assert messages[1].tool_calls[0]["name"] == "tide"  # type: ignore[attr-defined]
    history.add_user_message("Thank you.")
    assert chat_memory.get_all()[-1].content == "Thank you."
    assert [message.content for message in chat_memory.get_all()[:4]] == [message.text or None for message in messages]
