"""Processes that write facts of one scope at once, on each journal: how many a second, and that none is lost.

    python tests/benchmarks/journal_writers.py [--processes 8] [--writes 1000]

The floor is one process alone on the same journal. PostgreSQL is a throwaway cluster on a socket, which syncs to its
disk at each commit, as it does by default; files are left to the operating system.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import postgres

from memory_integrations import FeatureMemory, MemoryScope
from memory_integrations.features import open_shelves
from memory_integrations.journal import Journal
from memory_integrations.journal_files import JsonlJournal
from memory_integrations.journal_sql import SqlJournal

SCOPE = MemoryScope("ann")


def opened(place: str) -> Journal:
    return SqlJournal(place) if "://" in place else JsonlJournal(place)


def write(place: str, worker: int, writes: int) -> None:
    journal = opened(place)
    features = FeatureMemory(open_shelves(journal), SCOPE)
    for number in range(writes):
        features.set(f"fact {worker}", number)
    journal.close()


def timed(place: str, processes: int, writes: int) -> float:
    """Writes a second, of all processes together."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=write, args=(place, worker, writes)) for worker in range(processes)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    return processes * writes / (time.perf_counter() - started)


def history(place: str) -> int:
    """How many versions the facts have, in order for each writer."""
    journal = opened(place)
    features = FeatureMemory(open_shelves(journal), SCOPE)
    facts = [fact for key in features.all() if (fact := features.get_with_history(key)) is not None]
    for fact in facts:
        assert [version.value for version in fact.history] == list(range(len(fact.history)))
    journal.close()
    return sum(len(fact.history) for fact in facts)


@contextlib.contextmanager
def places(directory: Path) -> Iterator[dict[str, Callable[[str], str]]]:
    with contextlib.ExitStack() as stack:
        found: dict[str, Callable[[str], str]] = {
            "files": lambda name: str(directory / name),
            "SQLite": lambda name: f"sqlite:///{directory}/{name}.db",
        }
        if (why := postgres.missing()) is None:
            url = stack.enter_context(postgres.cluster())
            import psycopg

            def database(name: str) -> str:
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE {name}")
                return url.replace("/postgres?", f"/{name}?")

            found["PostgreSQL"] = database
        else:
            print(f"PostgreSQL is left out: {why}")
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--writes", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, places(Path(directory)) as found:
        for name, place in found.items():
            alone = timed(place("alone"), 1, options.writes)
            together = place("together")
            rate = timed(together, options.processes, options.writes)
            count = history(together)
            expected = options.processes * options.writes
            print(
                f"{name:<11} {count:,} of {expected:,} in the history; {rate:,.0f} writes a second by "
                f"{options.processes} processes, {alone:,.0f} by one"
            )
            assert count == expected


if __name__ == "__main__":
    main()
