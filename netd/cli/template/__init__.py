"""Go's text/template, as far as `--format` needs it: the language of pkg.go.dev/text/template without
`define`, `template` and `block`, and Docker's functions (`json`, `join`, `split`, `title`, `upper`, ...).

Values are what JSON gives (dict, list, str, numbers, bool, None) and `Row`s.
"""

from __future__ import annotations

from typing import Any

from netd.cli.template.evaluate import Evaluation
from netd.cli.template.functions import FUNCTIONS, HEADER_FUNCTIONS, Row
from netd.cli.template.parse import Node, TemplateError, parse

__all__ = ["Row", "Template", "TemplateError"]


class Template:
    """A parsed template; raises TemplateError, with Go's words, for one that does not parse."""

    __slots__ = ("_nodes", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._nodes: list[Node] = parse(text, FUNCTIONS.keys())

    def render(self, data: Any) -> str:
        """The text for `data`; raises TemplateError for a field or key that is not there."""
        return Evaluation(self.text, FUNCTIONS, data).render(self._nodes)

    def render_header(self, titles: Row) -> str:
        """The header line of a table: each function shows its first argument as it is."""
        return Evaluation(self.text, HEADER_FUNCTIONS, titles).render(self._nodes)
