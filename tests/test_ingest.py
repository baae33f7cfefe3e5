"""Files of conversations: every message is read, or reported with its place; nothing raises."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import any_text, nasty_text

from memory_integrations.ingest import Item, Problem, Read, Skipped, read_file, read_object
from memory_integrations.messages import as_unicode

DATA = Path(__file__).parent / "data"

ReadBytes = Callable[..., list[Item]]


@pytest.fixture
def read_bytes(tmp_path: Path) -> ReadBytes:
    """Reads a file of the given bytes, whose name says nothing about them."""

    def read(data: bytes, name: str = "file") -> list[Item]:
        path = tmp_path / name
        path.write_bytes(data)
        return [item for item, _ in read_file(path)]

    return read


def items_of(name: str) -> list[Item]:
    return [item for item, _ in read_file(DATA / name)]


def messages(items: list[Item]) -> list[tuple[Any, ...]]:
    return [(m.role, m.content, m.session_id) for m in (item.message for item in items if isinstance(item, Read))]


def problems(items: list[Item]) -> list[Problem]:
    return [item for item in items if isinstance(item, Problem)]


def skipped(items: list[Item]) -> Counter[str]:
    return Counter(item.reason for item in items if isinstance(item, Skipped))


# Formats


def test_openai_style_lines() -> None:
    items = items_of("messages.jsonl")
    assert messages(items) == [
        ("user", "How long does a soft egg take?", "kitchen"),
        ("assistant", "Six minutes in boiling water.", "kitchen"),
        ("user", "And this one?\nIt is a duck's.", "kitchen"),
        ("assistant", "Nine minutes.", "kitchen"),
        ("user", "Grüße aus Köln 👩‍🍳\u2028zweite Zeile", "garden"),
        ("assistant", "Hallo!", "garden"),
        ("user", "One more.", "messages:11"),
        ("assistant", "As you like.", "messages:11"),
    ]
    assert skipped(items) == {"system message": 1, "tool call": 1, "tool message": 1, "empty": 1}
    assert not problems(items)
    read = [item.message for item in items if isinstance(item, Read)]
    assert (read[0].id, read[0].name, read[0].created_at) == ("k1", "Ann", datetime(2025, 3, 1, 8, tzinfo=UTC))
    assert read[1].created_at == datetime(2025, 3, 1, 8, 0, 10, tzinfo=UTC)  # it came with a zone
    assert read[2].created_at == datetime(2025, 3, 1, 8, 1, tzinfo=UTC)  # naive is UTC
    assert read[3].created_at == datetime(2025, 3, 1, 8, 1, 10, tzinfo=UTC)  # seconds
    assert read[4].created_at == datetime(2025, 3, 1, 8, 1, 10, 500_000, tzinfo=UTC)  # milliseconds
    assert read[5].created_at == datetime(2025, 3, 1, 8, 1, 11, tzinfo=UTC)  # seconds as text
    assert read[6].created_at is None


def test_chatgpt_export_takes_the_current_branch() -> None:
    items = items_of("conversations.json")
    assert messages(items) == [
        ("user", "Where does the Tagus rise?", "c-tagus"),
        ("assistant", "In Spain, in the Sierra de Albarracín.", "c-tagus"),
        ("user", "And on this map?", "c-tagus"),
        ("assistant", "East of Madrid.", "c-tagus"),
        ("user", "Thank you for the map.", "c-short"),
        ("assistant", "You are welcome.", "c-short"),
    ]
    assert skipped(items) == {
        "system message": 1, "hidden": 1, "not text": 1, "tool call": 1, "tool message": 1
    }  # fmt: skip
    read = [item.message for item in items if isinstance(item, Read)]
    assert [message.id for message in read[:2]] == ["m-q1", "m-a1b"]
    assert read[0].created_at == datetime(2025, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
    assert read[3].created_at == datetime(2025, 1, 1, 11, 59, 50, tzinfo=UTC)  # the conversation's, for want of its own


def test_benchmark_conversations_are_users_of_their_own() -> None:
    items = items_of("benchmark.json")
    read = [item for item in items if isinstance(item, Read)]
    assert [(item.user_id, item.message.id) for item in read] == [
        ("pair-1", "D1:1"), ("pair-1", "D1:2"), ("pair-1", "D2:1"), ("pair-2", "D1:1"), ("pair-2", "D1:2")
    ]  # fmt: skip
    first = read[0].message
    assert (first.role, first.name, first.session_id) == ("user", "Lena", "session_1")
    assert first.created_at == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    assert read[2].where == f"{DATA / 'benchmark.json'}: conversation pair-1, message 3"


MESSAGE = {"role": "user", "content": "hello"}
CONVERSATION = {"id": "c", "messages": [MESSAGE, {"role": "assistant", "content": "hi"}]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps([MESSAGE, MESSAGE]), [("user", "hello", "file")] * 2),
        (json.dumps(CONVERSATION), [("user", "hello", "c"), ("assistant", "hi", "c")]),
        (json.dumps(CONVERSATION, indent=2), [("user", "hello", "c"), ("assistant", "hi", "c")]),
        (f"\n\n  {json.dumps([CONVERSATION], indent=2)}\n\n", [("user", "hello", "c"), ("assistant", "hi", "c")]),
        (json.dumps({"role": "user", "content": [{"type": "text", "text": {"value": "hello"}}]}), None),
        (json.dumps({"role": "user", "content": ["hello"]}), None),
        (json.dumps({"role": "user", "content": "hello", "session_id": 7}), [("user", "hello", "7")]),
    ],
    ids=["list of messages", "one line", "pretty", "spaces around", "value", "texts", "number as id"],
)  # fmt: skip
def test_other_shapes_of_the_same(read_bytes: ReadBytes, text: str, expected: list[tuple[str, ...]] | None) -> None:
    items = read_bytes(text.encode())
    assert messages(items) == (expected or [("user", "hello", "file")])
    assert not problems(items)


def test_bom_crlf_and_blank_lines(read_bytes: ReadBytes) -> None:
    line = json.dumps(MESSAGE).encode()
    items = read_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n  \r\n" + line + b"\r\n")
    assert [type(item) for item in items] == [Read, Read]
    assert [item.where.rpartition(":")[2] for item in items] == ["1", "4"]
    assert len(messages(read_bytes(b"\xef\xbb\xbf" + json.dumps([MESSAGE]).encode()))) == 1


def test_a_megabyte_null_characters_and_half_an_emoji(read_bytes: ReadBytes) -> None:
    texts = ["x" * 1_000_000, "a\0b", "cut \ud83d", "a\u2028b\x85c", "{}[]"]
    items = read_bytes("\n".join(json.dumps({"role": "user", "content": text}) for text in texts).encode())
    assert [text for _, text, _ in messages(items)] == [as_unicode(text) for text in texts]
    assert as_unicode("cut \ud83d") == "cut \ufffd"


def test_offsets_end_at_the_size_of_the_file() -> None:
    for path in DATA.iterdir():
        offsets = [offset for _, offset in read_file(path)]
        assert offsets == sorted(offsets)
        assert 0 < offsets[-1] <= path.stat().st_size
    assert [offset for _, offset in read_file(DATA / "messages.jsonl")][-1] == (DATA / "messages.jsonl").stat().st_size


def test_lines_are_read_as_they_come(tmp_path: Path) -> None:
    """A file is never read whole: the first message is there while the file has no end yet."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    taken = threading.Event()

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            file.write(json.dumps(MESSAGE).encode() + b"\n")
            assert taken.wait(10)
            file.write(json.dumps(MESSAGE).encode() + b"\n")

    writer = threading.Thread(target=write)
    writer.start()
    reading = read_file(pipe)
    assert isinstance(next(reading)[0], Read)
    taken.set()
    assert [type(item) for item, _ in reading] == [Read]
    writer.join()


