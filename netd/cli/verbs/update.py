"""`update`: other limits and another restart policy for containers that are there."""

from __future__ import annotations

from netd.cli.command import Cli, Failure, command
from netd.cli.words import flags
from netd.cli.words.create import restart_policy
from netd.cli.words.flags import Options
from netd.cli.words.units import parse_bytes, parse_cpus


@command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (1, None),
    flags.value("cpus", "", "Number of CPUs", "decimal", parse_cpus, 0),
    flags.value("memory", "m", "Memory limit", "bytes", parse_bytes, 0),
    flags.integer("pids-limit", "", "Tune container pids limit (set -1 for unlimited)"),
    flags.string("restart", "", "Restart policy to apply when a container exits"),
)
def update(cli: Cli, options: Options, arguments: list[str]) -> int:
    if not options.any_given:
        raise Failure("you must provide one or more flags when using this command")
    body = {
        "Memory": options.memory,
        "NanoCpus": options.cpus,
        "PidsLimit": options.pids_limit,
        "RestartPolicy": restart_policy(options.restart),
    }
    return cli.each(arguments, lambda name: cli.client.post(f"/containers/{name}/update", body=body))
