"""Start avloc in a process that a test can control, or call its entry point in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass

from avloc.cli import main
from tests.program import ROOT


def start(*arguments: object, **popen) -> subprocess.Popen:
    """Start `python -m avloc ARGUMENTS` with piped outputs, as the leader of a new process group."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    command = [sys.executable, "-m", "avloc", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, preexec_fn=restore_sigint, **pipes | popen)  # noqa: PLW1509


def restore_sigint() -> None:
    """Reset SIGINT to its default, because background jobs of a shell inherit that it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


class Here:
    """Call the entry point in this process; return its output and exit code."""

    def __init__(self, monkeypatch, capfd) -> None:
        self.monkeypatch, self.capfd = monkeypatch, capfd

    def __call__(self, *arguments: object) -> Finished:
        self.monkeypatch.setattr(sys, "argv", ["avloc", *map(str, arguments)])
        self.capfd.readouterr()
        before = signal.getsignal(signal.SIGTERM)
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            signal.signal(signal.SIGTERM, before)
        return Finished(code, *self.capfd.readouterr())
