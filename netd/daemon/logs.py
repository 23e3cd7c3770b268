"""The daemon's own log, as text for people or JSON for machines; everything goes to standard error."""

from __future__ import annotations

import json
import logging
import sys

from netd.config.values import Config
from netd.core.times import timestamp

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


def set_up(config: Config) -> None:
    """Configure the root logger; may be called again after a reload."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if config.log_format == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if config.debug else _LEVELS[config.log_level])
    for chatty in ("asyncio", "pyroute2", "aiohttp"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class _Text(logging.Formatter):
    """One line a message; what users gave is escaped so that it cannot forge another line."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{timestamp()} {record.levelname.lower():7} {record.name}: {_one_line(record.getMessage())}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {"time": timestamp(), "level": record.levelname.lower(), "logger": record.name}
        entry["msg"] = record.getMessage()
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
