"""libnftables in process: a transaction is a text, applied by the kernel as a whole or not at all."""

from __future__ import annotations

import ctypes
import json
from typing import Any

from drivers.spec import DriverError

_OUTPUT_JSON, _OUTPUT_TERSE = 1 << 4, 1 << 11  # nftables/libnftables.h

_lib: ctypes.CDLL | None = None


class FirewallRefused(DriverError):
    """nftables refused a transaction; nothing of it was applied."""


def _library() -> ctypes.CDLL:
    global _lib
    if _lib is None:
        try:
            lib = ctypes.CDLL("libnftables.so.1")
        except OSError:
            raise DriverError("libnftables is missing: install the package libnftables1") from None
        lib.nft_ctx_new.argtypes, lib.nft_ctx_new.restype = [ctypes.c_uint32], ctypes.c_void_p
        lib.nft_ctx_free.argtypes, lib.nft_ctx_free.restype = [ctypes.c_void_p], None
        lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        lib.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
            getattr(lib, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(lib, name).argtypes, getattr(lib, name).restype = [ctypes.c_void_p], ctypes.c_char_p
        _lib = lib
    return _lib


class Nft:
    """A libnftables context of the network namespace the calling thread is in. Use from one thread at a time."""

    def __init__(self) -> None:
        self._lib = _library()
        self._context = self._lib.nft_ctx_new(0)
        if not self._context:
            raise DriverError("libnftables could not open a netlink socket")
        self._lib.nft_ctx_buffer_output(self._context)
        self._lib.nft_ctx_buffer_error(self._context)

    def close(self) -> None:
        if self._context:
            self._lib.nft_ctx_free(self._context)
            self._context = None

    def __enter__(self) -> Nft:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, transaction: str) -> str:
        """Apply a transaction; returns what it printed. Raises FirewallRefused with nftables' first complaint."""
        self._lib.nft_ctx_output_set_flags(self._context, 0)
        return self._execute(transaction)

    def text(self, command: str) -> str:
        """What a `list ...` command prints, without elements."""
        self._lib.nft_ctx_output_set_flags(self._context, _OUTPUT_TERSE)
        return self._execute(command)

    def listing(self, command: str) -> list[dict[str, Any]]:
        """The objects a `list ...` command prints, as nftables' JSON."""
        self._lib.nft_ctx_output_set_flags(self._context, _OUTPUT_JSON)
        output = self._execute(command)
        try:
            objects: list[dict[str, Any]] = json.loads(output)["nftables"]
        except ValueError as error:
            raise FirewallRefused(f"nftables' answer to {command!r} cannot be read: {error}") from None
        return objects

    def _execute(self, command: str) -> str:
        result = self._lib.nft_run_cmd_from_buffer(self._context, command.encode())
        output = self._lib.nft_ctx_get_output_buffer(self._context).decode()
        error = self._lib.nft_ctx_get_error_buffer(self._context).decode()
        if result != 0:
            complaint = error.splitlines()[0] if error else "no reason given"
            raise FirewallRefused(f"nftables refused: {complaint.removeprefix('Error: ')}")
        return str(output)
