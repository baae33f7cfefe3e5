"""The stand-in for a chat model: what it says with a memory and without one, alone and inside real agents."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Annotated, Any, Literal

import pytest

pytest.importorskip("langchain")

from fresh import fresh_python
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from memory_integrations import TokenCounter
from memory_integrations.delimiters import delimit
from memory_integrations.testing import StandInChatModel, StandInError

FACTS = delimit(
    "facts",
    '{\n"dog_name": "Rex",\n"name": "Ann",\n"city": "Lisbon",\n"language": "Python",\n'
    '"allergies": ["nuts", "milk"],\n"motto": "a \\u003cb\\u003e",\n"nothing": ""\n}',
)
RECALLED = delimit(
    "recalled",
    "8 May 2023 user: I adopted a beagle called Toto.\n  He eats a lot.\n"
    "9 June 2022 Caroline: I went to the LGBTQ support group.\n"
    "assistant: Tulips grow in spring.\n"
    "user: Where did I leave my umbrella?",
)
UNKNOWN = "I do not know."

BY_AGENT = ["invoke", "stream", "ainvoke", "astream"]


def ask(question: Any, *before: BaseMessage, model: StandInChatModel | None = None) -> str:
    """The answer's text."""
    return str((model or StandInChatModel()).invoke([*before, HumanMessage(question)]).content)


def call(name: str, args: dict[str, Any] | None = None, id_: str = "1") -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": args or {}, "id": id_}])


def calls_of(message: BaseMessage) -> list[tuple[str, dict[str, Any]]]:
    assert isinstance(message, AIMessage)
    return [(call["name"], call["args"]) for call in message.tool_calls]


async def run(agent: Any, how: str, *messages: BaseMessage) -> dict[str, Any]:
    """The state that an agent ends in, with few enough steps that one without an end is noticed."""
    given, config = {"messages": list(messages)}, {"recursion_limit": 12}
    if how == "invoke":
        states = [("values", agent.invoke(given, config))]
    elif how == "ainvoke":
        states = [("values", await agent.ainvoke(given, config))]
    elif how == "stream":
        states = list(agent.stream(given, config, stream_mode=["messages", "values"]))
    else:
        states = [state async for state in agent.astream(given, config, stream_mode=["messages", "values"])]
    last: dict[str, Any] = [state for mode, state in states if mode == "values"][-1]
    return last


class Notebook:
    """Tools as a memory has them, and what was called."""

    def __init__(self, *found: str) -> None:
        self.called: list[tuple[str, Any]] = []

        @tool
        def remember_fact(key: str, value: str | list[str]) -> str:
            """Remember a fact."""
            self.called.append((key, value))
            return f"Remembered: {key}."

        @tool
        def forget_fact(key: str) -> str:
            """Forget a fact."""
            self.called.append((key, None))
            return f"Forgotten: {key}."

        @tool
        def search_memory(query: str, limit: int = 5) -> str:
            """Search."""
            self.called.append(("search", query))
            return delimit("recalled", "\n".join(found)) or f"Nothing was found for: {query}"

        self.tools = [remember_fact, forget_fact, search_memory]


@tool
def get_weather(place: str, days: int, exact: bool, unit: Literal["C", "F"], hours: list[int], note: str = "") -> str:
    """The weather."""
    return f"sunny, {days} day in {unit}, {exact}, {hours}"


class Kind(Enum):
    SMALL = "small"
    LARGE = "large"


class Node(BaseModel):
    """What holds itself."""

    kind: Kind
    share: float = Field(ge=2.5)
    child: Node | None
    fixed: Literal["x"]


@tool
def plant(node: Node, either: int | str, anything: Any, short: Annotated[str, Field(max_length=3)]) -> str:
    """Plant."""
    return "planted"


@tool
def get_time() -> str:
    """The time."""
    return "noon"


