"""`inspect` and its relatives: objects as JSON, or through a template."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from netd.cli.command import Cli, Failure, command
from netd.cli.template import Template, TemplateError
from netd.cli.template.functions import Lenient, Time
from netd.cli.words import flags
from netd.cli.words.flags import Options
from netd.client.api import ApiError, Unreachable

_FORMAT = flags.string(
    "format",
    "f",
    "Format output using a custom template:\n"
    "'json':             Print in JSON format\n"
    "'TEMPLATE':         Print output using the given Go template.\n"
    "Refer to https://docs.docker.com/go/formatting/ for more information about formatting output with templates",
)
FORMAT = _FORMAT
_TYPES = ("config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume")
_OURS = ("container", "image", "network")
# members that Docker's API leaves out when they are empty; a template may still ask for them
_OPTIONAL: dict[str, Any] = {"Health": None, "Status": None, "Healthcheck": None, "Mounts": [], "ExposedPorts": {}}


@command(
    "[OPTIONS] NETWORK [NETWORK...]",
    (1, None),
    _FORMAT,
    flags.boolean("verbose", "v", "Verbose output for diagnostics"),
)
def network(cli: Cli, options: Options, arguments: list[str]) -> int:
    query = {"verbose": "true" if options.verbose else None}
    return inspect_all(options.format, arguments, lambda name: _network(cli.client.get(f"/networks/{name}", query)))


@command(
    "[OPTIONS] CONTAINER [CONTAINER...]", (1, None), _FORMAT, flags.boolean("size", "s", "Display total file sizes")
)
def container(cli: Cli, options: Options, arguments: list[str]) -> int:
    query = {"size": options.size or None}
    return inspect_all(options.format, arguments, lambda name: cli.client.get(f"/containers/{name}/json", query))


@command("[OPTIONS] IMAGE [IMAGE...]", (1, None), _FORMAT)
def image(cli: Cli, options: Options, arguments: list[str]) -> int:
    return inspect_all(options.format, arguments, lambda name: cli.client.get(f"/images/{name}/json"))


@command(
    "[OPTIONS] NAME|ID [NAME|ID...]",
    (1, None),
    _FORMAT,
    flags.boolean("size", "s", "Display total file sizes if the type is container"),
    flags.string("type", "", "Only inspect objects of the given type"),
)
def inspect(cli: Cli, options: Options, arguments: list[str]) -> int:
    if options.changed("type") and options.type not in _TYPES:
        known = ", ".join(f'"{name}"' for name in _TYPES)
        raise Failure(f'unknown type: "{options.type}": must be one of {known}')

    def get(kind: str, name: str) -> Any:
        if kind == "network":
            return _network(cli.client.get(f"/networks/{name}"))
        query = {"size": options.size or None} if kind == "container" else None
        return cli.client.get(f"/{kind}s/{name}/json", query)

    def find(name: str) -> Any:
        for kind in _OURS:
            try:
                return get(kind, name)
            except ApiError as error:
                if error.status != 404:
                    raise
        raise ApiErrorText(f"Error: No such object: {name}")

    return inspect_all(options.format, arguments, (lambda name: get(options.type, name)) if options.type else find)


class ApiErrorText(ApiError):
    """An error of our own making among the daemon's: shown as it is."""

    def __init__(self, text: str) -> None:
        super().__init__(404, text)
        self.args = (text,)


def _network(found: dict[str, Any]) -> dict[str, Any]:
    found["Created"] = Time(found["Created"])
    return found


def inspect_all(source: str, names: list[str], get: Callable[[str], Any]) -> int:
    """Prints what was found, as JSON or through the template `source`, then the errors about what was not."""
    template = _template(source)
    found: list[Any] = []
    errors: list[str] = []
    lines: list[str] = []
    for name in names:
        try:
            found.append(get(name))
            if template is not None:
                lines.append(template.render(_complete(found[-1])))
        except (ApiError, Unreachable) as error:
            errors.append(str(error))
        except TemplateError as error:
            errors.append(f"template parsing error: {error}")
    if template is not None:
        sys.stdout.write("".join(f"{line}\n" for line in lines or [""]))
    elif source == "json":
        sys.stdout.write(json.dumps(found, separators=(",", ":"), ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(json.dumps(found, indent=4, ensure_ascii=False) + "\n")
    if errors:
        raise Failure("\n".join(errors))
    return 0


def _template(source: str) -> Template | None:
    if source in ("", "json"):
        return None
    try:
        return Template(source)
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}", 64) from error


def _complete(value: Any) -> Any:
    if isinstance(value, dict):
        return Lenient({key: _complete(member) for key, member in value.items()}, _OPTIONAL)
    return value
