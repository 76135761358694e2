"""The shipped completion scripts are up to date, and completion does not import torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import completions
from tests.program import avloc

HEAVY = {"torch", "torchvision", "transformers", "h5py", "av", "matplotlib", "scipy", "numpy"}


@pytest.mark.parametrize("shell", completions.FILES)
def test_the_shipped_script_is_up_to_date(shell: str) -> None:
    path = completions.FOLDER / completions.FILES[shell]
    assert path.read_text(encoding="utf-8") == completions.script(shell), "refresh: python -m tests.completions"


def test_scripts_exist_for_exactly_these_shells() -> None:
    assert {path.name for path in completions.FOLDER.iterdir()} == set(completions.FILES.values())


@pytest.mark.parametrize(
    ("line", "position", "completion"),
    [("avloc lo", 1, "localize"), ("avloc d", 1, "distill-cache"), ("avloc train --no-", 2, "--no-audio-hint")],
)
def test_bash_completion(line: str, position: int, completion: str, tmp_path: Path) -> None:
    variables = {"_AVLOC_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(position)}
    result = avloc(loaded=tmp_path / "loaded.txt", **variables)
    assert completion in result.stdout.split()
    assert not HEAVY & set((tmp_path / "loaded.txt").read_text().split())


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish_completion(shell: str, tmp_path: Path) -> None:
    variables = {"_AVLOC_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "avloc lo"}
    result = avloc(loaded=tmp_path / "loaded.txt", _TYPER_COMPLETE_FISH_ACTION="get-args", **variables)
    assert "localize" in result.stdout
    assert not HEAVY & set((tmp_path / "loaded.txt").read_text().split())
