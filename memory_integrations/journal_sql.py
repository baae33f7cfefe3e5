"""The journal in a database, for several machines: PostgreSQL, or an SQLite file for a trial.

One table has an event a row, the same line of JSON as in a file; the other has a row for each scope: its latest
number, and a mark that tells a journal from the one before its erasure. A writer locks its scope's row, reads what
others wrote, and writes the next number: so all agree on one order.

SQLite leaves copies of rows in its pages where it balances them, and its ``secure_delete`` overwrites the rows alone.
So after a removal the tables are written anew, in new pages, and the former pages are overwritten as a whole; a third
table has a row as long as that is due. ``VACUUM`` would touch what other programs keep in the file.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

try:
    import sqlalchemy as sql
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
    from sqlalchemy.util import asbool
except ModuleNotFoundError as error:
    raise ImportError(
        f"journal_url needs {error.name}, which is not installed: pip install 'memory-integrations[postgres]'"
    ) from error

from memory_integrations.arrival import utc_now
from memory_integrations.errors import ScopeError, StoreCorruptedError, StoreUnavailableError
from memory_integrations.forks import inherited, waits_for
from memory_integrations.journal import (
    Event,
    OnEvent,
    OnReset,
    Repair,
    check_next,
    decode_event,
    encode_event,
    gaps,
    lost,
)
from memory_integrations.messages import as_utc
from memory_integrations.scopes import MemoryScope

_log = logging.getLogger("memory_integrations")
_INSERT = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
_WAIT = 30  # seconds for another writer
_SCHEMA_LOCK = 0x6D656D6F  # any number: whoever makes the tables holds it

_sqlite = threading.RLock()
"""SQLite takes the locks that its parent had on a file for its own in a forked process, and never gives them up. So a
fork waits until no thread has one."""
waits_for(_sqlite)

_metadata = sql.MetaData()
_scopes = sql.Table(
    "memory_journal_scopes",
    _metadata,
    sql.Column("scope_key", sql.Text, primary_key=True),
    sql.Column("scope", sql.Text, nullable=False),  # as JSON, since a database's text has no NUL
    sql.Column("mark", sql.Text, nullable=False),
    sql.Column("latest", sql.BigInteger, nullable=False),
)
_events = sql.Table(
    "memory_journal_events",
    _metadata,
    sql.Column("scope_key", sql.Text, primary_key=True),
    sql.Column("number", sql.BigInteger, primary_key=True),
    sql.Column("line", sql.Text, nullable=False),
)


@sql.event.listens_for(_metadata, "after_create")
def _keep_no_statistics(_: sql.MetaData, database: sql.Connection, tables: Sequence[sql.Table], **__: Any) -> None:
    """PostgreSQL's statistics would have what was said, beyond its erasure; every question goes by the primary key."""
    for table in tables if database.dialect.name == "postgresql" else ():
        for column in table.columns:
            if isinstance(column.type, sql.Text):
                database.exec_driver_sql(f"ALTER TABLE {table.name} ALTER COLUMN {column.name} SET STATISTICS 0")


_sqlite_only = sql.MetaData()
_unswept = sql.Table("memory_journal_unswept", _sqlite_only, sql.Column("mark", sql.Text, nullable=False))
_has_no_row = ~sql.exists().where(_scopes.c.scope_key == _events.c.scope_key)
_stray = (
    sql.select(_events.c.scope_key, sql.func.count().label("count")).where(_has_no_row).group_by(_events.c.scope_key)
)


