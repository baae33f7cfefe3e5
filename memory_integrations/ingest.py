"""Reading conversations out of files: every message, or why it could not be read, and where. Pure but for the file.

The format is told by the content, one object at a time, so that a file may hold any of these, as JSON Lines (an
object a line, read line by line) or as one JSON document (an object, or a list of objects):

* a message: ``{"role": "user", "content": "..."}``, as OpenAI writes them; ``content`` may be a list of blocks, and
  ``id``, ``name``, ``session_id`` (or ``thread_id``) and ``created_at`` (or ``timestamp``) are used where they are;
* a conversation: ``{"messages": [...]}`` of such messages;
* a conversation of ChatGPT's export (``conversations.json``): the tree's current branch;
* a conversation of a memory benchmark: ``{"id": ..., "messages": [...], "questions": [...]}`` between named people.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from os import fspath
from pathlib import Path
from typing import Any, BinaryIO

from memory_integrations.errors import MessageError
from memory_integrations.messages import Message, as_aware, as_unicode

EXPECTED = (
    'JSON Lines of messages ({"role": ..., "content": ...}) or of {"messages": [...]}, ChatGPT\'s conversations.json, '
    "or a list of benchmark conversations"
)

_BOM = b"\xef\xbb\xbf"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive: unpack it and give the conversations.json inside",
    b"\x1f\x8b": "compressed with gzip: unpack it first",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}
_GUESSES = 20  # lines that are no JSON, at the beginning of a file, after which it is no file of ours
_SPACE = re.compile(r"[ \t\r\n]*")
_MILLISECONDS = 1e11  # a Unix time above this, the year 5138 in seconds, is in milliseconds
_TEXT_KINDS = frozenset(("text", "multimodal_text"))  # ChatGPT's others are code, tool output, thoughts and settings
_STORED_ROLES = frozenset(("user", "assistant"))
_OTHER_ROLES = frozenset(("system", "developer", "tool", "function"))


@dataclass(frozen=True, slots=True)
class Read:
    """A message that was read.

    Args:
        message: With an id and a session; without a time where the file gives none.
        where: The file and the place in it.
        user_id: The benchmark conversation it belongs to, which is a user of its own; None in other formats.
    """

    message: Message
    where: str
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A message that is none to remember: a system or tool message, a hidden or an empty one."""

    reason: str
    where: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be read."""

    reason: str
    where: str


Item = Read | Skipped | Problem


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a message stands, and what it takes from there."""

    where: str
    position: int
    session: str
    user_id: str | None = None


def read_file(path: Path, session: str | None = None) -> Iterator[tuple[Item, int]]:
    """Read a file of conversations.

    Args:
        path: The file; a pipe will do, since it is read once, from front to end.
        session: The session of messages that name none; None means the file's name without its ending.

    Yields:
        Every message, each with how many bytes of the file were read by then. What cannot be read is a
        :class:`Problem`, and reading goes on behind it.
    """
    name = fspath(path)
    found = False
    try:
        with path.open("rb") as file:
            for item, offset in _read(file, name, session or path.stem):
                found = True
                yield item, offset
    except OSError as error:
        yield Problem(f"cannot be read: {error.strerror or error}", name), 0
    else:
        if not found:
            yield Problem("there are no messages in it", name), 0


def read_object(value: Any, where: str, position: int, session: str) -> Iterator[Item]:
    """Read a JSON value: one message, or a conversation in any of the formats.

    Args:
        value: As ``json`` decodes it.
        where: Its place, for problems.
        position: Its place in numbers, of which ids are made for messages without one.
        session: The session, where it names none.

    Yields:
        Every message in it, or what is wrong with it. Never raises.
    """
    if not isinstance(value, dict):
        yield Problem(f"expected an object, found {_kind(value)}", where)
    elif isinstance(value.get("mapping"), dict):
        yield from _chatgpt_conversation(value, where, session)
    elif "messages" in value:
        yield from _conversation(value, where, position, session)
    elif "role" in value or "content" in value:
        yield _message(value, _Place(where, position, session))
    else:
        yield Problem(f"neither a message nor a conversation: its keys are [{_some(value)}]", where)


# Files


def _read(file: BinaryIO, name: str, session: str) -> Iterator[tuple[Item, int]]:
    offset = 0
    for number, line in enumerate(file, 1):
        begun = line.removeprefix(_BOM) if number == 1 else line
        offset += len(line)
        if foreign := next((what for magic, what in _FOREIGN.items() if begun.startswith(magic)), None):
            yield Problem(foreign, name), offset
            return
        if not begun.strip():
            continue
        if begun.lstrip().startswith(b"[") or begun.strip() == b"{":
            yield from _read_document(begun + file.read(), name, session, number - 1)
        else:
            lines = itertools.chain([(number, begun)], enumerate(file, number + 1))
            yield from _read_lines(lines, name, session, offset - len(begun))
        return
    yield Problem("the file is empty", name), offset


