"""What `--help` prints: usage, aliases, options; laid out as Docker's client does (pflag's wrapping)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from netd.cli.words.flags import Flag

_SLOP = 5  # a line may be this much too long before it is wrapped


def command_help(path: str, usage: str, summary: str, aliases: Sequence[str], flags: Sequence[Flag]) -> str:
    """The help text of one verb; `path` is `netd network ls`."""
    text = f"Usage:  {path} {usage}".rstrip() + f"\n\n{summary}\n"
    if len(aliases) > 1:
        text += f"\nAliases:\n  {', '.join(aliases)}\n"
    shown = [flag for flag in flags if not flag.hidden]
    if any(flag.short == "h" for flag in shown):
        shown.append(Flag("help", "", "Print usage", "", str))
    if shown:
        text += f"\nOptions:\n{options_help(shown, terminal_width() - 1)}"
    return text


def group_help(path: str, summary: str, verbs: Sequence[tuple[str, str]]) -> str:
    """The help text of a group of verbs, such as `netd network`."""
    width = max((len(name) for name, _ in verbs), default=0)
    lines = "".join(f"  {name:<{max(width, 10)}}  {text}\n" for name, text in verbs)
    more = f"Run '{path} COMMAND --help' for more information on a command."
    return f"Usage:  {path} COMMAND\n\n{summary}\n\nCommands:\n{lines}\n{more}\n"


def options_help(flags: Sequence[Flag], width: int) -> str:
    """The table of flags, sorted by name and wrapped to `width` columns (0: not at all)."""
    rows = [_row(flag) for flag in sorted(flags, key=lambda flag: flag.name)]
    left = max(len(head) for head, _ in rows) + 1
    return "".join(f"{head:<{left}}  {wrap(left + 2, width, text)}\n" for head, text in rows)


def terminal_width() -> int:
    try:
        return os.get_terminal_size(sys.stdin.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def wrap(indent: int, width: int, text: str) -> str:
    """`text` in lines of at most `width` columns (and a little more at its end), after `indent` columns."""
    margin = "\n" + " " * indent
    room = width - indent - _SLOP
    if width == 0 or room < 24 - _SLOP:
        return text.replace("\n", margin)
    lines: list[str] = []
    while text or not lines:
        head, text = _cut(room, text)
        lines.append(head.replace("\n", margin))
    return margin.join(lines)


def _cut(room: int, text: str) -> tuple[str, str]:
    if room + _SLOP > len(text.encode()):
        return text, ""
    space = max(text.rfind(char, 0, room) for char in " \t\n")
    if space <= 0:
        return text, ""
    newline = text.rfind("\n", 0, room)
    at = newline if 0 < newline < space else space
    return text[:at], text[at + 1 :]


def _row(flag: Flag) -> tuple[str, str]:
    head = f"  -{flag.short}, --{flag.name}" if flag.short else f"      --{flag.name}"
    default = f" (default {flag.shown_default})" if flag.shown_default else ""
    return f"{head} {flag.kind}".rstrip(), flag.usage + default
