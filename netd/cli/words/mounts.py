"""`-v`, `--mount` and `--tmpfs` to the API's binds, mounts and volumes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from netd.cli.words.flags import parse_bool, split_csv
from netd.cli.words.units import parse_bytes

Mount = dict[str, Any]

_NAMES = {"source": "Source", "src": "Source", "target": "Target", "dst": "Target", "destination": "Target"}


def parse_mount(text: str) -> Mount:
    """`type=bind,source=/a,target=/b,readonly`; raises ValueError in Docker's words."""
    mount: Mount = {"Type": "volume"}
    for field in split_csv(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals:
            if key not in ("readonly", "ro", "volume-nocopy", "bind-nonrecursive"):
                raise ValueError(f"invalid field '{field}' must be a key=value pair")
            value = "true"
        _set(mount, key, value, field)
    _check(mount)
    return mount


def _set(mount: Mount, key: str, value: str, field: str) -> None:
    if key == "type":
        mount["Type"] = value.lower()
    elif key in _NAMES:
        relative = _NAMES[key] == "Source" and value.startswith(".")
        mount[_NAMES[key]] = os.path.abspath(value) if relative else value
    elif key in ("readonly", "ro"):
        mount["ReadOnly"] = _value(parse_bool, key, value)
    elif key == "consistency":
        mount["Consistency"] = value.lower()
    elif key in _SUB:
        option, name, parse = _SUB[key]
        mount.setdefault(option, {})[name] = _value(parse, key, value)
    elif key == "volume-label":
        label, _, given = value.partition("=")
        mount.setdefault("VolumeOptions", {}).setdefault("Labels", {})[label] = given
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _value(parse: Callable[[str], Any], key: str, value: str) -> Any:
    try:
        return parse(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


_SUB: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "bind-propagation": ("BindOptions", "Propagation", str.lower),
    "bind-nonrecursive": ("BindOptions", "NonRecursive", parse_bool),
    "volume-nocopy": ("VolumeOptions", "NoCopy", parse_bool),
    "volume-subpath": ("VolumeOptions", "Subpath", str),
    "tmpfs-size": ("TmpfsOptions", "SizeBytes", parse_bytes),
    "tmpfs-mode": ("TmpfsOptions", "Mode", lambda text: int(text, 8)),
}


def _check(mount: Mount) -> None:
    if not mount["Type"]:
        raise ValueError("type is required")
    if not mount.get("Target"):
        raise ValueError("target is required")
    for option, kind in (("VolumeOptions", "volume"), ("BindOptions", "bind"), ("TmpfsOptions", "tmpfs")):
        if option in mount and mount["Type"] != kind:
            raise ValueError(f"cannot mix '{kind}-*' options with mount type '{mount['Type']}'")


def parse_volumes(specs: list[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """`-v` values: binds (`/host:/dir[:ro]`, `name:/dir`) and anonymous volumes (`/dir`)."""
    binds: list[str] = []
    anonymous: dict[str, dict[str, str]] = {}
    for spec in dict.fromkeys(specs):
        source, colon, rest = spec.partition(":")
        if not spec:
            raise ValueError("invalid empty volume spec")
        if not colon:
            anonymous[spec] = {}
            continue
        if not source or not rest.partition(":")[0] or spec.count(":") > 2:
            raise ValueError(
                f"invalid spec: {spec}: empty section between colons"
                if "::" in spec or not source
                else f"invalid spec: {spec}: too many colons"
            )
        binds.append(f"{os.path.abspath(source)}:{rest}" if source.startswith(".") else spec)
    return binds, anonymous


def parse_tmpfs(specs: list[str]) -> dict[str, str]:
    """`/dir:size=64k` -> {"/dir": "size=64k"}."""
    return {path: given for path, _, given in (spec.partition(":") for spec in specs)}
