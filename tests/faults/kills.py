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

from tests.faults.scenarios import SCENARIOS, Scenario, World, unreadable
from tests.faults.struck import FLUSHED
from tests.processes import ROOT, hear_ctrl_c

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_TWICE = 0.25
"""Share of the struck runs whose second run is struck too."""
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
    """Strikes after the end: these are no points."""
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
    command = [sys.executable, "-m", "tests.faults.struck", table, *scenario.arguments(world, out), *again]
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


def kill_points(scenario: Scenario, world: World, work: Path, *, points: int, seed: int) -> Tally:
    """Strike a command at so many moments.

    Args:
        scenario: the command.
        world: what it reads.
        work: folder for what it writes, emptied as it goes.
        points: strikes that meet the running command.
        seed: of the moments, the signals and the ways to go on.
    """
    tally = Tally(scenario.name, world.method)
    out = fresh(scenario, world, work / "out")  # always the same place: reports say where they lie
    log = work / "changes.log"
    started = time.monotonic()
    calm = ran(scenario, world, out, {"log": str(log)})
    seconds = time.monotonic() - started
    expected, lines = scenario.contents(out), log.read_text().splitlines()
    tally.faults += [f"undisturbed: {line} writes under a final name" for line in lines if _in_place(line)]
    tally.faults += [f"undisturbed: {line} is not flushed at once" for line in _unflushed(lines)]
    changes = sum(not line.startswith(FLUSHED) for line in lines)
    rng = random.Random(f"{seed} {scenario.name}")
    while tally.points < points:
        fresh(scenario, world, out)
        strikes = list(_strikes(rng, changes, seconds))
        story, fault = _struck(scenario, world, out, strikes, rng, calm, expected, tally)
        if fault:
            tally.faults.append(f"{story}: {fault}")
    return tally


def _in_place(line: str) -> bool:
    event, _, path = line.partition(" ")
    return event == "open" and not Path(path).name.startswith(".") and not Path(path).is_dir()


def _unflushed(lines: list[str]) -> list[str]:
    """New names that a power cut could take back although the program has gone on."""
    following = zip(lines, [*lines[1:], ""], strict=True)
    return [
        line
        for line, after in following
        if line.startswith("os.rename ") and after != f"{FLUSHED} {Path(line.partition(' ')[2]).parent}"
    ]


def fresh(scenario: Scenario, world: World, out: Path) -> Path:
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(exist_ok=True)
    scenario.begin(world, out)
    return out


def _strikes(rng: random.Random, changes: int, seconds: float) -> Iterator[dict[str, Any]]:
    while True:
        blow = rng.choice(SIGNALS)
        strike = {"event": rng.randint(1, changes)} if rng.random() < 0.6 else {"second": rng.uniform(0, seconds)}
        power = blow == signal.SIGKILL and "event" in strike and rng.random() < _POWER
        yield {"signal": int(blow), "power": power, **strike}
        if rng.random() >= _TWICE:
            return


def _struck(
    scenario: Scenario,
    world: World,
    out: Path,
    strikes: list[dict[str, Any]],
    rng: random.Random,
    calm: Ended,
    expected: dict[str, str],
    tally: Tally,
) -> tuple[str, str]:
    """One story: strikes, the last run, the comparison. Returns how it went, and what is wrong with it."""
    story = []
    for strike in strikes:
        again = rng.choice(scenario.again) if story else ()
        story.append(f"{strike} {' '.join(again)}")
        ended = ran(scenario, world, out, strike, again)
        if ended.code == calm.code:
            tally.late += 1
            break
        tally.points += 1
        name = signal.Signals(strike["signal"]).name
        tally.by_signal[name] = tally.by_signal.get(name, 0) + 1
        if ended.code not in (-strike["signal"], 128 + strike["signal"]):
            return "; ".join(story), f"exit code {ended.code}: {ended.err[-500:]}"
        if broken := unreadable(out):
            return "; ".join(story), f"not whole: {broken}"
    again = rng.choice(scenario.again)
    story.append(f"then {' '.join(again)}")
    ended = ran(scenario, world, out, {}, again)
    if ended.code != calm.code:
        return "; ".join(story), f"exit code {ended.code}, not {calm.code}: {ended.err[-500:]}"
    return "; ".join(story), difference(scenario.contents(out), expected, out)


def difference(found: dict[str, str], expected: dict[str, str], out: Path) -> str:
    differ = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if differ:
        return f"differs in {', '.join(differ[:5])} and {len(differ[5:])} more"
    left = [str(path.relative_to(out)) for path in out.rglob("*.part")]
    return f"left behind: {left}" if left else ""


def kills(
    work: Path, *, points: int, seed: int, commands: tuple[str, ...] = (), method: str = "avc"
) -> Iterator[Tally]:
    """Every command, or those named, struck `points` times each, with the model of a method."""
    world = World(work / "world", method)
    world.make()
    chosen = [scenario for scenario in SCENARIOS if not commands or scenario.name in commands]
    yield from (kill_points(one, world, work / one.name, points=points, seed=seed) for one in chosen)
