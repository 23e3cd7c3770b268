"""What users ask and change about names, with finders in place of networks and containers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from netd.core.errors import Forbidden, InvalidParameter, NotFound, Unavailable
from netd.model.networks import NetworkCreate, StaticRecord
from netd.model.sandboxes import Sandbox
from netd.names.questions import Naming
from netd.networks.live import LiveNetwork
from netd.networks.manager import NetworkManager
from tests.fakes.host import Host, host
from tests.fakes.resolver import Mood


@dataclass
class Asked:
    """A host with a network `red` and a sandbox `web` on it, and what a user can ask there."""

    host: Host
    web: Sandbox
    naming: Naming

    def add(self, network: str, name: str, kind: str, data: str, ttl: int | None = None) -> StaticRecord:
        return self.host.run(self.naming.add_record(network, StaticRecord(name=name, type=kind, data=data, ttl=ttl)))

    def remove(self, network: str, name: str, kind: str = "") -> None:
        self.host.run(self.naming.remove_record(network, name, kind))


@pytest.fixture
def asked() -> Iterator[Asked]:
    with host() as h:
        web = h.up("web", h.network("red"))
        on_bridge = h.up("db", h.networks.by_name("bridge").record)

        def find(ref: str) -> Sandbox:
            found = {"web": web, "db": on_bridge}.get(ref)
            if found is None:
                raise NotFound(f"no container or attached namespace is called {ref}")
            return found

        yield Asked(h, web, Naming(h.networks, find, h.names))


def test_a_record_is_kept_in_its_one_way_of_writing(asked: Asked) -> None:
    kept = asked.add("red", "DB.Example.", "a", " 192.0.2.1 ")
    assert kept == StaticRecord(name="db.example", type="A", data="192.0.2.1")
    assert asked.naming.records("red") == [kept]


def test_a_record_is_taken_for_a_network_that_another_host_made_a_moment_ago(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_anywhere = NetworkManager.find_anywhere

    async def learns(self: NetworkManager, ref: str) -> LiveNetwork:
        if ref == "late":
            await self.create(NetworkCreate(name="late"))
        return await find_anywhere(self, ref)

    monkeypatch.setattr(NetworkManager, "find_anywhere", learns)
    kept = asked.add("late", "db", "A", "192.0.2.1")
    assert asked.naming.records("late") == [kept]


def test_text_is_quoted_and_cut_into_strings_that_fit(asked: Asked) -> None:
    assert asked.add("red", "t", "TXT", 'say "hi"').data == '"say \\"hi\\""'
    assert asked.add("red", "long", "TXT", "x" * 300).data == f'"{"x" * 255}" "{"x" * 45}"'


def test_records_are_listed_by_name_and_type(asked: Asked) -> None:
    for name, kind, data in (("b", "A", "192.0.2.1"), ("a", "TXT", "text"), ("a", "AAAA", "2001:db8::1")):
        asked.add("red", name, kind, data)
    assert [(r.name, r.type) for r in asked.naming.records("red")] == [("a", "AAAA"), ("a", "TXT"), ("b", "A")]


def test_removing_takes_those_of_one_type_or_all(asked: Asked) -> None:
    asked.add("red", "a", "A", "192.0.2.1")
    asked.add("red", "a", "AAAA", "2001:db8::1")
    asked.add("red", "a", "TXT", "text")
    asked.remove("red", "A.", "aaaa")
    assert [r.type for r in asked.naming.records("red")] == ["A", "TXT"]
    asked.remove("red", "a")
    assert asked.naming.records("red") == []
    with pytest.raises(NotFound, match="there is no static record a"):
        asked.remove("red", "a")


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        ("a b", "A", "192.0.2.1"),
        ("", "A", "192.0.2.1"),
        ("a", "MX", "10 mail"),
        ("a", "A", "2001:db8::1"),
        ("a", "A", "192.0.2.1 ; more"),
        ("a", "CNAME", "two names"),
        ("a", "SRV", "1 2 web"),
        ("a", "SRV", "1 2 port web"),
        ("a", "TXT", "line\nline"),
        ("x" * 64, "A", "192.0.2.1"),
    ],
)
def test_what_is_no_record_is_refused_and_changes_nothing(asked: Asked, name: str, kind: str, data: str) -> None:
    for mood in (Mood.WELL, Mood.GONE):
        asked.host.resolver.mood = mood
        with pytest.raises(InvalidParameter):
            asked.add("red", name, kind, data)
    assert asked.naming.records("red") == []


def test_predefined_networks_serve_no_names(asked: Asked) -> None:
    with pytest.raises(Forbidden, match="no names are served on network bridge"):
        asked.add("bridge", "a", "A", "192.0.2.1")


def test_a_network_that_is_not_there_has_no_records(asked: Asked) -> None:
    with pytest.raises(NotFound):
        asked.naming.records("blue")
    with pytest.raises(NotFound):
        asked.add("blue", "a", "A", "192.0.2.1")


@pytest.mark.parametrize(("name", "ref"), [("", "web"), ("a", "")])
def test_a_question_needs_a_name_and_somebody_who_asks_it(asked: Asked, name: str, ref: str) -> None:
    with pytest.raises(InvalidParameter, match="say which name"):
        asked.host.run(asked.naming.explain(name, "A", ref))


def test_who_does_not_ask_the_resolver_gets_no_explanation(asked: Asked) -> None:
    with pytest.raises(InvalidParameter, match="db does not ask netd's resolver"):
        asked.host.run(asked.naming.explain("web", "A", "db"))
    with pytest.raises(NotFound, match="is called cache"):
        asked.host.run(asked.naming.explain("web", "A", "cache"))


def test_a_resolver_that_is_away_explains_nothing_now(asked: Asked) -> None:
    asked.host.resolver.mood = Mood.GONE
    with pytest.raises(Unavailable):
        asked.host.run(asked.naming.explain("web", "A", "web"))
