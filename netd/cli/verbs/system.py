"""`version`, `info` and `events`: the daemon itself."""

from __future__ import annotations

import sys
import time
from typing import Any

from netd import __version__
from netd.cli.command import Cli, Failure, command
from netd.cli.template import Row, Template, TemplateError
from netd.cli.template.functions import Lenient, Struct
from netd.cli.verbs.inspect import FORMAT
from netd.cli.words import flags
from netd.cli.words.flags import Options
from netd.cli.words.units import rfc3339, timestamp
from netd.client.api import API_VERSION, ApiError, Unreachable, json_lines


@command("[OPTIONS]", (0, 0), FORMAT)
def version(cli: Cli, options: Options, arguments: list[str]) -> int:
    import platform

    client = {
        "Version": __version__,
        "ApiVersion": API_VERSION,
        "DefaultAPIVersion": API_VERSION,
        "Os": platform.system().lower(),
        "Arch": platform.machine(),
        "PythonVersion": platform.python_version(),
    }
    server, error = None, ""
    try:
        server = cli.client.get("/version")
        client["ApiVersion"] = cli.client.version
    except (ApiError, Unreachable) as problem:
        error = str(problem)
    if options.format:
        _print(options.format, {"Client": client, "Server": server})
    else:
        sys.stdout.write(_version_text(client, server))
    if error:
        raise Failure(error)
    return 0


def _version_text(client: dict[str, str], server: dict[str, Any] | None) -> str:
    api = client["ApiVersion"]
    if api != client["DefaultAPIVersion"]:
        api += f" (downgraded from {client['DefaultAPIVersion']})"
    lines = [
        "Client:",
        f" Version:           {client['Version']}",
        f" API version:       {api}",
        f" Python version:    {client['PythonVersion']}",
        f" OS/Arch:           {client['Os']}/{client['Arch']}",
    ]
    if server is not None:
        name = (server.get("Platform") or {}).get("Name", "")
        lines += ["", f"Server: {name}".rstrip() if name else "Server:"]
        for component in server.get("Components") or [_engine(server)]:
            lines += _component(component)
    return "".join(f"{line}\n" for line in lines)


def _engine(server: dict[str, Any]) -> dict[str, Any]:
    return {"Name": "Engine", "Version": server["Version"], "Details": server}


def _component(component: dict[str, Any]) -> list[str]:
    details = component.get("Details") or {}
    lines = [f" {component['Name']}:", f"  {'Version:':<18}{component['Version']}"]
    if component["Name"] != "Engine":
        return lines + [f"  {key + ':':<18}{details[key]}" for key in sorted(details)]
    rows = (
        ("API version", f"{details.get('ApiVersion', '')} (minimum version {details.get('MinAPIVersion', '')})"),
        ("Go version", details.get("GoVersion", "")),
        ("Git commit", details.get("GitCommit", "")),
        ("Built", details.get("BuildTime", "")),
        ("OS/Arch", f"{details.get('Os', '')}/{details.get('Arch', '')}"),
        ("Experimental", details.get("Experimental", "")),
    )
    return lines + [f"  {label + ':':<18}{value}" for label, value in rows if value]


@command("[OPTIONS]", (0, 0), FORMAT)
def info(cli: Cli, options: Options, arguments: list[str]) -> int:
    found = cli.client.get("/info")
    if options.format:
        client = {"Version": __version__, "Context": "default", "Debug": False}
        _print(options.format, found | {"ClientInfo": client})
        return 0
    sys.stdout.write(f"Client:\n Version:    {__version__}\n Debug Mode: false\n\nServer:\n{_info_text(found)}\n")
    for warning in found.get("Warnings") or ():
        cli.warn(warning)
    return 0


def _names(found: dict[str, Any]) -> list[str]:
    """Who answers names inside containers; nothing about an engine that does not say."""
    names = found.get("Names")
    if not names:
        return []
    if not names["Kernel"]:
        return [f" Names: answered by netd-dns ({names['Reason'] or '--dns-kernel=off'})"]
    return [
        " Names: answered in the kernel",
        f"  Answered: {names['AnsweredInKernel']}",
        f"  Passed to netd-dns: {names['PassedByKernel']}",
    ]


