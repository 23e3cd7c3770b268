"""Patterns of users, searched in time linear in the text: Go's regular expressions (RE2) and Go's `path.Match`."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import re2

from netd.core.errors import InvalidParameter

LIMIT = 16  # expressions looked for at once; plain words do not count
_MEMORY = 32 * 1024  # bytes one compiled expression may take, which bounds the time for each character of the text
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

    Raises `InvalidParameter` for more than `LIMIT` of them.
    """
    return any(search(text) for search in _searches(patterns))


def globbed(patterns: frozenset[str], text: str) -> bool:
    """Whether the whole text is what one of the patterns describes: `*` and `?` stand for anything but a slash,
    `[a-z]` and `[^a-z]` for one character, `\\x` for `x`. Raises `InvalidParameter` for what is no pattern."""
    return any(search(text) for search in _globs(patterns))


Search = Callable[[str], object]


@lru_cache(maxsize=8)
def _searches(patterns: frozenset[str]) -> tuple[Search, ...]:
    words = [pattern for pattern in patterns if not _SPECIAL.search(pattern)]
    expressions = [_compiled(pattern) for pattern in _bounded(patterns.difference(words))]
    return (*(_contains(word) for word in words), *(found.search for found in expressions if found is not None))


@lru_cache(maxsize=8)
def _globs(patterns: frozenset[str]) -> tuple[Search, ...]:
    return tuple(_glob(pattern) for pattern in _bounded(patterns))


def _bounded(patterns: frozenset[str]) -> frozenset[str]:
    if len(patterns) > LIMIT:
        raise InvalidParameter(f"invalid filter: more than {LIMIT} patterns")
    return patterns


def _contains(word: str) -> Search:
    return lambda text: word in text


def _compiled(pattern: str) -> re2._Regexp | None:
    options = re2.Options()
    options.max_mem = _MEMORY
    options.never_capture = True
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error:
        return None


def _glob(pattern: str) -> Search:
    words, end = [], 0
    while end < len(pattern):
        token = _GLOB.match(pattern, end)
        if token is None:
            raise InvalidParameter(f"invalid filter: syntax error in pattern {pattern!r}")
        words.append(_translated(token))
        end = token.end()
    compiled = _compiled(rf"\A{''.join(words)}\z")
    if compiled is None:
        raise InvalidParameter(f"invalid filter: the pattern {pattern!r} is too long")
    search: Search = compiled.search
    return search


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
