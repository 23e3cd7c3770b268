"""Sandboxes over fakes: whatever fails half-way, the record says what is so, and all else follows in the end."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from drivers.spec import DriverError
from kvstore.contract import Entry, StoreUnavailable
from netd.core.errors import NotFound
from netd.networks.live import Member
from netd.sandboxes.manager import SandboxManager
from tests.fakes.host import Host, host
from tests.fakes.resolver import Mood


def test_a_sandbox_that_is_up_has_links_dns_and_names() -> None:
    with host() as h:
        red = h.network("red")
        web = h.up("web", red)
        assert h.names_on(red) == {"web"}
        assert h.has_dns(web)
        assert [e.network_id for e in h.kernel.sandboxes[web.id].endpoints] == [red.id]


def test_nothing_is_left_of_one_that_was_taken_down() -> None:
    with host() as h:
        red = h.network("red")
        web = h.up("web", red)
        manager: SandboxManager = h.sandboxes
        h.run(manager.tear_down(web))
        assert_gone(h, web.id)
        assert h.names_on(red) == set() and h.taken_on(red) == set()


def assert_gone(h: Host, sandbox_id: str) -> None:
    assert h.sandboxes.get(sandbox_id) is None
    assert sandbox_id not in h.kernel.sandboxes
    assert sandbox_id not in h.resolver.sandboxes
    assert h.namespaces.path(sandbox_id) not in h.namespaces.present
    assert f"sandboxes/{sandbox_id}" not in h.store.entries


# ---- taking down -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["Kernel.remove_sandbox", "Namespaces.unpin", "Store.delete"])
def test_what_cannot_be_taken_down_now_is_taken_down_later(step: str) -> None:
    with host() as h:
        red = h.network("red")
        web = h.up("web", red)
        h.calls.broken.add(step)
        h.run(h.sandboxes.tear_down(web))
        # for everybody else it is gone, and nobody is in its way
        assert h.sandboxes.get(web.id) is None and web not in h.sandboxes.all()
        assert h.names_on(red) == set() and h.taken_on(red) == set()
        assert f"sandboxes/{web.id}" in h.store.entries  # which tells of it to a daemon that starts meanwhile
        h.settle()
        h.calls.broken.clear()
        h.settle()
        assert_gone(h, web.id)


def test_its_names_go_before_its_links() -> None:
    with host() as h:
        red = h.network("red")
        web = h.up("web", red)
        h.calls.broken.add("Kernel.remove_sandbox")
        task = h.loop.create_task(h.sandboxes.tear_down(web))
        h.until(lambda: any(call.name == "Kernel.remove_sandbox" for call in h.calls.waiting))
        assert h.names_on(red) == set() and web.id not in h.resolver.sandboxes
        h.until(task.done)


def test_an_address_that_was_given_back_is_not_given_back_again_by_what_comes_later() -> None:
    with host() as h:
        red = h.network("red")
        web = h.up("web", red)
        h.calls.broken.add("Store.delete")
        h.run(h.sandboxes.tear_down(web))
        h.calls.broken.clear()
        endpoint = replace(web.endpoints[0], id="db-on-red")
        db = replace(web, id="s-db", netns=h.namespaces.path("s-db"), endpoints=(endpoint,))
        h.run(h.sandboxes.pin(db))
        h.networks.adopt(Member(db.container_id, db.name, db.endpoints[0]))  # it has that very address
        h.run(h.sandboxes.bring_up(db))
        taken = h.taken_on(red)
        h.run(h.sandboxes.tear_down(web))
        h.settle()
        assert h.taken_on(red) == taken != set()


def test_a_daemon_that_starts_again_takes_up_what_was_not_taken_down() -> None:
    with host() as h:
        web = h.up("web", h.network("red"))
        h.calls.broken.add("Store.delete")
        h.run(h.sandboxes.tear_down(web))
        h.calls.broken.clear()
        h.begin()
        h.run(h.load())
        assert h.sandboxes.get(web.id) == web  # its container does not run: it is swept


# ---- bringing up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["Kernel.ensure_sandbox", "Store.create", "Namespaces.sockets"])
def test_one_that_did_not_come_up_is_taken_down_without_a_trace(step: str) -> None:
    with host() as h:
        red = h.network("red")
        web = h.planned("web", red)
        h.calls.broken.add(step)
        with pytest.raises((DriverError, StoreUnavailable)):
            h.run(h.sandboxes.bring_up(web))
        h.calls.broken.clear()
        h.run(h.sandboxes.tear_down(web))
        h.settle()
        assert_gone(h, web.id)
        assert h.names_on(red) == set() and h.taken_on(red) == set()


# ---- more networks, and fewer ------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["Kernel.ensure_sandbox", "Store.cas"])
def test_a_network_that_could_not_be_added_leaves_the_sandbox_as_it_was(step: str) -> None:
    with host() as h:
        red, blue = h.network("red"), h.network("blue")
        web = h.up("web", red)
        wider = web.with_endpoint(h.endpoint(blue, "web"))
        h.calls.broken.add(step)
        with pytest.raises((DriverError, StoreUnavailable)):
            h.run(h.sandboxes.attach(web, wider))
        h.calls.broken.clear()
        h.settle()
        assert h.sandboxes.get(web.id) == web
        assert [e.network for e in web.endpoints] == ["red"]
        assert [e.network_id for e in h.kernel.sandboxes[web.id].endpoints] == [red.id]
        assert h.resolver.sandboxes[web.id].networks == (red.id,)
        assert h.names_on(blue) == set() and h.taken_on(blue) == set()


def test_a_link_that_cannot_be_removed_now_is_no_reason_to_hold_its_address_or_to_resolve() -> None:
    with host() as h:
        red, blue = h.network("red"), h.network("blue")
        web = h.up("web", red, blue)
        h.calls.broken.add("Kernel.ensure_sandbox")
        narrower = h.run(h.sandboxes.detach(web, web.endpoints[1]))
        assert h.sandboxes.get(web.id) == narrower
        assert h.names_on(blue) == set() and h.taken_on(blue) == set()
        h.calls.broken.clear()
        h.settle()
        assert [e.network_id for e in h.kernel.sandboxes[web.id].endpoints] == [red.id]


def test_a_network_that_the_record_does_not_let_go_of_stays_whole() -> None:
    with host() as h:
        red, blue = h.network("red"), h.network("blue")
        web = h.up("web", red, blue)
        h.calls.broken.add("Store.cas")
        with pytest.raises(StoreUnavailable):
            h.run(h.sandboxes.detach(web, web.endpoints[1]))
        assert h.names_on(blue) == {"web"} and h.taken_on(blue) != set()
        assert len(h.kernel.sandboxes[web.id].endpoints) == 2


def test_the_last_user_network_takes_its_names_along() -> None:
    with host() as h:
        red = h.network("red")
        web = h.up("web", red, h.networks.by_name("bridge").record)
        assert not h.run(h.sandboxes.detach(web, web.endpoints[0])).resolves
        assert h.resolver.sandboxes[web.id].networks == ()


def test_a_sandbox_that_joins_its_first_user_network_gets_dns() -> None:
    with host() as h:
        web = h.up("web", h.networks.by_name("bridge").record)
        assert not h.has_dns(web)
        wider = web.with_endpoint(h.endpoint(h.network("red"), "web"))
        h.run(h.sandboxes.attach(web, wider))
        assert h.has_dns(wider)


def test_a_new_name_takes_the_place_of_the_old_one_also_in_the_query_log() -> None:
    with host() as h:
        red = h.network("red")
        web = h.up("web", red)
        renamed = replace(web, name="shop", endpoints=(replace(web.endpoints[0], names=("shop",)),))
        h.run(h.sandboxes.rename(web, renamed))
        assert h.names_on(red) == {"shop"}
        assert [m.container for m in h.networks.live[red.id].members.values()] == ["shop"]
        h.settle()
        assert h.resolver.sandboxes[web.id].container == "shop"


def test_nothing_is_changed_of_a_sandbox_that_is_being_taken_down() -> None:
    with host() as h:
        red, blue = h.network("red"), h.network("blue")
        web = h.up("web", red)
        wider = web.with_endpoint(h.endpoint(blue, "web"))
        down = h.loop.create_task(h.sandboxes.tear_down(web))
        up = h.loop.create_task(h.sandboxes.attach(web, wider))
        h.until(lambda: down.done() and up.done())
        assert isinstance(up.exception(), NotFound)
        h.settle()
        assert_gone(h, web.id)
        assert h.names_on(blue) == set() and h.taken_on(blue) == set()


# ---- a new daemon ------------------------------------------------------------------------------------------


def test_a_new_daemon_goes_on_with_the_sockets_that_are_there() -> None:
    with host() as h:
        web = h.up("web", h.network("red"))
        ports = h.resolver.ports(web.id)
        h.begin()
        h.run(h.load())
        assert h.has_dns(web) and h.resolver.ports(web.id) == ports


BAD_RECORDS = {
    "no JSON": b"{",
    "of another form": b'{"id": 7}',
    "without sense": msgspec.json.encode(
        {
            "id": "s-bad",
            "container_id": "c",
            "name": "bad",
            "netns": "/n",
            "endpoints": [{"id": "e", "network_id": "n", "network": "red", "ifname": "eth0", "ipv4": "no address"}],
        }
    ),
}


@pytest.mark.parametrize("value", BAD_RECORDS.values(), ids=BAD_RECORDS)
def test_one_bad_record_harms_only_its_own_sandbox(value: bytes) -> None:
    with host() as h:
        red = h.network("red")
        web = h.up("web", red)
        h.store.entries["sandboxes/s-bad"] = Entry("sandboxes/s-bad", value, 7)
        h.begin()
        h.run(h.load())
        assert list(h.sandboxes.all()) == [web]
        assert h.names_on(red) == {"web"} and h.has_dns(web)
        assert h.store.entries["sandboxes/s-bad"].value == value  # for somebody to look at


def test_a_sandbox_that_only_the_resolver_has_lost_gets_new_sockets() -> None:
    with host() as h:
        web = h.up("web", h.network("red"))
        h.run(h.resolver.delete_sandbox(web.id))
        h.names.dirty.mark_sandbox(web.id)
        h.settle()
        assert h.has_dns(web)


def test_a_kernel_that_cannot_be_looked_at_does_not_keep_the_daemon_from_starting() -> None:
    with host() as h:
        web = h.up("web", h.network("red"))
        h.kernel.sandboxes.clear()
        h.calls.broken.add("Kernel.reconcile")
        h.begin()
        h.run(h.load())
        h.calls.broken.clear()
        h.settle()
        assert web.id in h.kernel.sandboxes and h.has_dns(web)


def test_the_host_s_new_servers_are_told_to_every_sandbox_that_asks() -> None:
    with host() as h:
        web = h.up("web", h.network("red"))
        h.resolver.mood = Mood.GONE
        h.names.host.text = "nameserver 192.0.2.7\n"
        h.names.dirty.mark_sandbox(web.id)
        h.settle()
        h.resolver.mood = Mood.WELL
        h.settle()
        assert [str(u.address) for u in h.resolver.sandboxes[web.id].upstreams] == ["192.0.2.7"]