class TestAnswering:
    @pytest.mark.parametrize(
        ("question", "answer"),
        [
            ("What is my name?", "Your name is Ann."),
            ("what's my name", "Your name is Ann."),
            ("Who am I?", "Your name is Ann."),
            ("What am I called?", "Your name is Ann."),
            ("What is the name of my dog?", "Your dog name is Rex."),
            ("What are my dogs called?", "Your dog name is Rex."),
            ("What is the name of my cat?", UNKNOWN),
            ("Where do I live?", "Your city is Lisbon."),
            ("Where does Ann live?", "Your city is Lisbon."),
            ("I forgot. Which city was it?", "Your city is Lisbon."),
            ("Which language do I program in?", "Your language is Python."),
            ("What am I allergic to?", "Your allergies is nuts, milk."),
            ("What is my motto?", "Your motto is a <b>."),
            ("Do I have nothing?", UNKNOWN),
            ("What is the weather in Lisbon?", UNKNOWN),
            ("What do I like?", UNKNOWN),
            ("你叫什么？", UNKNOWN),
        ],
    )
    def test_a_fact_answers_the_question_that_it_shares_most_words_with(self, question: str, answer: str) -> None:
        assert ask(question, SystemMessage(f"Be kind.\n\n{FACTS}")) == answer
        assert ask(f"{FACTS}\n\n{question}") == answer
        assert ask(question) == UNKNOWN

    def test_all_facts_tell_about_the_user(self) -> None:
        assert ask("Tell me about myself", SystemMessage('{"name": "Ann", "city": "Lisbon"}')) == (
            "Your name is Ann. Your city is Lisbon."
        )
        assert ask("Tell me about myself") == UNKNOWN

    @pytest.mark.parametrize(
        ("question", "answer"),
        [
            ("What is my beagle called?", 'You said: "I adopted a beagle called Toto.\nHe eats a lot." (8 May 2023)'),
            ("What happened in May?", 'You said: "I adopted a beagle called Toto.\nHe eats a lot." (8 May 2023)'),
            ("What did Caroline visit?", 'You said: "I went to the LGBTQ support group." (9 June 2022)'),
            ("When do tulips grow?", 'I said: "Tulips grow in spring."'),
            ("Where is my umbrella?", UNKNOWN),
            ("What happened in July?", UNKNOWN),
        ],
    )
    def test_a_memory_answers_with_what_was_said_and_when(self, question: str, answer: str) -> None:
        assert ask(f"{question}\n\n{RECALLED}") == answer
        assert ask([{"type": "text", "text": question}, {"type": "text", "text": RECALLED}]) == answer
        assert ask(question, SystemMessage(RECALLED)) == answer
        assert StandInChatModel().invoke([HumanMessage(question), HumanMessage(RECALLED)]).content == answer
        assert ask(question) == UNKNOWN

    def test_what_was_said_in_the_conversation_answers_and_the_latest_goes_first(self) -> None:
        talk = [
            HumanMessage("I live in Lisbon."),
            AIMessage("Noted: I live in Lisbon."),
            HumanMessage("Where do I live?"),
            AIMessage(UNKNOWN),
            HumanMessage("I live in Porto."),
            AIMessage("Noted."),
        ]
        assert ask("Where do I live?", *talk) == 'You said: "I live in Porto."'
        assert ask("Where do I live?", SystemMessage('{"city": "Faro"}'), *talk) == "Your city is Faro."
        lines = delimit("conversation", "user: I live in Lisbon.\nassistant: Noted.\nuser: I live in Porto.")
        assert ask("Where do I live?", SystemMessage(lines)) == 'You said: "I live in Porto."'

    def test_neither_a_wish_to_forget_nor_an_echo_answers(self) -> None:
        talk = [HumanMessage("Forget my name."), AIMessage("Noted: Forget my name."), AIMessage('You said: "My name"')]
        assert ask("What is my name?", *talk) == UNKNOWN

    def test_json_in_a_conversation_is_no_fact(self) -> None:
        assert ask("Which port is it?", HumanMessage('Config: {"port": 80}')) == 'You said: "Config: {"port": 80}"'
        recalled = delimit("recalled", 'assistant: {"city": "Faro"}')
        assert ask("Which city is it?", SystemMessage(recalled)) == 'I said: "{"city": "Faro"}"'

    def test_a_fact_with_its_history_is_its_current_value(self) -> None:
        facts = '{"city": {"current": "Porto", "history": [{"value": "Lisbon"}]}, "job": null} {broken {"car": 1.5}'
        assert ask("Where do I live?", SystemMessage(facts)) == "Your city is Porto."
        assert ask("Which car is it?", SystemMessage(facts)) == "Your car is 1.5."

    @pytest.mark.parametrize(
        ("said", "answer"),
        [
            ("My name is Ann", "Noted: My name is Ann."),
            (f"{FACTS}\n\nI live in Lisbon!", "Noted: I live in Lisbon."),
            ("When I was there I sang.", "Noted: When I was there I sang."),
            ("word " * 40, f"Noted: {' '.join(['word'] * 15)} …."),
            ("", UNKNOWN),
            ([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}], UNKNOWN),
        ],
    )
    def test_a_statement_is_noted(self, said: Any, answer: str) -> None:
        assert ask(said) == answer

    def test_a_prompt_without_a_user_has_no_answer(self) -> None:
        assert StandInChatModel().invoke([SystemMessage(FACTS)]).content == UNKNOWN


