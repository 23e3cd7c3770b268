"""Command line flags as Docker parses them (the rules of spf13/pflag), and its error texts.

Long `--name value` and `--name=value`, short `-n value`, `-nvalue`, `-n=value`, grouped `-it`; `--` ends the
flags. argparse is not used: its abbreviations, its messages and its handling of `run IMAGE -x` differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class FlagError(Exception):
    """A flag that does not parse; the message is what the user reads, above the usage line."""


class HelpAsked(Exception):
    """`--help` was given."""


class Flag(NamedTuple):
    """One flag. `kind` names the value in the help; `parse` raises ValueError with the reason in its text.

    `merge` adds a value to those given before (repeatable flags); without it the last one wins.
    """

    name: str
    short: str
    usage: str
    kind: str
    parse: Callable[[str], Any]
    default: Any = ""
    merge: Callable[[Any, Any], Any] | None = None
    shown_default: str = ""
    hidden: bool = False
    dest: str = ""  # the flag it is another name for

    @property
    def key(self) -> str:
        return (self.dest or self.name).replace("-", "_")

    @property
    def label(self) -> str:
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"

    def alias(self, name: str) -> Flag:
        """The same flag under another, hidden name."""
        return self._replace(name=name, short="", hidden=True, dest=self.name)


class Options:
    """Parsed flags: `options.no_trunc`, and `changed("no-trunc")` for whether it was given."""

    __slots__ = ("_changed", "_values")

    def __init__(self, flags: Sequence[Flag]) -> None:
        self._values = {flag.key: flag.default for flag in flags if not flag.dest}
        self._changed: set[str] = set()

    def __getattr__(self, key: str) -> Any:
        try:
            return self._values[key]
        except KeyError:
            raise AttributeError(key) from None

    def changed(self, name: str) -> bool:
        return name.replace("-", "_") in self._changed

    @property
    def any_given(self) -> bool:
        return bool(self._changed)

    def put(self, flag: Flag, text: str) -> None:
        try:
            value = flag.parse(text)
        except ValueError as error:
            raise FlagError(f'invalid argument "{text}" for "{flag.label}" flag: {error}') from error
        if flag.merge is not None:
            value = flag.merge(self._values[flag.key], value)
        self._values[flag.key] = value
        self._changed.add(flag.key)


def parse(flags: Sequence[Flag], arguments: Sequence[str], *, interspersed: bool = True) -> tuple[Options, list[str]]:
    """Flag values and the other arguments; without `interspersed` the first argument ends the flags.

    Raises FlagError, or HelpAsked when `--help` stands among the flags.
    """
    long = {flag.name: flag for flag in flags}
    short = {flag.short: flag for flag in flags if flag.short}
    options = Options(flags)
    rest = list(arguments)
    positional: list[str] = []
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return options, positional + rest
        if argument.startswith("--"):
            _long(long, options, argument, rest)
        elif argument.startswith("-") and argument != "-":
            _group(short, options, argument[1:], rest)
        else:
            positional.append(argument)
            if not interspersed:
                return options, positional + rest
    return options, positional


def _long(flags: dict[str, Flag], options: Options, argument: str, rest: list[str]) -> None:
    name, equals, value = argument[2:].partition("=")
    if not name or name.startswith("-"):
        raise FlagError(f"bad flag syntax: {argument}")
    flag = flags.get(name)
    if flag is None:
        if name == "help":
            raise HelpAsked
        raise FlagError(f"unknown flag: --{name}")
    if not equals:
        if flag.kind == "":
            value = "true"
        elif rest:
            value = rest.pop(0)
        else:
            raise FlagError(f"flag needs an argument: {argument}")
    options.put(flag, value)


def _group(flags: dict[str, Flag], options: Options, group: str, rest: list[str]) -> None:
    """`-it`, `-p80:80`, `-p=80:80`, `-p 80:80`: letters up to the first that takes a value."""
    letters = group
    while letters:
        letter, letters = letters[0], letters[1:]
        flag = flags.get(letter)
        if flag is None:
            if letter == "h":
                raise HelpAsked
            raise FlagError(f"unknown shorthand flag: '{letter}' in -{letter + letters}")
        if letters.startswith("=") and len(letters) > 1:
            return options.put(flag, letters[1:])
        if flag.kind == "":
            options.put(flag, "true")
        elif letters:
            return options.put(flag, letters)
        elif rest:
            return options.put(flag, rest.pop(0))
        else:
            raise FlagError(f"flag needs an argument: '{letter}' in -{letter}")


# ---- kinds of flag ----------------------------------------------------------------------------------------


def boolean(name: str, short: str, usage: str, *, default: bool = False) -> Flag:
    return Flag(name, short, usage, "", parse_bool, default, shown_default="true" if default else "")


def string(name: str, short: str, usage: str, *, default: str = "", kind: str = "string") -> Flag:
    return Flag(name, short, usage, kind, str, default, shown_default=f'"{default}"' if default else "")


def value(
    name: str, short: str, usage: str, kind: str, parse: Callable[[str], Any], default: Any, shown: str = ""
) -> Flag:
    """A single value with a parser of its own."""
    return Flag(name, short, usage, kind, parse, default, shown_default=shown)


def integer(name: str, short: str, usage: str, *, default: int = 0) -> Flag:
    shown = str(default) if default else ""
    return Flag(name, short, usage, "int", parse_int, default, shown_default=shown)


def listing(name: str, short: str, usage: str, parse: Callable[[str], Any] = str, *, kind: str = "list") -> Flag:
    """Repeatable; each value is one entry."""
    return Flag(name, short, usage, kind, parse, [], lambda old, new: [*old, new])


def strings(name: str, short: str, usage: str) -> Flag:
    """Repeatable; each value is a comma-separated record."""
    return Flag(name, short, usage, "strings", split_csv, [], lambda old, new: [*old, *new])


def mapping(name: str, short: str, usage: str, parse: Callable[[str], str] = str) -> Flag:
    """Repeatable `key=value`; a key alone has the value ""."""

    def pair(text: str) -> dict[str, str]:
        key, _, given = parse(text).partition("=")
        return {key: given}

    return Flag(name, short, usage, "map", pair, {}, lambda old, new: old | new, shown_default="map[]")


def filters(short: str = "f", usage: str = "Provide filter values") -> Flag:
    """`--filter key=value`, kept as the API's `{"key": {"value": true}}`."""
    return Flag("filter", short, usage, "filter", _filter, {}, _merge_filters)


def parse_bool(text: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_int(text: str, bits: int = 64) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if not -(1 << bits - 1) <= number < 1 << bits - 1:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


def split_csv(text: str) -> list[str]:
    """The fields of one line of comma-separated values (RFC 4180 quoting)."""
    if '"' not in text:
        return text.split(",") if text else []
    import csv

    return next(csv.reader([text]))


def _filter(text: str) -> dict[str, dict[str, bool]]:
    if not text:
        return {}
    key, equals, wanted = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return {key.strip().lower(): {wanted.strip(): True}}


def _merge_filters(old: dict[str, dict[str, bool]], new: dict[str, dict[str, bool]]) -> dict[str, Any]:
    return {key: old.get(key, {}) | new.get(key, {}) for key in old | new}
