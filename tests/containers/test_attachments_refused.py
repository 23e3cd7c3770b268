"""Which connections and disconnections are refused, in Docker's words."""

from __future__ import annotations

import pytest

from netd.core.errors import Forbidden, InvalidParameter, NetdError, NotFound
from netd.model.networks import (
    EndpointIPAMConfig,
    EndpointSettings,
    NetworkConnect,
)
from tests.containers.attaching import (
    attachments,
    connect,
    networks,
    sandbox,
)
from tests.containers.conftest import Host

_SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"
_NONE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"


@pytest.mark.parametrize(
    ("mode", "to", "error", "words"),
    [
        ("blue", "nosuch", NotFound, "network nosuch not found"),
        ("blue", "blue", Forbidden, "endpoint with name web already exists in network blue"),
        ("host", "blue", InvalidParameter, _SHARED),
        ("container:other", "blue", InvalidParameter, _SHARED),
        ("none", "blue", InvalidParameter, _NONE),
        ("blue", "none", InvalidParameter, _NONE),
        (
            "blue",
            "host",
            InvalidParameter,
            "cannot connect container to host network - container must be created in host network mode",
        ),
    ],
)
@pytest.mark.parametrize("runs", [True, False])
def test_what_cannot_be_connected_is_refused_in_dockers_words(
    host: Host, mode: str, to: str, error: type[Exception], words: str, runs: bool
) -> None:
    host.run("other")
    (host.run if runs else host.create)("web", network_mode=mode)
    with pytest.raises(error) as refused:
        host.world.run(attachments(host).with_network(host.record(), to, NetworkConnect(container="web")))
    assert str(refused.value) == words


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            EndpointSettings(aliases=["shop"]),
            "network-scoped alias is supported only for containers in user defined networks",
        ),
        (
            EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="172.17.0.9")),
            "user-specified IP address is supported on user-defined networks only",
        ),
        (
            EndpointSettings(ipam_config=EndpointIPAMConfig(link_local_ips=["10.1.1.1"])),
            "invalid link local IP address: 10.1.1.1",
        ),
    ],
)
def test_what_the_default_bridge_does_not_offer_is_refused(host: Host, settings: EndpointSettings, words: str) -> None:
    host.create()
    with pytest.raises(InvalidParameter, match=words):
        connect(host, "bridge", settings)
    assert set(host.record().networks) == {"blue"}


def test_a_network_whose_endpoint_was_lost_can_be_connected_again(host: Host) -> None:
    host.run()
    (endpoint,) = sandbox(host).endpoints
    host.world.run(attachments(host).lose(host.record(), endpoint.id))
    assert networks(host) == ({"blue"}, set())
    connect(host, "blue")
    assert networks(host) == ({"blue"}, {"blue"})


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (True, "container {id} is not connected to network bridge"),
        (False, "container {id} is not connected to the network bridge"),
    ],
)
def test_who_is_not_on_a_network_is_not_disconnected_from_it(host: Host, runs: bool, words: str) -> None:
    identity = host.run() if runs else host.create()
    with pytest.raises(NetdError) as refused:
        attachments(host).without_network(host.record(), "bridge")
    assert str(refused.value) == words.format(id=identity)
    assert refused.value.status == 500


def test_nobody_is_disconnected_from_the_hosts_network(host: Host) -> None:
    host.run(network_mode="host")
    with pytest.raises(InvalidParameter) as refused:
        attachments(host).without_network(host.record(), "host")
    assert str(refused.value) == (
        "cannot disconnect container from host network - container was created in host network mode"
    )
