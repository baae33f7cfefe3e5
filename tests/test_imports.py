"""What importing the package brings with it, and what it never does."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fresh import fresh_python

import memory_integrations
from memory_integrations import errors

PACKAGE = Path(memory_integrations.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

FRAMEWORKS = ["llama_index", "langchain", "langchain_core", "langchain_qdrant", "langgraph"]
HEAVY = ["qdrant_client", "qdrant_edge", "numpy", "tiktoken", "wordllama", "pydantic", "typer", "rich", "sqlalchemy"]
NETWORK = {
    "socket", "ssl", "http", "urllib", "urllib3", "requests", "httpx",
    "aiohttp", "ftplib", "smtplib", "telnetlib", "websockets",
    "grpc", "xmlrpc", "socketserver", "posthog", "sentry_sdk",
}  # fmt: skip
HARMLESS = {"urllib.parse"}

LIST_MODULES = """
import json, sys
import memory_integrations
{code}
print(json.dumps(sorted(sys.modules)))
"""


def loaded_after(run_python: Callable[..., Any], code: str = "") -> set[str]:
    """The packages that a fresh interpreter has loaded."""
    modules = json.loads(run_python(LIST_MODULES.format(code=code)).stdout)
    return {name.partition(".")[0] for name in modules}


def imported_by(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports anywhere in it, with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module


def calls_in(path: Path) -> Iterator[tuple[int, str]]:
    """Every call in a file, as it is written."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


by_module = pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """What is loaded after the import, found out once."""
    return loaded_after(fresh_python)


class TestImporting:
    @pytest.mark.parametrize("name", FRAMEWORKS + HEAVY)
    def test_importing_the_package_loads_no_framework_and_nothing_heavy(self, loaded: set[str], name: str) -> None:
        assert name not in loaded

    def test_short_term_memory_and_facts_load_neither_a_framework_nor_the_engine(
        self, run_python: Callable[..., Any], tmp_path: Path
    ) -> None:
        loaded = loaded_after(
            run_python,
            "manager = memory_integrations.MemoryManager('user:ann/session:s', data_dir=" + repr(str(tmp_path)) + ")\n"
            "manager.short_term.add('My name is Ann.')\n"
            "manager.set_fact('city', 'Lisbon')\n"
            "assert 'Lisbon' in manager.get_context(max_tokens=500).combined\n"
            "manager.manage_short_term()\n"
            "manager.close()",
        )
        assert not loaded & {
            "llama_index",
            "langchain",
            "langgraph",
            "qdrant_client",
            "qdrant_edge",
            "numpy",
            "wordllama",
        }

    def test_importing_warns_of_nothing(self, run_python: Callable[..., Any]) -> None:
        done = run_python("import warnings; warnings.simplefilter('error'); import memory_integrations")
        assert (done.stdout, done.stderr) == ("", "")

    def test_using_it_leaves_the_root_logger_to_the_program(
        self, run_python: Callable[..., Any], tmp_path: Path
    ) -> None:
        done = run_python(
            "import logging, sys\n"
            "import memory_integrations\n"
            "with memory_integrations.MemoryManager('user:ann', data_dir=sys.argv[1]) as memory:\n"
            "    memory.add_turn('My cello is red', 'I see')\n"
            "    memory.get_context('cello')\n"
            "logging.getLogger('httpx').info('an INFO that nobody asked for')\n"
            "print(logging.getLogger().handlers, logging.getLogger().level == logging.WARNING)\n",
            tmp_path,
        )
        assert (done.stdout, done.stderr) == ("[] True\n", "")

    def test_importing_writes_nothing(self, run_python: Callable[..., Any], tmp_path: Path) -> None:
        run_python(
            "import os, sys; os.chdir(sys.argv[1])\n"
            "import memory_integrations\n"
            "memory_integrations.MemoryManager('user:ann').close()\n",
            tmp_path,
        )
        assert list(tmp_path.iterdir()) == []


