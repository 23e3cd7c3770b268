"""`make demo` shows what it promises, and leaves nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.daemon.harness import NO_PROXY, ROOT, run


def test_the_demo_runs_goes_on_if_asked_and_is_removed() -> None:
    with tempfile.TemporaryDirectory(prefix="netd-") as folder:
        place = Path(folder, "demo")
        environment = {**NO_PROXY, "NETD_DEMO": str(place)}
        before = run("ip", "netns").stdout
        shown = run(ROOT / "scripts" / "demo", env={**environment, "KEEP": "1"}, timeout=180).stdout
        for words in ("PING cellar (", "Address: 198.51.100.7", "outside$ curl", "\nWelcome to the shop\n"):
            assert words in shown
        still = run(ROOT / ".venv/bin/netd", "--host", f"unix://{place}/netd.sock", "ps", "--format", "{{.Names}}")
        assert set(still.stdout.split()) == {"db", "web"}
        run(ROOT / "scripts" / "demo", "stop", env=environment)
        assert not place.exists()
        assert run("ip", "netns").stdout == before
        assert folder not in Path("/proc/self/mountinfo").read_text()
