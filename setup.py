"""Compiles the program that answers names in the kernel into the wheel; all else is in setup.cfg."""

import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithProgram(build_py):
    """Without clang the wheel is built all the same: then names are answered by the netd-dns process."""

    def run(self) -> None:
        try:
            subprocess.run([str(Path(__file__).parent.resolve() / "scripts" / "build-bpf")], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"netd: no answers from the kernel with this wheel: {error}", file=sys.stderr)
        super().run()


setup(cmdclass={"build_py": BuildWithProgram})
