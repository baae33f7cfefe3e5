"""Names of a package that are loaded at their first use, so that importing it imports no framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def loading(package: str, modules: Mapping[str, str], extras: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's ``__getattr__``.

    Args:
        package: Its name.
        modules: The module that each name is in.
        extras: By the packages that may be missing, the extra of this one that installs them.

    Returns:
        A function that gives what has a name, or raises an ImportError that says what to install.
    """

    def getattr_(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = import_module(modules[name])
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing not in extras:
                raise
            raise ImportError(
                f"{name} needs {error.name}, which is not installed: pip install "
                f"'memory-integrations[{extras[missing]}]'"
            ) from error
        return getattr(module, name)

    return getattr_
