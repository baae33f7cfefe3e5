"""What a cassette holds, how it is written, and how a request finds its answer in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import unified_diff
from typing import Any
from unittest.mock import patch

import httpx
import yaml
from vcr.cassette import Cassette
from vcr.errors import CannotOverwriteExistingCassetteException
from vcr.request import Request

BASE_URL = "http://model.invalid/v1"
"""What stands in every cassette for the address of whoever answered."""
SCRIPTED = "tests/recorded/scripted_server.py: an HTTP server that answers by rules, not a model"
FAILED = "x-recorded-failure"
"""The header of an answer that never came: which exception httpx raised instead."""
REQUEST_HEADERS = frozenset(("content-type",))
RESPONSE_HEADERS = frozenset(("content-type", "retry-after-ms", FAILED))
"""All others are left out: some say who asks, from where and with which key."""
RECORD_AGAIN = "If the change is meant, record again: python tests/recorded/record.py"


# Writing and reading


class ReadableYaml:
    """vcrpy's YAML with JSON bodies spelled out, and a first line that says where the answers come from."""

    def __init__(self, recorded_from: str) -> None:
        self._recorded_from = recorded_from

    def serialize(self, cassette: dict[str, Any]) -> str:
        interactions = [
            {
                "request": {**found["request"], "body": _spelled_out(found["request"]["body"])},
                "response": {**found["response"], "body": _spelled_out(found["response"]["body"]["string"])},
            }
            for found in cassette["interactions"]
        ]
        data = {"recorded_from": self._recorded_from, "version": cassette["version"], "interactions": interactions}
        return yaml.dump(data, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=120)

    def deserialize(self, text: str) -> dict[str, Any]:
        cassette: dict[str, Any] = yaml.load(text, _Loader)
        for found in cassette["interactions"]:
            found["request"]["body"] = _as_sent(found["request"]["body"])
            found["response"]["body"] = {"string": _as_sent(found["response"]["body"])}
        return cassette


def _spelled_out(body: str) -> dict[str, Any]:
    try:
        return {"json": json.loads(body)}
    except ValueError:
        return {"text": body}


def _as_sent(body: dict[str, Any]) -> str:
    return json.dumps(body["json"], ensure_ascii=False) if "json" in body else body["text"]


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Several lines as several lines, a vector on few."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _text(dumper: Any, text: str) -> Any:
    plain = "\n" in text and not any(mark in text for mark in "\r\x85\u2028\u2029")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if plain else None)


def _list(dumper: Any, items: list[Any]) -> Any:
    numbers = bool(items) and all(isinstance(item, int | float) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=numbers)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)


# What is kept of a request and an answer


def neutral_request(base_url: str) -> Callable[[Request], Request]:
    """A request without who asked whom: what is compared, and what is written down."""

    def neutral(request: Request) -> Request:
        request.uri = request.uri.replace(base_url, BASE_URL, 1)
        request.headers = _only(dict(request.headers), REQUEST_HEADERS)
        return request

    return neutral


def neutral_response(response: dict[str, Any]) -> dict[str, Any]:
    """An answer without the headers that say to whom it was given."""
    return {**response, "headers": _only(response["headers"], RESPONSE_HEADERS)}


def _only(headers: dict[str, Any], allowed: frozenset[str]) -> dict[str, Any]:
    return {name.lower(): value for name, value in headers.items() if name.lower() in allowed}


# Matching


def same_json(asked: Request, recorded: Request) -> None:
    """Bodies are the same as JSON."""
    if json.loads(asked.body) != json.loads(recorded.body):
        raise AssertionError(difference(asked, recorded))


def difference(asked: Request, recorded: Request) -> str:
    """The lines in which two bodies differ."""
    return "\n".join(unified_diff(_lines(recorded), _lines(asked), "recorded", "asked now", lineterm="", n=1))


def _lines(request: Request) -> list[str]:
    told = json.dumps(json.loads(request.body), ensure_ascii=False, indent=1, sort_keys=True)
    return told.replace("\\n", "\n").split("\n")


def _unanswered(asked: Request, cassette: Cassette) -> str:
    left = [recorded for i, recorded in enumerate(cassette.requests) if not cassette.play_counts[i]]
    told = min((difference(asked, recorded) for recorded in left), key=len, default="Nothing is left in it.")
    return f"The cassette has no answer to this {asked.method} {asked.path}; of what is left in it the closest:\n{told}"


def complaints(cassette: Cassette, unmatched: list[str]) -> list[str]:
    """What is wrong with the way a test used its cassette: nothing, where each answer was played once."""
    if not len(cassette):
        return ["There is no cassette, or nothing in it.", *unmatched]
    if unmatched:
        return unmatched
    unused = [request for i, request in enumerate(cassette.requests) if not cassette.play_counts[i]]
    return [f"Never asked, but in the cassette: {request.uri}, {request.body[-500:]!r}" for request in unused]


# Answers that never came


@contextmanager
def watched(cassette: Cassette) -> Iterator[list[str]]:
    """Records and replays what vcrpy does not: that no answer came, and httpx raised instead.

    Where a recording met a timeout or a connection that broke, the cassette names the exception, and a replay raises it
    at once: the client's handling of it is real, the waiting is not. Gives the requests for which the cassette has no
    answer; clients hide that behind errors of their own.
    """
    unmatched: list[str] = []
    send, asend = httpx.Client.send, httpx.AsyncClient.send

    def noted(request: httpx.Request, error: Exception) -> None:
        if isinstance(error, CannotOverwriteExistingCassetteException):
            unmatched.append(_unanswered(error.failed_request, cassette))
        elif isinstance(error, httpx.TransportError):
            body = {"string": str(error).encode()}
            status = {"code": 599, "message": type(error).__name__}
            asked = Request(request.method, str(request.url), request.content, dict(request.headers))
            cassette.append(asked, {"status": status, "headers": {FAILED: [type(error).__name__]}, "body": body})

    def watching(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        try:
            response = send(self, request, **options)
        except Exception as error:
            noted(request, error)
            raise
        if FAILED in response.headers:
            raise getattr(httpx, response.headers[FAILED])(response.read().decode(), request=request)
        return response

    async def awatching(self: httpx.AsyncClient, request: httpx.Request, **options: Any) -> httpx.Response:
        try:
            response = await asend(self, request, **options)
        except Exception as error:
            noted(request, error)
            raise
        if FAILED in response.headers:
            raise getattr(httpx, response.headers[FAILED])((await response.aread()).decode(), request=request)
        return response

    with (
        patch.object(httpx.Client, "send", watching),
        patch.object(httpx.AsyncClient, "send", awatching),
    ):
        yield unmatched
