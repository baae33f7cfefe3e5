"""Mixed work for a long time, as a server would have it: users and sessions come without end, and old ones come back.

    python tests/stress/soak.py --minutes 10 [--users 100] [--journal-url URL] [--qdrant URL] [--threads 4] [--objects]

A user has some ten sessions, and is erased when ``--users`` others came after, so that what is stored stays as much as
it is and nothing else may grow. With ``--users 0`` nobody is erased: an embedded engine then grows with what is stored.

Every 30 seconds it prints what it did and what it holds; at the end how long each operation took, and whether memory,
file descriptors and threads were flat in the second half: a least-squares line with its uncertainty. Where anonymous
memory grows and what is allocated does not (malloc's bytes, Python's blocks), nothing leaks: what is freed lies among
what is used, and the allocator keeps it.
With ``--objects`` it names the Python objects that became more, which takes a moment at each report.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import itertools
import math
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from memory_integrations import MemoryManager, ShortTermPolicy

WORDS = (
    "tea bread harbour Lisbon garden blue seven piano walked train rain letter never always quiet market river "
    "window summer doctor sister bicycle morning Vienna copper lantern paper island orchard winter engine"
).split()
CITIES = ("Lisbon", "Oslo", "Vienna", "Porto", "Lyon", "Turin")
SESSIONS_OF_A_USER = 10
LEAVING = 2
"""How many of the users who came first begin no more sessions: those that they have end before they are erased."""
UNITS = {
    "anonymous memory": "MB",
    "resident memory": "MB",
    "malloc in use": "MB",
    "Python's blocks": "k",
    "descriptors": "",
    "threads": "",
}


class Latencies:
    """How long operations took, in steps of 2 %: it must not grow itself."""

    _STEP = math.log(1.02)

    def __init__(self) -> None:
        self.counts: dict[str, Counter[int]] = {}
        self.longest: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def timed(self, operation: str) -> Iterator[None]:
        """Measure the body."""
        started = time.perf_counter()
        yield
        taken = time.perf_counter() - started
        with self._lock:
            self.counts.setdefault(operation, Counter())[round(math.log(max(taken, 1e-7)) / self._STEP)] += 1
            self.longest[operation] = max(taken, self.longest.get(operation, 0.0))

    def total(self) -> int:
        """How many operations there were."""
        with self._lock:
            return sum(map(Counter.total, self.counts.values()))

    def percentile(self, operation: str, share: float) -> float:
        """The seconds within which this share of the operations was done."""
        counts = self.counts[operation]
        seen, wanted = 0, share * counts.total()
        for step in sorted(counts):
            seen += counts[step]
            if seen >= wanted:
                return min(math.exp(step * self._STEP), self.longest[operation])
        return self.longest[operation]

    def table(self) -> str:
        """One line for each operation, in milliseconds."""
        lines = [f"{'operation':<16}{'times':>9}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>9}  (ms)"]
        for name, counts in sorted(self.counts.items()):
            cells = (*(self.percentile(name, share) for share in (0.5, 0.9, 0.99)), self.longest[name])
            lines.append(f"{name:<16}{counts.total():>9,}" + "".join(f"{cell * 1000:>9.2f}" for cell in cells))
        return "\n".join(lines)


@dataclass
class Sample:
    """What the process held at a moment."""

    seconds: float
    sessions: int
    held: dict[str, float]


@dataclass
class Soak:
    """The work itself, by several threads on one open memory."""

    memory: MemoryManager
    users: int
    latencies: Latencies = field(default_factory=Latencies)
    stop: threading.Event = field(default_factory=threading.Event)
    failed: list[BaseException] = field(default_factory=list)
    sessions: int = 0
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def work(self, seed: int) -> None:
        """Sessions, one after the other, until it is stopped."""
        choice = random.Random(seed)
        try:
            while not self.stop.is_set():
                number = next(self._numbers)
                self.session(number, choice)
                self.sessions = max(self.sessions, number + 1)
        except BaseException as error:
            self.failed.append(error)
            self.stop.set()

    def session(self, number: int, choice: random.Random) -> None:
        """One session from its beginning to its end, of a new user or of one who comes back."""
        latest = number // SESSIONS_OF_A_USER
        stay = self.users - LEAVING if self.users else latest
        user = choice.randint(max(latest - stay, 0), latest)
        timed, memory = self.latencies.timed, self.memory
        with timed("for_scope"):
            mine = memory.for_scope(f"user:{user}/session:{number}")
        for turn in range(choice.randint(2, 5)):
            said = f"Turn {turn} of {number}: {' '.join(choice.choices(WORDS, k=20))}."
            if turn == 1:
                said = f"I live in {choice.choice(CITIES)}. {said}"
            with timed("add_turn"):
                mine.add_turn(said, " ".join(choice.choices(WORDS, k=30)))
            with timed("get_context"):
                context = mine.get_context(" ".join(choice.choices(WORDS, k=4)), max_tokens=1000)
            assert said[:20] in context.combined, "what was just said is shown"
        with timed("set_fact"):
            mine.set_fact(choice.choice(WORDS), number)
        with timed("search"):
            mine.search_long_term(" ".join(choice.choices(WORDS, k=4)))
        with timed("manage"):
            mine.manage_short_term()
        if number % 10 == 0:
            with timed("file summary"):
                mine.store_file_summary("notes.txt", " ".join(choice.choices(WORDS, k=400)))
        if number % 20 == 0:
            with timed("clear_session"):
                mine.clear_session()
        if self.users and number % SESSIONS_OF_A_USER == 0 and latest >= self.users:
            with timed("erase"):
                memory.for_scope(f"user:{latest - self.users}").erase()


class MallocInfo(ctypes.Structure):
    """What glibc's ``mallinfo2`` gives, in bytes."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def malloc_in_use() -> int:
    """Bytes that are allocated, of heaps and of their own pages; 0 where the C library is not glibc 2.33 or later."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return 0
    ask.restype = MallocInfo
    info = ask()
    return int(info.uordblks + info.hblkhd)


def held() -> dict[str, float]:
    """What this process holds now, in :data:`UNITS`."""
    with open("/proc/self/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    return {
        "anonymous memory": int(fields["RssAnon"].split()[0]) / 1024,
        "resident memory": int(fields["VmRSS"].split()[0]) / 1024,
        "malloc in use": malloc_in_use() / 2**20,
        "Python's blocks": sys.getallocatedblocks() / 1000,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": int(fields["Threads"]),
    }


def slope(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """The slope of the least-squares line, and its standard error.

    What follows one after the other is alike: by the residuals' correlation there are fewer independent samples than
    samples, and the error is larger by as much.
    """
    n, mean_x, mean_y = len(xs), statistics.fmean(xs), statistics.fmean(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    if n < 4 or not spread:
        return 0.0, math.inf
    rise = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    left = [y - mean_y - rise * (x - mean_x) for x, y in zip(xs, ys, strict=True)]
    squares = sum(r * r for r in left)
    if squares < 1e-12:
        return rise, 0.0
    alike = min(max(sum(a * b for a, b in itertools.pairwise(left)) / squares, 0.0), 0.95)
    return rise, math.sqrt(squares / (n - 2) / spread * (1 + alike) / (1 - alike))


def verdict(name: str, samples: Sequence[Sample]) -> str:
    """Whether what is held was flat in these samples, in words and figures."""
    values = [sample.held[name] for sample in samples]
    hourly, error = slope([sample.seconds / 3600 for sample in samples], values)
    by_session, session_error = slope([sample.sessions / 1000 for sample in samples], values)
    if len(samples) < 4:
        what = "too short to tell"
    elif hourly > 2 * error:
        what = "grows"
    else:
        what = "flat"
    unit = UNITS[name]
    return (
        f"{name:<18}{values[0]:>8.1f} -> {values[-1]:>8.1f} {unit:<3}{hourly:>+10.1f} ± {2 * error:<8.1f}an hour "
        f"{by_session:>+8.3f} ± {2 * session_error:<7.3f}per 1,000 sessions   {what}"
    )


def objects() -> Counter[str]:
    """The Python objects that the collector knows, by type."""
    gc.collect()
    return Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())


def soak(options: argparse.Namespace, directory: str) -> int:
    """Work, report, and judge; the exit code."""
    policy = ShortTermPolicy(max_tokens=2000, compression_threshold=200)
    memory = MemoryManager(
        data_dir=directory, short_term_policy=policy, journal_url=options.journal_url, qdrant=options.qdrant
    )
    run = Soak(memory, options.users)
    threads = [threading.Thread(target=run.work, args=(seed,)) for seed in range(options.threads)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    samples: list[Sample] = []
    counted: list[tuple[int, Counter[str]]] = []
    reported, done_before, every = 0.0, 0, max(options.minutes * 60 / 400, 0.05)
    while (passed := time.monotonic() - began) < options.minutes * 60 and not run.stop.wait(every):
        samples.append(Sample(passed, run.sessions, held()))
        if passed - reported < options.report:
            continue
        done, now = run.latencies.total(), samples[-1].held
        print(
            f"{passed:>7.0f} s {(done - done_before) / (passed - reported):>8,.0f} operations/s {run.sessions:>8,} "
            f"sessions   {now['resident memory']:>7.1f} MB resident, {now['anonymous memory']:>7.1f} MB anonymous   "
            f"{now['descriptors']:>4.0f} descriptors   {now['threads']:>3.0f} threads",
            flush=True,
        )
        reported, done_before = passed, done
        if options.objects:
            counted.append((run.sessions, objects()))
    run.stop.set()
    for thread in threads:
        thread.join()
    print("", run.latencies.table(), "", "After warm-up (the second half):", sep="\n")
    second = samples[len(samples) // 2 :]
    for name in UNITS:
        print(verdict(name, second))
    if len(counted) > 1:
        show_objects(*counted[len(counted) // 2 - 1], *counted[-1])
    memory.close()
    for error in run.failed:
        print(f"FAILED: {type(error).__name__}: {error}", file=sys.stderr)
    return 1 if run.failed else 0


def show_objects(before: int, then: Counter[str], after: int, now: Counter[str]) -> None:
    """Print which objects became more between two moments."""
    print("", "Python objects that became more, per 1,000 sessions:", sep="\n")
    for name, more in (now - then).most_common(15):
        print(f"{more / max(after - before, 1) * 1000:>12,.0f}  {name}  ({now[name]:,} now)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with these arguments, or with the command line's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--users", type=int, default=100, help="how many stay; who came before is erased (0: all stay)")
    parser.add_argument("--journal-url", help="a database's URL instead of JSON Lines files")
    parser.add_argument("--qdrant", help="a server's URL instead of the embedded engine")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--report", type=float, default=30, help="seconds between reports")
    parser.add_argument("--objects", action="store_true", help="name the Python objects that become more")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        return soak(options, directory)


if __name__ == "__main__":
    sys.exit(main())
