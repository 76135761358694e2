"""Faults without a kill: full and read-only disks, deleted files, a second writer, a clock that runs backwards."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.changes import ChangeLog, changed
from tests.faults.kills import Ended, Tally, difference, ended, fresh, ran, started
from tests.faults.scenarios import SCENARIOS, Inputs, Scenario, unreadable

_PAGE = 4096
_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
_LOCKED = ("prepare", "distill-cache", "train")
"""Commands whose second writer is refused."""
_NO_HEADER = "holds shards but no store.json"
_REFUSAL = "another avloc process is writing"


class DiskFaults:
    """Run one command under each kind of fault in turn.

    Args:
        scenario: the command.
        inputs: what it reads.
        work: folder for its output.
        seed: seed of the moments of the faults.
    """

    def __init__(self, scenario: Scenario, inputs: Inputs, work: Path, seed: int) -> None:
        self.scenario, self.inputs, self.out = scenario, inputs, work / "disk" / "out"
        self.rng = random.Random(f"{seed} {scenario.name}")
        self.tally = Tally(scenario.name, inputs.method)
        self.disk = self.out.parent
        work.mkdir(parents=True, exist_ok=True)
        before = _bytes(fresh(scenario, inputs, self.out))
        log = work / "changes.log"
        self.undisturbed = ran(scenario, inputs, self.out, {"log": str(log)})
        self.changes = len(changed(ChangeLog(log).read()))
        self.expected = scenario.contents(self.out)
        self.bytes = before, _bytes(self.out)

    def run(self, rounds: int) -> Tally:
        """Inject every kind of fault `rounds` times."""
        disk = (self.small_disk,) if self._may_mount() else ()
        kinds = (self.failing_change, *disk, self.vanishing, self.second_writer, self.clock)
        for kind in kinds:
            for _ in range(rounds):
                self._inject(kind)
        return self.tally

    def _may_mount(self) -> bool:
        """Whether this process may mount a tmpfs, which needs root."""
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.disk], capture_output=True, check=False)
        if not done.returncode:
            subprocess.run(["umount", self.disk], check=True)
        return not done.returncode

    def _inject(self, kind: Callable[[], tuple[str, Ended]]) -> None:
        try:
            fresh(self.scenario, self.inputs, self.out)
            self._check_outcome(kind, *kind())
        finally:
            if self.disk.is_mount():
                subprocess.run(["umount", self.disk], check=True)

    def _check_outcome(self, kind: Callable[[], tuple[str, Ended]], description: str, end: Ended) -> None:
        self.tally.points += 1
        self.tally.by_signal[kind.__name__] = self.tally.by_signal.get(kind.__name__, 0) + 1
        harmless = kind == self.clock or (kind == self.second_writer and self.scenario.name not in _LOCKED)
        if (
            end.code not in ((self.undisturbed.code,) if harmless else (self.undisturbed.code, 2, 5))
            or "Traceback" in end.err
        ):
            self._fault(description, f"exit code {end.code}: {end.err[-700:]}")
        if broken := unreadable(self.out):
            self._fault(description, f"not whole: {broken}")
        again = ran(self.scenario, self.inputs, self.out, {})
        if _NO_HEADER in again.err:
            return  # store.json was deleted: the command cannot resume without it
        if again.code != self.undisturbed.code:
            self._fault(description, f"run again: exit code {again.code}: {again.err[-500:]}")
        elif differs := difference(self.scenario.contents(self.out), self.expected, self.out):
            self._fault(description, differs)

    def _fault(self, description: str, what: str) -> None:
        self.tally.faults.append(f"{description}: {what}")

    def _ran(self, fault: dict[str, Any], **popen: Any) -> tuple[str, Ended]:
        return str(fault), ran(self.scenario, self.inputs, self.out, fault, **popen)

    def failing_change(self) -> tuple[str, Ended]:
        """A change to a file fails with a random error."""
        return self._ran({"event": self.rng.randint(1, self.changes), "error": self.rng.choice(_ERRORS)})

    def small_disk(self) -> tuple[str, Ended]:
        """A tmpfs that fills up during the run; it is enlarged before the command resumes."""
        size = self.rng.randint(self.bytes[0] + _PAGE, max(self.bytes[1], self.bytes[0] + 2 * _PAGE))
        mount = ["mount", "-t", "tmpfs", "tmpfs", str(self.disk)]
        subprocess.run([*mount, "-o", f"size={size + 4 * _PAGE}"], check=True)
        fresh(self.scenario, self.inputs, self.out)
        _, end = self._ran({})
        subprocess.run([*mount, "-o", "remount,size=1g"], check=True)
        return f"a disk of {size} bytes", end

    def vanishing(self) -> tuple[str, Ended]:
        """Finished files are deleted while the command runs."""
        share, written = self.rng.randint(20, 100), self.scenario.written
        return self._ran({"event": self.rng.randint(1, self.changes), "delete": share, "written": written})

    def second_writer(self) -> tuple[str, Ended]:
        """A second command starts while the first one is suspended."""
        event = self.rng.randint(self.changes // 2, self.changes)
        first = started(self.scenario, self.inputs, self.out, {"event": event, "signal": int(signal.SIGSTOP)})
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        second = ran(self.scenario, self.inputs, self.out, {})
        if first.poll() is None and self.scenario.name in _LOCKED and _REFUSAL not in second.err:
            self._fault(f"second writer at change {event}", f"not refused: {second.code} {second.err[-300:]}")
        os.kill(first.pid, signal.SIGCONT)
        return f"second writer at change {event}", ended(first)

    def clock(self) -> tuple[str, Ended]:
        """Every reading of the wall clock is earlier than the last."""
        return self._ran({"clock": True})


def _bytes(folder: Path) -> int:
    """Bytes that a folder takes, each file rounded up to whole pages."""
    return sum(-(-path.stat().st_size // _PAGE) * _PAGE for path in folder.rglob("*") if path.is_file())


def disk_faults(
    work: Path, *, rounds: int, seed: int, commands: tuple[str, ...] = (), method: str = "avc"
) -> Iterator[Tally]:
    """Run every command, or those named, under every kind of fault, with the model of a method."""
    inputs = Inputs(work / "inputs", method)
    inputs.make()
    chosen = [scenario for scenario in SCENARIOS if not commands or scenario.name in commands]
    yield from (DiskFaults(one, inputs, work / one.name, seed).run(rounds) for one in chosen)
