"""The processes of a container, as the host's ps shows them (docker top)."""

from __future__ import annotations

import asyncio
import shlex
from typing import Any

from netd.core.errors import InvalidParameter
from netd.launcher.processes import communicate
from netd.launcher.spec import LaunchError

_PATIENCE = 10.0  # seconds; a process in uninterruptible sleep may keep ps from reading its command line


async def processes_of(pids: set[int], ps_args: str) -> dict[str, Any]:
    """Docker's answer: titles and rows of `ps <ps_args>` for these processes. The last column takes the rest of
    its line. Raises `InvalidParameter` if ps does, or if its output has no PID column."""
    try:
        words = shlex.split(ps_args or "-ef")
    except ValueError as error:
        raise InvalidParameter(f"ps_args: {error}") from None
    process = await asyncio.create_subprocess_exec(
        *("ps", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, said = await communicate(process, _PATIENCE)
    if process.returncode:
        raise InvalidParameter(f"ps: {said.decode(errors='replace').strip()}")
    return parse(output.decode(errors="replace"), pids)


def parse(output: str, pids: set[int]) -> dict[str, Any]:
    """The part of ps's output that is about `pids`."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise LaunchError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = [line.split(None, len(titles) - 1) for line in lines[1:]]
    mine = [row for row in rows if len(row) > column and row[column].isdecimal() and int(row[column]) in pids]
    return {"Titles": titles, "Processes": [[field.strip() for field in row] for row in mine]}
