"""The system calls that Python's standard library lacks: mount, umount2, openat2, inotify."""

from __future__ import annotations

import ctypes
import os

# <linux/mount.h>
MNT_DETACH = 0x2
# <linux/openat2.h>
RESOLVE_IN_ROOT = 0x10
RESOLVE_NO_MAGICLINKS = 0x02
_SYS_OPENAT2 = 437
# <linux/inotify.h>
IN_MODIFY = 0x2
IN_CLOEXEC = os.O_CLOEXEC
IN_NONBLOCK = os.O_NONBLOCK

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def mount(source: str, target: str, fstype: str, flags: int, options: str) -> None:
    """mount(2); raises OSError."""
    arguments = [os.fsencode(text) for text in (source, target, fstype)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), os.fsencode(options)), target)


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2); raises OSError."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def open_in_root(root: str, path: str, flags: int = os.O_RDONLY) -> int:
    """Open `path` as a process whose root directory is `root` would: no symbolic link leads out of it.

    Returns a descriptor; raises OSError. openat2(2), RESOLVE_IN_ROOT.
    """
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OpenHow(flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        size = ctypes.c_size_t(ctypes.sizeof(how))
        number = ctypes.c_long(_SYS_OPENAT2)
        return _check(_libc.syscall(number, directory, os.fsencode(path), ctypes.byref(how), size), path)
    finally:
        os.close(directory)


def inotify_modified(path: str) -> int:
    """A descriptor that becomes readable whenever the file is written to; raises OSError. inotify(7)."""
    descriptor = _check(_libc.inotify_init1(IN_CLOEXEC | IN_NONBLOCK), path)
    try:
        _check(_libc.inotify_add_watch(descriptor, os.fsencode(path), ctypes.c_uint32(IN_MODIFY)), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check(result: int, path: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result
