"""One process at a time in a directory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO

from memory_integrations.errors import StoreLockedError, StoreUnavailableError

__all__ = ["SERVER_HINT", "DirectoryLock"]

SERVER_HINT = 'run a Qdrant server and pass its URL (QdrantClient(url=...), or MemoryManager(qdrant="http://..."))'


class DirectoryLock:
    """A lock file, held from construction until :meth:`release` or the death of the process.

    Args:
        directory: where the file is; it names the process that holds it.

    Raises:
        StoreLockedError: another process holds the directory.
        StoreUnavailableError: the file cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        try:
            handle = open(directory / ".lock", "a+", encoding="ascii")  # noqa: SIM115
        except OSError as error:
            raise StoreUnavailableError(f"Cannot write in the store directory {directory}: {error}") from error
        if not _taken(handle):
            handle.seek(0)
            holder = handle.read().strip()
            handle.close()
            raise StoreLockedError(
                f"{directory} is held by another process{f' (pid {holder})' if holder else ''}: one process at a "
                f"time may open an embedded store. Close the other one, or {SERVER_HINT}"
            )
        with contextlib.suppress(OSError):  # a full disk has no room for the number, and can be read all the same
            handle.truncate(0)
            os.write(handle.fileno(), str(os.getpid()).encode())
        self._handle = handle

    def release(self) -> None:
        """Let another process in."""
        if not self._handle.closed:
            _let_go(self._handle)
            self._handle.close()

    def abandon(self) -> None:
        """Close a forked child's copy of the handle, which leaves the parent's lock to the parent."""
        self._handle.close()


try:
    import fcntl
except ImportError:  # not a POSIX system
    import portalocker

    def _taken(handle: IO[str]) -> bool:
        try:
            portalocker.lock(handle, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.exceptions.LockException:
            return False
        return True

    def _let_go(handle: IO[str]) -> None:
        portalocker.unlock(handle)

else:

    def _taken(handle: IO[str]) -> bool:
        # flock, not lockf: the latter would let a second handle of the same process in
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _let_go(handle: IO[str]) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)
