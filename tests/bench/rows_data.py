"""Benchmark rows for data: prepare, distill-cache and loading."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

import av
import torch
from av.video.frame import VideoFrame
from torch.utils.data import DataLoader

from avloc.config import LossWeights, ModelConfig, TrainConfig
from avloc.dataset import clip_loader
from avloc.engine import Engine
from avloc.prepare import PrepareOptions
from avloc.prepare.clips import Job, make_clip
from avloc.prepare.sources import Source
from avloc.store import Store
from avloc.train.batches import EpochBatches
from avloc.train.clips import training_set
from avloc.weights import CNN14, DETR
from tests.bench import material
from tests.bench.reference import ReferenceClips
from tests.bench.timing import AVLOC, REFERENCE, Lap, Options, Row, compared, folder_bytes, interleaved, python
from tests.teacher_weights import save_cnn14, save_detr, save_whole_detr

PREPARED, CACHED = "avloc prepare", "avloc distill-cache"
_SMALL = ModelConfig(vision_trunk="resnet18:bn1", audio_trunk="resnet18:bn1")  # never run here
NO_HINTS = LossWeights(audio_hint=0, visual_hint=0)


def emptied(folder: Path, work: Callable[[], object]) -> Callable[[], None]:
    """Wrap `work` so that its previous output is deleted first."""

    def again() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        work()

    return again


def prepare(options: Options, work: Path) -> list[Row]:
    """`avloc prepare` on videos with two distances of key frames, and its share of decoding."""
    rows = []
    for distance, name in ((material.KEY_DISTANCE, "prepare"), (material.X264_DISTANCE, "prepare, x264's default")):
        folder = work / str(distance)
        seconds = 3.5 if options.quick else 10.0
        paths = material.videos(folder / "videos", options.count(36, 2), seconds=seconds, key_distance=distance)
        what = f"{len(paths)} videos of {seconds:g} s, 640 x 360, {distance} pictures between key frames,"
        rows += [_prepared(name, what, options, folder, len(paths)), _decoded(name, what, options, paths)]
    return rows


def _prepared(name: str, videos: str, options: Options, work: Path, clips: int) -> Row:
    """Whole processes."""
    plain, store = work / "plain", work / "store"
    spent = interleaved(
        options.repeats,
        {
            REFERENCE: emptied(plain, lambda: _reference("prepare", work / "videos", plain)),
            AVLOC: emptied(store, lambda: python("-m", "avloc", "prepare", work / "videos", "--out", store)),
        },
        warm=False,
    )
    sizes = {REFERENCE: folder_bytes(plain) / clips, AVLOC: folder_bytes(store) / clips}
    what = (
        f"{videos} to one picture and 3 s of sound each; whole processes: one process to PNG and FLAC files, and "
        f"`{PREPARED}` with its usual workers to a store"
    )
    return compared(name, what, spent, work=clips, unit="clips/s", **_sizes("bytes_per_clip", sizes))


def _decoded(name: str, videos: str, options: Options, paths: list[Path]) -> Row:
    """Clips made in this process, beside decoding what they need."""
    spec = PrepareOptions().spec
    jobs = [Job(source=Source(id=path.stem, kind="video", path=path), spec=spec) for path in paths]
    spent = interleaved(
        options.repeats,
        {
            REFERENCE: lambda: [decode_needed(path, spec.seconds) for path in paths],
            AVLOC: lambda: [make_clip(job) for job in jobs],
        },
    )
    what = (
        f"{videos} one after the other in one process: opening them and decoding the packets that a clip needs, and "
        "clips made of them"
    )
    return compared(f"{name}, beside decoding", what, spent, work=len(paths), unit="clips/s")


def decode_needed(path: Path, seconds: float) -> VideoFrame:
    """Decode the sound up to the end of the window, and the middle frame with those that it is predicted from."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        middle_s = container.duration / av.time_base / 2
        for frame in container.decode(audio):
            if frame.time >= middle_s + seconds / 2:
                break
        middle = int(middle_s / video.time_base)
        container.seek(middle, stream=video)
        packets = list(takewhile(lambda packet: packet.size and packet.dts <= middle, container.demux(video)))
        shown = max((packet for packet in packets if packet.pts <= middle), key=lambda packet: packet.pts)
        video.codec_context.thread_count = 1
        frames = []
        for packet in packets[: packets.index(shown) + 1]:
            video.codec_context.skip_frame = "DEFAULT" if packet is shown else "NONREF"
            frames += packet.decode()
        return next(one for one in frames + video.codec_context.decode(None) if one.pts == shown.pts)


