"""What older clients are shown: answers are made in the form of API 1.48 and cut down here (choices 8.10 and 8.11)."""

from __future__ import annotations

from typing import Any

from netd.api.server.versions import Version

Json = dict[str, Any]


def network(view: Json, version: Version) -> Json:
    if version < (1, 48):
        view.pop("EnableIPv4", None)
    return view


def container(view: Json, version: Version) -> Json:
    """GET /containers/{id}/json."""
    for name, settings in view["NetworkSettings"]["Networks"].items():
        _endpoint(settings, version, view["Id"][:12] if name not in ("bridge", "host", "none") else "")
    return view


def container_summary(view: Json, version: Version) -> Json:
    """One element of GET /containers/json."""
    for settings in view["NetworkSettings"]["Networks"].values():
        _endpoint(settings, version, "")
    return view


def image(view: Json, version: Version) -> Json:
    if version < (1, 44):
        view["VirtualSize"] = view["Size"]
    return view


def _endpoint(settings: Json, version: Version, short_id: str) -> None:
    if version < (1, 48):
        settings.pop("GwPriority", None)
    if version < (1, 45) and short_id:
        settings["Aliases"] = [*(settings["Aliases"] or ()), short_id]
    if version < (1, 44):
        settings.pop("DNSNames", None)
