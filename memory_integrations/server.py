"""A Qdrant server or cluster: how it is reached, and what a collection there is created with."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from memory_integrations.errors import StoreUnavailableError

if TYPE_CHECKING:
    from httpx import Request, Response
    from qdrant_client import QdrantClient

API_KEY = "QDRANT_API_KEY"
"""The environment variable that the key is read from."""

OLDEST = (1, 19)
"""The first version whose searches weigh words by how rare they are within a scope."""
_TRANSIENT = frozenset((429, 502, 503, 504))
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0  # seconds between two tries
_LONGEST_ORDERED_WAIT = 30  # where a server says when to come back
_MOST_RETRIES = 4  # gRPC's limit
_REACHED_WITHIN = 1.0  # seconds for a port to answer
_grpc_begun_by = 0  # the process that first spoke gRPC here; its children must not


@dataclass(frozen=True, slots=True)
class QdrantServer:
    """A Qdrant server or cluster, for ``MemoryManager(qdrant=...)``; a URL alone means all the defaults.

    Calls that fail for a moment are made again, after waits that double. Each may be: points are known by their ids.
    Over REST that is no connection, a timeout, 429, 502 to 504; where the server says when to come back, the wait is
    that long, and where it says more than 30 seconds the call fails at once. Over gRPC it is UNAVAILABLE and
    RESOURCE_EXHAUSTED; what it says of a wait is not heeded, and a timeout is the end.

    Args:
        url: Such as ``http://localhost:6333`` or ``https://my.cluster:6333``.
        api_key: The key; None reads the environment variable ``QDRANT_API_KEY``.
        prefer_grpc: Whether to speak gRPC; None means where its port answers. A process that was forked from one that
            spoke it speaks REST: gRPC's threads do not live on in it.
        grpc_port: Its port.
        timeout: Seconds that a call may take; over REST each try, over gRPC all of them.
        retries: How often a call is made again, at most 4.
        shard_number: Of the collection, where it is created here, as the two that follow. None leaves it to the server.
        replication_factor: Copies of each shard.
        write_consistency_factor: Copies that must have a write before it is acknowledged.

    Raises:
        StoreUnavailableError: The URL is none, or ``retries`` is out of range.
    """

    url: str = field(repr=False)
    api_key: str | None = field(default=None, repr=False)
    prefer_grpc: bool | None = None
    grpc_port: int = 6334
    timeout: int = 10
    retries: int = 3
    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            reachable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except (ValueError, TypeError, AttributeError):
            reachable = False
        if not reachable:
            raise StoreUnavailableError(
                f"qdrant={_shown(self.url)!r:.200}: expected a server's URL, such as 'http://localhost:6333', a "
                "QdrantServer, or a QdrantClient."
            )
        if self.retries not in range(_MOST_RETRIES + 1):
            raise StoreUnavailableError(f"retries={self.retries!r}: expected a number from 0 to {_MOST_RETRIES}.")

    def __repr__(self) -> str:
        rest = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields(self) if one.repr)
        return f"QdrantServer(url={self.place!r}, {rest})"

    def connect(self) -> QdrantClient:
        """A client of the server, which retries.

        Raises:
            StoreUnavailableError: The server does not answer, or is too old.
        """
        from qdrant_client import QdrantClient

        client = QdrantClient(
            url=self.url,
            api_key=self.api_key or os.environ.get(API_KEY) or None,
            prefer_grpc=self._speaks_grpc(),
            grpc_port=self.grpc_port,
            timeout=self.timeout,
            grpc_options={"grpc.service_config": self._grpc_retries()} if self.retries else {},
            check_compatibility=False,  # it would ask in a thread of its own, and only to warn
        )
        try:
            if self.retries:
                client.http.client.add_middleware(_retrying(self.retries))
            with asking():
                _expect_version(client.info().version)
        except BaseException:
            client.close()
            raise
        return client

    @property
    def place(self) -> str:
        """Where it is: the URL as it may be shown."""
        return _shown(self.url).rstrip("/")

    @property
    def collection_options(self) -> dict[str, int]:
        """What a collection is created with here."""
        options = {
            "shard_number": self.shard_number,
            "replication_factor": self.replication_factor,
            "write_consistency_factor": self.write_consistency_factor,
        }
        return {name: value for name, value in options.items() if value is not None}

    def _speaks_grpc(self) -> bool:
        global _grpc_begun_by
        if _grpc_begun_by not in (0, os.getpid()):
            return False
        spoken = self._reaches_grpc() if self.prefer_grpc is None else self.prefer_grpc
        if spoken:
            _grpc_begun_by = os.getpid()
        return spoken

    def _reaches_grpc(self) -> bool:
        try:
            with socket.create_connection((urlsplit(self.url).hostname or "", self.grpc_port), _REACHED_WITHIN):
                return True
        except OSError:
            return False

    def _grpc_retries(self) -> str:
        policy = {
            "maxAttempts": self.retries + 1,
            "initialBackoff": f"{_FIRST_WAIT}s",
            "maxBackoff": f"{_LONGEST_WAIT}s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
        }
        return json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": policy}]})


_CLOSED = "on closed channel", "Client was closed"
"""What a client that was closed says, over gRPC and of itself; over REST it is an error as others."""


def _shown(url: object) -> str:
    """A URL, or what was meant to be one, without a user, a password and a query."""
    return re.split(r"[?#]", re.sub(r"^(\w+:/+)?.*@", r"\1", str(url), flags=re.DOTALL))[0]


def leave_to_parent(client: QdrantClient) -> None:
    """Let go of a client that belongs to the process this one was forked from.

    Its destructor must never run here: it would close connections that are the parent's. One reference is given away
    for good.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))