class TestPublicNames:
    def test_the_public_names_are_sorted_unique_and_there(self) -> None:
        names = memory_integrations.__all__
        assert names == sorted(set(names))
        assert all(hasattr(memory_integrations, name) for name in names)

    @pytest.mark.parametrize(
        "name",
        [
            "MemoryManager",
            "MemoryScope",
            "ShortTermPolicy",
            "ShortTermMemory",
            "FeatureMemory",
            "LongTermMemory",
            "Message",
        ],
    )
    def test_the_names_that_are_relied_on_are_public(self, name: str) -> None:
        assert name in memory_integrations.__all__

    def test_every_public_name_says_what_it_is(self) -> None:
        assert [name for name in memory_integrations.__all__ if not getattr(memory_integrations, name).__doc__] == []

    def test_every_error_is_public(self) -> None:
        made = {name for name, value in vars(errors).items() if isinstance(value, type)}
        assert made <= set(memory_integrations.__all__)

    def test_the_tree_of_errors_is_the_one_that_is_drawn(self) -> None:
        drawn = {
            line.strip(" │├└─").split()[0]: line for line in (errors.__doc__ or "").splitlines() if "Error" in line
        }
        for name, value in vars(errors).items():
            if isinstance(value, type):
                assert name in drawn, f"{name} is not drawn"
                assert issubclass(value, errors.MemoryIntegrationError)
                assert issubclass(value, ValueError) == ("also ValueError" in drawn[name])
        assert not issubclass(errors.MemoryIntegrationError, ValueError)

    def test_the_version_is_the_one_of_the_distribution(self) -> None:
        project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert memory_integrations.__version__ == project["version"]
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            assert importlib.metadata.version("memory-integrations") == project["version"]

    def test_types_are_shipped(self) -> None:
        assert (PACKAGE / "py.typed").is_file()


class TestP31NoNetwork:
    """P31: no telemetry and no network use of its own."""

    @by_module
    def test_p31_no_module_imports_what_talks_to_the_network(self, path: Path) -> None:
        found = [
            (line, name)
            for line, name in imported_by(path)
            if name.partition(".")[0] in NETWORK and name not in HARMLESS and path.name != "server.py"
        ]  # that reaches the server whose URL it is given
        assert found == []

    def test_p31_a_whole_session_opens_no_connection(
        self, run_python: Callable[..., Any], tmp_path: Path, journal_url: str | None
    ) -> None:
        """But to the database that it is given."""
        run_python(
            "import socket, sys\n"
            "def refuse(*args, **kwargs):\n"
            "    raise AssertionError('the network was asked')\n"
            "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
            "from memory_integrations import MemoryManager\n"
            "url = sys.argv[2] or None\n"
            "with MemoryManager('user:ann/session:s', data_dir=sys.argv[1], journal_url=url) as memory:\n"
            "    memory.add_turn('My name is Ann. I live in Lisbon.', 'Nice to meet you.')\n"
            "    memory.set_fact('tea', 'green')\n"
            "    memory.manage_short_term()\n"
            "    assert 'Lisbon' in memory.get_context('Where does Ann live?').combined\n"
            "    memory.erase()\n",
            tmp_path / "data",
            journal_url or "",
        )


class TestHabits:
    @by_module
    def test_no_library_code_runs_an_event_loop_of_its_own(self, path: Path) -> None:
        if "cli" not in path.relative_to(PACKAGE).with_suffix("").parts and path.name != "demo.py":
            assert [call for call in calls_in(path) if call[1] in ("asyncio.run", "print")] == []

    @by_module
    def test_there_is_one_logger(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        harmless = {"logging.getLogger", "logging.NullHandler"}  # the latter, so that others configure nothing
        assert [c for c in calls_in(path) if c[1].startswith("logging.") and c[1] not in harmless] == []
        assert text.count("getLogger(") == text.count('getLogger("memory_integrations")')
