"""`python -m tests.recipe yamnet`, `compose`, `train` and `ship`: the model in the package, from material to file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from avloc.errors import WeightsError
from avloc.weights import YAMNET
from tests.recipe.compose import compose
from tests.recipe.ship import ship
from tests.recipe.train import train
from tests.recipe.yamnet import convert_yamnet


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m tests.recipe", description="Make the shipped model.")
    commands = out.add_subparsers(dest="command", required=True)
    for name, words in (("compose", "Compose clips."), ("train", "Compose, prepare, distill and train.")):
        command = commands.add_parser(name, help=words)
        command.add_argument("--data", type=Path, required=True, help="pictures and sounds by class")
        command.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
        command.add_argument("--clips", type=int, default=7500, help="training clips")
        command.add_argument("--seed", type=int, default=0)
        if name == "train":
            command.add_argument("--weights", type=Path, required=True, help="folder with yamnet.safetensors")
    command = commands.add_parser("ship", help="Measure a run on unseen files and put it into the package.")
    command.add_argument("--out", type=Path, required=True, help="the folder of `train`")
    command = commands.add_parser("yamnet", help="Convert the published YAMNet to the file that avloc reads.")
    command.add_argument("file", type=Path, metavar="FILE.tflite")
    command.add_argument("--out", type=Path, help="the file to write  [default: yamnet.safetensors beside FILE.tflite]")
    return out


def main(given: list[str] | None = None) -> None:
    arguments = parser().parse_args(given)
    out = arguments.out
    if arguments.command == "yamnet":
        try:
            print(convert_yamnet(arguments.file, out or arguments.file.with_name(YAMNET.files[0].name)))
        except WeightsError as error:
            print(error, file=sys.stderr)
            raise SystemExit(error.exit_code) from error
        return
    if arguments.command == "ship":
        print(json.dumps(ship(out / "run", out), indent=2))
        return
    data, how = arguments.data, {"clips": arguments.clips, "seed": arguments.seed}
    if arguments.command == "compose":
        compose(data, out, **how)
    else:
        print(train(data, arguments.weights, out, **how))


if __name__ == "__main__":
    main()
