"""Fixtures for the tests of the embedded engine."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from edge_helpers import ROOT

from memory_integrations.qdrant_edge import QdrantEdgeClient


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory that does not exist yet."""
    return tmp_path / "vectors"


@pytest.fixture
def client(directory: Path) -> Iterator[QdrantEdgeClient]:
    """An open client on a new directory."""
    with QdrantEdgeClient(directory) as opened:
        yield opened


@pytest.fixture
def python() -> Callable[..., subprocess.Popen[str]]:
    """Start a script in another process."""

    def start(script: str, *arguments: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start
