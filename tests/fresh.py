"""A fresh interpreter, for what must be seen from the outside, and what that needs to be there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest


def fresh_python(code: str, *args: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter; a failure shows what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 0, done.stderr
    return done


def skip_without_frameworks(code: str) -> None:
    """Skip a test of code that imports a framework which is not installed."""
    for name in re.findall(r"^\s*(?:from|import) (langchain|llama_index)\b", code, re.MULTILINE):
        pytest.importorskip(name)