# Ids


def test_messages_without_ids_get_the_same_ones_again(read_bytes: ReadBytes) -> None:
    def ids(data: bytes) -> list[str | None]:
        return [item.message.id for item in read_bytes(data) if isinstance(item, Read)]

    line = json.dumps(MESSAGE).encode() + b"\n"
    first = ids(line * 3)
    assert first == ids(line * 3)
    assert len(set(first)) == 3  # the same words twice are two messages
    assert ids(line * 4)[:3] == first  # a file that grew
    assert [ids(b"{broken\n" + line)[0]] == ids(line + line)[1:]  # a damaged line moves nothing
    other = json.dumps({**MESSAGE, "session_id": "other"}).encode()
    assert ids(other) != first[:1]


def test_the_session_of_messages_that_name_none() -> None:
    [(item, _)] = [pair for pair in read_file(DATA / "messages.jsonl", session="given") if _is_last(pair[0])]
    assert isinstance(item, Read)
    assert item.message.session_id == "given:11"


def _is_last(item: Item) -> bool:
    return isinstance(item, Read) and item.message.content == "As you like."


# What cannot be read


@pytest.mark.parametrize(
    ("data", "where", "reason"),
    [
        (b"", "", "empty"),
        (b" \n\n", "", "empty"),
        (b"\xef\xbb\xbf", "", "empty"),
        (b"[]", "", "no messages"),
        (b'{"messages": []}', "", "no messages"),
        (b"PK\x03\x04\x00\x00", "", "zip archive"),
        (b"\x1f\x8b\x08", "", "gzip"),
        ("héllo".encode("utf-16"), "", "UTF-16"),
        (b"dear diary\n", ":1", "not a known format"),
        (b"\x00\x01\x02" * 100, ":1", "not a known format"),
        (b'{"role": "user", "content": "x"', ":1", "not JSON"),
        (b'{"role": "user", "content": "a\x00b"}', ":1", "control character"),
        (b'{"role": "user", "content": "a\xffb"}', ":1", "not UTF-8: byte 31 of the line is 0xff"),
        (b'{"a": ' + b"9" * 5000 + b"}", ":1", "not JSON that can be read"),
        (b'{"a": ' + b"[" * 100_000, ":1", "not JSON that can be read"),
        (b"7", ":1", "expected an object, found a number"),
        (b"[null]", ": item 1", "expected an object, found null"),
        (b'["x"]', ": item 1", "found text"),
        (b'{"text": "x"}', ":1", "neither a message nor a conversation: its keys are ['text']"),
        (b'{"role": "user"}', ":1", "no content"),
        (b'{"content": "x"}', ":1", "role=None"),
        (b'{"role": "", "content": "x"}', ":1", "role=''"),
        (b'{"role": ["user"], "content": "x"}', ":1", "role=a list"),
        (b'{"role": "user", "content": 7}', ":1", "content is a number"),
        (b'{"role": "user", "content": {"a": 1}}', ":1", "content is an object"),
        (b'{"role": "user", "content": [7]}', ":1", "content holds a number"),
        (b'{"role": "user", "content": "x", "created_at": "yesterday"}', ":1", "created_at='yesterday'"),
        (b'{"role": "user", "content": "x", "timestamp": true}', ":1", "timestamp=True"),
        (b'{"role": "user", "content": "x", "timestamp": 1e400}', ":1", "timestamp=inf"),
        (b'{"role": "user", "content": "x", "timestamp": -1e17}', ":1", "timestamp=-1e+17"),
        (b'{"role": "user", "content": "x", "created_at": "0001-01-01T00:00:00+14:00"}', ":1", "created_at="),
        (b'{"messages": 7}', ":1", "messages is a number"),
        (b'{"messages": [7]}', ":1, message 1", "expected an object"),
        (b'{"messages": [], "questions": []}', ":1", "id=None"),
        (b'[{"id": "c1", "mapping": {}}]', ": conversation c1", "no current_node"),
        (b'[{"mapping": {}, "current_node": "x"}]', ": conversation 1", "node 'x' is not in the tree"),
        (b'[{"mapping": {"x": {"parent": "x"}}, "current_node": "x"}]', ": conversation 1", "twice on the branch"),
        (b'[{"mapping": {"x": {"parent": []}}, "current_node": "x"}]', ": conversation 1", "node a list is not in"),
        (b'[{"mapping": {"x": {"message": 7}}, "current_node": "x"}]', ": conversation 1, message 1", "a number"),
        (b'[{"mapping": {"x": {"message": {}}}, "current_node": "x"}]', ": conversation 1, message 1", "role=None"),
    ],
)  # fmt: skip
def test_a_problem_has_its_place_and_its_reason(
    read_bytes: ReadBytes, tmp_path: Path, data: bytes, where: str, reason: str
) -> None:
    [item] = read_bytes(data)
    assert isinstance(item, Problem)
    assert item.where == f"{tmp_path / 'file'}{where}"
    assert reason in item.reason


