"""Conditions on the fields of JSON values, as LangGraph's stores write them: pure functions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from memory_integrations.errors import FilterError


def _compared(compare: Callable[[float, float], bool]) -> Callable[[Any, Any], bool]:
    """The comparison as numbers; False where one of the two is none."""

    def compared(found: Any, bound: Any) -> bool:
        try:
            return compare(float(found), float(bound))
        except (TypeError, ValueError, OverflowError):
            return False

    return compared


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$gt": _compared(operator.gt),
    "$gte": _compared(operator.ge),
    "$lt": _compared(operator.lt),
    "$lte": _compared(operator.le),
}


def check_filter(where: Mapping[str, Any]) -> None:
    """See that a filter's operators are known.

    Raises:
        FilterError: One is not, or stands beside the name of a field.
    """
    for wanted in where.values():
        _check_operators(wanted)


def _check_operators(wanted: Any) -> None:
    if isinstance(wanted, list | tuple):
        for inner in wanted:
            _check_operators(inner)
    elif isinstance(wanted, Mapping):
        if not _has_operators(wanted):
            check_filter(wanted)
        elif unknown := [name for name in wanted if name not in _OPERATORS]:
            raise FilterError(f"filter {wanted!r:.80}: {unknown[0]!r} is none of {', '.join(_OPERATORS)}.")


def _has_operators(wanted: Mapping[Any, Any]) -> bool:
    return any(str(name).startswith("$") for name in wanted)


def meets_all(value: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether the fields of a value are what a filter says, all of them; a field that is missing is None."""
    return all(meets(value.get(name), wanted) for name, wanted in where.items())


def meets(found: Any, wanted: Any) -> bool:
    """Whether something is what a filter wants: that of LangGraph's ``InMemoryStore``.

    Args:
        found: A value, or None for a missing one.
        wanted: A value that it must equal; a list, which must meet one by one; a mapping of fields, which must meet; or
            a mapping of ``$eq``, ``$ne``, ``$gt``, ``$gte``, ``$lt``, ``$lte`` to what to compare with. The last four
            compare as numbers, text that reads as one included; what is no number is neither more nor less.
    """
    if isinstance(wanted, Mapping):
        if _has_operators(wanted):
            return all(_OPERATORS[name](found, bound) for name, bound in wanted.items())
        return isinstance(found, Mapping) and meets_all(found, wanted)
    if isinstance(wanted, list | tuple):
        return (
            isinstance(found, list | tuple)
            and len(found) == len(wanted)
            and all(meets(one, other) for one, other in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)
