"""The command line: ``memory-integrations``.

Its two libraries come with the extra ``cli``. Where one is missing, running it says so in one line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

try:
    from memory_integrations.cli.program import app, build_app, main
except KeyboardInterrupt:  # before the program began
    sys.exit(130)
except ModuleNotFoundError as error:
    _missing = (error.name or "").partition(".")[0]
    if _missing not in ("typer", "rich"):
        raise

    def main(arguments: Sequence[str] | None = None) -> int:
        """Say what is missing."""
        print(f"memory-integrations needs {_missing}: pip install 'memory-integrations[cli]'", file=sys.stderr)
        return 2


__all__ = ["app", "build_app", "main"]