class SqlJournal:
    """Journals in a database. The tables are made at the first write; where there are none, reading finds nothing.

    Args:
        url: ``postgresql://user:password@host/database``, or ``sqlite:///file.db``. PostgreSQL is spoken to by psycopg.
        clock: Gives the time of events, aware.

    Raises:
        StoreUnavailableError: The URL is none of these.
    """

    def __init__(self, url: str, clock: Callable[[], datetime] = utc_now) -> None:
        self.clock = clock
        self._url = _checked(url)
        self._lock = threading.Lock()
        self._engine: sql.Engine | None = None
        self._opened_by = 0
        self._is_there = False
        self._removals = threading.local()
        inherited(self)

    @property
    def place(self) -> str:
        """The URL, without its password, which may stand among its parameters too."""
        told = {name: value for name, value in self._url.query.items() if name in ("host", "port")}
        return self._url.set(query=told).render_as_string(hide_password=True)

    def exists(self) -> bool:
        """Whether its tables are there. Nothing is made, but for a table that is missing beside others.

        Raises:
            StoreUnavailableError: The database does not answer, or refuses.
        """
        if not self._is_there:
            with self._alone(), self._asking():
                there = self._tables() if self._has_file() else []
            if any(there) and not all(there):  # an earlier version made fewer
                self._create()
            if any(there) and self._is_sqlite:
                self._finish_sweeping()
            self._is_there = any(there)
        return self._is_there

    def open(self, scope: MemoryScope, on_event: OnEvent, on_reset: OnReset) -> SqlScopeJournal:
        """The journal of a scope; see :class:`memory_integrations.journal.Journal`."""
        journal = SqlScopeJournal(self, scope, on_event, on_reset)
        journal.refresh()
        return journal

    def scopes(self, owner: MemoryScope | None = None) -> list[MemoryScope]:
        """The scopes that have a journal, in the order of their keys; with ``owner`` those that are the owner's.

        Raises:
            StoreCorruptedError: A row names none.
            StoreUnavailableError: The database does not answer, or refuses.
        """
        wanted = sql.select(_scopes.c.scope).order_by(_scopes.c.scope_key)
        if owner is not None:
            wanted = wanted.where(_scopes.c.scope_key.startswith(owner.storage_prefix, autoescape=True))
        if not self.exists():
            return []
        with self.reading() as database:
            found = [_scope_of(row) for row in database.execute(wanted).scalars()]
        return [scope for scope in found if owner is None or scope.owner == owner]

    def check(self, scope: MemoryScope) -> None:
        """See that the rows of a scope are those that were written.

        Raises:
            StoreCorruptedError: Some are missing, or there are more than were counted.
            StoreUnavailableError: The database does not answer, or refuses.
        """
        if not self.exists():
            return
        with self.reading() as database:
            latest, numbers = _numbers(database, scope)
        missing = gaps(numbers, latest)
        if missing or numbers[latest:]:
            told = ", ".join(f"{gap[0]} to {gap[-1]}" if len(gap) > 1 else f"{gap[0]}" for gap in missing[:5])
            what = f"events [{told}] of {scope} are missing" if missing else f"{scope} has events after the latest"
            raise StoreCorruptedError(
                f"A journal in {self.place} is damaged: {what} (latest: {latest}). Nothing was changed. Run "
                "`memory-integrations doctor --repair`, which puts a mark in the place of what is lost and keeps all "
                "else; then `import` a backup, which puts back what it has of it."
            )

    def repair(self, scope: MemoryScope) -> Repair:
        """Put a mark in the place of every row that is missing.

        Raises:
            StoreUnavailableError: The database does not answer, or refuses.
        """
        row = sql.select(_scopes.c.latest).where(_scopes.c.scope_key == scope.storage_key)
        with self.writing() as database:
            if database.execute(row.with_for_update()).one_or_none() is None:
                return Repair()
            latest, numbers = _numbers(database, scope)
            marks = [lost(number) for gap in gaps(numbers, latest) for number in gap]
            if marks or numbers[latest:]:
                _insert(database, scope, marks)
                fresh = {"latest": max([latest, *numbers]), "mark": os.urandom(8).hex()}
                database.execute(sql.update(_scopes).where(_scopes.c.scope_key == scope.storage_key).values(fresh))
        return Repair(lost=len(marks), is_ordered=bool(numbers[latest:]))

    def strays(self) -> Mapping[str, int]:
        """How many events there are of scopes whose row is missing, by their keys.

        Raises:
            StoreUnavailableError: The database does not answer, or refuses.
        """
        if not self.exists():
            return {}
        with self.reading() as database:
            found = database.execute(_stray.order_by(_events.c.scope_key))
            return {row[0]: row[1] for row in found}

    def close(self) -> None:
        """Give the connections back; a journal that is used again connects anew."""
        with self._lock:
            engine, self._engine, self._is_there = self._engine, None, False
        if engine is not None:
            with self._alone():
                engine.dispose(close=self._opened_by == os.getpid())

    def leave_to_parent(self) -> None:
        """In a forked process: the lock is the parent's, as its connections are."""
        self._lock, self._removals = threading.Lock(), threading.local()

    @contextmanager
    def reading(self) -> Iterator[sql.Connection]:
        """A connection that reads, where the tables are there.

        Raises:
            StoreUnavailableError: The database does not answer, or refuses.
        """
        with self._alone(), self._asking(), self._connected().connect() as database:
            yield database

    @contextmanager
    def writing(self) -> Iterator[sql.Connection]:
        """A connection within a transaction, which is committed at the end.

        Raises:
            StoreCorruptedError: The database's files are damaged.
            StoreUnavailableError: The database does not answer, or refuses; nothing was written, unless the message
                says otherwise.
        """
        if not self.exists():
            self._create()
        with self._alone(), self._asking(), self._connected().connect() as database:
            if self._is_sqlite:  # a file has one writer, and its lock is taken at once
                database.exec_driver_sql("BEGIN IMMEDIATE")
            yield database
            try:
                database.commit()
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                raise StoreUnavailableError(
                    f"The connection to the database {self.place} was lost while it committed "
                    f"({_one_line(error.orig)}). Whether this call was written is not known: read it before you repeat "
                    "it."
                ) from error

    @contextmanager
    def removing(self) -> Iterator[None]:
        """What the body removes is physically gone afterwards from SQLite's file; see :class:`Journal`.

        Raises:
            StoreUnavailableError: It is removed, and the file could not be written anew.
        """
        is_within = getattr(self._removals, "are_under_way", False)
        self._removals.are_under_way = True
        try:
            yield
        finally:
            self._removals.are_under_way = is_within
        if not is_within and self._is_sqlite and self.exists():
            with self._alone():
                self._sweep(self._connected())

    def removed_from(self, database: sql.Connection) -> None:
        """Note within a transaction that something was removed."""
        if self._is_sqlite:
            database.execute(sql.delete(_unswept))
            database.execute(sql.insert(_unswept).values(mark=os.urandom(8).hex()))

    def insert(self, table: sql.Table) -> Any:
        """The database's own insert, which can pass over a row that is there."""
        return _INSERT[self._url.get_backend_name()](table)

    # Inside

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @property
    def _metadata(self) -> Sequence[sql.MetaData]:
        """What its tables are."""
        return (_metadata, _sqlite_only) if self._is_sqlite else (_metadata,)

    def _alone(self) -> AbstractContextManager[Any]:
        """Held for a call, so that no fork comes into one of SQLite."""
        return _sqlite if self._is_sqlite else nullcontext()

    def _has_file(self) -> bool:
        """Whether there is a file to read; where its directory is missing, or shut, that is not known."""
        if not self._is_sqlite:
            return True
        file = _file_of(self._url)
        try:
            file.parent.stat()
            return file.exists()
        except OSError as error:
            raise StoreUnavailableError(
                f"The database {self.place} cannot be used ({error.strerror}). Nothing was written by this call. See "
                "that its directory is there, and may be read."
            ) from error

    def _tables(self) -> list[bool]:
        """Which of its tables are there."""
        inspected = sql.inspect(self._connected())
        if inspected.default_schema_name is None:
            raise StoreUnavailableError(
                f"The database {self.place} has no schema that this user may use, where tables could be. Grant USAGE "
                "on one, or name one in the search_path."
            )
        return [inspected.has_table(name) for metadata in self._metadata for name in metadata.tables]

    def _create(self) -> None:
        """Make the tables that are missing."""
        with self._alone(), self._asking():
            if self._is_sqlite:
                with suppress(OSError):  # what cannot be made here cannot be opened either, and then it is said
                    _file_of(self._url).touch(mode=0o600)  # SQLite itself lets everybody read it
            with self._connected().connect() as database:
                if self._is_sqlite:
                    database.exec_driver_sql("BEGIN IMMEDIATE")
                else:
                    database.execute(sql.select(sql.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
                for metadata in self._metadata:
                    metadata.create_all(database)
                database.commit()
        self._is_there = True

    def _connected(self) -> sql.Engine:
        with self._lock:
            if self._engine is not None and self._opened_by == os.getpid():
                return self._engine
            if self._engine is not None:  # of the parent process, which goes on using its connections
                self._engine.dispose(close=False)
            try:
                self._engine = _engine(self._url)
            except ModuleNotFoundError as error:
                raise StoreUnavailableError(
                    f"journal_url of {self._url.drivername} needs {error.name}, which is not installed. {_EXPECTED}"
                ) from error
            self._opened_by = os.getpid()
            return self._engine

    def _finish_sweeping(self) -> None:
        """Write the tables anew where a process died before it did."""
        try:
            with self._alone():
                self._sweep(self._connected())
        except StoreUnavailableError as error:
            _log.warning("%s", error)

    def _sweep(self, engine: sql.Engine) -> None:
        """Write SQLite's tables anew, where something was removed since it was done the last time."""
        with self._asking(), engine.connect() as database:
            if database.execute(sql.select(_unswept.c.mark)).first() is None:
                return
            try:
                database.exec_driver_sql("BEGIN IMMEDIATE")
                mark = database.execute(sql.select(_unswept.c.mark)).scalar()
                for table in _metadata.sorted_tables:
                    new = table.to_metadata(sql.MetaData(), name=f"{table.name}_new")
                    new.create(database)
                    database.execute(new.insert().from_select(table.columns.keys(), sql.select(table)))
                    table.drop(database)
                    database.exec_driver_sql(f"ALTER TABLE {new.name} RENAME TO {table.name}")
                database.commit()
                _empty_log(database)
                database.execute(sql.delete(_unswept).where(_unswept.c.mark == mark))
            except (DBAPIError, TimeoutError) as error:
                raise StoreUnavailableError(
                    f"What was removed is in no table of {self.place} any more, but these could not be written anew "
                    f"({_one_line(getattr(error, 'orig', error))}): parts of it may still be between the pages of the "
                    "file. See that the disk has space for the tables once more and that nobody reads for long, and do "
                    "it again."
                ) from error

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if _is_damage(error.orig):
                raise StoreCorruptedError(
                    f"The database {self.place} is damaged, or is none ({_one_line(error.orig)}). Nothing was written "
                    "by this call. Restore it from a backup."
                ) from error
            raise StoreUnavailableError(
                f"The database {self.place} did not do what was asked of it ({_one_line(error.orig)}). Nothing was "
                "written by this call. See that it runs, that the user may create and write tables, and that the disk "
                "has space."
            ) from error
        except SQLAlchemyError as error:
            raise StoreUnavailableError(
                f"The database {self.place} cannot be used ({type(error).__name__}: {_one_line(error)}). Nothing was "
                "written by this call."
            ) from error


class SqlScopeJournal:
    """The events of one scope. See :class:`memory_integrations.journal.ScopeJournal`."""

    def __init__(
        self,
        journal: SqlJournal,
        scope: MemoryScope,
        on_event: OnEvent,
        on_reset: OnReset,
    ) -> None:
        self.scope = scope
        self._journal = journal
        self._key = scope.storage_key
        self._on_event = on_event
        self._on_reset = on_reset
        self._mutex = threading.RLock()
        self._mark: str | None = None
        self._seen = 0
        inherited(self)

    def append(self, kind: str, data: Mapping[str, Any]) -> Event:
        """Write an event; when this returns, it is committed.

        Raises:
            StoreCorruptedError: A row that others wrote is no event.
            StoreUnavailableError: The database does not answer, or refuses.
            ValueError: The data are no JSON.
        """
        with self._mutex:
            moment = as_utc(self._journal.clock())
            encode_event(Event(0, moment, kind, data))  # what is no JSON begins no transaction
            return self._add(lambda latest: [Event(latest + 1, moment, kind, data)])[0]

    def extend(self, events: Sequence[Event]) -> None:
        """Write events as they are; see :class:`memory_integrations.journal.ScopeJournal`.

        Raises:
            StoreCorruptedError: A row that others wrote is no event.
            StoreUnavailableError: The first is not the next, or the database does not answer, or refuses.
        """

        def checked(latest: int) -> Sequence[Event]:
            check_next(events, latest, self.scope)
            return events

        if events:
            with self._mutex:
                self._add(checked)

    def revise(self, revised: Callable[[Event], Event]) -> int:
        """Put other events in the place of some; see :class:`memory_integrations.journal.ScopeJournal`.

        For what a database keeps of former rows see :meth:`erase`.

        Raises:
            StoreCorruptedError: A row is no event.
            StoreUnavailableError: The database does not answer, or refuses.
        """
        with self._journal.removing(), self._mutex:
            with self._journal.writing() as database:
                row = database.execute(self._row().with_for_update()).one_or_none()
                mark, before = (None, []) if row is None else (row.mark, self._read(database))
                events = [revised(event) for event in before]
                changes = [now for event, now in zip(before, events, strict=True) if now is not event]
                for now in changes:
                    place = (_events.c.scope_key == self._key) & (_events.c.number == now.number)
                    database.execute(sql.update(_events).where(place).values(line=encode_event(now)))
                if changes:
                    mark = os.urandom(8).hex()
                    self._update(database, mark=mark)
                    self._journal.removed_from(database)
            self._hand_over(mark, events if mark != self._mark else events[self._seen :])
        return len(changes)

    def refresh(self) -> None:
        """Hand the events that others wrote to the subscriber.

        Raises:
            StoreCorruptedError: A row is no event.
            StoreUnavailableError: The database does not answer, or refuses.
        """
        with self._mutex:
            if not self._journal.exists():
                self._hand_over(None, [])
                return
            with self._journal.reading() as database:
                row = database.execute(self._row()).one_or_none()
                mark, latest = (None, 0) if row is None else (row.mark, row.latest)
                seen = self._seen if mark == self._mark else 0
                is_new = row is not None and (mark, latest) != (self._mark, self._seen)  # strays are nobody's
                others = self._read(database, seen) if is_new else []
            self._hand_over(mark, others)

    def erase(self) -> int:
        """Remove every event of the scope; returns how many there were.

        What PostgreSQL keeps of deleted rows is its own: in the table until it vacuums, and in its write-ahead log.

        Raises:
            StoreUnavailableError: The database does not answer, or refuses; or it is removed, and SQLite's file could
                not be written anew.
        """
        with self._journal.removing(), self._mutex:
            with self._journal.writing() as database:
                gone = sql.delete(_events).where(_events.c.scope_key == self._key)
                if database.execute(self._row().with_for_update()).one_or_none() is not None:
                    count = database.execute(gone).rowcount
                    database.execute(sql.delete(_scopes).where(_scopes.c.scope_key == self._key))
                    self._journal.removed_from(database)
                elif count := database.execute(gone.where(_has_no_row)).rowcount:
                    # Without a row nothing is locked: whoever begins to write meanwhile must not lose theirs to this.
                    self._journal.removed_from(database)
            self._hand_over(None, [])
        return count

    def close(self) -> None:
        """Nothing is held between calls."""

    def leave_to_parent(self) -> None:
        """In a forked process: all is read anew, since a thread of the parent may have been half way."""
        self._mutex = threading.RLock()
        self._mark = ""  # which no journal has, not even none

    # Inside

    def _add(self, made: Callable[[int], Sequence[Event]]) -> Sequence[Event]:
        """Write the events that follow the latest one, whose number ``made`` is given."""
        with self._journal.writing() as database:
            mark, latest = self._locked(database)
            others = self._read(database, self._seen if mark == self._mark else 0)
            events = made(latest)
            _insert(database, self.scope, events)
            self._update(database, latest=events[-1].number)
        self._hand_over(mark, [*others, *events])
        return events

    def _update(self, database: sql.Connection, **fields: Any) -> None:
        database.execute(sql.update(_scopes).where(_scopes.c.scope_key == self._key).values(fields))

    def _row(self) -> Any:
        return sql.select(_scopes.c.mark, _scopes.c.latest).where(_scopes.c.scope_key == self._key)

    def _locked(self, database: sql.Connection) -> tuple[str, int]:
        """The scope's mark and its latest number, no one else's to change until the transaction ends."""
        while True:
            fresh = {"scope_key": self._key, "scope": json.dumps(str(self.scope)), "mark": os.urandom(8).hex()}
            database.execute(self._journal.insert(_scopes).values(**fresh, latest=0).on_conflict_do_nothing())
            row = database.execute(self._row().with_for_update()).one_or_none()
            if row is not None:  # else it was erased between the two
                return row.mark, row.latest

    def _read(self, database: sql.Connection, after: int = 0) -> list[Event]:
        """The events after a number."""
        rows = database.execute(
            sql.select(_events.c.number, _events.c.line)
            .where(_events.c.scope_key == self._key, _events.c.number > after)
            .order_by(_events.c.number)
        )
        return [self._decoded(row.number, row.line) for row in rows]

    def _decoded(self, number: int, line: str) -> Event:
        try:
            return decode_event(number, line)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise StoreCorruptedError(
                f"Row {number} of {self.scope} in memory_journal_events is no journal event: {line[:60]!r}. Nothing "
                "was changed. Restore the row from a backup."
            ) from None

    def _hand_over(self, mark: str | None, events: list[Event]) -> None:
        is_void, self._mark = mark != self._mark and self._seen > 0, mark
        self._seen = events[-1].number if events else 0 if is_void else self._seen
        if is_void:
            self._on_reset(events)
            return
        for event in events:
            self._on_event(event)


def _scope_of(row: str) -> MemoryScope:
    try:
        return MemoryScope.parse(json.loads(row))
    except (ValueError, ScopeError):
        raise StoreCorruptedError(
            f"A row of memory_journal_scopes names no scope: {row[:80]!r}. Nothing was changed. Restore it from a "
            "backup."
        ) from None


def _numbers(database: sql.Connection, scope: MemoryScope) -> tuple[int, list[int]]:
    """The latest number of a scope, and those of its rows, in order: as one moment has them."""
    both = _scopes.outerjoin(_events, _scopes.c.scope_key == _events.c.scope_key)
    wanted = sql.select(_scopes.c.latest, _events.c.number).select_from(both).order_by(_events.c.number)
    rows = database.execute(wanted.where(_scopes.c.scope_key == scope.storage_key)).all()
    return rows[0].latest if rows else 0, [row.number for row in rows if row.number is not None]


def _insert(database: sql.Connection, scope: MemoryScope, events: Sequence[Event]) -> None:
    rows = [{"scope_key": scope.storage_key, "number": one.number, "line": encode_event(one)} for one in events]
    if rows:
        database.execute(sql.insert(_events), rows)


def _empty_log(database: sql.Connection) -> None:
    """Empty SQLite's write-ahead log, where it has one: it has the former pages.

    Raises:
        TimeoutError: Others kept reading what is in it.
    """
    until = time.monotonic() + _WAIT
    while database.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar():
        if time.monotonic() > until:
            raise TimeoutError("others read, so that its -wal file has to stay")
        time.sleep(0.01)


def _is_damage(error: BaseException | None) -> bool:
    """Whether a driver's error says that what is stored cannot be read."""
    code = getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or ""
    return code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "XX001", "XX002"))


