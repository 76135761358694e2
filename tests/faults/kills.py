"""Each command killed at seeded moments, run again, and compared with a run that nobody disturbed."""

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

from tests.faults.changes import NOTHING, ChangeLog, Span, begun, careless, changed, rest
from tests.faults.scenarios import SCENARIOS, Scenario, World, unreadable
from tests.processes import ROOT, hear_ctrl_c

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_TRIES = 8
"""Strikes that may be late before one is not."""
_POWER = 0.3
"""Share of the SIGKILLs before a change that are power cuts."""
_LONGEST_S = 300.0
_ORPHANS_S = 20.0


@dataclass
class Tally:
    """What came of one command's points."""

    command: str
    method: str
    points: int = 0
    late: int = 0
    """Strikes after the end of what they were to interrupt: no points, drawn again."""
    twice: int = 0
    """Stories with a second strike in the lap of the first one, such as an epoch."""
    by_signal: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ended:
    code: int
    err: str


def started(
    scenario: Scenario, world: World, out: Path, strike: dict[str, Any], again: tuple[str, ...] = (), **popen: Any
) -> subprocess.Popen[bytes]:
    """The command, with or without a strike, at the head of a process group; Ctrl-C reaches it."""
    table = json.dumps({"folder": str(out), **strike})
    command = [sys.executable, "-m", "tests.faults.fault_injection", table, *scenario.arguments(world, out), *again]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "start_new_session": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **{"preexec_fn": hear_ctrl_c, **pipes, **popen})


def ran(
    scenario: Scenario, world: World, out: Path, strike: dict[str, Any], again: tuple[str, ...] = (), **popen: Any
) -> Ended:
    """The command once, to its end; no process of it is left."""
    return ended(started(scenario, world, out, strike, again, **popen))


def ended(process: subprocess.Popen[bytes]) -> Ended:
    """Wait for a command and everything that it has started."""
    _, err = process.communicate(timeout=_LONGEST_S)
    _await_orphans(process.pid)
    return Ended(process.returncode, err.decode(errors="replace"))


def _await_orphans(group: int) -> None:
    """Processes of a killed command have to end by themselves.

    Raises:
        TimeoutError: they did not.
    """
    deadline = time.monotonic() + _ORPHANS_S
    while _alive(group):
        if time.monotonic() > deadline:
            os.killpg(group, signal.SIGKILL)
            raise TimeoutError("processes of a killed command are left")
        time.sleep(0.02)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


class Kills:
    """One command, struck again and again.

    Args:
        scenario: the command.
        world: what it reads.
        work: folder for what it writes, emptied as it goes.
        seed: of the moments, the signals and the ways to go on.
    """

    def __init__(self, scenario: Scenario, world: World, work: Path, seed: int) -> None:
        self.scenario, self.world = scenario, world
        self.out = work / "out"  # always the same place: reports say where they lie
        self.before, self.log = work / "before", ChangeLog(work / "changes.log")
        self.rng = random.Random(f"{seed} {scenario.name}")
        self.tally = Tally(scenario.name, world.method)
        fresh(scenario, world, self.out)
        self.calm = self._ran({}, ())
        self.expected, lines = scenario.contents(self.out), self.log.read()
        self.changes = changed(lines)
        self.tally.faults += [f"undisturbed: {line}" for line in careless(lines)]

    def run(self, points: int, twice: float) -> Tally:
        """Stories until so many strikes have met the running command; this share of them has a second strike."""
        while self.tally.points < points:
            story: list[str] = []
            if fault := self._told(story, again=self.rng.random() < twice):
                self.tally.faults.append(f"{'; '.join(story)}: {fault}")
        return self.tally

    def _told(self, story: list[str], *, again: bool) -> str:
        """One or two strikes in a lap, the last run, the comparison; what is wrong with it."""
        fresh(self.scenario, self.world, self.out)
        wrong = self._struck(story, rest(self.changes))
        if again and not wrong:
            done = len(changed(self.log.read()))
            left = rest(self.changes, done, self.scenario.lap)
            wrong = self._struck(story, left, begun(self.changes), self.scenario.lap)
            self.tally.twice += 1
        return wrong or self._gone_on(story)

    def _struck(self, story: list[str], span: Span, lead: Span = NOTHING, lap: str = "") -> str:
        """A strike that meets the running command in a part of it, before the end of the lap; what is wrong then.

        A late one proves nothing: what was there before it is put back, and another one is drawn, from what the late
        run has shown to be left.

        Raises:
            TimeoutError: all of them were late.
        """
        shutil.rmtree(self.before, ignore_errors=True)
        shutil.copytree(self.out, self.before, symlinks=True)
        arguments = self.rng.choice(self.scenario.again) if story else ()
        for _ in range(_TRIES):
            strike = self._drawn(span, lead)
            ended = self._ran(strike, arguments)
            made = changed(self.log.read())
            if ended.code != self.calm.code and not any(change.ends(lap) for change in made):
                story.append(f"{strike} {' '.join(arguments)}")
                return self._wrong(strike, ended)
            self.tally.late += 1
            shutil.rmtree(self.out)
            shutil.copytree(self.before, self.out, symlinks=True)
            span, lead = rest(made, lap=lap), NOTHING
        raise TimeoutError(f"{self.scenario.name}: {_TRIES} strikes in a row came too late, the last one {strike}")

    def _ran(self, strike: dict[str, Any], arguments: tuple[str, ...]) -> Ended:
        self.log.path.unlink(missing_ok=True)
        return ran(self.scenario, self.world, self.out, {"log": str(self.log.path), **strike}, arguments)

    def _drawn(self, span: Span, lead: Span) -> dict[str, Any]:
        """A strike somewhere in a part of a run, behind another one."""
        blow, rng = self.rng.choice(SIGNALS), self.rng
        if rng.random() < 0.6:
            when = {"event": lead.changes + rng.randint(1, span.changes)}
        else:
            when = {"second": lead.seconds + rng.uniform(0, span.seconds)}
        power = blow == signal.SIGKILL and "event" in when and rng.random() < _POWER
        return {"signal": int(blow), "power": power, **when}

    def _wrong(self, strike: dict[str, Any], ended: Ended) -> str:
        """Count a strike; what is wrong with how the command took it."""
        self.tally.points += 1
        name = signal.Signals(strike["signal"]).name
        self.tally.by_signal[name] = self.tally.by_signal.get(name, 0) + 1
        if ended.code not in (-strike["signal"], 128 + strike["signal"]):
            return f"exit code {ended.code}: {ended.err[-500:]}"
        broken = unreadable(self.out)
        return f"not whole: {broken}" if broken else ""

    def _gone_on(self, story: list[str]) -> str:
        """The last run, to its end; what is wrong with what is there then."""
        arguments = self.rng.choice(self.scenario.again)
        story.append(f"then {' '.join(arguments)}")
        ended = self._ran({}, arguments)
        if ended.code != self.calm.code:
            return f"exit code {ended.code}, not {self.calm.code}: {ended.err[-500:]}"
        return difference(self.scenario.contents(self.out), self.expected, self.out)


def fresh(scenario: Scenario, world: World, out: Path) -> Path:
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(exist_ok=True)
    scenario.begin(world, out)
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
    """Every command, or those named, struck `points` times each, with the model of a method."""
    world = World(work / "world", method)
    world.make()
    chosen = [scenario for scenario in SCENARIOS if not commands or scenario.name in commands]
    yield from (Kills(one, world, work / one.name, seed).run(points, twice) for one in chosen)
