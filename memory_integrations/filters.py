"""Which memories a search may find, besides those of its scope: pure values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from memory_integrations.errors import FilterError
from memory_integrations.messages import with_unicode

Scalar = str | int | bool
OneOf = Scalar | Collection[Scalar]
"""A value, or several of which one is enough."""


@dataclass(frozen=True, slots=True)
class MemoryFilter:
    """Conditions that a memory must meet, all of them. What is left out is no condition.

    The scope is not among them: every search asks for its own scope, whatever the filter says. A field takes one
    value, or several of which one is enough.

    Args:
        session_id: The session in which it was said.
        role: Who said it: "user", "assistant".
        name: The speaker's or the file's name.
        kind: "message", "file" or "item" (of a ``MemoryStore``).
        metadata: What the message's own metadata says, by its keys at the top level; text, whole numbers, booleans.

    Raises:
        FilterError: A condition is empty, or no text (for metadata: no text, whole number of 64 bits or boolean).
    """

    session_id: str | Collection[str] | None = None
    role: str | Collection[str] | None = None
    name: str | Collection[str] | None = None
    kind: str | Collection[str] | None = None
    metadata: Mapping[str, OneOf] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.metadata, Mapping):
            raise FilterError(f"metadata={self.metadata!r:.80}: expected a mapping from keys to values.")
        for path, allowed in self.conditions.items():
            expected: tuple[type, ...] = (str, int) if path[0] == "extra" else (str,)
            if not allowed or not all(isinstance(value, expected) for value in allowed):
                raise FilterError(
                    f"{path[-1]}={list(allowed)!r:.80}: expected one or more of "
                    f"{' or '.join(kind.__name__ for kind in expected)}. Leave the condition out to allow anything."
                )
            if any(isinstance(one, int) and not -(2**63) <= one < 2**63 for one in allowed):
                raise FilterError(f"{path[-1]}: expected whole numbers of 64 bits. No memory has a larger one.")
            if not isinstance(path[-1], str) or not path[-1] or '"' in path[-1]:
                raise FilterError(f"metadata key {path[-1]!r}: expected text that is not empty and holds no quote.")

    @property
    def conditions(self) -> dict[tuple[str, ...], tuple[Scalar, ...]]:
        """The values that are allowed, by the path of their field in a memory's metadata."""
        found: dict[tuple[str, ...], Any] = {}
        for f in fields(self):
            if f.name != "metadata" and (value := getattr(self, f.name)) is not None:
                found[f.name,] = _several(value)
        return {**found, **{("extra", with_unicode(key)): _several(value) for key, value in self.metadata.items()}}

    def allows(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a memory whose metadata this is meets every condition."""
        return all(
            any(type(value) is type(one) and value == one for value in _values(metadata, path) for one in allowed)
            for path, allowed in self.conditions.items()
        )


def _several(value: Any) -> tuple[Any, ...]:
    """Values as memories have them: in Unicode."""
    several = value if isinstance(value, Collection) and not isinstance(value, str | Mapping) else (value,)
    return tuple(map(with_unicode, several))


def _values(metadata: Mapping[str, Any], path: tuple[str, ...]) -> list[Any]:
    """What a field says; of a list each item, as Qdrant reads it."""
    found: Any = metadata
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, list) else [found]
