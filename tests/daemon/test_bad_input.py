"""What is wrong is refused with Docker's status and words, in one line, and nothing has changed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.daemon.harness import Daemon, nothing_changed


@pytest.fixture(scope="module")
def state(_shared_daemon: Daemon) -> Iterator[Daemon]:
    """Something to clash with: network `shop` 10.77.0.0/24 with `db` running on it at .5, port 8080 published."""
    daemon = _shared_daemon
    daemon.network("shop", IPAM={"Config": [{"Subnet": "10.77.0.0/24", "AuxiliaryAddresses": {"a": "10.77.0.9"}}]})
    daemon.network("auto")
    daemon.run_container(
        "db",
        network="shop",
        HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}},
        NetworkingConfig={"EndpointsConfig": {"shop": {"IPAMConfig": {"IPv4Address": "10.77.0.5"}}}},
    )
    daemon.create("idle", network="shop")
    yield daemon
    daemon.clean()


def subnet(subnet: str = "10.78.0.0/24", **more: Any) -> dict[str, Any]:
    return {"Name": "new", "IPAM": {"Config": [{"Subnet": subnet, **more}]}}


def options(**given: str) -> dict[str, Any]:
    return {"Name": "new", "Options": {f"com.docker.network.{key.replace('__', '.')}": v for key, v in given.items()}}


NETWORKS = {
    "no name": ({}, 400, "name is empty"),
    "a slash in the name": ({"Name": "a/b"}, 400, "a/b"),
    "a blank in the name": ({"Name": " "}, 400, "invalid name"),
    "a name in use": ({"Name": "shop"}, 409, "network with name shop already exists"),
    "a name in use, unchecked": ({"Name": "shop", "CheckDuplicate": False}, 409, "already exists"),
    "a predefined name": ({"Name": "bridge"}, 403, "operation is not permitted on predefined bridge network"),
    "a second host network": ({"Name": "n", "Driver": "host"}, 403, 'only one instance of "host" network is allowed'),
    "a second null network": ({"Name": "n", "Driver": "null"}, 403, 'only one instance of "null" network is allowed'),
    "an unknown driver": ({"Name": "n", "Driver": "nosuch"}, 404, 'plugin "nosuch" not found'),
    "an unknown IPAM driver": ({"Name": "n", "IPAM": {"Driver": "nosuch"}}, 404, 'plugin "nosuch" not found'),
    "a subnet that is none": (subnet("10.78.0.0/33"), 400, "10.78.0.0/33"),
    "a subnet that is a word": (subnet("red"), 400, "red"),
    "host bits in a subnet": (subnet("10.78.2.3/16"), 400, "invalid subnet 10.78.2.3/16: it should be 10.78.0.0/16"),
    "an overlapping subnet": (subnet("10.77.0.0/16"), 403, "Pool overlaps with other one on this address space"),
    "a gateway outside": (subnet(Gateway="10.79.0.1"), 400, "parent subnet 10.78.0.0/24 doesn't contain this address"),
    "a gateway that is none": (subnet(Gateway="first"), 400, "first"),
    "a range outside": (subnet(IPRange="10.79.0.0/28"), 400, "doesn't contain ip-range"),
    "a range too big": (subnet(IPRange="10.78.0.0/16"), 400, "CIDR block is bigger than its parent subnet"),
    "an auxiliary address outside": (
        subnet(AuxiliaryAddresses={"p": "10.79.0.9"}),
        400,
        "invalid auxiliary address p: parent subnet 10.78.0.0/24 doesn't contain this address",
    ),
    "a range without a subnet": ({"Name": "n", "IPAM": {"Config": [{"IPRange": "10.78.0.0/28"}]}}, 400, "subnet"),
    "an option of the wrong type": (
        options(bridge__enable_icc="maybe"),
        400,
        'failed to parse com.docker.network.bridge.enable_icc value: maybe (strconv.ParseBool: parsing "maybe"',
    ),
    "an MTU that is a word": (
        options(driver__mtu="abc"),
        400,
        "failed to parse com.docker.network.driver.mtu value: abc",
    ),
    "a negative MTU": (options(driver__mtu="-5"), 400, "invalid MTU number: -5"),
    "a binding address that is none": (
        options(bridge__host_binding_ipv4="xx"),
        400,
        "failed to parse com.docker.network.bridge.host_binding_ipv4 value: xx",
    ),
    "the device of the default bridge": (options(bridge__name="netd0"), 403, "networks have same bridge name"),
    "an ingress network": ({"Name": "n", "Ingress": True}, 403, "Ingress network can only be global scope network"),
    "an unknown configuration": (
        {"Name": "n", "ConfigFrom": {"Network": "nosuch"}},
        404,
        'configuration network "nosuch" does not exist',
    ),
}


@pytest.mark.parametrize(("body", "status", "words"), NETWORKS.values(), ids=NETWORKS)
def test_a_network_is_not_created_with(state: Daemon, body: Any, status: int, words: str) -> None:
    with nothing_changed(state):
        reply = state.api("POST", "/networks/create", body)
    assert (reply.status, words in reply.message) == (status, True), reply


def attach(ip: str, container: str = "idle") -> tuple[str, dict[str, Any]]:
    settings = {"IPAMConfig": {"IPv4Address": ip}}
    return "/networks/shop/connect", {"Container": container, "EndpointConfig": settings}


def container(host: dict[str, Any] | None = None, **more: Any) -> tuple[str, dict[str, Any]]:
    return "/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": host or {}, **more}


REQUESTS = {
    "an unknown network is connected": (
        ("/networks/nosuch/connect", {"Container": "db"}),
        404,
        "network nosuch not found",
    ),
    "an unknown container": (("/networks/shop/connect", {"Container": "nosuch"}), 404, "No such container: nosuch"),
    "connected already": (
        ("/networks/shop/connect", {"Container": "db"}),
        403,
        "endpoint with name db already exists in network shop",
    ),
    "not connected": (("/networks/auto/disconnect", {"Container": "db"}), 500, "is not connected to"),
    "to the host network": (("/networks/host/connect", {"Container": "db"}), 400, "host network"),
    "an image that is not here": (container(Image="nosuch"), 404, "No such image: nosuch:latest"),
    "a name in use": (
        ("/containers/create?name=db", container()[1]),
        409,
        'The container name "/db" is already in use',
    ),
    "a name with a slash": (("/containers/create?name=a/b", container()[1]), 400, "Invalid container name (a/b)"),
    "a port that is none": (container({"PortBindings": {"abc": [{"HostPort": "1"}]}}), 400, "abc"),
    "a port too high": (container({"PortBindings": {"70000/tcp": [{"HostPort": "1"}]}}), 400, "70000"),
    "a host port that is none": (container({"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}), 400, "x"),
    "an unknown protocol": (container({"PortBindings": {"80/xyz": [{"HostPort": "1"}]}}), 400, "xyz"),
    "an extra host without address": (container({"ExtraHosts": ["bad"]}), 400, 'bad format for add-host: "bad"'),
    "a DNS server that is none": (container({"Dns": ["x"]}), 400, "x"),
    "a malformed network mode": (container({"NetworkMode": "container:"}), 400, "nvalid container format"),
    "links of a host container": (
        container({"NetworkMode": "host", "Links": ["db:db"]}),
        400,
        "host type networking can't be used with links",
    ),
    "ports of another's network": (
        container({"NetworkMode": "container:db", "PortBindings": {"80/tcp": [{"HostPort": "1"}]}}),
        400,
        "conflicting options: port publishing and the container type network mode",
    ),
    "a hostname in another's network": (
        container({"NetworkMode": "container:db"}, Hostname="h"),
        400,
        "conflicting options: hostname and the network mode",
    ),
    "an address that is none": (
        container(NetworkingConfig={"EndpointsConfig": {"shop": {"IPAMConfig": {"IPv4Address": "300.1.1.1"}}}}),
        400,
        "invalid IPv4 address: 300.1.1.1",
    ),
    "start of an unknown container": (("/containers/nosuch/start", None), 404, "No such container: nosuch"),
    "exec in a container that does not run": (
        ("/containers/idle/exec", {"Cmd": ["true"]}),
        409,
        "is not running",
    ),
    "kill of a container that does not run": (("/containers/idle/kill", None), 409, "is not running"),
    "an unknown signal": (("/containers/db/kill?signal=NOSUCH", None), 400, "NOSUCH"),
}


@pytest.mark.parametrize(("request_", "status", "words"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_is_refused(state: Daemon, request_: tuple[str, Any], status: int, words: str) -> None:
    path, body = request_
    with nothing_changed(state):
        reply = state.api("POST", path, body)
    assert (reply.status, words in reply.message) == (status, True), reply


REMOVALS = {
    "a predefined network": ("/networks/bridge", 403, "bridge is a pre-defined network and cannot be removed"),
    "a network in use": ("/networks/shop", 403, "has active endpoints"),
    "an unknown network": ("/networks/nosuch", 404, "network nosuch not found"),
    "a running container": ("/containers/db", 409, "cannot remove"),
    "an unknown container": ("/containers/nosuch", 404, "No such container: nosuch"),
    "an unknown image": ("/images/nosuch", 404, "No such image: nosuch:latest"),
}


@pytest.mark.parametrize(("path", "status", "words"), REMOVALS.values(), ids=REMOVALS)
def test_nothing_is_removed(state: Daemon, path: str, status: int, words: str) -> None:
    with nothing_changed(state):
        reply = state.api("DELETE", path)
    assert (reply.status, words in reply.message) == (status, True), reply


ADDRESSES = {
    "in use": ("10.77.0.5", "Address already in use"),
    "of the gateway": ("10.77.0.1", "Address already in use"),
    "of something else": ("10.77.0.9", "Address already in use"),
    "of the network itself": ("10.77.0.0", "Address already in use"),
    "of everybody": ("10.77.0.255", "Address already in use"),
}


@pytest.mark.parametrize(("address", "words"), ADDRESSES.values(), ids=ADDRESSES)
def test_a_container_does_not_start_with_an_address(state: Daemon, address: str, words: str) -> None:
    settings = {"EndpointsConfig": {"shop": {"IPAMConfig": {"IPv4Address": address}}}}
    identity = state.create("clash", network="shop", NetworkingConfig=settings)
    try:
        with nothing_changed(state):
            reply = state.api("POST", f"/containers/{identity}/start")
            assert (reply.status >= 400, words in reply.message) == (True, True), reply
        assert state.inspect("clash")["State"]["Status"] == "created"
    finally:
        state.remove_container(identity)


MALFORMED = {
    "a body that is not JSON": (b"{name", 400, "invalid JSON"),
    "a body that ends early": (b'{"Name": "x"', 400, "invalid JSON"),
    "two documents": (b'{"Name": "x"} {}', 400, "JSON"),
    "no body": (b"", 400, "EOF"),
    "a list": (b"[]", 400, ""),
    "a member of the wrong type": (b'{"Name": 5}', 400, "Name"),
    "a deeper member of the wrong type": (b'{"Name": "x", "IPAM": {"Config": {}}}', 400, "Config"),
    "bytes that are no text": (b'{"Name": "\xff\xfe"}', 400, ""),
}


@pytest.mark.parametrize(("body", "status", "words"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_body_is_refused(state: Daemon, body: bytes, status: int, words: str) -> None:
    with nothing_changed(state):
        reply = state.api("POST", "/networks/create", body, headers={"Content-Type": "application/json"})
    assert (reply.status, words in reply.message) == (status, True), reply


def test_another_content_type_is_refused(state: Daemon) -> None:
    with nothing_changed(state):
        reply = state.api("POST", "/networks/create", b'{"Name": "x"}', headers={"Content-Type": "text/plain"})
    assert reply.status == 400
    assert "Content-Type" in reply.message


HEADERS = b"POST /networks/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-"
TRUNCATED = {
    "in the request line": b"POST /networks/cre",
    "in the headers": HEADERS,
    "in the body": HEADERS + b'Length: 99\r\n\r\n{"Name',
}


@pytest.mark.parametrize("sent", TRUNCATED.values(), ids=TRUNCATED)
def test_a_request_that_ends_early_changes_nothing(state: Daemon, sent: bytes) -> None:
    with nothing_changed(state), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(state.socket))
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        client.settimeout(5)
        client.recv(65536)
    assert state.api("GET", "/_ping").status == 200


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/nosuch", 404, "page not found"),
        ("/v1.99/networks", 400, "client version 1.99 is too new. Maximum supported API version is"),
        ("/v1.1/networks", 400, "client version 1.1 is too old. Minimum supported API version is"),
        ('/networks?filters={"foo":["x"]}', 400, "invalid filter 'foo'"),
        ("/networks?filters=red", 400, ""),
        ("/networks/shop?verbose=zz", 400, 'invalid value for verbose: zz: strconv.ParseBool: parsing "zz"'),
    ],
)
def test_a_question_is_refused(state: Daemon, path: str, status: int, words: str) -> None:
    reply = state.api("GET", path)
    assert (reply.status, words in reply.message) == (status, True), reply


def test_the_cli_shows_an_error_in_one_line(state: Daemon) -> None:
    for command in (state.docker, state.netd):
        done = command("network", "create", "shop", check=False)
        assert done.returncode == 1
        assert done.stderr == "Error response from daemon: network with name shop already exists\n"
