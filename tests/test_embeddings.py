"""The bundled dense embedding."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.embeddings import FakeEmbeddings

from memory_integrations.embeddings import StaticEmbeddings, content_words, embedding_name

embeddings = StaticEmbeddings()


@given(text=st.text(max_size=300))
def test_every_text_has_a_vector_of_length_one(text: str) -> None:
    vector = np.array(embeddings.embed_query(text))
    assert vector.shape == (256,)
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-3) or not text.strip()


def test_a_batch_gives_what_each_text_gives_alone() -> None:
    texts = ["The dog ran", "Le chien courait", "走れ", "", "the of and"]
    assert embeddings.embed_documents(texts) == [embeddings.embed_query(text) for text in texts]
    assert asyncio.run(embeddings.aembed_documents(texts)) == embeddings.embed_documents(texts)
    assert asyncio.run(embeddings.aembed_query("dog")) == embeddings.embed_query("dog")


def test_meaning_counts_more_than_grammar() -> None:
    dog, puppy, tax = embeddings.embed(["Is it about the dog?", "a puppy", "It is about the tax office."])
    assert dog @ puppy > dog @ tax


def test_content_words() -> None:
    assert content_words("What's the Dog's name? It's Toto!") == ["dog", "name", "toto"]
    assert content_words("Ann met Bob", without={"ann"}) == ["met", "bob"]


def test_the_recorded_name_is_the_models() -> None:
    assert embedding_name(embeddings).startswith("wordllama/")
    assert embedding_name(FakeEmbeddings(size=3)) == "FakeEmbeddings"
