"""Hypothesis profiles, and what many tests start from: a clock, a directory of facts, a fresh interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import postgres
import pytest
from fresh import fresh_python
from hypothesis import HealthCheck, settings
from qdrant_server.fixtures import localhost, qdrant_server
from strategies import Clock, FewOpen

from memory_integrations import FeatureMemory, MemoryManager, MemoryScope, TokenCounter
from memory_integrations.features import open_shelves
from memory_integrations.journal_files import JsonlJournal

__all__ = ["localhost", "qdrant_server"]

_COMMON = {
    "deadline": None,
    "suppress_health_check": [
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,  # a conformance suite has several classes
    ],
}
# The same examples at every run: a run that fails must fail for what was changed. Others come with "benchmark".
settings.register_profile("default", max_examples=60, stateful_step_count=25, derandomize=True, **_COMMON)
settings.register_profile("benchmark", max_examples=1000, stateful_step_count=50, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_MEMORY_DISK = Path("/dev/shm")
if _MEMORY_DISK.is_dir() and os.access(_MEMORY_DISK, os.W_OK) and shutil.disk_usage(_MEMORY_DISK).free > 4 << 30:
    # The engine makes files of 32 MiB for every collection: on a disk the tests would mostly wait for those.
    for _variable in ("PYTEST_DEBUG_TEMPROOT", "TMPDIR"):
        os.environ.setdefault(_variable, str(_MEMORY_DISK))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Long runs are asked for: a run of all tests must stay short."""
    parser.addoption(
        "--long",
        action="store_true",
        help="Give the tests that search at random, by repetition or by load their full length: minutes, not seconds.",
    )


RunPython = Callable[..., "subprocess.CompletedProcess[str]"]
OpenFacts = Callable[..., FeatureMemory]
OpenManager = Callable[..., MemoryManager]


@pytest.fixture(scope="session")
def long_run(request: pytest.FixtureRequest) -> bool:
    """Whether this run has the time for the full length of a test (``--long``)."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server of this test run's own."""
    if (why := postgres.missing()) is not None:
        pytest.skip(why)
    pytest.importorskip("psycopg")
    with postgres.cluster() as url:
        yield url


@pytest.fixture(params=["files", "sqlite", "postgresql"])
def journal_url(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """Every journal there is, as ``MemoryManager(journal_url=)``: files, SQLite, and an empty PostgreSQL database."""
    if request.param == "files":
        return None
    pytest.importorskip("sqlalchemy")
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/journal.db"
    return postgres.new_database(request.getfixturevalue("postgresql"))


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until it is advanced."""
    return Clock()


@pytest.fixture(scope="session")
def counter() -> TokenCounter:
    """The default counter; its encoding is loaded once."""
    return TokenCounter()


@pytest.fixture
def open_facts(tmp_path: Path, clock: Clock) -> Iterator[OpenFacts]:
    """Opens the facts of a scope; each call opens the directory anew, as another process would."""
    journals = FewOpen()

    def open_facts(scope: str | MemoryScope = "user:ann") -> FeatureMemory:
        return FeatureMemory(open_shelves(journals.add(JsonlJournal(tmp_path, clock))), MemoryScope.parse(scope))

    yield open_facts
    journals.close()


@pytest.fixture
def manager(tmp_path: Path, clock: Clock) -> Iterator[OpenManager]:
    """Opens managers on one directory; those of one name share their open stores."""
    opened: list[MemoryManager] = []

    def manager(scope: str = "user:ann/session:s1", **options: Any) -> MemoryManager:
        opened.append(MemoryManager(scope, data_dir=tmp_path / "data", clock=clock, **options))
        return opened[-1]

    yield manager
    for one in opened:
        one.close()


@pytest.fixture
def run_python() -> RunPython:
    """Runs code in a fresh interpreter; see :func:`fresh_python`."""
    return fresh_python