def _one_line(error: object) -> str:
    """What an error says first; what follows may be the rows themselves."""
    return next(iter(str(error).splitlines()), "")[:200]


def _checked(url: str) -> sql.URL:
    try:
        made = sql.make_url(url)
        made.render_as_string(hide_password=False).encode()  # a lone surrogate is no Unicode
        backend = made.get_backend_name()
    except (ArgumentError, SQLAlchemyError, ValueError) as error:
        raise StoreUnavailableError(
            f"journal_url: this is no database's URL ({type(error).__name__}). {_EXPECTED}"
        ) from error
    if backend not in _INSERT or (backend == "sqlite" and made.database in (None, "", ":memory:")):
        raise StoreUnavailableError(f"journal_url of {made.drivername}. {_EXPECTED}")
    try:
        dialect = made.get_dialect()
        if dialect.is_async:
            raise ValueError("it is for event loops alone")
        dialect().create_connect_args(made)
    except (ArgumentError, ValueError) as error:
        raise StoreUnavailableError(
            f"journal_url of {made.drivername}: its parameters cannot be used ({_one_line(error)}). {_EXPECTED}"
        ) from error
    if made.drivername == "postgresql":
        made = made.set(drivername="postgresql+psycopg")
    return made


_EXPECTED = "Expected postgresql://user:password@host/database, or sqlite:///file.db."


