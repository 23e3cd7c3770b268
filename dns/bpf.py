"""BPF maps and programs through libbpf, which is called in process: what `kernel.py` needs of it and no more."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_NAME = 16  # bytes of a name in the kernel, its end included
_PROGRAM_ID, _MAP_COUNT, _MAP_IDS, _PROGRAM_NAME = 4, 52, 56, 64  # offsets in struct bpf_prog_info
_MAP_INFO = struct.Struct("=IIIIII16s")  # struct bpf_map_info: type, id, key and value size, most entries, flags, name
_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

_lib: ctypes.CDLL | None = None


class Unavailable(Exception):
    """The kernel, its configuration, the privileges or the library do not allow it; the message is one sentence."""


def _library() -> ctypes.CDLL:
    global _lib
    if _lib is None:
        try:
            lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
        except OSError:
            raise Unavailable("libbpf is missing: install the package libbpf1") from None
        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
        for name, result, *arguments in (
            ("bpf_object__open_file", pointer, text, pointer),
            ("bpf_object__load", number, pointer),
            ("bpf_object__close", None, pointer),
            ("bpf_object__next_map", pointer, pointer, pointer),
            ("bpf_object__find_program_by_name", pointer, pointer, text),
            ("bpf_map__name", text, pointer),
            ("bpf_map__fd", number, pointer),
            ("bpf_map__reuse_fd", number, pointer, number),
            ("bpf_map__type", ctypes.c_uint32, pointer),
            ("bpf_map__key_size", ctypes.c_uint32, pointer),
            ("bpf_map__value_size", ctypes.c_uint32, pointer),
            ("bpf_map__max_entries", ctypes.c_uint32, pointer),
            ("bpf_program__fd", number, pointer),
            ("bpf_map_update_elem", number, number, text, text, ctypes.c_uint64),
            ("bpf_map_lookup_elem", number, number, text, pointer),
            ("bpf_map_delete_elem", number, number, text),
            ("bpf_map_get_next_key", number, number, text, pointer),
            ("bpf_prog_get_next_id", number, ctypes.c_uint32, pointer),
            ("bpf_prog_get_fd_by_id", number, ctypes.c_uint32),
            ("bpf_map_get_fd_by_id", number, ctypes.c_uint32),
            ("bpf_obj_get_info_by_fd", number, number, pointer, pointer),
            ("bpf_tc_hook_create", number, pointer),
            ("bpf_tc_attach", number, pointer, pointer),
            ("libbpf_set_print", pointer, pointer),
            ("libbpf_num_possible_cpus", number),
            ("ring_buffer__new", pointer, number, _SAMPLE, pointer, pointer),
            ("ring_buffer__epoll_fd", number, pointer),
            ("ring_buffer__consume", number, pointer),
            ("ring_buffer__free", None, pointer),
        ):
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        lib.libbpf_set_print(None)  # what goes wrong is told in exceptions
        _lib = lib
    return _lib


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


class Map:
    """A map of the kernel: keys and values are bytes of fixed sizes. Every call is one system call."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        info = ctypes.create_string_buffer(_MAP_INFO.size)
        _information(descriptor, info)
        self.type, self.id, self.key_size, self.value_size, self.entries, _, name = _MAP_INFO.unpack(info)
        self.name = _text(name)
        self._lib = _library()

    def put(self, key: bytes, value: bytes) -> None:
        """Insert or replace in one step. Raises `OSError`, as when the map is full."""
        _check(self._lib.bpf_map_update_elem(self.descriptor, key, value, 0), f"map {self.name}")

    def remove(self, key: bytes) -> None:
        """Remove what is there; one that is not there is removed already."""
        self._lib.bpf_map_delete_elem(self.descriptor, key)

    def get(self, key: bytes, size: int = 0) -> bytes | None:
        """The value; of `size` bytes where that is not the map's value size (per-CPU maps)."""
        value = ctypes.create_string_buffer(size or self.value_size)
        return value.raw if self._lib.bpf_map_lookup_elem(self.descriptor, key, value) == 0 else None

    def sum(self, key: bytes) -> int:
        """All processors' counters of a per-CPU map."""
        value = self.get(key, 8 * self._lib.libbpf_num_possible_cpus())
        return sum(memoryview(value).cast("Q")) if value else 0

    def keys(self) -> Iterator[bytes]:
        """All keys; what changes while they are listed may be left out or come twice."""
        found = ctypes.create_string_buffer(self.key_size)
        last = None
        while self._lib.bpf_map_get_next_key(self.descriptor, last, found) == 0:
            last = found.raw
            yield last

    def close(self) -> None:
        os.close(self.descriptor)


class Loaded(NamedTuple):
    """A program in the kernel, and its maps by name; all of them are ours to close."""

    id: int
    descriptor: int
    maps: dict[str, Map]

    def close(self) -> None:
        for each in self.maps.values():
            each.close()
        os.close(self.descriptor)


