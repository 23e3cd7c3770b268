"""`exec`: another process in a running container."""

from __future__ import annotations

from netd.cli.command import Cli, Failure, command
from netd.cli.verbs.session import DETACH_KEYS, Detached, Session, check_tty, follow_window, terminal_size
from netd.cli.words import flags, values
from netd.cli.words.flags import Options


@command(
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    (2, None),
    flags.boolean("detach", "d", "Detached mode: run command in the background"),
    DETACH_KEYS,
    flags.listing("env", "e", "Set environment variables", values.env),
    flags.listing("env-file", "", "Read in a file of environment variables"),
    flags.boolean("interactive", "i", "Keep STDIN open even if not attached"),
    flags.boolean("privileged", "", "Give extended privileges to the command"),
    flags.boolean("tty", "t", "Allocate a pseudo-TTY"),
    flags.string("user", "u", 'Username or UID (format: "<name|uid>[:<group|gid>]")'),
    flags.string("workdir", "w", "Working directory inside the container"),
    interspersed=False,
)
def exec_(cli: Cli, options: Options, arguments: list[str]) -> int:
    container, *words = arguments
    try:
        variables = [line for path in options.env_file for line in values.env_file(path)] + options.env
    except ValueError as error:
        raise Failure(str(error)) from error
    attached = not options.detach
    cli.client.get(f"/containers/{container}/json")  # an unknown container is told before a missing terminal
    if attached:
        check_tty(stdin=options.interactive, tty=options.tty)
    body = {
        "User": options.user,
        "Privileged": options.privileged,
        "Tty": options.tty,
        "AttachStdin": attached and options.interactive,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "DetachKeys": options.detach_keys,
        "Env": variables or None,
        "WorkingDir": options.workdir,
        "Cmd": words,
    }
    if options.tty:
        body["ConsoleSize"] = list(terminal_size())
    identity = cli.client.post(f"/containers/{container}/exec", body=body)["Id"]
    start = {"Detach": options.detach, "Tty": options.tty}
    if options.detach:
        cli.client.post(f"/exec/{identity}/start", body=start)
        return 0
    return _attached(cli, options, identity, start)


def _attached(cli: Cli, options: Options, identity: str, start: dict[str, bool]) -> int:
    wire = cli.client.hijack(f"/exec/{identity}/start", body=start)
    session = Session(wire, tty=options.tty, stdin=options.interactive, detach_keys=options.detach_keys)
    if options.tty:
        follow_window(cli.client, f"/exec/{identity}")
    try:
        session.run()
    except Detached:
        raise Failure("read escape sequence") from None
    return int(cli.client.get(f"/exec/{identity}/json")["ExitCode"] or 0)
