"""The run folder: configuration, metrics, curves and models. `avloc.train.trainer_state` has the state for resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from avloc.checkpoint import LAST_NAME, MODEL_NAME, save_model
from avloc.config import LAST_EPOCH, ModelConfig, TrainConfig, dotted, from_dict, read_toml, to_dict, write_toml
from avloc.errors import Refused
from avloc.files import atomic_path, read_json_lines, write_bytes
from avloc.protocols import PRECISIONS

FREE_TO_CHANGE = ("epochs", "workers", "compile")
"""Settings that may differ when a run is resumed."""


class RunFolder:
    """Reads and writes one run; every file is replaced atomically."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check_config(self, config: TrainConfig, identity: dict[str, Any]) -> None:
        """Check that an existing run may be resumed.

        Raises:
            Refused: the folder holds a run with other settings, or another `identity`: data, selection, hints, initial
                weights.
        """
        path = self.path / "config.toml"
        if not path.is_file():
            return
        table = read_toml(path)
        if "train" not in table or "run" not in table:
            raise Refused(f"{path} is not the configuration of a run", hint="Take another --out.")
        stored = from_dict(TrainConfig, table["train"])
        theirs, ours = (dotted(to_dict(each)) for each in (stored, config))
        differ = [
            f"{name} was {value!r}, now {ours.get(name)!r}"
            for name, value in theirs.items()
            if name not in FREE_TO_CHANGE and value != ours.get(name)
        ]
        if config.optim.schedule != "constant" and stored.epochs != config.epochs:
            differ.append(
                f"epochs was {stored.epochs}, now {config.epochs}, and the learning rate falls until the last"
            )
        differ += [f"{name} (not as before)" for name, value in identity.items() if table["run"].get(name) != value]
        if differ:
            hint = "Take another --out, or delete the folder."
            raise Refused(f"{self.path} holds another run: {', '.join(differ)}", hint=hint)

    def precision(self, requested: str) -> str:
        """The precision of an existing run for `auto`, which depends on the machine; else `requested`."""
        path = self.path / "config.toml"
        table = read_toml(path).get("run") if requested == "auto" and path.is_file() else None
        stored = table.get("precision") if isinstance(table, dict) else None
        return stored if stored in PRECISIONS else requested

    def write_config(self, config: TrainConfig, about: dict[str, Any]) -> None:
        """Write `config.toml`: the settings, and the identity of the run."""
        table = {"run": about, "train": to_dict(config)}
        write_bytes(self.path / "config.toml", write_toml(table).encode())

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`, one an epoch."""
        lines = read_json_lines(self.path / "metrics.jsonl")
        if not all(isinstance(line.get("epoch"), int) for line in lines):
            raise Refused(f"{self.path / 'metrics.jsonl'} has a line without an epoch", hint="Delete that line.")
        return lines

    def write_metrics(self, lines: list[dict[str, Any]]) -> None:
        """Replace `metrics.jsonl` and redraw `curves.png`."""
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_bytes(self.path / "metrics.jsonl", text.encode())
        if lines:
            draw_curves(self.path / "curves.png", lines)

    def save_last(self, config: ModelConfig, model: torch.nn.Module, card: dict[str, Any], *, select: bool) -> None:
        """Write `last.safetensors`, and the same weights as `model.safetensors` if `select` is set.

        The card of `last.safetensors` always has the last epoch as its selection.
        """
        save_model(self.path / LAST_NAME, config, model.state_dict(), {**card, "selection": LAST_EPOCH})
        if select:
            save_model(self.path / MODEL_NAME, config, model.state_dict(), card)


def draw_curves(path: Path, lines: list[dict[str, Any]]) -> None:
    """Plot loss terms and the validation score over epochs."""
    from matplotlib.figure import Figure

    known = ("loss", "contrastive", "agreement", "event", "box", "peak", "audio_hint", "visual_hint", "val")
    terms = [name for name in known if any(name in line for line in lines)]
    figure = Figure(figsize=(3.2 * len(terms), 2.8), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(terms), squeeze=False)[0], terms, strict=True):
        points = [(line["epoch"], line[name]) for line in lines if name in line]
        axis.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else "")
        axis.set(title=name, xlabel="epoch")
        axis.grid(alpha=0.3)
    with atomic_path(path) as part:
        figure.savefig(part, format="png", dpi=110)
