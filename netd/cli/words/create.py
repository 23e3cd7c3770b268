"""The flags of `run` and `create`, and the body of POST /containers/create they stand for."""

from __future__ import annotations

from typing import Any

from netd.cli.words import flags, mounts, ports, values
from netd.cli.words.endpoints import Attachment, endpoints, parse_network
from netd.cli.words.flags import Flag, Options
from netd.cli.words.units import parse_bytes, parse_cpus

_NETWORK = flags.listing("network", "", "Connect a container to a network", parse_network, kind="network")
_ALIAS = flags.listing("network-alias", "", "Add network-scoped alias for the container")
_DNS_OPTION = flags.listing("dns-option", "", "Set DNS options")

CREATE_FLAGS: tuple[Flag, ...] = (
    flags.listing("add-host", "", "Add a custom host-to-IP mapping (host:ip)", values.add_host),
    flags.mapping("annotation", "", "Add an annotation to the container (passed through to the OCI runtime)"),
    flags.listing("attach", "a", "Attach to STDIN, STDOUT or STDERR", values.stream),
    flags.listing("cap-add", "", "Add Linux capabilities"),
    flags.listing("cap-drop", "", "Drop Linux capabilities"),
    flags.string("cidfile", "", "Write the container ID to the file"),
    flags.value("cpus", "", "Number of CPUs", "decimal", parse_cpus, 0),
    flags.listing("dns", "", "Set custom DNS servers", values.ip),
    _DNS_OPTION,
    _DNS_OPTION.alias("dns-opt"),
    flags.listing("dns-route", "", "Ask a server for the names of a domain (domain=server)"),
    flags.listing("dns-search", "", "Set custom DNS search domains", values.dns_search),
    flags.string("domainname", "", "Container NIS domain name"),
    flags.string("entrypoint", "", "Overwrite the default ENTRYPOINT of the image"),
    flags.listing("env", "e", "Set environment variables", values.env),
    flags.listing("env-file", "", "Read in a file of environment variables"),
    flags.listing("expose", "", "Expose a port or a range of ports"),
    flags.listing("group-add", "", "Add additional groups to join"),
    flags.string("hostname", "h", "Container host name"),
    flags.boolean("init", "", "Run an init inside the container that forwards signals and reaps processes"),
    flags.boolean("interactive", "i", "Keep STDIN open even if not attached"),
    flags.string("ip", "", "IPv4 address (e.g., 172.30.100.104)"),
    flags.string("ip6", "", "IPv6 address (e.g., 2001:db8::33)"),
    flags.listing("label", "l", "Set meta data on a container", values.validate_label),
    flags.listing("label-file", "", "Read in a line delimited file of labels"),
    flags.listing("link", "", "Add link to another container", values.link),
    flags.listing("link-local-ip", "", "Container IPv4/IPv6 link-local addresses"),
    flags.string("mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    flags.value("memory", "m", "Memory limit", "bytes", parse_bytes, 0),
    flags.listing("mount", "", "Attach a filesystem mount to the container", mounts.parse_mount, kind="mount"),
    flags.string("name", "", "Assign a name to the container"),
    _NETWORK,
    _NETWORK.alias("net"),
    _ALIAS,
    _ALIAS.alias("net-alias"),
    flags.string("pid", "", "PID namespace to use"),
    flags.integer("pids-limit", "", "Tune container pids limit (set -1 for unlimited)"),
    flags.string("platform", "", "Set platform if server is multi-platform capable"),
    flags.boolean("privileged", "", "Give extended privileges to this container"),
    flags.listing("publish", "p", "Publish a container's port(s) to the host"),
    flags.boolean("publish-all", "P", "Publish all exposed ports to random ports"),
    flags.string("pull", "", 'Pull image before creating ("always", "|missing", "never")', default="missing"),
    flags.boolean("quiet", "q", "Suppress the pull output"),
    flags.boolean("read-only", "", "Mount the container's root filesystem as read only"),
    flags.string("restart", "", "Restart policy to apply when a container exits", default="no"),
    flags.boolean("rm", "", "Automatically remove the container and its associated anonymous volumes when it exits"),
    flags.listing("security-opt", "", "Security Options"),
    flags.string("stop-signal", "", "Signal to stop the container"),
    flags.integer("stop-timeout", "", "Timeout (in seconds) to stop a container"),
    flags.mapping("sysctl", "", "Sysctl options", values.sysctl),
    flags.listing("tmpfs", "", "Mount a tmpfs directory"),
    flags.boolean("tty", "t", "Allocate a pseudo-TTY"),
    flags.string("user", "u", "Username or UID (format: <name|uid>[:<group|gid>])"),
    flags.string("uts", "", "UTS namespace to use"),
    flags.listing("volume", "v", "Bind mount a volume"),
    flags.string("workdir", "w", "Working directory inside the container"),
)


def create_body(options: Options, image: str, command: list[str]) -> dict[str, Any]:
    """The request body; raises ValueError, with Docker's words, for values that do not fit together."""
    published = ports.parse_publish(options.publish)
    exposed = published.exposed | {port: {} for port in ports.parse_expose(options.expose)}
    binds, volumes = mounts.parse_volumes(options.volume)
    attached = options.attach or ["stdout", "stderr"]
    stdin = "stdin" in attached or (options.interactive and not options.attach)
    body: dict[str, Any] = {
        "Hostname": options.hostname,
        "Domainname": options.domainname,
        "User": options.user,
        "AttachStdin": stdin,
        "AttachStdout": "stdout" in attached,
        "AttachStderr": "stderr" in attached,
        "ExposedPorts": exposed,
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": options.interactive and stdin,
        "Env": [line for path in options.env_file for line in values.env_file(path)] + options.env,
        "Cmd": command or None,
        "Image": image,
        "Volumes": volumes,
        "WorkingDir": options.workdir,
        "Entrypoint": [options.entrypoint] if options.changed("entrypoint") else None,
        "Labels": _labels(options),
        "HostConfig": _host_config(options, binds, published),
        "NetworkingConfig": {"EndpointsConfig": endpoints(options)},
    }
    if options.stop_signal:
        body["StopSignal"] = options.stop_signal
    if options.changed("stop-timeout"):
        body["StopTimeout"] = options.stop_timeout
    return body


def _host_config(options: Options, binds: list[str], published: ports.Ports) -> dict[str, Any]:
    restart = restart_policy(options.restart)
    if options.rm and restart["Name"] not in ("", "no"):
        raise ValueError("conflicting options: cannot specify both --restart and --rm")
    networks: list[Attachment] = options.network
    config: dict[str, Any] = {
        "Binds": binds or None,
        "ContainerIDFile": options.cidfile,
        "NetworkMode": networks[0].target if networks else "default",
        "PortBindings": published.bindings,
        "RestartPolicy": restart,
        "AutoRemove": options.rm,
        "CapAdd": [values.capability(name) for name in options.cap_add] or None,
        "CapDrop": [values.capability(name) for name in options.cap_drop] or None,
        "Dns": options.dns,
        "DnsOptions": options.dns_option,
        "DnsSearch": options.dns_search,
        "ExtraHosts": options.add_host or None,
        "GroupAdd": options.group_add or None,
        "Links": options.link or None,
        "Privileged": options.privileged,
        "PublishAllPorts": options.publish_all,
        "ReadonlyRootfs": options.read_only,
        "SecurityOpt": options.security_opt or None,
        "Tmpfs": mounts.parse_tmpfs(options.tmpfs) or None,
        "PidMode": options.pid,
        "UTSMode": options.uts,
        "Sysctls": options.sysctl or None,
        "Annotations": options.annotation or None,
        "Memory": options.memory,
        "NanoCpus": options.cpus,
        "PidsLimit": options.pids_limit,
        "ConsoleSize": [0, 0],
    }
    if options.dns_route:
        config["DnsRoutes"] = options.dns_route
    if options.mount:
        config["Mounts"] = options.mount
    if options.changed("init"):
        config["Init"] = options.init
    return config


def restart_policy(text: str) -> dict[str, Any]:
    """`no`, `always`, `unless-stopped`, `on-failure[:N]`; raises ValueError."""
    name, colon, count = text.partition(":")
    if colon and not name:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    if colon and not count.lstrip("+-").isdigit():
        raise ValueError("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count) if colon else 0}


def _labels(options: Options) -> dict[str, str]:
    lines = [line for path in options.label_file for line in values.read_lines(path)] + options.label
    return {key: value for key, _, value in (line.partition("=") for line in lines)}
