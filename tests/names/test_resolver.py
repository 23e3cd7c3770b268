"""Names over a resolver that is slow, refuses, dies and comes back: what it was not told it is told again, always."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from netd.core.errors import InvalidParameter, NotFound
from netd.model.networks import StaticRecord
from netd.names.resolver import PATIENCE
from tests.fakes.host import Host, host
from tests.fakes.resolver import Mood

ILL = [Mood.HANGS, Mood.DEAF, Mood.GONE, Mood.REFUSES]
DB = StaticRecord(name="db", type="A", data="192.0.2.1")


def here(h: Host, network_id: str) -> Callable[[], object]:
    return lambda: h.networks.find(network_id)


@pytest.fixture(params=ILL, ids=lambda mood: mood.name.lower())
def ill(request: pytest.FixtureRequest) -> Mood:
    mood: Mood = request.param
    return mood


# ---- told again --------------------------------------------------------------------------------------------


def test_a_container_that_started_meanwhile_gets_names_sockets_and_redirect(ill: Mood) -> None:
    with host() as h:
        red = h.network("red")
        h.resolver.mood = ill
        web = h.up("web", red)
        h.settle()
        h.resolver.mood = Mood.WELL
        h.settle()
        assert h.names_on(red) == {"web"} and h.has_dns(web)


def test_a_container_that_ended_meanwhile_is_forgotten(ill: Mood) -> None:
    with host() as h:
        red = h.network("red")
        web, db = h.up("web", red), h.up("db", red)
        h.resolver.mood = ill
        h.run(h.sandboxes.tear_down(web))
        h.settle()
        h.resolver.mood = Mood.WELL
        h.settle()
        assert h.names_on(red) == {"db"}
        assert set(h.resolver.sandboxes) == {db.id}


def test_one_that_started_and_ended_meanwhile_never_was(ill: Mood) -> None:
    with host() as h:
        red = h.network("red")
        h.resolver.mood = ill
        h.run(h.sandboxes.tear_down(h.up("web", red)))
        h.settle()
        h.resolver.mood = Mood.WELL
        h.settle()
        assert h.names_on(red) == set() and not h.resolver.sandboxes


def test_networks_that_came_and_went_meanwhile_are_told(ill: Mood) -> None:
    with host() as h:
        red = h.network("red")
        h.resolver.mood = ill
        h.run(h.networks.remove("red"))
        blue = h.network("blue")
        web = h.up("web", blue)
        h.settle()
        h.resolver.mood = Mood.WELL
        h.settle()
        assert red.id not in h.resolver.networks
        assert h.names_on(blue) == {"web"} and h.has_dns(web)


def test_a_change_of_networks_meanwhile_is_told(ill: Mood) -> None:
    with host() as h:
        red, blue = h.network("red"), h.network("blue")
        web = h.up("web", red)
        h.resolver.mood = ill
        wider = web.with_endpoint(h.endpoint(blue, "web"))
        h.run(h.sandboxes.attach(web, wider))
        narrower = h.run(h.sandboxes.detach(wider, web.endpoints[0]))
        h.settle()
        h.resolver.mood = Mood.WELL
        h.settle()
        assert (h.names_on(red), h.names_on(blue)) == (set(), {"web"})
        assert h.resolver.sandboxes[web.id].networks == (blue.id,) and h.has_dns(narrower)


def test_a_process_that_lost_everything_is_told_everything() -> None:
    with host() as h:
        red = h.network("red")
        web = h.up("web", red)
        h.run(h.names.add_static(red.id, DB, here(h, red.id)))
        h.resolver.begin_anew()
        h.settle()
        assert h.names_on(red) == {"web"} and h.has_dns(web)
        assert h.static_on(red) == [DB.line]


def test_two_losses_in_a_row_and_a_failure_in_the_middle_end_well() -> None:
    with host() as h:
        red = h.network("red")
        sandboxes = [h.up(name, red) for name in ("web", "db", "cache")]
        h.resolver.begin_anew()
        h.until(lambda: bool(h.resolver.sandboxes))  # the first of them has been told
        h.resolver.begin_anew()
        h.until(lambda: bool(h.resolver.sandboxes))
        h.resolver.mood = Mood.HANGS
        h.settle(5)
        h.resolver.mood = Mood.WELL
        h.settle()
        assert h.names_on(red) == {"web", "db", "cache"}
        assert all(h.has_dns(sandbox) for sandbox in sandboxes)


def test_sockets_that_were_taken_without_an_answer_are_not_what_the_kernel_leads_to() -> None:
    """The resolver serves a sandbox, the daemon does not know: whatever it opens next, both must agree."""
    with host() as h:
        red = h.network("red")
        h.resolver.mood = Mood.DEAF
        web = h.up("web", red)
        assert web.id in h.resolver.sandboxes
        h.names.dirty.mark_everything()
        h.resolver.mood = Mood.WELL
        h.settle()
        assert h.has_dns(web)


def test_a_redirect_that_fails_is_made_later() -> None:
    with host() as h:
        web = h.up("web", h.network("red"))
        h.calls.broken.add("Kernel.ensure_sandbox")
        h.resolver.begin_anew()
        h.settle(10)
        assert not h.has_dns(web)
        h.calls.broken.clear()
        h.settle()
        assert h.has_dns(web)


def test_one_sandbox_that_cannot_be_served_does_not_keep_the_others_from_it() -> None:
    with host() as h:
        red = h.network("red")
        web, db = h.up("web", red), h.up("db", red)
        inode = h.namespaces.present.pop(web.netns)
        h.resolver.begin_anew()
        h.settle(10)
        assert h.has_dns(db) and not h.has_dns(web)
        h.namespaces.present[web.netns] = inode
        h.settle()
        assert h.has_dns(web)


# ---- nobody waits long -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mood", [Mood.HANGS, Mood.DEAF])
def test_a_start_waits_for_a_slow_resolver_once_and_the_next_one_not_at_all(mood: Mood) -> None:
    with host() as h:
        networks = [h.network(name) for name in ("red", "blue", "green")]
        h.resolver.mood = mood
        for patience in (PATIENCE, 0):
            before = h.loop.time()
            h.up(f"web{patience}", *networks)
            assert h.loop.time() - before <= patience


def test_a_daemon_starts_while_the_resolver_hangs() -> None:
    with host() as h:
        red = h.network("red")
        web = h.up("web", red)
        h.resolver.mood = Mood.HANGS
        h.begin()
        before = h.loop.time()
        h.run(h.load())
        assert h.loop.time() - before <= 2 * PATIENCE
        # what it sends its questions to is left as it was
        assert h.kernel.sandboxes[web.id].endpoints
        h.resolver.mood = Mood.WELL
        h.settle()
        assert h.names_on(red) == {"web"} and h.has_dns(web)


def test_a_resolver_that_is_away_is_asked_now_and_then_only() -> None:
    with host() as h:
        red = h.network("red")
        for name in ("web", "db", "cache"):
            h.up(name, red)
        h.resolver.mood = Mood.GONE
        h.names.dirty.mark_everything()
        before = h.resolver.asked
        h.settle(60)
        assert h.resolver.asked - before < 60


def test_when_all_is_told_nothing_is_asked_any_more() -> None:
    with host() as h:
        h.up("web", h.network("red"))
        h.settle()
        before = h.resolver.asked
        h.settle(600)
        assert h.resolver.asked == before


# ---- members and records -----------------------------------------------------------------------------------


def test_a_planned_member_has_no_name_before_it_is_there() -> None:
    with host() as h:
        red = h.network("red")
        h.up("web", red)
        h.planned("db", red)
        h.resolver.begin_anew()
        h.settle()
        assert h.names_on(red) == {"web"}


# ---- static records ----------------------------------------------------------------------------------------


def test_a_static_record_resolves_when_it_is_added_and_goes_with_its_network() -> None:
    with host() as h:
        red = h.network("red")
        h.run(h.names.add_static(red.id, DB, here(h, red.id)))
        assert h.static_on(red) == [DB.line]
        h.run(h.networks.remove("red"))
        assert h.names.static(red.id) == () and not h.store.under("dns")


def test_static_records_outlast_the_resolver_s_table() -> None:
    """This host's last container leaves an overlay, and another one joins it."""
    with host() as h:
        red = h.network("red")
        h.run(h.names.add_static(red.id, DB, here(h, red.id)))
        h.run(h.names.delete_network(red.id))
        assert h.static_on(red) == []
        h.run(h.names.put_network(red))
        assert h.static_on(red) == [DB.line]


