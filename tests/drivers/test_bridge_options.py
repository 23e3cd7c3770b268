"""The options of bridge networks: Docker's names, defaults and words."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from drivers import bridge
from drivers.spec import InvalidOption, Network, OptionConflict, Subnet


def network(*pools: str, letter: str = "a", **options: str) -> Network:
    names = {key: getattr(bridge, key) for key in options}
    subnets = tuple(Subnet(ip_network(pool), ip_network(pool)[1]) for pool in pools)
    return Network(letter * 64, "shop", "bridge", subnets, options={names[key]: options[key] for key in options})


def test_defaults() -> None:
    options = bridge.parse_options(network())
    assert options == bridge.BridgeOptions(device="br-" + "a" * 12)


def test_the_default_network_s_device_has_a_name_of_its_own() -> None:
    assert bridge.parse_options(network(DEFAULT="true")).device == "netd0"


def test_everything_set() -> None:
    options = bridge.parse_options(
        network(NAME="br7", MASQUERADE="0", ICC="F", INHIBIT_IPV4="T", MTU="1400", HOST_IPV4="192.0.2.1")
    )
    assert options == bridge.BridgeOptions("br7", False, False, True, 1400, IPv4Address("192.0.2.1"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"ICC": "maybe"},
            "failed to parse com.docker.network.bridge.enable_icc value: maybe "
            '(strconv.ParseBool: parsing "maybe": invalid syntax)',
        ),
        (
            {"MTU": "abc"},
            'failed to parse com.docker.network.driver.mtu value: abc (strconv.Atoi: parsing "abc": invalid syntax)',
        ),
        ({"MTU": "-5"}, "invalid MTU number: -5"),
        ({"HOST_BINDING": "xx"}, "failed to parse com.docker.network.bridge.host_binding_ipv4 value: xx (nil ip)"),
        ({"HOST_IPV4": "::1"}, "failed to parse com.docker.network.host_ipv4 value: ::1 (wrong address family)"),
        ({"NAME": "a name"}, "invalid com.docker.network.bridge.name 'a name': a device name has 1 to 15 characters"),
        ({"NAME": "x" * 16}, "invalid com.docker.network.bridge.name 'xxxxxxxxxxxxxxxx'"),
        ({"NAME": ".."}, "invalid com.docker.network.bridge.name '..'"),
        ({"NAME": 'br"7'}, "invalid com.docker.network.bridge.name"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_in_docker_s_words(options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidOption) as refusal:
        bridge.validate(network(**options), [])
    assert str(refusal.value).startswith(message)


def test_two_networks_cannot_have_one_device() -> None:
    with pytest.raises(OptionConflict) as refusal:
        bridge.validate(network(NAME="br7"), [network(NAME="br7", letter="b")])
    assert str(refusal.value) == (
        f"cannot create network {'a' * 64} (br7): conflicts with network {'b' * 64} (br7): "
        "networks have same bridge name"
    )


def test_nor_the_default_network_s() -> None:
    with pytest.raises(OptionConflict, match="same bridge name"):
        bridge.validate(network(NAME="netd0"), [network(DEFAULT="true", letter="b")])


def test_two_networks_cannot_overlap() -> None:
    with pytest.raises(OptionConflict, match="networks have overlapping IPv4"):
        bridge.validate(network("10.1.2.0/24"), [network("10.1.0.0/16", letter="b")])
    with pytest.raises(OptionConflict, match="networks have overlapping IPv6"):
        bridge.validate(network("fd00::/64"), [network("fd00::/48", letter="b")])


def test_a_network_does_not_clash_with_itself_or_with_other_drivers() -> None:
    host = Network("b" * 64, "host", "host", options={bridge.NAME: "br7"})
    mine = network("10.1.0.0/16", NAME="br7")
    bridge.validate(mine, [mine, host])


def test_the_bridge_holds_the_gateways_unless_told_not_to() -> None:
    both = network("10.1.0.0/16", "fd00::/64")
    held = {str(address) for address in bridge.gateway_addresses(both, bridge.parse_options(both))}
    assert held == {"10.1.0.1/16", "fd00::1/64"}
    without = network("10.1.0.0/16", "fd00::/64", INHIBIT_IPV4="true")
    held = {str(address) for address in bridge.gateway_addresses(without, bridge.parse_options(without))}
    assert held == {"fd00::1/64"}
    assert ip_address("10.1.0.1") in without.subnets[0].pool
