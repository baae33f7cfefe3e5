"""What this package raises where the embedded engine has no answer."""

from __future__ import annotations

__all__ = ["InferenceRequired", "unsupported"]


class InferenceRequired(NotImplementedError):
    """A document or an image was given where only a vector can be used."""


def unsupported(call: str) -> NotImplementedError:
    """Return the error for a call that only a server can answer."""
    return NotImplementedError(
        f"{call} is not served by the embedded engine: use a Qdrant server (QdrantClient(url=...))"
    )
