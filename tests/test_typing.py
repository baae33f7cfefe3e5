"""What users write passes a strict type checker, and every public name is among it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import memory_integrations
from memory_integrations import langchain, llama_index

USER_CODE = Path(__file__).parent / "typing"
PUBLIC = {
    "core_user.py": memory_integrations.__all__,
    "langchain_user.py": langchain.__all__,
    "llama_index_user.py": llama_index.__all__,
}


def test_user_code_passes_mypy_strict() -> None:
    api = pytest.importorskip("mypy.api")
    pytest.importorskip("langchain")
    pytest.importorskip("llama_index.core")
    project = Path(__file__).parents[1]  # whose cache serves here too
    options = [
        "--strict",
        "--cache-dir",
        str(project / ".mypy_cache"),
        "--config-file",
        str(project / "pyproject.toml"),
    ]
    told, errors, code = api.run([*options, *map(str, sorted(USER_CODE.glob("*.py")))])
    assert code == 0, told + errors


@pytest.mark.parametrize("file", PUBLIC)
def test_user_code_uses_every_public_name(file: str) -> None:
    code = (USER_CODE / file).read_text(encoding="utf-8")
    imports, _, used = code.partition("\n\n\n")
    unused = [name for name in PUBLIC[file] if not re.search(rf"\b{name}\b", used)]
    assert unused == []
    assert all(name in imports for name in PUBLIC[file])
