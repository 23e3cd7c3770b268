"""The host's own resolv.conf, as it was when it could last be read."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from netd.core import textfiles

log = logging.getLogger(__name__)

PATH = Path("/etc/resolv.conf")


class HostResolvConf:
    """Its text, which an absent file has none of. One that cannot be read now says what it said before."""

    def __init__(self, path: Path = PATH) -> None:
        self.text = ""
        self._path = path
        self._trouble = ""
        self._take(_read(path))

    async def look(self) -> None:
        """Read it again."""
        self._take(await asyncio.to_thread(_read, self._path))

    def _take(self, found: str | OSError) -> None:
        if isinstance(found, str):
            self.text, self._trouble = found, ""
        elif str(found) != self._trouble:
            self._trouble = str(found)
            log.warning("%s cannot be read, what it said before goes on to count: %s", self._path, found)


def _read(path: Path) -> str | OSError:
    try:
        return textfiles.read(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error
