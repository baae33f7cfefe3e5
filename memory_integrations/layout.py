"""How messages are laid out as points of one Qdrant collection: pure functions.

A point is a message, or one piece of a long one, as ``langchain_qdrant.QdrantVectorStore`` expects it:
``page_content`` is what was said, ``metadata`` says where, when and by whom.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import blake2b
from typing import Any
from uuid import UUID

from memory_integrations.delimiters import as_data, strip_injected
from memory_integrations.errors import MessageError
from memory_integrations.messages import DEEPEST, Message, as_unicode, as_utc, is_deeper

DENSE = ""
"""langchain_qdrant's name of the dense vector."""
SPARSE = "langchain-sparse"
"""langchain_qdrant's name of the sparse vector."""
DELETED = "deleted"
"""What the scope of a point says that stands for a deleted message; no scope prints as it."""
TOLD = ("message", "file")
"""The kinds of points that say by which name, and in which pieces, a text is stored. What other programs wrote may have
the same fields, and mean anything: splitters copy what is said of a mail to every part of it."""
SAID_BY_CALL = "said_by_call"
"""What the metadata of a message says whose text is that of a call: told again without a text, it is no other."""
MOST_PIECES = 100_000
"""Of a text of some 100 MB; who deletes one names them all."""
_MARK = 16  # hexadecimal digits
MARKS_OF_A_POINT = 1000
PIECE_CHARACTERS = 1200
"""A longer text is stored in pieces of about this length (some 300 tokens of English)."""

MessageName = tuple[str | None, str]
"""By what a message is known in its scope: its session, and its id there."""

_MONTHS = tuple("January February March April May June July August September October November December".split())


@dataclass(frozen=True, slots=True)
class MemoryHit:
    """Something found.

    Args:
        id: The id of the memory, which :meth:`LongTermMemory.delete` takes.
        text: What the model will see: date, speaker and what was said, escaped as data. Of a long text the pieces that
            were found, with ``…`` for what is left out.
        score: In (0, 1], higher is better; comparable within one search.
        message_ids: The messages that the text shows.
        metadata: Scope, session_id, role, name, created_at, updated_at (where a message was changed), kind, and the
            message's own under "extra".
        explanation: With ``explain=True``, what each signal gave to the score; they add up to it.
    """

    id: str
    text: str
    score: float
    message_ids: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    explanation: Mapping[str, float] | None = None


def point_id(tag: str, session_id: str | None, message_id: str, piece: int = 0) -> str:
    """The id of a message's point: the same for the same message in the same session of a scope, and for no other.

    Ids that programs give ("1", "a") are often unique in their conversation alone.
    """
    session = "" if session_id is None else f"={session_id}"
    identity = f"{len(tag)}:{tag}{len(session)}:{session}{piece}:{message_id}"
    return str(UUID(bytes=blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).digest(), version=4))


def places_of_mark(tag: str, place: str) -> tuple[str, str]:
    """The ids of the two points of which one may have the mark of an erased message of a scope.

    The first has the marks of the whole scope up to :data:`MARKS_OF_A_POINT`, the other a sixteenth of what is more:
    who was erased leaves one point, or few. In an engine a point takes as much as a memory, whatever it has.
    """
    return point_id(f"erased:{tag}", None, ""), point_id(f"erased:{tag}", None, place[0])  # no scope prints as this


def mark_of(place: str) -> str:
    """What stands for an erased message: half of its point's id, which is a hash."""
    return place.replace("-", "")[:_MARK]


def marks_in(fields: Mapping[str, Any]) -> set[str]:
    """The marks of erased messages that a point's metadata says; none of anything else."""
    text = fields.get("erased")
    if fields.get("scope") != DELETED or not isinstance(text, str):
        return set()
    return {text[start : start + _MARK] for start in range(0, len(text), _MARK)}


def as_marks(marks: Iterable[str]) -> dict[str, Any]:
    """The payload of a point that has marks."""
    return {"page_content": "", "metadata": {"scope": DELETED, "erased": "".join(sorted(marks))}}


def key_of(point: str | int | UUID) -> int:
    """A point's id as a number, which is what ranking works with: a UUID's 128 bits, or the number that it is."""
    return point if isinstance(point, int) else UUID(str(point)).int


def id_of(key: int) -> str | int:
    """The id whose key this is."""
    return key if key < 1 << 64 else str(UUID(int=key))


