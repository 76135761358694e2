"""The shipped completion scripts are fresh, and what they ask on TAB is answered without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import completions
from tests.program import avloc

HEAVY = {"torch", "torchvision", "transformers", "h5py", "av", "matplotlib", "scipy", "numpy"}


@pytest.mark.parametrize("shell", completions.FILES)
def test_the_shipped_script_is_fresh(shell: str) -> None:
    path = completions.FOLDER / completions.FILES[shell]
    assert path.read_text(encoding="utf-8") == completions.script(shell), "refresh: python -m tests.completions"


def test_there_are_scripts_for_these_shells_and_no_others() -> None:
    assert {path.name for path in completions.FOLDER.iterdir()} == set(completions.FILES.values())


@pytest.mark.parametrize(
    ("words", "position", "answer"),
    [("avloc lo", 1, "localize"), ("avloc d", 1, "distill-cache"), ("avloc train --no-", 2, "--no-audio-hint")],
)
def test_bash_gets_an_answer(words: str, position: int, answer: str, tmp_path: Path) -> None:
    asked = {"_AVLOC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    result = avloc(loaded=tmp_path / "loaded.txt", **asked)
    assert answer in result.stdout.split()
    assert not HEAVY & set((tmp_path / "loaded.txt").read_text().split())


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish_get_an_answer(shell: str, tmp_path: Path) -> None:
    asked = {"_AVLOC_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "avloc lo"}
    result = avloc(loaded=tmp_path / "loaded.txt", _TYPER_COMPLETE_FISH_ACTION="get-args", **asked)
    assert "localize" in result.stdout
    assert not HEAVY & set((tmp_path / "loaded.txt").read_text().split())
