"""The registry: its dotted names exist, and its modes name options that their commands have."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from avloc.cli import app
from avloc.registry import MODES, SECONDS_TEACHERS, SPECS, resolve

NAMES = {
    *(name for spec in SPECS.values() for name in (spec.network, spec.task)),
    *(mode.run for modes in MODES.values() for mode in modes.values() if mode.run),
    *SECONDS_TEACHERS.values(),
}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_dotted_names_are_found(name):
    found = resolve(name)
    assert f"{found.__module__}.{found.__name__}" == name


@pytest.mark.parametrize("command", MODES)
def test_modes_take_options_of_their_command(command):
    known = {option.name for option in typer.main.get_command(app).commands[command].params}
    for mode in MODES[command].values():
        assert {*mode.takes, *mode.own} <= known


def test_the_registry_imports_nothing_that_it_names():
    code = (
        "import sys, avloc.registry; print([name for name in sys.modules if name.startswith(('avloc.ave', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
