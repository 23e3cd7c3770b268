"""`netd daemon`: one process with its options, its log and its pid file."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from drivers.spec import DriverError
from kvstore.contract import StoreError
from netd.api.server.listen import tls_context
from netd.config import load as configuration
from netd.core.errors import InvalidParameter, NetdError
from netd.daemon import logs
from netd.daemon.wiring import Daemon

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Run the daemon until SIGTERM or SIGINT; the exit code."""
    try:
        config = configuration.load(argv)
        tls_context(config)
    except InvalidParameter as error:
        print(f"netd daemon: {error}", file=sys.stderr)
        return 1
    logs.set_up(config)
    try:
        for root in (config.data_root, config.exec_root):
            Path(root).mkdir(mode=0o711, parents=True, exist_ok=True)
        with _pid_file(config.pid_path):
            return uvloop.run(Daemon(config).run())
    except (NetdError, DriverError, StoreError, OSError) as error:
        log.error("cannot start: %s", error)
        return 1


@contextlib.contextmanager
def _pid_file(path: Path):  # type: ignore[no-untyped-def]
    """Hold the pid file locked while we run; `Conflict`-like error when another daemon holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 20).decode().strip()
            raise NetdError(
                f"the pid file {path} is held by process {pid}: stop that daemon, or give this one its own "
                "--data-root, --exec-root and --pidfile"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
