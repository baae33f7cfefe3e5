"""A directory of collections: its lock, its registry, and who in this process has it open.

    <path>/.lock              held while any client of one process has the directory open
    <path>/collections.json   the registry: collections, their configuration, aliases
    <path>/shards/<dir>/      one shard of the engine per collection
    <path>/snapshots/<dir>/   snapshots, one archive each

The registry is the only commit point. A shard directory counts from the moment the registry names it and
until the registry no longer does; it is replaced in one atomic rename. So a crash at any moment leaves either
the old state or the new one, plus at most a shard directory that nothing names, which the next opening
removes, provided that it finds all that are named. Rebuilding a collection (:meth:`Collection.rebuild`) is the
same step: fill a new directory, name it, remove the old one.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import qdrant_edge as edge
from qdrant_client import models

from memory_integrations.errors import StoreCorruptedError, StoreLockedError, StoreUnavailableError
from memory_integrations.forks import in_child
from memory_integrations.qdrant_edge import configs, points, shard
from memory_integrations.qdrant_edge.errors import ClosedError
from memory_integrations.qdrant_edge.lock import SERVER_HINT, DirectoryLock

__all__ = ["Collection", "Lease", "Store"]

T = TypeVar("T")
P = ParamSpec("P")
Indexes = dict[str, models.PayloadFieldSchema]

_log = logging.getLogger("memory_integrations")

FORMAT = 1
POINTS_PER_FLUSH = 16_384
"""Points written between flushes: the log beyond the last flush is replayed at the next opening, at about
25 us a point, and a flush of this many takes some 40 ms."""

_DIRECTORY = re.compile(r"[A-Za-z0-9_-]{0,40}\.[0-9a-f]{32}")
CLOSED = "This QdrantEdgeClient is closed. Create a new one; a memory that was closed meanwhile opens its own"


def directory_name(collection_name: str) -> str:
    """Return a new directory name: readable, unique by itself, and safe on every file system."""
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', collection_name)[:40]}.{uuid.uuid4().hex}"


class Collection:
    """One collection: its configuration, and the shard that is opened when it is first needed.

    Reads take no lock: they use the shard they find, and run again when a rebuild has replaced it meanwhile.
    Writes of one collection go one after another. Where both locks are taken, :attr:`writing` comes before the
    store's.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        directory: str,
        config: models.CreateCollection,
        indexes: Indexes,
        purge_due: bool = False,
    ) -> None:
        self.store = store
        self.name = name
        self.writing = threading.RLock()
        self._shard: edge.EdgeShard | None = None
        self._closed: Exception | None = None
        self._unflushed = 0
        self._removing = 0
        self.record(directory, config, indexes, purge_due)

    def record(self, directory: str, config: models.CreateCollection, indexes: Indexes, purge_due: bool) -> None:
        """Take on what the registry says, or shall say, of this collection."""
        self.directory, self.config, self.indexes, self.purge_due = directory, config, indexes, purge_due
        dense = configs.dense_vectors(config)
        self.schema: points.Schema = {**dense, **(config.sparse_vectors or {})}
        self.batch_size = shard.batch_size(sum(params.size for params in dense.values()) + 64)

    @property
    def recorded(self) -> tuple[str, models.CreateCollection, Indexes, bool]:
        """What :meth:`record` was given."""
        return self.directory, self.config, dict(self.indexes), self.purge_due

    def adopt(self, opened: edge.EdgeShard) -> None:
        """Use a shard that is open already."""
        self._shard, self._unflushed = opened, 0

    @property
    def path(self) -> Path:
        """The shard's directory."""
        return self.store.shards / self.directory

    def _open(self) -> edge.EdgeShard:
        with self.writing:
            if self._closed is not None:
                raise type(self._closed)(*self._closed.args)
            if self._shard is None:
                opened = shard.load(self.path)
                self._reconcile(opened)
                self._shard = opened
                self._finish_removing()
            return self._shard

    def _reconcile(self, opened: edge.EdgeShard) -> None:
        """Bring the shard to what the registry says, where a crash fell between the two."""
        try:
            present = opened.info().payload_schema
            for field in present.keys() - self.indexes.keys():
                opened.update(edge.UpdateOperation.delete_field_index(field))
            for field in self.indexes.keys() - present.keys():
                opened.update(configs.create_index(field, self.indexes[field]))
        except shard.failures() as error:
            raise shard.translate(error, self.path, "restore the payload indexes") from error

    def read(self, call: Callable[Concatenate[edge.EdgeShard, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a reading call on the shard; see the class docstring."""
        while True:
            current = self._shard or self._open()
            try:
                return call(current, *args, **kwargs)
            except shard.failures() as error:
                if current is self._shard:
                    raise shard.translate(error, self.path, "read") from error
                # a rebuild closed the shard under this call: its successor holds the same points

    def vector_of(self, point_id: Any, vector_name: str, lookup_from: models.LookupLocation | None) -> Any:
        """Return a stored vector, from another collection when the lookup names one.

        Raises:
            ValueError: the collection, the vector's name or the point is not there, or the point has no such
                vector.
        """
        if lookup_from is not None:
            collection = self.store.collection(lookup_from.collection)
            vector_name = vector_name if lookup_from.vector is None else lookup_from.vector
            return collection.vector_of(point_id, vector_name, None)
        if vector_name not in self.schema:
            raise ValueError(f"Vector {vector_name} not found")
        engine_id = points.edge_point_id(point_id)
        found = self.read(edge.EdgeShard.retrieve, [engine_id], False, [vector_name])
        if not found:
            raise ValueError(f"Point {point_id} is not found in the collection")
        vector: Any = found[0].vector
        if isinstance(vector, dict):
            vector = vector.get(vector_name)
        if vector is None:
            raise ValueError(f"Vector with name {vector_name} for point {point_id} not found")
        return vector

    def write(self, operation: edge.UpdateOperation, weight: int = 1) -> None:
        """Apply one operation; once this returns it survives the death of the process.

        Args:
            operation: what to do.
            weight: how many points it writes, which decides when the next flush is due.
        """
        with self.writing:
            current = self._shard or self._open()
            shard.expect_room(self.path, "write")
            try:
                current.update(operation)
                self._unflushed += weight
                if self._unflushed >= POINTS_PER_FLUSH:
                    current.flush()
                    self._unflushed = 0
            except shard.failures() as error:
                raise shard.translate(error, self.path, "write") from error

    @contextmanager
    def working(self, action: str) -> Iterator[edge.EdgeShard]:
        """Lend the open shard, with writes held off, for ``action``."""
        with self.writing:
            current = self._shard or self._open()
            shard.expect_room(self.path, action)
            try:
                yield current
            except shard.failures() as error:
                raise shard.translate(error, self.path, action) from error

    def flush(self) -> None:
        """Write everything to the segments, so that opening replays nothing."""
        with self.working("flush") as current:
            current.flush()
            self._unflushed = 0

    def replace(
        self,
        fill: Callable[[Path], edge.EdgeShard],
        config: models.CreateCollection | None = None,
        indexes: Indexes | None = None,
    ) -> None:
        """Put another shard in this one's place: fill a new directory, name it, remove the old one.

        Args:
            fill: given the new directory's path, puts the shard there and returns it open.
            config: what the new shard is made of, where it differs from the old one.
            indexes: its payload indexes, where they differ.
        """
        with self.writing:
            old = self._shard
            directory = directory_name(self.name)
            path = self.store.shards / directory
            successor: edge.EdgeShard | None = None
            in_use = {directory, self.directory}
            self.store.filling |= in_use
            try:
                successor = fill(path)
                successor.flush()
                with self.store.lock:
                    with self.store.committing():
                        self.record(
                            directory,
                            self.config if config is None else config,
                            self.indexes if indexes is None else indexes,
                            self._removing > 0,
                        )
                    self.adopt(successor)
                if old is not None:  # without the store's lock, which a thread inside a call of it may wait for
                    shard.close(old)
            except BaseException as error:
                if successor is not None and successor is not self._shard:
                    shard.close(successor)
                if isinstance(error, shard.failures()):
                    raise shard.translate(error, path, "write the new shard") from error
                raise
            finally:
                self.store.filling -= in_use
                self.store.clean()

    def reload(self) -> None:
        """Open the shard anew with the configuration as it is now.

        Raises:
            ValueError: the engine refuses the configuration; the shard stays as it was.
        """
        with self.working("change the configuration") as current:
            self._shard = None
            current.flush()
            shard.close(current)
            config = configs.edge_config(self.config, logged=not self.store.temporary)
            self.adopt(edge.EdgeShard.load(str(self.path), config))

    def rebuild(self, progress: Callable[[int], None] | None = None) -> int:
        """Write the live points into a new shard and remove the old one; see ``QdrantEdgeClient.purge``.

        Returns:
            How many points the new shard holds.
        """
        with self.writing:
            source = self._shard or self._open()
            copied = 0

            def fill(path: Path) -> edge.EdgeShard:
                nonlocal copied
                target = self.store.create_shard(path, self.config, self.indexes)
                try:
                    copied = shard.copy_points(source, target, path, self.batch_size, progress)
                except BaseException:
                    target.close()
                    raise
                return target

            self.replace(fill)
            return copied

    @contextmanager
    def removing(self) -> Iterator[None]:
        """What the body deletes is physically gone afterwards; see ``QdrantEdgeClient.purging``."""
        with self.writing:
            self._removing += 1
            if not self.purge_due:
                with self.store.committing():
                    self.purge_due = True
        try:
            yield
        finally:
            with self.writing:
                self._removing -= 1
        self.rebuild()

    def _finish_removing(self) -> None:
        """Do what a process that died left to be done; where it cannot be done now, it stays due."""
        if self.purge_due:
            try:
                self.rebuild()
            except StoreUnavailableError as error:
                _log.warning("a deletion from %s is not finished, and waits for the next opening: %s", self.name, error)

    def close(self, reason: Exception) -> None:
        """Flush and close the shard; calls that come later raise what they are given here."""
        with self.writing:
            self._closed = reason
            current, self._shard = self._shard, None
            if current is None:
                return
            try:
                # Without room the log keeps it for the next opening; without the directory there is nothing to keep.
                if self.path.is_dir() and shard.has_room(self.path, shard.SPARE_TO_OPEN):
                    current.flush()
                shard.close(current)
            except shard.failures() as error:
                raise shard.translate(error, self.path, "flush") from error

    def abandon(self) -> None:
        """Let go of a shard that belongs to the process this one was forked from.

        Its destructor must never run here: it would write to files and wait for threads that are the
        parent's. One reference is given away for good.
        """
        if self._shard is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._shard))
            self._shard = None


class Store:
    """An open directory. One per resolved path and process, shared by every client that opens it."""

    def __init__(self, path: Path, temporary: bool = False) -> None:
        self.path = path
        self.temporary = temporary
        self.shards = path / "shards"
        self.snapshots = path / "snapshots"
        self.registry = path / "collections.json"
        self.lock = threading.RLock()
        self.leases: set[Lease] = set()
        self.filling: set[str] = set()
        """Directories of shards that are being written and will be named, or were named and are being closed."""
        self.strangers: set[str] = set()
        """Directories that nothing named when one that is named was missing: they may be all that there is of it."""
        self.closed = False
        self._unsure = False
        self.collections: dict[str, Collection] = {}
        self.aliases: dict[str, str] = {}
        try:
            for directory in (path.parent, path, self.shards):  # parents=True would give the default mode
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailableError(f"Cannot create the store directory {path}: {error}") from error
        self._lock = DirectoryLock(path)
        try:
            self._load()
            if not all(shard.is_there(collection.path) for collection in self.collections.values()):
                self.strangers = {path.name for path in self.shards.iterdir()} - self._named()
            self.clean()
            for path in (*self.path.glob("collections.json.*.tmp"), *self.snapshots.glob("*/*.partial")):
                path.unlink(missing_ok=True)
        except BaseException:
            self._lock.release()
            raise

    def _load(self) -> None:
        try:
            data = self.registry.read_bytes()
        except FileNotFoundError:
            if any(self.shards.iterdir()):
                raise StoreCorruptedError(
                    f"{self.registry} is missing while {self.shards} holds collections. Restore the file; or move "
                    "the directory away, to begin anew with what a backup has"
                ) from None
            if (self.path / "meta.json").exists() and (self.path / "collection").is_dir():
                raise StoreCorruptedError(
                    f"{self.path} holds collections of qdrant_client's local mode. Copy them into a new directory: "
                    f"QdrantClient(path={str(self.path)!r}).migrate(QdrantEdgeClient(...))"
                ) from None
            self._write()
            return
        except OSError as error:
            raise StoreUnavailableError(f"Cannot read {self.registry}: {error}") from error
        try:
            content = json.loads(data)
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']!r}, expected {FORMAT}")
            self.aliases = dict(content["aliases"])
            for name, entry in content["collections"].items():
                directory = entry["directory"]
                if not _DIRECTORY.fullmatch(directory):
                    raise ValueError(f"directory {directory!r} of collection {name!r}")
                indexes = {field: configs.index_from_json(schema) for field, schema in entry["indexes"].items()}
                config = models.CreateCollection(**entry["config"])
                due = bool(entry.get("purge"))
                self.collections[name] = Collection(self, name, directory, config, indexes, due)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreCorruptedError(
                f"{self.registry} is not a registry of collections ({error}). Restore it; or move {self.path} away, "
                "to begin anew with what a backup has"
            ) from error

    def _named(self) -> set[str]:
        return {collection.directory for collection in self.collections.values()}

    def clean(self) -> None:
        """Remove what nothing names: replaced and deleted shards, and what was interrupted.

        What was there when a shard that is named was missing stays until an opening finds all of them.

        Raises:
            StoreUnavailableError: something could not be deleted.
        """
        with self.lock:
            if self._unsure:
                return  # the registry on disk may name what memory does not
            kept = self._named() | self.filling | self.strangers
            for path in self.shards.iterdir():
                if path.name not in kept and _DIRECTORY.fullmatch(path.name):
                    shard.remove(path)

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Record what the body changes, in one step on disk. When that fails, nothing has changed.

        Raises:
            ClosedError: the store is closed.
            StoreUnavailableError: the registry cannot be written.
        """
        with self.lock:
            if self.closed:
                raise ClosedError(CLOSED)
            collections, aliases = dict(self.collections), dict(self.aliases)
            recorded = {name: collection.recorded for name, collection in collections.items()}
            writing = False
            try:
                yield
                writing = True
                self._write()
            except BaseException:
                self.collections, self.aliases = collections, aliases
                for name, collection in collections.items():
                    collection.record(*recorded[name])
                if writing:  # and the failed attempt may have reached the disk all the same
                    self._unsure = True
                    self._write()
                raise

    def _write(self) -> None:
        content = {
            "format": FORMAT,
            "collections": {
                collection.name: {
                    "directory": collection.directory,
                    "config": collection.config.model_dump(mode="json", exclude_none=True),
                    "indexes": {field: configs.index_to_json(schema) for field, schema in collection.indexes.items()},
                    **({"purge": True} if collection.purge_due else {}),
                }
                for collection in self.collections.values()
            },
            "aliases": self.aliases,
        }
        data = json.dumps(content, ensure_ascii=False).encode()
        temporary = self.path / f"collections.json.{uuid.uuid4().hex}.tmp"
        try:
            with open(temporary, "wb", opener=_private) as handle:
                handle.write(data)
                if not self.temporary:
                    handle.flush()
                    os.fsync(handle.fileno())
            os.replace(temporary, self.registry)
            if not self.temporary:
                shard.sync_directory(self.path)
        except OSError as error:
            raise StoreUnavailableError(f"Cannot write {self.registry}: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)
        self._unsure = False

    def create_shard(
        self,
        path: Path,
        config: models.CreateCollection,
        indexes: Indexes,
    ) -> edge.EdgeShard:
        """Create an empty shard with the payload indexes of a collection."""
        created = shard.create(path, configs.edge_config(config, logged=not self.temporary))
        try:
            for field, schema in indexes.items():
                created.update(configs.create_index(field, schema))
        except Exception as error:
            created.close()
            shard.remove(path)
            raise shard.translate(error, path, "create a payload index") from error
        return created

    def collection(self, name: str) -> Collection:
        """Return a collection by its name or an alias.

        Raises:
            ValueError: there is none.
        """
        found = self.collections.get(name)
        if found is None:
            found = self.collections.get(self.aliases.get(name, ""))
            if found is None:
                raise ValueError(f"Collection {name} not found")
        return found

    def create(self, name: str, config: models.CreateCollection) -> None:
        """Create a collection.

        Raises:
            ValueError: a collection or an alias of that name exists, or the engine refuses the configuration.
        """
        with self.lock:
            if name in self.collections:
                raise ValueError(f"Collection {name} already exists")
            if name in self.aliases:
                raise ValueError(f"Alias {name} already exists")
            collection = Collection(self, name, directory_name(name), config, {})
            created = self.create_shard(collection.path, config, {})
            collection.adopt(created)
            try:
                with self.committing():
                    self.collections[name] = collection
            except BaseException:
                created.close()
                self.clean()
                raise

    def delete(self, name: str) -> bool:
        """Delete a collection with its files and aliases; tell whether there was one."""
        collection = self.collections.get(name)
        if collection is None:
            return False
        with collection.writing, self.lock:
            if self.collections.get(name) is not collection:
                return False
            with self.committing():
                del self.collections[name]
                self.aliases = {alias: target for alias, target in self.aliases.items() if target != name}
            collection.close(ValueError(f"Collection {name} not found"))
            self.clean()
            return True

    @contextmanager
    def changing(self, collection: Collection) -> Iterator[None]:
        """Hold a collection while its recorded configuration changes; see :meth:`committing`."""
        with collection.writing:
            collection.read(edge.EdgeShard.info)  # what a death left undone is done now: it names other files
            with self.committing():
                yield

    def close(self) -> None:
        """Flush and close every collection and give up the lock."""
        with self.lock:
            self.closed = True
            collections = list(self.collections.values())
        failures: list[Exception] = []
        for collection in collections:
            try:
                collection.close(ClosedError(CLOSED))
            except Exception as error:  # the others must be flushed all the same; raised below
                failures.append(error)
        self._lock.release()
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        elif failures:
            raise failures[0]

    def abandon(self) -> None:
        """Let go of everything in a forked child; see :meth:`Collection.abandon`."""
        self.closed = True
        for collection in self.collections.values():
            collection.abandon()
        for lease in self.leases:
            lease.store, lease.forked = None, True
        self._lock.abandon()


class Lease:
    """One client's share in a store, taken at its first call and given back when it closes.

    Args:
        path: the directory, or None for a temporary one.
        beside: another lease, whose temporary directory this one shares.
    """

    def __init__(self, path: Path | None, beside: Lease | None = None) -> None:
        self.path = path
        self.beside = beside
        self.store: Store | None = None
        self.closed = False
        self.forked = False

    def open(self) -> Store:
        """Return the store, opening it when no client of this process has.

        Raises:
            ClosedError: this lease was given back.
            StoreLockedError: another process holds the directory, or this process was forked from the one
                that opened it.
        """
        with _guard:
            if self.closed:
                raise ClosedError(CLOSED)
            if self.forked:
                raise StoreLockedError(
                    f"{self.path or 'This in-memory store'} was opened before this process was forked and belongs "
                    f"to the parent process. Open it in one process only, or {SERVER_HINT}"
                )
            if self.store is None:
                if self.beside is not None:
                    self.store = self.beside.open()
                elif self.path is None:
                    self.store = Store(Path(tempfile.mkdtemp(prefix="qdrant-edge-")), temporary=True)
                    _stores[str(self.store.path)] = self.store
                else:
                    key = os.path.realpath(self.path)
                    found = _stores.get(key)
                    if found is None:
                        found = _stores[key] = Store(Path(key))
                    self.store = found
                self.store.leases.add(self)
            return self.store

    def release(self) -> None:
        """Give the share back; the last one flushes and closes the store."""
        with _guard:
            store, self.store, self.closed = self.store, None, True
            if store is None:
                return
            store.leases.discard(self)
            if store.leases:
                return
            _stores.pop(str(store.path), None)
            store.close()


_guard = threading.RLock()
_stores: dict[str, Store] = {}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _forget_parent() -> None:
    global _guard
    _guard = threading.RLock()  # another thread of the parent may have held it
    for store in _stores.values():
        store.abandon()
    _stores.clear()


in_child(_forget_parent)