class TestAsAChatModel:
    def test_it_says_that_it_is_a_stand_in(self) -> None:
        model = StandInChatModel()
        assert (model._llm_type, model.model_name) == ("stand-in", "stand-in")
        assert model.invoke("Hello").response_metadata["model_name"] == "stand-in"
        assert "NOT a language model" in (StandInChatModel.__doc__ or "")

    async def test_streams_and_whole_answers_say_the_same(self) -> None:
        model, question = StandInChatModel(), f"What is my beagle called?\n\n{RECALLED}"
        whole = model.invoke(question)
        chunks = list(model.stream(question))
        achunks = [chunk async for chunk in model.astream(question)]
        for message in [await model.ainvoke(question), _joined(chunks), _joined(achunks)]:
            assert message.content == whole.content
            assert message.usage_metadata == whole.usage_metadata
            assert message.response_metadata["model_name"] == "stand-in"
        assert [chunk.content for chunk in chunks[:3]] == ["You ", "said: ", '"I ']
        assert [bool(chunk.usage_metadata) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]
        assert len(chunks) == len(achunks) == len(str(whole.content).split())

    def test_usage_counts_what_it_was_given_and_what_it_said(self, counter: TokenCounter) -> None:
        messages = [SystemMessage(FACTS), HumanMessage("What is my name?")]
        given = sum(counter.count_content(message.content) for message in messages)
        said = counter.count("Your name is Ann.")
        assert StandInChatModel().invoke(messages).usage_metadata == {
            "input_tokens": given,
            "output_tokens": said,
            "total_tokens": given + said,
        }
        calling = StandInChatModel().bind_tools([get_time]).invoke("Please get_time")
        assert calling.usage_metadata
        assert calling.usage_metadata["output_tokens"] > 0

    def test_every_word_is_told_to_callbacks_once(self) -> None:
        class Tokens(BaseCallbackHandler):
            heard: list[str] = []  # noqa: RUF012

            def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
                self.heard.append(token)

        list(StandInChatModel().stream("Who am I?", {"callbacks": [Tokens()]}))
        assert Tokens.heard == ["I ", "do ", "not ", "know."]

    def test_it_keeps_what_it_was_given_as_it_was(self) -> None:
        model, message = StandInChatModel(), HumanMessage("Hello")
        model.bind_tools([get_time]).invoke([message])
        message.content = "changed"
        list(model.stream("And I"))
        assert [[m.content for m in messages] for messages in model.seen] == [["Hello"], ["And I"]]

    def test_it_may_be_called_from_many_threads(self) -> None:
        model = StandInChatModel()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i: ask(f"I am number {i}", model=model), range(200)))
        assert answers == [f"Noted: I am number {i}." for i in range(200)]
        assert sorted(str(messages[0].content) for messages in model.seen) == sorted(
            f"I am number {i}" for i in range(200)
        )

    def test_its_words_may_take_their_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        slept: list[float] = []
        monkeypatch.setattr("time.sleep", slept.append)
        list(StandInChatModel(delay=0.5).stream("Who am I?"))
        assert slept == [0.5] * 4

    def test_importing_it_loads_langchain_core_alone(self) -> None:
        loaded = json.loads(
            fresh_python(
                "import json, sys\n"
                "from memory_integrations.testing import StandInChatModel\n"
                "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
            ).stdout
        )
        assert "langchain_core" in loaded
        assert not {"langchain", "langgraph", "llama_index"} & {*loaded}


