"""The tree of a template: text, actions, control structures, pipelines and their operands."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple, Union

from netd.cli.template.lex import TemplateError, Token, line, tokens

__all__ = ["Node", "TemplateError", "parse"]


class Literal(NamedTuple):
    value: Any
    source: str
    pos: int


class Path(NamedTuple):
    """`.A.B`, `$x.A`, `(pipeline).A` or `.`: where to begin, then field names. `base` is None for the dot."""

    base: str | Pipe | None
    fields: tuple[str, ...]
    source: str
    pos: int  # of what Go reports: the second field where there is one


class Call(NamedTuple):
    name: str
    source: str
    pos: int


Operand = Union[Literal, Path, Call, "Pipe"]


class Pipe(NamedTuple):
    """Commands, each a function or value with arguments; the result of one is the last argument of the next."""

    variables: tuple[str, ...]
    declares: bool
    commands: tuple[tuple[Operand, ...], ...]
    source: str
    pos: int


class Text(NamedTuple):
    text: str


class Branch(NamedTuple):
    """`if`, `with` or `range`."""

    keyword: str
    pipe: Pipe
    body: list[Node]
    otherwise: list[Node]


class Jump(NamedTuple):
    keyword: str  # break | continue


Node = Text | Pipe | Branch | Jump

_KEYWORDS = ("if", "with", "range", "else", "end", "break", "continue")
_CONSTANTS = {"true": True, "false": False, "nil": None}


def parse(text: str, functions: Collection[str]) -> list[Node]:
    """The nodes of `text`; raises TemplateError in Go's words."""
    parser = _Parser(text, functions)
    nodes, stop = parser.nodes(top=True)
    assert stop == ""
    return nodes


