"""Memory as tools, in real agents and in LangGraph's own tool node."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pytest

pytest.importorskip("langchain")

from agent_helpers import Scripted, calls, run_of
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.tools.tool_node import _ToolNode as ToolNode  # langgraph's; in the first releases of 1.0 langchain's own
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from strategies import fresh_scope, nasty_text

from memory_integrations import (
    FeatureMemory,
    LongTermMemory,
    MemoryManager,
    MemoryScope,
    Message,
    ScopeError,
    StoreUnavailableError,
)
from memory_integrations.langchain import MemoryMiddleware, memory_tools

NOON = datetime(2025, 5, 8, 12, tzinfo=UTC)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[MemoryManager]:
    with MemoryManager(data_dir=tmp_path, clock=lambda: NOON) as memory:
        yield memory


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryManager]:
    """One open memory for many examples, each with a user of its own."""
    with MemoryManager("global", data_dir=tmp_path_factory.mktemp("shared"), clock=lambda: NOON) as memory:
        yield memory


Asked = tuple[str, dict[str, Any]]
Run = Callable[..., list[ToolMessage]]


def asking(*asked: Asked) -> Scripted:
    """A model that calls tools once, then is content."""
    return Scripted(
        reply=lambda messages: "Done." if isinstance(messages[-1], ToolMessage) else calls(*asked, text="One moment.")
    )


def results(messages: list[Any]) -> list[ToolMessage]:
    return [message for message in messages if isinstance(message, ToolMessage)]


def given_to(said: str = "My name is Ann", id_: str = "u1") -> dict[str, Any]:
    return {"messages": [HumanMessage(said, id=id_)]}


def by_agent(memory: MemoryManager, *asked: Asked, config: Any = None, said: str = "Hi", **options: Any) -> Any:
    agent = create_agent(asking(*asked), tools=memory_tools(memory, **options))
    return results(agent.invoke(given_to(said), config or run_of())["messages"])


def by_agent_async(memory: MemoryManager, *asked: Asked, config: Any = None, said: str = "Hi", **options: Any) -> Any:
    agent = create_agent(asking(*asked), tools=memory_tools(memory, **options))
    return results(asyncio.run(agent.ainvoke(given_to(said), config or run_of()))["messages"])


def _graph(memory: MemoryManager, asked: tuple[Asked, ...], said: str, options: Any) -> tuple[Any, Any]:
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode(memory_tools(memory, **options)))
    graph.add_edge(START, "tools")
    given = given_to(said)
    given["messages"].append(calls(*asked))
    return graph.compile(), given


def by_node(memory: MemoryManager, *asked: Asked, config: Any = None, said: str = "Hi", **options: Any) -> Any:
    graph, given = _graph(memory, asked, said, options)
    return results(graph.invoke(given, config or run_of())["messages"])


def by_node_async(memory: MemoryManager, *asked: Asked, config: Any = None, said: str = "Hi", **options: Any) -> Any:
    graph, given = _graph(memory, asked, said, options)
    return results(asyncio.run(graph.ainvoke(given, config or run_of()))["messages"])


WAYS = [by_agent, by_agent_async, by_node, by_node_async]
in_every_way = pytest.mark.parametrize("run", WAYS, ids=lambda way: way.__name__)


# What the model sees of them


def test_schemas_hold_what_the_model_may_say_and_nothing_of_whose_memory_it_is(memory: MemoryManager) -> None:
    tools = {tool.name: tool for tool in memory_tools(memory)}
    expected = {
        "remember_fact": ({"key", "value"}, ["key", "value"]),
        "forget_fact": ({"key"}, ["key"]),
        "search_memory": ({"query", "since", "until", "limit"}, ["query"]),
    }
    assert set(tools) == set(expected)
    for name, (properties, required) in expected.items():
        function = convert_to_openai_tool(tools[name])["function"]
        assert set(function["parameters"]["properties"]) == properties
        assert function["parameters"]["required"] == required
        assert function["description"].strip()
        assert all(
            "description" in field for key, field in function["parameters"]["properties"].items() if key != "runtime"
        )
        schema: Any = tools[name].tool_call_schema
        seen = json.dumps([function, schema.model_json_schema(), tools[name].args if name == "" else {}]).lower()
        assert not any(word in seen for word in ("runtime", "user_id", "thread_id", "session", "scope", "message_id"))


def test_tools_can_be_made_without_opening_anything(tmp_path: Path) -> None:
    memory = MemoryManager(data_dir=tmp_path / "memory")
    assert all(isinstance(tool, BaseTool) for tool in memory_tools(memory))
    assert not (tmp_path / "memory").exists()


# Facts


@in_every_way
def test_a_fact_is_remembered_with_where_it_was_said(memory: MemoryManager, run: Run) -> None:
    [told] = run(memory, ("remember_fact", {"key": "name", "value": "Ann"}), said="My name is Ann")
    assert (told.content, told.status) == ("Remembered: name.", "success")
    fact = memory.for_scope("user:ann").features.get_with_history("name")
    assert fact is not None
    [version] = fact.history
    assert (version.value, version.source, version.message_id) == ("Ann", "tool", "u1")
    assert len(memory.features) == 0


@in_every_way
@pytest.mark.parametrize(
    "value", [True, False, 3, 2.5, 3.0, -1, "3", "true", "", ["tea", "bread"], [], ["3"], "Ann\n{x}"], ids=repr
)
def test_a_value_keeps_its_type(memory: MemoryManager, run: Run, value: Any) -> None:
    [told] = run(memory, ("remember_fact", {"key": "k", "value": value}))
    assert told.status == "success", told.content
    kept = memory.for_scope("user:ann").get_fact("k")
    assert kept == value
    assert type(kept) is type(value)


@in_every_way
def test_a_fact_is_replaced_and_forgotten(memory: MemoryManager, run: Run) -> None:
    ann = memory.for_scope("user:ann")
    ann.set_fact("city", "Lisbon")
    run(memory, ("remember_fact", {"key": "city", "value": "Porto"}))
    fact = ann.features.get_with_history("city")
    assert fact is not None
    assert [version.value for version in fact.history] == ["Lisbon", "Porto"]
    [told] = run(memory, ("forget_fact", {"key": "city"}))
    assert told.content == "Forgotten: city."
    assert ann.get_fact("city") is None
    ann.set_fact("name", "Ann")
    [told] = run(memory, ("forget_fact", {"key": "city"}))
    assert told.content == "There is no fact 'city'. Known are: name."
    assert told.status == "success"
    [told] = run(memory, ("forget_fact", {"key": "city"}), config=run_of("bob"))
    assert told.content == "There is no fact 'city'. Known are: none."


def test_of_many_facts_those_that_are_most_like_the_one_that_is_none_are_named(memory: MemoryManager) -> None:
    """The rest would take the room of what a model is to read."""
    ann = memory.for_scope("user:ann")
    for number in range(60):
        ann.set_fact(f"{number}_ships_seen", number)
    ann.set_fact("home_city", "Oslo")
    ann.set_fact("no model can name it " * 100, True)
    (told,) = by_node(memory, ("forget_fact", {"key": "city"}))
    assert told.content.startswith("There is no fact 'city'. Known are: home_city, ")
    assert told.content.endswith(", 42 others.")
    assert len(told.content) < 500


@settings(max_examples=25)
@given(key=nasty_text.filter(bool), value=st.one_of(nasty_text, st.booleans(), st.integers(-(2**40), 2**40)))
def test_any_key_and_value(shared: MemoryManager, key: str, value: Any) -> None:
    user = fresh_scope()
    [told] = by_node(shared, ("remember_fact", {"key": key, "value": value}), config=run_of(user.user_id))
    assert told.status == "success", told.content
    kept = shared.for_scope(user).get_fact(key)
    assert kept == value
    assert type(kept) is type(value)
    [told] = by_node(shared, ("forget_fact", {"key": key}), config=run_of(user.user_id))
    assert told.content == f"Forgotten: {key}."


@in_every_way
def test_parallel_calls_are_all_carried_out(memory: MemoryManager, run: Run) -> None:
    asked = [("remember_fact", {"key": f"fact_{i}", "value": i}) for i in range(8)]
    told = run(memory, *asked, ("search_memory", {"query": "facts"}))
    assert [message.content for message in told] == [f"Remembered: fact_{i}." for i in range(8)] + [
        "Nothing was found."
    ]
    assert [message.tool_call_id for message in told] == [f"call-{i}" for i in range(9)]
    assert memory.for_scope("user:ann").features.all() == {f"fact_{i}": i for i in range(8)}


def test_the_message_is_the_question_of_this_turn(memory: MemoryManager) -> None:
    """Not an older one, not what came after it, and not a summary, which nobody said."""
    graph, _ = _graph(memory, (), "", {})
    before = [HumanMessage("Hello", id="old"), AIMessage("Hi", id="a1"), HumanMessage("I am Ann", id="new")]
    summary = HumanMessage("They greeted.", id="sum", additional_kwargs={"lc_source": "summarization"})
    graph.invoke({"messages": [*before, summary, calls(("remember_fact", {"key": "k", "value": 1}))]}, run_of())
    fact = memory.for_scope("user:ann").features.get_with_history("k")
    assert fact is not None
    assert fact.history[0].message_id == "new"


def test_a_graph_whose_state_is_its_messages(memory: MemoryManager) -> None:
    graph = StateGraph(Annotated[list[AnyMessage], add_messages])  # type: ignore[type-var]
    graph.add_node("tools", ToolNode(memory_tools(memory)))
    graph.add_edge(START, "tools")
    said = [HumanMessage("I am Ann", id="u7"), calls(("remember_fact", {"key": "name", "value": "Ann"}))]
    graph.compile().invoke(said, run_of())
    fact = memory.for_scope("user:ann").features.get_with_history("name")
    assert fact is not None
    assert fact.history[0].message_id == "u7"


# Searching


@in_every_way
def test_earlier_sessions_are_found(memory: MemoryManager, run: Run) -> None:
    memory.for_scope("user:ann/session:sunday").add_turn("My cello is red", "A red cello, I see")
    memory.for_scope("user:bob/session:sunday").add_turn("My cello is green", "A green cello, I see")
    [told] = run(memory, ("search_memory", {"query": "What colour is the cello?"}))
    assert isinstance(told.content, str)
    assert told.content.startswith("<memory:recalled>\n")
    assert told.content.endswith("\n</memory:recalled>")
    assert "8 May 2025 user: My cello is red" in told.content
    assert "green" not in told.content
    found = json.loads(json.dumps(told.artifact))
    assert [memory_["text"] for memory_ in found] == told.content.splitlines()[1:-1]
    assert all(memory_["session_id"] == "sunday" and 0 < memory_["score"] <= 1 for memory_ in found)
    hits = memory.for_scope("user:ann").search_long_term("What colour is the cello?")
    assert [memory_["id"] for memory_ in found] == [hit.id for hit in hits]


@in_every_way
def test_the_question_itself_is_not_found(memory: MemoryManager, run: Run) -> None:
    ann = memory.for_scope("user:ann/session:t1")
    ann.follow([Message("user", "What colour is my cello?", id="u1")], unanswered=True)
    [told] = run(memory, ("search_memory", {"query": "colour cello"}), said="What colour is my cello?")
    assert told.content == "Nothing was found."
    assert told.artifact == []


def test_with_the_middleware_the_question_itself_is_not_found(memory: MemoryManager) -> None:
    memory.for_scope("user:ann/session:sunday").add_turn("My cello is red", "A red cello, I see")
    model = asking(("search_memory", {"query": "What colour is my cello?"}))
    agent = create_agent(model, tools=memory_tools(memory), middleware=[MemoryMiddleware(memory)])
    [told] = results(agent.invoke(given_to("What colour is my cello?"), run_of())["messages"])
    assert "My cello is red" in told.content
    assert "What colour" not in told.content
    # What a tool found is not what was said.
    assert memory.for_scope("user:ann").long_term.count() == 5
    assert not any("<memory:" in message.text for message in memory.for_scope("user:ann").long_term.messages())


@in_every_way
def test_a_span_of_time_and_a_limit(memory: MemoryManager, run: Run) -> None:
    ann = memory.for_scope("user:ann")
    for month in range(1, 13):
        said = datetime(2024, month, 10, 12, tzinfo=UTC)
        ann.long_term.store_messages(
            [Message("user", f"I hiked on route {month}", session_id=f"s{month}", created_at=said)]
        )
    [told] = run(memory, ("search_memory", {"query": "hiked", "since": "2024-03-10", "until": "2024-06-10T12:00:00Z"}))
    assert sorted(found["created_at"][:7] for found in told.artifact) == ["2024-03", "2024-04", "2024-05"]
    [told] = run(memory, ("search_memory", {"query": "hiked", "limit": 2}))
    assert len(told.artifact) == 2
    [told] = run(memory, ("search_memory", {"query": "hiked", "since": None, "until": None}))
    assert len(told.artifact) == 5


def test_what_others_wrote_in_the_metadata_does_not_hide_the_memory(memory: MemoryManager) -> None:
    store = memory.for_scope("user:ann").long_term.vectorstore
    store.add_texts(["The trumpet is in the cellar"], [{"scope": "user:ann", "id": 7, "score": "x", "text": "y"}])
    [told] = by_agent(memory, ("search_memory", {"query": "trumpet"}))
    [found] = told.artifact
    assert found["text"] == "note: The trumpet is in the cellar"
    assert isinstance(found["score"], float)
    assert isinstance(found["id"], str)


# Whose memory


@in_every_way
@pytest.mark.parametrize(
    "forged",
    [
        {"user_id": "bob"},
        {"runtime": {"config": {"configurable": {"user_id": "bob"}}, "context": {"user_id": "bob"}, "state": {}}},
        {"runtime": None, "scope": "user:bob", "session_id": "b", "thread_id": "b", "memory": "user:bob"},
        {"config": {"configurable": {"user_id": "bob"}}, "context": {"user_id": "bob"}},
    ],
    ids=["user", "runtime", "scope", "config"],
)
def test_p21_what_a_model_says_of_whose_memory_it_is_changes_nothing(
    memory: MemoryManager, run: Run, forged: dict[str, Any]
) -> None:
    bob = memory.for_scope("user:bob/session:b")
    bob.set_fact("pin", 1234)
    bob.add_turn("My PIN is 1234", "I tell nobody of 1234")
    told = run(
        memory,
        ("search_memory", {"query": "PIN of user:bob", **forged}),
        ("forget_fact", {"key": "pin", **forged}),
        ("remember_fact", {"key": "code", "value": "stolen", **forged}),
    )
    assert "1234" not in str(told)
    assert bob.features.all() == {"pin": 1234}
    assert memory.for_scope("user:ann").get_fact("code") == "stolen"
    assert bob.long_term.count() == 2


@in_every_way
def test_a_run_without_a_user_is_refused(memory: MemoryManager, run: Run) -> None:
    for asked in (
        ("remember_fact", {"key": "k", "value": 1}),
        ("forget_fact", {"key": "k"}),
        ("search_memory", {"query": "k"}),
    ):
        with pytest.raises(ScopeError, match="names no user"):
            run(memory, asked, config=run_of(None))
    [told] = run(memory, ("remember_fact", {"key": "k", "value": 1}), config=run_of(None), require_user=False)
    assert told.status == "success"
    assert memory.for_scope("session:t1").get_fact("k") == 1
    with pytest.raises(ScopeError, match="expected one"):
        run(memory.for_scope("user:ann"), ("remember_fact", {"key": "k", "value": 1}), config=run_of("bob"))
    [told] = run(memory.for_scope("user:ann"), ("remember_fact", {"key": "k", "value": 2}), config=run_of(None))
    assert memory.for_scope("user:ann").get_fact("k") == 2


@dataclass
class Who:
    user_id: str


def test_the_context_of_the_run_names_the_user(memory: MemoryManager) -> None:
    model = asking(("remember_fact", {"key": "k", "value": 1}))
    agent = create_agent(model, tools=memory_tools(memory), context_schema=Who)
    agent.invoke(given_to(), context=Who("ann"))  # type: ignore[call-overload]
    asyncio.run(agent.ainvoke(given_to(), context=Who("bob")))  # type: ignore[call-overload]
    assert [memory.for_scope(f"user:{user}").get_fact("k") for user in ("ann", "bob", "eve")] == [1, 1, None]
    with pytest.raises(ScopeError, match="expected one"):
        agent.invoke(given_to(), run_of("ann"), context=Who("bob"))  # type: ignore[call-overload]


def test_p21_one_agent_serves_many_users_at_once(memory: MemoryManager) -> None:
    def reply(messages: list[BaseMessage]) -> Any:
        name = messages[0].text
        if isinstance(messages[-1], ToolMessage):
            return "Done."
        return calls(("remember_fact", {"key": "name", "value": name}), ("search_memory", {"query": "name"}))

    agent = create_agent(Scripted(reply=reply), tools=memory_tools(memory))
    users = [f"user {i}" for i in range(12)]
    for user in users:
        memory.for_scope(f"user:{user}").add_turn(f"The name is {user}.", "Noted.", "s")
    found = agent.batch([given_to(user) for user in users], [run_of(user) for user in users])

    async def together() -> list[Any]:
        return await asyncio.gather(*(agent.ainvoke(given_to(user), run_of(user)) for user in users))

    for states in (found, asyncio.run(together())):
        for user, state in zip(users, states, strict=True):
            scopes = {memory_["scope"] for message in results(state["messages"]) for memory_ in message.artifact or []}
            assert scopes == {f"user:{user}"}
    assert all(memory.for_scope(f"user:{user}").get_fact("name") == user for user in users)


# Errors


@in_every_way
@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("remember_fact", {"key": "", "value": 1}), "key"),
        (("remember_fact", {"value": 1}), "key"),
        (("remember_fact", {"key": "k"}), "value"),
        (("remember_fact", {"key": "k", "value": {"deep": 1}}), "value"),
        (("remember_fact", {"key": "k", "value": None}), "value"),
        (("remember_fact", {"key": "k", "value": float("inf")}), "finite"),
        (("remember_fact", {"key": "\ud83d", "value": 1}), "key"),
        (("forget_fact", {"key": "\ud83d"}), "key"),
        (("forget_fact", {}), "key"),
        (("search_memory", {"query": ""}), "query"),
        (("search_memory", {"query": "x", "limit": 0}), "limit"),
        (("search_memory", {"query": "x", "limit": 1000}), "limit"),
        (("search_memory", {"query": "x", "since": "last week"}), "since"),
        (("search_memory", {"query": "x", "since": "0001-01-01T00:00:00+14:00"}), "year"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_with_the_arguments_is_told_to_the_model(
    memory: MemoryManager, run: Run, asked: Asked, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, logger="memory_integrations"):
        [told] = run(memory, asked)
    assert told.status == "error"
    assert says in str(told.content)
    assert caplog.text == ""  # nobody needs to be woken for what a model got wrong
    assert memory.for_scope("user:ann").features.all() == {}


@in_every_way
def test_a_store_that_fails_is_told_to_the_model_and_logged(
    memory: MemoryManager, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise StoreUnavailableError("no disk")

    for owner, method in ((FeatureMemory, "set"), (FeatureMemory, "delete"), (LongTermMemory, "search")):
        monkeypatch.setattr(owner, method, refuse)
    with caplog.at_level(logging.ERROR, logger="memory_integrations"):
        told = run(
            memory,
            ("remember_fact", {"key": "k", "value": 1}),
            ("forget_fact", {"key": "k"}),
            ("search_memory", {"query": "k"}),
        )
    away = "Not done: the memory cannot be reached now. Try again later."
    assert [(message.content, message.status) for message in told] == [(away, "error")] * 3
    assert caplog.text.count("no disk") == 3


@in_every_way
def test_facts_that_cannot_be_read_are_told_to_the_model(memory: MemoryManager, tmp_path: Path, run: Run) -> None:
    (tmp_path / "journal" / f"{MemoryScope('ann').storage_key}.jsonl").mkdir(parents=True)  # which is no file
    told = run(memory, ("remember_fact", {"key": "k", "value": 1}), ("forget_fact", {"key": "k"}))
    assert [message.status for message in told] == ["error"] * 2
    assert not any(str(tmp_path) in str(message.content) for message in told), "where stores are is nobody's business"


def test_after_an_error_the_agent_goes_on(memory: MemoryManager, monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(messages: list[BaseMessage]) -> Any:
        told = results(messages)
        if not told:
            return calls(("search_memory", {"query": "x", "limit": 99}))
        if len(told) == 1:
            return calls(("search_memory", {"query": "cello", "limit": 9}), first=1)
        return f"I found: {told[-1].content}"

    memory.for_scope("user:ann").add_turn("My cello is red", "I see", "s")
    agent = create_agent(Scripted(reply=reply), tools=memory_tools(memory))
    assert "My cello is red" in agent.invoke(given_to(), run_of())["messages"][-1].text


async def test_tools_do_not_block_the_loop(memory: MemoryManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """P35: every call of a store is in a thread."""
    import threading

    threads: list[bool] = []
    real = FeatureMemory.set

    def noting(*given: Any, **more: Any) -> int:
        threads.append(threading.current_thread() is threading.main_thread())
        return real(*given, **more)

    monkeypatch.setattr(FeatureMemory, "set", noting)
    agent = create_agent(asking(("remember_fact", {"key": "k", "value": 1})), tools=memory_tools(memory))
    await agent.ainvoke(given_to(), run_of())  # type: ignore[call-overload]
    assert threads == [False]
