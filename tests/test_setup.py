"""Set-up and its documents agree, and setting up twice is as good as once."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def words(path: str) -> set[str]:
    return set(re.findall(r"[\w.-]+", (ROOT / path).read_text()))


def python_packages() -> set[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    return set(re.findall(r"^([\w.-]+)", "\n".join(lines), re.MULTILINE))


def debian_packages() -> set[str]:
    return set(re.findall(r"^  \w+:([\w.-]+)$", (ROOT / "scripts" / "setup").read_text(), re.MULTILINE))


@pytest.mark.parametrize("packages", [python_packages, debian_packages])
def test_every_dependency_has_its_reason(packages: object) -> None:
    assert callable(packages)
    missing = packages() - words("docs/dependencies.md")
    assert not missing


def test_setting_up_again_does_nothing() -> None:
    subprocess.run([ROOT / "scripts" / "setup"], check=True, capture_output=True)
    done = subprocess.run([ROOT / "scripts" / "setup"], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").iterdir()), ids=lambda path: path.name)
def test_a_script_can_be_run(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    shell = script.read_text().partition("\n")[0].removeprefix("#!")
    if shell.endswith("sh"):
        subprocess.run([*shell.split(), "-n", script], check=True)
