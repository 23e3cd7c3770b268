"""Patterns of users, searched in time linear in the text: Go's regular expressions (RE2) and Go's `path.Match`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import re2

from netd.core.errors import InvalidParameter

LIMIT = 16  # expressions looked for at once; plain words do not count, they are bounded as all values are
_WRITTEN = 1024  # characters of all of them, as reading them takes time too: at worst 0.25 ms for three (`\pL`)
# What bounds the time is the instructions of all programs together: RE2 has looked at each of them for each byte, at
# worst. On an AMD EPYC that took 9 to 14 ns, so that all names of 1000 containers with 60 characters, which are
# searched twice (`web` and `/web`), take 0.15 to 0.37 s with the worst expressions that were found. The larger of those
# that people write: `^/?web-[0-9]+$` has 10, `\p{L}+` 12, `^(web|db|cache)-[0-9]{1,3}$` 18, `^[0-9a-f]{64}$` 130.
_INSTRUCTIONS = 256
# The same for texts that are not ASCII, as names of networks may be, beside the other limit: `\p{L}+` has 1201 in
# UTF-8, most of which are not looked at. 1000 names of 60 characters took 0.3 to 0.7 s at worst.
_INSTRUCTIONS_UTF8 = 32 * _INSTRUCTIONS
_LONGEST = 255  # characters of a text that are searched: a network may be named with a megabyte
# Bytes for a program and the states that RE2 remembers. So few make no difference for the worst expressions but for
# the better: RE2 does without remembering at once, and not after it has tried.
_MEMORY = 8 * 1024
_MEMORY_UTF8 = 64 * 1024
_TOO_LARGE = "invalid filter: the expressions are too large: write fewer, or smaller counts than those such as {100}"
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")
_CHARACTER = r"(?:\\.|[^\\\]-])"
_GLOB = re.compile(
    r"(?P<star>\*+)|(?P<any>\?)|\\(?P<escaped>.)|(?P<plain>[^\\\[*?])"
    rf"|\[(?P<negated>\^?)(?P<ranges>(?:{_CHARACTER}(?:-{_CHARACTER})?)+)\]",
    re.DOTALL,
)
_RANGE = re.compile(rf"(?P<first>{_CHARACTER})(?:-(?P<last>{_CHARACTER}))?", re.DOTALL)


def found(patterns: frozenset[str], text: str) -> bool:
    """Whether one of the regular expressions is found in the text; one that does not compile never is, as in Docker.

    Raises `InvalidParameter` if they are more than `LIMIT`, or too large.
    """
    words, dotted, expressions = _sorted(patterns)
    beginning = text[:_LONGEST]
    found = any(map(beginning.__contains__, words)) or any(word.search(beginning) for word in dotted)
    return found or _any(expressions, beginning)


def globbed(patterns: frozenset[str], text: str) -> bool:
    """Whether the whole text is what one of the patterns describes: `*` and `?` stand for anything but a slash,
    `[a-z]` and `[^a-z]` for one character, `\\x` for `x`. Raises `InvalidParameter` for what is no pattern, and as
    `found` does."""
    return _any(_globs(patterns), text)


def _any(expressions: frozenset[str], text: str) -> bool:
    written = text.encode()
    return any(program.search(written) for program in _programs(expressions, text.isascii()))


@lru_cache(maxsize=8)
def _sorted(patterns: frozenset[str]) -> tuple[Sequence[str], Sequence[re.Pattern[str]], frozenset[str]]:
    """The plain words, those with dots (names have them, and mean them), for which nothing can be tried in two ways,
    and the others."""
    words = tuple(pattern for pattern in patterns if not _SPECIAL.search(pattern))
    others = _bounded(patterns.difference(words))
    dotted = [pattern for pattern in others if not _SPECIAL.search(pattern.replace(".", ""))]
    return words, [re.compile(pattern) for pattern in dotted], others.difference(dotted)


@lru_cache(maxsize=8)
def _globs(patterns: frozenset[str]) -> frozenset[str]:
    return frozenset(map(_glob, _bounded(patterns)))


def _bounded(patterns: frozenset[str]) -> frozenset[str]:
    if len(patterns) > LIMIT:
        raise InvalidParameter(f"invalid filter: more than {LIMIT} patterns")
    if sum(map(len, patterns)) > _WRITTEN:
        raise InvalidParameter(_TOO_LARGE)
    return patterns


@lru_cache(maxsize=8)
def _programs(expressions: frozenset[str], ascii: bool) -> Sequence[re2._Regexp]:
    """Those that compile, for texts in ASCII or for others; what is refused for the first is so for all."""
    if not ascii:
        _programs(expressions, True)
    programs, room = [], _INSTRUCTIONS if ascii else _INSTRUCTIONS_UTF8
    for program in filter(None, (_compiled(expression, ascii) for expression in expressions)):
        room -= program.programsize
        if room < 0:
            raise InvalidParameter(_TOO_LARGE)
        programs.append(program)
    return programs


def _compiled(expression: str, ascii: bool) -> re2._Regexp | None:
    """Where texts and expression are ASCII, Latin-1 means the same, and its programs are much smaller; `\\x{20ac}`
    and the like it does not know."""
    options = re2.Options()
    options.max_mem = _MEMORY if ascii else _MEMORY_UTF8
    options.never_capture = True
    options.log_errors = False
    latin = ascii and expression.isascii()
    options.encoding = re2.Options.Encoding.LATIN1 if latin else re2.Options.Encoding.UTF8
    try:
        return re2.compile(expression.encode(), options)
    except re2.error as error:
        if _reason(error).startswith("pattern too large"):
            raise InvalidParameter(_TOO_LARGE) from None
        return _compiled(expression, False) if latin else None


def _reason(error: Exception) -> str:
    (told,) = error.args
    return told.decode(errors="replace") if isinstance(told, bytes) else str(told)


def _glob(pattern: str) -> str:
    """The regular expression for it."""
    words, end = [], 0
    while end < len(pattern):
        token = _GLOB.match(pattern, end)
        if token is None:
            raise InvalidParameter(f"invalid filter: syntax error in pattern {pattern!r}")
        words.append(_translated(token))
        end = token.end()
    return rf"\A{''.join(words)}\z"


def _translated(token: re.Match[str]) -> str:
    if token["star"]:
        return "[^/]*"
    if token["any"]:
        return "[^/]"
    if token["ranges"]:
        return f"[{token['negated']}{''.join(map(_range, _RANGE.finditer(token['ranges'])))}]"
    literal: str = re2.escape(token["escaped"] or token["plain"])
    return literal


def _range(bounds: re.Match[str]) -> str:
    first, last = (ord(bound[-1]) for bound in (bounds["first"], bounds["last"] or bounds["first"]))
    if first > last:
        raise InvalidParameter(f"invalid filter: the range {bounds[0]} of a pattern ends before it begins")
    return rf"\x{{{first:x}}}-\x{{{last:x}}}"
