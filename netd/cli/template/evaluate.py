"""Runs a parsed template over a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from netd.cli.template.functions import Row, show, truth
from netd.cli.template.lex import TemplateError, line
from netd.cli.template.parse import Branch, Call, Jump, Literal, Node, Operand, Path, Pipe, Text


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Evaluation:
    """One run: the output so far, the variables in scope, and the dot as an argument of each step."""

    def __init__(self, text: str, functions: Mapping[str, Callable[..., Any]], data: Any) -> None:
        self.text = text
        self.functions = functions
        self.data = data
        self.scope: list[tuple[str, Any]] = [("$", data)]
        self.out: list[str] = []

    def render(self, nodes: list[Node]) -> str:
        self.walk(nodes, self.data)
        return "".join(self.out)

    def walk(self, nodes: list[Node], dot: Any) -> None:
        for node in nodes:
            if isinstance(node, Text):
                self.out.append(node.text)
            elif isinstance(node, Pipe):
                value = self.pipe(node, dot)
                if not node.variables:
                    self.out.append(show(value))
            elif isinstance(node, Branch):
                self.branch(node, dot)
            elif isinstance(node, Jump):
                raise _Break if node.keyword == "break" else _Continue

    def branch(self, node: Branch, dot: Any) -> None:
        depth = len(self.scope)
        if node.keyword == "range":
            self.range(node, dot)
        else:
            value = self.pipe(node.pipe, dot)
            inner = value if node.keyword == "with" and truth(value) else dot
            self.walk(node.body if truth(value) else node.otherwise, inner)
        del self.scope[depth:]

    def range(self, node: Branch, dot: Any) -> None:
        names = node.pipe.variables
        value = self.pipe(node.pipe._replace(variables=()), dot)
        items = self.items(node.pipe, value)
        for key, item in items:
            depth = len(self.scope)
            for name, bound in zip(names, (key, item) if len(names) == 2 else (item,), strict=False):
                self.scope.append((name, bound))
            try:
                self.walk(node.body, item)
            except _Break:
                break
            except _Continue:
                pass
            finally:
                del self.scope[depth:]
        if not items:
            self.walk(node.otherwise, dot)

    def items(self, pipe: Pipe, value: Any) -> list[tuple[Any, Any]]:
        if isinstance(value, dict):
            return [(key, value[key]) for key in sorted(value)]
        if isinstance(value, list):
            return list(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return [(i, i) for i in range(value)]
        if value is None:
            return []
        raise self.error(pipe, f"range can't iterate over {show(value)}")

    def pipe(self, pipe: Pipe, dot: Any) -> Any:
        passed: tuple[Any, ...] = ()
        for command in pipe.commands:
            passed = (self.command(command, dot, passed),)
        for name in pipe.variables:
            self.bind(name, passed[0], new=pipe.declares)
        return passed[0]

    def bind(self, name: str, value: Any, *, new: bool) -> None:
        at = next((i for i in reversed(range(len(self.scope))) if self.scope[i][0] == name), None)
        if new or at is None:
            self.scope.append((name, value))
        else:
            self.scope[at] = (name, value)

    def command(self, operands: tuple[Operand, ...], dot: Any, passed: tuple[Any, ...]) -> Any:
        head, *rest = operands
        if isinstance(head, Call):
            return self.call(head, self.functions[head.name], [*self.lazily(rest, dot), *passed])
        value = self.operand(head, dot)
        if callable(value) and isinstance(head, Path):
            return self.call(head, value, [*self.lazily(rest, dot), *passed])
        if rest or passed:
            if isinstance(head, Path) and head.fields:
                raise self.error(head, f"{head.fields[-1]} is not a method but has arguments")
            raise self.error(head, f"can't give argument to non-function {head.source}")
        return value

    def lazily(self, operands: Iterable[Operand], dot: Any) -> list[Any]:
        return [self.operand(operand, dot) for operand in operands]

    def call(self, node: Call | Path, function: Callable[..., Any], arguments: list[Any]) -> Any:
        name = node.name if isinstance(node, Call) else node.fields[-1]
        try:
            return function(*arguments)
        except TemplateError as error:
            raise self.error(node, f"error calling {name}: {error}") from error
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            wanted = _wanted(function)
            if wanted is not None and wanted != len(arguments):
                message = f"wrong number of args for {name}: want {wanted} got {len(arguments)}"
                raise self.error(node._replace(source=name), message) from error
            given = ", ".join(map(show, arguments))
            raise self.error(node, f"error calling {name}: wrong type of argument: {given}") from error

    def operand(self, node: Operand, dot: Any) -> Any:
        if isinstance(node, Literal):
            return node.value
        if isinstance(node, Pipe):
            return self.pipe(node, dot)
        if isinstance(node, Call):
            return self.call(node, self.functions[node.name], [])
        base = dot
        if isinstance(node.base, Pipe):
            base = self.pipe(node.base, dot)
        elif node.base is not None:
            base = next(value for name, value in reversed(self.scope) if name == node.base)
        for name in node.fields:
            base = self.field(node, base, name)
        return base

    def field(self, node: Path, value: Any, name: str) -> Any:
        if isinstance(value, dict):
            if name in value:
                return value[name]
            if isinstance(value, Row):
                raise self.error(node, f"can't evaluate field {name} in type {value.type_name}")
            raise self.error(node, f'map has no entry for key "{name}"')
        if value is None:
            raise self.error(node, f"nil data; no entry for key {name!r}".replace("'", '"'))
        raise self.error(node, f"can't evaluate field {name} in type interface {{}}")

    def error(self, node: Operand, message: str) -> TemplateError:
        begin = self.text.rfind("\n", 0, node.pos) + 1
        place = f"{line(self.text, node.pos)}:{node.pos - begin}"
        return TemplateError(f'template: :{place}: executing "" at <{node.source}>: {message}')


def _wanted(function: Callable[..., Any]) -> int | None:
    """How many arguments a function takes; None if any number."""
    from inspect import Parameter, signature

    parameters = signature(function).parameters.values()
    variadic = any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters)
    return None if variadic else len(parameters)
