"""What the stress tests share: a PostgreSQL server of their own."""

from __future__ import annotations

from collections.abc import Iterator

import postgres
import pytest


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL server of this test run's own."""
    if (why := postgres.missing()) is not None:
        pytest.skip(why)
    pytest.importorskip("psycopg")
    with postgres.cluster() as url:
        yield url
