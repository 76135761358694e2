"""Make the placeholder model and the example media that are shipped: `python -m tests.placeholder`.

Everything comes from the synthetic world of `tests.world`, through the project's own commands: `prepare`, `train`,
`eval`. A few minutes on two cores. The model knows six coloured shapes and their tones and nothing else.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import soundfile
import torch

from avloc.checkpoint import default_model, load_model, save_model
from tests.program import ROOT, avloc
from tests.world import RATE, pairs, scenes, write_world

TRAIN_FLAGS = (
    *("--vision-trunk", "resnet18:layer2", "--audio-trunk", "resnet18:layer2", "--dim", "64", "--init", "random"),
    *("--no-audio-hint", "--no-visual-hint", "--batch", "16", "--epochs", "16", "--set", "optim.lr=0.0005"),
    *("--set", "model.tau=0.1", "--set", "model.frame=128", "--set", "precision=fp32"),
)
"""Small enough for minutes on two cores. The trunk ends at layer2 because an untaught network's deeper cells see the
whole picture and need not say where a thing is."""

CARD = {
    "name": "placeholder",
    "placeholder": True,
    "licence": "Apache-2.0",
    "about": "Trained on coloured shapes and tones made by tests/world.py; its maps mean nothing on real pictures.",
}


def run(*arguments: str) -> str:
    """One command of the project; its standard output."""
    done = avloc(*arguments, timeout=3600)
    print(done.stderr, end="")
    done.check_returncode()
    return done.stdout


def train_in_the_world(folder: Path, *, clips: int = 384) -> dict:
    """Prepare, train and score in the synthetic world; the report on unseen combinations of colours."""
    seen = write_world(folder / "seen", clips=clips, held_out=False, seed=1)
    unseen = write_world(folder / "unseen", clips=len(pairs(held_out=True)) * 6, held_out=True, seed=2)
    run("prepare", str(seen), "--out", str(folder / "train"))
    run("prepare", str(unseen), "--annotations", str(unseen / "boxes.json"), "--out", str(folder / "test"))
    run("train", str(folder / "train"), "--out", str(folder / "run"), *TRAIN_FLAGS)
    out = run("eval", "--store", str(folder / "test"), "--model", str(folder / "run"), "--maps", "av", "--json")
    return json.loads(out)


def ship_model(run_folder: Path, report: dict) -> None:
    """The trained model in half precision, labelled for what it is."""
    model = load_model(run_folder)
    half = {key: value.half() if value.is_floating_point() else value for key, value in model.state.items()}
    score = {
        "unseen combinations of the synthetic world": report["maps"]["av"]["overall"],
        "protocol": report["protocol"],
    }
    default_model().parent.mkdir(exist_ok=True)
    save_model(default_model(), model.config, half, {**model.card, **CARD, "score": score})


def ship_media(folder: Path) -> None:
    """A picture and a sound that the placeholder understands."""
    folder.mkdir(exist_ok=True)
    scene = next(scenes(1, held_out=True, seed=3))
    scene.picture.save(folder / "frame.jpg", quality=92)
    soundfile.write(folder / "sound.wav", scene.waveform, RATE, subtype="PCM_16")


def main() -> None:
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report = train_in_the_world(folder)
        print(json.dumps(report["maps"]))
        ship_model(folder / "run", report)
    ship_media(ROOT / "tests" / "media")


if __name__ == "__main__":
    main()
