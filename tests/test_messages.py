"""The neutral message: whole, in Unicode, in UTC, and refused with a reason where it cannot be stored."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import START, any_text, histories, unicode_text

from memory_integrations import Message, MessageError, ShortTermMemory, TokenCounter, ToolCall
from memory_integrations.arrival import utc_now
from memory_integrations.messages import as_unicode, as_utc, transcript, transcript_line

zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def endless() -> Any:
    value: dict[str, Any] = {}
    value["a"] = value
    return value


class TestContent:
    @given(unicode_text)
    def test_unicode_text_is_kept_untouched(self, text: str) -> None:
        assert Message("user", text).content == text

    @given(any_text)
    def test_any_text_can_be_stored(self, text: str) -> None:
        stored = Message("user", text).text
        assert stored.encode().decode() == stored
        assert len(stored) <= len(text)

    def test_surrogate_pairs_are_joined_and_lone_ones_replaced(self) -> None:
        assert as_unicode("a\ud83d\ude00b") == "a😀b"
        assert as_unicode("a\ud83db") == "a\ufffdb"

    def test_the_text_of_blocks_leaves_media_out(self) -> None:
        blocks = [
            {"type": "text", "text": "look"},
            {"type": "image", "base64": "AAAA"},
            {"type": "text", "text": "here"},
        ]
        message = Message("user", blocks)
        assert message.text == "look\nhere"
        assert message.content == blocks, "the content itself is kept whole"

    @pytest.mark.parametrize("content", [None, 5, b"bytes", {"type": "text"}, object(), {1, 2}])
    def test_what_is_neither_text_nor_blocks_raises(self, content: Any) -> None:
        with pytest.raises(MessageError, match="expected text"):
            Message("user", content)

    @pytest.mark.parametrize("block", ["text", 5, None, ["nested"]])
    def test_a_block_that_is_no_object_raises_or_is_read_as_text(self, block: Any) -> None:
        """LangChain allows plain strings among the blocks."""
        try:
            message = Message("user", [{"type": "text", "text": "look"}, block])
        except MessageError:
            return
        assert message.text == "look\ntext"

    @pytest.mark.parametrize("value", [nested(99), nested(3000), endless()], ids=["deep", "deeper", "cyclic"])
    def test_blocks_that_are_nested_without_end_raise(self, value: Any) -> None:
        with pytest.raises(MessageError, match="nested"):
            Message("user", [{"type": "x", "value": value}])


class TestToolCalls:
    @pytest.mark.parametrize(
        "arguments",
        [{(1, 2): 3}, {b"a": 1}, {"a": 10**5000}, endless(), {"a": nested(3000)}, {"a": nested(100)}, None, "{}"],
        ids=["a tuple as key", "bytes as key", "digits", "cyclic", "deeper", "deep", "none", "text"],
    )
    def test_arguments_that_are_no_json_raise_and_are_named(self, arguments: Any) -> None:
        with pytest.raises(MessageError, match="'look_up' are no object of JSON"):
            ToolCall("1", "look_up", arguments)

    @pytest.mark.parametrize(
        "arguments",
        [{}, {"a": nested(90)}, {"a": START}, {"a": float("nan")}, {"a": "\ud83d"}, {"a": (b"x",)}],
        ids=["none", "nested", "a time", "nan", "surrogate", "bytes"],
    )
    def test_other_arguments_are_counted_and_shown(self, arguments: Any, counter: TokenCounter) -> None:
        memory = ShortTermMemory(counter=counter)
        message = Message("assistant", "", tool_calls=(ToolCall("1", "look_up", arguments),))
        memory.add_message(message)
        assert memory.total_tokens and "look_up" in transcript_line(message)


class TestRoles:
    @pytest.mark.parametrize(
        ("given_role", "role"),
        [("human", "user"), ("ai", "assistant"), ("model", "assistant"), ("chatbot", "assistant"), ("user", "user"),
         ("assistant", "assistant"), ("system", "system"), ("tool", "tool"), ("developer", "developer")],
    )  # fmt: skip
    def test_roles_of_other_houses_are_read(self, given_role: str, role: str) -> None:
        assert Message(given_role, "x").role == role

    @pytest.mark.parametrize("role", ["", None, 5, [], b"user"])
    def test_what_is_no_role_raises_and_says_what_was_given(self, role: Any) -> None:
        with pytest.raises(MessageError, match="expected text such as") as raised:
            Message(role, "x")
        assert repr(role) in str(raised.value)
        assert isinstance(raised.value, ValueError)

    def test_a_name_speaks_where_there_is_one(self) -> None:
        assert Message("user", "x", name="Caroline").speaker == "Caroline"
        assert Message("user", "x").speaker == "user"


class TestNames:
    @pytest.mark.parametrize("field", ["name", "id", "session_id"])
    def test_names_and_ids_are_text_of_any_script(self, field: str) -> None:
        assert getattr(Message("user", "x", **{field: "Zoë 日本"}), field) == "Zoë 日本"
        assert getattr(Message("user", "x", **{field: "a\ud800"}), field) == "a\ufffd"

    @pytest.mark.parametrize("field", ["name", "id", "session_id"])
    @pytest.mark.parametrize("value", [5, b"x", ["x"], 1.5])
    def test_names_and_ids_that_are_no_text_raise_and_are_named(self, field: str, value: Any) -> None:
        with pytest.raises(MessageError, match=field):
            Message("user", "x", **{field: value})


class TestTimes:
    @given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=zones))
    def test_p30_times_are_kept_in_utc(self, moment: datetime) -> None:
        created = Message("user", "x", created_at=moment).created_at
        assert created == moment
        assert created is not None
        assert created.tzinfo is UTC

    @pytest.mark.parametrize(
        "moment",
        [
            datetime(2024, 5, 1),
            "2024-05-01",
            "2024-05-01T12:00:00Z",
            1714560000,
            1714560000.5,
            date(2024, 5, 1),
            "yesterday",
        ],
        ids=repr,
    )
    def test_p30_a_time_without_a_zone_raises(self, moment: Any) -> None:
        with pytest.raises(MessageError, match="expected a datetime with a time zone"):
            Message("user", "x", created_at=moment)
        with pytest.raises(MessageError, match="expected a datetime with a time zone"):
            as_utc(moment)

    @pytest.mark.parametrize(
        "moment",
        [
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),
            datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),
        ],
        ids=["end of time", "beginning of time"],
    )
    def test_p30_a_time_that_utc_cannot_say_raises(self, moment: datetime) -> None:
        with pytest.raises(MessageError):
            Message("user", "x", created_at=moment)

    def test_p30_the_default_clock_is_utc(self) -> None:
        assert utc_now().tzinfo is UTC


class TestTranscript:
    @given(histories)
    def test_every_message_is_a_line_of_its_own(self, messages: list[Message]) -> None:
        lines = transcript(messages).split("\n") if messages else []
        assert lines == [transcript_line(message) for message in messages]
        for line, message in zip(lines, messages, strict=True):
            assert line.startswith(f"{message.speaker}: {message.text}")

    def test_tool_calls_are_said(self) -> None:
        message = Message("assistant", "One moment.", tool_calls=(ToolCall("c1", "weather", {"city": "Lisbon"}),))
        assert transcript_line(message) == "assistant: One moment. [calls weather({'city': 'Lisbon'})]"

    def test_a_message_can_be_compared(self) -> None:
        assert Message("user", "x", created_at=START) == Message("human", "x", created_at=START)
