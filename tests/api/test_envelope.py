"""What every call has in common: paths, versions, headers, bodies, errors (section 2A)."""

from __future__ import annotations

import http.client

import pytest

from drivers.spec import InvalidOption, OptionConflict
from kvstore.contract import StoreUnavailable
from netd.api.server.decode import decode
from netd.core.errors import Forbidden, InvalidParameter
from netd.model.containers import ContainerCreate
from tests.api.double import Double
from tests.unix_http import UnixConnection

JSON = {"Content-Type": "application/json"}


def test_every_answer_has_dockers_headers(api: Double) -> None:
    for method, path in (("GET", "/_ping"), ("GET", "/networks"), ("GET", "/nosuch"), ("POST", "/build")):
        headers = api.request(method, path).headers
        assert headers["Api-Version"] == "1.48"
        assert headers["Docker-Experimental"] == "false"
        assert headers["Ostype"] == "linux"
        assert headers["Server"].endswith(" (linux)")


@pytest.mark.parametrize(("method", "body"), [("GET", b"OK"), ("HEAD", b"")])
def test_ping(api: Double, method: str, body: bytes) -> None:
    reply = api.request(method, "/_ping")
    assert (reply.status, reply.body) == (200, body)
    assert reply.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["/networks", "/networks/", "/v1.24/networks", "/v1.48/networks/"])
def test_a_path_may_carry_a_version(api: Double, path: str) -> None:
    assert [network["Name"] for network in api.request("GET", path).json] == ["shop"]


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("1.99", "client version 1.99 is too new. Maximum supported API version is 1.48"),
        ("2.0", "client version 2.0 is too new. Maximum supported API version is 1.48"),
        (
            "1.23",
            "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client "
            "to a newer version",
        ),
        (
            "1",
            "client version 1 is too old. Minimum supported API version is 1.24, please upgrade your client "
            "to a newer version",
        ),
    ],
)
def test_other_versions_are_refused(api: Double, version: str, words: str) -> None:
    reply = api.request("GET", f"/v{version}/networks")
    assert (reply.status, reply.message) == (400, words)


@pytest.mark.parametrize(("method", "path"), [("GET", "/nosuch"), ("PUT", "/networks"), ("GET", "/"), ("GET", "//")])
def test_an_unknown_route(api: Double, method: str, path: str) -> None:
    reply = api.request(method, path)
    assert (reply.status, reply.message) == (404, "page not found")


def test_an_error_is_json_with_a_newline(api: Double) -> None:
    reply = api.request("GET", "/networks/nosuch")
    assert reply.status == 404
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.body == b'{"message":"network nosuch not found"}\n'


def test_not_modified_has_no_body(api: Double) -> None:
    reply = api.request("POST", "/containers/web/start")
    assert (reply.status, reply.body) == (304, b"")


@pytest.mark.parametrize(
    ("failure", "status", "words"),
    [
        (Forbidden("no"), 403, "no"),
        (InvalidOption("invalid MTU number: -5"), 400, "invalid MTU number: -5"),
        (OptionConflict("networks have same bridge name"), 403, "networks have same bridge name"),
        (StoreUnavailable("etcd at 127.0.0.1:2379 does not answer"), 503, "etcd at 127.0.0.1:2379 does not answer"),
        (ZeroDivisionError("division by zero"), 500, "division by zero"),
    ],
)
def test_what_a_manager_raises_becomes_the_status(api: Double, failure: Exception, status: int, words: str) -> None:
    api.networks.failure = failure
    reply = api.request("POST", "/networks/create", {"Name": "x"})
    assert (reply.status, words in reply.message) == (status, True)


BODIES = {
    "not JSON": (b"{name", 400, "invalid JSON: "),
    "ends early": (b'{"Name": "x"', 400, "invalid JSON: unexpected EOF"),
    "two documents": (b'{"Name": "x"} {}', 400, "unexpected content after JSON"),
    "empty": (b"", 400, "invalid JSON: got EOF while reading request body"),
    "a list": (b"[]", 400, "invalid JSON: the body must be an object, not a list"),
    "a number for a name": (b'{"Name": 5}', 400, "invalid JSON: Name must be a string, not a whole number"),
    "a string for a switch": (
        b'{"Name":"x","Internal":"yes"}',
        400,
        "invalid JSON: Internal must be true or false, not a string",
    ),
    "deep inside": (b'{"IPAM":{"Config":[{"Subnet":1}]}}', 400, "IPAM.Config[0].Subnet must be a string"),
    "a map for a list": (b'{"IPAM":{"Config":{}}}', 400, "IPAM.Config must be a list, not an object"),
    "no text": (b'{"Name": "\xff"}', 400, "invalid JSON: "),
    "very deep": (b'{"Name":' + b"[" * 100_000, 400, "invalid JSON: "),
    "very large": (b'{"Name":"' + b"x" * 2_000_000 + b'"}', 413, "too large"),
}


@pytest.mark.parametrize(("body", "status", "words"), BODIES.values(), ids=BODIES)
def test_a_bad_body_is_refused_in_one_sentence(api: Double, body: bytes, status: int, words: str) -> None:
    reply = api.request("POST", "/networks/create", body, headers=JSON)
    assert (reply.status, words in reply.message) == (status, True), reply.message
    assert not api.networks.created


