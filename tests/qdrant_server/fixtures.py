"""A stand-in server for the tests of any directory: ``from qdrant_server.fixtures import ...`` in its conftest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_socket import enable_socket, socket_allow_hosts
from qdrant_client import QdrantClient

from qdrant_server.stand_in import HOST, StandIn

__all__ = ["connect", "localhost", "protocol", "qdrant_server"]

Connect = Callable[..., QdrantClient]


@pytest.fixture
def localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections to this machine, and to no other; past any proxy that the environment names."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("QDRANT_"):
            monkeypatch.delenv(name)
    enable_socket()
    socket_allow_hosts([HOST], allow_unix_socket=True)  # until the test is over; the plugin sees to that


@pytest.fixture
def qdrant_server(localhost: None) -> Iterator[StandIn]:
    """A running stand-in, with nothing stored: ``url`` for REST, ``grpc_port`` next to it."""
    with StandIn() as server:
        yield server


@pytest.fixture(params=["rest", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    """What a client speaks."""
    return str(request.param)


@pytest.fixture
def connect(qdrant_server: StandIn, protocol: str) -> Iterator[Connect]:
    """Opens the real client on the stand-in, over the test's protocol unless it says another."""
    opened: list[QdrantClient] = []

    def connect(over: str = protocol, **options: Any) -> QdrantClient:
        client = QdrantClient(
            url=qdrant_server.url,
            grpc_port=qdrant_server.grpc_port,
            prefer_grpc=over == "grpc",
            check_compatibility=False,
            **options,
        )
        opened.append(client)
        return client

    yield connect
    for client in opened:
        client.close()
