"""The notebooks run as they are stored, top to bottom and offline, and show what they showed.

After a change that they show, ``python tests/test_notebooks.py`` runs them and stores what they give.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest
from fresh import skip_without_frameworks

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
config = pytest.importorskip("traitlets.config")

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PATH = re.compile(r"(?<![\w.<])/(?:home|root|Users|tmp|var|private|work|opt|usr|mnt|dev/shm)/[\w.-]")
TIMEOUT = 120  # seconds a cell
LARGEST = 400_000  # bytes a notebook

# Python imports a sitecustomize at its start. No code can remove an audit hook, and what was tried is noted even where
# the error is caught. Only the kernel's own pipes stay.
GUARD = """
import socket, sys

def refuse(event, args):
    calls = ("socket.connect", "socket.sendto", "socket.sendmsg")
    if event in calls and args[0].family == socket.AF_UNIX:
        return
    if event in (*calls, "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        with open({noted!r}, "a") as file:
            file.write(f"{{event}} {{args[1:] if event in calls else args}}\\n")
        raise OSError("no network in a notebook")

sys.addaudithook(refuse)
"""


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose path is short enough for sockets in it: about 100 characters are allowed."""
    directory = Path(tempfile.mkdtemp(dir="/tmp", prefix="nb-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def run(notebook: Any) -> tuple[Any, str]:
    """A copy of a notebook as it comes out of a run, and what it tried on the network."""
    notebook = copy.deepcopy(notebook)
    with short_directory() as directory:
        noted = directory / "noted"
        (directory / "sitecustomize.py").write_text(GUARD.format(noted=str(noted)), encoding="utf-8")
        (directory / "cwd").mkdir()
        env = {name: value for name, value in os.environ.items() if not name.startswith(("LANGSMITH", "LANGCHAIN"))}
        env.pop("MPLBACKEND", None)
        env |= {"PYTHONPATH": str(directory), "IPYTHONDIR": str(directory / "ipython")}
        # Pipes, not ports: the tests run without sockets.
        manager = {
            "transport": "ipc",
            "ip": str(directory / "kernel"),
            "connection_file": str(directory / "kernel.json"),
        }
        client = nbclient.NotebookClient(
            notebook,
            timeout=TIMEOUT,
            kernel_name="python3",
            record_timing=False,
            config=config.Config({"KernelManager": manager}),
        )
        client.execute(env=env, cwd=str(directory / "cwd"))
        return notebook, noted.read_text(encoding="utf-8") if noted.exists() else ""


def texts(cell: Any) -> list[tuple[str, str]]:
    """The outputs of a cell by their kind, without pictures and without what Matplotlib says of its font cache."""
    found: list[tuple[str, str]] = []
    for output in cell.get("outputs", ()):
        if output.output_type == "stream":
            found += [] if output.text.startswith("Matplotlib") else [(output.name, output.text)]
        elif output.output_type == "error":
            found.append(("error", "\n".join(output.traceback)))
        else:
            found += [(kind, text) for kind, text in sorted(output.data.items()) if not kind.startswith("image/")]
    return found


def lines(cell: Any) -> list[str]:
    """The outputs of a cell in lines, each tag at the beginning of one."""
    return "\n".join(f"{kind}: {text}" for kind, text in texts(cell)).replace("><", ">\n<").splitlines()


def kinds(cell: Any) -> list[str]:
    """The kinds of a cell's outputs, pictures too."""
    return sorted(kind for output in cell.get("outputs", ()) for kind in output.get("data", ()))


def changed(before: Any, now: Any) -> list[str]:
    """A cell whose outputs differ, and where; a picture may differ, but not be gone."""
    differing = [*unified_diff(lines(before), lines(now), "stored", "run", n=0, lineterm="")]
    had, has = kinds(before), kinds(now)
    if had != has:
        differing.append(f"stored: {had}, run: {has}")
    return [now.source, *differing] if differing else []


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def stored(request: pytest.FixtureRequest) -> Any:
    """A notebook as it is stored."""
    return nbformat.read(request.param, as_version=4)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


def test_a_notebook_shows_what_it_showed(stored: Any) -> None:
    pytest.importorskip("matplotlib")
    skip_without_frameworks("\n".join(cell.source for cell in stored.cells if cell.cell_type == "code"))
    ran, tried = run(stored)
    assert tried == ""
    changes = [line for before, now in zip(stored.cells, ran.cells, strict=True) for line in changed(before, now)]
    if changes:
        pytest.fail("\n".join(["Stale; python tests/test_notebooks.py stores it anew.", *changes]), pytrace=False)


def test_a_notebook_is_stored_as_one_run_from_the_top(stored: Any) -> None:
    nbformat.validate(stored)
    cells = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    assert stored.metadata.kernelspec.name == "python3"
    assert not any("execution" in cell.metadata for cell in cells)
    assert len(nbformat.writes(stored).encode()) < LARGEST


def test_a_notebook_shows_no_failure_no_warning_and_no_machine(stored: Any) -> None:
    shown = [(kind, text) for cell in stored.cells for kind, text in texts(cell)]
    assert shown
    assert not {kind for kind, _ in shown} & {"error", "stderr"}
    for text in [*(text for _, text in shown), *(cell.source for cell in stored.cells)]:
        assert "Traceback (most recent call last)" not in text
        assert not PATH.search(text)


def test_a_notebook_links_to_what_is_there(stored: Any) -> None:
    text = "\n".join(cell.source for cell in stored.cells if cell.cell_type == "markdown")
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#]+)(?:#([\w-]+))?\)", text):
        page = (ROOT / "notebooks" / file).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors


@pytest.mark.parametrize(
    "code",
    ["socket.create_connection(('127.0.0.1', 9), 1)", "socket.getaddrinfo('example.org', 80)"],
    ids=["connect", "resolve"],
)
def test_a_kernel_has_no_network(code: str) -> None:
    source = f"import socket\ntry:\n    {code}\nexcept OSError as error:\n    print(error)"
    ran, tried = run(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]))
    assert texts(ran.cells[0]) == [("stdout", "no network in a notebook\n")]
    assert tried.startswith("socket.")


def store() -> None:
    """Run every notebook and store its outputs."""
    for path in NOTEBOOKS:
        ran, tried = run(nbformat.read(path, as_version=4))
        if tried:
            raise SystemExit(f"{path.name} tried the network:\n{tried}")
        ran.metadata.language_info = {"name": "python"}  # which Python it was says nothing
        nbformat.write(ran, path)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    store()
