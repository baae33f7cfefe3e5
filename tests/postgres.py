"""A throwaway PostgreSQL cluster, on a socket of its own; None with the reason where it cannot be had."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


def missing() -> str | None:
    """Why there can be no cluster; None where there can."""
    if not BINARIES and not shutil.which("initdb"):
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL does not run as root, and there is no user postgres"
    return None


@contextmanager
def cluster() -> Iterator[str]:
    """A running cluster; gives the URL of its database."""
    # Short, since the path of a socket may have some 100 characters.
    directory = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(directory, user.pw_uid, user.pw_gid)
        data = directory / "data"
        _run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        options = f"-c listen_addresses='' -c unix_socket_directories={directory} -c max_connections=200"
        _run("pg_ctl", "-D", data, "-w", "-l", directory / "log", "-o", options, "start")
        try:
            yield f"postgresql://postgres@/postgres?host={directory}"
        finally:
            _run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def new_database(server: str, encoding: str = "UTF8") -> str:
    """A new, empty database on a cluster."""
    import psycopg

    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
    return server.replace("/postgres?", f"/{name}?")


def restart(url: str) -> None:
    """Stop a cluster hard and start it again: every connection is cut."""
    directory = Path(url.partition("host=")[2])
    _run("pg_ctl", "-D", directory / "data", "-m", "immediate", "-w", "restart")


def _run(name: str, *arguments: object) -> None:
    binary = str(BINARIES[-1] / name) if BINARIES else name
    command = [binary, *map(str, arguments)]
    if os.geteuid() == 0:
        command = ["runuser", "-u", "postgres", "--", *command]
    # Not a pipe: the server inherits it, and reading would wait for its end.
    with tempfile.TemporaryFile("w+") as told:
        done = subprocess.run(command, stdout=told, stderr=subprocess.STDOUT, cwd="/", check=False)
        told.seek(0)
        assert done.returncode == 0, told.read()