def test_another_content_type_is_refused(api: Double) -> None:
    reply = api.request("POST", "/networks/create", b"{}", headers={"Content-Type": "text/plain"})
    assert reply.status == 400
    assert reply.message == "unsupported Content-Type header (text/plain): must be 'application/json'"


def test_a_content_type_may_have_parameters(api: Double) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert api.request("POST", "/networks/create", b'{"Name":"x"}', headers=headers).status == 201


def test_names_are_read_in_any_case_and_null_means_not_given(api: Double) -> None:
    body = {"name": "x", "DRIVER": None, "ipam": {"config": [{"subnet": "10.0.0.0/24"}]}, "Unknown": 1}
    assert api.request("POST", "/networks/create", body).json == {"Id": "1" * 64, "Warning": ""}
    (request,) = api.networks.created
    assert (request.name, request.driver) == ("x", "")
    assert request.ipam and request.ipam.config and request.ipam.config[0].subnet == "10.0.0.0/24"


def test_null_in_a_map_stays(api: Double) -> None:
    """A port or a network with null settings is one with default settings."""
    host = {"PortBindings": {"80/tcp": None}, "LogConfig": None}
    body = {"Hostname": None, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": {"shop": None}}}
    assert api.request("POST", "/containers/create", body).status == 201
    (request,) = api.containers.created
    assert request.host_config and request.host_config.port_bindings == {"80/tcp": None}
    assert request.networking_config and request.networking_config.endpoints_config == {"shop": None}


def test_enable_ipv4_is_ignored_before_1_48(api: Double) -> None:
    for version in ("v1.47", "v1.48"):
        api.request("POST", f"/{version}/networks/create", {"Name": "x", "EnableIPv4": False})
    assert [request.enable_ipv4 for request in api.networks.created] == [None, False]


def test_older_clients_see_older_forms(api: Double) -> None:
    assert "EnableIPv4" not in api.request("GET", "/v1.47/networks/shop").json
    assert "EnableIPv4" in api.request("GET", "/v1.48/networks/shop").json
    old = api.request("GET", "/v1.43/containers/web/json").json["NetworkSettings"]["Networks"]["shop"]
    new = api.request("GET", "/v1.48/containers/web/json").json["NetworkSettings"]["Networks"]["shop"]
    assert old == {"Aliases": ["c0ffee000000"], "IPAddress": "10.0.0.2"}
    assert new == {"Aliases": None, "DNSNames": ["web"], "GwPriority": 0, "IPAddress": "10.0.0.2"}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("/networks?filters=red", "invalid filters 'red'"),
        ('/networks?filters={"foo":["x"]}', "invalid filter 'foo'"),
        (
            "/networks/shop?verbose=zz",
            'invalid value for verbose: zz: strconv.ParseBool: parsing "zz": invalid syntax',
        ),
        (
            "/containers/json?limit=few",
            'invalid value for limit: few: strconv.Atoi: parsing "few": invalid syntax',
        ),
        ("/containers/web/logs", "Bad parameters: you must choose at least one stream"),
        ("/events?since=never", "invalid time 'never'"),
    ],
)
def test_a_bad_query_is_refused(api: Double, query: str, words: str) -> None:
    reply = api.request("GET", query)
    assert (reply.status, words in reply.message) == (400, True), reply.message


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/swarm", 503),
        ("GET", "/services", 503),
        ("POST", "/swarm/init", 503),
        ("POST", "/build", 501),
        ("POST", "/auth", 501),
        ("GET", "/images/get", 501),
        ("GET", "/images/a/b/c:1/get", 501),
        ("PUT", "/containers/web/archive", 501),
        ("POST", "/volumes/create", 501),
        ("GET", "/volumes/x", 404),
        ("POST", "/images/create?fromImage=alpine&tag=latest", 404),
    ],
)
def test_what_is_not_offered_is_told(api: Double, method: str, path: str, status: int) -> None:
    reply = api.request(method, path)
    assert reply.status == status
    assert reply.message


def test_empty_lists_where_there_is_nothing(api: Double) -> None:
    assert api.request("GET", "/plugins").json == []
    assert api.request("GET", "/volumes").json == {"Volumes": [], "Warnings": None}
    assert api.request("POST", "/networks/prune").json == {"NetworksDeleted": None}


def test_one_connection_serves_many_calls(api: Double) -> None:
    connection = UnixConnection(api.path, timeout=10)
    for _ in range(3):
        connection.request("GET", "/networks/nosuch")
        answer: http.client.HTTPResponse = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (404, True)
    connection.close()


@pytest.mark.parametrize(
    ("given", "read"),
    [('"sleep"', ["sleep"]), ('["sleep", "1"]', ["sleep", "1"]), ("null", None), ("[]", []), ('""', [""])],
)
def test_a_command_may_be_one_word_without_a_list(given: str, read: list[str] | None) -> None:
    body = decode(f'{{"Cmd": {given}, "Entrypoint": {given}}}'.encode(), ContainerCreate)
    assert (body.cmd, body.entrypoint) == (read, read)


def test_other_lists_are_never_given_as_one_word() -> None:
    with pytest.raises(InvalidParameter, match="Env must be a list, not a string"):
        decode(b'{"Env": "A=1"}', ContainerCreate)
