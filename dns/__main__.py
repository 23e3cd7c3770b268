"""The `netd-dns` executable."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path


def main() -> int:
    """Runs the command line of this process; returns its exit code."""
    parser = argparse.ArgumentParser(prog="netd-dns", description="The resolver of netd's sandboxes.")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--control", metavar="PATH", type=Path, help="serve a daemon on this unix socket")
    mode.add_argument("--zone", metavar="FILE", type=Path, help="serve the records of a zone file, no daemon")
    parser.add_argument("--listen", metavar="ADDR:PORT", default="127.0.0.1:5353", help="with --zone: where")
    parser.add_argument("--upstream", metavar="ADDR[:PORT]", action="append", default=[], help="with --zone: forward")
    parser.add_argument(
        "--kernel", choices=("auto", "on", "off"), default="off", help="with --control: answer in the kernel"
    )
    parser.add_argument("--debug", action="store_true", help="log more")
    args = parser.parse_args()
    logging.basicConfig(
        level=logging.DEBUG if args.debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if args.control is not None:
        from dns.process import run

        return run(args.control, kernel=args.kernel)
    from dns.standalone import serve_zone

    return serve_zone(args.zone, args.listen, args.upstream)


if __name__ == "__main__":
    sys.exit(main())