class TestFailing:
    @pytest.mark.parametrize(
        ("fail_after", "words"), [(0, []), (2, ["I ", "do "]), (9, ["I ", "do ", "not ", "know."])]
    )
    async def test_p9_a_stream_fails_after_so_many_words(self, fail_after: int, words: list[str]) -> None:
        model = StandInChatModel(fail_after=fail_after)
        heard: list[Any] = []
        aheard: list[Any] = []

        def hear() -> None:
            for chunk in model.stream("Who am I?"):
                heard.append(chunk.content)

        async def ahear() -> None:
            async for chunk in model.astream("Who am I?"):
                aheard.append(chunk.content)

        with pytest.raises(StandInError, match=f"fail_after={fail_after}"):
            hear()
        with pytest.raises(StandInError, match=f"fail_after={fail_after}"):
            await ahear()
        assert heard == aheard == words
        assert len(model.seen) == 2

    @pytest.mark.parametrize("how", BY_AGENT)
    async def test_p9_an_agent_fails_with_it(self, how: str) -> None:
        agent = create_agent(StandInChatModel(fail_after=2), tools=[get_time])
        with pytest.raises(StandInError):
            await run(agent, how, HumanMessage("Who am I?"))


class TestMemoryTools:
    @pytest.mark.parametrize("how", BY_AGENT)
    async def test_what_the_user_states_is_remembered_in_parallel_calls(self, how: str) -> None:
        notebook = Notebook()
        agent = create_agent(StandInChatModel(), tools=notebook.tools)
        said = "My name is Ann. I live in Lisbon. I'm allergic to nuts and milk."
        state = await run(agent, how, HumanMessage(said))
        facts = [("name", "Ann"), ("city", "Lisbon"), ("allergies", ["nuts", "milk"])]
        assert calls_of(state["messages"][1]) == [("remember_fact", {"key": k, "value": v}) for k, v in facts]
        assert sorted(notebook.called, key=str) == sorted(facts, key=str)
        assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "tool", "tool", "ai"]
        assert state["messages"][-1].content == "Noted: " + said

    def test_a_list_is_text_where_the_tool_takes_text(self) -> None:
        @tool
        def remember_fact(key: str, value: str, why: str, sure: bool = False) -> str:
            """Remember."""
            return key

        reply = StandInChatModel().bind_tools([remember_fact]).invoke("I'm allergic to nuts and milk.")
        assert calls_of(reply) == [
            (
                "remember_fact",
                {"key": "allergies", "value": "nuts, milk", "why": "I'm allergic to nuts and milk."},
            )
        ]

    @pytest.mark.parametrize(
        ("said", "keys"),
        [
            ("Forget my name.", ["name"]),
            ("Please forget my home address", ["home_address"]),
            ("Hello. Can you forget my dog?", ["dog_name"]),
            ("Forget that I live in Lisbon.", ["city"]),
            ("Forget that I am allergic to milk.", ["allergies"]),
            ("Forget my name. Forget my city!", ["name", "city"]),
            ("Don't forget my name.", []),
            ("I always forget my keys.", []),
        ],
    )
    def test_what_the_user_wants_forgotten_is_forgotten(self, said: str, keys: list[str]) -> None:
        notebook = Notebook()
        agent = create_agent(StandInChatModel(), tools=notebook.tools, system_prompt=FACTS)
        state = agent.invoke({"messages": [HumanMessage(said)]})
        forgotten = [key for key, value in notebook.called if value is None]
        assert sorted(forgotten) == sorted(keys)  # calls of one answer run at once
        assert not state["messages"][-1].tool_calls

    @pytest.mark.parametrize("how", BY_AGENT)
    async def test_what_it_does_not_know_it_searches_and_answers(self, how: str) -> None:
        notebook = Notebook("8 May 2023 user: I adopted a beagle called Toto.")
        agent = create_agent(StandInChatModel(), tools=notebook.tools, system_prompt=FACTS)
        state = await run(agent, how, HumanMessage("Hello! What is my beagle called?"))
        assert notebook.called == [("search", "What is my beagle called?")]
        assert state["messages"][-1].content == 'You said: "I adopted a beagle called Toto." (8 May 2023)'

    def test_what_it_knows_it_does_not_search(self) -> None:
        notebook = Notebook()
        agent = create_agent(StandInChatModel(), tools=notebook.tools, system_prompt=FACTS)
        assert agent.invoke({"messages": [HumanMessage("Where do I live?")]})["messages"][-1].content == (
            "Your city is Lisbon."
        )
        assert notebook.called == []

    def test_it_searches_once_and_again_for_the_next_question(self) -> None:
        notebook = Notebook()
        agent = create_agent(StandInChatModel(), tools=notebook.tools)
        state = agent.invoke({"messages": [HumanMessage("What is my beagle called?")]})
        assert state["messages"][-1].content == UNKNOWN
        state = agent.invoke({"messages": [*state["messages"], HumanMessage("What is my beagle called?")]})
        assert state["messages"][-1].content == UNKNOWN
        assert len(notebook.called) == 2
        ids = [call["id"] for message in state["messages"] for call in getattr(message, "tool_calls", ())]
        assert len(ids) == len({*ids}) == 2

    def test_lines_without_a_block_are_read_too_and_the_call_names_the_tool(self) -> None:
        result = ToolMessage("- 8 May 2023 Ann: My beagle is Toto.\n  Yes.\n- nothing else", tool_call_id="1")
        messages = [HumanMessage("Who is my beagle?"), call("search_memory"), result]
        reply = StandInChatModel().bind_tools(Notebook().tools).invoke(messages)
        assert reply.content == 'You said: "My beagle is Toto.\nYes." (8 May 2023)'


