"""Running containers: an OCI runtime under conmon on overlayfs, so that containers, their logs and their exit
codes outlive the daemon."""

from netd.launcher.execs import ExecSession
from netd.launcher.launcher import Launcher
from netd.launcher.spec import ExecSpec, ExitStatus, LaunchError, LaunchSpec, Running, Unkillable
from netd.launcher.streams import Streams

__all__ = [
    "ExecSession",
    "ExecSpec",
    "ExitStatus",
    "LaunchError",
    "LaunchSpec",
    "Launcher",
    "Running",
    "Streams",
    "Unkillable",
]