def test_a_record_of_a_network_that_the_resolver_does_not_know_is_kept_for_when_it_does() -> None:
    with host() as h:
        red = h.network("red")
        h.run(h.resolver.delete_network(red.id))
        h.run(h.names.add_static(red.id, DB, here(h, red.id)))
        assert h.names.static(red.id) == (DB,)
        h.run(h.names.put_network(red))
        assert h.static_on(red) == [DB.line]


def test_static_records_are_told_again(ill: Mood) -> None:
    with host() as h:
        red = h.network("red")
        other = StaticRecord(name="mail", type="A", data="192.0.2.2")
        h.run(h.names.add_static(red.id, other, here(h, red.id)))
        h.resolver.mood = ill
        h.run(h.names.add_static(red.id, DB, here(h, red.id)))
        h.run(h.names.remove_static(red.id, "mail", ""))
        h.settle()
        h.resolver.mood = Mood.WELL
        h.settle()
        assert h.static_on(red) == [DB.line]


def test_two_that_are_added_at_once_are_both_there() -> None:
    with host() as h:
        red = h.network("red")
        other = StaticRecord(name="mail", type="A", data="192.0.2.2")
        tasks = [h.loop.create_task(h.names.add_static(red.id, r, here(h, red.id))) for r in (DB, other)]
        h.until(lambda: all(task.done() for task in tasks))
        assert [task.exception() for task in tasks] == [None, None]
        assert set(h.names.static(red.id)) == {DB, other}
        assert h.static_on(red) == sorted([DB.line, other.line])


