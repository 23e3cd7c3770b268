"""Where the API listens: unix sockets, TCP with or without TLS, sockets that systemd opened."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import socket
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from netd.api.server.tls import TlsConnection
from netd.core.errors import InvalidParameter, NetdError

if TYPE_CHECKING:
    from netd.api.server.app import Api
    from netd.config.values import Config

log = logging.getLogger(__name__)

SOCKET_GROUP = "netd"  # may use the socket, if the group exists
_TLS_PORT, _PLAIN_PORT = 2376, 2375
_SYSTEMD_FIRST = 3  # the first descriptor that systemd passes (sd_listen_fds(3))


class Listeners:
    """The daemon's doors."""

    def __init__(self, api: Api, config: Config) -> None:
        self._api = api
        self._config = config
        self._servers: list[asyncio.Server] = []
        self._paths: dict[Path, int] = {}  # unix sockets and their inodes

    async def start(self) -> None:
        """Open all of `config.hosts`, or none: `NetdError` says which cannot be opened and why."""
        try:
            for host in self._config.hosts:
                await self._open(host)
        except BaseException:
            await self._shut()
            raise

    async def stop(self) -> None:
        """Take no more connections, end streams and wait for calls under way."""
        await self._shut()
        await self._api.close()

    async def _shut(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        for path, inode in self._paths.items():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == inode:
                    path.unlink()
        self._paths.clear()

    async def _open(self, host: str) -> None:
        scheme, separator, rest = host.partition("://")
        if not separator:
            raise InvalidParameter(f"cannot listen on {host!r}: write unix://PATH, tcp://HOST:PORT or fd://")
        try:
            match scheme:
                case "unix":
                    await self._open_unix(Path(rest))
                case "tcp":
                    await self._open_tcp(host)
                case "fd":
                    await self._open_systemd()
                case _:
                    raise InvalidParameter(
                        f"cannot listen on {host!r}: netd knows unix://PATH, tcp://HOST:PORT and fd://"
                    )
        except OSError as error:
            raise NetdError(f"cannot listen on {host}: {error.strerror or error}") from error

    # ---- unix ----

    async def _open_unix(self, path: Path) -> None:
        listening, self._paths[path] = _bind(path)
        await self._serve(listening)

    async def _serve(self, listening: socket.socket, context: ssl.SSLContext | None = None) -> None:
        loop = asyncio.get_running_loop()
        serve = loop.create_unix_server if listening.family == socket.AF_UNIX else loop.create_server
        self._servers.append(await serve(self._factory(context), sock=listening, backlog=1024))

    def _factory(self, context: ssl.SSLContext | None) -> Callable[[], asyncio.Protocol]:
        return self._api if context is None else lambda: TlsConnection(context, self._api)

    # ---- tcp ----

    async def _open_tcp(self, host: str) -> None:
        context = tls_context(self._config)
        name, port = _address(host, _TLS_PORT if context else _PLAIN_PORT)
        if context is None:
            log.warning(
                "%s is open WITHOUT encryption or authentication: whoever reaches it is root on this machine; "
                "use --tlsverify with --tlscacert, --tlscert and --tlskey",
                host,
            )
        elif not self._config.tlsverify:
            log.warning("%s is encrypted but asks clients for no certificate: use --tlsverify", host)
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_server(self._factory(context), name, port, backlog=1024))

    # ---- systemd ----

    async def _open_systemd(self) -> None:
        count = os.environ.get("LISTEN_FDS", "0")
        if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal() or int(count) == 0:
            raise InvalidParameter("cannot listen on fd://: systemd passed no sockets to this process")
        for descriptor in range(_SYSTEMD_FIRST, _SYSTEMD_FIRST + int(count)):
            listening = socket.socket(fileno=descriptor)
            listening.setblocking(False)
            await self._serve(listening, None if listening.family == socket.AF_UNIX else tls_context(self._config))


def tls_context(config: Config) -> ssl.SSLContext | None:
    """How the configuration wants TCP secured; None for plain. `InvalidParameter` for files that do not do."""
    if not (config.tls or config.tlsverify):
        return None
    required = ("tlscert", "tlskey", "tlscacert") if config.tlsverify else ("tlscert", "tlskey")
    for option in required:
        if not getattr(config, option):
            raise InvalidParameter(f"TLS needs --{option}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(config.tlscert, config.tlskey)
        if config.tlsverify:
            context.load_verify_locations(config.tlscacert)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(getattr(config, option) for option in required)
        raise InvalidParameter(f"cannot use the TLS files {files}: {error.strerror or error}") from error
    return context


def _address(host: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(host)
        return parts.hostname or "127.0.0.1", parts.port or default_port
    except ValueError as error:
        raise InvalidParameter(f"cannot listen on {host!r}: {error}") from error


def _bind(path: Path) -> tuple[socket.socket, int]:
    """A bound unix socket for root and the group, and its inode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.setblocking(False)
    before = os.umask(0o117)  # 0660 from the first moment on
    try:
        listening.bind(str(path))
    except BaseException:
        listening.close()
        raise
    finally:
        os.umask(before)
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(SOCKET_GROUP).gr_gid)
    return listening, path.stat().st_ino


def _remove_stale(path: Path) -> None:
    """Remove the socket that a killed daemon left; refuse to take over from a living one."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise InvalidParameter(f"cannot listen on unix://{path}: there is a file of another kind")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass
    raise InvalidParameter(
        f"cannot listen on unix://{path}: another daemon answers there; stop it, or give this one another --host"
    )
