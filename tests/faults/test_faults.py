"""A short, seeded part of `python -m tests.faults`: kills, trouble, malformed media, foreign files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults import kills
from tests.faults.changes import FLUSHED, Change, ChangeLog, Span, begun, rest
from tests.faults.disk_faults import Trouble
from tests.faults.fuzz import TARGETS, findings
from tests.faults.media import malformed
from tests.faults.scenarios import SCENARIOS, Scenario, World


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    made = World(tmp_path_factory.mktemp("faults") / "world")
    made.make()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_a_killed_command_goes_on_as_if_nothing_had_happened(scenario: Scenario, world: World, tmp_path: Path):
    """Twice: a second resume in the same epoch, store or cache."""
    tally = kills.Kills(scenario, world, tmp_path / "kills", seed=3).run(2, twice=1)
    assert (tally.points, tally.twice, tally.faults) == (2, 1, [])


def test_a_second_strike_falls_in_the_rest_of_the_epoch():
    names = ("state.pt", "last.safetensors", "state.pt", "state.pt", "last.safetensors")
    changes = [Change(float(number), "os.rename", f"/run/{name}") for number, name in enumerate(names)]
    assert begun([Change(0.0, "os.mkdir", "/run"), *changes[1:]]) == Span(changes=2, seconds=1.0)
    assert rest(changes) == Span(changes=5, seconds=4.0)
    assert rest(changes, 2, "last.safetensors") == Span(changes=2, seconds=1.0)
    assert rest(changes, 4, "last.safetensors") == Span(changes=1, seconds=0.0)


class _Command:
    """Stands for a program that appends a line to `out/done` five times; of its strikes the first `late` are late."""

    def __init__(self, late: int) -> None:
        self.late, self.strikes = late, 0

    def __call__(self, _scenario, _world, out: Path, strike: dict, _arguments) -> kills.Ended:
        struck = "signal" in strike
        self.strikes += struck
        stops = struck and self.strikes > self.late
        done = out / "done"
        lines = done.read_text().splitlines() if done.exists() else []
        lines += ["line"] * (1 if stops else 5 - len(lines))
        done.write_text("\n".join(lines))
        log = ChangeLog(Path(strike["log"]))
        for _ in lines:
            log.write("os.rename", str(out / "done"))
            log.write(FLUSHED, str(out))
        return kills.Ended(128 + strike["signal"] if stops else 0, "")


def _struck(monkeypatch, folder: Path, late: int) -> kills.Tally:
    monkeypatch.setattr(kills, "ran", _Command(late))
    scenario = Scenario("fake", lambda _world, _out: [], lambda out: {"done": (out / "done").read_text()})
    return kills.Kills(scenario, World(folder / "world"), folder / "kills", seed=1).run(2, twice=1)


def test_late_strikes_are_drawn_again_and_are_no_points(tmp_path, monkeypatch):
    tally = _struck(monkeypatch, tmp_path, late=3)
    assert (tally.points, tally.late, tally.twice, tally.faults) == (2, 3, 1, [])


def test_a_command_that_no_strike_meets_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(TimeoutError, match="fake: 8 strikes in a row came too late"):
        _struck(monkeypatch, tmp_path, late=100)


@pytest.mark.slow
def test_prepare_in_trouble(world: World, tmp_path: Path):
    """A full disk, a forbidden one, files that vanish, a second writer, a clock that runs backwards."""
    scenario = next(one for one in SCENARIOS if one.name == "prepare")
    assert not Trouble(scenario, world, tmp_path / "trouble", seed=1).run(1).faults


@pytest.mark.slow
def test_malformed_media_give_a_result_or_a_named_error(tmp_path: Path):
    corpus = malformed(tmp_path, flips=2, cuts=2, seed=1)
    assert not corpus.faults
    assert corpus.used > 20
    assert corpus.refused > 100


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_once_stays_mended(name: str):
    target = TARGETS[name]
    for data in target.seeds():
        target.read_alone(data)
    for path in findings(name):
        target.feed(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=300)
@given(data=st.data())
def test_readers_of_foreign_files_give_a_result_or_a_named_error(name: str, data):
    """Bytes of a whole file overwritten, cut out or doubled, or bytes of no file at all."""
    target = TARGETS[name]
    whole = data.draw(st.sampled_from(target.seeds()))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(whole)))
        gone, new = data.draw(st.integers(0, 64)), data.draw(st.binary(max_size=64))
        target.feed(whole[:at] + new + whole[at + gone :])
    else:
        target.feed(data.draw(st.binary(max_size=200) | st.text(max_size=100).map(str.encode)))