@pytest.mark.parametrize("step", ["Store.create", "Store.cas"])
def test_what_cannot_be_stored_does_not_resolve(step: str) -> None:
    with host() as h:
        red = h.network("red")
        first = [StaticRecord(name="mail", type="A", data="192.0.2.2")] if step == "Store.cas" else []
        for given in first:
            h.run(h.names.add_static(red.id, given, here(h, red.id)))
        h.calls.broken.add(step)
        with pytest.raises(Exception, match="made to fail"):
            h.run(h.names.add_static(red.id, DB, here(h, red.id)))
        h.settle()
        assert h.static_on(red) == [given.line for given in first]


def test_what_is_no_record_is_refused_also_while_the_resolver_is_away() -> None:
    with host() as h:
        red = h.network("red")
        h.resolver.mood = Mood.GONE
        with pytest.raises(InvalidParameter, match="is not a resource record"):
            h.run(h.names.add_static(red.id, StaticRecord(name="db", type="A", data="nowhere"), here(h, red.id)))
        assert h.names.static(red.id) == ()


def test_no_record_is_written_of_a_network_that_goes_meanwhile() -> None:
    """At each step of the addition, the network's removal."""
    for steps in range(40):
        with host() as h:
            red = h.network("red")
            added = h.loop.create_task(h.names.add_static(red.id, DB, here(h, red.id)))
            for _ in range(steps):
                h.loop.step()
            removed = h.loop.create_task(h.networks.remove("red"))
            h.until(lambda a=added, r=removed: a.done() and r.done())  # type: ignore[misc]
            h.settle()
            assert added.exception() is None or isinstance(added.exception(), NotFound)
            assert removed.exception() is None
            assert not h.store.under("dns") and not h.resolver.lines


def test_whoever_waited_for_the_removal_of_a_network_s_records_adds_none() -> None:
    with host() as h:
        red = h.network("red")
        h.run(h.names.add_static(red.id, DB, here(h, red.id)))
        removed = h.loop.create_task(h.networks.remove("red"))
        h.until(lambda: any(call.name == "Store.delete" for call in h.calls.waiting) and red.id not in h.networks.live)
        mail = StaticRecord(name="mail", type="A", data="192.0.2.2")
        added = h.loop.create_task(h.names.add_static(red.id, mail, here(h, red.id)))
        h.until(lambda: removed.done() and added.done())
        assert isinstance(added.exception(), NotFound)
        assert not h.store.under("dns")


def test_records_that_the_store_does_not_let_go_of_go_later() -> None:
    with host() as h:
        red = h.network("red")
        h.run(h.names.add_static(red.id, DB, here(h, red.id)))
        h.calls.broken.add("Store.delete")
        del h.networks.live[red.id]
        h.run(h.names.drop_static(red.id))
        h.settle(5)
        assert h.store.under("dns")
        h.calls.broken.clear()
        h.settle()
        assert not h.store.under("dns")
