"""The one place that starts background work (`netd/core/tasks.py`): nothing else in netd does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import netd

ROOT = Path(netd.__file__).parent
STARTERS = {"create_task", "ensure_future", "run_coroutine_threadsafe"}


def started_elsewhere(path: Path) -> Iterator[str]:
    """The lines of a module that start a task by themselves."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Attribute | ast.Name):
            continue
        name = node.attr if isinstance(node, ast.Attribute) else node.id
        if name in STARTERS:
            yield f"{path.relative_to(ROOT.parent)}:{node.lineno} {name}"


def test_background_work_is_started_in_one_place_only() -> None:
    modules = [path for path in sorted(ROOT.rglob("*.py")) if path.name != "tasks.py"]
    assert [line for path in modules for line in started_elsewhere(path)] == []
