"""Checks of single flag values, with Docker's words for what is wrong."""

from __future__ import annotations

import os
import re

_LINK = re.compile(r"[^:]*(:[^:]*)?")
_MAC = re.compile(
    r"(?:[0-9a-fA-F]{2}([:-])(?:[0-9a-fA-F]{2}\1){4}(?:[0-9a-fA-F]{2}\1){0,2}[0-9a-fA-F]{2}"
    r"|[0-9a-fA-F]{4}\.[0-9a-fA-F]{4}\.[0-9a-fA-F]{4}(?:\.[0-9a-fA-F]{4})?)"
)
_DNS_SEARCH = re.compile(
    r"(?:[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?)(?:\.[a-zA-Z0-9_](?:[a-zA-Z0-9_-]*[a-zA-Z0-9_])?)*\.?"
)
_SYSCTLS = (
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni "
    "kernel.shm_rmid_forced"
).split()


def capability(text: str) -> str:
    """`net_admin` -> `CAP_NET_ADMIN`."""
    name = text.strip().upper()
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def validate_label(text: str) -> str:
    if not text.partition("=")[0]:
        raise ValueError(f"invalid label '{text}': empty name")
    return text


def ip(text: str) -> str:
    from ipaddress import ip_address

    try:
        return str(ip_address(text.strip()))
    except ValueError:
        raise ValueError(f"IP address is not correctly formatted: {text}") from None


def is_mac(text: str) -> bool:
    return _MAC.fullmatch(text) is not None and len(re.sub(r"[^0-9a-fA-F]", "", text)) in (12, 16, 40)


def dns_search(text: str) -> str:
    text = text.strip()
    if text != "." and _DNS_SEARCH.fullmatch(text) is None:
        raise ValueError(f"{text} is not a valid domain")
    return text


def env(text: str) -> str:
    """`NAME=value`; a name alone takes its value from our own environment, if it has one."""
    name, equals, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    if equals or name not in os.environ:
        return text
    return f"{name}={os.environ[name]}"


def link(text: str) -> str:
    """`name` or `name:alias`."""
    if not text:
        raise ValueError("empty string specified for links")
    if _LINK.fullmatch(text) is None:
        raise ValueError(f"bad format for links: {text}")
    return text


def add_host(text: str) -> str:
    """`name:ip`, `name=ip` or `name:host-gateway` -> `name:ip`."""
    name, separator, address = text.partition("=")
    if not separator:
        name, _, address = text.partition(":")
    if not name or not address:
        raise ValueError(f'bad format for add-host: "{text}"')
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != "host-gateway":
        from ipaddress import ip_address

        try:
            ip_address(address)
        except ValueError:
            raise ValueError(f'invalid IP address in add-host: "{address}"') from None
    return f"{name}:{address}"


def stream(text: str) -> str:
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def sysctl(text: str) -> str:
    key, equals, _ = text.partition("=")
    if not equals or not (key in _SYSCTLS or key.startswith(("net.", "fs.mqueue."))):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return text


def read_lines(path: str) -> list[str]:
    """The lines of an env or label file without comments and empty ones; raises ValueError."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise ValueError(f"open {path}: {(error.strerror or '').lower()}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"env file {path} contains invalid utf8 bytes") from error
    stripped = [line.lstrip() for line in lines]
    return [line for line in stripped if line and not line.startswith("#")]


def env_file(path: str) -> list[str]:
    """Variables of an env file; a name alone takes its value from our environment or is left out."""
    found = []
    for line in read_lines(path):
        name, equals, _ = line.partition("=")
        if not name:
            raise ValueError(f"no variable name on line '{line}'")
        if re.search(r"\s", name):
            raise ValueError(f"variable '{name}' contains whitespaces")
        if equals or name in os.environ:
            found.append(line if equals else f"{name}={os.environ[name]}")
    return found
