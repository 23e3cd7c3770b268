"""The table of live networks: how one is found, who has a name while a network is made, which may be joined."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from netd.core.errors import Conflict, Forbidden, InvalidParameter, NotFound
from netd.model.networks import ConfigReference, Network
from netd.model.sandboxes import Endpoint
from netd.networks.live import LiveNetwork, LiveNetworks, Member
from tests.fakes.loop import Loop

SHOP = Network(name="shop", id="aa11", created="", scope="local", driver="bridge")
BACK = Network(name="back", id="aa22", created="", scope="global", driver="overlay")


@pytest.fixture
def table() -> LiveNetworks:
    """Networks `shop` and `back`, whose ids begin alike."""
    made = LiveNetworks()
    made.put(LiveNetwork(SHOP))
    made.put(LiveNetwork(BACK))
    return made


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as made:
        yield made


def member(container: str) -> Member:
    return Member("c", container, Endpoint(id="0123456789abcdef", network_id=SHOP.id, network="shop"))


# ---- finding --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", ["aa11", "shop", "aa1"], ids=["id", "name", "prefix of the id"])
def test_a_network_is_found_by_what_a_user_types(table: LiveNetworks, ref: str) -> None:
    assert table.find(ref).record == SHOP


def test_a_prefix_of_two_ids_is_ambiguous(table: LiveNetworks) -> None:
    with pytest.raises(InvalidParameter, match=r"network aa is ambiguous \(2 matches found based on ID prefix\)"):
        table.find("aa")


def test_an_id_comes_before_a_name_and_a_name_before_a_prefix(table: LiveNetworks) -> None:
    table.put(LiveNetwork(replace(SHOP, name="aa11", id="bb")))
    table.put(LiveNetwork(replace(SHOP, name="aa2", id="cc")))
    assert table.find("aa11").record == SHOP
    assert table.find("aa2").record.id == "cc"


@pytest.mark.parametrize("ref", ["", "sho", "zz"])
def test_what_is_none_of_them_is_not_found(table: LiveNetworks, ref: str) -> None:
    with pytest.raises(NotFound, match=f"^network {ref} not found"):
        table.find(ref)


def test_by_name_takes_neither_an_id_nor_a_prefix(table: LiveNetworks) -> None:
    assert table.by_name("shop").record == SHOP
    with pytest.raises(NotFound, match="network aa11 not found"):
        table.by_name("aa11")


# ---- names ----------------------------------------------------------------------------------------------


def test_of_two_creations_of_one_name_the_second_clashes(table: LiveNetworks) -> None:
    clash = pytest.raises(Conflict, match="network with name new already exists")
    with table.naming("new"), clash, table.naming("new"):
        raise AssertionError("both have the name")


def test_a_name_that_is_being_made_is_no_network_yet(table: LiveNetworks) -> None:
    with table.naming("new"):
        assert table.named("new") is None


@pytest.mark.parametrize("name", ["shop", "back"], ids=["local", "global"])
def test_the_name_of_a_network_that_is_there_is_taken_whatever_its_scope(table: LiveNetworks, name: str) -> None:
    with pytest.raises(Conflict), table.naming(name):
        raise AssertionError("two networks have the name")


def test_a_creation_that_fails_frees_the_name(table: LiveNetworks) -> None:
    with pytest.raises(OSError), table.naming("new"):
        raise OSError
    with table.naming("new"):
        table.put(LiveNetwork(replace(SHOP, name="new", id="bb")))
    assert table.by_name("new")


def test_a_clash_does_not_free_the_name_of_the_one_that_has_it(table: LiveNetworks) -> None:
    with table.naming("new"):
        for _ in range(2):
            with pytest.raises(Conflict), table.naming("new"):
                raise AssertionError("both have the name")


def test_whoever_asks_what_becomes_of_a_name_waits_until_its_network_is_made(table: LiveNetworks, loop: Loop) -> None:
    with table.naming("new"):
        asking = loop.create_task(table.decided("new"))
        loop.settle()
        assert not asking.done()
    loop.settle()
    assert asking.done()


def test_whoever_asks_waits_until_its_network_is_removed(table: LiveNetworks, loop: Loop) -> None:
    shop = table.find("shop")
    loop.run(shop.changing.acquire())
    shop.removing = True
    asking = loop.create_task(table.decided("shop"))
    loop.settle()
    assert not asking.done()
    table.hide(SHOP.id)
    shop.changing.release()
    loop.settle()
    assert asking.done()


def test_a_name_that_nobody_is_busy_with_is_decided(table: LiveNetworks, loop: Loop) -> None:
    for name in ("shop", "unknown"):
        asking = loop.create_task(table.decided(name))
        loop.step()
        assert asking.done()


# ---- joining and removing -------------------------------------------------------------------------------


def test_a_network_can_be_joined_until_it_is_being_removed(table: LiveNetworks) -> None:
    shop = table.find("shop")
    table.joinable(shop)
    shop.removing = True
    with pytest.raises(NotFound, match="network shop not found"):
        table.joinable(shop)


def test_a_network_that_has_gone_can_be_neither_joined_nor_removed(table: LiveNetworks) -> None:
    shop = table.find("shop")
    table.hide(SHOP.id)
    table.put(LiveNetwork(SHOP))  # another one, though it has all from the first
    for question in (table.joinable, table.removable):
        with pytest.raises(NotFound, match="network shop not found"):
            question(shop)


def test_a_network_that_somebody_is_on_is_not_removed_and_the_refusal_says_who_it_is(table: LiveNetworks) -> None:
    shop = table.find("shop")
    table.removable(shop)
    shop.members["0123456789abcdef"] = member("web")
    told = r'network shop has active endpoints \(name:"web" id:"0123456789ab"\)'
    with pytest.raises(Forbidden, match=told):
        table.removable(shop)


@pytest.mark.parametrize("name", ["bridge", "host", "none"])
def test_a_predefined_network_is_not_removed(table: LiveNetworks, name: str) -> None:
    predefined = LiveNetwork(replace(SHOP, name=name, id=name))
    table.put(predefined)
    with pytest.raises(Forbidden, match=f"{name} is a pre-defined network and cannot be removed"):
        table.removable(predefined)


def test_a_configuration_network_stays_while_a_network_is_made_or_there_that_took_it(table: LiveNetworks) -> None:
    template = LiveNetwork(replace(SHOP, name="template", id="t", config_only=True))
    table.put(template)
    in_use = pytest.raises(Forbidden, match='configuration network "template" is in use')
    with table.naming("new", "template"), in_use:
        table.removable(template)
    table.removable(template)
    table.put(LiveNetwork(replace(SHOP, name="new", id="n", config_from=ConfigReference(network="template"))))
    with in_use:
        table.removable(template)
    table.hide("n")
    table.removable(template)


# ---- what a cluster tells -------------------------------------------------------------------------------


def test_a_network_that_the_cluster_shows_is_there_until_it_is_hidden(table: LiveNetworks) -> None:
    far = replace(BACK, name="far", id="f")
    table.show(far)
    assert table.find("far").record == far
    table.hide("f")
    with pytest.raises(NotFound):
        table.find("far")


def test_a_network_that_changes_keeps_who_is_on_it(table: LiveNetworks) -> None:
    back = table.find("back")
    back.members["e"] = member("web")
    changed = replace(BACK, labels={"team": "a"})
    table.show(changed)
    assert table.find("back") is back
    assert (back.record, list(back.members)) == (changed, ["e"])


def test_hiding_a_network_that_is_not_there_changes_nothing(table: LiveNetworks) -> None:
    table.hide("unknown")
    assert set(table.items) == {SHOP.id, BACK.id}