def _read_lines(lines: Iterable[tuple[int, bytes]], name: str, session: str, offset: int) -> Iterator[tuple[Item, int]]:
    """JSON Lines. Text that is no JSON from its very beginning is reported as one problem, not as one a line."""
    guesses: list[Problem] | None = []
    for number, line in lines:
        offset += len(line)
        if not line.strip():
            continue
        value = _decoded(line, f"{name}:{number}")
        if guesses is not None and isinstance(value, Problem) and not line.lstrip().startswith(b"{"):
            guesses.append(value)
            if len(guesses) >= _GUESSES:
                break
            continue
        for problem in guesses or ():
            yield problem, offset
        guesses = None
        if isinstance(value, Problem):
            yield value, offset
            continue
        for item in read_object(value, f"{name}:{number}", number, session):
            yield item, offset
    if guesses:
        yield Problem(f"not a known format: expected {EXPECTED}; {guesses[0].reason}", guesses[0].where), offset


def _decoded(line: bytes, where: str) -> Any:
    """The line's value, or a problem."""
    try:
        return json.loads(line.strip().decode())
    except UnicodeDecodeError as error:
        return Problem(f"not UTF-8: byte {error.start + 1} of the line is 0x{line.strip()[error.start]:02x}", where)
    except json.JSONDecodeError as error:
        return Problem(f"not JSON: {error.msg} (column {error.colno})", where)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 10,000 brackets
        return Problem(f"not JSON that can be read: {error}", where)


def _read_document(data: bytes, name: str, session: str, lines_before: int) -> Iterator[tuple[Item, int]]:
    """One JSON document; a list is read element by element, so that what stands before a damaged place is read."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = lines_before + data.count(b"\n", 0, error.start) + 1
        reason = f"not UTF-8: byte 0x{data[error.start]:02x}; read with U+FFFD in such places"
        yield Problem(reason, f"{name}:{line}"), 0
        text = data.decode(errors="replace")
    size, length = len(data), max(len(text), 1)
    is_list = text.lstrip()[0] == "["
    position = _behind_space(text, 0) + is_list
    try:
        for index in itertools.count(1):
            position = _behind_space(text, position)
            if is_list and index == 1 and text[position : position + 1] == "]":
                break
            value, position = _decoder.raw_decode(text, position)
            where = f"{name}: {_name_of(value, index)}" if is_list else name
            for item in read_object(value, where, index, session):
                yield item, size * position // length
            position = _behind_space(text, position)
            if not is_list or text[position : position + 1] == "]":
                break
            if text[position : position + 1] != ",":
                raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
            position += 1
        position = _behind_space(text, position + is_list)
        if position < len(text):
            raise json.JSONDecodeError("Extra data behind the end", text, position)
    except json.JSONDecodeError as error:
        where = f"{name}:{lines_before + error.lineno}"
        yield Problem(f"not JSON: {error.msg} (column {error.colno}); the rest of the file was not read", where), size
    except (ValueError, RecursionError) as error:
        yield Problem(f"not JSON that can be read: {error}; the rest of the file was not read", name), size


_decoder = json.JSONDecoder()


def _behind_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _name_of(value: Any, index: int) -> str:
    """How a person finds an element of a list again."""
    if isinstance(value, dict) and ("mapping" in value or "messages" in value):
        name = _identifier(value, "conversation_id", "id")
        return f"conversation {name}" if name else f"conversation {index}"
    return f"item {index}"


# Conversations


def _conversation(value: Mapping[str, Any], where: str, position: int, session: str) -> Iterator[Item]:
    """A conversation with a list of messages, of OpenAI's form or a benchmark's."""
    messages = value["messages"]
    if not isinstance(messages, list):
        yield Problem(f"messages is {_kind(messages)}: expected a list", where)
        return
    is_benchmark = "questions" in value
    user_id = _identifier(value, "id") if is_benchmark else None
    if is_benchmark and not user_id:
        yield Problem(f"id={_short(value.get('id'))}: expected the name of the conversation", where)
        return
    own = _identifier(value, "session_id", "thread_id", "conversation_id", "id") or f"{session}:{position}"
    for index, fields in enumerate(messages, 1):
        place = _Place(f"{where}, message {index}", index, own, user_id)
        if isinstance(fields, dict):
            # In a benchmark people talk, each by a name: none of them is an assistant.
            yield _message({"role": "user", **fields} if is_benchmark else fields, place)
        else:
            yield Problem(f"expected an object, found {_kind(fields)}", place.where)


def _chatgpt_conversation(value: Mapping[str, Any], where: str, session: str) -> Iterator[Item]:
    """ChatGPT's tree: the branch that ends in ``current_node``, from its root."""
    mapping = value["mapping"]
    own = _identifier(value, "conversation_id", "id") or session
    branch: list[Mapping[str, Any]] = []
    seen: set[str] = set()
    key = value.get("current_node")
    if key is None:
        yield Problem("it has no current_node, which says where its current branch ends", where)
    while key is not None:
        node = mapping.get(key) if isinstance(key, str) else None
        if not isinstance(node, dict) or key in seen:
            why = "is twice on the branch" if isinstance(node, dict) else "is not in the tree"
            yield Problem(f"node {_short(key)} {why}: what was said before it was not read", where)
            break
        seen.add(key)
        branch.append(node)
        key = node.get("parent")
    for index, node in enumerate(reversed(branch), 1):
        fields = node.get("message")
        if isinstance(fields, dict):
            place = _Place(f"{where}, message {_identifier(fields, 'id') or index}", index, own)
            yield _chatgpt_message(fields, value.get("create_time"), place)
        elif fields is not None:
            yield Problem(f"message is {_kind(fields)}: expected an object", f"{where}, message {index}")


