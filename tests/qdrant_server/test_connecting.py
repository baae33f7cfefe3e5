"""How a server is reached: key, protocol, version, what is tried again, and what a collection is created with."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
from grpc import RpcError
from qdrant_client import QdrantClient

from memory_integrations import MemoryManager, QdrantServer, StoreUnavailableError
from memory_integrations.collection import COLLECTION
from memory_integrations.server import API_KEY, asking
from qdrant_server import operations
from qdrant_server.operations import Code
from qdrant_server.stand_in import StandIn

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")

KEY = "a key that is long enough"
TRANSIENT = [Code.UNAVAILABLE, Code.TOO_MANY_REQUESTS, Code.BAD_GATEWAY, Code.GATEWAY_TIMEOUT]


@pytest.fixture(params=["rest", "grpc"])
def server(request: pytest.FixtureRequest, qdrant_server: StandIn, monkeypatch: pytest.MonkeyPatch) -> QdrantServer:
    monkeypatch.setattr("memory_integrations.server._FIRST_WAIT", 0.02)
    return QdrantServer(qdrant_server.url, prefer_grpc=request.param == "grpc", grpc_port=qdrant_server.grpc_port)


@pytest.mark.parametrize("code", TRANSIENT)
def test_what_fails_for_a_moment_is_tried_again(qdrant_server: StandIn, server: QdrantServer, code: Code) -> None:
    client = server.connect()
    qdrant_server.refuse(code, times=3)
    assert client.collection_exists("c") is False
    assert len(qdrant_server.asked_for("collection_exists")) == 4


@pytest.mark.parametrize("code", [Code.FORBIDDEN, Code.INTERNAL, Code.UNPROCESSABLE])
def test_what_does_not_pass_is_not_tried_again(qdrant_server: StandIn, server: QdrantServer, code: Code) -> None:
    client = server.connect()
    qdrant_server.refuse(code, times=10)
    with pytest.raises(Exception, match="ordered by the test"):
        client.collection_exists("c")
    assert len(qdrant_server.asked_for("collection_exists")) == 1


@pytest.mark.parametrize("code", TRANSIENT)
def test_tries_end(qdrant_server: StandIn, server: QdrantServer, code: Code) -> None:
    client = server.connect()
    qdrant_server.refuse(code, times=100)
    with pytest.raises(Exception, match="ordered by the test"):
        client.collection_exists("c")
    assert len(qdrant_server.asked_for("collection_exists")) == 4


def test_a_connection_that_is_cut_is_made_again(qdrant_server: StandIn, server: QdrantServer) -> None:
    client = server.connect()
    qdrant_server.cut("before")
    assert client.collection_exists("c") is False


def test_it_is_waited_longer_each_time(qdrant_server: StandIn) -> None:
    client = QdrantServer(qdrant_server.url, prefer_grpc=False, retries=4).connect()
    waits: list[float] = []
    qdrant_server.refuse(Code.UNAVAILABLE, times=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tenacity.nap.time.sleep", waits.append)
        client.collection_exists("c")
    for wait, least in zip(waits, (0.2, 0.4, 0.8, 1.6), strict=True):
        assert least <= wait <= least + 0.2


def test_over_grpc_it_is_waited_longer_each_time(qdrant_server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol's own policy takes a random part of each wait, at least some four fifths."""
    monkeypatch.setattr("memory_integrations.server._FIRST_WAIT", 0.2)
    client = QdrantServer(qdrant_server.url, prefer_grpc=True, grpc_port=qdrant_server.grpc_port, retries=3).connect()
    qdrant_server.refuse(Code.UNAVAILABLE, times=3)
    began = time.monotonic()
    client.collection_exists("c")
    assert time.monotonic() - began > 0.6 * (0.2 + 0.4 + 0.8)


def test_a_client_that_is_closed_while_it_is_used_is_an_error_of_ours(server: QdrantServer) -> None:
    client = server.connect()
    client.close()
    with pytest.raises(StoreUnavailableError), asking():
        client.collection_exists("c")


