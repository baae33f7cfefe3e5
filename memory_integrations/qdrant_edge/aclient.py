"""``AsyncQdrantClient``'s shape over the same embedded engine."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.async_client_base import AsyncQdrantBase
from qdrant_client.async_qdrant_fastembed import AsyncQdrantFastembedMixin
from qdrant_client.embed.type_inspector import Inspector

from memory_integrations.qdrant_edge.backend import EdgeBackend

__all__ = ["AsyncEdgeBackend", "AsyncQdrantEdgeClient"]

IN_MEMORY = ":memory:"


class AsyncEdgeBackend(AsyncQdrantBase):
    """Runs every call of an :class:`EdgeBackend` in a thread."""

    def __init__(self, backend: EdgeBackend) -> None:
        super().__init__()
        self.sync = backend


def _threaded(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    method: Any = getattr(EdgeBackend, name)

    async def call(self: AsyncEdgeBackend, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(method, self.sync, *args, **kwargs)

    call.__name__, call.__doc__ = name, method.__doc__
    return call


def _plain(name: str) -> Callable[..., Any]:
    method: Any = getattr(EdgeBackend, name)

    def call(self: AsyncEdgeBackend, *args: Any, **kwargs: Any) -> Any:
        return method(self.sync, *args, **kwargs)

    call.__name__, call.__doc__ = name, method.__doc__
    return call


for _name, _method in inspect.getmembers(AsyncQdrantBase, inspect.isfunction):
    if not _name.startswith("_") and hasattr(EdgeBackend, _name):
        # qdrant_client's asynchronous uploads are plain functions, here as there
        setattr(AsyncEdgeBackend, _name, (_threaded if inspect.iscoroutinefunction(_method) else _plain)(_name))


class AsyncQdrantEdgeClient(AsyncQdrantClient):
    """An ``AsyncQdrantClient`` over Qdrant's own engine inside this process.

    Calls run in threads: the event loop is held no longer than one short call of the engine. See
    :class:`~memory_integrations.qdrant_edge.QdrantEdgeClient`, whose :meth:`as_async` makes one on the same
    open engine.

    Args:
        path: the directory; None or ``":memory:"`` is a temporary one for tests.
    """

    _client: AsyncEdgeBackend

    def __init__(self, path: str | os.PathLike[str] | None = None, *, _share: EdgeBackend | None = None) -> None:
        directory = None if path is None or os.fspath(path) == IN_MEMORY else Path(path).expanduser().absolute()
        self._init_options = {"path": path}
        self._client = AsyncEdgeBackend(EdgeBackend(directory, beside=_share))
        self._path = directory
        self.cloud_inference = False
        self.local_inference_batch_size = None
        self._inference_inspector = Inspector()
        # past AsyncQdrantClient's own constructor, which knows only its own two backends
        AsyncQdrantFastembedMixin.__init__(self, parser=self._inference_inspector.parser, is_local_mode=True)

    async def __aenter__(self) -> AsyncQdrantEdgeClient:
        """Return the client itself."""
        return self

    async def __aexit__(self, *args: object) -> None:
        """Close the client."""
        await self.close()

    @property
    def path(self) -> Path | None:
        """The directory, or None for a temporary one."""
        return self._path

    async def query_scores(
        self, collection_name: str, requests: Sequence[models.QueryRequest]
    ) -> list[dict[int, float]]:
        """See ``QdrantEdgeClient.query_scores``."""
        return await asyncio.to_thread(self._client.sync.query_scores, collection_name, requests)

    async def optimize(self, collection_name: str) -> bool:
        """See ``QdrantEdgeClient.optimize``: it stops every thread, so it stops the event loop too."""
        return await asyncio.to_thread(self._client.sync.optimize, collection_name)

    async def purge(self, collection_name: str, progress: Callable[[int], None] | None = None) -> int:
        """See ``QdrantEdgeClient.purge``; ``progress`` is called in another thread."""
        return await asyncio.to_thread(self._client.sync.purge, collection_name, progress)

    async def flush(self, collection_name: str | None = None) -> None:
        """See ``QdrantEdgeClient.flush``."""
        await asyncio.to_thread(self._client.sync.flush, collection_name)
