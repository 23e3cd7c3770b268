"""TLS for streams that close one direction at a time.

asyncio ends a TLS connection when its peer says that it will send no more (close_notify, RFC 8446, section 6.1,
which closes one direction only). `docker run -i` says so at the end of its input, and waits for the output.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from typing import Any, cast

log = logging.getLogger(__name__)

_HANDSHAKE_SECONDS = 10.0
_LINGER_SECONDS = 1.0  # how long a client may take to notice the end
_READ = 256 * 1024  # bytes


class TlsConnection(asyncio.Protocol):
    """The encrypted side of a connection; the protocol above it is made when the handshake is done."""

    def __init__(self, context: ssl.SSLContext, factory: Callable[[], asyncio.Protocol]) -> None:
        self.context = context
        self.raw: asyncio.Transport
        self.above: asyncio.Protocol | None = None
        self.closing = False
        self.paused = False
        self._factory = factory
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._eof_told = False
        self._timer: asyncio.TimerHandle | None = None

    # ---- from below ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.raw = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(_HANDSHAKE_SECONDS, self.raw.abort)

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        self._incoming.write(data)
        self.advance()

    def eof_received(self) -> bool:
        self._incoming.write_eof()
        if not self.closing and self.above is not None:
            self.advance()
            return not self.closing
        return False

    def pause_writing(self) -> None:
        if self.above is not None:
            self.above.pause_writing()

    def resume_writing(self) -> None:
        if self.above is not None:
            self.above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self.above is not None:
            self.above.connection_lost(exc)

    # ---- from above ----

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self.closing:
            self._object.write(data)
            self._flush()

    def close(self) -> None:
        """Send what is left and the end, then take what the client still sends, lest it see a reset instead."""
        if self.closing:
            return
        self.closing = True
        with contextlib.suppress(ssl.SSLError):  # it wants the client's end too, for which we do not wait
            self._object.unwrap()
        self._flush()
        if self.raw.is_closing():
            return
        self.raw.write_eof()
        self.raw.resume_reading()
        self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.raw.close)

    def advance(self) -> None:
        """Decrypt what has come and hand it up."""
        try:
            if self.above is None:
                self._object.do_handshake()
                self._established()
            while not (self.paused or self.closing or self._eof_told):
                self._hand_up(self._object.read(_READ))
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._hand_up(b"")  # the connection ended, with or without saying so
        except ssl.SSLError as error:
            log.info("TLS with %s failed: %s", self.raw.get_extra_info("peername"), error.reason or error)
            self._flush()
            self.raw.close()
            return
        self._flush()

    def _established(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._flush()
        self.above = self._factory()
        self.above.connection_made(TlsTransport(self))

    def _hand_up(self, data: bytes) -> None:
        if self.above is None:
            self.raw.close()
        elif data:
            self.above.data_received(data)
        else:
            self._eof_told = True
            if not self.above.eof_received():
                self.close()

    def _flush(self) -> None:
        if self._outgoing.pending and not self.raw.is_closing():
            self.raw.write(self._outgoing.read())


class TlsTransport(asyncio.Transport):
    """What the protocol above sees of its connection."""

    def __init__(self, connection: TlsConnection) -> None:
        super().__init__()
        self._connection = connection

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "sslcontext":
            return self._connection.context
        return self._connection.raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._connection.above = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self._connection.above)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._connection.write(data)

    def can_write_eof(self) -> bool:
        return False  # `close` does it

    def is_closing(self) -> bool:
        return self._connection.closing or self._connection.raw.is_closing()

    def close(self) -> None:
        self._connection.close()

    def abort(self) -> None:
        self._connection.raw.abort()

    def is_reading(self) -> bool:
        return not self._connection.paused

    def pause_reading(self) -> None:
        self._connection.paused = True
        self._connection.raw.pause_reading()

    def resume_reading(self) -> None:
        if self._connection.paused:
            self._connection.paused = False
            self._connection.raw.resume_reading()
            asyncio.get_running_loop().call_soon(self._connection.advance)

    def get_write_buffer_size(self) -> int:
        return self._connection.raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._connection.raw.set_write_buffer_limits(high, low)
