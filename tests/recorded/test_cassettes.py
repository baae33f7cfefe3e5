"""P38: what the cassettes hold, and that a replay is strict.

No network in any test; bodies matched as JSON; the same bytes whenever they are recorded; no header and no text that
says who asked; a cassette that is used in part fails its test.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from cassettes import BASE_URL, REQUEST_HEADERS, RESPONSE_HEADERS, SCRIPTED, ReadableYaml, same_json
from pytest_socket import SocketBlockedError
from scripted_server import CREATED, FAULTS
from vcr.request import Request
from vcr.serialize import deserialize, serialize

FOLDER = Path(__file__).parent
TESTS = FOLDER.parent
CASSETTES = sorted((FOLDER / "cassettes").rglob("*.yaml"))
LEAST = 25
MOST_BYTES = 2_000_000

SECRETS = {
    "a key": r"\b(?:sk|pk|rk|gsk|xai|ghp|gho|hf|AIza|AKIA)[-_]?[A-Za-z0-9_-]{16,}",
    "an authorization": r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}|authorization|api[-_]?key\s*[:=]",
    "an organization or a project": r"\b(?:org|proj|user)-[A-Za-z0-9]{8,}|openai-(?:organization|project)",
    "a token": r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a cookie": r"(?i)set-cookie|__cf_bm",
    "an address": r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])|\blocalhost\b",
    "a host": r"https?://(?!model\.invalid/)",
    "an e-mail": r"[\w.+-]+@[\w-]+\.\w+",
    "a directory of somebody": r"/(?:home|root|Users|tmp|work)/",
}
PLANTED = {
    "a key": "sk-proj-abcdefghijklmnop1234",
    "an authorization": "Bearer abcdefgh12345678",
    "an organization or a project": "Rate limit reached in organization org-AbCd1234EfGh",
    "a token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0",
    "a cookie": "Set-Cookie: session=1",
    "an address": "peer 10.0.0.7 closed",
    "a host": "https://api.openai.com/v1",
    "an e-mail": "ann@example.org",
    "a directory of somebody": "/home/ann/project",
}

pytestmark = pytest.mark.skipif(not CASSETTES, reason="the cassettes are being recorded")


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def interactions(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.load(text_of(path), getattr(yaml, "CSafeLoader", yaml.SafeLoader))[
        "interactions"
    ]
    return found


def secrets_in(text: str) -> list[str]:
    return [f"{what}: {match[0]}" for what, pattern in SECRETS.items() for match in re.finditer(pattern, text)]


# What they hold


def test_p38_no_cassette_holds_a_secret() -> None:
    """P38."""
    assert {path.name: found for path in CASSETTES if (found := secrets_in(text_of(path)))} == {}


@pytest.mark.parametrize("what", SECRETS)
def test_p38_the_scan_finds_each_kind_of_secret(what: str) -> None:
    """P38: a scan that cannot find anything would pass as well."""
    assert [found for found in secrets_in(f"says: {PLANTED[what]}, and more") if found.startswith(what)]


def test_p38_headers_are_those_that_say_nothing_of_who_asked() -> None:
    """P38: what is kept is listed, so that a new header of a client or a provider is left out."""
    for path in CASSETTES:
        for found in interactions(path):
            assert set(found["request"]["headers"]) <= REQUEST_HEADERS, path.name
            assert set(found["response"]["headers"]) <= RESPONSE_HEADERS, path.name
            assert found["request"]["uri"].startswith(f"{BASE_URL}/"), path.name


def test_every_cassette_says_in_its_first_line_where_its_answers_come_from() -> None:
    for path in CASSETTES:
        first = yaml.safe_load(text_of(path).partition("\nversion:")[0])
        assert first["recorded_from"] in (SCRIPTED, "a provider's model"), path.name


def test_every_cassette_is_written_as_it_would_be_recorded() -> None:
    """Whoever edits one by hand, or changes how they are written, records again."""
    for path in CASSETTES:
        writer = ReadableYaml(yaml.safe_load(text_of(path).partition("\nversion:")[0])["recorded_from"])
        requests, responses = deserialize(text_of(path), writer)
        assert serialize({"requests": requests, "responses": responses}, writer) == text_of(path), path.name


def test_p38_ids_and_times_of_the_scripted_server_are_the_same_at_each_recording() -> None:
    """P38: an id is a hash of what was asked, and the time stands still."""
    for path in CASSETTES:
        if SCRIPTED not in text_of(path)[:200]:
            continue
        for found in interactions(path):
            answer = found["response"]["body"].get("json")
            if isinstance(answer, dict) and "id" in answer:
                assert re.fullmatch(r"chatcmpl-[0-9a-f]{24}", answer["id"])
                assert answer["created"] == CREATED


def test_there_are_enough_of_them_and_they_are_small() -> None:
    assert len(CASSETTES) >= LEAST
    assert sum(path.stat().st_size for path in CASSETTES) < MOST_BYTES


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_the_scripted_server_was_met(fault: str) -> None:
    asked = {found["request"]["body"]["json"]["model"] for path in CASSETTES for found in interactions(path)}
    assert f"ft:gpt-4o-mini:scripted-{fault}" in asked


# Which tests they belong to


def test_every_recorded_test_has_its_cassette_and_none_is_left_over(cassettes_of_collected: set[str]) -> None:
    modules = {name.partition("/")[0] for name in cassettes_of_collected}
    there = {str(path.relative_to(FOLDER / "cassettes")) for path in CASSETTES}
    assert {name for name in there if name.partition("/")[0] in modules} == cassettes_of_collected
    assert {name.partition("/")[0] for name in there} <= {path.stem for path in FOLDER.glob("test_*.py")}


# How strict a replay is


@pytest.mark.filterwarnings("ignore:A test tried to use")
def test_p38_no_test_reaches_a_network() -> None:
    """P38: a recorded test is blocked as any other; its cassette answers above the socket."""
    with pytest.raises(SocketBlockedError):
        socket.create_connection(("127.0.0.1", 9))


def asking(body: Any, **dumped: Any) -> Request:
    return Request("POST", f"{BASE_URL}/chat/completions", json.dumps(body, **dumped), {})


def test_p38_bodies_are_the_same_as_json_and_a_difference_is_shown() -> None:
    """P38: order and spaces do not count, and of a long prompt the lines that differ are told."""
    body = {"model": "m", "messages": [{"role": "user", "content": "one\ntwo é\nthree"}]}
    same_json(asking(body), asking(dict(reversed(body.items())), indent=3, ensure_ascii=False))
    changed = {**body, "messages": [{"role": "user", "content": "one\n2\nthree"}]}
    with pytest.raises(AssertionError, match=r"(?s)recorded.*asked now.*-two é\n\+2") as told:
        same_json(asking(changed), asking(body))
    assert "model" not in str(told.value)
    with pytest.raises(AssertionError, match="temperature"):
        same_json(asking({**body, "temperature": 0}), asking(body))


TAMPERED = """
import httpx
import pytest

