"""Namespaces for a whole run of tests or benchmarks: nothing it does reaches the machine's own network."""

from __future__ import annotations

import ctypes
import os
import subprocess

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000


def enter_private_namespaces() -> None:
    """Move this process into network and mount namespaces of its own, with `lo` up and its own /run/netns."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot make private namespaces")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    # a /run/netns of our own: `ip netns` names of the host are neither seen nor touched
    os.makedirs("/run/netns", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "netd-private", "/run/netns"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
