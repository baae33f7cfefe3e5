"""The embedded engine behind qdrant_client's own class, synchronous and asynchronous."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from qdrant_client import QdrantClient, models
from qdrant_client.embed.type_inspector import Inspector
from qdrant_client.qdrant_fastembed import QdrantFastembedMixin

from memory_integrations.qdrant_edge.backend import EdgeBackend
from memory_integrations.qdrant_edge.errors import InferenceRequired

if TYPE_CHECKING:
    from memory_integrations.qdrant_edge.aclient import AsyncQdrantEdgeClient

__all__ = ["QdrantEdgeClient"]

IN_MEMORY = ":memory:"


Method = TypeVar("Method", bound=Callable[..., Any])


def _direct(ordinary: Method) -> Method:
    """Return a method that asks the backend first, and goes the ordinary way only when there is text to embed."""
    backend_method: Any = getattr(EdgeBackend, ordinary.__name__)

    @functools.wraps(ordinary)
    def call(self: QdrantEdgeClient, *args: Any, **kwargs: Any) -> Any:
        try:
            return backend_method(self._client, *args, **kwargs)
        except InferenceRequired:
            if not self._FASTEMBED_INSTALLED:
                raise
        return ordinary(self, *args, **kwargs)

    return cast(Method, call)


class QdrantEdgeClient(QdrantClient):
    """A ``QdrantClient`` over Qdrant's own engine inside this process, with its data in a directory.

    Whatever takes a ``QdrantClient`` takes this one. Moving to a server is another constructor:
    ``QdrantClient(url=...)``.

    The directory is opened at the first call, not here, and belongs to one process at a time. Clients of one
    process on one directory share one engine, which closes with the last of them. All methods may be called
    from any thread. Once a write returns, it survives the death of the process.

    The engine holds Python's interpreter lock for the whole of each call, so long jobs are cut into short
    calls. The exception is :meth:`optimize`.

    Deleting hides points; their bytes stay in the files until :meth:`purge`.

    Args:
        path: the directory, made when it is not there. None or ``":memory:"`` is for tests: a private temporary
            directory without a log, deleted when the client closes. It is on disk, not in memory.

    Example:
        >>> client = QdrantEdgeClient("data/vectors")
        >>> client.create_collection("notes", models.VectorParams(size=3, distance=models.Distance.COSINE))
        True
        >>> client.upsert("notes", [models.PointStruct(id=1, vector=[0.1, 0.9, 0.3], payload={"user": "a"})])
        >>> client.query_points("notes", [0.1, 0.8, 0.2], limit=1).points[0].id
        1
        >>> client.close()
    """

    _client: EdgeBackend

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        directory = None if path is None or os.fspath(path) == IN_MEMORY else Path(path).expanduser().absolute()
        self._init_options = {"path": path}
        self._client = EdgeBackend(directory)
        self._path = directory
        self.cloud_inference = False
        self.local_inference_batch_size = None
        self._inference_inspector = Inspector()
        # past QdrantClient's own constructor, which knows only its own two backends
        QdrantFastembedMixin.__init__(self, parser=self._inference_inspector.parser, is_local_mode=True)

    def __del__(self) -> None:
        """Do nothing: the backend's finaliser flushes and closes, at the latest when the interpreter ends."""

    def __enter__(self) -> QdrantEdgeClient:
        """Return the client itself."""
        return self

    def __exit__(self, *args: object) -> None:
        """Close the client."""
        self.close()

    @property
    def path(self) -> Path | None:
        """The directory, or None for the temporary one of a client for tests."""
        return self._path

    # These are called for every search and message. They go to the backend directly, past the inspection that
    # looks for documents to embed in everything they carry; where one turns up, the ordinary way is taken.
    query_points = _direct(QdrantClient.query_points)
    query_batch_points = _direct(QdrantClient.query_batch_points)
    upsert = _direct(QdrantClient.upsert)

    def query_scores(self, collection_name: str, requests: Sequence[models.QueryRequest]) -> list[dict[int, float]]:
        """Search several times and give only scores: a model for each of hundreds of points costs more than the search.

        Args:
            collection_name: the collection.
            requests: plain searches by a vector: neither an order nor a sample.

        Returns:
            For each request its scores by point, best first. A point is the number that its id is, or its UUID's.

        Raises:
            ValueError: there is no such collection.
        """
        return self._client.query_scores(collection_name, requests)

    def optimize(self, collection_name: str) -> bool:
        """Build the search graphs of a collection and merge its segments. Never done unasked.

        Worth it for large collections that are searched without a selective filter: 2.5 ms a search at 100,000
        points of 384 dimensions become 1.2 ms. It is one call of the engine, and the engine holds Python's
        interpreter lock meanwhile: every thread of this process stands still, for some 4 s at 112,000 points and
        for 30 s and more when the graph is built for the first time at 100,000. Run it from a process of its
        own, or when nobody waits. A graph finds nearly all of the best points, where a scan finds all.

        Returns:
            Whether there was anything to do.

        Raises:
            ValueError: there is no such collection.
        """
        return self._client.optimize(collection_name)

    def purge(self, collection_name: str, progress: Callable[[int], None] | None = None) -> int:
        """Make deleted and replaced data physically gone.

        Deleting hides points, and changing a payload leaves the old one behind, in the segments and in the log.
        This writes the live points into new files in short calls, puts those in the old ones' place in one
        atomic step, and removes the old ones. Searches go on meanwhile; writes to the collection wait, about
        50 us a point. A crash at any moment leaves either the old files in use or the new ones, and the next
        opening removes the others. Graphs that :meth:`optimize` built are gone afterwards.

        Snapshots are files that you made, and are kept: delete those that hold what must go.

        Args:
            collection_name: the collection.
            progress: called after each batch with how many points are written so far.

        Returns:
            How many points the collection holds.

        Raises:
            ValueError: there is no such collection.
            StoreUnavailableError: the new files cannot be written; the old ones stay in use.
        """
        return self._client.purge(collection_name, progress)

    def purging(self, collection_name: str) -> AbstractContextManager[None]:
        """Purge after the body, whatever happens.

        That it is due is written down before the body begins. Where the process dies in between, or the new files
        cannot be written, the next opening of the collection does it.

        Args:
            collection_name: the collection.

        Raises:
            ValueError: there is no such collection.
            StoreUnavailableError: the new files cannot be written; it stays due.
        """
        return self._client.purging(collection_name)

    def purge_is_due(self, collection_name: str) -> bool:
        """Whether a purge that was begun with :meth:`purging` is still to be done."""
        return self._client.purge_is_due(collection_name)

    def flush(self, collection_name: str | None = None) -> None:
        """Write everything from the log into the segments, so that the next opening has nothing to replay.

        Not needed for safety: a write survives the death of the process without it. Closing flushes too.

        Args:
            collection_name: the collection, or None for all.
        """
        self._client.flush(collection_name)

    def as_async(self) -> AsyncQdrantEdgeClient:
        """Return an ``AsyncQdrantClient`` on the same open engine.

        Calls run in threads, so the event loop is free between the engine's short calls. Closing either client
        leaves the other one usable.
        """
        from memory_integrations.qdrant_edge.aclient import AsyncQdrantEdgeClient

        return AsyncQdrantEdgeClient(self._path, _share=self._client)