def test_what_stands_around_a_problem_is_read(read_bytes: ReadBytes) -> None:
    good = json.dumps(MESSAGE).encode()
    items = read_bytes(b"\n".join([b"noise", good, b"{", good, b'{"a": 1}', b"\xff", good]))
    assert [type(item) for item in items] == [Problem, Read, Problem, Read, Problem, Problem, Read]
    assert [item.where.rpartition(":")[2] for item in items] == list("1234567")


def test_a_damaged_document_is_read_up_to_the_damage(read_bytes: ReadBytes) -> None:
    good = json.dumps(CONVERSATION)
    items = read_bytes(f"[{good},\n{good},\n{good[:-9]}".encode())
    assert len(messages(items)) == 4
    [problem] = problems(items)
    assert problem.where.endswith("file:3")
    assert "the rest of the file was not read" in problem.reason
    for broken in (f"[{good} {good}]", f"[{good},]", f"[{good}] x", f"{{\n{good[1:]} x"):
        items = read_bytes(broken.encode())
        assert len(messages(items)) == 2, broken
        assert len(problems(items)) == 1, broken


def test_a_document_that_is_not_utf8_is_read_with_replacements(read_bytes: ReadBytes) -> None:
    items = read_bytes(b'[\n{"role": "user", "content": "a\xffb"}]')
    assert [text for _, text, _ in messages(items)] == ["a\ufffdb"]
    [problem] = problems(items)
    assert problem.where.endswith("file:2")
    assert "0xff" in problem.reason