class TestOtherTools:
    @pytest.mark.parametrize("how", BY_AGENT)
    async def test_tools_that_the_user_names_are_called_in_parallel(self, how: str) -> None:
        agent = create_agent(StandInChatModel(), tools=[get_weather, get_time])
        state = await run(agent, how, HumanMessage("Please call get_weather and get_time"))
        args = {
            "place": "Please call get_weather and get_time",
            "days": 1,
            "exact": True,
            "unit": "C",
            "hours": [],
        }
        assert calls_of(state["messages"][1]) == [("get_weather", args), ("get_time", {})]
        assert sorted(state["messages"][-1].content.splitlines()) == [
            "get_time: noon",
            "get_weather: sunny, 1 day in C, True, []",
        ]

    def test_ids_are_the_same_for_the_same_conversation_only(self) -> None:
        model = StandInChatModel().bind_tools([get_time, get_weather])
        first, again = (model.invoke("get_time get_weather").tool_calls for _ in range(2))
        other = model.invoke([HumanMessage("Hello"), HumanMessage("get_time get_weather")]).tool_calls
        assert first == again
        assert len({call["id"] for call in [*first, *other]}) == 4

    def test_arguments_follow_the_schema(self) -> None:
        ((_, args),) = calls_of(StandInChatModel().bind_tools([plant]).invoke("plant it"))
        assert plant.invoke(args) == "planted"
        node = Node.model_validate(args["node"])
        assert (node.kind, node.share, node.fixed) == (Kind.SMALL, 2.5, "x")
        assert (args["either"], args["short"]) == (1, "pla")

    @pytest.mark.parametrize("said", ["get_weathers", "my-get_weather", "the weather"])
    def test_a_name_is_the_whole_name(self, said: str) -> None:
        assert calls_of(StandInChatModel().bind_tools([get_weather]).invoke(said)) == []

    @pytest.mark.parametrize(
        ("choice", "names"),
        [
            (None, []),
            ("auto", []),
            ("any", ["get_weather"]),
            ("required", ["get_weather"]),
            ("get_time", ["get_time"]),
            ({"type": "function", "function": {"name": "get_time"}}, ["get_time"]),
        ],
    )
    def test_a_choice_forces_a_call_once(self, choice: Any, names: list[str]) -> None:
        model = StandInChatModel().bind_tools([get_weather, get_time], tool_choice=choice)
        reply = model.invoke("Hello")
        assert [name for name, _ in calls_of(reply)] == names
        done = [ToolMessage("done", tool_call_id=call["id"], name=call["name"]) for call in reply.tool_calls]
        if names == ["get_time"]:
            assert model.invoke([HumanMessage("Hello"), reply, *done]).content == "get_time: done"

    def test_a_choice_of_none_forbids_calls(self) -> None:
        model = StandInChatModel().bind_tools([get_time], tool_choice="none")
        assert model.invoke("get_time").content == "Noted: get_time."