def distill_cache(options: Options, work: Path) -> list[Row]:
    """`avloc distill-cache` with both teachers, in fp32 and bf16, and its networks alone."""
    clips = options.count(64, 2)
    material.media(work / "media", clips)
    opened = material.store(work / "media", work / "store")
    weights = _teachers(work / "weights", small=options.quick)
    npy = work / "npy"
    hints = [opened.folder / f"hints-{name}" for name in ("panns", "detr")]
    command = ("-m", "avloc", "distill-cache", opened.folder, "--weights-dir", weights, "--device", "cpu")
    alone: list[Lap] = []

    def ours(precision: str) -> None:
        for folder in hints:
            shutil.rmtree(folder, ignore_errors=True)
        python(*command, "--precision", precision)

    def networks() -> None:
        times = python("-m", "tests.bench.teachers_run", weights, clips).stdout.split()
        alone.append(Lap(*map(float, times)))

    spent = interleaved(
        options.few,
        {
            REFERENCE: emptied(npy, lambda: _reference("distill", work / "media", npy, weights)),
            "bf16": lambda: ours("bf16"),
            AVLOC: lambda: ours("fp32"),
            "networks": networks,
        },
        warm=False,
    )
    spent["networks"] = alone  # without the start of the process
    sizes = {REFERENCE: folder_bytes(npy) / clips, AVLOC: sum(map(folder_bytes, hints)) / clips}
    size = "a small DETR" if options.quick else "DETR-R50"
    what = (
        f"{clips} clips through Cnn14 and {size} of random weights; whole processes: batches of one and one npy a "
        f"hint, and `{CACHED}` with its usual batch"
    )
    both = f"{clips} clips through Cnn14 and {size}: whole processes of `{CACHED}` in"
    beside = "fp32 beside the forward passes of its networks on batches in memory; the ratio is the share"
    rate = {"work": clips, "unit": "clips/s"}
    return [
        compared("distill-cache", what, spent, **rate, **_sizes("bytes_of_hints", sizes)),
        compared("distill-cache, share of its networks", f"{both} {beside}", spent, reference="networks", **rate),
        compared("distill-cache, bf16 and fp32", f"{both} fp32 and bf16", spent, reference=AVLOC, avloc="bf16", **rate),
    ]


def _teachers(folder: Path, *, small: bool) -> Path:
    folder.mkdir()
    save_cnn14(CNN14.under(folder))
    (save_detr if small else save_whole_detr)(DETR.under(folder))
    return folder


def loading(options: Options, work: Path) -> list[Row]:
    """Loading of batches from disk in one process."""
    clips, batch = options.count(512, 8), options.size(64, 4)
    opened, contenders = _loaders(work, clips, batch)
    with _as_in_a_loader():
        spent = interleaved(options.repeats, contenders, warm=not options.quick)
    start = f"{clips // batch * batch} clips in batches of {batch}, one process, one thread;"
    theirs = "to float pictures cut out and spectrograms"
    ours = "avloc's store to uint8 frames and int16 sound (cut, flip and spectrogram belong to the step)"
    hints = {
        REFERENCE: folder_bytes(work / "npy") / clips,
        AVLOC: sum(folder_bytes(opened.folder / f"hints-{name}") for name in ("panns", "detr")) / clips,
    }
    rows = {
        "loading": ("png", "store", f"FLAC and PNG {theirs}; {ours}", {}),
        "loading, jpg": ("jpg", "store", f"FLAC and JPEG {theirs}; {ours}", {}),
        "loading, to networks": ("png", "store to networks", f"FLAC and PNG {theirs}; avloc's store to the same", {}),
        "loading, jpg, to networks": (
            "jpg",
            "store to networks",
            f"FLAC and JPEG {theirs}; avloc's store to the same",
            {},
        ),
        "loading, hints": (
            "png and npy",
            "store and hints",
            f"FLAC, PNG and two npy {theirs}; {ours}, hints from shards",
            _sizes("bytes_of_hints", hints),
        ),
    }
    rate_of = {"work": clips // batch * batch, "unit": "clips/s"}
    return [
        compared(name, f"{start} {what}", spent, reference=first, avloc=second, **rate_of, **facts)
        for name, (first, second, what, facts) in rows.items()
    ]


def _loaders(work: Path, clips: int, batch: int) -> tuple[Store, dict[str, Callable[[], None]]]:
    """All loaders of the same clips, by name."""
    folders = {suffix: work / suffix.strip(".") for suffix in (".png", ".jpg")}
    plain = {
        suffix: ReferenceClips(folder, material.media(folder, clips, suffix=suffix), suffix=suffix)
        for suffix, folder in folders.items()
    }
    opened = material.store(folders[".png"], work / "store")
    material.hints(opened, work / "npy")
    with_hints = ReferenceClips(folders[".png"], opened.ids, hints=work / "npy")
    bare = TrainConfig(model=_SMALL, loss=NO_HINTS, batch=batch, workers=0)
    inputs = _InputsOnly(_SMALL, torch.device("cpu"))
    return opened, {
        "png": lambda: _drained(plain[".png"], batch),
        "store": lambda: _ours(opened, bare),
        "jpg": lambda: _drained(plain[".jpg"], batch),
        "store to networks": lambda: _ours(opened, bare, inputs),
        "png and npy": lambda: _drained(with_hints, batch),
        "store and hints": lambda: _ours(opened, TrainConfig(batch=batch, workers=0)),
    }


@contextlib.contextmanager
def _as_in_a_loader() -> Iterator[None]:
    """Run torch with one thread, as in a loader process: more threads only add overhead on small tensors."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def _drained(clips: ReferenceClips, batch: int) -> None:
    loader = DataLoader(clips, batch_size=batch, shuffle=True, drop_last=True, collate_fn=ReferenceClips.collate)
    for _ in loader:
        pass


def _ours(opened: Store, config: TrainConfig, inputs: _InputsOnly | None = None) -> None:
    clips = training_set(opened, opened.ids, config)
    for batch in clip_loader(clips, EpochBatches(len(clips), config.batch, seed=0, epochs=1), workers=0):
        if inputs is not None:
            with contextlib.suppress(_Reached):
                inputs.training_step(batch, config, torch.Generator())


class _Reached(Exception):
    """Raised when the network inputs are ready."""


class _InputsOnly(Engine):
    """A training step that stops before the networks run."""

    def encode(self, frames, spectrograms):
        raise _Reached


def _sizes(name: str, sizes: dict[str, float]) -> dict[str, object]:
    return {name: {key: round(value) for key, value in sizes.items()}}


def _reference(stage: str, *arguments: object) -> None:
    python("-m", "tests.bench.reference_run", stage, *arguments)
