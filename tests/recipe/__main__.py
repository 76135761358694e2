"""`python -m tests.recipe compose`, `train` and `ship`: the model in the package, from material to file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tests.recipe.compose import compose
from tests.recipe.ship import ship
from tests.recipe.train import train


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.recipe", description="Make the shipped model.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (("compose", "Compose clips."), ("train", "Compose, prepare, distill and train.")):
        command = commands.add_parser(name, help=words)
        command.add_argument("--data", type=Path, required=True, help="pictures and sounds by class")
        command.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
        command.add_argument("--clips", type=int, default=7500, help="training clips")
        command.add_argument("--seed", type=int, default=0)
        if name == "train":
            command.add_argument("--weights", type=Path, required=True, help="folder with the teachers' weights")
    command = commands.add_parser("ship", help="Measure a run on unseen files and put it into the package.")
    command.add_argument("--out", type=Path, required=True, help="the folder of `train`")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    out = arguments.out
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
