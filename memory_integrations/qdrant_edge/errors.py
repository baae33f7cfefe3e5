"""What this package raises where the embedded engine has no answer."""

from __future__ import annotations

from memory_integrations.errors import StoreUnavailableError

__all__ = ["ClosedError", "InferenceRequired", "unsupported"]


class InferenceRequired(NotImplementedError):
    """A document or an image was given where only a vector can be used."""


class ClosedError(StoreUnavailableError, RuntimeError):
    """A client was closed: a RuntimeError, as qdrant_client raises, which a memory hands on as an error of a store."""


def unsupported(call: str) -> NotImplementedError:
    """Return the error for a call that only a server can answer."""
    return NotImplementedError(
        f"{call} is not served by the embedded engine: use a Qdrant server (QdrantClient(url=...))"
    )
