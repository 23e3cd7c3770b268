"""From the command line to a verb: global options, dispatch, and errors as exit codes."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from netd.cli.command import Cli, Command, Failure, arity_error
from netd.cli.registry import GROUPS, Verb, find, in_group, in_which_group, other_names
from netd.cli.words import flags

if TYPE_CHECKING:
    from netd.client.api import Client

DEFAULT_HOST = "unix:///run/netd/netd.sock"
USAGE_STATUS = 125
_INTERRUPTED, _BROKEN_PIPE = 128 + 2, 128 + 13  # as a shell reports SIGINT and SIGPIPE

GLOBAL_FLAGS = (
    flags.boolean("debug", "D", "Enable debug mode"),
    flags.string("host", "H", "Daemon socket to connect to", kind="list"),
    flags.boolean("tls", "", "Use TLS; implied by --tlsverify"),
    flags.string("tlscacert", "", "Trust certs signed only by this CA"),
    flags.string("tlscert", "", "Path to TLS certificate file"),
    flags.string("tlskey", "", "Path to TLS key file"),
    flags.boolean("tlsverify", "", "Use TLS and verify the remote"),
    flags.boolean("version", "v", "Print version information and quit"),
)


def main(arguments: list[str]) -> int:
    """Runs one command line (without the program's name) and returns the exit code."""
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # whoever read our output is gone: nothing more can be said to them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    finally:
        _flush()


def _flush() -> None:
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(arguments: list[str]) -> int:
    try:
        options, words = flags.parse(GLOBAL_FLAGS, arguments, interspersed=False)
    except flags.HelpAsked:
        return _say(_top_help())
    except flags.FlagError as error:
        return _complain(f"{error}\n\nUsage:  netd [OPTIONS] COMMAND [ARG...]\n\n{_more('netd')}", USAGE_STATUS)
    if options.version:
        from netd import __version__

        return _say(f"netd version {__version__}\n")
    if words and words[0] == "help":
        words = [*words[1:], "--help"]
    if not words or words[0].startswith("-"):
        return _say(_top_help())
    found = find(words)
    if found is None:
        return _no_verb(words)
    path, verb, rest = found
    return _run(verb, f"netd {path}", rest, options)


def _run(verb: Verb, path: str, arguments: list[str], options: flags.Options) -> int:
    module, _, name = verb.target.partition(":")
    target: Any = getattr(import_module(module if "." in module else f"netd.cli.verbs.{module}"), name)
    if not isinstance(target, Command):
        return int(target(arguments))
    try:
        given, rest = flags.parse(target.flags, arguments, interspersed=target.interspersed)
    except flags.HelpAsked:
        return _say(_verb_help(verb, path, target))
    except flags.FlagError as error:
        return _complain(f"{error}\n\nUsage:  {path} {target.usage}\n\n{_more(path)}", USAGE_STATUS)
    wrong = arity_error(path, target, len(rest))
    if wrong is not None:
        return _complain(wrong, 1)
    return _guarded(target, path, given, rest, options)


def _guarded(target: Command, path: str, given: flags.Options, rest: list[str], options: flags.Options) -> int:
    from netd.client.api import ApiError, Unreachable

    host = options.host or os.environ.get("NETD_HOST") or os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    try:
        return target.run(Cli(host, path, lambda: _connect(host, options)), given, rest)
    except Failure as failure:
        return _complain(failure.message, failure.status)
    except (ApiError, Unreachable) as error:
        return _complain(str(error), 1)


def _connect(host: str, options: flags.Options) -> Client:
    from netd.client.api import Client

    home = os.environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")
    verify = options.tlsverify or bool(os.environ.get("DOCKER_TLS_VERIFY"))
    if not (verify or options.tls):
        return Client(host)
    from netd.client.tls import TlsFiles

    files = TlsFiles(
        ca=options.tlscacert or f"{home}/ca.pem",
        cert=options.tlscert or f"{home}/cert.pem",
        key=options.tlskey or f"{home}/key.pem",
        verify=verify,
    )
    return Client(host, files)


def _no_verb(words: list[str]) -> int:
    group, asked = in_which_group(words)
    if not group:
        return _complain(f"netd: unknown command: netd {words[0]}\n\n{_more('netd')}", 1)
    if not asked or asked[0] in ("--help", "-h"):
        from netd.cli.words.help import group_help

        return _say(group_help(f"netd {group}", GROUPS[group], in_group(group)))
    usage = f"Usage:  netd {group}\n\n{_more(f'netd {group}')}"
    if asked[0].startswith("-"):
        kind = "unknown flag: " if asked[0].startswith("--") else "unknown shorthand flag: "
        return _complain(f"{kind}{asked[0]}\n\n{usage}", USAGE_STATUS)
    return _complain(f"netd: unknown command: netd {group} {asked[0]}\n\n{usage}", 1)


def _more(path: str) -> str:
    return f"Run '{path} --help' for more information"


def _verb_help(verb: Verb, path: str, target: Command) -> str:
    from netd.cli.words.help import command_help

    names = [f"netd {name}" for name in other_names(verb)]
    return command_help(path, target.usage, verb.summary, names, target.flags)


def _top_help() -> str:
    from netd.cli.words.help import options_help, terminal_width

    rows = in_group("")
    commands = "".join(f"  {name:<10}  {summary}\n" for name, summary in rows)
    groups = "".join(f"  {name:<10}  {summary}\n" for name, summary in sorted(GROUPS.items()) if " " not in name)
    options = options_help(GLOBAL_FLAGS, terminal_width() - 1)
    return (
        "Usage:  netd [OPTIONS] COMMAND\n\nContainer networking with an embedded DNS\n\n"
        f"Management Commands:\n{groups}\nCommands:\n{commands}\nGlobal Options:\n{options}\n"
        "Run 'netd COMMAND --help' for more information on a command.\n"
    )


def _say(text: str) -> int:
    sys.stdout.write(text)
    return 0


def _complain(text: str, status: int) -> int:
    sys.stdout.flush()
    if text:
        sys.stderr.write(f"{text}\n")
    return status
