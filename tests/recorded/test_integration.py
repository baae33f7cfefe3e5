"""The five themes of use through the real OpenAI clients, played back from cassettes.

The cassettes are recorded from a scripted server (``scripted_server.py``) and not from a model: the tests assert
properties that hold whoever answers, and say nothing of how well a model manages memory.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain")

from langchain.agents import create_agent
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langgraph.checkpoint.memory import InMemorySaver
from recorded_helpers import ALWAYS, Client, OpenManager, asked, receipt_of, run_of, state
from strategies import Clock
from vcr.cassette import Cassette

from memory_integrations import (
    Compress,
    Delete,
    ManagementPlan,
    ManagementReceipt,
    MemoryManager,
    Message,
    Promote,
    ShortTermPolicy,
)
from memory_integrations.langchain import (
    MemoryMiddleware,
    ShortTermChatMessageHistory,
    build_manager_chain,
    memory_prompt,
    memory_tools,
)
from memory_integrations.manager_chain import ManagerReply

pytestmark = pytest.mark.vcr

LONG = (
    "The old town of Lisbon near the river is a beautiful place to live in. People have lived there for a very long "
    "time, and many of the houses are covered with tiles, which are painted by hand and tell stories of ships and of "
    "saints. In the evening one hears music from the small restaurants."
)
TALK = [
    ("user", "Hello there!"),
    ("assistant", "Good morning!"),
    ("user", "My name is Ann. I live in Lisbon."),
    ("assistant", LONG),
    ("user", "I no longer work at the bakery."),
    ("assistant", "My name is Robo. I live in Oslo."),
    ("user", "What did I say about Lisbon?"),
]


def told(memory: MemoryManager, talk: list[tuple[str, str]] = TALK) -> MemoryManager:
    for i, (role, text) in enumerate(talk, 1):
        memory.short_term.add_message(Message(role, text, id=f"m{i}"))
    return memory


# Embedding and search


def test_what_was_said_is_found_by_the_providers_vectors(
    manager: OpenManager, embeddings: Client, vcr: Cassette
) -> None:
    memory = manager(embeddings=embeddings(), language=None)
    memory.add_turn("My sister plays the oboe in an orchestra.", "How nice.")
    memory.add_turn("The boat needs new paint.", "Which colour?")
    memory.add_turn("I am reading about volcanoes.", "Hot stuff.")
    hit = memory.search_long_term("Who plays in an orchestra?", limit=1)[0]
    assert "oboe" in hit.text
    assert all(request.uri.endswith("/embeddings") for request in vcr.requests)


def test_a_memory_that_is_opened_again_asks_for_the_questions_vector_alone(
    manager: OpenManager, embeddings: Client, vcr: Cassette
) -> None:
    memory = manager(embeddings=embeddings())
    memory.add_turn("The code word is heron.", "I will remember.")
    memory.close()
    before = vcr.play_count or len(vcr)
    again = manager(embeddings=embeddings())
    assert "heron" in again.search_long_term("What is the code word?")[0].text
    sent = [text for body in asked(vcr)[before:] for text in body["input"]]
    assert not any("heron" in text for text in sent)


async def test_search_works_in_an_event_loop(manager: OpenManager, embeddings: Client) -> None:
    memory = manager(embeddings=embeddings())
    await memory.aadd_turn("My bicycle is green.", "Green it is.")
    assert "bicycle" in (await memory.asearch_long_term("Which colour is my bicycle?"))[0].text


# Management


def test_a_model_manages_and_undo_brings_everything_back(manager: OpenManager, client: Client) -> None:
    memory = told(manager(llm_client=client(), short_term_policy=ALWAYS))
    memory.set_fact("employer", "a bakery")
    before = state(memory)
    receipt = receipt_of(memory)
    assert (receipt.failed, receipt.calls) == (None, 1)
    assert min(receipt.usage["input_tokens"], receipt.usage["output_tokens"]) > 0
    assert receipt.tokens_after < receipt.tokens_before
    assert {type(decision) for decision in receipt.decisions} >= {Delete, Compress, Promote}
    kept = [entry.id for entry in memory.short_term.entries]
    assert kept[-2:] == ["m6", "m7"]
    assert "m1" not in kept
    memory.undo(receipt)
    assert state(memory) == before


def test_a_dry_run_changes_nothing_and_its_plan_can_be_applied(
    manager: OpenManager, client: Client, vcr: Cassette
) -> None:
    memory = told(manager(llm_client=client(), short_term_policy=ALWAYS))
    before = state(memory)
    plan = memory.manage_short_term(dry_run=True)
    assert isinstance(plan, ManagementPlan)
    assert state(memory) == before
    assert "Hello there!" in str(plan.diff())
    receipt = memory.apply(plan)
    assert list(receipt.decisions) == list(plan.decisions) != []
    assert memory.short_term.entries == list(plan.after)
    assert len(vcr) == 1


async def test_the_model_is_awaited(manager: OpenManager, client: Client) -> None:
    memory = told(manager(llm_client=client(), short_term_policy=ALWAYS))
    receipt = await memory.amanage_short_term()
    assert isinstance(receipt, ManagementReceipt)
    assert (receipt.failed, receipt.calls) == (None, 1)
    assert receipt.decisions


def test_a_model_may_be_given_by_its_name(
    manager: OpenManager, chat: Client, provider: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is made of a name finds its address and its key in the environment."""
    monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", provider.api_key)
    memory = told(manager(llm_client=f"openai:{chat().model_name}", short_term_policy=ALWAYS))
    assert receipt_of(memory).failed is None
    assert "Lisbon" in memory.features.all().values()


