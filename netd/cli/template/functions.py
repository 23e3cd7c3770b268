"""The functions a template may call, how values print, and what counts as true."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from netd.cli.template.lex import TemplateError


class Row(dict[str, Any]):
    """One line of a table: field names to values, or to functions for fields with arguments.

    `type_name` is the name Go's messages use for what the row stands for.
    """

    __slots__ = ("type_name",)

    def __init__(self, type_name: str, **fields: Any) -> None:
        super().__init__(fields)
        self.type_name = type_name


class Struct(Row):
    """A Go struct inside a row: its JSON keeps the order of its members."""

    __slots__ = ()


class Lenient(dict[str, Any]):
    """An object that has `defaults` for members that are missing, or "<no value>" for any if there are none."""

    __slots__ = ("defaults",)

    def __init__(self, members: dict[str, Any], defaults: dict[str, Any] | None = None) -> None:
        super().__init__(members)
        self.defaults = defaults

    def __contains__(self, key: object) -> bool:
        return self.defaults is None or super().__contains__(key) or key in self.defaults

    def __missing__(self, key: str) -> Any:
        return "<no value>" if self.defaults is None else self.defaults[key]


class Time(str):
    """A time as JSON has it (RFC 3339, UTC); it prints as Go's time.Time does."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return self.replace("T", " ").replace("Z", " +0000 UTC")


def show(value: Any) -> str:
    """A value as Go's `%v` prints it."""
    if isinstance(value, Time):
        return f"{value:}"
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{' '.join(map(show, value))}]"
    if isinstance(value, Row):
        return f"{{{' '.join(map(show, value.values()))}}}"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{show(value[key])}' for key in sorted(value))}]"
    return str(value)


def truth(value: Any) -> bool:
    return bool(value)


def to_json(value: Any) -> str:
    """Compact JSON. A row is written as Go writes a map: keys sorted, `<`, `>` and `&` escaped."""
    if type(value) is Row:
        value = {key: value[key] for key in sorted(value) if not callable(value[key])}
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _and(*values: Any) -> Any:
    return next((v for v in values if not truth(v)), values[-1])


def _or(*values: Any) -> Any:
    return next((v for v in values if truth(v)), values[-1])


def _eq(first: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("missing argument for comparison")
    basic = [value for value in (first, *others) if isinstance(value, (str, int, float))]
    if len({isinstance(value, str) for value in basic}) > 1:
        raise TemplateError("incompatible types for comparison")
    return first in others


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, _zero_like(value))
        elif isinstance(value, (list, str)) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        elif isinstance(value, (list, str)):
            raise TemplateError(f"index out of range: {show(key)}")
        elif value is None:
            raise TemplateError("index of untyped nil")
        else:
            raise TemplateError(f"can't index item of type {_go_type(value)}")
    return value


def _zero_like(mapping: dict[str, Any]) -> Any:
    """What a Go map of the same type gives for a missing key."""
    sample = next(iter(mapping.values()), "")
    return type(sample)() if isinstance(sample, (str, int, bool)) else None


def _go_type(value: Any) -> str:
    names = {str: "string", bool: "bool", int: "int", float: "float64", list: "[]interface {}"}
    return names.get(type(value), "map[string]interface {}")


def _len(value: Any) -> int:
    if isinstance(value, (str, list, dict)):
        return len(value.encode()) if isinstance(value, str) else len(value)
    if value is None:
        return 0  # an absent list or map
    raise TemplateError(f"len of type {_go_type(value)}")


def _slice(value: Any, *bounds: int) -> Any:
    low, high = (*bounds, 0, len(value))[0], bounds[1] if len(bounds) > 1 else len(value)
    return value[low:high]


def _printf(form: str, *values: Any) -> str:
    shown = iter(values)
    parts = []
    pieces = form.replace("%%", "\0").split("%")
    for piece in pieces[1:]:
        width = len(piece) - len(piece.lstrip("-+0123456789."))
        verb, rest = piece[width : width + 1], piece[width + 1 :]
        parts.append(_format(piece[:width], verb, next(shown, None)) + rest)
    return (pieces[0] + "".join(parts)).replace("\0", "%")


def _format(flags: str, verb: str, value: Any) -> str:
    if verb == "q":
        return json.dumps(show(value), ensure_ascii=False)
    if verb in ("d", "x", "X", "o", "f", "e", "g"):
        return str(f"%{flags}{verb}" % value)
    return f"%{flags}s" % show(value)


def _print(*values: Any) -> str:
    """Values joined; a space stands between two of which neither is a string."""
    text = ""
    for position, value in enumerate(values):
        if position and not isinstance(value, str) and not isinstance(values[position - 1], str):
            text += " "
        text += show(value)
    return text


def _join(values: Any, separator: str) -> str:
    return separator.join(map(show, values or []))


def _truncate(text: str, length: int) -> str:
    return text[:length]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": _and,
    "or": _or,
    "not": lambda value: not truth(value),
    "eq": _eq,
    "ne": lambda a, b: not _eq(a, b),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "index": _index,
    "slice": _slice,
    "len": _len,
    "print": _print,
    "println": lambda *values: " ".join(map(show, values)) + "\n",
    "printf": _printf,
    "json": to_json,
    "join": _join,
    "split": lambda text, separator: text.split(separator),
    "title": lambda text: "".join(
        char.upper() if not before.isalnum() else char for before, char in zip(" " + text, text, strict=False)
    ),
    "lower": str.lower,
    "upper": str.upper,
    "pad": lambda text, left, right: " " * left + text + " " * right if text else text,
    "truncate": _truncate,
}

_PLAIN = dict.fromkeys(("json", "title", "lower", "upper", "join", "split", "truncate", "pad"), lambda text, *_: text)
HEADER_FUNCTIONS: dict[str, Callable[..., Any]] = {**FUNCTIONS, **_PLAIN}