def _info_text(found: dict[str, Any]) -> str:
    plugins = found.get("Plugins") or {}
    security = found.get("SecurityOptions") or []
    lines = [
        f" Containers: {found.get('Containers', 0)}",
        f"  Running: {found.get('ContainersRunning', 0)}",
        f"  Paused: {found.get('ContainersPaused', 0)}",
        f"  Stopped: {found.get('ContainersStopped', 0)}",
        f" Images: {found.get('Images', 0)}",
        f" Server Version: {found.get('ServerVersion', '')}",
        f" Storage Driver: {found.get('Driver', '')}",
        *(f"  {name}: {value}" for name, value in found.get("DriverStatus") or ()),
        f" Logging Driver: {found.get('LoggingDriver', '')}",
        f" Cgroup Driver: {found.get('CgroupDriver', '')}",
        f" Cgroup Version: {found.get('CgroupVersion', '')}",
        " Plugins:",
        f"  Volume: {' '.join(plugins.get('Volume') or ())}",
        f"  Network: {' '.join(plugins.get('Network') or ())}",
        f"  Log: {' '.join(plugins.get('Log') or ())}",
        f" Swarm: {(found.get('Swarm') or {}).get('LocalNodeState', 'inactive')}",
        f" Runtimes: {' '.join(sorted(found.get('Runtimes') or ()))}",
        f" Default Runtime: {found.get('DefaultRuntime', '')}",
        *([" Security Options:"] if security else ()),
        *(f"  {option.removeprefix('name=').partition(',')[0]}" for option in security),
        f" Kernel Version: {found.get('KernelVersion', '')}",
        f" Operating System: {found.get('OperatingSystem', '')}",
        f" OSType: {found.get('OSType', '')}",
        f" Architecture: {found.get('Architecture', '')}",
        f" CPUs: {found.get('NCPU', 0)}",
        f" Total Memory: {_binary_size(found.get('MemTotal', 0))}",
        f" Name: {found.get('Name', '')}",
        f" ID: {found.get('ID', '')}",
        f" Docker Root Dir: {found.get('DockerRootDir', '')}",
        f" Debug Mode: {str(found.get('Debug', False)).lower()}",
        *_names(found),
        *([" Labels:"] if found.get("Labels") else ()),
        *(f"  {label}" for label in found.get("Labels") or ()),
        f" Experimental: {str(found.get('ExperimentalBuild', False)).lower()}",
        f" Live Restore Enabled: {str(found.get('LiveRestoreEnabled', False)).lower()}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _binary_size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g}{unit}"
        size /= 1024
    return f"{size:.4g}TiB"


def _print(source: str, data: dict[str, Any]) -> None:
    try:
        text = Template("{{json .}}" if source == "json" else source).render(data)
    except TemplateError as error:
        problem = str(error)
        raise Failure(f"template parsing error: {problem}", 1 if "executing" in problem else 64) from error
    sys.stdout.write(f"{text}\n")


@command(
    "[OPTIONS]",
    (0, 0),
    flags.filters(usage="Filter output based on conditions provided"),
    FORMAT._replace(short=""),
    flags.string("since", "", "Show all events created since timestamp"),
    flags.string("until", "", "Stream events until this timestamp"),
)
def events(cli: Cli, options: Options, arguments: list[str]) -> int:
    now = time.time()
    try:
        since = timestamp(options.since, now) if options.since else ""
        until = timestamp(options.until, now) if options.until else ""
        template = _event_template(options.format)
    except ValueError as error:
        raise Failure(str(error)) from error
    except TemplateError as error:
        raise Failure(f"Error parsing format: {error}", 64) from error
    query = {"since": since, "until": until, "filters": options.filter}
    try:
        for event in json_lines(cli.client.stream("GET", "/events", query)):
            _event(template, event)
    except TemplateError as error:
        raise Failure(f"Error parsing format: {error}", 64) from error
    return 0


def _event_template(source: str) -> Template | None:
    if not source:
        return None
    return Template("{{json .}}" if source == "json" else source)


def _event(template: Template | None, event: dict[str, Any]) -> None:
    actor = event.get("Actor") or {}
    if template is None:
        moment = event.get("timeNano") or event.get("time", 0) * 10**9
        details = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
        text = f"{rfc3339(moment)} {event['Type']} {event['Action']} {actor.get('ID', '')}"
        text += f" ({details})" if details else ""
    else:
        text = template.render(event if template.text == "{{json .}}" else _fields(event, actor))
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _fields(event: dict[str, Any], actor: dict[str, Any]) -> Row:
    """An event under the names of Go's events.Message."""
    return Row(
        "*events.Message",
        Status=event.get("status", ""),
        ID=event.get("id", ""),
        From=event.get("from", ""),
        Type=event["Type"],
        Action=event["Action"],
        Actor=Struct("events.Actor", ID=actor.get("ID", ""), Attributes=Lenient(actor.get("Attributes") or {})),
        Scope=event.get("scope", ""),
        Time=event.get("time", 0),
        TimeNano=event.get("timeNano", 0),
    )
