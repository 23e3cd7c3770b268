"""Names and resolv.conf as a container sees them: the facts about Docker's that need a whole daemon, by number."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.harness import OUTSIDE_IP, Daemon, eventually, mended
from tests.daemon.test_never_silent import Stub, resolver_pid


@pytest.fixture(scope="module", params=["on", "off"])
def daemon_options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Both ways of answering: in the kernel, and by the resolver process."""
    return (f"--dns-kernel={request.param}", f"--dns={OUTSIDE_IP}")


@pytest.fixture
def shop(daemon: Daemon) -> Daemon:
    daemon.network("shop", IPAM={"Config": [{"Subnet": "10.77.0.0/24"}]})
    for name in ("db", "web"):
        daemon.run_container(name, network="shop")
    return daemon


def netns(daemon: Daemon, ref: str, *command: str) -> str:
    """Run a program of the machine in a container's network."""
    pid = daemon.inspect(ref)["State"]["Pid"]
    return str(daemon.host.run("nsenter", f"--net=/proc/{pid}/ns/net", *command).stdout)


def listeners(daemon: Daemon, ref: str) -> list[str]:
    """`ss` lines of a container's sockets."""
    return netns(daemon, ref, "ss", "-Hlntup").splitlines()


def resolv_conf(daemon: Daemon, ref: str) -> str:
    return daemon.exec(ref, "cat", "/etc/resolv.conf")[1]


def linked(*links: str) -> dict[str, Any]:
    return {"NetworkingConfig": {"EndpointsConfig": {"shop": {"Links": list(links)}}}}


# ---- placement ----------------------------------------------------------------------------------------------


def test_1_1_and_1_2_two_sockets_on_ports_of_the_kernel_s_choice(shop: Daemon) -> None:
    for ref in ("db", "web"):
        lines = listeners(shop, ref)
        assert sorted(line.split()[0] for line in lines) == ["tcp", "udp"]
        ports = {line.split()[4] for line in lines}
        assert all(port.startswith("127.0.0.11:") and not port.endswith(":53") for port in ports)
        # bettered: the owner is a process that outlives the daemon
        assert all(f"pid={resolver_pid(shop)}," in line for line in lines)


def test_1_3_and_1_4_ports_are_rewritten_in_the_kernel_or_in_a_table_of_our_own(shop: Daemon) -> None:
    rules = netns(shop, "web", "nft", "list", "ruleset")
    filters = netns(shop, "web", "tc", "filter", "show", "dev", "lo", "egress")
    if shop.get("/info")["Names"]["Kernel"]:
        assert (rules, filters.count("netd-dns direct-action")) == ("", 1)
        return
    assert filters == ""
    assert rules.count("table") == 1
    assert rules.count("127.0.0.11") == 4
    assert "ip6" not in rules


def test_1_5_rules_of_the_container_s_own_are_left_alone(shop: Daemon) -> None:
    netns(shop, "web", "nft", "add", "table", "inet", "mine")
    before = netns(shop, "web", "nft", "list", "ruleset")
    shop.stop()
    shop.start()
    assert netns(shop, "web", "nft", "list", "ruleset") == before
    stub, flush = Stub(shop, "web"), "flush ruleset; add table inet mine"
    mended(lambda: netns(shop, "web", "nft", flush), lambda: stub.ask("db", 0.1))
    assert "table inet mine" in netns(shop, "web", "nft", "list", "ruleset")


def test_1_6_and_1_36_and_1_37_every_user_network_has_the_resolver_the_predefined_have_not(shop: Daemon) -> None:
    shop.network("cellar", Internal=True)
    shop.run_container("inner", network="cellar")
    assert shop.resolve("inner", "inner") == {shop.address("inner", "cellar")}
    for mode in ("bridge", "none"):
        shop.run_container(mode, network=mode)
        assert listeners(shop, mode) == []
        assert "127.0.0.11" not in resolv_conf(shop, mode)