def _chatgpt_message(fields: Mapping[str, Any], begun: Any, place: _Place) -> Item:
    author, metadata, content = (
        part if isinstance(part, dict) else {} for part in map(fields.get, ("author", "metadata", "content"))
    )
    role = author.get("role")
    if metadata.get("is_visually_hidden_from_conversation"):
        return Skipped("hidden", place.where)
    if role in _STORED_ROLES:
        if fields.get("recipient") not in (None, "all"):
            return Skipped("tool call", place.where)
        if content.get("content_type", "text") not in _TEXT_KINDS:
            return Skipped("not text", place.where)
    time = fields.get("create_time")
    return _message(
        {
            "role": role,
            "name": author.get("name"),
            "content": content.get("parts"),
            "id": fields.get("id"),
            "timestamp": begun if time is None else time,
        },
        place,
    )


# Messages


def _message(fields: Mapping[str, Any], place: _Place) -> Item:
    """The message that the fields make, or why there is none."""
    role = fields.get("role")
    try:
        if not isinstance(role, str):
            raise MessageError(f"role={_short(role)}: expected text such as 'user' or 'assistant'")
        if "content" not in fields and not fields.get("tool_calls"):
            raise MessageError("it has no content: expected text or a list of blocks")
        text = _text_of(fields.get("content"))
        session = _identifier(fields, "session_id", "thread_id", "session") or place.session
        message = Message(
            role=as_unicode(role),
            content=text,
            name=_identifier(fields, "name"),
            id=_identifier(fields, "id") or _made_id(session, place.position, role, text),
            session_id=session,
            created_at=_time(fields),
        )
    except MessageError as error:
        return Problem(str(error), place.where)
    if message.role not in _STORED_ROLES:
        return Skipped(f"{message.role} message" if message.role in _OTHER_ROLES else "other role", place.where)
    if not text.strip():
        return Skipped("tool call" if fields.get("tool_calls") else "empty", place.where)
    return Read(message, place.where, place.user_id)


def _text_of(content: Any) -> str:
    """The text of a message's content; images and other media have none.

    Raises:
        MessageError: It is neither text nor blocks.
    """
    if content is None or isinstance(content, str):
        return as_unicode(content or "")
    if not isinstance(content, list):
        raise MessageError(f"content is {_kind(content)}: expected text or a list of blocks")
    texts = []
    for block in content:
        text = block.get("text") if isinstance(block, dict) else block
        if isinstance(text, dict):  # {"type": "text", "text": {"value": "..."}} of OpenAI's assistants
            text = text.get("value")
        if isinstance(text, str):
            texts.append(text)
        elif not isinstance(block, dict):
            raise MessageError(f"content holds {_kind(block)}: expected text or blocks")
    return as_unicode("\n".join(text for text in texts if text))


def _time(fields: Mapping[str, Any]) -> datetime | None:
    """When it was said, in UTC: ISO 8601, where a time without a zone is UTC, or Unix seconds or milliseconds.

    Raises:
        MessageError: It is neither.
    """
    key = next((key for key in ("created_at", "timestamp", "create_time") if fields.get(key) is not None), None)
    if key is None:
        return None
    given = fields[key]
    try:
        if isinstance(given, str) and not re.fullmatch(r"-?\d{9,}(\.\d*)?", given):
            moment = datetime.fromisoformat(given)
            return as_aware(moment).astimezone(UTC)
        if isinstance(given, str | int | float) and not isinstance(given, bool):
            seconds = float(given)
            return datetime.fromtimestamp(seconds / 1000 if abs(seconds) > _MILLISECONDS else seconds, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise MessageError(f"{key}={_short(given)}: expected ISO 8601 (2025-01-12T09:04:00Z) or a Unix time in seconds")


def _made_id(session: str, position: int, role: str, text: str) -> str:
    """An id for a message without one: the same whenever the file is read again."""
    identity = json.dumps([session, position, role, text])
    return f"ingest-{blake2b(identity.encode(), digest_size=16).hexdigest()}"


def _identifier(fields: Mapping[str, Any], *keys: str) -> str | None:
    """The first of the fields that is text or a whole number, as text."""
    for key in keys:
        value = fields.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return as_unicode(str(value))
    return None


def _kind(value: Any) -> str:
    """What a JSON value is, in JSON's words."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else "text" if isinstance(value, str) else "a number"


def _short(value: Any) -> str:
    if isinstance(value, list | dict):  # may be nested too deep to be printed
        return _kind(value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _some(value: Mapping[str, Any]) -> str:
    keys = list(value)[:6]
    return ", ".join(map(_short, keys)) + (", ..." if len(value) > len(keys) else "")
