"""Kill each command at seeded moments, resume it, and compare the result with an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.changes import EMPTY_SPAN, ChangeLog, Span, changed, rest, startup, unsafe_writes
from tests.faults.scenarios import SCENARIOS, Inputs, Scenario, unreadable
from tests.processes import restore_sigint
from tests.program import ROOT

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_TRIES = 8
"""Attempts to interrupt the running command before giving up."""
_POWER = 0.3
"""Share of the SIGKILLs before a change that are power cuts."""
_LONGEST_S = 300.0
_ORPHANS_S = 90.0


@dataclass
class Tally:
    """Result for one command."""

    command: str
    method: str
    points: int = 0
    late: int = 0
    """Interruptions that came after the end of the command: drawn again and not counted in `points`."""
    twice: int = 0
    """Runs interrupted a second time within the same lap, such as an epoch."""
    by_signal: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ended:
    code: int
    err: str


def started(
    scenario: Scenario, inputs: Inputs, out: Path, fault: dict[str, Any], again: tuple[str, ...] = (), **popen: Any
) -> subprocess.Popen[bytes]:
    """Start the command as the leader of a process group, with an optional fault; SIGINT is not ignored."""
    table = json.dumps({"folder": str(out), **fault})
    command = [sys.executable, "-m", "tests.faults.fault_injection", table, *scenario.arguments(inputs, out), *again]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "start_new_session": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **{"preexec_fn": restore_sigint, **pipes, **popen})


def ran(
    scenario: Scenario, inputs: Inputs, out: Path, fault: dict[str, Any], again: tuple[str, ...] = (), **popen: Any
) -> Ended:
    """Run the command to its end; none of its processes are left."""
    return ended(started(scenario, inputs, out, fault, again, **popen))


def ended(process: subprocess.Popen[bytes]) -> Ended:
    """Wait for a command and all of its child processes."""
    _, err = process.communicate(timeout=_LONGEST_S)
    _await_orphans(process.pid)
    return Ended(process.returncode, err.decode(errors="replace"))


def _await_orphans(group: int) -> None:
    """Wait for the child processes of a killed command to exit by themselves.

    Raises:
        TimeoutError: they are still alive after `_ORPHANS_S`.
    """
    deadline = time.monotonic() + _ORPHANS_S
    while _alive(group):
        if time.monotonic() > deadline:
            os.killpg(group, signal.SIGKILL)
            raise TimeoutError("processes of a killed command are left")
        time.sleep(0.02)


def _alive(group: int) -> bool:
    """Whether a process of the group runs, other than those that have ended and that nobody has waited for yet."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return any(
        state != "Z" for state, found in map(_state_and_group, Path("/proc").glob("[0-9]*/stat")) if found == group
    )


def _state_and_group(path: Path) -> tuple[str, int]:
    try:
        state, _, group = path.read_text().rpartition(")")[2].split()[:3]
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return state, int(group)


