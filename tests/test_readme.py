"""The README keeps its word."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[0][:40])
def test_a_python_block_runs(block: str, tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-W", "error", "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_the_quick_start_shows_what_it_says(tmp_path: Path) -> None:
    block = next(block for block in blocks("python") if "MemoryManager(" in block)
    ran = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert '"name": "John"' in ran.stdout
    assert '"city": "Lisbon"' in ran.stdout
    assert "user: My name is John. I live in Lisbon." in ran.stdout
    assert len(block.strip().splitlines()) <= 12


def test_the_first_screen() -> None:
    lines = TEXT.splitlines()
    assert len(lines) <= 150
    commands = [line for line in lines[:20] if line.startswith("python3.11 -m venv")]
    assert [command.rpartition(" ")[2] for command in commands] == ["demo", "auto"]


def test_every_command_of_the_readme_exists() -> None:
    typer = pytest.importorskip("typer.testing")
    from memory_integrations.cli import app

    for name in set(re.findall(r"^memory-integrations (\w+)", TEXT, re.MULTILINE)):
        assert typer.CliRunner().invoke(app, [name, "--help"]).exit_code == 0, name
