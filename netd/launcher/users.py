"""Who a container's process runs as, looked up in the container's own files. passwd(5), group(5)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from netd.launcher import syscalls
from netd.launcher.spec import LaunchError

MAX_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class User:
    """Numeric identity and home directory."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


def resolve(rootfs: Path, user: str) -> User:
    """`user` is Docker's `name|uid[:group|gid]`, empty for root; raises `LaunchError` for unknown names."""
    name, _, group = user.partition(":")
    passwd = _rows(rootfs, "/etc/passwd", 7)
    row = next((row for row in passwd if name in (row[0], row[2])), None) if name else None
    if not name:
        row = next((row for row in passwd if row[2] == "0"), None)
    if row is not None:
        uid, gid, home = int(row[2]), int(row[3]), row[5] or "/"
    else:
        uid, gid, home = _number(name or "0", f"unable to find user {name}: no matching entries in passwd file"), 0, "/"
    rows = _rows(rootfs, "/etc/group", 4)
    if group:
        return User(uid, _group(rows, group), (), home)
    login = row[0] if row is not None else ""
    groups = tuple(int(entry[2]) for entry in rows if login and login in entry[3].split(","))
    return User(uid, gid, groups, home)


def _group(rows: list[list[str]], group: str) -> int:
    row = next((row for row in rows if group in (row[0], row[2])), None)
    return int(row[2]) if row else _number(group, f"unable to find group {group}: no matching entries in group file")


def _number(text: str, otherwise: str) -> int:
    if not text.isdecimal():
        raise LaunchError(otherwise)
    if int(text) > MAX_ID:
        raise LaunchError("uids and gids must be in range 0-2147483647")
    return int(text)


def _rows(rootfs: Path, path: str, fields: int) -> list[list[str]]:
    """The well-formed lines of a colon-separated table inside the container; none if there is no such file."""
    try:
        descriptor = syscalls.open_in_root(str(rootfs), path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    with open(descriptor, encoding="utf-8", errors="surrogateescape") as table:
        rows = [line.rstrip("\n").split(":") for line in table]
    numeric = (2, 3) if fields == 7 else (2,)
    return [row for row in rows if len(row) >= fields and all(row[i].isdecimal() for i in numeric)]
