"""The suite's own world: as root, the whole run happens in private network and mount namespaces.

Nothing a test does reaches the host's network; what a crashed test leaves behind ends with the run.
Without root, tests marked `root` are skipped and counted.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from tests.namespaces import enter_private_namespaces

settings.register_profile("netd", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("netd")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "root: needs root, for real namespaces and links")
    # once a process: the workers of a parallel run each have namespaces of their own
    if os.geteuid() == 0 and os.environ.get("NETD_TEST_NAMESPACES") != str(os.getpid()):
        enter_private_namespaces()
        os.environ["NETD_TEST_NAMESPACES"] = str(os.getpid())


# Minutes long each: they come first, so that no worker is left alone with one of them at the end.
_LONG = ("test_overlay_weather", "test_leaks", "test_overlay", "test_cluster", "test_outages", "test_cut_off")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _LONG.index(item.path.stem) if item.path.stem in _LONG else len(_LONG))
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many interleavings were played (tests/interleavings)."""
    reports = [r for outcome in ("passed", "failed") for r in terminalreporter.getreports(outcome)]
    counts = [value for report in reports for name, value in report.user_properties if name == "interleavings"]
    if counts:
        terminalreporter.write_line(f"{sum(counts)} interleavings played")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """A test that drives netd with the stock docker CLI is skipped, and counted, where there is none."""
    try:
        yield
    except FileNotFoundError as error:
        if error.filename == "docker":
            pytest.skip("no docker CLI on this machine")
        raise


@pytest.fixture
def netns() -> Iterator[Callable[[], str]]:
    """Call it for a fresh named network namespace with `lo` up; all are removed after the test."""
    made: list[str] = []

    def make() -> str:
        name = f"t-{uuid.uuid4().hex[:8]}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        made.append(name)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        return name

    yield make
    for name in made:
        subprocess.run(["ip", "netns", "del", name], check=False)
