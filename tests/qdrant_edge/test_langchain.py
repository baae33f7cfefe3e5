"""langchain_qdrant's own ``QdrantVectorStore`` over the embedded engine, unchanged.

LangChain's standard suite runs over the embedded client and over qdrant_client's local mode. Its ids ("1", "2")
are none that Qdrant takes, so a thin subclass maps them. Where the suite gives no ids, langchain_qdrant makes some
without hyphens and Qdrant answers with hyphens, so the subclass makes them instead.
"""

from __future__ import annotations

import asyncio
import inspect
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("langchain_tests")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_qdrant import QdrantVectorStore, RetrievalMode
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from qdrant_client import QdrantClient
from qdrant_client import models as m

from memory_integrations.qdrant_edge import Bm25SparseEmbeddings, QdrantEdgeClient

SIZE = 6


class Mapped(QdrantVectorStore):
    """Turns the suite's ids into UUIDs on the way in and back on the way out."""

    @staticmethod
    def _in(ids: Any) -> Any:
        return ids and [_uuid(each) for each in ids]

    def add_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        ids = kwargs.pop("ids", None) or [document.id for document in documents]
        ids = [each or str(uuid.uuid4()) for each in ids]
        super().add_documents(documents, ids=self._in(ids), **kwargs)
        _known.update((_uuid(each), each) for each in ids)
        return list(ids)

    async def aadd_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        return await asyncio.to_thread(self.add_documents, documents, **kwargs)

    def delete(self, ids: Any = None, **kwargs: Any) -> bool | None:
        return super().delete(self._in(ids), **kwargs)

    async def adelete(self, ids: Any = None, **kwargs: Any) -> bool | None:
        return await asyncio.to_thread(self.delete, ids, **kwargs)

    def get_by_ids(self, ids: Any, /) -> list[Document]:
        return super().get_by_ids(self._in(ids))

    async def aget_by_ids(self, ids: Any, /) -> list[Document]:
        return await asyncio.to_thread(self.get_by_ids, ids)

    @classmethod
    def _document_from_point(cls, point: Any, *names: str) -> Document:
        document = super()._document_from_point(point, *names)
        document.metadata = {k: v for k, v in document.metadata.items() if not k.startswith("_")}
        document.id = _known.get(point.id, point.id)
        return document


_known: dict[str, str] = {}


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, text))


def store(client: QdrantClient, mode: RetrievalMode, kind: type[QdrantVectorStore] = Mapped) -> QdrantVectorStore:
    client.create_collection(
        "lc",
        m.VectorParams(size=SIZE, distance=m.Distance.COSINE),
        sparse_vectors_config={"langchain-sparse": m.SparseVectorParams(modifier=m.Modifier.IDF)},
    )
    return kind(
        client=client,
        collection_name="lc",
        embedding=DeterministicFakeEmbedding(size=SIZE),
        sparse_embedding=Bm25SparseEmbeddings(),
        retrieval_mode=mode,
    )


class Suite(VectorStoreIntegrationTests):
    """The standard suite, whose tests are called one by one below."""

    @pytest.fixture
    def vectorstore(self) -> Any:
        raise NotImplementedError


Suite.__test__ = False
TESTS = sorted(name for name in dir(Suite) if name.startswith("test_") and "overrid" not in name)


def outcome(name: str, client: QdrantClient, mode: RetrievalMode) -> str:
    """Run one test of the suite and tell how it ends."""
    _known.clear()
    try:
        result = getattr(Suite(), name)(store(client, mode))
        if inspect.isawaitable(result):
            asyncio.run(_await(result))
    except AssertionError as error:
        return f"failed: {str(error).splitlines()[0] if str(error) else ''}"
    finally:
        client.close()
    return "passed"


async def _await(result: Any) -> None:
    await result


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize("mode", [RetrievalMode.DENSE, RetrievalMode.HYBRID])
def test_the_standard_suite_ends_as_over_the_local_mode(name, mode, tmp_path):
    edge = outcome(name, QdrantEdgeClient(tmp_path / "store"), mode)
    local = outcome(name, QdrantClient(":memory:"), mode)
    assert edge.split(":")[0] == local.split(":")[0], (edge, local)
    assert edge == "passed" or local != "passed"


