"""The project's own commands, one after another, on composed clips."""

from __future__ import annotations

from pathlib import Path

from avloc.errors import Refused
from tests.program import avloc
from tests.recipe.boxes import faces_of
from tests.recipe.compose import SPLIT, check_composed, compose
from tests.recipe.pictures import SIDE

RECIPE = Path(__file__).with_name("recipe.toml")
TEACHERS = ("yamnet", "lite0")
TEST_SETS = ("scenes", "scenes-everyday", "mixed", "boxed")
_LONGEST_S = 6 * 3600


def run(*arguments: str) -> str:
    """One command of the project; its standard output.

    Raises:
        Refused: it failed; its own error is on standard error.
    """
    done = avloc(*arguments, timeout=_LONGEST_S)
    print(done.stderr, end="", flush=True)
    if done.returncode:
        raise Refused(f"avloc {arguments[0]} ended with {done.returncode}", hint="see above")
    return done.stdout


def composed(data: Path, weights: Path, out: Path, *, clips: int, seed: int, open_only: bool = False) -> Path:
    """Find faces and compose, unless the same clips are there; the record of what is in which part.

    Raises:
        Refused: others are there.
    """
    record = out / SPLIT
    if not record.is_file():
        faces = faces_of(data, out, weights)
        compose(data, out, faces, clips=clips, seed=seed, open_only=open_only)
        return record
    check_composed(out, open_only=open_only, clips=clips, seed=seed)
    return record


def train(data: Path, weights: Path, out: Path, *, clips: int, seed: int, open_only: bool = False) -> Path:
    """Compose, prepare, let the teachers speak, train; the run folder. Stopped, it goes on where it was."""
    composed(data, weights, out, clips=clips, seed=seed, open_only=open_only)
    train_set, store, folder = out / "train", out / "store", out / "run"
    boxes = ("--kind", "train", "--annotations", str(train_set / "boxes.json"))
    run("prepare", str(train_set), *boxes, "--side", str(SIDE), "--out", str(store))
    teachers = [part for name in TEACHERS for part in ("--teacher", name)]
    where = ("--weights-dir", str(weights))
    for place in (*(out / "test" / name for name in TEST_SETS), out / "wrong"):
        name = place.name
        run("prepare", str(place), "--annotations", str(place / "boxes.json"), "--out", str(out / f"store-{name}"))
    run("distill-cache", str(store), *teachers, *where)
    run("train", str(store), "--config", str(RECIPE), "--out", str(folder), *where)
    return folder