def _file_of(url: sql.URL) -> Path:
    """SQLite's file, which a URI may name."""
    name = url.database or ""
    if not (name.startswith("file:") and asbool(url.query.get("uri", False))):
        return Path(name)
    path = unquote(name.removeprefix("file:"))
    return Path("/" + path[2:].partition("/")[2] if path.startswith("//") else path)


def _engine(url: sql.URL) -> sql.Engine:
    if url.get_backend_name() != "sqlite":
        # A connection that a restart of the server or a firewall cut is found out before it is used.
        # Others' defaults: a writer that waited for its turn must see what was written meanwhile.
        engine = sql.create_engine(
            url.update_query_dict({"client_encoding": "utf8"}),
            pool_pre_ping=True, pool_recycle=1800, isolation_level="READ COMMITTED", hide_parameters=True,
        )  # fmt: skip

        @sql.event.listens_for(engine, "connect")
        def _limit(connection: Any, _: Any) -> None:
            """Let nobody wait for ever for a machine that vanished within its transaction, unless told otherwise."""
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT set_config('lock_timeout', %s, false) WHERE current_setting('lock_timeout') = '0'",
                    [f"{_WAIT}s"],
                )
                cursor.execute("SHOW server_encoding")
                encoding = cursor.fetchone()[0]
            connection.commit()
            if encoding != "UTF8":  # it lacks characters, or takes any bytes for some
                connection.close()
                raise StoreUnavailableError(
                    f"journal_url: the database {url.database!r} cannot keep every text, since its encoding is "
                    f"{encoding}. Create one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and name "
                    "that; pg_dump and psql bring over what this one has."
                )

        return engine
    engine = sql.create_engine(url.update_query_dict({"timeout": str(_WAIT), **url.query}), hide_parameters=True)

    @sql.event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun here, and not by the driver
        connection.execute("PRAGMA secure_delete=ON")  # most of what is removed goes at once

    return engine