def test_1_7_a_running_container_gets_the_resolver_with_its_first_user_network(shop: Daemon) -> None:
    shop.run_container("late")
    assert "127.0.0.11" not in resolv_conf(shop, "late")
    shop.api("POST", "/networks/shop/connect", {"Container": "late"})
    assert "nameserver 127.0.0.11\n" in resolv_conf(shop, "late")
    assert shop.resolve("late", "db") == {shop.address("db", "shop")}
    shop.api("POST", "/networks/shop/disconnect", {"Container": "late"})
    assert "nameserver 127.0.0.11\n" in resolv_conf(shop, "late")


def test_1_8_a_container_in_another_s_network_shares_its_resolver(shop: Daemon) -> None:
    shop.run_container("guest", network="container:web")
    assert resolv_conf(shop, "guest") == resolv_conf(shop, "web")
    assert shop.resolve("guest", "db") == {shop.address("db", "shop")}
    assert len(listeners(shop, "web")) == 2


def test_1_9_bettered_and_1_10_names_outlive_the_daemon_on_the_same_ports(shop: Daemon) -> None:
    stub = Stub(shop, "web")
    address = [shop.address("db", "shop")]
    before = (listeners(shop, "web"), resolv_conf(shop, "web"))
    shop.kill9()
    assert stub.ask("db", 0.5) == address
    assert stub.ask("www.example.test") == ["198.51.100.7"]
    shop.start()
    assert stub.ask("db", 0.5) == address
    assert (listeners(shop, "web"), resolv_conf(shop, "web")) == before


def test_1_11_a_resolver_that_fails_does_not_keep_a_container_from_starting(shop: Daemon) -> None:
    os.kill(resolver_pid(shop), signal.SIGKILL)
    shop.run_container("bold", network="shop")
    stub = Stub(shop, "bold")
    eventually(lambda: stub.ask("db", 0.1) == [shop.address("db", "shop")], within=2)


# ---- names --------------------------------------------------------------------------------------------------


def test_1_18_a_trailing_dot_makes_no_difference(shop: Daemon) -> None:
    assert shop.resolve("web", "db.") == shop.resolve("web", "db") == {shop.address("db", "shop")}


def test_1_26_and_1_27_names_of_a_container_and_the_one_that_its_address_has(shop: Daemon) -> None:
    settings = {"EndpointsConfig": {"shop": {"Aliases": ["first", "second"]}}}
    identity = shop.run_container("named", network="shop", Hostname="h1.example.org", NetworkingConfig=settings)
    address = shop.address("named", "shop")
    for name in ("named", "first", "second", identity[:12], "h1.example.org"):
        assert shop.resolve("web", name) == {address}
    assert shop.resolve("web", "h1") == set()
    assert "name = named.shop" in shop.exec("web", "nslookup", address)[1]


def test_1_31_a_paused_container_resolves_a_stopped_or_created_one_does_not(shop: Daemon) -> None:
    stub = Stub(shop, "web")
    address = [shop.address("db", "shop")]
    shop.create("unborn", network="shop")
    assert stub.ask("unborn") == []
    shop.api("POST", "/containers/db/pause")
    assert stub.ask("db") == address
    shop.api("POST", "/containers/db/unpause")
    shop.api("POST", "/containers/db/stop?t=0")
    assert stub.ask("db") == []


def test_1_32_a_new_name_counts_at_once_on_every_network(shop: Daemon) -> None:
    shop.network("back")
    for ref in ("db", "web"):
        shop.api("POST", "/networks/back/connect", {"Container": ref})
    shop.api("POST", "/containers/db/rename?name=cellar")
    stub = Stub(shop, "web")
    for network in ("shop", "back"):
        assert stub.ask(f"cellar.{network}") == [shop.address("cellar", network)]
        assert stub.ask(f"db.{network}") == []


