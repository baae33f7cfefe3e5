"""The README keeps its word."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fresh import skip_without_frameworks

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[0][:40])
def test_a_python_block_runs(block: str, tmp_path: Path) -> None:
    skip_without_frameworks(block)
    ran = subprocess.run([sys.executable, "-W", "error", "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def printed(containing: str, tmp_path: Path) -> tuple[str, str]:
    """The first Python block that contains a text, and what it prints."""
    block = next(block for block in blocks("python") if containing in block)
    skip_without_frameworks(block)
    ran = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=True)
    return block, ran.stdout


def test_the_agent_is_the_first_example_and_prints_what_its_comments_say(tmp_path: Path) -> None:
    block, told = printed("create_agent", tmp_path)
    assert block == blocks("python")[0]
    expected = re.findall(r'"\),  # (.*)$', block, re.MULTILINE)
    assert len(expected) == 3
    assert told.splitlines() == expected


def test_the_chat_history_is_the_second_example_and_knows_what_was_said(tmp_path: Path) -> None:
    block, told = printed("ShortTermChatMessageHistory(", tmp_path)
    assert block == blocks("python")[1]
    assert told == "Noted: I play the oboe. 2\n"


def test_the_chat_engine_knows_what_was_said_in_another_session(tmp_path: Path) -> None:
    block, told = printed("ManagedChatMemory", tmp_path)
    assert block == blocks("python")[2]
    noted, known = told.splitlines()
    assert noted == "Noted: I play the oboe."
    assert known.startswith('You said: "I play the oboe."')


def test_the_core_alone_shows_what_it_says(tmp_path: Path) -> None:
    block, told = printed("manage_short_term()", tmp_path)
    assert '"name": "John"' in told
    assert '"city": "Lisbon"' in told
    assert "user: My name is John. I live in Lisbon." in told
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
