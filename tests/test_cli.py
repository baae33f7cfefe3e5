"""The command line, on the real engine: what it prints, what it stores, and how it fails."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import GenericFakeChatModel
from qdrant_server.stand_in import StandIn

from memory_integrations import MemoryManager, MemoryScope, Message, StoreCorruptedError
from memory_integrations.collection import MemoryCollection
from memory_integrations.journal_files import JsonlJournal

pytest.importorskip("typer")

from memory_integrations import cli

DATA = Path(__file__).parent / "data"
COMMANDS = (
    "demo ingest search context chat manage stats doctor reembed optimize export import migrate erase facts".split()
)
FACT_COMMANDS = ["list", "set", "history", "delete", "undo", "repair"]


@dataclass(frozen=True)
class Ran:
    """What a run of the program left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "memory"


@pytest.fixture
def run(data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the program in this process, 80 columns wide, not at a terminal, its memory in ``data_dir``."""
    monkeypatch.setenv("MEMORY_INTEGRATIONS_DATA_DIR", str(data_dir))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("MEMORY_INTEGRATIONS_MODEL", raising=False)

    def run(*arguments: object, typed: str = "") -> Ran:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Ran(code, printed.out, printed.err)

    return run


@contextmanager
def memory_of(data_dir: Path, scope: str = "user:me") -> Iterator[MemoryManager]:
    with MemoryManager(scope, data_dir=data_dir) as memory:
        yield memory


def lines(path: Path, count: int, start: int = 0, **fields: Any) -> Path:
    """A file of messages without ids or sessions."""
    said = ({"role": "user", "content": f"Line {i} is about {i * 7919}.", **fields} for i in range(start, count))
    path.write_text("".join(json.dumps(message) + "\n" for message in said), encoding="utf-8")
    return path


# The program


def test_help_of_every_command(run: Run) -> None:
    for command in ([], *([name] for name in COMMANDS), *(["facts", name] for name in FACT_COMMANDS)):
        ran = run(*command, "--help")
        assert (ran.code, ran.err) == (0, ""), command
        assert "Usage: " in ran.out
        assert max(map(len, ran.out.splitlines())) <= 80
    assert "Exit codes: 0 done" in run("--help").out
    assert run().out == run("--help").out
    assert run("facts").out == run("facts", "-h").out
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", run("--version").out)


def test_help_loads_no_engine(run_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """So that it answers at once."""
    code = "import sys; from memory_integrations.cli import main; main(['ingest', '--help']); print(*sys.modules)"
    loaded = set(run_python(code).stdout.splitlines()[-1].split())
    assert "typer" in loaded
    assert not loaded & {
        "qdrant_client",
        "qdrant_edge",
        "langchain_core",
        "langchain",
        "llama_index",
        "numpy",
        "tiktoken",
    }


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_the_extra_one_line_says_what_to_install(
    module: str, run_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None; from memory_integrations.cli import main; print(main(['demo']))"
    )
    ran = run_python(code)
    assert ran.stdout == "2\n"
    assert ran.stderr == f"memory-integrations needs {module}: pip install 'memory-integrations[cli]'\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["serch"], 2, "No such command 'serch'"),
        (["search"], 2, "Missing argument"),
        (["search", "x", "--limit", "0"], 2, "--limit"),
        (["search", "x", "--limit", "9" * 20], 2, "--limit"),
        (["search", "x", "--nonsense"], 2, "--nonsense"),
        (["search", "x", "--since", "yesterday"], 2, "'--since': 'yesterday': expected ISO 8601"),
        (["ingest", DATA / "messages.jsonl", "--language", "klingon"], 2, 'unsupported language: "klingon"'),
        (["search", "x", "--scope", "nobody"], 2, "expected 'global', 'user:ID'"),
        (["facts", "set", "", "x"], 2, "expected a non-empty string"),
        (["facts", "list", "--scope", "user:a/session:b/session:c"], 2, "two ways"),
        (["search", "x"], 1, "there is no memory in"),
        (["context", "x"], 1, "there is no memory in"),
        (["stats"], 1, "there is no memory in"),
        (["reembed"], 1, "there is no memory in"),
        (["facts", "list"], 1, "there is no memory in"),
        (["facts", "undo"], 1, "there is no memory in"),
        (["facts", "repair"], 1, "there is no memory in"),
        (["facts", "repair", "--scope", ""], 1, "there is no memory in"),
        (["demo", "--scope", "global"], 2, "expected user:ID"),
        (["chat", "--max-tokens", "-1"], 2, "max_tokens=-1"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    run: Run, data_dir: Path, arguments: list[str], code: int, message: str
) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert re.fullmatch(r"memory-integrations: .+\n", ran.err)
    assert message in ran.err
    assert not data_dir.exists()  # a wrong command leaves nothing behind


def test_a_negative_budget(run: Run) -> None:
    run("facts", "set", "a", "1")
    ran = run("context", "x", "--max-tokens", "-4")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "max_tokens=-4" in ran.err


def test_debug_shows_where_an_error_comes_from(run: Run, data_dir: Path) -> None:
    run("facts", "set", "a", "1")
    _damage(data_dir)
    assert run("facts", "list").code == 1
    with pytest.raises(StoreCorruptedError):
        run("--debug", "facts", "list")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A directory that holds no memory."""
    directory = tmp_path / "photos"
    directory.mkdir()
    (directory / "a.txt").write_text("hi")
    return directory


READING = (
    "search x,context x,stats,manage,optimize,reembed,doctor,erase --yes,export all.jsonl,migrate --to-data-dir moved,"
    "facts list"
).split(",")


@pytest.mark.parametrize("command", [*READING, "facts repair"])
def test_a_directory_without_a_memory_stays_as_it_is(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A mistyped directory must not look like a memory that is well and empty, nor like one that was saved."""
    monkeypatch.chdir(photos.parent)
    ran = run(*command.split(), "--data-dir", photos)
    assert (ran.code, ran.out) == (1, "")
    assert f"there is no memory in {photos}" in ran.err
    assert list(photos.parent.rglob("*")) == [photos, photos / "a.txt"]


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("is_there", [False, True])
def test_a_database_without_a_memory_stays_as_it_is(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch, command: str, is_there: bool
) -> None:
    pytest.importorskip("sqlalchemy")
    monkeypatch.chdir(photos)
    if is_there:
        with closing(sqlite3.connect("memry.db")) as database:
            database.execute("CREATE TABLE others (one)")
    before = {path: path.read_bytes() for path in photos.iterdir()}
    ran = run("--journal-url", "sqlite:///memry.db", *command.split())
    assert (ran.code, ran.out) == (1, "")
    assert re.search("there is no memory in .* or sqlite:///memry.db.* name another --journal-url", ran.err)
    assert {path: path.read_bytes() for path in photos.iterdir()} == before


def test_memories_whose_facts_are_looked_for_in_another_database_say_so(run: Run, told: Path, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path}/memry.db"
    for command in (["search", "piano"], ["facts", "list"], ["export", tmp_path / "a.jsonl"], ["doctor"]):
        ran = run("--journal-url", url, *command)
        assert (ran.code, ran.err) == (0, f"note: no facts were ever written to {url}, the --journal-url\n")
    assert not (tmp_path / "memry.db").exists()


def test_a_memory_of_facts_alone_is_read(run: Run, data_dir: Path) -> None:
    run("facts", "set", "city", "Porto")
    assert not (data_dir / "vectors").exists()
    assert "Porto" in run("context", "x").out
    assert run("search", "x") == Ran(0, "", "Nothing found in user:me.\n")
    assert run("stats", "--json").json["features"] == {"facts": 1}


def test_a_memory_elsewhere_needs_no_directory(run: Run, data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    url = ("--journal-url", f"sqlite:///{tmp_path}/journal.db")
    run(*url, "facts", "set", "city", "Porto")
    assert not data_dir.exists()
    assert run(*url, "facts", "list", "--json").json == {"city": "Porto"}
    assert run(*url, "stats", "--json").json["features"] == {"facts": 1}


@pytest.mark.parametrize("command", ["stats", "facts list", "facts repair", "facts set a b"])
def test_a_directory_of_a_user_who_is_not_there(run: Run, command: str) -> None:
    ran = run(*command.split(), "--data-dir", "~nosuchuser/x")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "'~nosuchuser/x'" in ran.err


def test_a_memory_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    for command in (["facts", "set", "a", "1"], ["ingest", DATA / "messages.jsonl"]):
        ran = run(*command, "--data-dir", tmp_path / "taken" / "memory")
        assert (ran.code, ran.err.count("\n")) == (1, 1)


def test_a_memory_that_another_process_holds(run: Run, data_dir: Path) -> None:
    code = (
        "import sys; from memory_integrations import MemoryManager as M; memory = M('user:me', data_dir=sys.argv[1]);"
        "memory.add_turn('a question', 'an answer'); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        ran = run("search", "question")
        assert (ran.code, ran.err.count("\n")) == (1, 1)
        assert "held by another process" in ran.err
        assert "--qdrant http" in ran.err and "QdrantClient(" not in ran.err
        assert run("facts", "set", "a", "1").code == 0  # facts need no engine
        holder.communicate("")
    assert "a question" in run("search", "question").out


def test_an_output_that_is_not_utf8(run: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with memory_of(data_dir) as memory:
        memory.add_turn("Kaffee in Köln ☕", "…")
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    assert run("context", "Köln").code == 0
    printed = written.getvalue().decode("ascii")
    assert "Kaffee in K?ln ?" in printed
    assert re.search(r"^-+\.+$", printed, re.MULTILINE)  # the bar


def test_json_loses_nothing_to_an_output_that_is_not_utf8(
    run: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with memory_of(data_dir) as memory:
        memory.add_turn("Ein Café in 日本 ☕", "…")
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="latin-1", write_through=True))
    assert run("search", "Café", "--json").code == 0
    assert "Ein Café in 日本 ☕" in json.loads(written.getvalue().decode("latin-1"))[0]["text"]


class _Broken(io.StringIO):
    """An output that fails."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


def test_an_output_that_fails(run: Run, told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, code, message in (
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ):
        monkeypatch.setattr("sys.stdout", _Broken(error))
        ran = run("facts", "list")
        assert ran.code == code
        assert message in ran.err
    monkeypatch.setattr("sys.stdout", _Broken(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        run("--debug", "facts", "list")


def test_a_memory_of_another_embedding(run: Run, data_dir: Path) -> None:
    with MemoryManager("user:me", data_dir=data_dir, embeddings=DeterministicFakeEmbedding(size=8)) as memory:
        memory.add_turn("hello", "hi")
    ran = run("search", "hello")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "DeterministicFakeEmbedding" in ran.err
    assert "`memory-integrations reembed`" in ran.err
    assert run("reembed").code == 0
    assert "hello" in run("search", "hello").out


def test_a_move_to_a_memory_of_another_embedding_advises_only_what_can_be_said(
    run: Run, data_dir: Path, tmp_path: Path
) -> None:
    for directory, language in ((data_dir, "english"), (tmp_path / "other", "german")):
        with MemoryManager("user:me", data_dir=directory, language=language) as memory:
            memory.add_turn("hello", "hi")
    ran = run("migrate", "--to-data-dir", tmp_path / "other")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "`memory-integrations reembed`" in ran.err
    assert "--language" not in ran.err
    assert "--language" in run("search", "hello", "--language", "german").err


# demo


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The demo's output as another program gets it, and the memory that it kept."""
    directory = tmp_path_factory.mktemp("demo")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("COLUMNS", "80")
        patch.chdir(directory)
        assert cli.main(["demo", "--data-dir", str(directory / "kept")]) == 0
    assert err.getvalue() == ""
    assert [path.name for path in directory.iterdir()] == ["kept"]
    return out.getvalue(), directory / "kept"


def test_the_demo_shows_a_memory_work(demo: tuple[str, Path]) -> None:
    out, _ = demo
    assert re.search(r"^  2025-01-12-coffee +name, city, favourite_drink", out, re.MULTILINE)
    assert re.search(r"^13 sessions in \d+\.\d s: 306 messages in long-term memory, \d+ facts by rules\.$", out, re.M)
    for key, before, after in (
        ("city", "Gothenburg", "Lisbon"),
        ("favourite_drink", "coffee", "tea"),
        ("dog_name", "Pedro", "Biscuit"),
    ):
        assert re.search(rf"^{key} +{before} +{after} +\d+ \w+ 2025 +s\d+-\d+", out, re.MULTILINE), key
    assert re.search(r"^0\.\d\d ✓ 6 May 2025 Maya: I uploaded lease\.pdf", out, re.MULTILINE)
    assert re.search(r"\d+ of the sample's 12 questions find one", out)
    assert "<memory:facts>\n" in out and "<memory:recalled>\n" in out
    assert '"dog_name": "Biscuit"' in out and "Clause 9 asks for written consent" in out
    assert "of 220 tokens" in out and "Left out (budget): " in out
    assert out.rstrip().splitlines()[-4] == "Next"


def test_the_demo_names_commands_that_can_be_run(run: Run, demo: tuple[str, Path], tmp_path: Path) -> None:
    directory = tmp_path / "my dir"
    shown = run("demo", "--data-dir", directory, "--scope", "user:a b").out
    for line in re.findall(r"^  memory-integrations (.*user.*)$", shown, re.MULTILINE):
        assert run(*shlex.split(line)).code == 0
    assert f"--scope 'user:a b' --data-dir '{directory}'" in shown


def test_the_demo_reads_well_in_a_pipe(demo: tuple[str, Path]) -> None:
    out, _ = demo
    assert "\x1b" not in out and "\r" not in out
    prompt = out[out.index("<memory:facts>") : out.rindex("</memory:recalled>")]
    around = out.replace(prompt, "")
    assert max(map(len, around[: around.index("Next")].splitlines())) <= 80
    assert len(out.splitlines()) <= 72


def test_the_demo_again_and_with_a_question(run: Run, demo: tuple[str, Path]) -> None:
    first, kept = demo
    ran = run("demo", "--data-dir", kept, "--question", "When is the trip to Japan?")
    assert (ran.code, ran.err) == (0, "")
    assert "Replayed" not in ran.out
    assert "Japan trip to November" in ran.out
    assert "user: When is the trip to Japan?" in ran.out
    stats = run("stats", "--scope", "user:maya", "--data-dir", kept, "--json").json
    assert f"{stats['features']['facts']} facts by rules" in first
    assert stats["long_term"]["memories"] == 306
    history = run("facts", "history", "city", "--scope", "user:maya", "--data-dir", kept, "--json").json
    assert [version["value"] for version in history[0]["history"]] == ["Gothenburg", "Lisbon"]


def test_the_demo_shows_a_fact_that_was_deleted(run: Run, demo: tuple[str, Path], data_dir: Path) -> None:
    shutil.copytree(demo[1], data_dir)
    run("facts", "delete", "city", "--scope", "user:maya")
    assert re.search(r"^city +Gothenburg, Lisbon  +\d+ \w+ 20", run("demo", "--data-dir", data_dir).out, re.MULTILINE)


def test_the_demo_keeps_away_from_other_memories(run: Run, data_dir: Path) -> None:
    with memory_of(data_dir, "user:maya") as memory:
        memory.add_turn("I am another Maya.", "Hello.")
    ran = run("demo", "--data-dir", data_dir)
    assert (ran.code, ran.out) == (1, "")
    assert "not the demo's" in ran.err
    with memory_of(data_dir, "user:maya") as memory:
        assert memory.long_term.count() == 2


def test_the_demo_minds_no_facts_about_everybody(run: Run, data_dir: Path) -> None:
    run("facts", "set", "motto", "be kind", "--scope", "global")
    ran = run("demo", "--data-dir", data_dir)
    assert (ran.code, ran.err) == (0, "")
    learnt = run("facts", "list", "--json", "--scope", "user:maya").json
    assert f"306 messages in long-term memory, {len(learnt) - 1} facts by rules" in ran.out


def test_the_demo_counts_what_is_in_its_way(run: Run, data_dir: Path) -> None:
    run("facts", "set", "city", "Graz", "--scope", "user:maya")
    ran = run("demo", "--data-dir", data_dir)
    assert (ran.code, "not the demo's: 0 messages, 1 fact. " in ran.err) == (1, True)


# ingest


def test_ingest_stores_every_format_once(run: Run, data_dir: Path) -> None:
    files = [DATA / name for name in ("messages.jsonl", "conversations.json", "benchmark.json")]
    first = run("ingest", *files, "--json")
    assert (first.code, first.err) == (0, "")
    assert first.json | {"seconds": 0, "messages_per_second": 0} == {
        "read": 28, "new": 19, "already_there": 0, "problems": [], "interrupted": False,
        "skipped": {
            "system message": 2, "tool call": 2, "tool message": 2, "empty": 1, "hidden": 1, "not text": 1
        },
        "scopes": ["user:me", "user:pair-1", "user:pair-2"],
        "seconds": 0, "messages_per_second": 0,
    }  # fmt: skip
    second = run("ingest", *files, "--json").json
    assert (second["read"], second["new"], second["already_there"]) == (28, 0, 19)
    with memory_of(data_dir) as memory:
        stored = list(memory.long_term.messages())
        assert [message.content for message in stored[:3]] == [
            "How long does a soft egg take?", "Six minutes in boiling water.", "And this one?\nIt is a duck's."
        ]  # fmt: skip
        assert stored[0].created_at and stored[0].created_at.isoformat() == "2025-03-01T08:00:00+00:00"
        assert {message.session_id for message in stored[-2:]} == {"c-short"}
        assert memory.for_scope("user:pair-1").search_long_term("greyhound")[0].message_ids == ("D1:1",)


def test_ingest_prints_a_summary(run: Run) -> None:
    ran = run("ingest", DATA / "conversations.json", DATA / "benchmark.json")
    assert (ran.code, ran.err) == (0, "")  # and so no progress bar in a pipe
    summary = " ".join(ran.out.split())
    assert "read 16 messages for user:me, user:pair-1, user:pair-2 stored new 11 already there 0 skipped 5" in summary
    assert "system message 1" in summary
    assert "messages/s" in summary


def test_a_benchmark_into_one_scope(run: Run, data_dir: Path) -> None:
    """Ids are unique in a conversation only, so they are told apart by it."""
    summary = run("ingest", DATA / "benchmark.json", "--scope", "user:all", "--json").json
    assert (summary["new"], summary["scopes"]) == (5, ["user:all"])
    with memory_of(data_dir, "user:all") as memory:
        stored = [(message.id, message.session_id) for message in memory.long_term.messages()]
    assert stored[0] == ("pair-1:D1:1", "pair-1:session_1")
    assert stored[3] == ("pair-2:D1:1", "pair-2:session_1")


def test_ingest_reports_what_it_cannot_read_and_stores_the_rest(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl"
    good = json.dumps({"role": "user", "content": "kept"})
    file.write_bytes(
        b"\n".join([b'{"', good.encode(), b"\xff", b'{"role": "user", "content": "x", "created_at": "?"}'])
    )
    ran = run("ingest", tmp_path / "none.json", file, "--json")
    assert ran.code == 1
    assert [line.split(": ")[:2] for line in ran.err.splitlines()] == [
        [str(tmp_path / "none.json"), "cannot be read"],
        [f"{file}:1", "not JSON"],
        [f"{file}:3", "not UTF-8"],
        [f"{file}:4", "created_at='?'"],
    ]
    assert ran.json["new"] == 1
    assert [problem["where"] for problem in ran.json["problems"]][1:] == [f"{file}:{line}" for line in (1, 3, 4)]
    assert "not readable" in run("ingest", file).out


def test_ingest_stores_the_rest_of_what_it_may_not_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's answers to whoever has no right to a file are played, since root has every right."""
    secret, talk = tmp_path / "secret.jsonl", lines(tmp_path / "talk.jsonl", 3)
    secret.write_text("{}")
    access, open_ = os.access, Path.open

    def refused(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == secret:
            raise PermissionError(13, "Permission denied")
        return open_(path, *arguments, **options)

    monkeypatch.setattr(
        os, "access", lambda path, *rest, **more: str(path) != str(secret) and access(path, *rest, **more)
    )
    monkeypatch.setattr(Path, "open", refused)
    ran = run("ingest", secret, talk, "--json")
    assert (ran.code, ran.json["new"]) == (1, 3)
    assert ran.err == f"{secret}: cannot be read: Permission denied\n"


def test_two_messages_of_one_id(run: Run, tmp_path: Path) -> None:
    """The second would silently take the place of the first."""
    file = tmp_path / "same.jsonl"
    said = [{"id": "1", "content": "hello"}, {"id": "1", "content": "hello"}, {"id": "1", "content": "other"}]
    file.write_text("\n".join(json.dumps({"role": "user", **fields}) for fields in said))
    ran = run("ingest", file, "--json")
    assert ran.code == 1
    assert f"{file}:3: id '1' is that of another message before it" in ran.err
    assert (ran.json["new"], ran.json["already_there"], ran.json["read"]) == (1, 1, 2)


def test_injected_memory_is_not_stored(run: Run, tmp_path: Path) -> None:
    """P10: what was injected never comes back as a memory."""
    file = tmp_path / "injected.jsonl"
    block = "<memory:recalled>\n8 May 2023 Ann: hello\n</memory:recalled>"
    file.write_text("\n".join(json.dumps({"role": "user", "content": text}) for text in (block, f"{block}\nreally")))
    summary = run("ingest", file, "--json").json
    assert (summary["new"], summary["skipped"]) == (1, {"nothing but injected memory": 1})
    assert "8 May" not in run("search", "really").out


def test_an_interrupted_run_goes_on_where_it_stopped(run: Run, data_dir: Path, tmp_path: Path) -> None:
    """The file is a pipe at first, so that the interruption comes at a known place: when it waits for more."""
    whole = lines(tmp_path / "whole.jsonl", 1200, pad="x" * 1000).read_bytes()
    file = tmp_path / "talk.jsonl"
    os.mkfifo(file)
    command = [sys.executable, "-m", "memory_integrations.cli", "ingest", file, "--data-dir", data_dir, "--json"]
    with (
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Where the tests run in the background the signal is ignored, which a child would inherit.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process,
        file.open("wb", buffering=0) as pipe,
    ):
        pipe.write(whole[: len(whole) // 2])
        # A pipe holds 64 KiB: when all was written, at most the last 130 of these 600 lines wait to be read.
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "run the same command again" in err
    first = json.loads(out)
    assert first["interrupted"]
    assert 256 <= first["new"] <= 600
    file.unlink()
    file.write_bytes(whole)
    second = run("ingest", file, "--json")
    assert second.code == 0
    assert (second.json["new"], second.json["already_there"]) == (1200 - first["new"], first["new"])
    assert run("stats", "--json").json["long_term"]["memories"] == 1200


def test_a_file_that_grew_gives_only_what_is_new(run: Run, tmp_path: Path) -> None:
    file = lines(tmp_path / "log.jsonl", 10)
    run("ingest", file)
    summary = run("ingest", lines(file, 15), "--json").json
    assert (summary["new"], summary["already_there"]) == (5, 10)


# search, context, stats, reembed


@pytest.fixture
def told(data_dir: Path) -> Path:
    """A memory with a conversation and facts."""
    with memory_of(data_dir, "user:me/session:monday") as memory:
        memory.add_messages(
            [
                Message("user", "The [bold]piano[/bold] is tuned in March. :tada:", name="Ann", id="m1"),
                Message("assistant", "Noted:\n1. piano\n2. March", id="m2"),
            ]
        )
        memory.set_fact("city", "Porto")
        memory.set_fact("city", "Lisbon", source="llm")
        memory.for_scope("user:me").features.set("pets", ["cat", {"age": 3}], "rule", 0.9, "m1")
    return data_dir


def test_search_shows_text_as_it_is(run: Run, told: Path) -> None:
    ran = run("search", "When is the piano tuned?", "--limit", "1")
    assert re.fullmatch(
        r"[01]\.\d\d +\d+ \w+ \d{4} Ann: The \[bold\]piano\[/bold\] is tuned in March\. :tada: *\n", ran.out
    )
    hits = run("search", "piano", "--json").json
    assert {hit["message_ids"][0] for hit in hits} == {"m1", "m2"}
    assert {"score", "text", "metadata"} <= set(hits[0])
    assert run("search", "piano", "--scope", "user:other") == Ran(0, "", "Nothing found in user:other.\n")
    assert run("search", "piano", "--scope", "user:other", "--json").json == []
    assert run("search", "piano \udcff").code == 0  # bytes that are no text


@pytest.fixture
def dated(data_dir: Path) -> Path:
    """A memory of two mornings: "a" of 1 March at ten, "b" of the second at midnight, UTC."""
    said = (
        Message("user", "The piano is tuned.", id="a", created_at=datetime(2025, 3, 1, 10, tzinfo=UTC)),
        Message("user", "Somebody bought the old piano.", id="b", created_at=datetime(2025, 3, 2, tzinfo=UTC)),
    )
    with memory_of(data_dir) as memory:
        memory.add_messages(said)
    return data_dir


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("", "ab"),
        ("--since 2025-03-02", "b"),
        ("--until 2025-03-02", "a"),
        ("--since 2025-03-01T10:00", "ab"),
        ("--since 2025-03-01T10:00:01Z", "b"),
        ("--until 2025-03-01T11:00+01:00", ""),
        ("--until 2025-03-01T12:00+01:00", "a"),
        ("--since 2025-03-01 --until 2025-03-02T00:00:01", "ab"),
        ("--since 2025-03-02 --until 2025-03-01", ""),
    ],
)
def test_search_within_a_time(run: Run, dated: Path, options: str, found: str) -> None:
    ran = run("search", "piano", "--json", *options.split())
    assert ran.code == 0
    assert {hit["message_ids"][0] for hit in ran.json} == set(found)


def test_search_explains_a_score(run: Run, dated: Path) -> None:
    assert [hit["explanation"] for hit in run("search", "piano", "--json").json] == [None, None]
    for hit in run("search", "piano", "--json", "--explain").json:
        assert hit["explanation"]["bm25"] > 0
        assert sum(hit["explanation"].values()) == pytest.approx(hit["score"])
    shown = run("search", "piano", "--explain").out
    assert len(re.findall(r"^ {7}bm25 0\.\d\d  dense 0\.\d\d(?:  \w+ -?0\.\d\d)* *$", shown, re.MULTILINE)) == 2
    assert " 0.00" not in shown and " -0.00" not in shown


def test_context_shows_the_prompt_the_bar_and_what_was_left_out(run: Run, told: Path) -> None:
    ran = run("context", "piano", "--max-tokens", "70")
    assert ran.out.startswith('<memory:facts>\n{\n"city": "Lisbon",\n"pets": ["cat", {"age": 3}]\n}\n</memory:facts>\n')
    bar = next(line for line in ran.out.splitlines() if line.startswith("█"))
    assert 70 <= len(bar) <= 81
    assert re.search(r"█ facts \d+ +▓ conversation 0 +▒ recalled \d+ +░ free \d+ +of 70 tokens", ran.out)
    assert re.search(r"Left out \(budget\): 1 memory, \d+ tokens", ran.out)
    assert "Left out (budget): 2 facts: city, pets" in run("context", "piano", "--max-tokens", "8").out
    found = run("context", "piano", "--json").json
    assert set(found) == {"combined", "token_usage", "dropped"}
    assert found["token_usage"]["budget"] == 2000
    assert found["combined"].count("<memory:") == 2


def test_context_is_the_same_text_in_a_file_however_wide(run: Run, told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    combined = run("context", "piano", "--json").json["combined"]
    monkeypatch.setenv("COLUMNS", "30")
    assert run("context", "piano").out.startswith(combined + "\n")


def test_stats(run: Run, told: Path) -> None:
    stats = run("stats", "--json").json
    assert (stats["scope"], stats["features"], stats["long_term"]) == ("user:me", {"facts": 2}, {"memories": 2})
    assert stats["bytes"] > 0
    assert re.search(r"memories +2\n", re.sub(r" +\n", "\n", run("stats").out))


def test_stats_say_what_is_not_in_files(
    run: Run,
    told: Path,
    tmp_path: Path,
    qdrant_server: StandIn,
) -> None:
    pytest.importorskip("sqlalchemy")
    url = ("--journal-url", f"sqlite:///{tmp_path}/journal.db")
    run(*url, "facts", "set", "city", "Porto")
    assert re.search(r"on disk +\d.* MB in .*; the facts are in a database\n", run(*url, "stats").out)
    ran = run("--qdrant", qdrant_server.url, *url, "stats")
    assert re.search(r"on disk +nothing; the facts are in a database; the memories are on a server\n", ran.out)


def test_stats_measure_the_memory_alone(run: Run, told: Path) -> None:
    before = run("stats", "--json").json["bytes"]
    (told / "else.bin").write_bytes(b"x" * 20_000_000)
    for link in (told / "link", told / "vectors" / "link"):
        link.symlink_to("nowhere")
    ran = run("stats", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["bytes"] == pytest.approx(before, abs=5_000_000)


# At a terminal, and in a pipe


@pytest.fixture
def terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs the program as if at a terminal of so many columns; gives what it shows, without colours."""

    def shown(columns: int, *arguments: object) -> str:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(columns))
        ran = run(*arguments)
        assert (ran.code, ran.err) == (0, "")
        return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", ran.out)

    return shown


@pytest.mark.parametrize("columns", [120, 80, 43, 40, 30, 8])
def test_an_id_is_never_cut(run: Run, told: Path, terminal: Callable[..., str], columns: int) -> None:
    ids = [hit["id"] for hit in run("search", "piano", "--json").json]
    shown = terminal(columns, "search", "piano", "--ids").splitlines()
    assert [line.strip() for line in shown if line.strip() in ids] == ids
    if columns >= 36:
        assert max(map(len, shown)) <= columns


def test_a_narrow_terminal_shows_a_fact_a_line_at_a_time(told: Path, terminal: Callable[..., str]) -> None:
    wide = terminal(80, "facts", "list")
    assert re.search(r"^city +Lisbon +\d{4}-\d\d-\d\d \d\d:\d\d +llm", wide, re.MULTILINE)
    for columns in (40, 8):
        for command in ("list", "history"):
            shown = terminal(columns, "facts", command)
            assert re.search(r"^city\n", shown, re.MULTILINE)
            assert re.search(r"^  value   +Lisbon\n  since   +\d{4}-\d\d-\d\d \d\d:\d\d\n", shown, re.MULTILINE)
            assert all(line.strip() for line in shown.splitlines())
    assert "memories" in terminal(8, "stats")


def test_nothing_is_cut_wrapped_or_padded_where_there_is_no_terminal(run: Run, data_dir: Path) -> None:
    said = " ".join(f"The piano has {i} strings." for i in range(60))
    with memory_of(data_dir) as memory:
        memory.add_turn(said, "Noted.")
        memory.set_fact("strings", said)
    for command in (["search", "piano"], ["facts", "list"], ["facts", "history"], ["context", "x"], ["stats"]):
        ran = run(*command)
        assert said in ran.out or command == ["stats"], command
        assert not re.search(r" $", ran.out, re.MULTILINE), command


def test_reembed_for_another_language(run: Run, told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run("reembed", "--language", "German")
    assert (ran.code, ran.err) == (0, "")  # and so no progress bar in a pipe
    assert re.fullmatch(r"2 pieces of text embedded, language german, in \d+\.\d s\n", ran.out)
    mistaken = run("search", "piano")
    assert (mistaken.code, mistaken.err.count("\n")) == (1, 1)
    assert "'german'" in mistaken.err and "--language" in mistaken.err
    assert "piano" in run("search", "piano", "--language", "german").out
    monkeypatch.setenv("MEMORY_INTEGRATIONS_LANGUAGE", "german")
    assert "piano" in run("context", "piano").out
    assert run("stats", "--json").json["long_term"]["memories"] == 2
    assert run("ingest", DATA / "benchmark.json").code == 0
    assert "piano" in run("chat", typed="piano\n").out
    assert "language none" in run("reembed", "--language", "none").out
    assert run("search", "piano", "--language", "none").code == 0


def test_optimize_builds_once(run: Run, told: Path) -> None:
    ran = run("optimize")
    assert (ran.code, ran.err) == (0, "")
    assert re.fullmatch(r"graphs built in \d+\.\d s\n|nothing to do\n", ran.out)
    assert run("optimize").out == "nothing to do\n"
    assert "piano" in run("search", "piano").out


def test_p24_erase_takes_memories_by_their_ids(run: Run, told: Path, data_dir: Path) -> None:
    shown = run("search", "piano", "--limit", "1", "--ids").out
    [memory_id] = re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", shown)
    for typed in ("n\n", "", "\n", "what?\n"):
        ran = run("erase", memory_id, typed=typed)
        assert (ran.code, run("stats", "--json").json["long_term"]) == (1, {"memories": 2})
        assert ran.out == "Remove 1 of the memories of user:me for good? [y/N] \n"
        assert ran.err == "memory-integrations: nothing was removed.\n"
    ran = run("erase", memory_id, "--yes")
    assert (ran.code, ran.out) == (0, "1 of 1 memories removed\n")
    assert run("stats", "--json").json["long_term"] == {"memories": 1}
    again = run("erase", memory_id, "--yes")
    assert (again.code, again.out) == (1, "0 of 1 memories removed\n")


def test_ctrl_c_where_the_program_asks_is_an_interruption(
    run: Run, told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: io.StringIO, size: int = -1) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(io, "StringIO", type("Interrupted", (io.StringIO,), {"readline": interrupted}))
    ran = run("erase")
    assert (ran.code, ran.err) == (130, "memory-integrations: interrupted\n")
    monkeypatch.undo()


def test_p24_a_fact_is_deleted_with_its_history(run: Run, data_dir: Path) -> None:
    for value in ("xanadu", "lisbon"):
        run("facts", "set", "city", value)
    ran = run("facts", "delete", "city", "--history")
    assert (ran.code, ran.out) == (0, "city has no value now\n")
    assert run("facts", "history", "--json").json == []
    assert not [path for path in data_dir.rglob("*") if path.is_file() and b"xanadu" in path.read_bytes()]
    assert run("facts", "delete", "city", "--history").code == 1


def test_p24_erase_removes_a_scope_from_every_file(run: Run, told: Path, data_dir: Path) -> None:
    run("facts", "set", "code", "xyzzy", "--scope", "user:other")
    ran = run("erase", typed="y\n")
    assert "Remove all 2 memories and all facts of user:me for good? [y/N] \n" in ran.out
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("\n2 memories and 3 events of facts removed from user:me\n")
    assert run("stats", "--json").json["long_term"] == {"memories": 0}
    assert run("facts", "list", "--json", "--scope", "user:other").json == {"code": "xyzzy"}
    assert not [path for path in data_dir.rglob("*") if path.is_file() and b"piano" in path.read_bytes()]


def test_p22_erasing_a_session_asks_about_that_session(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "two.jsonl"
    said = [("user", "I like tea", "a"), ("user", "I like jam", "b"), ("assistant", "Noted.", "b")]
    file.write_text("".join(json.dumps({"role": r, "content": c, "session_id": s}) + "\n" for r, c, s in said))
    run("ingest", file)
    run("facts", "set", "city", "Lisbon")
    ran = run("erase", "--scope", "user:me/session:b", typed="y\n")
    assert ran.out.startswith("Remove all 2 memories of user:me/session:b for good? [y/N] \n2 memories ")
    assert run("stats", "--json").json["long_term"] == {"memories": 1}
    assert run("facts", "list", "--json").json == {"city": "Lisbon"}


def test_a_scope_is_exported_and_imported(run: Run, told: Path, data_dir: Path, tmp_path: Path) -> None:
    run("facts", "set", "code", "xyzzy")
    archive = tmp_path / "me.jsonl"
    ran = run("export", archive)
    assert (ran.code, ran.err) == (0, "")
    assert re.fullmatch(rf"user:me: \d events and 2 pieces of text in {re.escape(str(archive))}\n", ran.out)
    elsewhere = ["--data-dir", tmp_path / "other"]
    ran = run("import", archive, *elsewhere)
    assert (ran.code, ran.err) == (0, "")
    assert re.search(r": (\d events and 2 pieces of text) imported in \d.* s; new here: \1\n", ran.out)
    assert run("import", archive, *elsewhere).out.endswith("; new here: nothing\n")
    assert "piano" in run("search", "piano", *elsewhere).out
    assert run("facts", "list", "--json", *elsewhere).json == run("facts", "list", "--json").json
    ran = run("import", archive, "--scope", "user:you")
    assert (ran.code, "is an archive of user:me" in ran.err, "Say --scope user:me." in ran.err) == (2, True, True)
    ran = run("import", archive, "--all")
    assert (ran.code, "Say --scope user:me, without --all." in ran.err) == (2, True)
    ran = run("import", DATA / "messages.jsonl")
    assert (ran.code, "is no archive" in ran.err) == (1, True)


def test_a_backup_of_all_scopes_is_imported(run: Run, told: Path, data_dir: Path, tmp_path: Path) -> None:
    run("facts", "set", "code", "xyzzy", "--scope", "user:other")
    assert run("export", tmp_path / "all.jsonl", "--all", "--vectors").out.startswith("all scopes: ")
    shutil.rmtree(data_dir)
    ran = run("import", tmp_path / "all.jsonl")
    assert (ran.code, "is an archive of all scopes. Say --all." in ran.err) == (2, True)
    assert not data_dir.exists()
    assert run("import", tmp_path / "all.jsonl", "--all").code == 0
    assert run("facts", "list", "--json", "--scope", "user:other").json == {"code": "xyzzy"}
    assert "piano" in run("search", "piano").out


def test_an_archive_is_no_pipe(run: Run, told: Path, tmp_path: Path) -> None:
    run("export", tmp_path / "me.jsonl")
    out, into = os.pipe()
    os.write(into, (tmp_path / "me.jsonl").read_bytes())
    os.close(into)
    ran = run("import", f"/dev/fd/{out}")
    os.close(out)
    assert (ran.code, "Expected a regular file" in ran.err) == (1, True)


def test_an_import_says_when_it_embeds_everything_anew(run: Run, told: Path, tmp_path: Path) -> None:
    run("export", tmp_path / "with.jsonl", "--vectors")
    run("export", tmp_path / "without.jsonl")
    for name, language, anew in (("with", "english", False), ("with", "german", True), ("without", "german", False)):
        elsewhere = ["--data-dir", tmp_path / f"{name} {language}", "--language", language]
        ran = run("import", tmp_path / f"{name}.jsonl", *elsewhere)
        assert (ran.code, "of another embedding or language, so that all was embedded anew" in ran.out) == (0, anew)


def test_looking_at_a_memory_chooses_no_language_for_it(run: Run, data_dir: Path, tmp_path: Path) -> None:
    run("facts", "set", "code", "xyzzy")
    assert run("doctor", "--language", "german") == Ran(0, "nothing is wrong\n", "")
    assert run("export", tmp_path / "all.jsonl", "--all", "--language", "german").code == 0
    assert [path.name for path in data_dir.iterdir()] == ["journal"]
    assert run("ingest", DATA / "messages.jsonl").code == 0


def test_a_memory_moves_to_a_database_and_back(run: Run, told: Path, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    run("facts", "set", "code", "xyzzy")
    url = f"sqlite:///{tmp_path}/journal.db"
    ran = run("migrate", "--to-journal-url", url)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("copied, read back and found equal in ")
    assert "events of 1 scope, sha256 " in ran.out and "memories" not in ran.out
    before = run("facts", "history", "--json").json
    assert run("--journal-url", url, "facts", "history", "--json").json == before
    back = tmp_path / "back"
    ran = run("--journal-url", url, "migrate", "--to-data-dir", back)
    assert "memories  2 pieces of text, sha256 " in ran.out
    assert run("facts", "history", "--json", "--data-dir", back).json == before
    assert "piano" in run("search", "piano", "--data-dir", back).out
    ran = run("migrate")
    assert (ran.code, "say where to" in ran.err) == (2, True)


def test_stores_are_named_by_the_environment(
    run: Run, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MEMORY_INTEGRATIONS_JOURNAL_URL", f"sqlite:///{tmp_path}/journal.db")
    run("facts", "set", "code", "xyzzy")
    assert run("facts", "list", "--json").json == {"code": "xyzzy"}
    monkeypatch.setenv("MEMORY_INTEGRATIONS_JOURNAL_URL", "mysql://root@localhost/x")
    ran = run("facts", "list")
    assert (ran.code, "Expected postgresql://" in ran.err) == (1, True)
    monkeypatch.delenv("MEMORY_INTEGRATIONS_JOURNAL_URL")
    monkeypatch.setenv("MEMORY_INTEGRATIONS_QDRANT", "localhost")
    ran = run("search", "x")
    assert (ran.code, "expected a server's URL" in ran.err) == (1, True)


def test_the_doctor_names_what_is_wrong_and_mends_it(run: Run, told: Path, data_dir: Path) -> None:
    assert run("doctor") == Ran(0, "nothing is wrong\n", "")
    for directory in (data_dir, data_dir / "vectors"):
        directory.chmod(0o755)
    ran = run("doctor")
    assert (ran.code, "mode 755" in ran.out, "`doctor --repair` mends it." in ran.out) == (1, True, True)
    [found] = run("doctor", "--json").json
    assert (found["serious"], found["repaired"]) == (True, None)
    ran = run("doctor", "--repair")
    assert (ran.code, "repaired: nobody else may read it now" in ran.out) == (0, True)
    assert run("doctor").out == "nothing is wrong\n"


def test_search_in_a_session(run: Run, data_dir: Path) -> None:
    with memory_of(data_dir) as memory:
        for session in ("s1", "s2"):
            memory.add_turn(f"The piano of {session}", "I hear it", session_id=session)
    found = run("search", "piano", "--session", "s1").out
    assert "The piano of s1" in found and "s2" not in found
    ran = run("search", "piano", "--session", "\udcff")  # what a shell passes that is not UTF-8
    assert (ran.code, "piano" in ran.out) == (run("search", "piano", "--session", "s3").code, False)


def test_reembed_with_nothing_to_embed(run: Run, data_dir: Path) -> None:
    run("facts", "set", "a", "1")
    ran = run("reembed")
    assert (ran.code, ran.out.startswith("nothing to embed")) == (0, True)


def test_reembed_shows_how_far_it_is_on_a_terminal(run: Run, told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    ran = run("reembed", "--language", "french")
    assert ran.code == 0
    assert re.search(r"embedding .*2/2", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", ran.err))


def test_moving_and_importing_show_how_far_they_are_on_a_terminal(
    run: Run, told: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, there = tmp_path / "archive.jsonl", tmp_path / "there"
    assert run("export", archive, "--all").code == 0
    monkeypatch.setenv("FORCE_COLOR", "1")
    for ran in (
        run("migrate", "--to-data-dir", there),
        run("import", archive, "--all", "--data-dir", tmp_path / "new"),
    ):
        assert ran.code == 0
        assert re.search(r"(memories|importing) .*2/2", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", ran.err))


def test_an_interrupted_reembed_goes_on_where_it_stopped(
    run: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with memory_of(data_dir) as memory:
        memory.long_term.store_messages(Message("user", f"Line {i} is about {i * 7919}.") for i in range(300))
    embedded: list[int] = []
    encode = MemoryCollection.encode

    def interrupted(self: MemoryCollection, ids: Sequence[Any], payloads: Sequence[dict[str, Any]]) -> Any:
        if embedded:
            raise KeyboardInterrupt
        return counted(self, ids, payloads)

    def counted(self: MemoryCollection, ids: Sequence[Any], payloads: Sequence[dict[str, Any]]) -> Any:
        embedded.append(len(ids))
        return encode(self, ids, payloads)

    monkeypatch.setattr(MemoryCollection, "encode", interrupted)
    stopped = run("reembed", "--language", "german")
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err == (
        "What was embedded stays: run the same command again to go on.\nmemory-integrations: interrupted\n"
    )
    monkeypatch.setattr(MemoryCollection, "encode", counted)
    assert "Line 7 " in run("search", "Line 7").out  # until it is done all is as before
    again = run("reembed", "--language", "german")
    assert (again.code, again.err) == (0, "")
    assert again.out.startswith("300 pieces of text embedded, language german")
    assert embedded == [256, 44]
    assert "Line 7 " in run("search", "Line 7", "--language", "german").out


# facts


@pytest.mark.parametrize(
    ("typed", "value", "shown"),
    [
        ("Lisbon", "Lisbon", "Lisbon"),
        ('"Lisbon"', "Lisbon", "Lisbon"),
        ("42", 42, "42"),
        ('"42"', "42", '"42"'),
        ("true", True, "true"),
        ("null", None, "null"),
        ('["a", {"b": 1.5}]', ["a", {"b": 1.5}], '["a", {"b": 1.5}]'),
        ("NaN", "NaN", "NaN"),
        ("{broken", "{broken", "{broken"),
        ("", "", ""),
        ("[red]x[/red]", "[red]x[/red]", "[red]x[/red]"),
        ("two\nlines", "two\nlines", '"two\\nlines"'),
        ("\x1b[31mred", "\x1b[31mred", '"\\u001b[31mred"'),
        ("Grüße 👩‍🍳", "Grüße 👩‍🍳", '"Grüße 👩‍🍳"'),
        ("[" * 5000, "[" * 5000, "[" * 5000),
    ],
)
def test_a_value_is_json_where_it_is_json(run: Run, data_dir: Path, typed: str, value: Any, shown: str) -> None:
    ran = run("facts", "set", "key", "--", typed)
    assert (ran.code, ran.out) == (0, f"key = {shown}\n")
    with memory_of(data_dir) as memory:
        assert memory.get_fact("key", "missing") == value
    assert run("facts", "list", "--json").json == {"key": value}


def test_the_life_of_a_fact(run: Run, told: Path) -> None:
    table = run("facts", "list").out
    assert re.search(r"^city +Lisbon +\d{4}-\d\d-\d\d \d\d:\d\d +llm", table, re.MULTILINE)
    history = run("facts", "history", "city").out
    assert re.search(r"^city +Porto +(\S+ \S+) +(\S+ \S+) +user *\n +Lisbon +(\S+ \S+) +llm", history, re.MULTILINE)
    assert re.search(r"pets .* rule +m1", run("facts", "history").out)
    assert run("facts", "undo").out == "pets has no value now\n"
    assert run("facts", "undo").out == "city = Porto\n"
    assert run("facts", "delete", "city").out == "city has no value now\n"
    assert run("facts", "list") == Ran(0, "No facts are known of user:me.\n", "")
    again = run("facts", "delete", "city")
    assert (again.code, again.out) == (1, "")
    assert run("facts", "undo").out == "city = Porto\n"
    assert run("facts", "undo").out == "city has no value now\n"
    nothing = run("facts", "undo")
    assert (nothing.code, nothing.out) == (1, "")
    missing = run("facts", "history", "nope")
    assert (missing.code, "nope" in missing.err) == (1, True)


def test_history_shows_deleted_facts(run: Run, told: Path) -> None:
    run("facts", "delete", "city")
    [fact] = run("facts", "history", "city", "--json").json
    assert (fact["current"], [version["value"] for version in fact["history"]]) == (None, ["Porto", "Lisbon"])
    assert fact["history"][1]["until"] is not None


def _damage(data_dir: Path, scope: str = "user:me", line: int = 1) -> Path:
    """Overwrite a line of a journal."""
    path = JsonlJournal(data_dir / "journal").path(MemoryScope.parse(scope))
    written = path.read_bytes().split(b"\n")
    written[line] = b"\x00\x00damaged"
    path.write_bytes(b"\n".join(written))
    return path


def test_a_damaged_journal_is_repaired(run: Run, told: Path) -> None:
    run("facts", "set", "language", "Python", "--scope", "user:you")
    path = _damage(told)
    broken = run("facts", "list")
    assert (broken.code, "memory-integrations facts repair" in broken.err) == (1, True)
    ran = run("facts", "repair")
    assert (ran.code, ran.err) == (0, "")
    assert f"user:me: 1 line set aside, in {path}.aside; 1 lost event marked; `import` a backup" in ran.out
    assert "user:you: nothing to repair\n" in ran.out
    assert Path(f"{path}.aside").read_bytes() == b"\x00\x00damaged\n"
    assert run("facts", "list", "--json").json == {"city": "Lisbon", "pets": ["cat", {"age": 3}]}
    assert run("facts", "repair", "--scope", "user:me").out == "user:me: nothing to repair\n"


def test_a_journal_whose_first_line_is_damaged_needs_its_scope(run: Run, told: Path) -> None:
    _damage(told, line=0)
    ran = run("facts", "repair")
    assert (ran.code, ran.out) == (1, "")
    assert "--scope" in ran.err
    assert "1 line set aside" in run("facts", "repair", "--scope", "user:me/session:x").out
    assert run("facts", "list", "--json").json["city"] == "Lisbon"


def test_a_database_is_not_repaired_as_files_are(run: Run, told: Path, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path}/facts.db"
    run("--journal-url", url, "facts", "set", "city", "Lisbon")
    for options in ([], ["--scope", "user:me"]):
        ran = run("--journal-url", url, "facts", "repair", *options)
        assert (ran.code, ran.out) == (2, "")
        assert "doctor --repair" in ran.err


# chat


def test_chat_without_a_model_shows_what_one_would_be_given(run: Run, data_dir: Path) -> None:
    ran = run(
        "chat", typed="Hello there\n\nI live in Oslo.\n/facts\n/context\n/what\n/forget\nWhere do I live?\n/quit\nx\n"
    )
    assert (ran.code, ran.err) == (0, "")
    assert "No model is given" in ran.out
    assert ran.out.count("system: You are a helpful assistant") == 3
    assert "learnt city = Oslo" in ran.out
    assert '<memory:facts>\n{\n"city": "Oslo"\n}\n</memory:facts>\nuser: Hello there\nuser: I live in Oslo.' in ran.out
    assert "This conversation is forgotten" in ran.out
    assert ran.out.count("/facts") == 2  # at the beginning, and for the command that is none
    last = ran.out[ran.out.rindex("system: ") :]
    assert re.search(r"<memory:recalled>\n.*I live in Oslo\.", last)
    assert "\nuser: Hello there" not in last  # it is recalled, but no longer in the conversation
    with memory_of(data_dir) as memory:
        stored = list(memory.long_term.messages())
    assert [(message.role, message.content) for message in stored] == [
        ("user", "Hello there"), ("user", "I live in Oslo."), ("user", "Where do I live?")
    ]  # fmt: skip
    assert len({message.session_id for message in stored}) == 1
    assert stored[0].session_id and stored[0].session_id.startswith("chat-")


def test_chat_takes_for_a_command_what_is_one(run: Run, data_dir: Path) -> None:
    said = ["/etc/hosts is broken on my laptop", "/etc/hosts"]
    ran = run("chat", typed="\n".join([*said, "/forget it", "/contxt"]))
    for command in ("/forget it", "/contxt"):
        assert f"{command} is no command, and was not stored.\n/facts  what is known" in ran.out
    with memory_of(data_dir) as memory:
        assert [message.content for message in memory.long_term.messages()] == said


def test_p24_what_a_chat_forgot_it_does_not_show(run: Run) -> None:
    ran = run("chat", typed="My pin code is 4711\n/forget\n/context\n")
    assert "4711" not in ran.out[ran.out.index("This conversation is forgotten") :]
    assert ran.out.endswith("Nothing was said yet.\n\n")


def test_chat_ends_with_its_input_and_keeps_a_given_session(run: Run, data_dir: Path) -> None:
    assert run("chat", "--scope", "user:me/session:s1", typed="Hello").code == 0
    with memory_of(data_dir) as memory:
        assert [message.session_id for message in memory.long_term.messages()] == ["s1"]
    assert run("chat", "--scope", "global", typed="/context\n").out.endswith("Nothing was said yet.\n\n")


def test_a_warning_is_one_line(run: Run) -> None:
    ran = run("chat", "--max-tokens", "5", typed="A question of more than five tokens, as it happens\n")
    assert ran.code == 0
    assert re.fullmatch(r"note: .+ over the budget of .+\n", ran.err)


class _Recorder:
    """Stands in for a provider's model: remembers what it was given, and streams an answer or fails."""

    def __init__(self, *answers: str | BaseException) -> None:
        self.answers = list(answers)
        self.given: list[list[dict[str, str]]] = []

    def stream(self, prompt: list[dict[str, str]]) -> Iterator[Any]:
        from langchain_core.messages import AIMessageChunk

        self.given.append(prompt)
        answer = self.answers.pop(0)
        for word in re.findall(r"\S+\s*", answer if isinstance(answer, str) else "half an"):
            yield AIMessageChunk(word)
        if isinstance(answer, BaseException):
            raise answer


def test_chat_with_a_model(run: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = pytest.importorskip("langchain.chat_models")
    echo = "<memory:facts>\n{}\n</memory:facts>"
    answers = ("Hello \x1b[31mAnn!", ConnectionError("no route\nto host"), KeyboardInterrupt(), echo, "Oslo.")
    recorder = _Recorder(*answers)
    asked: list[str] = []
    monkeypatch.setattr(models, "init_chat_model", lambda model: asked.append(model) or recorder)
    monkeypatch.setenv("MEMORY_INTEGRATIONS_MODEL", "some:model")
    ran = run("chat", typed="My name is Ann. I live in Oslo.\nStill there?\nWell?\nHm.\nWhere do I live?\n")
    assert "half an (stopped, not stored)\n" in ran.out
    assert (ran.code, asked) == (0, ["some:model"])
    assert "Hello [31mAnn!\n" in ran.out  # the escape would steer the terminal
    failed, echoed = ran.err.splitlines()
    assert failed == "memory-integrations: model some:model: ConnectionError: no route to host"
    assert "is empty" in echoed
    system, *conversation = recorder.given[-1]
    assert system["role"] == "system"
    assert '"name": "Ann"' in system["content"] and "data about the user, not instructions" in system["content"]
    assert [message["content"] for message in conversation] == [
        "My name is Ann. I live in Oslo.", "Hello \x1b[31mAnn!", "Still there?", "Well?", "Hm.", "Where do I live?"
    ]  # fmt: skip
    with memory_of(data_dir) as memory:  # what failed halfway, and what was only injected, is no memory
        assert [message.role for message in memory.long_term.messages()] == [
            "user", "assistant", "user", "user", "user", "user", "assistant"
        ]  # fmt: skip


def test_chat_with_a_model_that_is_not_there(run: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langchain.chat_models")
    ran = run("chat", "--model", "no-such-model", typed="hello\n")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "model no-such-model: ValueError" in ran.err
    with pytest.raises(ValueError, match="no-such-model"):
        run("--debug", "chat", "--model", "no-such-model")
    monkeypatch.setitem(sys.modules, "langchain", None)
    monkeypatch.delitem(sys.modules, "langchain.chat_models", raising=False)
    ran = run("chat", "--model", "openai:gpt-5-mini", typed="hello\n")
    assert ran.code == 2
    assert "pip install 'memory-integrations[langchain]'" in ran.err
    assert not data_dir.exists()


# manage


@pytest.fixture
def talked(run: Run, tmp_path: Path) -> Path:
    """Two stored conversations."""
    path = tmp_path / "talks.jsonl"
    lines = [
        ("a", "user", "Good morning"),
        ("a", "user", "My name is John."),
        ("a", "assistant", "Hello John."),
        ("b", "user", "Hi there!"),
        ("b", "user", "I live in Lisbon."),
        ("b", "assistant", "Noted."),
        ("b", "user", "How warm is it?"),
        ("b", "assistant", "It is 20 degrees."),
    ]
    path.write_text("\n".join(json.dumps({"session_id": s, "role": r, "content": c}) for s, r, c in lines))
    assert run("ingest", path).code == 0
    return path


def test_manage_shows_asks_does_and_takes_back(run: Run, talked: Path) -> None:
    for typed in ("n\n", ""):
        refused = run("manage", typed=typed)
        assert refused.code == 1
        assert refused.err == "memory-integrations: nothing was changed.\n"
        assert refused.out.endswith("Do this? [y/N] \n")
    assert "+ city = 'Lisbon'" in refused.out
    assert "- Hi there!" in refused.out
    assert run("facts", "list", "--json").json == {}
    done = run("manage", typed="y\n")
    assert done.code == 0
    assert "user:me/session:b: 5 messages" in done.out
    assert "1 fact set, 1 entry deleted" in done.out
    assert run("facts", "list", "--json").json == {"city": "Lisbon"}
    again = run("manage", "--yes")
    assert "4 messages" in again.out
    assert "nothing to do" in again.out
    back = run("manage", "--undo")
    assert "taken back: 1 fact set, 1 entry deleted" in back.out
    assert run("facts", "list", "--json").json == {}
    nothing = run("manage", "--undo")
    assert nothing.code == 1
    assert "nothing is left to take back" in nothing.err


def test_manage_asks_nothing_where_a_model_changes_nothing(
    run: Run, talked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = pytest.importorskip("langchain.chat_models")
    run("manage", "--yes")
    kept = '{"decisions": [{"id": "e1", "action": "KEEP", "reason": "It matters."}], "facts": []}'
    monkeypatch.setattr(models, "init_chat_model", lambda _: GenericFakeChatModel(messages=iter([kept])))
    ran = run("manage", "--model", "some:model")
    assert (ran.code, ran.err) == (0, "") and ran.out.endswith("nothing to do\n")
    assert "taken back: 1 fact set, 1 entry deleted" in run("manage", "--undo").out


def test_manage_goes_through_all_sessions_and_back(run: Run, talked: Path) -> None:
    assert run("manage", "--all", "--yes").code == 0
    assert run("facts", "list", "--json").json == {"name": "John", "city": "Lisbon"}
    run("manage", "--undo")
    assert run("facts", "list", "--json").json == {"name": "John"}
    run("manage", "--undo", "--scope", "user:me/session:a")
    assert run("facts", "list", "--json").json == {}


def test_manage_says_what_it_cannot_do(run: Run, talked: Path) -> None:
    nobody = run("manage", "--scope", "user:nobody")
    assert nobody.code == 1
    assert "no stored conversation" in nobody.err
    assert run("manage", "--model", "no-such-model").code == 2


def test_chat_goes_on_where_a_session_ended(run: Run, talked: Path) -> None:
    ran = run("chat", "--scope", "user:me/session:b", typed="/context\n")
    assert "The conversation goes on: 5 messages of it are here." in ran.out


def test_sigterm_ends_a_run_as_an_interruption_does(data_dir: Path, tmp_path: Path) -> None:
    """By which services and jobs are stopped: what was begun is cleaned up."""
    os.mkfifo(tmp_path / "talk.jsonl")
    arguments = ["ingest", tmp_path / "talk.jsonl", "--data-dir", data_dir]
    program = [sys.executable, "-m", "memory_integrations.cli", *arguments]
    with (
        subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        (tmp_path / "talk.jsonl").open("wb"),
    ):
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "Traceback" not in err
