"""TLS and credentials of the cluster stores, and the URLs and options that carry them."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.cluster import Endpoint, parse
from kvstore.contract import Store, StoreDenied, StoreUnavailable
from kvstore.open import open_store
from tests.kvstore.conftest import opened, started, until_it_works
from tests.kvstore.servers import Consul, Etcd, ZooKeeper, free_port

# ---- URLs and options -----------------------------------------------------------------------------------


def test_a_url_names_servers_and_a_path(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    options = {"kv.user": "netd", "kv.passwordfile": str(tmp_path / "password"), "kv.ttl": "30"}
    cluster = parse("etcd://a:1,[::1]:2,c/some/where/", options, 2379)
    assert cluster.endpoints == (Endpoint("a", 1), Endpoint("::1", 2), Endpoint("c", 2379))
    assert (cluster.path, cluster.user, cluster.password, cluster.min_ttl) == ("some/where/", "netd", "secret", 30)
    assert cluster.where == "etcd://a:1,[::1]:2,c:2379"
    assert parse("zk://a", {}, 2181).path == "netd/"
    assert parse("zk://a/x", {"kv.path": "/y"}, 2181).path == "y/"


@pytest.mark.parametrize(
    ("url", "options", "complaint"),
    [
        ("etcd://", {}, "address is missing"),
        ("etcd://a:b", {}, "invalid address 'a:b'"),
        ("etcd://a,,b", {}, "address is missing"),
        ("etcd://a", {"kv.colour": "red"}, "unknown option of the cluster store: kv.colour"),
        ("etcd://a", {"kv.ttl": "soon"}, "invalid kv.ttl 'soon'"),
        ("redis://a", {}, "unknown kind of store 'redis'"),
    ],
)
def test_what_cannot_be_understood_is_refused_in_words(url: str, options: dict[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        asyncio.run(open_store(url, **options))


# ---- TLS ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca`, `server` and `client`, each `.crt` and `.key`; the client's has no name, as etcd's gateway demands."""
    root = tmp_path_factory.mktemp("pki")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    _openssl(root, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=netd tests")
    for name, subject in (("server", "/CN=server"), ("client", "/O=netd")):
        (root / "extensions").write_text(
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"
        )
        _openssl(root, "req", *curve[:-2], "-keyout", f"{name}.key", "-out", "request", "-subj", subject)
        sign = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions")
        _openssl(root, "x509", "-req", "-in", "request", "-out", f"{name}.crt", *sign)
    return root


def _openssl(root: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def etcd(tmp_path: Path, pki: Path) -> Iterator[Etcd]:
    """With mutual TLS, and a user `netd` whose password is in the file `password`."""
    files = (f"--cert-file={pki}/server.crt", f"--key-file={pki}/server.key", f"--trusted-ca-file={pki}/ca.crt")
    server = Etcd(tmp_path / "etcd", scheme="https", arguments=(*files, "--client-cert-auth"))
    try:
        server.start()
        tls = (f"--cacert={pki}/ca.crt", f"--cert={pki}/client.crt", f"--key={pki}/client.key")
        for command in (
            "user add root:rootsecret",
            "role add net",
            "role grant-permission net --prefix=true readwrite netd/",
            "user add netd:secret",
            "user grant-role netd net",
            "user grant-role root root",
            "auth enable",
        ):
            server.ctl(*tls, *command.split())
        (tmp_path / "password").write_text("secret\n")
        (tmp_path / "wrong").write_text("guessed\n")
        yield server
    finally:
        server.stop()


def _tls(pki: Path, client: bool = True) -> dict[str, str]:
    files = {"kv.cacertfile": f"{pki}/ca.crt"}
    return files | {"kv.certfile": f"{pki}/client.crt", "kv.keyfile": f"{pki}/client.key"} if client else files


async def _round_trip(store: Store) -> None:
    made = await store.create("n/a", b"1")
    assert await anext(store.watch("n/")) is not None
    await store.cas("n/a", b"2", made.version)
    lease = await store.lease(10)
    await store.create("n/leased", b"", lease=lease)
    await lease.revoke()
    assert [entry.value for entry in await store.list("n/")] == [b"2"]


def test_etcd_takes_a_client_certificate_and_a_user(etcd: Etcd, pki: Path, tmp_path: Path) -> None:
    user = {"kv.user": "netd", "kv.passwordfile": str(tmp_path / "password")}

    async def main() -> None:
        async with opened(lambda: open_store(etcd.url, **_tls(pki), **user)) as store:
            await _round_trip(store)
            store._token = "stale"  # type: ignore[attr-defined]
            assert await store.get("n/a"), "an expired token is renewed"
        async with opened(lambda: open_store(etcd.url, **_tls(pki), **user | {"kv.path": "elsewhere"})) as store:
            with pytest.raises(StoreDenied, match="permission denied"):
                await store.get("n/a")

    asyncio.run(main())


def test_etcd_refuses_the_wrong_password_and_a_missing_certificate(etcd: Etcd, pki: Path, tmp_path: Path) -> None:
    wrong = {"kv.user": "netd", "kv.passwordfile": str(tmp_path / "wrong")}

    async def main() -> None:
        async with opened(lambda: open_store(etcd.url, **_tls(pki), **wrong)) as store:
            with pytest.raises(StoreDenied):
                await store.get("n/a")
            with pytest.raises(StoreDenied):
                await anext(store.watch("n/"))
        async with opened(lambda: open_store(etcd.url, **_tls(pki))) as store:
            with pytest.raises(StoreDenied):
                await store.get("n/a")
        async with opened(lambda: open_store(etcd.url, **_tls(pki, client=False))) as store:
            with pytest.raises((StoreDenied, StoreUnavailable)):
                await store.get("n/a")

    asyncio.run(main())


def test_consul_takes_a_client_certificate_and_a_token(tmp_path: Path, pki: Path) -> None:
    https = free_port()
    server = Consul(
        tmp_path / "consul",
        acl={
            "enabled": True,
            "default_policy": "deny",
            "tokens": {"master": "00000000-0000-0000-0000-000000000001"},
        },
        ca_file=f"{pki}/ca.crt",
        cert_file=f"{pki}/server.crt",
        key_file=f"{pki}/server.key",
        verify_incoming_https=True,
        ports={
            "dns": -1,
            "grpc": -1,
            "serf_wan": -1,
            "https": https,
            "http": free_port(),
            "serf_lan": free_port(),
            "server": free_port(),
        },
    )
    token = tmp_path / "token"
    token.write_text("00000000-0000-0000-0000-000000000001\n")
    url = f"consul://127.0.0.1:{https}"

    async def main() -> None:
        async with opened(lambda: open_store(url, **_tls(pki), **{"kv.passwordfile": str(token)})) as store:
            async with asyncio.timeout(15):
                while True:
                    try:
                        await store.get("ready")
                        break
                    except (StoreUnavailable, StoreDenied):
                        await asyncio.sleep(0.1)
            await _round_trip(store)
        async with opened(lambda: open_store(url, **_tls(pki))) as store:
            with pytest.raises(StoreDenied):
                await store.create("n/b", b"")

    try:
        server.port = server._configuration["ports"]["http"]
        server.start()
        asyncio.run(main())
    finally:
        server.stop()


def test_zookeeper_keeps_others_out_of_what_a_user_made(tmp_path: Path) -> None:
    server = started("zookeeper", tmp_path / "zookeeper")
    (tmp_path / "password").write_text("secret\n")
    user = {"kv.user": "netd", "kv.passwordfile": str(tmp_path / "password")}

    async def main() -> None:
        async with opened(lambda: open_store(server.url, **user)) as store:
            await _round_trip(store)
            async with opened(lambda: open_store(server.url)) as stranger:
                with pytest.raises(StoreDenied):
                    await stranger.get("n/a")
                with pytest.raises(StoreDenied):
                    await stranger.create("n/b", b"")

    try:
        asyncio.run(main())
    finally:
        server.stop()


NETTY = [f"netty-{part}.jar" for part in ("buffer", "codec", "common", "handler", "resolver", "transport")]
NETTY += [f"netty-transport-native-{part}.jar" for part in ("unix-common", "epoll")]


def test_zookeeper_takes_a_client_certificate(tmp_path: Path, pki: Path) -> None:
    (tmp_path / "server.pem").write_bytes((pki / "server.key").read_bytes() + (pki / "server.crt").read_bytes())
    port = free_port()
    settings = (
        f"secureClientPort={port}",
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
        "authProvider.1=org.apache.zookeeper.server.auth.X509AuthenticationProvider",
        f"ssl.keyStore.location={tmp_path}/server.pem",
        f"ssl.trustStore.location={pki}/ca.crt",
        "ssl.keyStore.type=PEM",
        "ssl.trustStore.type=PEM",
    )
    server = ZooKeeper(tmp_path / "zookeeper", settings=settings, jars=NETTY)
    url = f"zk://127.0.0.1:{port}"

    async def main() -> None:
        async with opened(lambda: open_store(url, **_tls(pki))) as store:
            # the server's first handshake takes seconds on a busy machine
            await until_it_works(lambda: store.get("n/none"))
            await _round_trip(store)
        async with opened(lambda: open_store(url, **{"kv.cacertfile": f"{pki}/client.crt"})) as store:
            files = []
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await store.get("n/a")
                files.append(len(os.listdir("/proc/self/fd")))
            assert files[1] <= files[0] + 1, "refused connections are closed"

    try:
        server.start()
        asyncio.run(main())
    finally:
        server.stop()
