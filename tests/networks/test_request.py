"""What a request to create a network must be like, in Docker's words."""

from __future__ import annotations

import pytest

from netd.core.errors import Conflict, Forbidden, InvalidParameter, NetdError, NotFound
from netd.model.networks import IPAM, ConfigReference, IPAMConfig, Network, NetworkCreate
from netd.networks.request import plan

CONFIG = Network(
    name="cfg",
    id="0" * 64,
    created="",
    scope="local",
    driver="null",
    config_only=True,
    labels={"from": "cfg"},
    ipam=IPAM(config=[IPAMConfig(subnet="10.9.0.0/24")]),
)


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (NetworkCreate(name=" "), InvalidParameter, "invalid name: name is empty"),
        (NetworkCreate(name="a/b"), InvalidParameter, "holds a slash"),
        (NetworkCreate(name="a\nb"), InvalidParameter, "control character"),
        (NetworkCreate(name="host"), Forbidden, "operation is not permitted on predefined host network "),
        (NetworkCreate(name="cfg"), Conflict, "network with name cfg already exists"),
        (NetworkCreate(name="n", driver="nosuch"), NotFound, 'plugin "nosuch" not found'),
        (NetworkCreate(name="n", driver="null"), Forbidden, 'only one instance of "null" network is allowed'),
        (NetworkCreate(name="n", ipam=IPAM(driver="x")), NotFound, 'plugin "x" not found'),
        (NetworkCreate(name="n", scope="swarm"), Forbidden, "when swarm is not active"),
        (NetworkCreate(name="n", enable_ipv4=False), InvalidParameter, "IPv4 or IPv6 must be enabled"),
        (NetworkCreate(name="n", config_from=ConfigReference("x")), NotFound, '"x" does not exist'),
        (
            NetworkCreate(name="n", config_from=ConfigReference("cfg"), options={"a": "b"}),
            Forbidden,
            "network driver options are not supported",
        ),
        (
            NetworkCreate(name="n", config_only=True, internal=True),
            Forbidden,
            "can only contain network specific fields",
        ),
        (
            NetworkCreate(
                name="n", ipam=IPAM(config=[IPAMConfig(subnet="10.1.0.0/24"), IPAMConfig(subnet="10.2.0.0/24")])
            ),
            Forbidden,
            "bridge driver doesn't support multiple subnets",
        ),
    ],
)
def test_a_bad_request_is_refused(request_: NetworkCreate, error: type[NetdError], words: str) -> None:
    with pytest.raises(error) as caught:
        plan(request_, {"cfg": CONFIG})
    assert words in str(caught.value)


def test_the_driver_is_bridge_unless_told_otherwise() -> None:
    assert plan(NetworkCreate(name="n"), {}).driver == "bridge"


def test_a_configuration_network_lends_its_addresses_and_labels() -> None:
    planned = plan(NetworkCreate(name="n", config_from=ConfigReference("cfg")), {"cfg": CONFIG})
    assert (planned.labels, str(planned.pools[0].subnet)) == ({"from": "cfg"}, "10.9.0.0/24")
