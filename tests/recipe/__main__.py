"""`python -m tests.recipe yamnet`, `faces`, `compose`, `train` and `ship`: the shipped model, from material to file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from avloc.errors import WeightsError
from avloc.weights import YAMNET
from tests.recipe.boxes import FACES, faces_of
from tests.recipe.ship import ship
from tests.recipe.train import composed, train
from tests.recipe.yamnet import convert_yamnet

LITE, OPEN = "avloc-lite", "avloc-open"
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
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("--data", type=Path, required=True, help="folder with classes/ and everyday/")
        command.add_argument("--weights", type=Path, required=True, help=f"folder with {WEIGHT_FILES}")
        command.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
        if name != "faces":
            command.add_argument("--model", choices=(LITE, OPEN), default=LITE, help=f"{OPEN}: {OPEN_HELP}")
            command.add_argument("--clips", type=int, default=7500, help="training clips")
            command.add_argument("--seed", type=int, default=0)
    command = commands.add_parser("ship", help="Measure a run on unseen files and put it into the package.")
    command.add_argument("--out", type=Path, required=True, help="the folder of `train`")
    command = commands.add_parser("yamnet", help="Convert the published YAMNet to the file that avloc reads.")
    command.add_argument("file", type=Path, metavar="FILE.tflite")
    command.add_argument("--out", type=Path, help="the file to write  [default: yamnet.safetensors beside FILE.tflite]")
    return out


def run(arguments: argparse.Namespace) -> None:
    """One command; it prints what it made."""
    out = arguments.out
    if arguments.command == "yamnet":
        print(convert_yamnet(arguments.file, out or arguments.file.with_name(YAMNET.files[0].name)))
    elif arguments.command == "ship":
        print(json.dumps(ship(out / "run", out), indent=2))
    elif arguments.command == "faces":
        found = faces_of(arguments.data, out, arguments.weights)
        print(f"{out / FACES}: {sum(map(len, found.values()))} faces in {len(found)} pictures")
    else:
        make = composed if arguments.command == "compose" else train
        how = {"clips": arguments.clips, "seed": arguments.seed, "open_only": arguments.model == OPEN}
        print(make(arguments.data, arguments.weights, out, **how))


def main(given: list[str] | None = None) -> None:
    try:
        run(parser().parse_args(given))
    except WeightsError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main()