class _Parser:
    def __init__(self, text: str, functions: Collection[str]) -> None:
        self.text = text
        self.functions = functions
        self.tokens = list(tokens(text))
        self.at = 0
        self.variables = ["$"]
        self.ranges = 0  # how many are open

    @property
    def here(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.here
        self.at += 1
        return token

    def accept(self, kind: str, text: str) -> bool:
        found = self.here.kind == kind and self.here.text == text
        self.at += found
        return found

    def error(self, message: str) -> TemplateError:
        return TemplateError(f"template: :{line(self.text, self.here.pos)}: {message}")

    def nodes(self, *, top: bool = False) -> tuple[list[Node], str]:
        """Nodes up to `{{end}}` or `{{else…}}`; the second value says which ended them ("" at the end)."""
        found: list[Node] = []
        while True:
            token = self.take()
            if token.kind == "end":
                if not top:
                    self.at -= 1
                    raise self.error("unexpected EOF")
                return found, ""
            if token.kind == "text":
                found.append(Text(token.text))
                continue
            keyword = self.here.text if self.here.kind == "word" and self.here.text in _KEYWORDS else ""
            self.at += bool(keyword)
            if keyword in ("end", "else"):
                if top:
                    raise self.error(f"unexpected {{{{{keyword}}}}}")
                if keyword == "end":
                    self.close("end")
                return found, keyword
            found.append(self.statement(keyword))

    def statement(self, keyword: str) -> Node:
        if keyword in ("break", "continue"):
            self.close(keyword)
            if not self.ranges:
                self.at -= 1
                raise self.error(f"{{{{{keyword}}}}} outside {{{{range}}}}")
            return Jump(keyword)
        if keyword:
            return self.branch(keyword)
        pipe = self.pipe("command")
        self.close("command")
        return pipe

    def branch(self, keyword: str) -> Branch:
        known = len(self.variables)
        pipe = self.pipe(keyword)
        self.close(keyword)
        self.ranges += keyword == "range"
        body, stop = self.nodes()
        self.ranges -= keyword == "range"
        otherwise: list[Node] = []
        if stop == "else":
            if self.here.kind == "word" and self.here.text in ("if", "with"):
                otherwise = [self.branch(self.take().text)]
            else:
                self.close("else")
                otherwise, stop = self.nodes()
                if stop == "else":
                    raise self.error("expected end; found {{else}}")
        del self.variables[known:]
        return Branch(keyword, pipe, body, otherwise)

    def close(self, context: str) -> None:
        if self.take().kind != "close":
            self.at -= 1
            raise self.error(f"unexpected {_show(self.here)} in {context}")

    def pipe(self, context: str) -> Pipe:
        start = self.here.pos
        names, declares = self.declaration(context)
        commands = [self.command(context)]
        while self.accept("op", "|"):
            if self.at_end:
                break  # Go takes a bar at the end for nothing
            commands.append(self.command(context))
            if isinstance(commands[-1][0], Literal):
                raise self.error(f"non executable command in pipeline stage {len(commands)}")
        self.variables += names if declares else ()
        return Pipe(names, declares, tuple(commands), self.text[start : self.here.pos].strip(), start)

    def declaration(self, context: str) -> tuple[tuple[str, ...], bool]:
        """`$x :=`, `$x =` or, in a range, `$i, $x :=` at the start of a pipeline."""
        begin = self.at
        names: list[str] = []
        while self.here.kind == "variable":
            names.append(self.take().text)
            if self.accept("op", ":="):
                return tuple(names), True
            if self.accept("op", "="):
                return tuple(names), False
            if not (context == "range" and len(names) == 1 and self.accept("op", ",")):
                break
        self.at = begin
        return (), False

    @property
    def at_end(self) -> bool:
        """Whether a command ends here."""
        return self.here.kind in ("close", "end") or (self.here.kind == "op" and self.here.text in ("|", ")"))

    def command(self, context: str) -> tuple[Operand, ...]:
        start = self.here.pos
        operands: list[Operand] = []
        while not self.at_end:
            operands.append(self.operand(context))
        if not operands and self.here.text == "|":
            raise self.error(f'unexpected "|" in {context}')
        if not operands:
            raise self.error(f"missing value for {context}")
        if isinstance(operands[0], Call):  # Go's messages about a call show all of it
            operands[0] = operands[0]._replace(source=self.text[start : self.here.pos].strip())
        return tuple(operands)

    def operand(self, context: str) -> Operand:
        token = self.take()
        base: str | Pipe | None
        match token.kind:
            case "field":
                return self.path(None, [token], token.pos)
            case "dot":
                return Path(None, (), ".", token.pos)
            case "variable":
                if token.text not in self.variables:
                    raise self.error(f'undefined variable "{token.text}"')
                base = token.text
            case "op" if token.text == "(":
                base = self.pipe("parenthesized pipeline")
                if not self.accept("op", ")"):
                    raise self.error("unclosed left paren")
            case "word" if token.text not in _CONSTANTS:
                if token.text not in self.functions:
                    raise self.error(f'function "{token.text}" not defined')
                return Call(token.text, token.text, token.pos)
            case "word" | "string" | "char" | "number":
                return Literal(_literal(token), token.text, token.pos)
            case _:
                self.at -= 1
                raise self.error(f"unexpected {_show(token)} in {context}")
        if self.here.kind != "field" or (self.here.pos != token.pos + len(token.text) and base == token.text):
            return base if isinstance(base, Pipe) else Path(base, (), token.text, token.pos)
        return self.path(base, [], token.pos)

    def path(self, base: str | Pipe | None, fields: list[Token], start: int) -> Path:
        """Collects the fields that follow without white space."""
        while self.here.kind == "field" and self.text[self.here.pos - 1] not in " \t\r\n":
            fields.append(self.take())
        end = fields[-1].pos + len(fields[-1].text)
        second = fields[1] if base is None and len(fields) > 1 else fields[0]
        return Path(base, tuple(f.text[1:] for f in fields), self.text[start:end], second.pos)


def _literal(token: Token) -> Any:
    from ast import literal_eval  # most templates have no literal

    if token.kind == "word":
        return _CONSTANTS[token.text]
    if token.text[0] == "`":
        return token.text[1:-1].replace("\r", "")
    if token.kind == "char":
        return ord(literal_eval(token.text))
    if token.kind == "number" and token.text.lstrip("+-").isdigit():
        return int(token.text)
    return literal_eval(token.text)


def _show(token: Token) -> str:
    """A token as Go's messages show it."""
    if token.kind == "end":
        return "EOF"
    if token.kind == "word" and token.text in _KEYWORDS:
        return f"<{token.text}>"
    return f'"{token.text}"'
