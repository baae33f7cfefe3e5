"""The values of facts, as they are typed and shown: JSON, but text without quotes where that is no JSON itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.text import Text

from memory_integrations.cli.show import plain
from memory_integrations.messages import as_unicode

if TYPE_CHECKING:
    from memory_integrations.features import Json


def typed_value(text: str) -> Json:
    """The value that the text is as JSON, else the text; NaN and Infinity are no JSON."""
    try:
        value: Json = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return as_unicode(text)
    return value


def shown_value(value: Any) -> Text:
    """The value, as :func:`typed_value` reads it."""
    if isinstance(value, str) and value.isprintable() and typed_value(value) == value:
        return Text(value)
    return plain(json.dumps(value, ensure_ascii=False))


def _no_constant(name: str) -> Any:
    raise ValueError(name)