def test_managing_in_the_background_is_done_when_flush_returns(manager: OpenManager, chat: Client) -> None:
    policy = ShortTermPolicy(manage_above_tokens=0, manage_every_n_turns=2)
    memory = manager(llm_client=chat(), short_term_policy=policy, manage_in_background=True)
    memory.add_turn("Hello there!", "Good morning!")
    memory.add_turn("My name is Ann.", "Nice to meet you.")
    memory.flush()
    assert "Ann" in memory.features.all().values()
    assert "Hello there!" not in [entry.content for entry in memory.short_term.entries]


def test_decisions_may_come_as_a_tool_call(manager: OpenManager, chat: Client) -> None:
    by_call = chat().with_structured_output(ManagerReply, method="function_calling", include_raw=True)
    memory = told(manager(short_term_policy=ALWAYS))
    memory.manager = build_manager_chain(by_call)
    receipt = receipt_of(memory)
    assert (receipt.failed, receipt.calls) == (None, 1)
    assert receipt.usage["input_tokens"] > 0
    assert "Lisbon" in memory.features.all().values()


def test_decisions_may_come_as_plain_text(manager: OpenManager, chat: Client) -> None:
    memory = told(manager(llm_client=chat() | StrOutputParser(), short_term_policy=ALWAYS))
    receipt = receipt_of(memory)
    assert (receipt.failed, receipt.calls) == (None, 1)
    assert "Lisbon" in memory.features.all().values()


# Fact extraction


def test_facts_are_what_the_user_said_with_their_provenance(manager: OpenManager, client: Client) -> None:
    memory = told(manager(llm_client=client(), short_term_policy=ALWAYS))
    receipt_of(memory)
    facts = memory.features.all()
    assert "Ann" in facts.values() and "Lisbon" in facts.values()
    assert not {"Robo", "Oslo"} & set(map(str, facts.values()))
    for key in facts:
        fact = memory.features.get_with_history(key)
        assert fact is not None
        version = fact.history[-1]
        assert version.source == "llm"
        assert version.message_id in ("m3", "m5")


def test_a_fact_that_holds_no_longer_is_removed_and_its_history_stays(
    manager: OpenManager, client: Client, clock: Clock
) -> None:
    memory = manager(llm_client=client(), short_term_policy=ALWAYS)
    memory.set_fact("employer", "the bakery")
    clock.advance(60)
    told(memory)
    receipt_of(memory)
    assert "employer" not in memory.features
    fact = memory.features.get_with_history("employer")
    assert fact is not None and fact.history[0].value == "the bakery"


# Full flow: an agent


def agent_of(memory: MemoryManager, model: Any) -> Any:
    return create_agent(
        model, tools=memory_tools(memory), middleware=[MemoryMiddleware(memory)], checkpointer=InMemorySaver()
    )


def say(agent: Any, text: str, user: str, thread: str) -> str:
    return str(agent.invoke({"messages": [HumanMessage(text)]}, run_of(user, thread))["messages"][-1].text)