def test_the_standard_suite_passes(tmp_path):
    ended = {name: outcome(name, QdrantEdgeClient(tmp_path / name), RetrievalMode.DENSE) for name in TESTS}
    failed = {name: why for name, why in ended.items() if why != "passed"}
    assert len(TESTS) >= 24
    assert failed == {}, failed


@pytest.fixture
def vectorstore(tmp_path) -> Iterator[QdrantVectorStore]:
    client = QdrantEdgeClient(tmp_path / "store")
    yield store(client, RetrievalMode.HYBRID, QdrantVectorStore)
    client.close()


RED = m.Filter(must=[m.FieldCondition(key="metadata.color", match=m.MatchValue(value="red"))])


def test_the_whole_class(vectorstore):
    texts = ["the red boat", "a blue boat", "the red sea", "mountains"]
    colors = ["red", "blue", "red", "grey"]
    ids = vectorstore.add_texts(texts, [{"color": color} for color in colors])
    assert len(vectorstore.similarity_search("boat", k=10)) == 4
    assert {d.page_content for d in vectorstore.similarity_search("boat", k=10, filter=RED)} == {texts[0], texts[2]}
    (best, score), *_ = vectorstore.similarity_search_with_score("mountains", k=1)
    assert best.page_content == "mountains"
    assert score > 0
    assert [d.page_content for d in vectorstore.get_by_ids([ids[1]])] == ["a blue boat"]
    assert len(vectorstore.max_marginal_relevance_search("boat", k=2, fetch_k=4)) == 2
    assert vectorstore.as_retriever(search_kwargs={"k": 1, "filter": RED}).invoke("sea")[0].page_content in texts
    vectorstore.delete([ids[0]])
    assert {d.page_content for d in vectorstore.similarity_search("boat", k=10, filter=RED)} == {texts[2]}


@pytest.mark.parametrize("mode", list(RetrievalMode))
def test_every_mode_agrees_with_the_local_mode(tmp_path, mode):
    edge, local = QdrantEdgeClient(tmp_path / "store"), QdrantClient(":memory:")
    # no two of them score alike, which ranks that are fused would not survive
    texts = ["red boat", "red red red sea boat wind", "sea sea wind", "boat boat red tree grass hill", "blue"]
    ids = [str(uuid.UUID(int=number + 1)) for number in range(len(texts))]
    stores = [store(client, mode, QdrantVectorStore) for client in (edge, local)]
    for each in stores:
        each.add_texts(texts, ids=ids)
    for query in ("red", "sea", "boat", "wind blue"):
        ours, theirs = [each.similarity_search_with_score(query, k=len(texts)) for each in stores]
        assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-4)
        assert {d.page_content for d, _ in ours} == {d.page_content for d, _ in theirs}
    edge.close()


async def test_asynchronous_calls(vectorstore):
    ids = await vectorstore.aadd_texts(["the red boat", "the blue sea"])
    assert len(await vectorstore.asimilarity_search("boat", k=5)) == 2
    assert await vectorstore.adelete([ids[0]])
    (left,) = await vectorstore.asimilarity_search("boat", k=5)
    assert left.page_content == "the blue sea"


def test_what_it_stores_is_read_back_by_a_new_one(tmp_path):
    with QdrantEdgeClient(tmp_path / "store") as client:
        store(client, RetrievalMode.HYBRID, QdrantVectorStore).add_texts(["kept words"], [{"n": 1}])
    with QdrantEdgeClient(tmp_path / "store") as client:
        again = QdrantVectorStore(
            client=client,
            collection_name="lc",
            embedding=DeterministicFakeEmbedding(size=SIZE),
            sparse_embedding=Bm25SparseEmbeddings(),
            retrieval_mode=RetrievalMode.HYBRID,
        )
        (found,) = again.similarity_search("kept")
        assert (found.page_content, found.metadata["n"]) == ("kept words", 1)
