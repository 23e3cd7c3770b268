"""Tokens of a template: text, delimiters, and what stands between them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class TemplateError(Exception):
    """A template that does not parse or that asks for what is not there; the text is Go's."""


class Token(NamedTuple):
    kind: str  # text | open | close | field | variable | word | string | char | number | op | dot | end
    text: str
    pos: int


_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<field>\.[A-Za-z_]\w*)
      | (?P<variable>\$\w*)
      | (?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)
      | (?P<char>'(?:\\.|[^'\\\n])+')
      | (?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|\d[\d_]*(?:\.\d*)?(?:[eE][+-]?\d+)?))
      | (?P<word>[A-Za-z_]\w*)
      | (?P<op>:=|[=|(),])
      | (?P<dot>\.)""",
    re.VERBOSE,
)
_OPEN = re.compile(r"\{\{(?:-(?=[ \t\r\n]))?")
_CLOSE = re.compile(r"(?P<trim>[ \t\r\n]+-\}\})|[ \t\r\n]*\}\}")
_COMMENT = re.compile(r"\s*/\*.*?\*/(?:(?P<trim>\s+-)?\}\})", re.DOTALL)
_SPACE = " \t\r\n"


def tokens(text: str) -> Iterator[Token]:
    """All tokens of `text`; white space next to a `{{- ` or ` -}}` is left out of the text tokens."""
    pos = 0
    trim = False
    while (opening := _OPEN.search(text, pos)) is not None:
        literal = _literal(text[pos : opening.start()], left=trim, right=opening.group().endswith("-"))
        if literal:
            yield Token("text", literal, pos)
        if (comment := _COMMENT.match(text, opening.end())) is not None:
            pos, trim = comment.end(), comment["trim"] is not None
            continue
        yield Token("open", opening.group(), opening.start())
        pos = opening.end()
        while (closing := _CLOSE.match(text, pos)) is None:
            found = _token(text, pos)
            pos = found.end()
            if found.lastgroup != "space":
                yield Token(str(found.lastgroup), found.group(), found.start())
        yield Token("close", closing.group(), pos)
        pos, trim = closing.end(), closing["trim"] is not None
    if literal := _literal(text[pos:], left=trim):
        yield Token("text", literal, pos)
    yield Token("end", "", len(text))


def line(text: str, pos: int) -> int:
    """The line, counted from 1, that position `pos` is on."""
    return 1 + text.count("\n", 0, pos)


def _literal(text: str, *, left: bool, right: bool = False) -> str:
    text = text.lstrip(_SPACE) if left else text
    return text.rstrip(_SPACE) if right else text


def _token(text: str, pos: int) -> re.Match[str]:
    found = _TOKEN.match(text, pos)
    lone_dot = found is not None and found.lastgroup == "dot" and text[pos + 1 : pos + 2] not in (*_DOT_ENDS, "")
    if found is None or lone_dot or (found.lastgroup == "dot" and pos + 1 == len(text)):
        raise TemplateError(f"template: :{line(text, pos)}: {_lexical_error(text, pos)}")
    if found.lastgroup in ("field", "variable", "word") and not _NAME_ENDS.match(text, found.end()):
        bad = text[found.end()]
        raise TemplateError(f"template: :{line(text, pos)}: bad character U+{ord(bad):04X} '{bad}'")
    return found


_NAME_ENDS = re.compile(r"[ \t\r\n.,|:=()]|\}\}|$")
_DOT_ENDS = " \t\r\n|(),}"


def _lexical_error(text: str, pos: int) -> str:
    match text[pos : pos + 1]:
        case "":
            return "unclosed action"
        case '"':
            return "unterminated quoted string"
        case "`":
            return "unterminated raw quoted string"
        case "'":
            return "unterminated character constant"
        case ".":
            return f'illegal number syntax: "{text[pos : pos + 2]}"'
        case other:
            return f'unexpected "{other}" in command'