def load(path: Path, program: str, adopted: Mapping[str, Map]) -> Loaded:
    """Load a program, with maps that are there already where some are given; the others are made.

    Raises `Unavailable` when the kernel refuses it, when there is no such file or the adopted maps do not fit.
    """
    lib = _library()
    handle = lib.bpf_object__open_file(os.fsencode(path), None)
    if not handle:
        raise Unavailable(f"{path} is no BPF program: run `make setup`, which needs clang")
    try:
        handles = {lib.bpf_map__name(each).decode(): each for each in _maps(handle)}
        for name, there in adopted.items():
            _reuse(handles[name], there)
        result = lib.bpf_object__load(handle)
        if result < 0:
            raise Unavailable(f"the kernel does not take the BPF program: {os.strerror(-result)}")
        maps = {name: Map(os.dup(lib.bpf_map__fd(each))) for name, each in handles.items()}
        descriptor = os.dup(lib.bpf_program__fd(lib.bpf_object__find_program_by_name(handle, program.encode())))
        return Loaded(_program_info(descriptor)[0], descriptor, maps)
    finally:
        lib.bpf_object__close(handle)


def _maps(handle: int) -> Iterator[int]:
    found = _library().bpf_object__next_map(handle, None)
    while found:
        yield found
        found = _library().bpf_object__next_map(handle, found)


def _reuse(handle: int, there: Map) -> None:
    lib = _library()
    wanted = tuple(
        getattr(lib, f"bpf_map__{what}")(handle) for what in ("type", "key_size", "value_size", "max_entries")
    )
    if wanted != (there.type, there.key_size, there.value_size, there.entries):
        raise Unavailable(f"map {there.name} is of another version")
    _check(lib.bpf_map__reuse_fd(handle, there.descriptor), there.name)


def programs(name: str) -> Iterator[dict[str, Map]]:
    """The maps of each program of this name in the kernel; the caller closes them."""
    lib = _library()
    found = ctypes.c_uint32(0)
    while lib.bpf_prog_get_next_id(found.value, ctypes.byref(found)) == 0:
        descriptor = lib.bpf_prog_get_fd_by_id(found.value)
        if descriptor < 0:
            continue  # it has just gone
        try:
            _, called, ids = _program_info(descriptor)
        finally:
            os.close(descriptor)
        if called == name:
            maps = [Map(fd) for each in ids if (fd := lib.bpf_map_get_fd_by_id(each)) >= 0]
            yield {each.name: each for each in maps}


def _program_info(descriptor: int) -> tuple[int, str, list[int]]:
    """Id, name and the ids of its maps."""
    info = ctypes.create_string_buffer(_PROGRAM_NAME + _NAME)
    ids = (ctypes.c_uint32 * 64)()
    struct.pack_into("=IQ", info, _MAP_COUNT, len(ids), ctypes.addressof(ids))
    _information(descriptor, info)
    (identity,), (count,) = struct.unpack_from("=I", info, _PROGRAM_ID), struct.unpack_from("=I", info, _MAP_COUNT)
    return identity, _text(info.raw[_PROGRAM_NAME:]), list(ids[:count])


def _information(descriptor: int, info: Any) -> None:
    size = ctypes.c_uint32(len(info))
    _check(_library().bpf_obj_get_info_by_fd(descriptor, info, ctypes.byref(size)), "BPF_OBJ_GET_INFO_BY_FD")


def _text(padded: bytes) -> str:
    return padded.partition(b"\0")[0].decode(errors="replace")


def probe(program: int) -> None:
    """Attach a program to the `lo` of a network namespace that is made for that. Raises `Unavailable`."""
    failure: list[str] = []

    def attach() -> None:
        lib = _library()
        # struct bpf_tc_hook: size, interface, attach point (2: egress), parent; struct bpf_tc_opts: size, program
        hook = struct.pack("=QiiIxxxx", 24, 1, 2, 0)
        options = ctypes.create_string_buffer(struct.pack("=Qi20x", 32, program))
        if ctypes.CDLL(None).unshare(_CLONE_NEWNET) != 0:
            failure.append("a network namespace cannot be made")
        elif (result := lib.bpf_tc_hook_create(hook)) < 0 or (result := lib.bpf_tc_attach(hook, options)) < 0:
            failure.append(os.strerror(-result))

    thread = threading.Thread(target=attach)
    thread.start()
    thread.join()
    if failure:
        raise Unavailable(f"the kernel does not run BPF programs as filters: {failure[0]}")


class RingBuffer:
    """Takes what a program writes into a ring buffer; `descriptor` is readable when there is something."""

    def __init__(self, ring: Map, take: Callable[[bytes], None]) -> None:
        self._lib = _library()

        def sample(_: Any, data: int, size: int) -> int:
            take(ctypes.string_at(data, size))
            return 0

        self._sample = _SAMPLE(sample)  # kept for as long as the library may call it
        self._handle = self._lib.ring_buffer__new(ring.descriptor, self._sample, None, None)
        if not self._handle:
            raise OSError(errno.ENOMEM, "the ring buffer cannot be read")
        self.descriptor: int = self._lib.ring_buffer__epoll_fd(self._handle)

    def drain(self) -> None:
        """Hand over all that has come."""
        self._lib.ring_buffer__consume(self._handle)

    def close(self) -> None:
        self._lib.ring_buffer__free(self._handle)
