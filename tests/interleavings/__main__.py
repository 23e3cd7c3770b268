"""`python -m tests.interleavings containers 'running: stop web @14! rm-f web'` plays one interleaving, and shows it."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.interleavings.crew import module
from tests.interleavings.engine import Case, Play

_CASE = re.compile(r"(?P<state>[\w-]+): (?P<first>.+) @(?P<point>\d+)(?P<fails>!?) (?P<second>.+)")


def main(subject: str, text: str) -> int:
    """Whether anything is wrong."""
    found = _CASE.fullmatch(text)
    if found is None:
        raise SystemExit(f"{text!r} is not as in: {__doc__}")
    state = module(subject).STATES[found["state"]]
    first = next(op for op in state.firsts() if op.name == found["first"])
    second = next((op for op in state.seconds() if op.name == found["second"]), None)
    with TemporaryDirectory() as directory:
        scene = state.make(Path(directory))
        logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s")
        run = Play(scene, Case(state, first, second, int(found["point"]), bool(found["fails"])))
        run.play()
        print(f"the first waits at {run.at}")
        wrong = run.wrong()
        print(*run.outcomes, *(f"WRONG: {text}" for text in wrong), sep="\n")
        scene.close()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
