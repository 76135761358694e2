"""Fuzz targets, one for each reader of untrusted files: `python -m tests.faults.fuzz TARGET`.

A reader may return a result or raise one of avloc's own errors; anything else is a finding. `python -m tests.faults
fuzz` runs every target for a while under a coverage-guided fuzzer (`pip install atheris`); hypothesis runs the same
targets briefly in the tests. Past findings are kept as `findings/TARGET-*` and replayed in every test run.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

FINDINGS = Path(__file__).with_name("findings")


@dataclass(frozen=True)
class Target:
    """A reader, the name of the file that it reads, and seed inputs."""

    name: str
    file: str
    read: Callable[[Path], object]
    seeds: Callable[[], list[bytes]]

    def feed(self, data: bytes) -> None:
        """Read arbitrary bytes; avloc's own errors are suppressed.

        Raises:
            Exception: a finding.
        """
        from avloc.errors import AvlocError

        with contextlib.suppress(AvlocError):
            self.read_alone(data)

    def read_alone(self, data: bytes) -> None:
        """Read one file.

        Raises:
            AvlocError: the file is not valid.
        """
        path = _folder(self.name) / self.file
        path.write_bytes(data)
        self.read(path)


@cache
def _folder(name: str) -> Path:
    """A temporary folder for each target, in memory where possible."""
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix=f"avloc-{name}-", dir=shm if shm.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if name == "store-header":
        (folder / "shard-00000.h5").write_bytes(_store_files()["shard-00000.h5"])
    if name == "store-shard":
        (folder / "store.json").write_bytes(_store_files()["store.json"])
    return folder


@cache
def _store_files() -> dict[str, bytes]:
    from avloc.registry import StoreSpec
    from avloc.store import Clip, StoreHeader, StoreWriter

    spec = StoreSpec(seconds=0.002, rate=8_000)
    with tempfile.TemporaryDirectory() as folder:
        with StoreWriter(Path(folder), StoreHeader(spec=spec)) as writer:
            for name in ("a", "b"):
                sound, boxes = np.arange(spec.samples, dtype=np.int16), np.array([[0.0, 0.0, 0.5, 1.0]])
                writer.add(Clip(id=name, picture=b"jpeg", sound=sound, frame_hw=(3, 4), boxes=boxes, mask=b"png"))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _annotations(path: Path) -> object:
    from avloc.annotations.boxes import read_annotations

    found = read_annotations(path)
    return [found.find(name) for name in found.ids]


def _xml_folder(path: Path) -> object:
    return _annotations(path.parent)


def _ids(path: Path) -> object:
    from avloc.annotations.testsets import read_ids

    return read_ids(str(path))


def _config(path: Path) -> object:
    from avloc.config import TrainConfig, from_dict, read_toml

    return from_dict(TrainConfig, read_toml(path))


def _model(path: Path) -> object:
    from avloc.checkpoint import load_model

    return load_model(path)


def _layers(path: Path) -> object:
    from tests.recipe.tflite import read_layers

    return read_layers(path)


def _store(path: Path) -> object:
    from avloc.store import Store

    store = Store(path.parent)
    return [store.read(clip_id) for clip_id in store.ids], store.annotated(), store.flag_counts(), store.data_hash()


def _picture(path: Path) -> object:
    from avloc.media.pictures import decode_picture

    return decode_picture(path.read_bytes())


def _box_files() -> list[bytes]:
    return [
        json.dumps(
            {"a.mp4": [[0, 0, 0.5, 1]], "b/c.jpg": {"boxes": [[0.1, 0.1, 0.2, 0.2]], "label": "dog | dog"}}
        ).encode(),
        json.dumps([{"file": "ab_000030", "class": "dog barking", "bbox": [[0.1, 0.2, 0.3, 0.4]]}]).encode(),
    ]


def _xml_files() -> list[bytes]:
    corners = "".join(
        f"<{name}>{value}</{name}>" for name, value in zip(("a", "b", "c", "d"), (1, 2, 30, 40), strict=True)
    )
    size = "<size><width>64</width><height>64</height></size>"
    return [
        f"<annotation><bbox>{corners}</bbox></annotation>".encode(),
        f"<annotation>{size}<object><bndbox>{corners}</bndbox></object></annotation>".encode(),
    ]


def _model_files(ending: str) -> Callable[[], list[bytes]]:
    def made() -> list[bytes]:
        import torch

        from avloc.checkpoint import save_model
        from tests.small_models import SMALL

        if ending == ".pth":
            file = io.BytesIO()
            state = {"img_proj.weight": torch.zeros(4, 2, 1, 1), "aud_proj.weight": torch.zeros(4, 2)}
            torch.save({"model": state, "epoch": 3, "best": np.float64(0.5)}, file)
            return [file.getvalue()]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            save_model(path, SMALL, {"img_proj.weight": torch.zeros(2, 2)}, {"name": "seed"})
            return [path.read_bytes()]

    return made


def _tflite_files() -> list[bytes]:
    from tests.recipe_makers import tflite

    bias = np.zeros(2, "f4")
    return [
        tflite([("full", np.ones((2, 3), "f4"), None, 0, bias), ("conv", np.ones((2, 3, 3, 1), "f4"), None, 0, bias)])
    ]


def _picture_files() -> list[bytes]:
    from PIL import Image

    made = []
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "TGA", "ICO", "AVIF"):
        file = io.BytesIO()
        Image.new("RGB", (9, 7), (200, 30, 30)).save(file, kind)
        made.append(file.getvalue())
    return made


TARGETS = {
    target.name: target
    for target in (
        Target("boxes", "boxes.json", _annotations, _box_files),
        Target("flickr-xml", "clip.xml", _xml_folder, _xml_files),
        Target(
            "ids",
            "ids.txt",
            _ids,
            lambda: [b"ab_000030\ncd_000010\n", b"video,audio,label\na,b,1\n", b'-0PQM4-hqg_,30,"a, b",train\n'],
        ),
        Target("config", "config.toml", _config, lambda: [b"epochs = 3\n[model]\ndim = 64\n[loss]\nbox = 0.5\n"]),
        Target("checkpoint", "model.pth", _model, _model_files(".pth")),
        Target("model-file", "model.safetensors", _model, _model_files(".safetensors")),
        Target("tflite", "yamnet.tflite", _layers, _tflite_files),
        Target("store-header", "store.json", _store, lambda: [_store_files()["store.json"]]),
        Target("store-shard", "shard-00000.h5", _store, lambda: [_store_files()["shard-00000.h5"]]),
        Target("picture", "picture", _picture, _picture_files),
    )
}


def findings(name: str) -> Iterator[Path]:
    """Files of past findings."""
    return iter(sorted(FINDINGS.glob(f"{name}-*")))


def main() -> None:
    """Run atheris; libFuzzer's options follow the target's name, for example `-max_total_time=60`."""
    import atheris

    target = TARGETS[sys.argv[1]]
    with atheris.instrument_imports(include=["avloc", "tests.recipe.tflite"]):
        target.seeds()
        import tests.recipe.tflite  # noqa: F401
    corpus = Path(tempfile.mkdtemp(prefix="avloc-corpus-"))
    for number, data in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(data)
    for path in findings(target.name):
        shutil.copy(path, corpus)
    atheris.Setup([sys.argv[0], *sys.argv[2:], str(corpus)], target.feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
