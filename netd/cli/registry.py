"""The table of verbs: path -> where its code is, and one line about it. A new verb is a new row."""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """`target` is `module:attribute`, imported when the verb is used.

    The attribute is a Command, or a function of the remaining arguments that returns the exit code.
    """

    target: str
    summary: str
    aliases: tuple[str, ...] = ()  # further names beside the last word of the path


GROUPS = {
    "container": "Manage containers",
    "dns": "Ask what containers resolve, and change it",
    "dns record": "Manage the static records of networks",
    "image": "Manage images",
    "lab": "Run several hosts with a store on this machine",
    "network": "Manage networks",
    "store": "Manage the cluster store",
}

_CONTAINER = {
    "attach": Verb("session:attach", "Attach local standard input, output, and error streams to a running container"),
    "create": Verb("run:create", "Create a new container"),
    "exec": Verb("execute:exec_", "Execute a command in a running container"),
    "kill": Verb("containers:kill", "Kill one or more running containers"),
    "logs": Verb("logs:logs", "Fetch the logs of a container"),
    "pause": Verb("containers:pause", "Pause all processes within one or more containers"),
    "port": Verb("containers:port", "List port mappings or a specific mapping for the container"),
    "rename": Verb("containers:rename", "Rename a container"),
    "restart": Verb("containers:restart", "Restart one or more containers"),
    "rm": Verb("containers:rm", "Remove one or more containers", ("remove",)),
    "run": Verb("run:run", "Create and run a new container from an image"),
    "start": Verb("run:start", "Start one or more stopped containers"),
    "stop": Verb("containers:stop", "Stop one or more running containers"),
    "top": Verb("containers:top", "Display the running processes of a container"),
    "unpause": Verb("containers:unpause", "Unpause all processes within one or more containers"),
    "update": Verb("update:update", "Update configuration of one or more containers"),
    "wait": Verb("containers:wait", "Block until one or more containers stop, then print their exit codes"),
}

VERBS: dict[str, Verb] = {
    **{f"container {name}": verb for name, verb in _CONTAINER.items()},
    "container inspect": Verb("inspect:container", "Display detailed information on one or more containers"),
    "container ls": Verb("ps:ps", "List containers", ("list", "ps")),
    "container prune": Verb("containers:prune", "Remove all stopped containers"),
    "dns explain": Verb("dns:explain", "Tell how a question of a container is answered, and why"),
    "dns log": Verb("dns:log", "Show what containers ask the resolver, as they ask it"),
    "dns record add": Verb("dns:add", "Add a static record to a network"),
    "dns record ls": Verb("dns:ls", "List the static records of a network", ("list",)),
    "dns record rm": Verb("dns:rm", "Remove static records of a name", ("remove",)),
    "hosts": Verb("hosts:hosts", "List the hosts of the cluster, and what is wrong with the way to them"),
    "hosts inspect": Verb("hosts:inspect", "Display detailed information on one or more hosts of the cluster"),
    "image import": Verb("images:import_", "Import the contents from a tarball to create a filesystem image"),
    "image inspect": Verb("inspect:image", "Display detailed information on one or more images"),
    "image ls": Verb("images:ls", "List images", ("list",)),
    "image prune": Verb("images:prune", "Remove unused images"),
    "image rm": Verb("images:rm", "Remove one or more images", ("remove",)),
    "image tag": Verb("images:tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "lab cut": Verb("lab:cut", "Cut a machine of the lab off from all others"),
    "lab down": Verb("lab:down", "Remove the lab and everything in it"),
    "lab env": Verb("lab:env", "Print what points docker and netd at a host of the lab"),
    "lab exec": Verb("lab:exec_", "Execute a command on a machine of the lab"),
    "lab heal": Verb("lab:heal", "Bring a machine of the lab back that was cut off or killed"),
    "lab kill": Verb("lab:kill", "Pull the plug of a machine of the lab"),
    "lab status": Verb("lab:status", "Show the hosts of the lab and the members of its store"),
    "lab up": Verb("lab:up", "Start a lab, add hosts to it, or restart what is missing of it"),
    "network connect": Verb("network:connect", "Connect a container to a network"),
    "network create": Verb("network:create", "Create a network"),
    "network disconnect": Verb("network:disconnect", "Disconnect a container from a network"),
    "network inspect": Verb("inspect:network", "Display detailed information on one or more networks"),
    "network ls": Verb("network:ls", "List networks", ("list",)),
    "network prune": Verb("network:prune", "Remove all unused networks"),
    "network rm": Verb("network:rm", "Remove one or more networks", ("remove",)),
    "store check": Verb("store:check", "Tell what is wrong with a cluster store, or how fast it is"),
    "store export": Verb("store:export", "Write everything that a cluster store holds into a file"),
    "store import": Verb("store:import_", "Read what was exported into a cluster store"),
    **{name: verb._replace(aliases=()) for name, verb in _CONTAINER.items()},
    "attach": Verb("namespaces:attach", "Attach to a running container's streams, or a network namespace to networks"),
    "daemon": Verb("netd.daemon.main:main", "Run the netd daemon"),
    "detach": Verb("namespaces:detach", "Take networks and resolver back from attached network namespaces"),
    "events": Verb("system:events", "Get real time events from the server"),
    "images": Verb("images:ls", "List images"),
    "import": Verb("images:import_", "Import the contents from a tarball to create a filesystem image"),
    "info": Verb("system:info", "Display system-wide information"),
    "inspect": Verb("inspect:inspect", "Return low-level information on Docker objects"),
    "ps": Verb("ps:ps", "List containers"),
    "rmi": Verb("images:rm", "Remove one or more images"),
    "tag": Verb("images:tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "version": Verb("system:version", "Show the netd version information"),
}


def find(words: list[str]) -> tuple[str, Verb, list[str]] | None:
    """The path and row of the verb that `words` begin with, aliases included, and the words behind it."""
    if (longer := " ".join(words[:2])) in VERBS:  # of a verb that has others below it, too
        return longer, VERBS[longer], words[2:]
    group, rest = in_which_group(words)
    for path, verb in VERBS.items():
        head, _, name = path.rpartition(" ")
        if rest and head == group and rest[0] in (name, *verb.aliases):
            return path, verb, rest[1:]
    return None


def in_which_group(words: list[str]) -> tuple[str, list[str]]:
    """The innermost group that `words` begin with ("" for none), and the words behind it."""
    for length in (2, 1):
        if len(words) >= length and (group := " ".join(words[:length])) in GROUPS:
            return group, words[length:]
    return "", words


def other_names(verb: Verb) -> list[str]:
    """All full names of a verb, for its help."""
    names = []
    for path, row in VERBS.items():
        if row.target == verb.target:
            group = path.rpartition(" ")[0]
            names += [path, *(f"{group} {alias}" for alias in row.aliases)]
    return names


def in_group(group: str) -> list[tuple[str, str]]:
    """Names and summaries of a group's verbs; of the verbs without a group for ""."""
    prefix = f"{group} " if group else ""
    summaries = {path: verb.summary for path, verb in VERBS.items()} | (GROUPS if group else {})
    rows = [(path.removeprefix(prefix), text) for path, text in summaries.items() if path.startswith(prefix)]
    return sorted(row for row in rows if " " not in row[0])
