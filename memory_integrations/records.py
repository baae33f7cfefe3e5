"""What the lines of an archive may say, and whose they may be.

Whoever can write a file can write one that calls itself an archive of theirs. So each line is looked at: that it is of
the scope, that a point stands where that scope's points stand, and that nothing in it breaks who reads it later.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeGuard
from uuid import UUID

from memory_integrations.journal import Event, as_json_line, decode_event
from memory_integrations.layout import MOST_PIECES, TOLD, point_id
from memory_integrations.messages import is_deeper
from memory_integrations.namespaces import KIND, check_namespace, item_id, joined, own_tag
from memory_integrations.scopes import MemoryScope

_DEEPEST = 120  # levels of lists and objects: facts have some 100, and the engine cannot read back 127 of a payload
_LARGEST_INDEX = 2**32 - 1
_LARGEST_NUMBER = 2**63 - 1


def read_line(line: bytes) -> dict[str, Any]:
    """A line as the object of JSON that it is.

    Raises:
        ValueError: It is none, or one that cannot be written again.
    """
    try:
        record = json.loads(line)
        if isinstance(record, dict) and line.endswith(b"\n") and not is_deeper(record, _DEEPEST):
            as_json_line(record)  # lone surrogates, and numbers that are none, can be stored nowhere
            return record
    except RecursionError:
        pass
    raise ValueError(f"it is no whole line with an object of JSON of at most {_DEEPEST} levels")


def event_of(record: Mapping[str, Any], whose: MemoryScope | None) -> tuple[MemoryScope, Event]:
    """The event that a line is, and the scope whose journal it is in.

    Args:
        record: The line.
        whose: Whose archive it is; None for all scopes.

    Raises:
        ValueError: It is no event, or not of an archive of this scope.
    """
    scope, number, fields = scope_of(record.get("scope")), record.get("number"), record["event"]
    if whose not in (None, scope, scope.owner):
        raise ValueError(f"it is an event of {scope}")
    if not _is_whole(number) or not isinstance(fields, dict) or not isinstance(fields.get("kind"), str):
        raise ValueError("it is no event")
    try:
        return scope, decode_event(number, json.dumps(fields))
    except (KeyError, TypeError) as error:
        raise ValueError("it is no event") from error


def scope_of(text: Any) -> MemoryScope:
    """The scope that a text is the printed form of.

    Raises:
        ValueError: It is of none.
    """
    scope = MemoryScope.parse(text) if isinstance(text, str) else None
    if scope is None or str(scope) != text:
        raise ValueError(f"{text!r:.80} is no scope's printed form")
    return scope


def check_point(record: Mapping[str, Any], whose: MemoryScope | None, size: int | None) -> None:
    """See that a line is a point that an archive may have.

    Args:
        record: The line.
        whose: Whose archive it is; None for all scopes, of which other programs may have written some in their way.
        size: Of how many numbers its vector is; None where the archive has none.

    Raises:
        ValueError: It is no point, or not of an archive of this scope.
    """
    id_, payload = record.get("id"), record["payload"]
    if not (_is_whole(id_) and id_ < 2**64) and not _is_uuid(id_):
        raise ValueError(f"{id_!r:.60} is no point's id")
    if not isinstance(payload, dict):
        raise ValueError("it is no point")
    _check_vectors(record, size)
    if whose is not None:
        text, fields = payload.get("page_content"), payload.get("metadata")
        if not isinstance(text, str | None) or not isinstance(fields, dict):
            raise ValueError("it is no memory")
        if not is_of(fields, whose):
            raise ValueError(f"it is a memory of {fields.get('scope')!r:.80}")
        _check_fields(fields)
        expected = id_by(fields)
        if expected is not None and id_ != expected:
            raise ValueError(f"{id_!r:.60} is not its id, which is {expected}")


def is_of(fields: Mapping[str, Any], whose: MemoryScope) -> bool:
    """Whether a point with this metadata belongs to an archive of a scope."""
    if whose != whose.owner:
        return fields.get("scope") == whose.owner.tag and fields.get("session_id") == whose.session_id
    return fields.get("scope") in (whose.tag, own_tag(whose))


def id_by(fields: Mapping[str, Any]) -> str | None:
    """The id that a point has by what its metadata says; None for what another program wrote, which gives its own."""
    tag, kind = fields["scope"], fields.get("kind")
    if kind == KIND:
        return item_id(tag, tuple(fields["namespace"]), fields["key"])
    if kind in TOLD and "message_id" in fields:
        return point_id(tag, fields.get("session_id"), fields["message_id"], fields.get("piece", 0))
    return None


def strange_id(whose: MemoryScope, id_: str | int) -> str:
    """The id of a scope's own that stands for one which another program gave: the same for the same one."""
    return point_id(whose.owner.tag, None, f"imported:{id_}")


