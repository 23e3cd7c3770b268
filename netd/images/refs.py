"""Names of images: `repository[:tag]`, in the short form that Docker shows (its "familiar" form)."""

from __future__ import annotations

import re

from netd.core.errors import InvalidParameter

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::[0-9]+)?"
_REPOSITORY = re.compile(rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"(?:sha256:)?(?P<hex>[0-9a-f]{1,64})")
_HUB = ("docker.io", "index.docker.io")
_MAX_REPOSITORY = 255


def normalise(repository: str, tag: str = "") -> str:
    """`repository:tag` as it is shown and stored; the tag is `latest` unless given, here or in the repository.

    Raises `InvalidParameter`. The grammar is that of distribution/reference.
    """
    name, own_tag = split(repository)
    tag = tag or own_tag or "latest"
    domain, path = _parse(repository if repository.endswith(":") else name)
    if not _TAG.fullmatch(tag):
        raise InvalidParameter("invalid tag format")
    if domain in _HUB:
        return f"{path.removeprefix('library/')}:{tag}"
    return f"{domain}/{path}:{tag}"


def split(reference: str) -> tuple[str, str]:
    """Repository and tag of a reference as typed; the tag may be empty. A colon before a slash is a port."""
    head, colon, tail = reference.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (reference, "")


def forms(name: str) -> tuple[str, str]:
    """What a pattern may describe of a normalised name: all of it, or its repository."""
    return name, split(name)[0]


def id_prefix(reference: str) -> str | None:
    """The hexadecimal digits if `reference` may be an image id or the beginning of one."""
    match = _DIGEST.fullmatch(reference)
    return match["hex"] if match else None


def _parse(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    # as Docker tells a registry from a user: a dot, a port, or localhost
    has_domain = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    domain, path = (first, rest) if has_domain else ("docker.io", name)
    if path != path.lower():
        full = f"library/{path}" if domain in _HUB and "/" not in path else path
        raise InvalidParameter(f"invalid reference format: repository name ({full}) must be lowercase")
    match = _REPOSITORY.fullmatch(f"{domain}/{path}") if len(name) <= _MAX_REPOSITORY else None
    if not match or re.fullmatch(r"[0-9a-f]{64}", name):
        raise InvalidParameter("invalid reference format")
    return domain, path
