"""A short, seeded subset of `python -m tests.faults`: kills, disk faults, malformed media, untrusted files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults import kills
from tests.faults.changes import FLUSHED, Change, ChangeLog, Span, rest, startup
from tests.faults.disk_faults import DiskFaults
from tests.faults.fuzz import TARGETS, findings
from tests.faults.media import malformed
from tests.faults.scenarios import SCENARIOS, Inputs, Scenario


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Inputs:
    made = Inputs(tmp_path_factory.mktemp("faults") / "inputs")
    made.make()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_a_killed_command_resumes_to_the_same_result(scenario: Scenario, inputs: Inputs, tmp_path: Path):
    """Interrupted and resumed twice in the same epoch, store or cache."""
    tally = kills.Kills(scenario, inputs, tmp_path / "kills", seed=3).run(2, twice=1)
    assert (tally.points, tally.twice, tally.faults) == (2, 1, [])


def test_a_second_interruption_is_drawn_from_the_rest_of_the_epoch():
    names = ("state.pt", "last.safetensors", "state.pt", "state.pt", "last.safetensors")
    changes = [Change(float(number), "os.rename", f"/run/{name}") for number, name in enumerate(names)]
    assert startup([Change(0.0, "os.mkdir", "/run"), *changes[1:]]) == Span(changes=2, seconds=1.0)
    assert rest(changes) == Span(changes=5, seconds=4.0)
    assert rest(changes, 2, "last.safetensors") == Span(changes=2, seconds=1.0)
    assert rest(changes, 4, "last.safetensors") == Span(changes=1, seconds=0.0)


class _Command:
    """Fake program that appends a line to `out/done` five times; its first `late` interruptions come too late."""

    def __init__(self, late: int) -> None:
        self.late, self.interruptions = late, 0

    def __call__(self, _scenario, _inputs, out: Path, fault: dict, _arguments) -> kills.Ended:
        interrupted = "signal" in fault
        self.interruptions += interrupted
        stops = interrupted and self.interruptions > self.late
        done = out / "done"
        lines = done.read_text().splitlines() if done.exists() else []
        lines += ["line"] * (1 if stops else 5 - len(lines))
        done.write_text("\n".join(lines))
        log = ChangeLog(Path(fault["log"]))
        for _ in lines:
            log.write("os.rename", str(out / "done"))
            log.write(FLUSHED, str(out))
        return kills.Ended(128 + fault["signal"] if stops else 0, "")


def _interrupted_twice(monkeypatch, folder: Path, late: int) -> kills.Tally:
    monkeypatch.setattr(kills, "ran", _Command(late))
    scenario = Scenario("fake", lambda _inputs, _out: [], lambda out: {"done": (out / "done").read_text()})
    return kills.Kills(scenario, Inputs(folder / "inputs"), folder / "kills", seed=1).run(2, twice=1)


def test_late_interruptions_are_drawn_again_and_not_counted(tmp_path, monkeypatch):
    tally = _interrupted_twice(monkeypatch, tmp_path, late=3)
    assert (tally.points, tally.late, tally.twice, tally.faults) == (2, 3, 1, [])


def test_a_command_that_is_never_interrupted_in_time_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(TimeoutError, match="fake: 8 interruptions in a row came too late"):
        _interrupted_twice(monkeypatch, tmp_path, late=100)


@pytest.mark.slow
def test_prepare_survives_disk_faults(inputs: Inputs, tmp_path: Path):
    """Full and read-only disks, deleted files, a second writer, a clock that runs backwards."""
    scenario = next(one for one in SCENARIOS if one.name == "prepare")
    assert not DiskFaults(scenario, inputs, tmp_path / "disk-faults", seed=1).run(1).faults


@pytest.mark.slow
def test_malformed_media_give_a_result_or_a_named_error(tmp_path: Path):
    corpus = malformed(tmp_path, flips=2, cuts=2, seed=1)
    assert not corpus.faults
    assert corpus.used > 20
    assert corpus.refused > 100


@pytest.mark.parametrize("name", TARGETS)
def test_past_findings_stay_fixed(name: str):
    target = TARGETS[name]
    for data in target.seeds():
        target.read_alone(data)
    for path in findings(name):
        target.feed(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=300)
@given(data=st.data())
def test_readers_of_untrusted_files_return_a_result_or_raise_a_named_error(name: str, data):
    """A valid file with bytes overwritten, removed or inserted, or arbitrary bytes."""
    target = TARGETS[name]
    whole = data.draw(st.sampled_from(target.seeds()))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(whole)))
        gone, new = data.draw(st.integers(0, 64)), data.draw(st.binary(max_size=64))
        target.feed(whole[:at] + new + whole[at + gone :])
    else:
        target.feed(data.draw(st.binary(max_size=200) | st.text(max_size=100).map(str.encode)))
