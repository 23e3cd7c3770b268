"""docs/architecture.md shows the house as it is, and what the daemon is put together of is tested by itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
_ROW = re.compile(r"^\| \d+ \| `(\w+)` \|", re.M)
_SHOWN = re.compile(r"`((?:[\w]+/)+\w+\.py)`\s+`([\w.]+)`")
_FILE = re.compile(r"`((?:\w+/)+\w+\.py)`")
_TESTED = ("containers", "sandboxes", "overlays", "networks", "names", "images")


def _file(path: str) -> Path:
    """As the page names it: below netd/, or from the root."""
    return ROOT / path if (ROOT / path).exists() else ROOT / "netd" / path


def _defined(path: Path) -> set[str]:
    """`name`, and `Class.name` of what is defined in a module."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if hasattr(inner, "name")}
    return names


def test_every_package_of_netd_has_its_line() -> None:
    packages = {path.parent.name for path in (ROOT / "netd").glob("*/__init__.py")}
    assert set(_ROW.findall(PAGE)) == packages


def test_every_file_that_is_shown_is_there() -> None:
    assert [path for path in _FILE.findall(PAGE) if not _file(path).is_file()] == []


def test_every_function_that_is_shown_is_in_its_file() -> None:
    shown = _SHOWN.findall(PAGE)
    assert len(shown) > 30
    assert [f"{path} {name}" for path, name in shown if name not in _defined(_file(path))] == []


def test_whatever_the_daemon_is_put_together_of_has_a_test_module_of_its_name() -> None:
    wiring = ast.parse((ROOT / "netd" / "daemon" / "wiring.py").read_text())
    modules = [node.module or "" for node in ast.walk(wiring) if isinstance(node, ast.ImportFrom)]
    parts = [module.split(".") for module in modules if module.startswith("netd.")]
    missing = []
    for _, package, *rest in parts:
        if package in _TESTED and len(rest) == 1:
            test = ROOT / "tests" / package / f"test_{rest[0]}.py"
            if not test.exists() or f"netd.{package}.{rest[0]} import" not in test.read_text():
                missing.append(str(test.relative_to(ROOT)))
    assert missing == []
