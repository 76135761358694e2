"""Run the entry point that pyproject.toml declares in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 100  # columns of a terminal, for help texts

_LAUNCHER = """
import sys
from {module} import {function}
sys.argv[0] = "{name}"
try:
    {function}()
finally:
    if "{loaded}":
        with open("{loaded}", "w") as file:
            file.write("\\n".join(sys.modules))
"""


def avloc(
    *arguments: str, loaded: Path | None = None, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `avloc ARGUMENTS`; the names of all imported modules are written to `loaded`, one per line."""
    return subprocess.run(
        [sys.executable, "-c", _launcher(loaded), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(WIDTH), "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _launcher(loaded: Path | None) -> str:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    ((name, target),) = scripts.items()
    module, function = target.split(":")
    return _LAUNCHER.format(module=module, function=function, name=name, loaded=loaded or "")
