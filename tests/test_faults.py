"""A short, seeded part of `python -m tests.faults`: kills, trouble, malformed media, foreign files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.fuzz import TARGETS, findings
from tests.faults.kills import kill_points
from tests.faults.media import malformed
from tests.faults.scenarios import SCENARIOS, Scenario, World
from tests.faults.trouble import Trouble


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    made = World(tmp_path_factory.mktemp("faults") / "world")
    made.make()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_a_killed_command_goes_on_as_if_nothing_had_happened(scenario: Scenario, world: World, tmp_path: Path):
    tally = kill_points(scenario, world, tmp_path / "kills", points=1, seed=3)
    assert not tally.faults


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
