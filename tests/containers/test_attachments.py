"""What a container's network settings mean when it starts: what is taken for it, made, and given back."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from netd.containers.attachments import Plan
from netd.core.errors import Forbidden, NetdError, NotFound
from netd.model.containers import PortBinding
from netd.model.networks import (
    IPAM,
    EndpointIPAMConfig,
    EndpointSettings,
    IPAMConfig,
    NetworkCreate,
)
from tests.containers.attaching import (
    EPHEMERAL,
    attachments,
    lines,
    on,
    own,
    path,
    plan,
    sandbox,
)
from tests.containers.conftest import Host

STATIC = EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="10.77.0.9"))


@pytest.fixture
def host(host: Host) -> Host:
    """One with the networks shop and attic besides blue."""
    for name, subnet in (("shop", "10.77.0.0/24"), ("attic", "10.78.0.0/24")):
        ipam = IPAM(config=[IPAMConfig(subnet=subnet)])
        host.world.run(host.world.daemon.networks.create(NetworkCreate(name=name, ipam=ipam)))
    return host


def port_of(made: Plan) -> dict[str, list[PortBinding]]:
    """Settings that ask for just the port of the host that was given to this plan."""
    return {"80/tcp": [PortBinding(host_port=str(own(made).published[0].host_port))]}


# ---- plan -----------------------------------------------------------------------------------------------


def test_networks_are_in_the_order_of_their_gateway_priority_and_then_of_their_names(host: Host) -> None:
    host.create()
    settings = {"blue": EndpointSettings(), "shop": EndpointSettings(gw_priority=5), "attic": EndpointSettings()}
    endpoints = own(plan(host, on(host.record(), **settings))).endpoints
    assert [(e.network, e.ifname) for e in endpoints] == [("shop", "eth0"), ("attic", "eth1"), ("blue", "eth2")]


def test_a_plan_says_what_the_settings_say(host: Host) -> None:
    identity = host.create(dns=["9.9.9.9"], dns_search=["corp"], dns_options=["ndots:2"], dns_routes=["lab=10.0.0.1"])
    made = plan(host, host.record())
    sandbox = own(made)
    assert (sandbox.container_id, sandbox.name, made.hostname) == (identity, "web", identity[:12])
    assert (sandbox.dns, sandbox.dns_search) == (("9.9.9.9",), ("corp",))
    assert (sandbox.dns_options, sandbox.dns_routes) == (("ndots:2",), ("lab=10.0.0.1",))
    directory = host.world.root / "containers" / identity
    assert made.files == {f"/etc/{name}": directory / name for name in ("hosts", "hostname", "resolv.conf")}
    assert made.netns == sandbox.netns != ""


def test_two_plans_have_different_addresses_and_ports(host: Host) -> None:
    host.create(port_bindings=EPHEMERAL)
    one, other = (own(plan(host, host.record())) for _ in range(2))
    assert one.endpoints[0].ipv4 != other.endpoints[0].ipv4
    assert one.published[0].host_port != other.published[0].host_port


def test_the_binding_address_of_the_network_with_the_gateway_counts(host: Host) -> None:
    options = {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}
    host.world.run(host.world.daemon.networks.create(NetworkCreate(name="inner", options=options)))
    host.create(port_bindings=EPHEMERAL)
    both = {"blue": EndpointSettings(), "inner": EndpointSettings(gw_priority=1)}
    assert [p.host_ip for p in own(plan(host, on(host.record(), **both))).published] == ["127.0.0.1"]


def test_a_network_that_is_not_there_shows_at_the_start_and_leaves_nothing_taken(host: Host) -> None:
    host.create()
    with pytest.raises(NotFound, match="network nosuch not found"):
        plan(host, on(host.record(), nosuch=EndpointSettings(), shop=STATIC))
    assert own(plan(host, on(host.record(), shop=STATIC))).endpoints[0].ipv4 == "10.77.0.9/24"


def test_what_cannot_be_had_leaves_nothing_taken(host: Host) -> None:
    host.create(port_bindings=EPHEMERAL)
    first = plan(host, on(host.record(), shop=STATIC))
    with pytest.raises(Forbidden, match="Address already in use"):
        plan(host, on(host.record(), attic=EndpointSettings(), shop=STATIC))
    host.world.run(attachments(host).undo(first.sandbox))

    host.create("other", port_bindings=EPHEMERAL)
    holder = plan(host, host.record("other"))
    record = on(host.record(), shop=STATIC)
    wanting = replace(record, host_config=replace(record.host_config, port_bindings=port_of(holder)))
    with pytest.raises(NetdError, match="port is already allocated"):
        plan(host, wanting)
    assert own(plan(host, record)).endpoints[0].ipv4 == "10.77.0.9/24"


# ---- prepare and undo -----------------------------------------------------------------------------------


def test_the_files_in_etc_say_who_the_container_is_and_whom_it_asks(host: Host) -> None:
    identity = host.create(extra_hosts=["printer:10.9.9.9", "gate:host-gateway"])
    record = host.record()
    made = plan(host, replace(record, config=replace(record.config, domainname="corp")))
    host.world.run(attachments(host).prepare(made))
    (endpoint,) = own(made).endpoints
    short = identity[:12]
    hosts = lines(host)
    assert hosts[0] == "127.0.0.1\tlocalhost"
    assert hosts[-3:] == [
        "10.9.9.9\tprinter",
        "172.17.0.1\tgate",
        f"{endpoint.addresses[0]}\t{short}.corp {short}",
    ]
    assert path(host, "hostname").read_text() == f"{short}\n"
    assert re.search(r"^nameserver 127\.0\.0\.11$", path(host, "resolv.conf").read_text(), re.MULTILINE)
    assert list(host.world.namespaces.present) == [made.netns]


@pytest.mark.parametrize("far", ["planned", "prepared", "carried out"])
def test_undoing_gives_back_all_that_was_taken_however_far_it_came(host: Host, far: str) -> None:
    world = host.world
    host.create(port_bindings=EPHEMERAL)
    record = on(host.record(), shop=STATIC)
    made = plan(host, record)
    if far != "planned":
        world.run(attachments(host).prepare(made))
    if far == "carried out":
        world.run(attachments(host).carry_out(made))
        assert list(world.kernel.sandboxes) == [own(made).id]
        assert [r.names for table in world.resolver.networks.values() for r in table.values()]
    world.run(attachments(host).undo(made.sandbox))
    assert not (world.namespaces.present or world.kernel.sandboxes or world.store.under("sandboxes"))
    assert not [r.names for table in world.resolver.networks.values() for r in table.values()]
    again = plan(host, replace(record, host_config=replace(record.host_config, port_bindings=port_of(made))))
    assert own(again).endpoints[0].ipv4 == own(made).endpoints[0].ipv4 == "10.77.0.9/24"
    assert own(again).published == own(made).published


def test_undoing_nothing_does_nothing(host: Host) -> None:
    host.world.run(attachments(host).undo(None))
    assert not host.world.calls.failed


def test_after_a_restart_running_containers_have_their_ports_and_what_nobody_runs_in_is_gone(host: Host) -> None:
    host.run(port_bindings=EPHEMERAL)
    host.create("other", port_bindings=EPHEMERAL)
    left = plan(host, host.record("other"))  # a start that the last daemon was killed in
    host.world.run(attachments(host).prepare(left))
    host.world.run(attachments(host).carry_out(left))
    web = sandbox(host, "web")
    host.world.restart_daemon()
    assert sandbox(host, "web") == web
    assert list(host.world.kernel.sandboxes) == [web.id]
    assert list(host.world.namespaces.present) == [web.netns]
    assert host.world.daemon.ports_held() == {web.id}