class Kills:
    """Interrupt and resume one command repeatedly.

    Args:
        scenario: the command.
        inputs: what it reads.
        work: folder for its output, emptied before every run.
        seed: seed of the moments, the signals and the arguments of resumed runs.
    """

    def __init__(self, scenario: Scenario, inputs: Inputs, work: Path, seed: int) -> None:
        self.scenario, self.inputs = scenario, inputs
        self.out = work / "out"  # always the same path: reports contain it
        self.before, self.log = work / "before", ChangeLog(work / "changes.log")
        self.rng = random.Random(f"{seed} {scenario.name}")
        self.tally = Tally(scenario.name, inputs.method)
        fresh(scenario, inputs, self.out)
        self.undisturbed = self._ran({}, ())
        self.expected, lines = scenario.contents(self.out), self.log.read()
        self.changes = changed(lines)
        self.tally.faults += [f"undisturbed: {line}" for line in unsafe_writes(lines)]

    def run(self, points: int, twice: float) -> Tally:
        """Interrupt until `points` interruptions have hit the running command; a share `twice` is hit a second time."""
        while self.tally.points < points:
            history: list[str] = []
            if fault := self._interrupted_run(history, again=self.rng.random() < twice):
                self.tally.faults.append(f"{'; '.join(history)}: {fault}")
        return self.tally

    def _interrupted_run(self, history: list[str], *, again: bool) -> str:
        """Interrupt once or twice within a lap, resume and compare; return the fault, or an empty string."""
        fresh(self.scenario, self.inputs, self.out)
        fault_found = self._interrupt(history, rest(self.changes))
        if again and not fault_found:
            done = len(changed(self.log.read()))
            left = rest(self.changes, done, self.scenario.lap)
            fault_found = self._interrupt(history, left, startup(self.changes), self.scenario.lap)
            self.tally.twice += 1
        return fault_found or self._resume(history)

    def _interrupt(self, history: list[str], span: Span, lead: Span = EMPTY_SPAN, lap: str = "") -> str:
        """Interrupt the command within `span`, before the end of the lap; return the fault, or an empty string.

        If the interruption comes too late, restore the output folder and draw another one from the changes that the
        late run made.

        Raises:
            TimeoutError: all attempts were too late.
        """
        shutil.rmtree(self.before, ignore_errors=True)
        shutil.copytree(self.out, self.before, symlinks=True)
        arguments = self.rng.choice(self.scenario.again) if history else ()
        for _ in range(_TRIES):
            fault = self._draw(span, lead)
            ended = self._ran(fault, arguments)
            made = changed(self.log.read())
            if ended.code != self.undisturbed.code and not any(change.ends(lap) for change in made):
                history.append(f"{fault} {' '.join(arguments)}")
                return self._exit_fault(fault, ended)
            self.tally.late += 1
            shutil.rmtree(self.out)
            shutil.copytree(self.before, self.out, symlinks=True)
            span, lead = rest(made, lap=lap), EMPTY_SPAN
        raise TimeoutError(f"{self.scenario.name}: {_TRIES} interruptions in a row came too late, the last one {fault}")

    def _ran(self, fault: dict[str, Any], arguments: tuple[str, ...]) -> Ended:
        self.log.path.unlink(missing_ok=True)
        return ran(self.scenario, self.inputs, self.out, {"log": str(self.log.path), **fault}, arguments)

    def _draw(self, span: Span, lead: Span) -> dict[str, Any]:
        """Draw an interruption within `span`, after `lead`."""
        chosen_signal, rng = self.rng.choice(SIGNALS), self.rng
        if rng.random() < 0.6:
            when = {"event": lead.changes + rng.randint(1, span.changes)}
        else:
            when = {"second": lead.seconds + rng.uniform(0, span.seconds)}
        power = chosen_signal == signal.SIGKILL and "event" in when and rng.random() < _POWER
        return {"signal": int(chosen_signal), "power": power, **when}

    def _exit_fault(self, fault: dict[str, Any], ended: Ended) -> str:
        """Count an interruption; return the fault in the command's exit, or an empty string."""
        self.tally.points += 1
        name = signal.Signals(fault["signal"]).name
        self.tally.by_signal[name] = self.tally.by_signal.get(name, 0) + 1
        if ended.code not in (-fault["signal"], 128 + fault["signal"]):
            return f"exit code {ended.code}: {ended.err[-500:]}"
        broken = unreadable(self.out)
        return f"not whole: {broken}" if broken else ""

    def _resume(self, history: list[str]) -> str:
        """Resume the command to its end and compare its output; return the fault, or an empty string."""
        arguments = self.rng.choice(self.scenario.again)
        history.append(f"then {' '.join(arguments)}")
        ended = self._ran({}, arguments)
        if ended.code != self.undisturbed.code:
            return f"exit code {ended.code}, not {self.undisturbed.code}: {ended.err[-500:]}"
        return difference(self.scenario.contents(self.out), self.expected, self.out)


def fresh(scenario: Scenario, inputs: Inputs, out: Path) -> Path:
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(exist_ok=True)
    scenario.begin(inputs, out)
    return out


def difference(found: dict[str, str], expected: dict[str, str], out: Path) -> str:
    differ = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if differ:
        return f"differs in {', '.join(differ[:5])} and {len(differ[5:])} more"
    left = [str(path.relative_to(out)) for path in out.rglob("*.part")]
    return f"left behind: {left}" if left else ""


def kills(
    work: Path, *, points: int, seed: int, twice: float, commands: tuple[str, ...] = (), method: str = "avc"
) -> Iterator[Tally]:
    """Interrupt every command, or those named, `points` times each, with the model of a method."""
    inputs = Inputs(work / "inputs", method)
    inputs.make()
    chosen = [scenario for scenario in SCENARIOS if not commands or scenario.name in commands]
    yield from (Kills(one, inputs, work / one.name, seed).run(points, twice) for one in chosen)