def test_text_of_another_kind_is_one_problem_and_not_one_a_line(read_bytes: ReadBytes) -> None:
    [item] = read_bytes(b"a line of prose\n" * 10_000)
    assert "not a known format" in item.reason


def test_a_broken_branch_keeps_what_hangs_on_it(read_bytes: ReadBytes) -> None:
    said = {"id": "m", "author": {"role": "user"}, "content": {"content_type": "text", "parts": ["hello"]}}
    tree = {"x": {"message": said, "parent": "lost"}}
    items = read_bytes(json.dumps([{"id": "c", "mapping": tree, "current_node": "x"}]).encode())
    assert messages(items) == [("user", "hello", "c")]
    assert [problem.reason for problem in problems(items)] == [
        "node 'lost' is not in the tree: what was said before it was not read"
    ]


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        [(item, offset)] = read_file(path)
        assert isinstance(item, Problem)
        assert (item.where, offset) == (str(path), 0)
        assert reason in item.reason


# Anything at all

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(
    "id role content name session_id thread_id created_at timestamp messages mapping current_node parent message "
    "author create_time metadata recipient parts content_type questions tool_calls".split()
)
roles = st.sampled_from(["user", "assistant", "system", "human"])
shaped = st.deferred(
    lambda: (
        st.dictionaries(fields, json_values | roles | shaped | st.lists(shaped, max_size=3), max_size=6)
        | st.fixed_dictionaries({"role": roles, "content": json_values}, optional={"created_at": json_values})
        | st.fixed_dictionaries(
            {"mapping": st.dictionaries(st.sampled_from("ab"), shaped), "current_node": st.sampled_from("abc")}
        )
    )
)


def is_sound(item: Item) -> bool:
    if not isinstance(item, Read):
        return bool(item.reason)
    message = item.message
    text = f"{message.content}{message.id}{message.session_id}{message.name}"
    text.encode()  # no lone surrogates
    return bool(message.id and message.session_id and isinstance(message.content, str) and message.content.strip())


@given(json_values | shaped)
def test_any_json_value_is_a_message_or_a_located_problem(value: Any) -> None:
    for item in read_object(value, "file:1", 1, "session"):
        assert item.where.startswith("file:1")
        assert is_sound(item)


@given(st.lists(shaped | json_values, max_size=6), st.booleans())
def test_any_json_lines_give_an_item_each_and_never_raise(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], ascii_only: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines"
    lines = (json.dumps(value, ensure_ascii=ascii_only) for value in values)
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    items = [item for item, _ in read_file(path)]
    assert items
    assert all(item.where.startswith(str(path)) and is_sound(item) for item in items)


@given(st.binary(max_size=200) | st.text('{}[]",:\n role content messages user').map(str.encode))
def test_any_bytes_never_raise(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(data)
    assert all(is_sound(item) for item, _ in read_file(path))


@given(nasty_text | any_text, roles)
def test_any_text_is_read_as_it_was_said(text: str, role: str) -> None:
    [item] = read_object(json.loads(json.dumps({"role": role, "content": text})), "file:1", 1, "session")
    if isinstance(item, Read):
        assert item.message.content == as_unicode(text)
    else:
        assert isinstance(item, Skipped)
        assert role == "system" or not text.strip()
