"""The network manager over fakes: two things at once, and pruning."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netd.core.errors import Conflict, Forbidden, InvalidParameter, NotFound
from netd.core.filters import Filters
from netd.networks.manager import NetworkManager
from tests.fakes.points import failures, meetings, refusal
from tests.fakes.world import World
from tests.networks.conftest import SHOP, create, join_shop, names, prune, remove_shop, wrong

# ---- two things at once ---------------------------------------------------------------------------------


def test_of_two_networks_of_one_name_one_is_made(make: Callable[[], World]) -> None:
    for world, one, other in meetings(make, create, create):
        refused = refusal(one, other)
        assert isinstance(refused, Conflict) and str(refused) == "network with name new already exists"
        assert not wrong(world)


def test_a_name_is_free_again_once_its_network_is_gone(make: Callable[[], World]) -> None:
    for world, removed, made in meetings(make, remove_shop, lambda world: create(world, SHOP)):
        assert removed is None
        assert isinstance(made, str | Conflict)
        assert names(world) == (["back"] if isinstance(made, Conflict) else ["back", "shop"])
        assert not wrong(world)


def test_a_network_that_somebody_has_joined_is_not_removed(world: World) -> None:
    world.run(join_shop(world))
    manager: NetworkManager = world.daemon.networks
    assert len(manager.find("shop").members) == 1
    with pytest.raises(Forbidden, match=r'network shop has active endpoints \(name:"web" id:"\w{12}"\)'):
        world.run(remove_shop(world))


# ---- list -----------------------------------------------------------------------------------------------


def test_a_filter_that_would_take_long_is_refused(world: World) -> None:
    manager: NetworkManager = world.daemon.networks
    assert [row["Name"] for row in manager.list(Filters({"name": frozenset(["^sh.p$"])}))] == ["shop"]
    for key in ("name", "id"):
        with pytest.raises(InvalidParameter, match="invalid filter: the expressions are too large"):
            manager.list(Filters({key: frozenset(["([0-9a-f]?){600}z"])}))


# ---- prune ----------------------------------------------------------------------------------------------


def test_what_is_no_time_is_refused_before_anything_is_pruned(world: World) -> None:
    with pytest.raises(InvalidParameter, match="invalid time 'yesterday'"):
        world.run(world.daemon.networks.prune(Filters({"until": frozenset(["yesterday"])})))
    assert names(world) == ["shop", "back"]


def test_pruning_goes_on_when_a_network_goes_meanwhile(make: Callable[[], World]) -> None:
    for world, pruned, removed in meetings(make, prune, remove_shop):
        assert names(world) == [], "whoever removed it"
        assert isinstance(pruned, list) and "back" in pruned
        assert ("shop" in pruned) == isinstance(removed, NotFound)


def test_pruning_goes_on_after_an_error(make: Callable[[], World]) -> None:
    for world, failed, error in failures(make, prune):
        assert error is None, failed
        assert len(names(world)) == (1 if failed == "Store.delete" else 0)


def test_pruning_leaves_networks_that_somebody_is_on(make: Callable[[], World]) -> None:
    for world, pruned, joined in meetings(make, prune, join_shop):
        assert ("shop" in names(world)) == isinstance(joined, str)
        assert ("shop" in pruned) == isinstance(joined, NotFound)
