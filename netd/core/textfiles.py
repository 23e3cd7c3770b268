"""Small text files that others write: whatever is in them is read, and never more than is sensible."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LIMIT = 1 << 20  # bytes


def read(path: Path, *, errors: str = "replace") -> str:
    """The text of a regular file; `errors` says what becomes of bytes that are not UTF-8, as in `bytes.decode`.

    Raises `OSError`, also for what is no regular file and for what is larger than `LIMIT`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe nobody writes to is not waited for
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(LIMIT + 1)
    finally:
        os.close(descriptor)
    if len(content) > LIMIT:
        raise OSError(errno.EFBIG, f"it has more than {LIMIT} bytes", str(path))
    return content.decode(errors=errors)