pytestmark = pytest.mark.vcr

@pytest.mark.parametrize("case", ["whole", "removed", "added", "missing", "swallowed"])
def test_tampered(case, provider):
    for text in ["I have a ship."] if case == "swallowed" else ["I have a boat.", "What colour has it?"]:
        try:
            httpx.post(f"{provider.base_url}/chat/completions", json={"text": text})
        except Exception:
            if case != "swallowed":
                raise
"""


def test_p38_a_cassette_that_is_used_in_part_or_lacks_something_fails_its_test(tmp_path: Path) -> None:
    """P38: in a folder of its own, with cassettes that were tampered with; a test that says nothing fails too."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    for name in ("conftest.py", "cassettes.py", "recorded_helpers.py"):
        shutil.copy(FOLDER / name, folder)
    (folder / "test_tampered.py").write_text(TAMPERED, encoding="utf-8")
    writer = ReadableYaml(SCRIPTED)
    shelf = folder / "cassettes" / "test_tampered"
    shelf.mkdir(parents=True)
    first, second, third = map(_answered, ("I have a boat.", "What colour has it?", "Who are you?"))
    for case, kept in {
        "whole": [first, second],
        "removed": [first],
        "added": [first, second, third],
        "swallowed": [first],  # by a client that makes something else of the error
    }.items():
        written = writer.serialize({"version": 1, "interactions": kept})
        (shelf / f"test_tampered[{case}].yaml").write_text(written, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", str(folder), "-c", str(TESTS.parent / "pyproject.toml"), "-n0", "-rA"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=TESTS,
    )
    found = re.findall(r"^(PASSED|FAILED|ERROR) \S*\[(\w+)\]", ran.stdout, re.MULTILINE)
    outcomes = {case: outcome for outcome, case in found}
    assert outcomes == {
        "whole": "PASSED", "removed": "FAILED", "added": "FAILED", "missing": "FAILED", "swallowed": "FAILED",
    }, ran.stdout  # fmt: skip
    assert "Never asked, but in the cassette" in ran.stdout
    assert "There is no cassette" in ran.stdout
    assert re.search(r"-\s*\"text\": \"I have a boat\.\"\n\+\s*\"text\": \"I have a ship\.\"", ran.stdout)
    assert "record.py" in ran.stdout


def _answered(text: str) -> dict[str, Any]:
    kind = {"content-type": ["application/json"]}
    uri = f"{BASE_URL}/chat/completions"
    return {
        "request": {"method": "POST", "uri": uri, "body": json.dumps({"text": text}), "headers": kind},
        "response": {"status": {"code": 200, "message": "OK"}, "headers": kind, "body": {"string": "{}"}},
    }
