"""Lists on the terminal: `--format` templates over rows, tables in Docker's column layout, JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

from netd.cli.template import Row, Template, TemplateError
from netd.cli.words.failure import Failure

_MIN_WIDTH = 10
_GAP = 3


def write(rows: Iterable[Row], headers: Mapping[str, str], source: str, *, default: str, error: str = "") -> None:
    """Prints each row: `source` is `--format`'s value ("" and `table` mean `default`, a table template).

    Raises Failure for a template that is wrong; `error` is what its message begins with.
    """
    if source in ("", "table"):
        source = default
    is_table = source.startswith("table")
    text = source.removeprefix("table").strip(" ") if is_table else source
    text = "{{json .}}" if source == "json" else text.replace("\\t", "\t").replace("\\n", "\n")
    error = error or "template parsing error: "
    try:
        template = Template(text)
        lines = [template.render(row) for row in rows]
        if is_table:
            lines.insert(0, template.render_header(Row("formatter.SubHeaderContext", **headers, Label=_label_title)))
    except TemplateError as problem:
        raise Failure(f"{error}{problem}") from problem
    sys.stdout.write(align(lines) if is_table else "".join(f"{line}\n" for line in lines))


def align(lines: Iterable[str]) -> str:
    """Tab-separated cells in columns at least ten wide with a gap of three; the last cell is not padded."""
    table = [line.split("\t") for text in lines for line in text.split("\n")]
    widths: list[int] = []
    for column in range(max((len(cells) - 1 for cells in table), default=0)):
        longest = max(len(cells[column]) for cells in table if len(cells) > column + 1)
        widths.append(max(longest + _GAP, _MIN_WIDTH))
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(cells[:-1], widths, strict=False)) + cells[-1] + "\n"
        for cells in table
    )


def _label_title(name: str) -> str:
    return name.split(".")[-1].replace("-", " ").replace("_", " ")
