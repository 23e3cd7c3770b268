"""Network namespaces: make, remove, enter. Nothing here forks.

A namespace is made by a thread of its own, which unshares, bind-mounts itself at a path and ends.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from drivers.spec import DriverError

CLONE_NEWNET = 0x40000000  # linux/sched.h
MS_BIND, MNT_DETACH = 0x1000, 0x2  # linux/mount.h
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1  # linux/sockios.h, linux/if.h
RESOLVER_ADDRESS = "127.0.0.11"

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def _setns(fd: int) -> None:
    _check(_libc.setns(fd, CLONE_NEWNET), "cannot enter network namespace")


@contextmanager
def entered(path: str) -> Iterator[None]:
    """Move the calling thread into the namespace at `path` and back. Only for worker threads.

    Raises DriverError if there is no namespace at `path`.
    """
    try:
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DriverError(f"network namespace {path} does not exist") from None
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            _setns(target)
        except OSError as error:
            raise DriverError(f"{path} is not a network namespace ({error.strerror})") from None
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(target)
        os.close(home)


def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread that ends with it, so that what it does to its namespaces ends too."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # handed to the caller below
            failure.append(error)

    thread = threading.Thread(target=run, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def create(path: str) -> None:
    """Make a network namespace with `lo` up and bind-mount it at `path`; nothing if one is there already."""
    if exists(path):
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))

    def make() -> None:
        _check(_libc.unshare(CLONE_NEWNET), "cannot make a network namespace")
        bring_up("lo")
        _check(
            _libc.mount(b"/proc/thread-self/ns/net", os.fsencode(path), b"none", MS_BIND, None),
            f"cannot mount a network namespace at {path}",
        )

    try:
        _in_thread(make)
    except BaseException:
        os.unlink(path)
        raise


def exists(path: str) -> bool:
    """Whether a network namespace is mounted at `path`."""
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except FileNotFoundError:
        return False


def is_own(path: str) -> bool:
    """Whether `path` is the namespace the calling thread is in."""
    try:
        return os.path.samestat(os.stat(path), os.stat("/proc/thread-self/ns/net"))
    except FileNotFoundError:
        return False


def remove(path: str) -> None:
    """Unmount and delete the namespace file; the namespace ends with its last process and socket."""
    while _libc.umount2(os.fsencode(path), MNT_DETACH) == 0:
        pass
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOENT):
        raise OSError(code, f"cannot unmount {path}: {os.strerror(code)}")
    Path(path).unlink(missing_ok=True)


def bring_up(device: str) -> None:
    """Set a device of the calling thread's namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        request = struct.pack("16sH14x", device.encode(), 0)
        flags = struct.unpack_from("H", fcntl.ioctl(control, SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", device.encode(), flags | IFF_UP))


def resolver_sockets(path: str) -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket on 127.0.0.11 inside the namespace, on ports the kernel chose."""

    def open_both() -> tuple[socket.socket, socket.socket]:
        with entered(path):
            bring_up("lo")  # a socket bound before that would send from 127.0.0.1
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            try:
                udp.bind((RESOLVER_ADDRESS, 0))
                tcp.bind((RESOLVER_ADDRESS, 0))
                tcp.listen(128)
            except OSError:
                udp.close()
                tcp.close()
                raise
        return udp, tcp

    return _in_thread(open_both)
