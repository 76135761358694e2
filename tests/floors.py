"""Test the project with its oldest supported dependencies: `python -m tests.floors`; needs `pip install uv`.

Creates an environment in which every requirement of `pyproject.toml`, extras and build requirements included, has its
lowest allowed version; transitive dependencies have their latest. Builds and installs avloc there and runs the linters
and the quick tests. Types are not checked, because they follow the newest NumPy. Takes a few gigabytes of disk, mostly
for PyTorch.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUICK = (
    *("annotations/test_xml_boxes.py", "distill", "engine/test_core.py", "evaluate/test_run.py"),
    *("localize/test_model.py", "localize/test_run.py", "localize/test_video.py", "media/test_video_frames.py"),
    *("methods/test_base.py", "metrics/test_localization.py", "prepare", "report", "store", "teachers/test_base.py"),
    *("test_checkpoint.py", "test_config.py", "test_docs.py", "test_transforms.py", "train/test_loop.py"),
    "weights/test_torch_files.py",
)
"""Tests that use every requirement, without the slow ones."""


def call(*command: str | Path, check: bool = True) -> int:
    """Print a command and run it in the project's folder."""
    print("$", *command, flush=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(command, cwd=ROOT, env=environment, check=check).returncode


def create_environment(folder: Path, python: str) -> Path:
    """Create the environment; return its folder of executables."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build, lowest, bin_ = folder / "build.txt", folder / "lowest.txt", folder / "env" / "bin"
    build.write_text("\n".join(name.replace(">=", "==") for name in project["build-system"]["requires"]))
    uv = (sys.executable, "-m", "uv")
    call(*uv, "venv", "--python", python, folder / "env")
    into = ("--python", bin_ / "python")
    resolved = ("--resolution", "lowest-direct", "--all-extras", "--no-annotate", "--no-header", "-o", lowest)
    call(*uv, "pip", "compile", "pyproject.toml", "--quiet", *into, *resolved)
    call(*uv, "pip", "install", "--quiet", *into, "-r", lowest)
    call(*uv, "pip", "install", "--quiet", *into, "--no-deps", "--build-constraints", build, ROOT)
    direct = {name.lower() for name in named(project["project"])}
    print(*(line for line in lowest.read_text().splitlines() if line.partition("==")[0].lower() in direct), sep="\n")
    return bin_


def named(project: dict) -> list[str]:
    """Names of the project's direct requirements."""
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    return [re.match(r"[\w.-]+", one)[0] for one in wanted]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m tests.floors", description=__doc__)
    out.add_argument("tests", nargs="*", help="test files to run instead of the quick ones")
    out.add_argument("--python", default=sys.executable, help="Python interpreter to use")
    return out


def main() -> int:
    given = parser().parse_args()
    tests = given.tests or [f"tests/{name}" for name in QUICK]
    with tempfile.TemporaryDirectory() as folder:
        bin_ = create_environment(Path(folder), given.python)
        checks = (("ruff", "check"), ("ruff", "format", "--check"), ("lint-imports",))
        codes = [call(bin_ / name, *rest, check=False) for name, *rest in checks]
        codes.append(call(bin_ / "pytest", "-q", "-m", "not slow", *tests, check=False))
    print("every floor holds" if not any(codes) else "a floor does not hold")
    return int(any(codes))


if __name__ == "__main__":
    raise SystemExit(main())
