"""`python -m tests.recipe make`: the shipped model, from material to file; or its stages one by one."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from avloc.errors import AvlocError
from avloc.weights import YAMNET
from tests.recipe.boxes import FACES, faces_of
from tests.recipe.fit import FITTED, fitted
from tests.recipe.folds import five_folds, score_fitted, table
from tests.recipe.people import score_people
from tests.recipe.ship import LITE, OPEN, score_of_shipped, ship
from tests.recipe.train import composed, train
from tests.recipe.yamnet import convert_yamnet

OPEN_HELP = "train only on material that may be used for any purpose"
WEIGHT_FILES = "yamnet.safetensors, pnet.pt, rnet.pt and onet.pt"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m tests.recipe", description="Make the shipped model.")
    commands = out.add_subparsers(dest="command", required=True)
    for name, words in (
        ("faces", "Find faces in the pictures of people."),
        ("compose", "Find faces and compose clips."),
        ("train", "Find faces, compose, prepare, distill and train."),
        ("fit", "Fit the projections of the run of `train` on its backbones' features."),
        ("folds", f"Fit without each fifth of the real clips, and measure and calibrate on that; {OPEN}: measure."),
        ("make", "All of it: train, fit, folds and ship. Stopped, it goes on where it was."),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("--data", type=Path, required=True, help="folder with classes/, everyday/ and real/")
        command.add_argument("--weights", type=Path, required=True, help=f"folder with {WEIGHT_FILES}")
        command.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
        if name != "faces":
            _add_model(command)
            command.add_argument("--seed", type=int, default=0)
        if name not in ("faces", "fit", "folds"):
            command.add_argument("--clips", type=int, default=10000, help="training clips")
    command = commands.add_parser("ship", help="Measure a fitted model on unseen files and put it into the package.")
    command.add_argument("--out", type=Path, required=True, help="the folder of `fit`")
    _add_model(command)
    command = commands.add_parser("yamnet", help="Convert the published YAMNet to the file that avloc reads.")
    command.add_argument("file", type=Path, metavar="FILE.tflite")
    command.add_argument("--out", type=Path, help="the file to write  [default: yamnet.safetensors beside FILE.tflite]")
    return out


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", choices=(LITE, OPEN), default=LITE, help=f"{OPEN}: {OPEN_HELP}")


def run(arguments: argparse.Namespace) -> None:
    """One command; it prints what it made."""
    out = arguments.out
    if arguments.command == "yamnet":
        print(convert_yamnet(arguments.file, out or arguments.file.with_name(YAMNET.files[0].name)))
    elif arguments.command == "faces":
        found = faces_of(arguments.data, out, arguments.weights)
        print(f"{out / FACES}: {sum(map(len, found.values()))} faces in {len(found)} pictures")
    elif arguments.command == "ship":
        print(json.dumps(ship(out / FITTED, out, arguments.model), indent=2))
    else:
        _make(arguments)


def _make(arguments: argparse.Namespace) -> None:
    """`compose`, `train`, `fit`, `folds` or, in `make`, all stages."""
    where = arguments.data, arguments.weights, arguments.out
    how = {"seed": arguments.seed, "open_only": arguments.model == OPEN}
    if arguments.command == "compose":
        print(composed(*where, clips=arguments.clips, **how))
    if arguments.command in ("train", "make"):
        print(train(*where, clips=arguments.clips, **how))
    if arguments.command in ("fit", "make"):
        print(fitted(*where, **how))
    if arguments.command in ("folds", "make"):
        if arguments.model == OPEN:
            print(table(score_fitted(*where)))
        else:
            print(table(five_folds(*where, seed=arguments.seed)))
            print(json.dumps(score_people(*where), indent=2))
    if arguments.command == "make":
        made = arguments.out / FITTED, arguments.out, arguments.model
        print(json.dumps(score_of_shipped(*made) or ship(*made), indent=2))


def main(given: list[str] | None = None) -> None:
    try:
        run(parser().parse_args(given))
    except AvlocError as error:
        print(error, error.hint, sep="\n", file=sys.stderr)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main()
