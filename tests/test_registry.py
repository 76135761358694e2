"""The registry: its dotted names exist, and its modes name options that their commands have."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from avloc.cli import app
from avloc.distill.plan import TEACHERS
from avloc.option_rules import MODES
from avloc.registry import AUDIO_TEACHERS, SECONDS_TEACHERS, SPECS, VIDEO_READERS, VISUAL_TEACHERS, resolve

ALL_MODES = [(command, mode) for command, of in MODES.items() for modes in of.values() for mode in modes.values()]
NAMES = {
    *(name for spec in SPECS.values() for name in (spec.network, spec.task)),
    *(mode.run for _, mode in ALL_MODES if mode.run),
    *VIDEO_READERS.values(),
    *(name for table in (AUDIO_TEACHERS, VISUAL_TEACHERS, SECONDS_TEACHERS) for name in table.values()),
}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_dotted_names_are_found(name):
    found = resolve(name)
    assert f"{found.__module__}.{found.__name__}" == name


def test_teachers_are_registered_under_their_names():
    table = {**AUDIO_TEACHERS, **VISUAL_TEACHERS}
    assert [resolve(dotted).name for dotted in table.values()] == list(table)


def test_modes_name_options_of_their_command():
    commands = typer.main.get_command(app).commands
    known = {command: {option.name for option in commands[command].params} for command in MODES}
    assert all(MODES[command].keys() <= known[command] for command in MODES)
    for command, mode in ALL_MODES:
        assert {*mode.takes, *mode.own, *mode.fixed} <= known[command]


def test_every_teacher_has_a_mode():
    assert MODES["distill-cache"]["teacher"].keys() == {*TEACHERS}


def test_the_registry_imports_nothing_that_it_names():
    code = (
        "import sys, avloc.registry; print([name for name in sys.modules if name.startswith(('avloc.ave', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
