"""Filters from qdrant_client's models to the engine's types. Pure: what the caller gave is never changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

from memory_integrations.qdrant_edge.errors import unsupported
from memory_integrations.qdrant_edge.points import known_point_id

__all__ = ["edge_condition", "edge_filter", "edge_point_ids", "excluding", "instant"]


def edge_filter(query_filter: models.Filter | Mapping[str, Any] | None) -> edge.Filter | None:
    """Return the engine's form of a filter.

    Raises:
        NotImplementedError: it holds a condition the engine has not.
        ValueError: a condition is malformed.
    """
    if query_filter is None:
        return None
    if not isinstance(query_filter, models.Filter):
        if not isinstance(query_filter, Mapping):
            raise ValueError(f"Unsupported filter type: {type(query_filter)}")
        query_filter = models.Filter(**query_filter)
    min_should = query_filter.min_should
    if min_should is not None and min_should.min_count < 1:
        raise ValueError(f"min_count value {min_should.min_count} is invalid. Must be 1 or larger.")
    return edge.Filter(
        must=_conditions(query_filter.must),
        should=_conditions(query_filter.should),
        must_not=_conditions(query_filter.must_not),
        min_should=None
        if min_should is None
        else edge.MinShould(_conditions(min_should.conditions) or [], min_should.min_count),
    )


def excluding(query_filter: edge.Filter | None, ids: set[edge.PointId]) -> edge.Filter:
    """Return a filter that also keeps out some points."""
    return edge.Filter(must=None if query_filter is None else [query_filter], must_not=[edge.HasIdCondition(ids)])


def edge_point_ids(ids: Iterable[Any]) -> set[edge.PointId]:
    """Return point ids as the engine's filter takes them; what can be no point's id matches nothing."""
    return {known for known in map(known_point_id, ids) if known is not None}


def edge_condition(condition: Any) -> edge.ConditionType:
    """Return the engine's form of one condition."""
    convert = _CONDITIONS.get(type(condition))
    if convert is None:
        raise ValueError(f"Unknown condition: {condition!r}")
    return convert(condition)


def _conditions(clause: Any) -> list[edge.ConditionType] | None:
    if clause is None or clause == []:  # an empty clause asks nothing, but the engine's nested filters fail on it
        return None
    return [edge_condition(condition) for condition in (clause if isinstance(clause, list) else [clause])]


def _field(condition: models.FieldCondition) -> edge.FieldCondition:
    # the engine combines what one condition holds; qdrant_client's local mode reads the first that is set
    for name, convert in _FIELD_PARTS:
        value = getattr(condition, name)
        if value is not None:
            return edge.FieldCondition(condition.key, **{name: convert(value)})
    return edge.FieldCondition(condition.key)


def _match(match: Any) -> edge.MatchType:
    convert = _MATCHES.get(type(match))
    if convert is None:
        raise ValueError(f"Unknown match condition: {match!r}")
    return convert(match)


def _match_value(match: models.MatchValue) -> edge.MatchValue:
    value = match.value
    # the engine's binding reads Python's own bool as the integer it also is, and then matches no boolean
    given: Any = np.bool_(value) if isinstance(value, bool) else value
    return edge.MatchValue(given)


def _range(bounds: Any) -> edge.RangeType:
    if isinstance(bounds, models.DatetimeRange):
        return edge.RangeDateTime(
            gte=instant(bounds.gte), gt=instant(bounds.gt), lte=instant(bounds.lte), lt=instant(bounds.lt)
        )
    return edge.RangeFloat(gte=bounds.gte, gt=bounds.gt, lte=bounds.lte, lt=bounds.lt)


def instant(moment: datetime | date | str | None) -> str | None:
    """Return a moment in the engine's spelling; one without a zone is UTC, as on the server."""
    return moment.isoformat() if isinstance(moment, date) else moment


def _geo_point(point: models.GeoPoint) -> edge.GeoPoint:
    return edge.GeoPoint(point.lon, point.lat)


def _line(line: models.GeoLineString) -> list[edge.GeoPoint]:
    return [_geo_point(point) for point in line.points]


def _bounding_box(box: models.GeoBoundingBox) -> edge.GeoBoundingBox:
    return edge.GeoBoundingBox(_geo_point(box.top_left), _geo_point(box.bottom_right))


def _radius(radius: models.GeoRadius) -> edge.GeoRadius:
    return edge.GeoRadius(_geo_point(radius.center), radius.radius)


def _polygon(polygon: models.GeoPolygon) -> edge.GeoPolygon:
    interiors = polygon.interiors
    return edge.GeoPolygon(_line(polygon.exterior), [_line(line) for line in interiors] if interiors else None)


def _values_count(count: models.ValuesCount) -> edge.ValuesCount:
    return edge.ValuesCount(lt=count.lt, gt=count.gt, lte=count.lte, gte=count.gte)


def _nested(condition: models.NestedCondition) -> edge.NestedCondition:
    inner = edge_filter(condition.nested.filter)
    assert inner is not None
    return edge.NestedCondition(condition.nested.key, inner)


def _slice(condition: models.SliceCondition) -> edge.ConditionType:
    raise unsupported("a filter with SliceCondition")


def _same(value: Any) -> Any:
    return value


_MATCHES: dict[type, Callable[[Any], edge.MatchType]] = {
    models.MatchValue: _match_value,
    models.MatchText: lambda match: edge.MatchText(match.text),
    models.MatchTextAny: lambda match: edge.MatchTextAny(match.text_any),
    models.MatchPhrase: lambda match: edge.MatchPhrase(match.phrase),
    models.MatchPrefix: lambda match: edge.MatchPrefix(match.prefix),
    models.MatchSubstring: lambda match: edge.MatchSubstring(match.substring),
    models.MatchAny: lambda match: edge.MatchAny(match.any),
    models.MatchExcept: lambda match: edge.MatchExcept(match.except_),
}

_FIELD_PARTS: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("values_count", _values_count),
    ("is_empty", _same),
    ("is_null", _same),
    ("match", _match),
    ("range", _range),
    ("geo_bounding_box", _bounding_box),
    ("geo_radius", _radius),
    ("geo_polygon", _polygon),
)

_CONDITIONS: dict[type, Callable[[Any], edge.ConditionType]] = {
    models.FieldCondition: _field,
    models.IsEmptyCondition: lambda condition: edge.IsEmptyCondition(condition.is_empty.key),
    models.IsNullCondition: lambda condition: edge.IsNullCondition(condition.is_null.key),
    models.HasIdCondition: lambda condition: edge.HasIdCondition(edge_point_ids(condition.has_id)),
    models.HasVectorCondition: lambda condition: edge.HasVectorCondition(condition.has_vector),
    models.SliceCondition: _slice,
    models.NestedCondition: _nested,
    models.Filter: edge_filter,  # type: ignore[dict-item]
}
