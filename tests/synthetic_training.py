"""Train on the synthetic scenes of `tests.synthetic_scenes` through avloc's commands, in minutes on two cores.

`python -m tests.synthetic_training METHOD FOLDER [CLIPS EPOCHS]` trains one method and prints its report.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.pretraining import pretrained_model, synthetic_pretraining
from tests.program import avloc
from tests.synthetic_scenes import pairs, write_media

_SHALLOW = (
    *("--vision-trunk", "resnet18:layer2", "--audio-trunk", "resnet18:layer2", "--dim", "64"),
    *("--batch", "16", "--set", "model.tau=0.1", "--set", "model.seconds=1"),
)
"""The trunk ends at layer2: the receptive field of deeper cells is the whole image, so that they need not localize."""
_FLAGS = {
    "avc": (*_SHALLOW, "--set", "model.frame=64", "--no-audio-hint", "--no-visual-hint"),
    "ezvsl": (*_SHALLOW, "--set", "model.frame=96"),
    "lvs": ("--batch", "16", "--set", "model.frame=128", "--set", "model.seconds=1"),
    "sspl": ("--batch", "8", "--set", "model.seconds=1"),
    "sacl": (
        *("--batch", "16", "--set", "model.seconds=1", "--set", "sacl.temperature=0.1"),
        *("--set", "freeze=true"),
    ),
}
_FAST = ("--set", "optim.lr=0.0005", "--set", "precision=fp32")
_PRETRAINING_STEPS = 24


def run(*arguments: str) -> str:
    """Run one command of avloc and return its standard output."""
    done = avloc(*arguments, timeout=3600)
    print(done.stderr, end="", file=sys.stderr)
    done.check_returncode()
    return done.stdout


def train_on_synthetic_scenes(folder: Path, *, method: str = "avc", clips: int = 384, epochs: int = 16) -> dict:
    """Prepare, train and score on synthetic scenes; return the report on unseen combinations of colours."""
    media = write_media(folder / "seen", clips=clips, held_out=False, seed=1)
    unseen = write_media(folder / "unseen", clips=len(pairs(held_out=True)) * 6, held_out=True, seed=2)
    sound = ("--rate", "22050" if method in ("avc", "ezvsl") else "16000")
    boxes = ("--annotations", str(unseen / "boxes.json"))
    run("prepare", str(media), "--out", str(folder / "train"), *sound)
    run("prepare", str(unseen), *boxes, "--out", str(folder / "test"), *sound)
    init = _pretrained(folder, method) if method in ("sspl", "sacl") else "random"
    flags = ("--method", method, "--epochs", str(epochs), "--init", str(init), *_FLAGS[method], *_FAST)
    run("train", str(folder / "train"), "--out", str(folder / "run"), *flags)
    scored = ("--store", str(folder / "test"), "--model", str(folder / "run"), "--maps", "av", "--protocol", "avloc")
    return json.loads(run("eval", *scored, "--json"))


def _pretrained(folder: Path, method: str) -> Path:
    settings = [flag for flag in _FLAGS[method] if "=" in flag]
    return pretrained_model(
        folder / "pretrained.safetensors", method, synthetic_pretraining(_PRETRAINING_STEPS), *settings
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m tests.synthetic_training", description=__doc__)
    out.add_argument("method", metavar="METHOD", choices=_FLAGS, help=", ".join(_FLAGS))
    out.add_argument("folder", metavar="FOLDER", type=Path, help="folder for everything that is made")
    out.add_argument("clips", metavar="CLIPS", type=int, nargs="?", default=288, help="training clips")
    out.add_argument("epochs", metavar="EPOCHS", type=int, nargs="?", default=16)
    return out


def main() -> None:
    given = parser().parse_args()
    print(
        json.dumps(train_on_synthetic_scenes(given.folder, method=given.method, clips=given.clips, epochs=given.epochs))
    )


if __name__ == "__main__":
    main()
