"""resolv.conf of a container: what is taken from the host, what flags override, what each kind of network gets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netd.names import resolvconf

HOST = "# made by hand\nnameserver 192.0.2.1\nnameserver ::1\nsearch a.example b.example\noptions timeout:1\n"
NOTHING: tuple[tuple[str, ...], ...] = ((), (), ())


def settings(
    host: str = HOST,
    servers: tuple[str, ...] = (),
    search: tuple[str, ...] = (),
    options: tuple[str, ...] = (),
    daemon: tuple[tuple[str, ...], ...] = NOTHING,
) -> resolvconf.Settings:
    return resolvconf.settings(host, (servers, search, options), (daemon[0], daemon[1], daemon[2]))


def test_user_network_names_only_the_embedded_resolver_and_sets_ndots() -> None:
    text = resolvconf.for_user_network(settings())
    assert text == "nameserver 127.0.0.11\nsearch a.example b.example\noptions timeout:1 ndots:0\n"


def test_an_ndots_of_the_user_is_kept() -> None:
    assert "options ndots:3\n" in resolvconf.for_user_network(settings(options=("ndots:3",)))


def test_a_malformed_ndots_is_dropped_1_59() -> None:
    assert "options ndots:0\n" in resolvconf.for_user_network(settings(options=("ndots:x",)))


def test_each_setting_is_overridden_on_its_own_1_66() -> None:
    effective = settings(servers=("198.51.100.7",))
    assert effective.conf == resolvconf.ResolvConf(("198.51.100.7",), ("a.example", "b.example"), ("timeout:1",))


def test_container_flags_beat_the_daemons_which_beat_the_hosts() -> None:
    daemon = (("198.51.100.1",), ("d.example",), ())
    effective = settings(search=("c.example",), daemon=daemon)
    assert effective.conf.nameservers == ("198.51.100.1",)
    assert effective.conf.search == ("c.example",)


def test_search_dot_means_no_search_list_1_68() -> None:
    assert "search" not in resolvconf.for_user_network(settings(search=(".",)))


def test_default_bridge_drops_loopback_servers_of_the_host_1_64() -> None:
    text = resolvconf.for_default_network(settings(), ipv6=True)
    assert "nameserver 192.0.2.1\n" in text
    assert "::1" not in text


def test_default_bridge_without_a_usable_server_falls_back_to_public_ones() -> None:
    text = resolvconf.for_default_network(settings("nameserver 127.0.0.1\n"), ipv6=False)
    assert text == "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"


def test_default_bridge_keeps_loopback_servers_that_the_user_named() -> None:
    text = resolvconf.for_default_network(settings(servers=("127.0.0.1",)), ipv6=False)
    assert "nameserver 127.0.0.1\n" in text


def test_upstreams_are_the_first_three_with_their_ports() -> None:
    given_servers = ("192.0.2.1", "192.0.2.2:5353", "[2001:db8::1]:54", "192.0.2.4")
    found = resolvconf.upstreams(settings(servers=given_servers))
    assert [(str(a), p) for a, p in found] == [("192.0.2.1", 53), ("192.0.2.2", 5353), ("2001:db8::1", 54)]


def test_the_resolver_never_forwards_to_itself_1_55() -> None:
    assert resolvconf.upstreams(settings(servers=("127.0.0.11",))) == []


def test_of_repeated_search_lines_the_last_counts_and_domain_is_a_search_list() -> None:
    assert resolvconf.parse("search a b\ndomain c\n").search == ("c",)


@given(st.text())
def test_any_host_file_can_be_read(text: str) -> None:
    resolvconf.for_user_network(settings(text))
    resolvconf.for_default_network(settings(text), ipv6=True)


def test_a_missing_or_empty_file_of_the_host_is_no_error_1_60() -> None:
    assert resolvconf.for_user_network(settings("")) == "nameserver 127.0.0.11\noptions ndots:0\n"
    assert resolvconf.upstreams(settings("")) == []


def test_a_user_network_asks_the_host_s_stub_itself_1_60() -> None:
    assert [str(a) for a, _ in resolvconf.upstreams(settings("nameserver 127.0.0.53\n"))] == ["127.0.0.53"]


def test_the_own_server_comes_before_search_and_options_1_62() -> None:
    words = [line.split()[0] for line in resolvconf.for_user_network(settings()).splitlines()]
    assert words == ["nameserver", "search", "options"]


def test_ipv6_servers_of_the_host_are_upstreams_not_lines_1_63() -> None:
    assert [str(a) for a, _ in resolvconf.upstreams(settings())] == ["192.0.2.1", "::1"]
    assert "::1" not in resolvconf.for_user_network(settings())


def test_the_host_network_has_the_host_s_file_as_it_is_1_65() -> None:
    assert resolvconf.for_host_network(settings(), overridden=False) == HOST
    text = resolvconf.for_host_network(settings(options=("rotate",)), overridden=True)
    assert text == "nameserver 192.0.2.1\nnameserver ::1\nsearch a.example b.example\noptions rotate\n"


def test_options_alone_do_not_bring_back_the_host_s_loopback_servers_1_70() -> None:
    text = resolvconf.for_default_network(settings(options=("rotate",), search=("c.example",)), ipv6=True)
    assert text == "nameserver 192.0.2.1\nsearch c.example\noptions rotate\n"
