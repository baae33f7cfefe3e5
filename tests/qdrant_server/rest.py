"""The REST endpoints: routes, bodies as qdrant-client's models read them, and Qdrant's envelope."""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from qdrant_server.operations import OPERATIONS, Asked, Code, Cut, Refused

LARGEST_BODY = 32 << 20
"""Qdrant's ``max_request_size_mb``."""
_COLLECTION = "/collections/{collection}"
ROUTES = {
    ("GET", "/"): "version",
    ("GET", "/collections"): "get_collections",
    ("GET", "/aliases"): "get_aliases",
    ("POST", "/collections/aliases"): "update_aliases",
    ("GET", f"{_COLLECTION}/exists"): "collection_exists",
    ("GET", f"{_COLLECTION}/aliases"): "get_collection_aliases",
    ("GET", _COLLECTION): "get_collection",
    ("PUT", _COLLECTION): "create_collection",
    ("PATCH", _COLLECTION): "update_collection",
    ("DELETE", _COLLECTION): "delete_collection",
    ("PUT", f"{_COLLECTION}/index"): "create_field_index",
    ("DELETE", f"{_COLLECTION}/index/{{field_name}}"): "delete_field_index",
    ("PUT", f"{_COLLECTION}/points"): "upsert",
    ("POST", f"{_COLLECTION}/points"): "retrieve",
    ("POST", f"{_COLLECTION}/points/delete"): "delete",
    ("POST", f"{_COLLECTION}/points/scroll"): "scroll",
    ("POST", f"{_COLLECTION}/points/count"): "count",
    ("POST", f"{_COLLECTION}/points/query"): "query",
    ("POST", f"{_COLLECTION}/points/query/batch"): "query_batch",
    ("POST", f"{_COLLECTION}/points/batch"): "batch_update",
    ("POST", f"{_COLLECTION}/points/payload"): "set_payload",
    ("PUT", f"{_COLLECTION}/points/payload"): "overwrite_payload",
    ("POST", f"{_COLLECTION}/points/payload/delete"): "delete_payload",
    ("POST", f"{_COLLECTION}/points/payload/clear"): "clear_payload",
    ("PUT", f"{_COLLECTION}/points/vectors"): "update_vectors",
    ("POST", f"{_COLLECTION}/points/vectors/delete"): "delete_vectors",
    ("POST", f"{_COLLECTION}/facet"): "facet",
}
PROBES = {"/healthz": "healthz check passed", "/livez": "healthz check passed", "/readyz": "all shards are ready"}
_PATTERNS = [
    (method, re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path)), operation)
    for (method, path), operation in ROUTES.items()
]

Answer = Callable[[Asked, Mapping[str, str], Callable[[], Any]], Any]


class RestServer(ThreadingHTTPServer):
    """Listens from its making to :meth:`stop`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], answer: Answer) -> None:
        self.answer = answer
        super().__init__(address, _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), name="qdrant-rest", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    server: RestServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        started = time.perf_counter()
        path = urlsplit(self.path)
        if path.path in PROBES:
            self._send(Code.OK.http, PROBES[path.path].encode(), "text/plain")
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = self._asked(path.path, dict(parse_qsl(path.query)))
            result = self.server.answer(asked, headers, functools.partial(_body, asked.operation, raw))
        except Cut:
            self.close_connection = True
            return
        except Refused as refused:
            if refused.code is Code.UNAUTHORIZED:  # said before there is an envelope
                self._send(refused.code.http, refused.message.encode(), "text/plain")
                return
            more = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
            told: dict[str, Any] = {"status": {"error": refused.message}, "time": time.perf_counter() - started}
            self._send(refused.code.http, json.dumps(told).encode(), "application/json", more)
            return
        if self.path == "/":
            body = to_json(result)
        else:
            body = to_json({"result": result, "status": "ok", "time": time.perf_counter() - started})
        self._send(Code.OK.http, body, "application/json")

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

    def _asked(self, path: str, parameters: dict[str, str]) -> Asked:
        for method, pattern, operation in _PATTERNS:
            found = pattern.fullmatch(path) if method == self.command else None
            if found is not None:
                names = {name: unquote(value) for name, value in found.groupdict().items()}
                asked = Asked(operation, "rest", names.pop("collection", None))
                asked.options = {**parameters, **names}
                if "wait" in parameters:
                    asked.options["wait"] = parameters["wait"] == "true"
                return asked
        raise Refused(Code.NOT_FOUND, f"The stand-in has no {self.command} {path}")

    def _send(self, status: int, body: bytes, kind: str, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@functools.cache
def _reader(operation: str) -> TypeAdapter[Any]:
    return TypeAdapter(OPERATIONS[operation].body)


def _body(operation: str, raw: bytes) -> Any:
    if OPERATIONS[operation].body is None:
        return None
    if len(raw) > LARGEST_BODY:
        told = f"JSON payload ({len(raw)} bytes) is larger than allowed (limit: {LARGEST_BODY} bytes)."
        raise Refused(Code.BAD_REQUEST, told)
    try:
        return _reader(operation).validate_json(raw)
    except ValidationError as error:
        raise Refused(Code.BAD_REQUEST, f"Format error in JSON body: {error}") from error
