"""One small job for each of the five commands: its inputs, its outputs, and digests of what must be reproducible."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from avloc.config import parse_settings, resolve_config
from avloc.store import Store
from avloc.store.hints import Hints
from avloc.store.shard_file import Shard
from avloc.weights import DETR, YAMNET
from tests.media_makers import make_video, tone
from tests.recipe_makers import save_yamnet
from tests.small_models import TINY_METHODS, narrowed, save_small
from tests.synthetic_scenes import write_media, write_store
from tests.teacher_weights import save_detr

CLIPS, VIDEOS = 14, 3
TEACHERS = ("yamnet", "detr")
TRAINING = ("batch=2", "epochs=2", "workers=1")


@dataclass(frozen=True)
class Inputs:
    """Inputs of all scenarios; written once, then read-only."""

    folder: Path
    method: str = "avc"
    """The method of the model that is trained, scored and used."""

    def make(self) -> None:
        """Write media (two of them broken), a store, a model and teachers, all small and random."""
        self.folder.mkdir(parents=True)
        media = write_media(self.folder / "media", clips=CLIPS, held_out=False, seed=1)
        (media / "frames" / "broken.jpg").write_bytes(b"\xff\xd8 cut off")
        (media / "audio" / "broken.wav").write_bytes(b"RIFF")
        (media / "frames" / "dumb.jpg").write_bytes((media / "frames" / "scene1-0000.jpg").read_bytes())
        (media / "audio" / "dumb.wav").write_bytes(b"")
        write_store(self.folder / "store", CLIPS, hints=True)
        weights = self.folder / "weights"
        weights.mkdir()
        save_yamnet(YAMNET.under(weights))
        save_detr(DETR.under(weights))
        with narrowed():
            config = resolve_config(parse_settings(TINY_METHODS[self.method]), self.method).model
            save_small(self.folder / "model.safetensors", config)
        (self.folder / "videos").mkdir()
        for number in range(VIDEOS):
            path = self.folder / "videos" / f"clip{number}.mp4"
            make_video(path, seconds=1.5, sound=tone(1.5, 22_050))


@dataclass(frozen=True)
class Scenario:
    """A command whose output is reproducible when it is resumed."""

    name: str
    arguments: Callable[[Inputs, Path], list[str]]
    """Inputs and output folder -> the command line. Everything is written to the output folder."""
    contents: Callable[[Path], dict[str, str]]
    """Output folder -> digest of each item that must be reproducible, by name."""
    begin: Callable[[Inputs, Path], None] = lambda _inputs, out: out.mkdir()
    written: str = "**/*"
    """Glob of the files that the command writes."""
    again: tuple[tuple[str, ...], ...] = ((),)
    """Extra arguments for resumed runs; they must not change the result."""
    lap: str = ""
    """The file that is rewritten at the end of each lap, such as an epoch; empty: the whole command is one lap."""


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()[:16]


def _ids(paths: list[Path]) -> list[str]:
    """Ids of all shards in order, duplicates included."""
    return [clip_id for path in paths for clip_id in Shard(path).texts("id")]


def _id_counts(paths: list[Path]) -> dict[str, str]:
    ids = _ids(paths)
    return {"ids": " ".join(sorted(ids)), "twice": " ".join(sorted({name for name in ids if ids.count(name) > 1}))}


def _store_contents(out: Path) -> dict[str, str]:
    folder = out / "store"
    store, found = Store(folder), _id_counts(sorted(folder.glob("shard-*.h5")))
    for clip_id in store.ids:
        clip = vars(store.read(clip_id)).copy()
        media = [clip.pop("picture"), clip.pop("sound").tobytes(), clip.pop("boxes").tobytes(), clip.pop("mask")]
        found[f"clip {clip_id}"] = _digest(*media, repr(sorted(clip.items())).encode())
    for name in ("store.json", "skipped.jsonl"):
        found[name] = _digest((folder / name).read_bytes())
    return found


def _hint_contents(out: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for teacher in TEACHERS:
        hints = Hints(out / "store", teacher)
        shards = sorted(hints.folder.glob("shard-*.h5"))
        found |= {f"{teacher} {name}": text for name, text in _id_counts(shards).items()}
        for clip_id in Store(out / "store").ids:
            hint = hints.read(clip_id)
            found[f"{teacher} {clip_id}"] = "no hint" if hint is None else _digest(np.ascontiguousarray(hint).tobytes())
        found[f"{teacher} stamp"] = json.dumps(hints.stamp, sort_keys=True)
    return found


def _tensors(values: Mapping[str, torch.Tensor]) -> dict[str, str]:
    return {key: _digest(value.contiguous().numpy().tobytes()) for key, value in sorted(values.items())}


def _run_contents(out: Path) -> dict[str, str]:
    folder, found = out / "run", {}
    for name in ("model.safetensors", "last.safetensors"):
        with safe_open(folder / name, "pt") as file:
            saved = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
            card = json.loads(file.metadata()["avloc"])["card"]
        del card["config"]["workers"]  # may change when a run resumes, as may `epochs`
        found[f"{name} card"] = json.dumps(card, sort_keys=True)
        found |= {f"{name} {key}": value for key, value in _tensors(saved).items()}
    state = torch.load(folder / "trainer-state.pt", weights_only=True)
    found["progress"] = json.dumps(state["progress"], sort_keys=True)
    for index, entry in state["optimiser"]["state"].items():
        found |= {f"optimiser {index} {key}": value for key, value in _tensors(entry).items()}
    found |= {name: _digest((folder / name).read_bytes()) for name in ("metrics.jsonl", "curves.png")}
    return found


def _files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): _digest(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def _copy_store(inputs: Inputs, out: Path) -> None:
    out.mkdir()
    shutil.copytree(inputs.folder / "store", out / "store", ignore=shutil.ignore_patterns("hints-*"))


def _prepare(inputs: Inputs, out: Path) -> list[str]:
    media = inputs.folder / "media"
    boxes = ("--kind", "train", "--annotations", str(media / "boxes.json"))
    return ["prepare", str(media), "--out", str(out / "store"), *boxes, "--workers", "1"]


def _distill(inputs: Inputs, out: Path) -> list[str]:
    teachers = [part for name in TEACHERS for part in ("--teacher", name)]
    return ["distill-cache", str(out / "store"), *teachers, "--weights-dir", str(inputs.folder / "weights")]


def _train(inputs: Inputs, out: Path) -> list[str]:
    settings = [part for each in (*TINY_METHODS[inputs.method], *TRAINING) for part in ("--set", each)]
    return ["train", str(inputs.folder / "store"), "--out", str(out / "run"), "--method", inputs.method, *settings]


def _eval(inputs: Inputs, out: Path) -> list[str]:
    model, store = str(inputs.folder / "model.safetensors"), str(inputs.folder / "store")
    return ["eval", model, "--store", store, "--maps", "av", "--report", str(out / "report")]


def _localize(inputs: Inputs, out: Path) -> list[str]:
    model = str(inputs.folder / "model.safetensors")
    places = ("--out", str(out / "{stem}-{time}.png"), "--skip-existing")
    return ["localize", str(inputs.folder / "videos"), "--every", "0.5", "--model", model, *places]


SCENARIOS = (
    Scenario("prepare", _prepare, _store_contents, again=((), ("--workers", "2"))),
    Scenario(
        "distill-cache",
        _distill,
        _hint_contents,
        begin=_copy_store,
        written="store/hints-*/*",
        again=((), ("--batch", "3")),
    ),
    Scenario(
        "train",
        _train,
        _run_contents,
        again=((), ("--set", "workers=0"), ("--set", "workers=2")),
        lap="last.safetensors",
    ),
    Scenario("eval", _eval, lambda out: _files(out / "report")),
    Scenario("localize", _localize, _files),
)


def unreadable(folder: Path) -> list[str]:
    """Files under final names that cannot be read completely; hidden (temporary) files are skipped."""
    broken = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            try:
                _read(path)
            except (OSError, ValueError, RuntimeError, KeyError, SyntaxError) as error:
                broken.append(f"{path.relative_to(folder)}: {error}")
    return broken


def _read(path: Path) -> None:
    text = {".json": json.loads, ".jsonl": lambda lines: [json.loads(line) for line in lines.splitlines()]}
    if path.suffix in text:
        text[path.suffix](path.read_text(encoding="utf-8"))
    elif path.suffix == ".h5":
        Shard(path).texts("id")
    elif path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118
                file.get_tensor(key)
    elif path.suffix == ".pt":
        torch.load(path, weights_only=True)
    elif path.suffix in (".png", ".jpg"):
        Image.open(path).load()
    elif path.suffix == ".npy":
        np.load(path)
    elif not path.stat().st_size:
        raise ValueError("is empty")