def floats(packed: Any) -> list[float]:
    """The numbers that an archive has of a vector.

    Raises:
        ValueError: They are none.
    """
    import numpy as np

    try:
        values: list[float] = np.frombuffer(base64.b64decode(packed, validate=True), "<f4").tolist()
    except TypeError as error:
        raise ValueError("it has a vector that is none") from error
    if not all(map(math.isfinite, values)):
        raise ValueError("it has a vector that is none")
    return values


# Inside


def _check_vectors(record: Mapping[str, Any], size: int | None) -> None:
    if ("dense" in record or "sparse" in record) and size is None:
        raise ValueError("it has vectors, and the first line does not say of which embedding")
    if "dense" in record and len(floats(record["dense"])) != size:
        raise ValueError(f"it has a vector that is not one of {size} numbers")
    if "sparse" in record:
        sparse = record["sparse"]
        if not isinstance(sparse, list) or len(sparse) != 2 or not isinstance(sparse[0], list):
            raise ValueError("it has a sparse vector that is none")
        indices, values = sparse[0], floats(sparse[1])
        if not all(_is_whole(index) and index <= _LARGEST_INDEX for index in indices) or not (
            len(set(indices)) == len(indices) == len(values)
        ):
            raise ValueError("it has a sparse vector that is none")


def _check_fields(fields: Mapping[str, Any]) -> None:
    """See that nobody stumbles over a memory's metadata: whoever reads, ranks, sweeps or deletes it.

    What other programs wrote may say anything: all who read it know that.
    """
    kind = fields.get("kind")
    if not (kind == KIND or kind in TOLD or "within" in fields):
        return
    for name, is_right in _FIELDS.items():
        if name in fields and not is_right(fields[name]):
            raise ValueError(f"its {name} {fields[name]!r:.60} is none")
    if fields.get("piece", 0) >= fields.get("pieces", 1):
        raise ValueError(f"it is piece {fields['piece']} of {fields.get('pieces', 1)}, counted from 0")
    if kind in TOLD and fields.get("role") not in _ROLES[kind]:
        raise ValueError(f"its role {fields.get('role')!r:.60} is none of a {kind}")
    if kind == KIND or "within" in fields:  # by which a store finds its items
        _check_item(fields)


def _check_item(fields: Mapping[str, Any]) -> None:
    labels, key, value = fields.get("namespace"), fields.get("key"), fields.get("value")
    if not isinstance(labels, list) or not isinstance(key, str) or not isinstance(value, str):
        raise ValueError("it is no item")
    check_namespace(labels)
    within = [joined(tuple(labels[:depth])) for depth in range(len(labels) + 1)]
    needed = {"created_at", "updated_at", "order"}
    if fields.get("kind") != KIND or fields.get("within") != within or not needed <= fields.keys():
        raise ValueError("it is no item")
    try:
        is_object = isinstance(json.loads(value), dict)
    except RecursionError:
        is_object = False
    if not is_object or any(fields[name] is None for name in needed):
        raise ValueError("it is no item")


def _is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value
    except ValueError:
        return False


def _is_whole(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST_NUMBER


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value <= MOST_PIECES


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text_or_none(value: Any) -> bool:
    return isinstance(value, str | None)


def _is_time_or_none(value: Any) -> bool:
    try:
        return value is None or datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


_ROLES: Mapping[Any, tuple[str, ...]] = {"message": ("user", "assistant"), "file": ("file",)}
"""Who may have said what a memory of a kind says: what a file says that somebody gave is no instruction of a system."""

_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "session_id": _is_text_or_none,
    "message_id": _is_text,
    "kind": _is_text_or_none,
    "role": _is_text_or_none,
    "name": _is_text_or_none,
    "created_at": _is_time_or_none,
    "updated_at": _is_time_or_none,
    "expires_at": _is_time_or_none,
    "ttl": _is_number,
    "order": _is_number,
    "piece": _is_count,
    "pieces": _is_count,
    "extra": _is_object,
}