@contextmanager
def asking() -> Iterator[None]:
    """What a Qdrant server does not do, as an error of ours.

    Raises:
        StoreUnavailableError: It does not answer, or refuses.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        is_closed = any(told in str(error) for told in _CLOSED)
        if not is_closed and not isinstance(error, json.JSONDecodeError):
            raise
        raise StoreUnavailableError(
            "The connection to the Qdrant server was closed while this was under way. What is used next connects anew."
            if is_closed
            else f"What answers is no Qdrant server ({error}). See that the URL that was given is Qdrant's."
        ) from error
    except refusals() as error:
        said = error.details() if hasattr(error, "details") else error  # all of a gRPC error is a page long
        told = " ".join(str(said).split())
        raise StoreUnavailableError(
            f"The Qdrant server did not do what was asked of it ({told[:200]}). {_advice(error, told)}"
        ) from error


def _advice(error: Any, told: str) -> str:
    """What to do about a refusal, by the status of either protocol; an error without one is a server out of reach."""
    if hasattr(error, "retry_after_s"):
        return f"Too much is asked of it: try again in {error.retry_after_s} seconds."
    status = error.code().name if hasattr(error, "code") else getattr(error, "status_code", None)
    if status in (401, 403, "UNAUTHENTICATED", "PERMISSION_DENIED"):
        return "See that the key is right, and that it may do this."
    if status in (429, "RESOURCE_EXHAUSTED"):
        return "Too much is asked of it: try again later."
    if status in (404, "NOT_FOUND"):
        return "See that nobody deleted the collection meanwhile, and that the URL that was given is Qdrant's."
    if "Index required" in told:
        return "It is in strict mode: make that payload index (`create_payload_index`), or filter by something else."
    if status in (None, 502, 503, 504, "UNAVAILABLE", "DEADLINE_EXCEEDED"):
        return "See that it runs at the URL that was given, and how busy it is."
    return "It answers, and refuses this: see its log for the reason."


@functools.cache
def refusals() -> tuple[type[Exception], ...]:
    """What a client of a server raises where it does not answer or refuses, over REST and over gRPC."""
    from grpc import RpcError
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException

    return ApiException, QdrantException, RpcError


def _expect_version(version: str) -> None:
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if numbers < OLDEST:
        raise StoreUnavailableError(
            f"The Qdrant server is of version {version}; expected {'.'.join(map(str, OLDEST))} or later. Earlier ones "
            "weigh a user's words by what all others said. Upgrade it; where that does not matter, pass a QdrantClient."
        )


def _retrying(retries: int) -> Callable[[Request, Callable[[Request], Response]], Response]:
    """What goes between the client and its connection, to send a request again."""
    import httpx
    import tenacity
    from qdrant_client.http.exceptions import ResponseHandlingException

    def is_transient(error: BaseException) -> bool:
        return isinstance(error, ResponseHandlingException) and isinstance(error.source, httpx.TransportError)

    doubled = tenacity.wait_exponential(_FIRST_WAIT, max=_LONGEST_WAIT) + tenacity.wait_random(0, _FIRST_WAIT)

    def wait(state: tenacity.RetryCallState) -> float:
        ordered = None if state.outcome is None or state.outcome.failed else _ordered_wait(state.outcome.result())
        return doubled(state) if ordered is None else ordered

    def last(state: tenacity.RetryCallState) -> Any:
        assert state.outcome is not None
        return state.outcome.result()  # an answer that says no, or the error

    again = tenacity.retry_if_exception(is_transient) | tenacity.retry_if_result(
        lambda response: response.status_code in _TRANSIENT and (_ordered_wait(response) or 0) <= _LONGEST_ORDERED_WAIT
    )

    def send(request: Request, call: Callable[[Request], Response]) -> Response:
        trying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(retries + 1), wait=wait, retry=again, retry_error_callback=last
        )
        response: Response = trying(call, request)
        return response

    return send


def _ordered_wait(response: Response) -> int | None:
    """After how many seconds a server says to come back."""
    said = str(response.headers.get("Retry-After", ""))
    return int(said) if said.isdecimal() else None
