"""`image` and its short forms: ls, import, tag, rm, prune."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

from netd.cli.command import Cli, Failure, command
from netd.cli.template import Row
from netd.cli.verbs.network import FORMAT_HELP, confirm
from netd.cli.words import flags
from netd.cli.words.flags import Options
from netd.cli.words.table import write
from netd.cli.words.units import created_at, human_duration, human_size
from netd.client.api import ApiError, Unreachable

_TITLES = {
    "ID": "IMAGE ID",
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
}
_NONE = "<none>"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*(?::\d+)?"
_REFERENCE = re.compile(
    rf"(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*(?::(?P<tag>\w[\w.-]{{0,127}}))?(?P<digest>@.+)?"
)


@command(
    "[OPTIONS] [REPOSITORY[:TAG]]",
    (0, 1),
    flags.boolean("all", "a", "Show all images (default hides intermediate images)"),
    flags.boolean("digests", "", "Show digests"),
    flags.filters(usage="Filter output based on conditions provided"),
    flags.string("format", "", FORMAT_HELP),
    flags.boolean("no-trunc", "", "Don't truncate output"),
    flags.boolean("quiet", "q", "Only show image IDs"),
)
def ls(cli: Cli, options: Options, arguments: list[str]) -> int:
    wanted = dict(options.filter)
    if arguments:
        wanted["reference"] = wanted.get("reference", {}) | {arguments[0]: True}
    images = cli.client.get("/images/json", {"all": options.all or None, "filters": wanted})
    now = time.time()
    digests = options.digests or ".Digest" in options.format
    rows = [
        _row(image, *names, now, full=options.no_trunc) for image in images for names in _names(image, digests=digests)
    ]
    digest = "{{.Digest}}\t" if options.digests else ""
    columns = f"table {{{{.Repository}}}}\t{{{{.Tag}}}}\t{digest}{{{{.ID}}}}\t{{{{.CreatedSince}}}}\t{{{{.Size}}}}"
    quiet = options.quiet and options.format in ("", "table")
    write(rows, _TITLES, "{{.ID}}" if quiet else options.format, default=columns)
    return 0


def _names(image: dict[str, Any], *, digests: bool) -> list[tuple[str, str, str]]:
    """Repository, tag and digest of every line an image has in the list."""
    tags = [name.rpartition(":")[::2] for name in image.get("RepoTags") or () if name != f"{_NONE}:{_NONE}"]
    by_digest = dict(name.partition("@")[::2] for name in image.get("RepoDigests") or () if _NONE not in name)
    if not tags and by_digest:
        return [(repository, _NONE, digest) for repository, digest in by_digest.items()]
    names = [(repository, tag, by_digest.get(repository, _NONE)) for repository, tag in tags]
    return names or [(_NONE, _NONE, _NONE)]


def _row(image: dict[str, Any], repository: str, tag: str, digest: str, now: float, *, full: bool) -> Row:
    return Row(
        "*formatter.imageContext",
        ID=image["Id"] if full else image["Id"].removeprefix("sha256:")[:12],
        Repository=repository,
        Tag=tag,
        Digest=digest,
        CreatedSince=f"{human_duration(now - image['Created'])} ago",
        CreatedAt=created_at(image["Created"]),
        Size=human_size(image["Size"]),
        VirtualSize=human_size(image["Size"], 4),
        Containers=_count(image.get("Containers", -1)),
        SharedSize=_shared(image.get("SharedSize", -1)),
        UniqueSize=_unique(image),
    )


def _count(number: int) -> str:
    return "N/A" if number == -1 else str(number)


def _shared(size: int) -> str:
    return "N/A" if size == -1 else human_size(size)


def _unique(image: dict[str, Any]) -> str:
    shared = image.get("SharedSize", -1)
    return "N/A" if shared == -1 else human_size(image["Size"] - shared)


@command(
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    (1, None),
    flags.listing("change", "c", "Apply Dockerfile instruction to the created image"),
    flags.string("message", "m", "Set commit message for imported image"),
    flags.string("platform", "", "Set platform if server is multi-platform capable"),
)
def import_(cli: Cli, options: Options, arguments: list[str]) -> int:
    source = arguments[0]
    reference = arguments[1] if len(arguments) > 1 else ""
    remote = source.startswith(("http://", "https://"))
    query = [("fromSrc", source if remote else "-"), ("repo", reference), ("message", options.message)]
    query += [("platform", options.platform)]
    query += [("changes", change) for change in options.change]
    body: Any = b"" if remote else _file(source)
    for line in b"".join(cli.client.stream("POST", "/images/create", query, body)).splitlines():
        message = json.loads(line)
        if "error" in message:
            raise Failure(message["error"])
        cli.print(message.get("status", ""))
    return 0


def _file(path: str) -> Iterator[bytes]:
    try:
        file = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise Failure(f"open {path}: {(error.strerror or '').lower()}") from error
    return iter(lambda: file.read(256 * 1024), b"")


@command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", (2, 2))
def tag(cli: Cli, options: Options, arguments: list[str]) -> int:
    source, target = arguments
    repository, name = split_reference(target)
    cli.client.post(f"/images/{source}/tag", {"repo": repository, "tag": name or "latest"})
    return 0


def split_reference(text: str) -> tuple[str, str]:
    """Repository and tag of an image name; raises Failure for one that is not valid."""
    found = _REFERENCE.fullmatch(text)
    if found is None:
        reason = "invalid reference format"
        if _REFERENCE.fullmatch(text.lower()):
            reason += f": repository name ({_normal(text)}) must be lowercase"
        raise Failure(f'Error parsing reference: "{text}" is not a valid repository/tag: {reason}')
    if found["digest"]:
        raise Failure("refusing to create a tag with a digest reference")
    name = found["tag"] or ""
    return (text.removesuffix(f":{name}") if name else text), name


def _normal(text: str) -> str:
    head, slash, _ = text.partition("/")
    name = text.rpartition(":")[0] if ":" in text.rpartition("/")[2] else text
    return name.partition("/")[2] if slash and ("." in head or ":" in head) else name if slash else f"library/{name}"


@command(
    "[OPTIONS] IMAGE [IMAGE...]",
    (1, None),
    flags.boolean("force", "f", "Force removal of the image"),
    flags.boolean("no-prune", "", "Do not delete untagged parents"),
)
def rm(cli: Cli, options: Options, arguments: list[str]) -> int:
    query = {"force": options.force or None, "noprune": options.no_prune or None}
    errors: list[str] = []
    failed = False
    for name in arguments:
        try:
            removed = cli.client.delete(f"/images/{name}", query)
        except (ApiError, Unreachable) as error:
            failed |= not (options.force and isinstance(error, ApiError) and error.status == 404)
            errors.append(str(error))
        else:
            for line in removed:
                cli.print(f"Deleted: {line['Deleted']}" if "Deleted" in line else f"Untagged: {line['Untagged']}")
    if failed:
        raise Failure("\n".join(errors))
    for line in errors:
        cli.warn(line)
    return 0


@command(
    "[OPTIONS]",
    (0, 0),
    flags.boolean("all", "a", "Remove all unused images, not just dangling ones"),
    flags.filters("", 'Provide filter values (e.g. "until=<timestamp>")'),
    flags.boolean("force", "f", "Do not prompt for confirmation"),
)
def prune(cli: Cli, options: Options, arguments: list[str]) -> int:
    warning = "all images without at least one container associated to them" if options.all else "all dangling images"
    if not (options.force or confirm(f"This will remove {warning}.")):
        return 0
    wanted = {**options.filter, "dangling": {str(not options.all).lower(): True}}
    answer = cli.client.post("/images/prune", {"filters": wanted})
    deleted = answer.get("ImagesDeleted")
    if deleted:
        lines = (f"untagged: {d['Untagged']}" if d.get("Untagged") else f"deleted: {d['Deleted']}" for d in deleted)
        cli.print("Deleted Images:\n" + "".join(f"{line}\n" for line in lines))
    cli.print(f"Total reclaimed space: {human_size(answer.get('SpaceReclaimed', 0), 4)}")
    return 0
