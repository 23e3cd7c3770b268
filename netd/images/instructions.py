"""`docker import --change`: Dockerfile instructions that set an image's configuration."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from netd.core.errors import InvalidParameter
from netd.model.images import ImageConfig

_SHELL = ["/bin/sh", "-c"]
_PORT = re.compile(r"(?P<first>\d{1,5})(?:-(?P<last>\d{1,5}))?(?:/(?P<proto>tcp|udp|sctp))?", re.IGNORECASE)


def apply(config: ImageConfig, changes: Iterable[str]) -> ImageConfig:
    """`config` after the instructions, in order; raises `InvalidParameter`."""
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        instruction = _INSTRUCTIONS.get(word.upper())
        if instruction is None:
            raise InvalidParameter(f"{word.upper()} is not a valid change command")
        if not rest.strip():
            raise InvalidParameter(f"{word.upper()} requires at least one argument")
        config = instruction(config, rest.strip())
    return config


def _command(text: str) -> list[str]:
    return _json_list(text) or [*_SHELL, text]


def _json_list(text: str) -> list[str] | None:
    """The exec form of an instruction, `["a", "b"]`; None if it is not one."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    return None


def _cmd(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, cmd=_command(text))


def _entrypoint(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, entrypoint=_command(text))


def _pairs(instruction: str, text: str) -> dict[str, str]:
    """`a=b c="d e"`, or the old form `a b c`, which sets `a` to the rest of the line."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InvalidParameter(f"{instruction}: {error}") from error
    if "=" not in words[0]:
        name, _, value = text.partition(" ")
        if not value.strip():
            raise InvalidParameter(f"{instruction} must have two arguments")
        return {name: value.strip()}
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InvalidParameter(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        pairs[name] = value
    return pairs


def _env(config: ImageConfig, text: str) -> ImageConfig:
    values = dict(entry.split("=", 1) for entry in config.env or [])
    values |= _pairs("ENV", text)
    return replace(config, env=[f"{name}={value}" for name, value in values.items()])


def _label(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, labels=(config.labels or {}) | _pairs("LABEL", text))


def _workdir(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, working_dir=posixpath.normpath(posixpath.join(config.working_dir or "/", text)))


def _user(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, user=text)


def _stop_signal(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, stop_signal=text)


def _volume(config: ImageConfig, text: str) -> ImageConfig:
    paths = _json_list(text) or text.split()
    return replace(config, volumes=(config.volumes or {}) | {path: {} for path in paths})


def _expose(config: ImageConfig, text: str) -> ImageConfig:
    ports: dict[str, dict[str, Any]] = {port: {} for word in text.split() for port in _ports(word)}
    return replace(config, exposed_ports=(config.exposed_ports or {}) | ports)


def _ports(word: str) -> list[str]:
    match = _PORT.fullmatch(word)
    if not match:
        raise InvalidParameter(f"invalid containerPort: {word}")
    first = int(match["first"])
    last = int(match["last"] or first)
    if not first <= last <= 65535:
        raise InvalidParameter(f"invalid containerPort: {word}")
    return [f"{port}/{(match['proto'] or 'tcp').lower()}" for port in range(first, last + 1)]


_INSTRUCTIONS: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
