"""LlamaIndex's own ``QdrantVectorStore`` over the embedded engine, unchanged."""

from __future__ import annotations

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from memory_integrations.qdrant_edge import Bm25Encoder, QdrantEdgeClient

IDS = [f"00000000-0000-0000-0000-00000000000{number}" for number in range(4)]
TEXTS = ["red boat", "red red red sea boat wind", "sea sea wind", "boat boat red tree grass hill"]


def nodes() -> list[TextNode]:
    made = []
    for number, (identity, text) in enumerate(zip(IDS, TEXTS, strict=True)):
        source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{number // 2}")}
        metadata = {"color": "red" if "red" in text else "none", "number": number}
        vector = [1.0, float(number), float(number * number)]
        made.append(TextNode(id_=identity, text=text, metadata=metadata, embedding=vector, relationships=source))
    return made


def sparse(texts: list[str]) -> tuple[list[list[int]], list[list[float]]]:
    vectors = Bm25Encoder().embed_documents(texts)
    return [vector.indices for vector in vectors], [vector.values for vector in vectors]


def store(client, aclient=None, hybrid=False) -> QdrantVectorStore:
    return QdrantVectorStore(
        "li",
        client=client,
        aclient=aclient,
        enable_hybrid=hybrid,
        sparse_doc_fn=sparse if hybrid else None,
        sparse_query_fn=sparse if hybrid else None,
    )


def where(key, value, operator=FilterOperator.EQ, condition=FilterCondition.AND):
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)], condition=condition)


QUERIES = [
    VectorStoreQuery(query_embedding=[1.0, 2.0, 4.0], similarity_top_k=3),
    VectorStoreQuery(query_embedding=[1.0, 2.0, 4.0], similarity_top_k=3, filters=where("color", "red")),
    VectorStoreQuery(
        query_embedding=[1.0, 0.0, 1.0], similarity_top_k=9, filters=where("number", 2, FilterOperator.GTE)
    ),
    VectorStoreQuery(
        query_embedding=[1.0, 0.0, 1.0], similarity_top_k=9, filters=where("color", ["red"], FilterOperator.IN)
    ),
    VectorStoreQuery(
        query_embedding=[1.0, 0.0, 1.0], similarity_top_k=9, filters=where("color", "red", FilterOperator.NE)
    ),
    VectorStoreQuery(query_embedding=[1.0, 0.0, 1.0], similarity_top_k=9, doc_ids=["doc-1"]),
    VectorStoreQuery(query_embedding=[1.0, 0.0, 1.0], similarity_top_k=9, node_ids=[IDS[0]]),
]


def same(ours, theirs) -> None:
    assert ours.ids == theirs.ids
    assert ours.similarities == pytest.approx(theirs.similarities, abs=1e-4)
    assert [node.get_content() for node in ours.nodes] == [node.get_content() for node in theirs.nodes]
    assert [node.metadata for node in ours.nodes] == [node.metadata for node in theirs.nodes]


@pytest.mark.parametrize("query", QUERIES, ids=range(len(QUERIES)))
def test_it_finds_what_the_local_mode_finds(client, query):
    stores = [store(each) for each in (client, QdrantClient(":memory:"))]
    for each in stores:
        assert each.add(nodes()) == IDS
    same(*[each.query(query) for each in stores])


def test_hybrid_finds_what_the_local_mode_finds(client):
    stores = [store(each, hybrid=True) for each in (client, QdrantClient(":memory:"))]
    for each in stores:
        each.add(nodes())
    for text in ("red", "sea"):
        for mode in (VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.SPARSE):
            query = VectorStoreQuery(
                query_embedding=[1.0, 2.0, 4.0],
                query_str=text,
                similarity_top_k=3,
                sparse_top_k=3,
                mode=mode,
            )
            same(*[each.query(query) for each in stores])


def test_a_round_trip(directory):
    with QdrantEdgeClient(directory) as client:
        store(client).add(nodes())
    with QdrantEdgeClient(directory) as client:
        again = store(client)
        (node,) = again.get_nodes([IDS[1]])
        assert (node.get_content(), node.metadata["number"]) == (TEXTS[1], 1)
        assert len(again.get_nodes(filters=where("color", "red"))) == 3
        again.delete("doc-0")
        assert {node.node_id for node in again.get_nodes(filters=where("number", 0, FilterOperator.GTE))} == set(
            IDS[2:]
        )
        again.delete_nodes([IDS[2]])
        assert again.query(QUERIES[0]).ids == [IDS[3]]
        again.clear()
        assert not client.collection_exists("li")


async def test_an_asynchronous_round_trip(client):
    shared = client.as_async()
    both = store(client, shared)
    assert await both.async_add(nodes()) == IDS
    same(await both.aquery(QUERIES[1]), both.query(QUERIES[1]))
    await both.adelete("doc-0")
    assert {node.node_id for node in await both.aget_nodes(filters=where("number", 0, FilterOperator.GTE))} == set(
        IDS[2:]
    )
    await both.adelete_nodes([IDS[2]])
    assert (await both.aquery(QUERIES[0])).ids == both.query(QUERIES[0]).ids == [IDS[3]]
    await both.aclear()
    assert not client.collection_exists("li")
    await shared.close()


async def test_only_the_asynchronous_client(client):
    shared = client.as_async()
    alone = store(None, shared)
    await alone.async_add(nodes())
    assert len((await alone.aquery(QUERIES[0])).ids) == 3
    await shared.close()
