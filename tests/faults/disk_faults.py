"""What is no kill: a full disk, a forbidden one, files that vanish, a second writer, a clock that runs backwards."""

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
from tests.faults.scenarios import SCENARIOS, Scenario, World, unreadable

_PAGE = 4096
_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
_LOCKED = ("prepare", "distill-cache", "train")
"""Commands whose second writer is refused."""
_LOST = "holds shards but no store.json"
_SAID = "another avloc process is writing"


class Trouble:
    """One command in trouble of one kind after another.

    Args:
        scenario: the command.
        world: what it reads.
        work: folder for what it writes.
        seed: of the moments.
    """

    def __init__(self, scenario: Scenario, world: World, work: Path, seed: int) -> None:
        self.scenario, self.world, self.out = scenario, world, work / "disk" / "out"
        self.rng = random.Random(f"{seed} {scenario.name}")
        self.tally = Tally(scenario.name, world.method)
        self.disk = self.out.parent
        work.mkdir(parents=True, exist_ok=True)
        before = _bytes(fresh(scenario, world, self.out))
        log = work / "changes.log"
        self.calm = ran(scenario, world, self.out, {"log": str(log)})
        self.changes = len(changed(ChangeLog(log).read()))
        self.expected = scenario.contents(self.out)
        self.bytes = before, _bytes(self.out)

    def run(self, rounds: int) -> Tally:
        """Every kind so many times."""
        disk = (self.small_disk,) if self._may_mount() else ()
        kinds = (self.failing_change, *disk, self.vanishing, self.second_writer, self.clock)
        for kind in kinds:
            for _ in range(rounds):
                self._check(kind)
        return self.tally

    def _may_mount(self) -> bool:
        """Whether a disk can be made here: only root can, and not everywhere."""
        done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.disk], capture_output=True, check=False)
        if not done.returncode:
            subprocess.run(["umount", self.disk], check=True)
        return not done.returncode

    def _check(self, kind: Callable[[], tuple[str, Ended]]) -> None:
        try:
            fresh(self.scenario, self.world, self.out)
            self._judge(kind, *kind())
        finally:
            if self.disk.is_mount():
                subprocess.run(["umount", self.disk], check=True)

    def _judge(self, kind: Callable[[], tuple[str, Ended]], story: str, end: Ended) -> None:
        self.tally.points += 1
        self.tally.by_signal[kind.__name__] = self.tally.by_signal.get(kind.__name__, 0) + 1
        harmless = kind == self.clock or (kind == self.second_writer and self.scenario.name not in _LOCKED)
        if end.code not in ((self.calm.code,) if harmless else (self.calm.code, 2, 5)) or "Traceback" in end.err:
            self._fault(story, f"exit code {end.code}: {end.err[-700:]}")
        if broken := unreadable(self.out):
            self._fault(story, f"not whole: {broken}")
        again = ran(self.scenario, self.world, self.out, {})
        if _LOST in again.err:
            return  # what says how the rest was made is gone: nobody can go on from there
        if again.code != self.calm.code:
            self._fault(story, f"run again: exit code {again.code}: {again.err[-500:]}")
        elif differs := difference(self.scenario.contents(self.out), self.expected, self.out):
            self._fault(story, differs)

    def _fault(self, story: str, what: str) -> None:
        self.tally.faults.append(f"{story}: {what}")

    def _ran(self, strike: dict[str, Any], **popen: Any) -> tuple[str, Ended]:
        return str(strike), ran(self.scenario, self.world, self.out, strike, **popen)

    def failing_change(self) -> tuple[str, Ended]:
        """A change to a file fails, for one reason or another."""
        return self._ran({"event": self.rng.randint(1, self.changes), "error": self.rng.choice(_ERRORS)})

    def small_disk(self) -> tuple[str, Ended]:
        """A file system in memory that is full on the way; it is made larger before the command comes again."""
        size = self.rng.randint(self.bytes[0] + _PAGE, max(self.bytes[1], self.bytes[0] + 2 * _PAGE))
        mount = ["mount", "-t", "tmpfs", "tmpfs", str(self.disk)]
        subprocess.run([*mount, "-o", f"size={size + 4 * _PAGE}"], check=True)
        fresh(self.scenario, self.world, self.out)
        _, end = self._ran({})
        subprocess.run([*mount, "-o", "remount,size=1g"], check=True)
        return f"a disk of {size} bytes", end

    def vanishing(self) -> tuple[str, Ended]:
        """Finished files are deleted under the running command."""
        share, written = self.rng.randint(20, 100), self.scenario.written
        return self._ran({"event": self.rng.randint(1, self.changes), "delete": share, "written": written})

    def second_writer(self) -> tuple[str, Ended]:
        """A second command comes while the first one is in the middle of it."""
        event = self.rng.randint(self.changes // 2, self.changes)
        first = started(self.scenario, self.world, self.out, {"event": event, "signal": int(signal.SIGSTOP)})
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        second = ran(self.scenario, self.world, self.out, {})
        if first.poll() is None and self.scenario.name in _LOCKED and _SAID not in second.err:
            self._fault(f"second writer at change {event}", f"not refused: {second.code} {second.err[-300:]}")
        os.kill(first.pid, signal.SIGCONT)
        return f"second writer at change {event}", ended(first)

    def clock(self) -> tuple[str, Ended]:
        """Every look at the time of day shows an earlier one."""
        return self._ran({"clock": True})


def _bytes(folder: Path) -> int:
    """What a folder takes on a disk of pages."""
    return sum(-(-path.stat().st_size // _PAGE) * _PAGE for path in folder.rglob("*") if path.is_file())


def trouble(
    work: Path, *, rounds: int, seed: int, commands: tuple[str, ...] = (), method: str = "avc"
) -> Iterator[Tally]:
    """Every command, or those named, in every kind of trouble, with the model of a method."""
    world = World(work / "world", method)
    world.make()
    chosen = [scenario for scenario in SCENARIOS if not commands or scenario.name in commands]
    yield from (Trouble(one, world, work / one.name, seed).run(rounds) for one in chosen)
