"""Networks of one host over fakes: brought back at a start, made and removed whole or not at all, and joined."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from msgspec.structs import replace

from drivers.spec import OptionConflict
from kvstore.contract import Entry, StoreUnavailable
from netd.config.values import Config
from netd.core.errors import Forbidden, NotFound
from netd.model.networks import IPAM, IPAMConfig, Network, NetworkCreate
from netd.networks.local import LocalScope
from tests.fakes.points import failures, meetings, refusal
from tests.fakes.world import World
from tests.networks.conftest import NEW, SHOP, create, join_shop, local, names, remove_shop, wrong

DEVICE = {"com.docker.network.bridge.name": "br-shop"}


def stored(world: World) -> dict[str, Network]:
    """What is on the disk, by name."""
    values = world.store.under("networks").values()
    return {record.name: record for record in (msgspec.json.decode(value, type=Network) for value in values)}


def subnet(world: World, name: str) -> str:
    return (world.daemon.networks.by_name(name).record.ipam.config or [])[0].subnet


# ---- at a start -----------------------------------------------------------------------------------------


def test_the_first_start_makes_the_predefined_networks(world: World) -> None:
    scope: LocalScope = local(world)
    assert [network.name for network in scope.specs()] == ["bridge", "shop", "back"], "host and none need nothing"
    drivers = {name: record.driver for name, record in stored(world).items() if name not in ("shop", "back")}
    assert drivers == {"bridge": "bridge", "host": "host", "none": "null"}
    assert subnet(world, "bridge") == "172.17.0.0/28"


def test_a_restart_brings_back_the_same_networks_with_the_same_subnets(world: World) -> None:
    world.run(create(world))
    before = stored(world)
    world.restart_daemon()
    assert {live.record.name: live.record for live in world.daemon.networks.live.values()} == before == stored(world)


def test_the_subnets_of_networks_that_were_brought_back_are_taken(world: World) -> None:
    world.run(create(world))
    world.restart_daemon()
    world.run(create(world, replace(NEW, name="newer")))
    assert subnet(world, "newer") not in (subnet(world, "new"), subnet(world, "bridge"))
    with pytest.raises(Forbidden, match="Pool overlaps with other one on this address space"):
        world.run(create(world, replace(SHOP, name="shop2")))


def test_the_default_bridge_follows_the_daemons_options(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world.daemon.networks.by_name("bridge").record
    monkeypatch.setattr("tests.fakes.world._CONFIG", Config(bip="172.30.0.1/24", mtu=1400))
    world.restart_daemon()
    after = world.daemon.networks.by_name("bridge").record
    assert (after.id, subnet(world, "bridge")) == (before.id, "172.30.0.0/24")
    assert after.options["com.docker.network.driver.mtu"] == "1400"
    assert stored(world)["bridge"] == after


def record(name: str = "bad", **pool: str) -> Network:
    config = [IPAMConfig(subnet="10.79.0.0/28"), IPAMConfig(**pool)]
    return Network(name=name, id="bad", created="3", scope="local", driver="bridge", ipam=IPAM(config=config))


BAD_RECORDS: dict[str, bytes] = {
    "no JSON": b"{",
    "of another form": b'{"id": 7}',
    "a subnet that is none": msgspec.json.encode(record(subnet="no subnet")),
    "a gateway that is none": msgspec.json.encode(record(subnet="10.80.0.0/28", gateway="10.80.0.256")),
    "a range that is none": msgspec.json.encode(record(subnet="10.80.0.0/28", ip_range="10.80.0.1/28")),
    "the subnet of another network": msgspec.json.encode(record(subnet="10.77.0.0/24")),
    "a default bridge without subnet": msgspec.json.encode(replace(record("bridge"), ipam=IPAM())),
}


@pytest.mark.parametrize("value", BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_a_record_that_makes_no_sense_harms_only_its_own_network(
    world: World, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    before = {live.record.id for live in world.daemon.networks.live.values()}
    if b'"Name":"bridge"' in value:
        world.store.entries = {k: e for k, e in world.store.entries.items() if b'"Name":"bridge"' not in e.value}
    world.store.entries["networks/bad"] = Entry("networks/bad", value, 0)
    world.restart_daemon()
    assert names(world) == ["shop", "back"]
    assert "bad" not in world.daemon.networks.live and len(world.daemon.networks.live) == len(before)
    assert "bad" not in {network.id for network in local(world).specs()}
    assert "it is left alone" in caplog.text
    assert world.store.entries["networks/bad"].value == value  # for somebody to look at
    for free in ("10.79.0.0/28", "10.80.0.0/28"):  # none of its subnets is taken
        world.run(create(world, NetworkCreate(name=free[:5], ipam=IPAM(config=[IPAMConfig(subnet=free)]))))


def test_a_configuration_network_has_no_subnet_whatever_it_says(world: World) -> None:
    template = NetworkCreate(name="template", config_only=True, ipam=SHOP.ipam)
    world.run(create(world, template))  # that of `shop`
    world.restart_daemon()
    template_id = world.daemon.networks.by_name("template").record.id
    assert template_id not in {network.id for network in local(world).specs()}
    world.run(remove_shop(world))
    assert world.run(create(world, SHOP))


# ---- creating -------------------------------------------------------------------------------------------


def test_creating_leaves_nothing_whichever_step_fails(make: Callable[[], World]) -> None:
    steps = []
    for world, failed, error in failures(make, create):
        if failed.startswith("Resolver"):
            assert error is None, "the resolver is told again later"
            continue
        steps.append(failed)
        assert error is not None, failed
        assert names(world) == ["shop", "back"], failed
        assert {network.name for network in world.kernel.networks.values()} == {"bridge", "shop", "back"}, failed
        world.run(create(world))  # the name is free, and so is the subnet
        assert subnet(world, "new") == "172.17.0.16/28", failed
        assert not wrong(world), failed
    assert steps == ["Kernel.host_routes", "Kernel.ensure_network", "Store.create"]


def test_options_that_the_kernel_refuses_take_no_subnet(world: World) -> None:
    world.run(create(world, NetworkCreate(name="one", options=DEVICE, ipam=NEW.ipam)))
    with pytest.raises(OptionConflict, match="br-shop is taken"):
        world.run(create(world, NetworkCreate(name="other", options=DEVICE, ipam=NEW.ipam)))
    world.run(create(world))
    assert (subnet(world, "one"), subnet(world, "new")) == ("172.17.0.16/28", "172.17.0.32/28")


def test_of_options_and_a_subnet_that_are_both_wrong_the_options_are_told(world: World) -> None:
    world.run(create(world, NetworkCreate(name="one", options=DEVICE, ipam=NEW.ipam)))
    with pytest.raises(OptionConflict):
        world.run(create(world, NetworkCreate(name="other", options=DEVICE, ipam=SHOP.ipam)))


def test_two_networks_with_one_device_are_not_both_made(make: Callable[[], World]) -> None:
    one, other = (NetworkCreate(name=name, options=DEVICE, ipam=NEW.ipam) for name in ("one", "other"))
    for world, first, second in meetings(make, lambda w: create(w, one), lambda w: create(w, other)):
        assert "br-shop is taken" in str(refusal(first, second))
        assert not wrong(world)


# ---- removing -------------------------------------------------------------------------------------------


def test_removing_leaves_a_network_whole_or_nothing_of_it(make: Callable[[], World]) -> None:
    outcomes = {}
    for world, failed, error in failures(make, remove_shop):
        outcomes[failed] = error is None
        assert names(world) == (["back"] if error is None else ["shop", "back"])
        if error is not None:
            assert not wrong(world), failed
            world.run(remove_shop(world))
        world.restart_daemon()
        world.run(create(world, SHOP))
        assert not wrong(world), failed
    assert outcomes.pop("Store.delete") is False
    assert set(outcomes.values()) == {True}, "once the record is gone there is no way back"


def test_what_cannot_be_cleared_of_a_network_that_is_gone_is_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.calls.broken.add("Kernel.remove_network")
    world.run(remove_shop(world))
    assert "network shop: could not remove its bridge and rules: Kernel.remove_network was made to fail" in caplog.text
    assert "shop" not in stored(world)
    assert world.run(create(world, SHOP)), "its name and its subnet are free all the same"


def test_what_could_not_be_cleared_of_a_network_is_cleared_later(world: World) -> None:
    shop = world.daemon.networks.by_name("shop").record.id
    world.calls.broken.add("Kernel.remove_network")
    world.run(remove_shop(world))
    world.loop.settle(3)
    assert shop in world.kernel.networks
    world.calls.broken.clear()
    world.loop.settle()
    assert shop not in world.kernel.networks
    assert not wrong(world)


def test_a_network_whose_removal_failed_can_be_joined(world: World) -> None:
    world.calls.broken.add("Store.delete")
    with pytest.raises(StoreUnavailable):
        world.run(remove_shop(world))
    assert world.run(join_shop(world))


def test_whoever_joins_a_network_that_is_being_removed_is_told_that_it_is_gone(make: Callable[[], World]) -> None:
    for world, removed, joined in meetings(make, remove_shop, join_shop):
        if removed is None:
            assert isinstance(joined, NotFound), "from the first await of the removal on"
            assert names(world) == ["back"]
        else:
            assert isinstance(removed, Forbidden) and isinstance(joined, str)
            assert list(world.daemon.networks.find("shop").members) == [joined]
