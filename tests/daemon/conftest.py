"""Fixtures of the end-to-end tests: machines, daemons on them, an image."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon.harness import NETD, ROOT, Daemon, Host, run


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root file system of the busybox image, as a tar."""
    path = tmp_path_factory.mktemp("image") / "busybox.tar"
    with path.open("wb") as tar:
        run(ROOT / "scripts" / "busybox-image", stdout=tar, capture_output=False, text=False)
    return path


@pytest.fixture(scope="session")
def _machines() -> Iterator[Callable[[], Host]]:
    """Machines, each a network namespace with a neighbour; they go with the session."""
    assert NETD.exists(), "run `make setup` first"
    made: list[Host] = []

    def make() -> Host:
        host = Host(f"m-{uuid.uuid4().hex[:6]}")
        made.append(host)
        host.make()
        return host

    yield make
    for host in made:
        host.remove()


@pytest.fixture
def machine(_machines: Callable[[], Host]) -> Host:
    """A machine of this test's own."""
    return _machines()


@pytest.fixture
def new_daemon(machine: Host, image: Path) -> Iterator[Callable[..., Daemon]]:
    """Call it for a daemon of this test's own: on its own machine, started, with the image in it.

    Further calls make more daemons; give `host=` to put one on another machine.
    """
    made: list[Daemon] = []

    def make(*options: str, host: Host = machine, start: bool = True) -> Daemon:
        daemon = Daemon(host, *options)
        made.append(daemon)
        if start:
            daemon.start()
            daemon.import_image(image)
        return daemon

    yield make
    for daemon in made:
        daemon.remove()


@pytest.fixture(scope="module")
def daemon_options() -> tuple[str, ...]:
    """Options of the daemon that the tests of one file share; a file may have its own."""
    return ()


@pytest.fixture(scope="module")
def _shared_daemon(_machines: Callable[[], Host], image: Path, daemon_options: tuple[str, ...]) -> Iterator[Daemon]:
    host = _machines()
    host.start_dns()
    daemon = Daemon(host, *daemon_options)
    try:
        daemon.start()
        daemon.import_image(image)
        yield daemon
    finally:
        daemon.remove()


@pytest.fixture
def daemon(_shared_daemon: Daemon) -> Iterator[Daemon]:
    """A running daemon, empty but for the image; the tests of one file share it, one after the other."""
    yield _shared_daemon
    _shared_daemon.clean()
