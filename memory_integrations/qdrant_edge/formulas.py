"""Scoring formulas from qdrant_client's models to the engine's types. Pure functions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any, get_args

import qdrant_edge as edge
from qdrant_client import models

from memory_integrations.qdrant_edge.filters import edge_condition, instant

__all__ = ["edge_formula"]


def edge_formula(query: models.FormulaQuery) -> edge.Formula:
    """Return the engine's form of a formula query.

    Raises:
        ValueError: the formula holds something that is no expression.
    """
    defaults = {name: _default(value) for name, value in (query.defaults or {}).items()}
    return edge.Formula(_expression(query.formula), defaults)


def _default(value: Any) -> Any:
    if isinstance(value, models.GeoPoint):
        return {"lon": value.lon, "lat": value.lat}
    return instant(value) if isinstance(value, date) else value


def _expression(expression: Any) -> edge.Expression:
    if isinstance(expression, int | float):
        return edge.Expression.Constant(float(expression))
    if isinstance(expression, str):
        return edge.Expression.Variable(expression)
    if isinstance(expression, _CONDITION_TYPES):
        return edge.Expression.Condition(edge_condition(expression))
    convert = _EXPRESSIONS.get(type(expression))
    if convert is None:
        raise ValueError(f"Unsupported expression type: {type(expression)}")
    return convert(expression)


def _all(expressions: list[Any]) -> list[edge.Expression]:
    return [_expression(expression) for expression in expressions]


def _decay(kind: edge.DecayKind, params: models.DecayParamsExpression) -> edge.Expression:
    target = None if params.target is None else _expression(params.target)
    return edge.Expression.Decay(kind, _expression(params.x), target, params.midpoint, params.scale)


def _geo_distance(expression: models.GeoDistance) -> edge.Expression:
    params = expression.geo_distance
    return edge.Expression.GeoDistance(edge.GeoPoint(params.origin.lon, params.origin.lat), params.to)


def _div(expression: models.DivExpression) -> edge.Expression:
    div = expression.div
    return edge.Expression.Div(_expression(div.left), _expression(div.right), div.by_zero_default)


_CONDITION_TYPES = get_args(models.Condition)

_EXPRESSIONS: dict[type, Callable[[Any], edge.Expression]] = {
    models.GeoDistance: _geo_distance,
    models.DatetimeExpression: lambda e: edge.Expression.Datetime(e.datetime),
    models.DatetimeKeyExpression: lambda e: edge.Expression.DatetimeKey(e.datetime_key),
    models.MultExpression: lambda e: edge.Expression.Mult(_all(e.mult)),
    models.SumExpression: lambda e: edge.Expression.Sum(_all(e.sum)),
    models.MaxExpression: lambda e: edge.Expression.Max(_all(e.max)),
    models.MinExpression: lambda e: edge.Expression.Min(_all(e.min)),
    models.NegExpression: lambda e: edge.Expression.Neg(_expression(e.neg)),
    models.AbsExpression: lambda e: edge.Expression.Abs(_expression(e.abs)),
    models.DivExpression: _div,
    models.SqrtExpression: lambda e: edge.Expression.Sqrt(_expression(e.sqrt)),
    models.PowExpression: lambda e: edge.Expression.Pow(_expression(e.pow.base), _expression(e.pow.exponent)),
    models.ExpExpression: lambda e: edge.Expression.Exp(_expression(e.exp)),
    models.Log10Expression: lambda e: edge.Expression.Log10(_expression(e.log10)),
    models.LnExpression: lambda e: edge.Expression.Ln(_expression(e.ln)),
    models.AcoshExpression: lambda e: edge.Expression.Acosh(_expression(e.acosh)),
    models.LinDecayExpression: lambda e: _decay(edge.DecayKind.Lin, e.lin_decay),
    models.ExpDecayExpression: lambda e: _decay(edge.DecayKind.Exp, e.exp_decay),
    models.GaussDecayExpression: lambda e: _decay(edge.DecayKind.Gauss, e.gauss_decay),
}