class Reply(BaseModel):
    """A reply."""

    answer: str
    known: bool
    year: int
    parts: list[str]
    comment: str | None = None


class Person(BaseModel):
    name: str
    age: int = Field(le=9)


class Report(BaseModel):
    """What holds others."""

    people: list[Person]
    lead: Person | None
    share: float = Field(ge=0, le=1)
    kind: Literal["short", "long"]


class TestStructuredAnswers:
    @pytest.mark.parametrize("how", BY_AGENT)
    @pytest.mark.parametrize("tools", [[], [get_time]], ids=["alone", "with a tool"])
    async def test_the_schema_holds_the_answer(self, how: str, tools: list[Any]) -> None:
        agent = create_agent(StandInChatModel(), tools=tools, response_format=Reply, system_prompt='{"born": 1990}')
        state = await run(agent, how, HumanMessage("When was I born?"))
        said = "Your born is 1990."
        assert state["structured_response"] == Reply(answer=said, known=True, year=1990, parts=[said])
        state = await run(agent, how, HumanMessage("When was she promoted?"))
        assert state["structured_response"] == Reply(answer=UNKNOWN, known=False, year=0, parts=[UNKNOWN])

    @pytest.mark.parametrize("how", BY_AGENT)
    async def test_ordinary_tools_go_first(self, how: str) -> None:
        notebook = Notebook("8 May 2023 user: I adopted a beagle called Toto.")
        agent = create_agent(StandInChatModel(), tools=[*notebook.tools, get_time], response_format=ToolStrategy(Reply))
        state = await run(agent, how, HumanMessage("What is my beagle called?"))
        assert [name for m in state["messages"] if m.type == "ai" for name, _ in calls_of(m)] == [
            "search_memory",
            "Reply",
        ]
        assert "Toto" in state["structured_response"].answer
        state = await run(agent, how, HumanMessage("My name is Ann. Please get_time for my Reply"))
        assert state["structured_response"].answer == "get_time: noon"
        assert ("name", "Ann") in notebook.called

    @pytest.mark.parametrize("tools", [[], [get_time]], ids=["alone", "with a tool"])
    async def test_a_schema_that_it_cannot_fill_is_an_error_and_not_an_endless_loop(self, tools: list[Any]) -> None:
        class Strict(BaseModel):
            code: str = Field(pattern=r"^\d{9}$")

        agent = create_agent(StandInChatModel(), tools=tools, response_format=Strict)
        with pytest.raises(StandInError, match="cannot fill Strict"):
            await run(agent, "invoke", HumanMessage("Which code?"))

    def test_a_schema_may_hold_others(self) -> None:
        agent = create_agent(StandInChatModel(), response_format=Report, system_prompt='{"name": "Ann", "born": 1990}')
        reply = agent.invoke({"messages": [HumanMessage("When was I born?")]})["structured_response"]
        person = Person(name="Your born is 1990.", age=9)
        assert reply == Report(people=[person], lead=person, share=1, kind="short")
        raw: dict[str, Any] = {
            "$defs": {"Part": {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}}
        }
        raw |= {"properties": {"part": {"$ref": "#/$defs/Part"}}, "required": ["part"]}
        model = StandInChatModel().bind_tools([{"type": "function", "function": {"name": "cut", "parameters": raw}}])
        assert calls_of(model.invoke("Please cut")) == [("cut", {"part": {"n": 1}})]

    async def test_with_structured_output_works(self) -> None:
        model = StandInChatModel().with_structured_output(Reply)
        prompt = [SystemMessage('{"name": "Ann"}'), HumanMessage("Who am I?")]
        reply = Reply(answer="Your name is Ann.", known=True, year=0, parts=["Your name is Ann."])
        assert [model.invoke(prompt), await model.ainvoke(prompt), list(model.stream(prompt))[-1]] == [reply] * 3
        as_dict = StandInChatModel().with_structured_output(
            {"title": "Reply", "type": "object", "properties": {"answer": {"type": ["string", "null"]}}}
        )
        assert as_dict.invoke(prompt) == {"answer": "Your name is Ann."}


def _joined(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    joined = chunks[0]
    for chunk in chunks[1:]:
        joined = joined + chunk
    return joined
