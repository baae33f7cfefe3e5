"""The soak program for some seconds, and its verdict's arithmetic. For minutes: ``python tests/stress/soak.py``."""

from __future__ import annotations

import random

import pytest
import soak
from soak import Latencies, Sample, slope, verdict


def test_a_short_soak_works_and_reports(capsys: pytest.CaptureFixture[str], long_run: bool) -> None:
    minutes = "1" if long_run else "0.025"
    assert soak.main(["--minutes", minutes, "--report", "0.5", "--threads", "4", "--users", "3", "--objects"]) == 0
    told = capsys.readouterr().out
    for operation in ("add_turn", "get_context", "set_fact", "manage", "search"):
        assert any(line.startswith(operation) for line in told.splitlines()), told
    for measure in soak.UNITS:
        assert measure in told.partition("After warm-up")[2]
    assert "operations/s" in told and "descriptors" in told


def test_a_slope_is_told_from_noise() -> None:
    chance = random.Random(0)
    xs = [float(x) for x in range(200)]
    noise = [chance.gauss(0, 1) for _ in xs]
    rise, error = slope(xs, [0.5 * x + n for x, n in zip(xs, noise, strict=True)])
    assert rise == pytest.approx(0.5, abs=2 * error) and error < 0.01
    rise, error = slope(xs, noise)
    assert abs(rise) < 2 * error
    # What wanders is no trend because there are many samples of it.
    wandering = [sum(noise[: n + 1]) for n in range(len(xs))]
    assert slope(xs, wandering)[1] > 5 * slope(xs, noise)[1]


def test_the_verdict_names_what_grows() -> None:
    def samples(*values: float) -> list[Sample]:
        return [Sample(n, n * 10, dict.fromkeys(soak.UNITS, value)) for n, value in enumerate(values)]

    assert verdict("threads", samples(*range(50))).endswith("grows")
    assert verdict("threads", samples(*[7] * 50)).endswith("flat")
    assert verdict("threads", samples(1, 2)).endswith("too short to tell")


def test_percentiles_are_within_their_step() -> None:
    latencies = Latencies()
    for _ in range(100):
        with latencies.timed("nothing"):
            pass
    assert latencies.total() == 100
    assert 0 <= latencies.percentile("nothing", 0.5) <= latencies.percentile("nothing", 0.99)
    assert latencies.percentile("nothing", 1.0) <= latencies.longest["nothing"]
