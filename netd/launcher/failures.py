"""What an OCI runtime says when it cannot start a process, in the words and exit codes of Docker."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from netd.launcher.spec import NOT_EXECUTABLE, NOT_FOUND, LaunchError

CREATE = "failed to create task for container: failed to create shim task: OCI runtime create failed"
EXEC = "OCI runtime exec failed"


class _Entry(msgspec.Struct):
    level: str = ""
    msg: str = ""


# the words by which Docker's own client tells 126 and 127 apart
_CAUSES = (
    ("executable file not found in $PATH", NOT_FOUND),
    ("no such file or directory", NOT_FOUND),
    ("permission denied", NOT_EXECUTABLE),
    ("is a directory", NOT_EXECUTABLE),
)
_CRUN = (
    (re.compile(r"^executable file `.*` not found in \$PATH.*"), "executable file not found in $PATH"),
    (re.compile(r"^executable file `.*` not found.*"), "no such file or directory"),
    (re.compile(r"^(open|stat) executable.*: No such file or directory"), "no such file or directory"),
    (re.compile(r"^(open|exec|executable path|cannot execute|the path).*Permission denied"), "permission denied"),
    (re.compile(r"^(open|exec|executable path|the path).*[Ii]s a directory"), "is a directory"),
)


def explain(prefix: str, said: str, directory: Path, command: str) -> LaunchError:
    """The error to raise: `said` is what conmon passed on, `directory` holds the runtime's log, `command` is
    what was to be executed."""
    text = _logged(directory / "runtime.log") or said.strip() or "the runtime gave no reason"
    text = next((_as_runc(prefix, command, words) for pattern, words in _CRUN if pattern.search(text)), text)
    code = next((code for words, code in _CAUSES if words in text), 128)
    return LaunchError(f"{prefix}: {text}: unknown", code)


def _as_runc(prefix: str, command: str, words: str) -> str:
    if "/" in command and words.startswith(("executable file", "no such file")):
        words = f"stat {command}: no such file or directory"
    verb = "exec" if prefix is EXEC else "runc create"
    return f'{verb} failed: unable to start container process: exec: "{command}": {words}'


def _logged(path: Path) -> str:
    """The last error in a runtime's JSON log."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return ""
    for line in reversed(lines):
        try:
            entry = msgspec.json.decode(line, type=_Entry)
        except msgspec.DecodeError:
            continue
        if entry.level == "error":
            return entry.msg
    return ""