def test_an_agent_remembers_across_threads_and_not_across_users(
    manager: OpenManager, chat: Client, vcr: Cassette
) -> None:
    memory = manager("global")
    agent = agent_of(memory, chat())
    say(agent, "I live in Lisbon. Please remember that.", "ann", "monday")
    assert "Lisbon" in memory.for_scope("user:ann").features.all().values()
    assert "Lisbon" in say(agent, "Where do I live?", "ann", "tuesday")
    assert "Lisbon" not in say(agent, "Where do I live?", "bob", "friday")
    assert "Lisbon" not in str(asked(vcr)[-1])


def test_an_agent_forgets_a_fact_by_a_tool_call(manager: OpenManager, chat: Client, vcr: Cassette) -> None:
    memory = manager("global")
    memory.for_scope("user:ann").set_fact("city", "Lisbon")
    say(agent_of(memory, chat()), "Please forget my city.", "ann", "monday")
    assert memory.for_scope("user:ann").features.all() == {}
    called = [m for body in asked(vcr) for m in body["messages"] if m.get("tool_calls")]
    assert called[0]["tool_calls"][0]["function"]["name"] == "forget_fact"


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # of the openai client, about its own answer
async def test_an_agent_streams_and_its_managers_words_stay_out_of_the_stream(
    manager: OpenManager, chat: Client
) -> None:
    policy = ShortTermPolicy(manage_above_tokens=0, manage_every_n_turns=1)
    memory = manager("global", llm_client=chat(), short_term_policy=policy)
    agent = agent_of(memory, chat(stream_usage=True))
    pieces = [
        piece
        async for piece, _ in agent.astream(
            {"messages": [HumanMessage("My boat is called Heron.")]}, run_of("ann", "monday"), stream_mode="messages"
        )
        if isinstance(piece, AIMessageChunk)
    ]
    said = [piece.text for piece in pieces if piece.text]
    assert len(said) > 1
    assert "".join(said) == agent.get_state(run_of("ann", "monday")).values["messages"][-1].text
    assert "decisions" not in "".join(said)
    assert any(piece.usage_metadata for piece in pieces)


def test_tool_calls_are_put_together_from_a_stream(manager: OpenManager, chat: Client) -> None:
    memory = manager("global")
    agent = agent_of(memory, chat(streaming=True))
    list(agent.stream({"messages": [HumanMessage("My name is Ann.")]}, run_of("ann", "monday"), stream_mode="messages"))
    assert "Ann" in memory.for_scope("user:ann").features.all().values()


# Context building


def test_a_chain_answers_from_facts_and_what_is_recalled(manager: OpenManager, chat: Client, vcr: Cassette) -> None:
    memory = manager("user:ann/session:monday")
    memory.set_fact("city", "Lisbon")
    memory.add_turn("My beagle is called Toto.", "A fine name.")
    later = memory.for_scope("user:ann/session:tuesday")
    chain = memory_prompt(later) | chat() | StrOutputParser()
    assert "Lisbon" in chain.invoke({"input": "Where do I live?", "history": []})
    assert "Toto" in chain.invoke({"input": "What is my beagle called?", "history": []})
    for body in asked(vcr):
        assert [message["role"] for message in body["messages"]].count("system") == 1


def test_a_history_is_sent_as_it_was_said(manager: OpenManager, chat: Client, vcr: Cassette) -> None:
    memory = manager("user:ann")
    history = ShortTermChatMessageHistory(memory, "monday")
    chain = memory_prompt(memory) | chat()
    for text in ("I play the oboe.", "What do I play?"):
        answer = chain.invoke({"input": text, "history": history.messages})
        history.add_user_message(text)
        history.add_ai_message(answer)
    assert "oboe" in history.messages[-1].text
    roles = [message["role"] for message in asked(vcr)[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]


def test_a_context_is_the_same_bytes_for_llama_index(manager: OpenManager, llama: Client, vcr: Cassette) -> None:
    from llama_index.core.llms import ChatMessage

    memory = manager()
    memory.set_fact("city", "Lisbon")
    memory.add_turn("My beagle is called Toto.", "A fine name.")
    context = memory.get_context("What is my beagle called?", max_tokens=400)
    messages = [ChatMessage(role="system", content=context.combined), ChatMessage(content="What is my beagle called?")]
    assert "Toto" in llama().chat(messages).message.content
    pieces = [piece.delta for piece in llama().stream_chat(messages)]
    assert "Toto" in "".join(pieces) and len(pieces) > 1
    first, second = (body["messages"] for body in asked(vcr))
    assert first == second
