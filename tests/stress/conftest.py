"""What the stress tests share: processes that have loaded everything."""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def workers() -> ForkServerContext:
    """Where workers come from: a process that has loaded everything, and opened nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["crash_work", "damage_work"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        forkserver.ensure_running()
    return context
