"""The sparse encoder."""

from __future__ import annotations

import pytest

from memory_integrations.qdrant_edge import Bm25Encoder, Bm25SparseEmbeddings


def terms(encoder, text):
    return set(encoder.embed_query(text).indices)


def test_a_question_weighs_every_distinct_term_once():
    indices, values = Bm25Encoder().embed_query("red red sea")
    assert values == [1.0, 1.0]
    assert len(set(indices)) == 2


def test_a_text_weighs_terms_by_how_often_and_how_long():
    encoder = Bm25Encoder(k=1.2, b=0.75, avg_len=4.0)
    text = encoder.embed_document("sea sea red boat")
    weights = dict(zip(*text, strict=True))
    (sea,) = terms(encoder, "sea")
    (red,) = terms(encoder, "red")
    assert weights[sea] == pytest.approx(2 * 2.2 / (2 + 1.2), abs=1e-5)
    assert weights[red] == pytest.approx(1 * 2.2 / (1 + 1.2), abs=1e-5)
    longer = dict(zip(*encoder.embed_document("sea sea red boat " + "boat " * 20), strict=True))
    assert longer[red] < weights[red]
    assert encoder.embed_documents(["sea", "red"]) == [encoder.embed_document("sea"), encoder.embed_document("red")]


def test_parameters_count():
    flat = Bm25Encoder(k=0.0)
    assert set(flat.embed_document("sea sea red").values) == {1.0}
    ignoring_length = Bm25Encoder(b=0.0)
    assert sorted(ignoring_length.embed_document("sea").values) == sorted(
        set(ignoring_length.embed_document("sea " + " ".join(f"w{n}" for n in range(50))).values)
    )


def test_languages_stem_and_drop_their_stop_words():
    english, german = Bm25Encoder("english"), Bm25Encoder("german")
    assert terms(english, "running dogs") == terms(english, "the run of a dog")
    assert terms(german, "die Häuser") == terms(german, "Haus")
    assert terms(german, "the") != set()


def test_stems_can_be_kept():
    whole = Bm25Encoder("english", stem=False)
    assert terms(whole, "running") != terms(whole, "run")
    assert terms(whole, "the sea") == terms(whole, "sea")


def test_no_language_keeps_every_word_and_every_script():
    neutral = Bm25Encoder(None)
    assert len(terms(neutral, "the sea is running")) == 4
    assert terms(neutral, "Sea") == terms(neutral, "sea")
    assert terms(neutral, "我喜欢大海") & terms(neutral, "大海")
    assert terms(neutral, "Привет мир")


def test_accents_can_be_dropped():
    folding, keeping = Bm25Encoder("english", ascii_folding=True), Bm25Encoder("english")
    assert terms(folding, "café") == terms(folding, "cafe")
    assert terms(keeping, "café") != terms(keeping, "cafe")
    assert terms(Bm25Encoder(None), "café") == terms(Bm25Encoder(None), "cafe")


def test_empty_text():
    assert Bm25Encoder().embed_query("") == ([], [])
    assert Bm25Encoder().embed_document("the of") == ([], [])


@pytest.mark.parametrize("wrong", [{"language": "klingon"}, {"b": 2.0}, {"k": -1.0}, {"avg_len": 0.0}])
def test_wrong_parameters(wrong):
    with pytest.raises(ValueError):
        Bm25Encoder(**wrong)


def test_langchain_s_sparse_embeddings():
    from langchain_qdrant import SparseEmbeddings

    embeddings = Bm25SparseEmbeddings(language=None)
    assert isinstance(embeddings, SparseEmbeddings)
    query = embeddings.embed_query("the sea")
    assert (query.indices, query.values) == tuple(Bm25Encoder(None).embed_query("the sea"))
    (document,) = embeddings.embed_documents(["the sea"])
    assert (document.indices, document.values) == tuple(Bm25Encoder(None).embed_document("the sea"))
    assert Bm25SparseEmbeddings(encoder := Bm25Encoder()).encoder is encoder
