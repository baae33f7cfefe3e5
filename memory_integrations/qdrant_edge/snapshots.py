"""Snapshots of a collection: one compressed archive with the shard's files and the collection's configuration.

The format is this package's own. The engine can read a server's shard snapshots but writes none.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlparse

import qdrant_edge as edge
from qdrant_client import models

from memory_integrations.errors import StoreCorruptedError, StoreUnavailableError
from memory_integrations.qdrant_edge import configs, shard
from memory_integrations.qdrant_edge.errors import unsupported
from memory_integrations.qdrant_edge.store import Indexes, Store

__all__ = ["create", "delete", "listed", "recover"]

SUFFIX = ".edge.tar.gz"
DESCRIPTION = "collection.json"
FORMAT = 1


def _directories(store: Store, name: str) -> list[Path]:
    """Where a collection's snapshots are: under the name that is asked for, and under its others.

    An alias may stand for another collection tomorrow; what was kept under it is found under it.
    """
    collection = store.collection(name)
    others = [alias for alias, target in store.aliases.items() if target == collection.name]
    # a digest: safe on every file system, the same for the same name
    return [
        store.snapshots / hashlib.sha256(each.encode()).hexdigest()
        for each in dict.fromkeys([name, collection.name, *others])
    ]


def _describe(path: Path) -> models.SnapshotDescription:
    stat = path.stat()
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    created = datetime.fromtimestamp(stat.st_mtime, UTC)
    return models.SnapshotDescription(
        name=path.name,
        creation_time=created.replace(tzinfo=None).isoformat(timespec="seconds"),
        size=stat.st_size,
        checksum=digest.hexdigest(),
    )


def listed(store: Store, name: str) -> list[models.SnapshotDescription]:
    """Return the snapshots of a collection, oldest first.

    Raises:
        ValueError: there is no such collection.
    """
    found = [path for directory in _directories(store, name) for path in directory.glob(f"*{SUFFIX}")]
    return [_describe(path) for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)]


def create(store: Store, name: str) -> models.SnapshotDescription:
    """Write a snapshot. Writes to the collection wait meanwhile; reads do not.

    Raises:
        StoreUnavailableError: the archive cannot be written.
        ValueError: there is no such collection.
    """
    collection = store.collection(name)
    moment = datetime.now(UTC).strftime("%Y-%m-%d-%H-%M-%S-%f")
    slug = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:40]
    path = _directories(store, name)[0] / f"{slug}-{moment}{SUFFIX}"
    partial = path.with_name(f"{path.name}.partial")
    try:
        store.snapshots.mkdir(mode=0o700, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with collection.writing:
            collection.flush()
            with tarfile.open(partial, "w:gz", compresslevel=1) as archive:
                described = json.dumps(
                    {
                        "format": FORMAT,
                        "config": collection.config.model_dump(mode="json", exclude_none=True),
                        "indexes": {
                            field: configs.index_to_json(schema) for field, schema in collection.indexes.items()
                        },
                    }
                ).encode()
                header = tarfile.TarInfo(DESCRIPTION)
                header.size = len(described)
                archive.addfile(header, io.BytesIO(described))
                archive.add(collection.path, "shard")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StoreUnavailableError(f"Cannot write the snapshot {path}: {error}") from error
    return _describe(path)


def delete(store: Store, collection_name: str, name: str) -> bool:
    """Delete a snapshot; tell whether it was there.

    Raises:
        ValueError: the name is no snapshot's, or there is no such collection.
    """
    if Path(name).name != name or not name.endswith(SUFFIX):
        raise ValueError(f"{name!r} is not the name of a snapshot; see list_snapshots")
    found = [path for directory in _directories(store, collection_name) if (path := directory / name).exists()]
    for path in found:
        path.unlink(missing_ok=True)
    return bool(found)


def recover(store: Store, collection_name: str, location: str, checksum: str | None) -> bool:
    """Make a collection what a snapshot holds, creating it when it is not there.

    Args:
        store: where.
        collection_name: the collection; its points and configuration are replaced.
        location: a path or a ``file:`` URL.
        checksum: the SHA-256 that the archive must have.

    Raises:
        NotImplementedError: the location is on the network.
        StoreCorruptedError: the archive is damaged or not a snapshot of this package.
        StoreUnavailableError: it cannot be read.
    """
    path = _local(location)
    try:
        if checksum is not None and _describe(path).checksum != checksum:
            raise StoreCorruptedError(f"The snapshot {path} has another checksum than {checksum}")
        with tarfile.open(path, "r:gz") as archive:
            config, indexes = _description(archive, path)
            _install(store, store.aliases.get(collection_name, collection_name), archive, config, indexes)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _no_snapshot(path, error) from error
    except OSError as error:
        raise StoreUnavailableError(f"Cannot read the snapshot {path}: {error}") from error
    return True


def _description(archive: tarfile.TarFile, path: Path) -> tuple[models.CreateCollection, Indexes]:
    """What a snapshot says of its collection."""
    try:
        described = json.load(archive.extractfile(DESCRIPTION) or io.BytesIO(b"{}"))
        if described.get("format") != FORMAT:
            raise ValueError(f"format {described.get('format')!r}, expected {FORMAT}")
        indexes = {field: configs.index_from_json(schema) for field, schema in described["indexes"].items()}
        return models.CreateCollection(**described["config"]), indexes
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_snapshot(path, error) from error


def _no_snapshot(path: Path, error: Exception) -> StoreCorruptedError:
    return StoreCorruptedError(f"{path} is not a snapshot of an embedded collection: {error}")


def _install(
    store: Store,
    name: str,
    archive: tarfile.TarFile,
    config: models.CreateCollection,
    indexes: Indexes,
) -> None:
    def fill(path: Path) -> edge.EdgeShard:
        path.mkdir(mode=0o700)
        for member in archive:
            if member.name.startswith("shard/"):
                member.name = member.name.removeprefix("shard/")
                archive.extract(member, path, filter="data")
        return shard.load(path)

    is_new = name not in store.collections
    if is_new:
        store.create(name, config)
    try:
        store.collections[name].replace(fill, config, indexes)
    except BaseException:
        if is_new:
            store.delete(name)
        raise


def _local(location: str) -> Path:
    parsed = urlparse(location)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    if parsed.scheme in ("http", "https"):
        raise unsupported("recover_snapshot from a network location")
    return Path(location)
