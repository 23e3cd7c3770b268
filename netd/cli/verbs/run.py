"""`run`, `create` and `start`: from an image to a process, with or without its streams."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from typing import Any

from netd.cli.command import Cli, Failure, command
from netd.cli.verbs.session import (
    DETACH_KEYS,
    SIG_PROXY,
    Detached,
    attach_session,
    check_tty,
    follow_window,
    proxy_signals,
    terminal_size,
)
from netd.cli.words import flags
from netd.cli.words.create import CREATE_FLAGS, create_body
from netd.cli.words.flags import Options
from netd.client.api import ApiError, Unreachable, version_key

CREATE_FAILED = 125
_NOT_FOUND = re.compile("executable file not found|no such file or directory|system cannot find the file specified")
_NOT_RUNNABLE = re.compile("permission denied|is a directory")
_LOCALHOST = re.compile(r"127\.\d+\.\d+\.\d+|::1")


@command("[OPTIONS] IMAGE [COMMAND] [ARG...]", (1, None), *CREATE_FLAGS, interspersed=False)
def create(cli: Cli, options: Options, arguments: list[str]) -> int:
    try:
        body = create_body(options, arguments[0], arguments[1:])
    except ValueError as error:
        raise _failure(cli, error) from error
    try:
        cli.print(_create(cli, options, body))
    except (ApiError, Unreachable, ValueError) as error:
        raise Failure(str(error)) from error
    return 0


@command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    (1, None),
    *CREATE_FLAGS,
    flags.boolean("detach", "d", "Run container in background and print container ID"),
    DETACH_KEYS,
    SIG_PROXY,
    interspersed=False,
)
def run(cli: Cli, options: Options, arguments: list[str]) -> int:
    try:
        body = create_body(options, arguments[0], arguments[1:])
    except ValueError as error:
        raise _failure(cli, error) from error
    if options.detach:
        if options.attach:
            raise Failure("conflicting options: cannot specify both --attach and --detach")
        body |= {"AttachStdin": False, "AttachStdout": False, "AttachStderr": False, "StdinOnce": False}
    else:
        check_tty(stdin=body["AttachStdin"], tty=body["Tty"])
    try:
        identity = _create(cli, options, body)
    except (ApiError, Unreachable, ValueError) as error:
        raise _failure(cli, error) from error
    if not (body["AttachStdout"] or body["AttachStderr"] or body["AttachStdin"]):
        _start(cli, identity, lambda: None)
        cli.print(identity)
        return 0
    return _foreground(cli, options, identity, body)


def _foreground(cli: Cli, options: Options, identity: str, body: dict[str, Any]) -> int:
    session = attach_session(cli.client, identity, body, options.detach_keys)
    if options.sig_proxy and not body["Tty"]:
        proxy_signals(cli.client, identity)
    removed = body["HostConfig"]["AutoRemove"]
    waiting = Waiter(cli, identity, "removed" if removed else "next-exit")
    _start(cli, identity, waiting.result if removed else lambda: None)
    if body["Tty"]:
        follow_window(cli.client, f"/containers/{identity}")
    try:
        session.run()
    except Detached:
        return 0
    if not (body["AttachStdout"] or body["AttachStderr"]):
        cli.print(identity)
        return 0
    return waiting.result()


def _start(cli: Cli, identity: str, clean_up: Callable[[], Any]) -> None:
    try:
        cli.client.post(f"/containers/{identity}/start")
    except (ApiError, Unreachable) as error:
        clean_up()
        raise _failure(cli, error) from error


class Waiter:
    """The exit code of a container, waited for on a connection of its own from now on."""

    def __init__(self, cli: Cli, identity: str, condition: str) -> None:
        self._cli = cli
        self._code = CREATE_FAILED
        pieces = cli.client.stream("POST", f"/containers/{identity}/wait", {"condition": condition})
        self._thread = threading.Thread(target=self._wait, args=(pieces,), daemon=True)
        self._thread.start()

    def _wait(self, pieces: Any) -> None:
        import json

        try:
            answer = json.loads(b"".join(pieces))
        except (ApiError, OSError, ValueError) as error:
            self._cli.warn(f"error waiting for container: {error}")
            return
        if (answer.get("Error") or {}).get("Message"):
            self._cli.warn(f"error waiting for container: {answer['Error']['Message']}")
        else:
            self._code = int(answer["StatusCode"])

    def result(self) -> int:
        self._thread.join()
        return self._code


def _failure(cli: Cli, error: Exception) -> Failure:
    """Docker's exit codes: 127 a command that is not there, 126 one that cannot run, 125 anything else."""
    text = str(error)
    status = CREATE_FAILED
    if not isinstance(error, ValueError):
        status = 127 if _NOT_FOUND.search(text) else 126 if _NOT_RUNNABLE.search(text) else CREATE_FAILED
    return Failure(f"netd: {text}\n\nRun '{cli.path} --help' for more information", status)


