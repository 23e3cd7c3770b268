"""`netd store check`, `export` and `import` against real servers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from kvstore import diagnosis
from kvstore.open import open_store
from netd.cli.main import main as netd
from netd.cluster.model import EndpointRecord
from tests.cluster.conftest import Backend, hosts, until
from tests.kvstore.servers import Etcd, Server, free_port
from tests.kvstore.test_access import etcd, pki

__all__ = ["etcd", "pki"]

Says = Callable[..., tuple[int, str]]


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Says:
    """Run `netd` and get its exit code with all it said."""

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        status = netd(list(arguments))
        out, err = capsys.readouterr()
        return status, out + err

    return run


def test_a_store_that_is_well_is_said_to_be_and_measured(servers: Callable[[str], Server], says: Says) -> None:
    for kind in ("etcd", "consul", "zookeeper"):
        status, told = says("store", "check", servers(kind).url)
        print(told)
        assert status == 0
        assert "is well: write" in told
        assert told.count(" ms") == 3


def test_a_store_whose_clock_is_not_this_hosts_is_told_apart(
    servers: Callable[[str], Server], monkeypatch: pytest.MonkeyPatch, says: Says
) -> None:
    monkeypatch.setattr(
        diagnosis, "time", SimpleNamespace(time=lambda: time.time() - 60, perf_counter=time.perf_counter)
    )
    for kind in ("etcd", "consul", "zookeeper"):
        url = servers(kind).url
        status, told = says("store", "check", url)
        assert status == 1
        assert re.fullmatch(rf"clock: the clock of {url} is (59|60|61) s ahead of this host's\n", told)


def test_a_store_where_nobody_listens_is_unreachable(says: Says) -> None:
    port = free_port()
    begun = time.monotonic()
    for scheme in ("etcd", "consul", "zk"):
        told = says("store", "check", f"{scheme}://127.0.0.1:{port}")
        assert told == (1, f"unreachable: 127.0.0.1:{port}: Connection refused\n")
    assert time.monotonic() - begun < 15


def test_a_store_whose_leader_is_gone_has_no_quorum(tmp_path: Path, says: Says) -> None:
    members = [Etcd(tmp_path / name) for name in ("a", "b", "c")]
    for member in members:
        member.members = members
    for member in members:
        member.launch()
    try:
        for member in members:
            member.wait()
        for member in members[1:]:
            member.kill()
        status, told = says("store", "check", members[0].url)
        assert status == 1
        assert told.startswith("no quorum: etcd://")
    finally:
        for member in members:
            member.stop()


def test_what_certificates_and_passwords_lack_is_said(etcd: Etcd, pki: Path, tmp_path: Path, says: Says) -> None:
    def check(*options: str) -> str:
        return says("store", "check", etcd.url, *(f"--cluster-store-opt={option}" for option in options))[1]

    ca = f"kv.cacertfile={pki}/ca.crt"
    client = (ca, f"kv.certfile={pki}/client.crt", f"kv.keyfile={pki}/client.key")
    assert "wants TLS: name its authority with kv.cacertfile" in check()
    assert check(ca).startswith("certificate: ")
    assert "self-signed" in check(f"kv.cacertfile={pki}/server.crt") or "issuer" in check(
        f"kv.cacertfile={pki}/server.crt"
    )
    assert check(*client, "kv.user=netd", f"kv.passwordfile={tmp_path}/wrong").startswith("denied: ")
    assert "is well" in check(*client, "kv.user=netd", f"kv.passwordfile={tmp_path}/password")
    assert check("kv.cacertfile=/none").startswith("invalid: ") or "No such file" in check("kv.cacertfile=/none")


def test_everything_moves_from_one_store_to_another(
    opener: Backend, servers: Callable[[str], Server], tmp_path: Path, says: Says
) -> None:
    file = str(tmp_path / "everything")
    target = f"{servers('etcd').url}/{tmp_path.name}"

    async def fill() -> tuple[str, EndpointRecord]:
        async with hosts(opener.url, tmp_path, "a") as (a,):
            shop = await a.network("shop")
            return shop.id, await a.run("web", shop)

    async def use(network_id: str, web: EndpointRecord) -> None:
        async with hosts(target, tmp_path / "new", "ab", started=False) as (a, b):
            await a.start(own=[web])
            await b.start()
            await until(lambda: network_id in b.heard.networks)
            await b.run("db", b.heard.networks[network_id])
            await until(lambda: b.heard.names == {"web"})
            assert not a.heard.lost

    network_id, web = asyncio.run(fill())
    assert says("store", "export", "--cluster-store", opener.url, file) == (0, "7 keys exported\n")
    for _ in range(2):
        assert says("store", "import", "--cluster-store", target, file) == (0, "7 keys imported\n")
    asyncio.run(use(network_id, web))


def test_an_import_leaves_other_values_alone_unless_forced(tmp_path: Path, says: Says) -> None:
    file, url = tmp_path / "file", f"sqlite:{tmp_path}/store.db"
    file.write_text('{"netd_store":1}\n{"key":"vni/5","value":"bmV3"}\n')

    async def value(put: bytes = b"") -> bytes:
        store = await open_store(url)
        try:
            if put:
                await store.create("vni/5", put)
            entry = await store.get("vni/5")
            return entry.value if entry else b""
        finally:
            await store.close()

    asyncio.run(value(b"old"))
    status, told = says("store", "import", "--cluster-store", url, str(file))
    assert status == 1
    assert "vni/5 is there with another value and was left as it is" in told
    assert asyncio.run(value()) == b"old"
    assert says("store", "import", "-f", "--cluster-store", url, str(file))[0] == 0
    assert asyncio.run(value()) == b"new"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "not a file that `netd store export` wrote"),
        ('{"netd_store":2}', "the file has format 2"),
        ('{"netd_store":1}\n{"key":"vni/1"}', "line 2 of the file is damaged"),
        ('{"netd_store":1}\n{"key":"hosts/a","value":""}', "line 2 of the file has the key 'hosts/a'"),
    ],
)
def test_a_file_that_is_no_export_is_refused(content: str, complaint: str, tmp_path: Path, says: Says) -> None:
    (tmp_path / "file").write_text(content)
    status, told = says("store", "import", "--cluster-store", f"sqlite:{tmp_path}/s.db", str(tmp_path / "file"))
    assert status == 1
    assert complaint in told
