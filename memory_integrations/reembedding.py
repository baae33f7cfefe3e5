"""Moving a collection to another embedding or language, so that an interruption at any moment loses nothing.

The new vectors are written into a second collection, which then takes the place of the first: its name becomes an
alias of the second, and the first is dropped. Nothing is copied back, and no collection's name is used twice. How far
a second one is shows in its alias, which is renamed in one step, by one process alone:

    NAME.ID.WRITER  it is being filled through this alias: a writer who lost it writes nothing more
    NAME.ready      it has everything; whoever comes next puts it in the place of the first
    NAME            it is the collection
    none of these   it never will be again: it may be dropped at any time
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from memory_integrations.copying import Progress, copy_points, index_alike, settings_of
from memory_integrations.errors import StoreUnavailableError
from memory_integrations.layout import DENSE, SPARSE
from memory_integrations.server import refusals

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models

_PASSES = 3
"""So often what was stored meanwhile is looked for, before it is said that somebody writes all the time."""


def reembed(
    client: QdrantClient,
    name: str,
    place: str,
    identity: Mapping[str, Any],
    encode: Callable[[list[Any]], list[Any]],
    progress: Progress | None = None,
) -> int:
    """Write every point of a collection anew.

    Args:
        client: The client.
        name: The collection's name.
        place: What :func:`finish` gave for it.
        identity: What the collection then says of its vectors; a second one that says otherwise is dropped.
        encode: The points with their new vectors.
        progress: Told how far it is.

    Returns:
        How many points there are.

    Raises:
        StoreUnavailableError: Memories were stored or deleted meanwhile, or another process did the same.
    """
    writer = _begin(client, name, place, identity)
    with _having(client, place, writer):
        count = _fill(client, name, place, writer, encode, progress)
        _rename(client, writer, _ready(name))
    now = finish(client, name)
    if now != _second_of(writer):
        raise _given_up()
    abandon(client, name, now)
    return count


def finish(client: QdrantClient, name: str) -> str | None:
    """Put a second collection that has everything in the place of the first; any number of processes may do so at once.

    Returns:
        The collection that the name stands for; None where there is none.
    """
    exists = client.collection_exists(name)  # asked first: between first and second there is none, but an alias
    aliases = _aliases(client)
    if _ready(name) in aliases:
        first, second = aliases.get(name, name), aliases[_ready(name)]
        if _has_more(client, first, second):  # it was written to since: there it is, and nowhere else
            _drop_aliases(client, [_ready(name)])
            return finish(client, name)
        _point(client, [alias for alias, known in aliases.items() if known == first and alias != name], second)
        if first == name:
            client.delete_collection(name)  # which does nothing where the name has become an alias
        _rename(client, _ready(name), name)
        return finish(client, name)
    return aliases.get(name, name if exists else None)


def _has_more(client: QdrantClient, first: str, second: str) -> bool:
    """Whether a collection that is still there has more points than the one that is to take its place."""
    absent: tuple[type[Exception], ...] = (ValueError, *refusals())  # the embedded engine's, and a server's
    try:
        return client.count(first, exact=True).count > client.count(second, exact=True).count
    except absent:
        if client.collection_exists(first) and client.collection_exists(second):
            raise
        return False  # another process was quicker


def abandon(client: QdrantClient, name: str, place: str) -> str | None:
    """Drop every second collection that is no use: what is deleted from the first may be in it, and must be gone.

    Called after a deletion, it may be believed: what is begun later reads what is left.

    Args:
        client: The client.
        name: The collection's name.
        place: What :func:`finish` gave for it.

    Returns:
        What it gives now.
    """
    while others := _others(client, name, place):
        aliases = _aliases(client)
        written = [alias for alias, second in aliases.items() if second in others and _second_of(alias) == second]
        if not written:
            for second in others.difference(aliases.get(alias) or "" for alias in (name, _ready(name))):
                client.delete_collection(second)
            return finish(client, name)
        _drop_aliases(client, written)  # and look again: one may have been ready by then
    return place


def is_unfinished(client: QdrantClient, name: str) -> bool:
    """Whether a move was interrupted, which :func:`reembed` goes on with or clears away."""
    return bool(_others(client, name, _aliases(client).get(name, name)))


def _begin(client: QdrantClient, name: str, place: str, identity: Mapping[str, Any]) -> str:
    """The alias to write through, of a second collection that is taken over or created."""
    id_ = uuid4().hex
    others = _others(client, name, place)
    for alias, second in _aliases(client).items():
        if second in others and _second_of(alias) == second:
            with _having(client, second):
                begun = client.get_collection(second).config.metadata or {}
            if all(begun.get(key) == value for key, value in identity.items()):
                _rename(client, alias, f"{second}.{id_}")
                return f"{second}.{id_}"
    abandon(client, name, place)
    second = f"{name}.{id_}"
    with _having(client, place):
        first = client.get_collection(place)
    _create_second(client, first, second, identity)
    with _having(client, second):
        index_alike(first, client, second)
        _point(client, [f"{second}.{id_}"], second)
    return f"{second}.{id_}"


def _create_second(
    client: QdrantClient, first: models.CollectionInfo, second: str, identity: Mapping[str, Any]
) -> None:
    """Create a collection as the first is, with all that an operator set, but for the size of its dense vectors."""
    from qdrant_client import models

    vectors = first.config.params.vectors
    named: dict[str, Any] = dict(vectors) if isinstance(vectors, dict) else {DENSE: vectors}
    dense = named.get(DENSE) or models.VectorParams(size=1, distance=models.Distance.COSINE)
    named[DENSE] = dense = dense.model_copy(update={"size": identity["embedding_size"]})
    sparse = first.config.params.sparse_vectors or {}
    terms = (sparse.get(SPARSE) or models.SparseVectorParams()).model_copy(update={"modifier": models.Modifier.IDF})
    try:
        client.create_collection(
            second,
            vectors_config=named if isinstance(vectors, dict) else dense,
            sparse_vectors_config={**sparse, SPARSE: terms},
            metadata={**(first.config.metadata or {}), **identity},
            **settings_of(first.config, spread=True),
        )
    except Exception:
        if not client.collection_exists(second):  # else it was asked for twice, since an answer was lost
            raise


def _fill(
    client: QdrantClient,
    name: str,
    place: str,
    writer: str,
    encode: Callable[[list[Any]], list[Any]],
    progress: Progress | None,
) -> int:
    for _ in range(_PASSES):
        copy_points(client, place, client, writer, encode, progress)
        count, copied = (client.count(one, exact=True).count for one in (place, writer))
        if copied == count:
            return count
        if copied > count:  # by another program: a deletion of ours takes all of it
            abandon(client, name, place)
            raise _given_up()
    raise StoreUnavailableError(
        "Memories are stored all the time while all of them are embedded anew. Nothing is lost, and what was embedded "
        "stays: stop what writes, then call it again to go on."
    )


@contextmanager
def _having(client: QdrantClient, *names: str) -> Iterator[None]:
    """What fails because another process has dropped one of these, as an error that says so."""
    try:
        yield
    except Exception as error:
        if all(client.collection_exists(name) for name in names):
            raise
        raise _given_up() from error


def _given_up() -> StoreUnavailableError:
    return StoreUnavailableError(
        "Embedding all memories anew was given up: memories were deleted meanwhile, which must not come back, or "
        "another process began to do the same. Nothing is lost. Call it again, where no other process does so."
    )


def _aliases(client: QdrantClient) -> dict[str, str]:
    """All aliases, with the collections that they stand for."""
    while True:
        found = client.get_aliases().aliases
        aliases = {one.alias_name: one.collection_name for one in found}
        if len(aliases) == len(found):  # a server lists collection by collection, and one may move from this to that
            return aliases


def _rename(client: QdrantClient, old: str, new: str) -> None:
    """Rename an alias. One that is gone was renamed or dropped by another process, or by this one: answers get lost."""
    from qdrant_client import models

    renamed = models.RenameAlias(old_alias_name=old, new_alias_name=new)
    try:
        client.update_collection_aliases([models.RenameAliasOperation(rename_alias=renamed)])
    except Exception:
        if old in _aliases(client):
            raise


def _point(client: QdrantClient, aliases: list[str], collection: str) -> None:
    """Have aliases stand for a collection: also those of the first that an operator made."""
    from qdrant_client import models

    named = [models.CreateAlias(collection_name=collection, alias_name=alias) for alias in aliases]
    if named:
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=one) for one in named])


def _drop_aliases(client: QdrantClient, aliases: list[str]) -> None:
    from qdrant_client import models

    client.update_collection_aliases(
        [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)) for alias in aliases]
    )


def _others(client: QdrantClient, name: str, place: str) -> set[str]:
    """The collections that were made to take a name, but for the one in its place."""
    second = re.compile(rf"{re.escape(name)}\.[0-9a-f]{{32}}")
    names = (one.name for one in client.get_collections().collections)
    return {found for found in names if second.fullmatch(found) and found != place}


def _second_of(writer: str) -> str:
    """The collection that is written through an alias."""
    return writer.rpartition(".")[0]


def _ready(name: str) -> str:
    return f"{name}.ready"
