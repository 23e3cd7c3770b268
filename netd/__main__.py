"""The `netd` executable: the daemon and the command line client."""

from __future__ import annotations

import sys

from netd.cli import main as cli


def main() -> int:
    """Runs the command line of this process; returns its exit code."""
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