def test_1_38_and_1_39_a_link_is_a_name_of_a_name(shop: Daemon) -> None:
    shop.run_container("linker", network="shop", **linked("db:store", "nosuch:ghost", "web"))
    stub = Stub(shop, "linker")
    assert stub.ask("store") == [shop.address("db", "shop")]
    assert stub.ask("web") == [shop.address("web", "shop")]
    assert stub.ask("ghost") == []
    assert Stub(shop, "web").ask("store") == []
    assert shop.inspect("linker")["NetworkSettings"]["Networks"]["shop"]["Links"] == ["db:store", "nosuch:ghost", "web"]
    assert "STORE" not in shop.exec("linker", "env")[1]
    assert "store" not in shop.exec("linker", "cat", "/etc/hosts")[1]
    shop.api("POST", "/containers/db/stop?t=0")
    assert stub.ask("store") == []
    shop.run_container("usurper", network="shop")  # takes the address that was free
    shop.start_container("db")
    assert stub.ask("store") == [shop.address("db", "shop")]
    shop.api("POST", "/containers/db/rename?name=cellar")
    assert stub.ask("store") == []


# ---- resolv.conf --------------------------------------------------------------------------------------------


def test_1_65_none_is_as_the_default_bridge_host_is_the_machine_s_own(shop: Daemon) -> None:
    shop.run_container("plain")
    shop.run_container("nothing", network="none")
    shop.run_container("naked", network="host")
    assert resolv_conf(shop, "nothing") == resolv_conf(shop, "plain")
    mine = {"nameserver": OUTSIDE_IP}  # the daemon of these tests has --dns
    assert dict(re.findall(r"^(nameserver) (\S+)", resolv_conf(shop, "plain"), re.M)) == mine


def test_1_67_given_servers_are_upstreams_on_a_user_network_and_lines_elsewhere(shop: Daemon) -> None:
    dns = {"HostConfig": {"Dns": ["198.51.100.53"]}}
    shop.run_container("named", network="shop", **dns)
    shop.run_container("plain", **dns)
    assert re.findall(r"^nameserver (.*)", resolv_conf(shop, "named"), re.M) == ["127.0.0.11"]
    assert re.findall(r"^nameserver (.*)", resolv_conf(shop, "plain"), re.M) == ["198.51.100.53"]


def test_1_69_and_1_54_a_server_on_127_0_0_1_is_the_container_s_own(shop: Daemon) -> None:
    shop.run_container("own", network="shop", HostConfig={"Dns": ["127.0.0.1"]})
    pid = shop.inspect("own")["State"]["Pid"]
    flags = ("--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--bind-interfaces", "--user=root", "--pid-file=")
    server = shop.host.spawn(
        shop.host.name,
        *("nsenter", f"--net=/proc/{pid}/ns/net", "dnsmasq", "--keep-in-foreground", *flags),
        *("--listen-address=127.0.0.1", "--host-record=mine.example.test,198.51.100.9"),
    )
    stub = Stub(shop, "own")
    eventually(lambda: stub.ask("mine.example.test", 1) == ["198.51.100.9"])
    shop.host.end(server)


def test_a_server_on_the_container_s_own_network(shop: Daemon) -> None:
    pid = shop.inspect("db")["State"]["Pid"]
    flags = ("--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--bind-interfaces", "--user=root", "--pid-file=")
    server = shop.host.spawn(
        shop.host.name,
        *("nsenter", f"--net=/proc/{pid}/ns/net", "dnsmasq", "--keep-in-foreground", "--port=5353", *flags),
        *(f"--listen-address={shop.address('db', 'shop')}", "--host-record=mine.example.test,198.51.100.9"),
    )
    shop.run_container("own", network="shop", HostConfig={"Dns": [f"{shop.address('db', 'shop')}:5353"]})
    stub = Stub(shop, "own")
    eventually(lambda: stub.ask("mine.example.test", 1) == ["198.51.100.9"])
    shop.host.end(server)


def test_1_71_a_file_edited_inside_the_container_is_left_alone_until_the_next_start(shop: Daemon) -> None:
    shop.run_container("plain")
    edited = "nameserver 198.51.100.53\n"
    shop.exec("plain", "sh", "-c", f"printf '{edited}' > /etc/resolv.conf")
    shop.api("POST", "/networks/shop/connect", {"Container": "plain"})
    assert resolv_conf(shop, "plain") == edited
    shop.api("POST", "/containers/plain/restart?t=0")
    assert "nameserver 127.0.0.11\n" in resolv_conf(shop, "plain")


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"Dns": ["nowhere"]}, "nowhere"),
        ({"Dns": ["1.1.1.1"], "NetworkMode": "container:web"}, "conflicting options: dns and the network mode"),
    ],
    ids=["1_72 no address", "1_73 in another's network"],
)
def test_1_72_and_1_73_servers_that_cannot_be(shop: Daemon, host: dict[str, Any], words: str) -> None:
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "shop", **host}}
    reply = shop.api("POST", "/containers/create", body)
    assert reply.status == 400 and words in reply.message