def test_what_answers_and_is_no_qdrant_is_an_error_of_ours(localhost: None) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Welcome</html>")

        def log_message(self, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Page) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        try:
            with pytest.raises(StoreUnavailableError, match="no Qdrant server"):
                QdrantServer(f"http://127.0.0.1:{web.server_port}", prefer_grpc=False).connect()
        finally:
            web.shutdown()


def test_a_server_says_when_to_come_back(qdrant_server: StandIn) -> None:
    client = QdrantServer(qdrant_server.url, prefer_grpc=False).connect()
    waits: list[float] = []
    qdrant_server.refuse(Code.TOO_MANY_REQUESTS, times=2, retry_after=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tenacity.nap.time.sleep", waits.append)
        client.collection_exists("c")
    assert waits == [7, 7]


def test_a_server_that_asks_for_a_long_wait_is_not_asked_too_early(
    qdrant_server: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    waits: list[float] = []
    with MemoryManager(data_dir=tmp_path, qdrant=QdrantServer(qdrant_server.url, prefer_grpc=False)) as memory:
        memory.long_term.open()
        qdrant_server.refuse(Code.TOO_MANY_REQUESTS, times=1, retry_after=60)
        monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
        with pytest.raises(StoreUnavailableError, match="try again in 60 seconds"):
            memory.long_term.count()
    assert (waits, len(qdrant_server.asked_for("count"))) == ([], 1)


def test_an_answer_that_takes_too_long_is_asked_for_again_over_rest_alone(
    qdrant_server: StandIn, server: QdrantServer
) -> None:
    client = replace(server, timeout=1).connect()
    qdrant_server.hold(1, only="get_collections")
    began = time.monotonic()
    if server.prefer_grpc:
        with pytest.raises(RpcError, match="Deadline Exceeded"):
            client.get_collections()
    else:
        client.get_collections()
    assert len(qdrant_server.asked_for("get_collections")) == (1 if server.prefer_grpc else 2)
    assert 0.9 < time.monotonic() - began < 20, "it is the time limit that was given"


def test_grpc_is_spoken_where_its_port_answers(qdrant_server: StandIn, tmp_path: Path) -> None:
    for port, spoken in ((qdrant_server.grpc_port, "grpc"), (1, "rest")):
        server = QdrantServer(qdrant_server.url, grpc_port=port)
        with MemoryManager("user:ann", data_dir=tmp_path, qdrant=server) as memory:
            memory.add_turn("I play the oboe.", "Do you?")
        assert {one.protocol for one in qdrant_server.asked_for("upsert")} == {spoken}
        qdrant_server.asked.clear()


def test_the_key_comes_from_the_environment_or_by_name(
    qdrant_server: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    qdrant_server.api_key = KEY
    memory = MemoryManager("user:ann", data_dir=tmp_path, qdrant=qdrant_server.url)
    with pytest.raises(StoreUnavailableError, match="that the key is right"):
        memory.search_long_term("oboe")
    assert QdrantServer(qdrant_server.url, KEY).connect().collection_exists("c") is False
    monkeypatch.setenv(API_KEY, KEY)
    assert QdrantServer(qdrant_server.url).connect().collection_exists("c") is False


def test_a_key_is_shown_nowhere(qdrant_server: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    qdrant_server.api_key = KEY
    server = QdrantServer(qdrant_server.url, KEY)
    with MemoryManager("user:ann", data_dir=tmp_path, qdrant=server) as memory:
        memory.add_turn("I play the oboe.", "Do you?")
        qdrant_server.refuse(Code.FORBIDDEN, times=1)
        with pytest.raises(StoreUnavailableError) as refused:
            memory.search_long_term("oboe")
        told = [repr(server), str(refused.value), repr(memory), str(memory.options), caplog.text]
    assert [text for text in told if KEY in text] == []


@pytest.mark.parametrize("url", ["https://ann:{}@cluster:6333/a?token={}", "https://cluster?token={}#{}"])
def test_what_is_secret_in_a_url_is_shown_nowhere(url: str) -> None:
    secret = "s3cret/?@#x"
    server = QdrantServer(url.format(quote(secret, safe=""), "s3cret"))
    assert "cluster" in repr(server)
    assert "s3cret" not in repr(server)
    for wrong in (url.replace("https", "htps").format(secret, "s3cret"), url.format("s3cret", "x").replace("//", "/")):
        with pytest.raises(StoreUnavailableError, match="expected a server's URL") as refused:
            QdrantServer(wrong)
        assert "s3cret" not in str(refused.value)


def test_a_client_of_a_server_that_is_refused_is_closed(
    qdrant_server: StandIn, server: QdrantServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[QdrantClient] = []
    close = QdrantClient.close

    def noted(client: QdrantClient) -> None:
        closed.append(client)
        close(client)

    monkeypatch.setattr(QdrantClient, "close", noted)
    monkeypatch.setattr(operations, "VERSION", "1.18.2")
    with pytest.raises(StoreUnavailableError) as refused:
        server.connect()
    assert refused.value  # it holds what was open when it was raised: no destructor ran
    assert len(closed) == 1


@pytest.mark.parametrize(
    ("code", "told", "advice"),
    [
        (Code.UNAUTHORIZED, "no", "See that the key is right"),
        (Code.FORBIDDEN, "no", "See that the key is right"),
        (Code.NOT_FOUND, "no", "nobody deleted the collection"),
        (Code.TOO_MANY_REQUESTS, "no", "Too much is asked of it"),
        (Code.UNAVAILABLE, "no", "See that it runs at the URL"),
        (Code.BAD_REQUEST, 'Bad request: Index required but not found for "a"', "make that payload index"),
        (Code.BAD_REQUEST, "Wrong input: no", "see its log"),
        (Code.ALREADY_EXISTS, "no", "see its log"),
        (Code.INTERNAL, "no", "see its log"),
    ],
)
def test_what_to_do_is_said_by_what_was_refused(
    qdrant_server: StandIn, server: QdrantServer, code: Code, told: str, advice: str, tmp_path: Path
) -> None:
    with MemoryManager(data_dir=tmp_path, qdrant=server) as memory:
        memory.long_term.open()
        qdrant_server.refuse(code, times=100, only="count", told=told)
        with pytest.raises(StoreUnavailableError, match=advice) as refused:
            memory.long_term.count()
    others = {"See that the key", "nobody deleted", "Too much", "See that it runs", "payload index", "see its log"}
    assert sum(other in str(refused.value) for other in others) == 1


def test_an_old_server_is_refused_with_the_reason(
    qdrant_server: StandIn, server: QdrantServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "VERSION", "1.18.2")
    with pytest.raises(StoreUnavailableError, match=r"1\.18\.2; expected 1\.19 or later"):
        server.connect()


def test_a_collection_is_created_with_the_shards_and_copies_that_are_named(
    qdrant_server: StandIn, tmp_path: Path
) -> None:
    server = QdrantServer(qdrant_server.url, shard_number=3, replication_factor=2, write_consistency_factor=2)
    with MemoryManager("user:ann", data_dir=tmp_path, qdrant=server) as memory:
        memory.add_turn("I play the oboe.", "Do you?")
    [created] = qdrant_server.asked_for("create_collection")
    assert created.collection == COLLECTION
    assert (created.body.shard_number, created.body.replication_factor) == (3, 2)
    assert created.body.write_consistency_factor == 2


@pytest.mark.parametrize("url", ["localhost:6333", "ftp://localhost", "http://", "", ":memory:", 7])
def test_what_is_no_url_is_refused_at_once(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="expected a server's URL"):
        QdrantServer(url)


@pytest.mark.parametrize("retries", [-1, 5])
def test_retries_have_a_limit(retries: int) -> None:
    with pytest.raises(StoreUnavailableError, match="expected a number from 0 to 4"):
        QdrantServer("http://localhost:6333", retries=retries)


def test_a_server_that_is_not_there_is_an_error_of_ours_and_no_wait_without_end(
    localhost: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory_integrations.server._FIRST_WAIT", 0.01)
    assert API_KEY not in os.environ
    with MemoryManager("user:ann", data_dir=tmp_path, qdrant="http://127.0.0.1:9") as memory:
        with pytest.raises(StoreUnavailableError, match="See that it runs"):
            memory.search_long_term("oboe")
        memory.set_fact("works", True)