def pieces(text: str, size: int = PIECE_CHARACTERS) -> list[str]:
    """A long text cut where it pauses: at a paragraph, a line, a sentence, a word. Joined, they are the text."""
    found = []
    while len(text) > size:
        window = text[:size]
        ends = (window.rfind(pause, size // 2) + len(pause) for pause in ("\n\n", "\n", ". ", "? ", "! ", "。", " "))
        cut = next((end for end in ends if end > size // 2), size)
        found.append(text[:cut])
        text = text[cut:]
    return [*found, text]


def unsaid(hits: Iterable[MemoryHit], messages: Iterable[Message]) -> Iterator[MemoryHit]:
    """Those memories that a conversation does not say anyway.

    By their texts too, since a history may keep no ids, and its session may be known to nobody here.
    """
    told = [(message.id, as_data(strip_injected(message.text))) for message in messages]
    endings = tuple(f": {text}" for _, text in told if text)
    for hit in hits:
        parts = [part.strip() for part in hit.text.partition(": ")[2].split("…")]  # pieces of a long text
        if not hit.text.endswith(endings) and not any(
            id_ in hit.message_ids and text and all(part in text for part in parts) for id_, text in told
        ):
            yield hit


def metadata_of(point: Any) -> dict[str, Any]:
    """A point's metadata; what the ecosystem's classes wrote may have none."""
    found = (point.payload or {}).get("metadata")
    return found if isinstance(found, dict) else {}


def vectors_of(point: Any) -> dict[str, Any]:
    """A point's vectors by their names; none where it was read without, or has none."""
    vectors = point.vector
    return vectors if isinstance(vectors, dict) else {DENSE: vectors} if vectors else {}


def text_of(point: Any) -> str:
    """What a point says."""
    return str((point.payload or {}).get("page_content") or "")


def as_metadata(message: Message, tag: str, kind: str) -> dict[str, Any]:
    """What a point's metadata says of a message that has arrived.

    Raises:
        MessageError: The message's own metadata is not JSON.
    """
    assert message.created_at is not None  # given on arrival
    fields = {
        "scope": tag,
        "session_id": message.session_id,
        "message_id": message.id,
        "role": message.role,
        "name": message.name,
        "created_at": message.created_at.isoformat(),
        "kind": kind,
        "extra": _as_json(message.metadata) or None,
    }
    return {key: value for key, value in fields.items() if value is not None}


# Reading what is said of a point: other programs may have said it in any way, and nobody may stumble over that.


def moment_of(fields: Mapping[str, Any], name: str = "created_at") -> datetime | None:
    """A time that a point's metadata says; without a zone it is UTC, as Qdrant reads it; None for what is no time."""
    try:
        moment = datetime.fromisoformat(fields[name])
        return as_utc(moment.replace(tzinfo=moment.tzinfo or UTC))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def piece_of(fields: Mapping[str, Any]) -> tuple[int, int]:
    """Which piece of a text a point is, counted from 0, and of how many."""
    piece, count = fields.get("piece", 0), fields.get("pieces", 1)
    is_one = fields.get("kind") in TOLD and type(piece) is type(count) is int and 0 <= piece < count <= MOST_PIECES
    return (piece, count) if is_one else (0, 1)


def is_said_by_call(fields: Mapping[str, Any]) -> bool:
    """Whether a message's text is that of a call, which stands in the conversation without one."""
    extra = fields.get("extra")
    return isinstance(extra, Mapping) and extra.get(SAID_BY_CALL) is True


def name_of(point: Any) -> MessageName:
    """The name of the message that a point is, or is a piece of; what another program wrote is known by its id."""
    fields = metadata_of(point)
    session, message = fields.get("session_id"), fields.get("message_id")
    name = message if isinstance(message, str) and fields.get("kind") in TOLD else str(point.id)
    return session if isinstance(session, str) else None, name


def as_message(points: Sequence[Any]) -> Message:
    """The message whose pieces these points are, in order; of what another program wrote nobody knows who said it."""
    fields = metadata_of(points[0])
    session, id_ = name_of(points[0])
    role, name, extra = fields.get("role"), fields.get("name"), fields.get("extra")
    return Message(
        role=role if isinstance(role, str) and role else "note",
        content="".join(text_of(point) for point in points),
        name=name if isinstance(name, str) else None,
        id=id_,
        session_id=session,
        created_at=moment_of(fields),
        metadata=extra if isinstance(extra, dict) else {},
    )


def is_expired(point: Any, now: datetime) -> bool:
    """Whether what a point says had a time to live, and that is over."""
    fields = metadata_of(point)
    expires = moment_of(fields, "expires_at") if "expires_at" in fields else None
    return expires is not None and expires <= now


def speaker_of(fields: Mapping[str, Any]) -> str:
    """Who said it: the name, else the role."""
    return str(fields.get("name") or fields.get("role") or "note")


def day_of(fields: Mapping[str, Any]) -> int:
    """When, as a proleptic ordinal; 0 when that is not known."""
    day = _day(fields)
    return 0 if day is None else day.toordinal()


def line(text: str, fields: Mapping[str, Any]) -> str:
    """A memory as one line: "8 May 2023 Caroline: ...". Plain words cost the fewest tokens for a date."""
    day = _day(fields)
    when = "" if day is None else f"{day.day} {_MONTHS[day.month - 1]} {day.year} "
    return f"{when}{speaker_of(fields)}: {text}"


def _day(fields: Mapping[str, Any]) -> date | None:
    try:
        return date.fromisoformat(fields["created_at"][:10])  # a third of the time that all of it takes
    except (KeyError, TypeError, ValueError):
        return None


def shown(points: Sequence[Any]) -> str:
    """Pieces of one message as the model will see them; what lies between and around them is ``…``."""
    fields = metadata_of(points[0])
    text, expected, count = "", 0, 1
    for point in points:
        piece, count = piece_of(metadata_of(point))
        text += ("… " if piece != expected else "") + text_of(point)
        expected = piece + 1
    if expected < count:
        text = f"{text.rstrip()} …"
    return as_data(line(text, fields))


def _as_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    if not metadata:
        return {}
    try:
        text = as_unicode(json.dumps(dict(metadata), allow_nan=False, ensure_ascii=False))
        copied: dict[str, Any] = json.loads(text, parse_int=_as_number)
        if is_deeper(copied, DEEPEST):
            raise ValueError("it is too deep")
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MessageError(
            f"A message's metadata is not JSON ({error}): expected text, finite numbers, true, false, None, or lists "
            f"and objects of these, at most {DEEPEST} deep. Nothing was stored."
        ) from error
    return copied


def _as_number(digits: str) -> int | float:
    """A whole number; one beyond 64 bits becomes a float, as engines make it: a server says no over gRPC."""
    number = int(digits)
    return number if -(2**63) <= number < 2**63 else float(number)
