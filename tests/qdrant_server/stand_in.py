"""The stand-in itself: two ports over one storage, the faults that tests order, and what it was asked."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qdrant_client import models as m

from qdrant_server.operations import OPERATIONS, Asked, Code, Cut, Refused, Storage, perform
from qdrant_server.rest import RestServer
from qdrant_server.rpc import RpcServer

HOST = "127.0.0.1"
PORTS = range(20_000, 32_000)
"""Below those that systems give to outgoing connections, so that a port is still free when a server starts again."""
_SECRETS = frozenset(("api-key", "authorization"))


@dataclass
class Fault:
    """What is done in place of answering, so many times: of one operation, or of any."""

    times: int
    only: str | None
    refused: Refused | None = None
    cut: Literal["before", "after"] | None = None
    held: bool = False


class StandIn:
    """A server that stands in for Qdrant; see the package. As a context manager it is started and closed.

    Args:
        api_key: The key that requests must carry; None asks for none. It may be changed at any time.
        read_only_key: A key that may only read.
        strict_mode: What holds for collections that say nothing else, as an operator sets it.
    """

    def __init__(
        self,
        api_key: str | None = None,
        read_only_key: str | None = None,
        strict_mode: m.StrictModeConfig | None = None,
    ) -> None:
        self.api_key, self.read_only_key = api_key, read_only_key
        self.storage = Storage(strict_mode)
        self.port = self.grpc_port = 0
        self.asked: list[Asked] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._gate = threading.Event()
        self._servers: list[RestServer | RpcServer] = []

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def asked_for(self, *operations: str) -> list[Asked]:
        """The requests of these operations, in the order in which they came."""
        assert OPERATIONS.keys() >= set(operations), operations
        with self._lock:
            return [asked for asked in self.asked if asked.operation in operations]

    # Running

    def start(self) -> None:
        """Listen: at first on two ports next to each other, as Qdrant's 6333 and 6334 are, later on the same again."""
        assert not self._servers, "it runs"
        self._gate.clear()
        for port in [self.port] if self.port else random.sample(PORTS, 100):
            servers: list[RestServer | RpcServer] = []
            try:
                servers.append(RestServer((HOST, port), self.answer))
                servers.append(RpcServer((HOST, port + 1), self.answer))
            except (OSError, RuntimeError):  # somebody else has one of the two
                for server in servers:
                    server.stop()
            else:
                self.port, self.grpc_port, self._servers = port, port + 1, servers
                return
        raise RuntimeError("no two free ports next to each other")

    def stop(self) -> None:
        """Stop listening; what is stored stays, as on a disk. Answers that are kept back are let go first."""
        self.release()
        while self._servers:
            self._servers.pop().stop()

    def close(self) -> None:
        """Stop, and forget what is stored."""
        self.stop()
        self.storage.engine.close()

    def __enter__(self) -> StandIn:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Faults, for the next answers. What asks for the version is spared: a client does so by itself, at any time.

    def refuse(
        self,
        code: Code,
        times: int = 1,
        *,
        only: str | None = None,
        retry_after: int | None = None,
        told: str = "ordered by the test",
    ) -> None:
        """Refuse the next requests."""
        self._order(Fault(times, only, refused=Refused(code, told, retry_after)))

    def cut(self, when: Literal["before", "after"], times: int = 1, *, only: str | None = None) -> None:
        """End the connections of the next requests without an answer, before or after they are done.

        Over gRPC the client is told what gRPC tells of a connection that ended: UNAVAILABLE.
        """
        self._order(Fault(times, only, cut=when))

    def hold(self, times: int = 1, *, only: str | None = None) -> None:
        """Do the next requests, and keep their answers back until :meth:`release`."""
        self._gate.clear()
        self._order(Fault(times, only, held=True))

    def release(self) -> None:
        """Let all answers go that are kept back, and keep back no more."""
        with self._lock:
            self._faults = [fault for fault in self._faults if not fault.held]
        self._gate.set()

    def mend(self) -> None:
        """Take back all faults that were ordered."""
        with self._lock:
            self._faults.clear()
        self._gate.set()

    def _order(self, fault: Fault) -> None:
        assert fault.only is None or fault.only in OPERATIONS, fault.only
        with self._lock:
            self._faults.append(fault)

    def _next_fault(self, operation: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.only == operation or (fault.only is None and operation != "version"):
                    fault.times -= 1
                    if not fault.times:
                        self._faults.remove(fault)
                    return fault
        return None

    # Answering

    def answer(self, asked: Asked, headers: Mapping[str, str], read: Callable[[], Any]) -> Any:
        """What both protocols ask.

        Args:
            asked: What is asked, still without its body.
            headers: The request's headers, or its metadata.
            read: Gives the body, or refuses it; called when the key is found right.

        Raises:
            Refused: The request is refused.
            Cut: There is to be no answer.
        """
        asked.headers = {name: value for name, value in headers.items() if name not in _SECRETS}
        asked.key = bool(_SECRETS & headers.keys())
        with self._lock:
            self.asked.append(asked)
        try:
            self._check_key(asked, headers)
            asked.body = read()
            fault = self._next_fault(asked.operation)
            if fault is not None and fault.refused is not None:
                raise fault.refused
            if fault is not None and fault.cut == "before":
                raise Cut
            result = perform(self.storage, asked)
            if fault is not None and fault.held:
                self._gate.wait()
            if fault is not None and fault.cut == "after":
                raise Cut
        except Refused as refused:
            asked.answer = refused.code.name
            raise
        except Cut:
            asked.answer = "CUT"
            raise
        asked.answer = Code.OK.name
        return result

    def _check_key(self, asked: Asked, headers: Mapping[str, str]) -> None:
        if self.api_key is None and self.read_only_key is None:
            return
        if asked.operation == "version" and asked.protocol == "rest":  # whoever asks may know that
            return
        given = headers.get("api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if not given:
            raise Refused(Code.UNAUTHORIZED, "Must provide an API key or an Authorization bearer token")
        if given != self.api_key and given != self.read_only_key:
            raise Refused(Code.UNAUTHORIZED, "Invalid API key or JWT")
        if OPERATIONS[asked.operation].writes and given != self.api_key:
            raise Refused(Code.FORBIDDEN, "Forbidden: Global access is required")
