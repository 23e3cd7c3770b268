"""What a request to create a container must be like, in Docker's words, and what its image adds."""

from __future__ import annotations

from typing import Any

import pytest

from netd.containers.request import check, extra_hosts
from netd.core.errors import InvalidParameter
from netd.core.identity import check_name, random_name
from netd.model.containers import ContainerCreate, HostConfig, NetworkingConfig
from netd.model.images import Image, ImageConfig
from netd.model.networks import EndpointSettings

IMAGE = Image(
    id="sha256:" + "0" * 64,
    created="",
    repo_tags=["busybox:latest"],
    config=ImageConfig(cmd=["sh"], env=["PATH=/bin", "A=image"], labels={"a": "1"}, exposed_ports={"80/tcp": {}}),
)


def body(host: dict[str, Any] | None = None, **config: Any) -> ContainerCreate:
    return ContainerCreate(image="busybox", host_config=HostConfig(**(host or {})), **config)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (body({"network_mode": "container:"}), "invalid network mode: invalid container format container:<name|id>"),
        (body({"network_mode": "container:x"}, hostname="h"), "conflicting options: hostname and the network mode"),
        (body({"network_mode": "container:x", "dns": ["192.0.2.1"]}), "conflicting options: dns and the network mode"),
        (
            body({"network_mode": "host", "links": ["a"]}),
            "host type networking can't be used with links. This would result in undefined behavior",
        ),
        (body({"network_mode": "host"}, mac_address="02:42:00:00:00:01"), "mac-address and the network mode"),
        (body({"uts_mode": "host"}, hostname="h"), "hostname and the UTS mode"),
        (body({"extra_hosts": ["bad"]}), 'bad format for add-host: "bad"'),
        (body({"extra_hosts": ["a:x"]}), 'invalid IP address in add-host: "x"'),
        (body(exposed_ports={"abc": {}}), 'invalid port specification: "abc"'),
        (body({"dns": ["x"]}), "bad nameserver address x"),
        (body({"dns_routes": ["corp"]}), "write DOMAIN=SERVER"),
    ],
)
def test_a_bad_request_is_refused(request_: ContainerCreate, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check(request_, IMAGE)
    assert words in str(caught.value)


def test_a_container_with_nothing_to_run_is_refused() -> None:
    empty = Image(id="", created="", repo_tags=[], config=ImageConfig())
    with pytest.raises(InvalidParameter, match="no command specified"):
        check(body(), empty)


def test_the_image_fills_what_the_request_leaves_open() -> None:
    config = check(body(env=["A=mine"], labels={"b": "2"}), IMAGE).config
    assert config.cmd == ["sh"]
    assert config.env == ["PATH=/bin", "A=mine"]
    assert config.labels == {"a": "1", "b": "2"}
    assert config.exposed_ports == {"80/tcp": {}}


def test_an_entrypoint_of_the_request_drops_the_images_command() -> None:
    config = check(body(entrypoint=["top"]), IMAGE).config
    assert (config.entrypoint, config.cmd) == (["top"], None)


def test_the_default_network_mode_is_bridge_and_has_an_endpoint() -> None:
    request = check(body(), IMAGE)
    assert (request.host.network_mode, list(request.networks)) == ("bridge", ["bridge"])


def test_settings_of_other_networks_are_kept_beside_the_modes_own() -> None:
    networking = NetworkingConfig(endpoints_config={"two": EndpointSettings(aliases=["x"])})
    request = check(body({"network_mode": "one"}, networking_config=networking), IMAGE)
    assert sorted(request.networks) == ["one", "two"]


def test_published_ports_are_discarded_in_host_mode_with_a_warning_3_5() -> None:
    request = check(body({"network_mode": "host", "publish_all_ports": True}), IMAGE)
    assert request.warnings == ["Published ports are discarded when using host network mode"]


@pytest.mark.parametrize("name", ["a", "-ab", "a/b", "a b", "ä1", ""])
def test_names_dockers_rule_does_not_allow_are_refused(name: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid container name"):
        check_name(name)


def test_generated_names_follow_the_rule() -> None:
    check_name(random_name())


def test_added_hosts_may_be_ipv6_and_use_an_equals_sign_3_57() -> None:
    given = ["a:192.0.2.1", "b:2001:db8::1", "c=[2001:db8::2]", "d:host-gateway"]
    assert extra_hosts(given) == [
        ("a", "192.0.2.1"),
        ("b", "2001:db8::1"),
        ("c", "2001:db8::2"),
        ("d", "host-gateway"),
    ]
