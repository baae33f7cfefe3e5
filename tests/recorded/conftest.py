"""The real OpenAI clients around cassettes. No test here reaches a network, unless ``record.py`` runs it.

The cassettes are recorded from ``scripted_server.py``, which is no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import vcr
from cassettes import (
    BASE_URL,
    RECORD_AGAIN,
    SCRIPTED,
    ReadableYaml,
    complaints,
    neutral_request,
    neutral_response,
    same_json,
    watched,
)
from pytest_recording.plugin import get_default_cassette_name
from recorded_helpers import Client
from vcr.cassette import Cassette

WHY_NOT = "the recorded tests need the OpenAI clients of the dev extra"
SCRIPTED_MODEL = "ft:gpt-4o-mini:scripted"  # LlamaIndex takes only names that it knows, and those tuned from them
RECORDED_FROM = "MEMORY_RECORDING_FROM"
"""Set by ``record.py``: what a new cassette says of where its answers come from."""

CASSETTES_OF_COLLECTED = pytest.StashKey[set[str]]()
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Provider:
    """Whoever answers: in a replay nobody."""

    base_url: str = BASE_URL
    api_key: str = "none"
    model: str = SCRIPTED_MODEL
    embedding: str = SCRIPTED_MODEL

    @property
    def recording(self) -> bool:
        return self.base_url != BASE_URL


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "scripted: only the scripted server answers so; no provider is asked for it")


def pytest_recording_configure(config: pytest.Config, vcr: vcr.VCR) -> None:
    vcr.register_serializer("yaml", ReadableYaml(os.environ.get(RECORDED_FROM, SCRIPTED)))
    vcr.register_matcher("json", same_json)


@pytest.hookimpl(tryfirst=True)  # before -k and -m leave any out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    own = [item for item in items if item.path.parent == FOLDER]
    config.stash[CASSETTES_OF_COLLECTED] = {
        f"{item.path.stem}/{get_default_cassette_name(None, item.name)}.yaml"
        for item in own
        if item.get_closest_marker("vcr")
    }
    if vcr.__version__.startswith("7."):
        for item in own:
            item.add_marker(pytest.mark.skip(reason="vcrpy 7 cannot be used beside the aiohttp of today"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """A cassette of which something was not played, or that lacks something, fails its test, whatever that says."""
    error, result = None, None
    try:
        result = yield
    except Exception as raised:
        error = raised
    funcargs = getattr(item, "funcargs", {})
    cassette, unmatched = funcargs.get("vcr"), funcargs.get("unmatched")
    if cassette is not None and cassette.write_protected and (unmatched or error is None):
        told = complaints(cassette, unmatched or [])
        if told:
            raise pytest.fail.Exception("\n\n".join([*told, RECORD_AGAIN]), pytrace=False) from error
    if error is not None:
        raise error
    return result


@pytest.fixture(scope="session")
def provider(record_mode: str) -> Provider:
    if record_mode == "none":
        return Provider()
    given = os.environ
    base_url, key = given["OPENAI_BASE_URL"].rstrip("/"), given["OPENAI_API_KEY"]
    if given[RECORDED_FROM] == SCRIPTED:
        return Provider(base_url, key)
    return Provider(
        base_url,
        key,
        given.get("MEMORY_RECORDING_MODEL", "gpt-4o-mini"),
        given.get("MEMORY_RECORDING_EMBEDDING", "text-embedding-3-small"),
    )


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, provider: Provider) -> None:
    """What is set in the environment for the clients, or for tracing them, does not change what they ask."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "LANGSMITH_", "LANGCHAIN_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LANGCHAIN_OPENAI_TCP_KEEPALIVE", "0")  # else it opens a socket to see what the system offers


@pytest.fixture
def cassettes_of_collected(pytestconfig: pytest.Config) -> set[str]:
    """The cassettes that the tests of the collected modules play."""
    if any("::" in argument for argument in pytestconfig.args):
        pytest.skip("only some tests of a module were asked for")
    return pytestconfig.stash[CASSETTES_OF_COLLECTED]


@pytest.fixture
def vcr_config(provider: Provider) -> dict[str, Any]:
    return {
        "match_on": ["method", "path", "query", "json"],
        "before_record_request": neutral_request(provider.base_url),
        "before_record_response": neutral_response,
        "decode_compressed_response": True,
    }


@pytest.fixture(autouse=True)
def unmatched(vcr: Cassette | None) -> Iterator[list[str]]:
    """The requests of a test for which its cassette has no answer."""
    if vcr is None:
        yield []
        return
    with watched(vcr) as found:
        yield found


@pytest.fixture
def workers(provider: Provider) -> int:
    """How many ask at once: one while recording, so that a cassette has one order."""
    return 1 if provider.recording else 8


# The clients. They wait and retry no longer than a test says.


@pytest.fixture
def chat(provider: Provider, vcr: Cassette) -> Client:
    """Makes LangChain's ``ChatOpenAI``."""
    clients = pytest.importorskip("langchain_openai", reason=WHY_NOT)
    return partial(_made, clients.ChatOpenAI, "base_url", provider, vcr)


@pytest.fixture
def llama(provider: Provider, vcr: Cassette) -> Client:
    """Makes LlamaIndex's ``OpenAI``."""
    clients = pytest.importorskip("llama_index.llms.openai", reason=WHY_NOT)
    return partial(_made, clients.OpenAI, "api_base", provider, vcr)


def _made(
    kind: Any, address: str, provider: Provider, cassette: Cassette, model: str | None = None, **options: Any
) -> Any:
    """A client that neither retries nor waits for long, unless a test says so."""
    given = {"max_retries": 0, "timeout": 30, "api_key": provider.api_key, address: provider.base_url, **options}
    return kind(model=model or _model(provider, cassette), **given)


@pytest.fixture(params=["langchain", "llama_index"])
def client(request: pytest.FixtureRequest) -> Client:
    """Makes the one client and the other."""
    made: Client = request.getfixturevalue({"langchain": "chat", "llama_index": "llama"}[request.param])
    return made


@pytest.fixture
def embeddings(provider: Provider, vcr: Cassette) -> Client:
    """Makes LangChain's ``OpenAIEmbeddings``; texts are sent as they are, since counting would fetch an encoding."""
    clients = pytest.importorskip("langchain_openai", reason=WHY_NOT)

    def embeddings(model: str | None = None, **options: Any) -> Any:
        given = {"max_retries": 0, "model_kwargs": {"encoding_format": "float"}, **options}
        return clients.OpenAIEmbeddings(
            model=model or _model(provider, vcr, "embedding"), base_url=provider.base_url, api_key=provider.api_key,
            check_embedding_ctx_length=False, **given,
        )  # fmt: skip

    return embeddings


def _model(provider: Provider, cassette: Cassette, use: str = "model") -> str:
    """The model to be asked: in a replay the one that was, since a client asks one model otherwise than another."""
    for request in () if provider.recording else cassette.requests:
        if request.uri.endswith("/embeddings") == (use == "embedding"):
            return str(json.loads(request.body)["model"])
    return str(getattr(provider, use))