def _create(cli: Cli, options: Options, body: dict[str, Any]) -> str:
    """Creates the container and returns its id; raises ApiError, Unreachable or ValueError."""
    if options.pull not in ("always", "missing", "never"):
        raise ValueError(f'invalid pull option: \'{options.pull}\': must be one of "always", "missing" or "never"')
    if options.cidfile and os.path.exists(options.cidfile):
        raise ValueError(
            f"container ID file found, make sure the other container isn't running or delete {options.cidfile}"
        )
    if any(_LOCALHOST.fullmatch(server) for server in options.dns):
        local = next(server for server in options.dns if _LOCALHOST.fullmatch(server))
        cli.warn(f"WARNING: Localhost DNS ({local}) may fail in containers.")
    if body["Tty"]:
        body["HostConfig"]["ConsoleSize"] = list(terminal_size())
    if version_key(cli.client.version) < (1, 44):
        networks = body["NetworkingConfig"]["EndpointsConfig"]
        body["MacAddress"] = networks[body["HostConfig"]["NetworkMode"]]["MacAddress"]
    if options.pull == "always":
        _pull(cli, options, body["Image"])
    query = {"name": options.name, "platform": options.platform}
    try:
        answer = cli.client.post("/containers/create", query, body)
    except ApiError as error:
        if error.status != 404 or options.pull != "missing" or "No such image" not in error.message:
            raise
        if not options.quiet:
            cli.warn(f"Unable to find image '{with_tag(body['Image'])}' locally")
        _pull(cli, options, body["Image"])
        answer = cli.client.post("/containers/create", query, body)
    for warning in answer.get("Warnings") or ():
        cli.warn(f"WARNING: {warning}")
    if options.cidfile:
        with open(options.cidfile, "w", encoding="ascii") as file:
            file.write(answer["Id"])
    return str(answer["Id"])


def with_tag(image: str) -> str:
    """`busybox` -> `busybox:latest`; a name with a tag or digest stays."""
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def _pull(cli: Cli, options: Options, image: str) -> None:
    import json

    name, _, tag = with_tag(image).rpartition(":")
    query = {"fromImage": name, "tag": tag, "platform": options.platform}
    for line in b"".join(cli.client.stream("POST", "/images/create", query)).splitlines():
        message = json.loads(line)
        if "error" in message:
            raise ApiError(500, message["error"])
        if not options.quiet and message.get("status"):
            cli.warn(message["status"])


@command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (1, None),
    flags.boolean("attach", "a", "Attach STDOUT/STDERR and forward signals"),
    DETACH_KEYS,
    flags.boolean("interactive", "i", "Attach container's STDIN"),
)
def start(cli: Cli, options: Options, arguments: list[str]) -> int:
    if options.attach or options.interactive:
        if len(arguments) > 1:
            raise Failure("you cannot start and attach multiple containers at once")
        return _start_attached(cli, options, arguments[0])
    failed = []
    for name in arguments:
        try:
            cli.client.post(f"/containers/{name}/start")
            cli.print(name)
        except (ApiError, Unreachable) as error:
            cli.warn(error)
            failed.append(name)
    if failed:
        raise Failure(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


def _start_attached(cli: Cli, options: Options, name: str) -> int:
    found = cli.client.get(f"/containers/{name}/json")
    identity, config = found["Id"], found["Config"]
    stdin = options.interactive and config["OpenStdin"]
    streams = {"AttachStdin": stdin, "AttachStdout": True, "AttachStderr": True, "Tty": config["Tty"]}
    session = attach_session(cli.client, identity, streams, options.detach_keys)
    if not config["Tty"]:
        proxy_signals(cli.client, identity)
    removed = found["HostConfig"]["AutoRemove"]
    waiting = Waiter(cli, identity, "removed" if removed else "next-exit")
    cli.client.post(f"/containers/{identity}/start")
    if config["Tty"]:
        follow_window(cli.client, f"/containers/{identity}")
    try:
        session.run()
    except Detached:
        return 0
    return waiting.result()