def test_1_74_the_three_files_are_mounted_and_keep_their_inode(shop: Daemon) -> None:
    shop.run_container("plain")
    path = Path(shop.inspect("plain")["ResolvConfPath"])
    assert path.parent == shop.data_root / "containers" / shop.inspect("plain")["Id"]
    before = path.stat().st_ino
    shop.api("POST", "/networks/shop/connect", {"Container": "plain"})
    assert path.stat().st_ino == before
    mounts = shop.exec("plain", "cat", "/proc/mounts")[1]
    assert all(f" /etc/{name} " in mounts for name in ("resolv.conf", "hosts", "hostname"))


# ---- legacy links -------------------------------------------------------------------------------------------


@pytest.fixture
def legacy(daemon: Daemon) -> Daemon:
    """`target` on the default bridge, `me` linked to it as `db`."""
    daemon.run_container("target", Hostname="deep", Env=["SECRET=1"], ExposedPorts={"80/tcp": {}})
    daemon.run_container("me", HostConfig={"Links": ["target:db"]})
    return daemon


def test_1_75_and_1_76_a_legacy_link_is_a_line_in_etc_hosts_and_no_environment(legacy: Daemon) -> None:
    hosts = legacy.exec("me", "cat", "/etc/hosts")[1].splitlines()
    line = f"{legacy.address('target', 'bridge')}\tdb deep target"
    assert line in hosts
    own = next(i for i, text in enumerate(hosts) if text.startswith(legacy.address("me", "bridge")))
    assert hosts.index(line) < own
    assert "DB_" not in legacy.exec("me", "env")[1]


def test_1_77_a_running_linker_follows_a_target_that_restarts_with_another_address(legacy: Daemon) -> None:
    before = legacy.address("target", "bridge")
    legacy.docker("restart", "-t", "0", "target")
    after = legacy.address("target", "bridge")
    hosts = legacy.exec("me", "cat", "/etc/hosts")[1].splitlines()
    assert after != before
    assert f"{after}\tdb deep target" in hosts
    assert f"{before}\tdb deep target" not in hosts


def test_1_79_a_legacy_link_is_shown_with_both_containers_and_can_be_removed_while_both_run(legacy: Daemon) -> None:
    assert legacy.inspect("me")["HostConfig"]["Links"] == ["/target:/me/db"]
    assert legacy.docker("rm", "--link", "/me/db").stdout.strip() == "/me/db"
    assert legacy.inspect("me")["HostConfig"]["Links"] == []
    assert "db deep target" not in legacy.exec("me", "cat", "/etc/hosts")[1]
    assert legacy.api("DELETE", "/containers/me/db?link=1").status == 404


def test_1_78_links_that_cannot_be(legacy: Daemon) -> None:
    legacy.create("asleep")
    legacy.create("to-sleeper", HostConfig={"Links": ["asleep:x"]})
    reply = legacy.api("POST", "/containers/to-sleeper/start")
    assert "Cannot link to a non running container: /asleep AS /to-sleeper/x" in reply.message
    legacy.network("shop")
    legacy.run_container("far", network="shop")
    legacy.create("to-far", HostConfig={"Links": ["far:x"]})
    reply = legacy.api("POST", "/containers/to-far/start")
    assert "Cannot link to /far, as it does not belong to the default network" in reply.message
    body = {"Image": "busybox", "HostConfig": {"Links": ["nosuch:x"]}}
    reply = legacy.api("POST", "/containers/create", body)
    assert reply.status == 400
    assert "could not get container for nosuch: No such container: nosuch" in reply.message
