"""Records the cassettes again: ``python tests/recorded/record.py``, with what pytest is to take besides.

Without a key the scripted server is started and asked, which is no model. With ``OPENAI_API_KEY`` and
``OPENAI_BASE_URL`` in the environment that provider is asked, for the models of ``MEMORY_RECORDING_MODEL`` and
``MEMORY_RECORDING_EMBEDDING``; the tests of faults, which no provider gives when asked, keep their cassettes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cassettes import SCRIPTED
from scripted_server import running

FOLDER = Path(__file__).parent
SECRETS = ("OPENAI_API_KEY", "OPENAI_BASE_URL")


def record(arguments: list[str]) -> int:
    """Run the recorded tests against whoever answers; returns pytest's exit code."""
    if all(os.environ.get(name) for name in SECRETS):
        return _run("vcr and not scripted", ["--force-enable-socket"], "a provider's model", {}, arguments)
    with running() as base_url:
        given = dict(zip(SECRETS, ("none", base_url), strict=True))
        return _run("vcr", ["--allow-hosts=127.0.0.1"], SCRIPTED, given, arguments)


def _run(marks: str, sockets: list[str], recorded_from: str, given: dict[str, str], arguments: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", str(FOLDER), "-m", marks, "--record-mode=rewrite", *sockets, *arguments]
    return subprocess.call(
        command, cwd=FOLDER.parent.parent, env={**os.environ, **given, "MEMORY_RECORDING_FROM": recorded_from}
    )


if __name__ == "__main__":
    sys.exit(record(sys.argv[1:]))
