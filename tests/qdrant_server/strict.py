"""What strict mode refuses: filters on fields without an index. Qdrant Cloud switches it on for every collection.

https://qdrant.tech/documentation/guides/administration/#strict-mode; each kind of condition needs one of some kinds of
index, as the server's ``one_unindexed_key`` has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from qdrant_client import models as m

CLOUD = m.StrictModeConfig(enabled=True, unindexed_filtering_retrieve=False, unindexed_filtering_update=False)
"""What Qdrant Cloud sets."""
_ANY_INDEX = ("bool", "datetime", "float", "geo", "integer", "keyword", "text", "uuid")


def conditions_of(body: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every condition of every filter in a request, with the path of its field."""
    if isinstance(body, m.NestedCondition):
        yield from conditions_of(body.nested.filter, f"{path}{body.nested.key}[].")
    elif isinstance(body, m.FieldCondition):
        yield path + body.key, body
    elif isinstance(body, m.IsEmptyCondition):
        yield path + body.is_empty.key, body
    elif isinstance(body, m.IsNullCondition):
        yield path + body.is_null.key, body
    elif isinstance(body, BaseModel):
        for name in body.model_fields_set:
            if name not in ("payload", "vector", "vectors", "points"):
                yield from conditions_of(getattr(body, name), path)
    elif isinstance(body, list):
        for one in body:
            if isinstance(one, BaseModel | list):
                yield from conditions_of(one, path)


def missing_index(condition: tuple[str, Any], schema: Mapping[str, str]) -> tuple[str, list[str]] | None:
    """The field and the kinds of index of which one is needed; None where it is there.

    Args:
        condition: A field's path, and what is asked of it.
        schema: The kinds of the indexes there are, by fields.
    """
    path, asked = condition
    key = re.sub(r'"([^"]*)"', r"\1", path)
    wanted = _kinds(asked)
    return None if schema.get(key) in wanted else (key, sorted(wanted))


def _kinds(condition: Any) -> tuple[str, ...]:
    match, span = getattr(condition, "match", None), getattr(condition, "range", None)
    if isinstance(match, m.MatchText | m.MatchTextAny | m.MatchPhrase):
        return ("text",)
    if match is not None:
        value = getattr(match, "value", None)
        if value is None:
            several = getattr(match, "any", None) or getattr(match, "except_", None) or [""]
            value = several[0]
        if isinstance(value, bool):
            return ("bool",)
        if isinstance(value, int):
            return ("integer",)
        return ("keyword", "uuid") if _is_uuid(value) else ("keyword",)
    if isinstance(span, m.DatetimeRange):
        return ("datetime",)
    if span is not None:
        return ("float", "integer")
    if getattr(condition, "geo_bounding_box", None) or getattr(condition, "geo_radius", None):
        return ("geo",)
    return _ANY_INDEX


def _is_uuid(value: str) -> bool:
    try:
        UUID(value)
    except ValueError:
        return False
    return True
