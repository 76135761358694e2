"""Benchmark rows for maps and scores: networks only, scoring only, and a whole test set."""

from __future__ import annotations

import json
import math
import resource
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from avloc.annotations.boxes import published_boxes
from avloc.checkpoint import load_model
from avloc.dataset import ClipSet, clip_loader
from avloc.engine import SILENCE, ClipCells, Engine
from avloc.evaluate.protocol_scores import LabelledCells, score_protocols
from avloc.heatmap import heat_maps
from avloc.malloc import keep_freed_memory
from avloc.priors import ObjectPrior
from avloc.protocols import PROTOCOLS
from avloc.store import Store
from avloc.weights import lookup
from tests.bench import material
from tests.bench.random_weights import no_hash
from tests.bench.reference import ReferenceNet, log_spectrogram, test_transform
from tests.bench.reference_scoring import similarity_maps
from tests.bench.timing import AVLOC, REFERENCE, Options, Row, alone, compared, interleaved, python, walls

SCORED = ("avloc", "ezvsl", "lvs", "sspl")
MAPS = ("av", "object", "fused")
BF16, FP32 = "avloc bf16", "avloc fp32"
NETWORKS = {BF16: "networks bf16", FP32: "networks fp32"}
_DISTINCT = 64
_BATCH = 16


def made_up_clips(count: int) -> list[LabelledCells]:
    """VGG-SS's boxes with maps of noise."""
    draws = np.random.default_rng(0)
    known = sorted(published_boxes().by_id.items())[:count]
    return [
        LabelledCells(
            cells=ClipCells(
                id=clip_id,
                boxes=annotation.boxes,
                maps={name: draws.random((7, 7), np.float32) for name in ("av", "object")},
                wrong={SILENCE: draws.random((1, 7, 7), np.float32)},
            )
        )
        for clip_id, annotation in known
    ]


def scoring(options: Options, _work: Path) -> list[Row]:
    """Scores of VGG-SS's clips under four protocols, without networks."""
    made = made_up_clips(options.count(5158, 20))
    protocols = [PROTOCOLS[name] for name in SCORED]
    spent = interleaved(options.repeats, {AVLOC: lambda: score_protocols(made, protocols, "union", MAPS)}, warm=False)
    what = f"{len(made)} clips x {len(MAPS)} maps x {len(SCORED)} protocols, baselines and intervals included"
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return [alone("scoring", what, walls(spent[AVLOC]), peak_mb=peak)]


class _Pictures:
    """A batch of synthetic clips for both sides, and networks with the same weights."""

    def __init__(self, work: Path, batch: int) -> None:
        path, config = material.published_size_model(work / "model.safetensors")
        file = load_model(path)
        self.network = ReferenceNet(config.dim)
        self.network.load_state_dict(file.state)
        self.network.eval()
        self.engines = {name: Engine.from_file(file, torch.device("cpu"), name) for name in ("bf16", "fp32")}
        frames = [Image.fromarray(material.picture(seed)).resize((config.frame,) * 2) for seed in range(batch)]
        sounds = np.stack([material.sound(seed) for seed in range(batch)])
        self.frames = torch.from_numpy(np.stack([np.asarray(frame) for frame in frames])).permute(0, 3, 1, 2)
        self.sounds = torch.from_numpy(np.round(sounds * 32_767).astype(np.int16))
        self.rate = config.rate
        self.tensors = torch.stack([test_transform()(frame) for frame in frames])
        self.spectrograms = torch.stack([log_spectrogram(sound, self.rate) for sound in sounds])

    def ours(self, precision: str) -> torch.Tensor:
        return self.engines[precision].predict(self.frames.contiguous(), self.sounds, self.rate)

    @torch.no_grad()
    def theirs(self) -> torch.Tensor:
        return similarity_maps(self.network, self.tensors, self.spectrograms)


def inference(options: Options, work: Path) -> list[Row]:
    """Inference on a batch in memory."""
    batch = options.size(16, 2)
    made = _Pictures(work, batch)
    contenders = {REFERENCE: made.theirs, BF16: lambda: made.ours("bf16"), FP32: lambda: made.ours("fp32")}
    spent = interleaved(options.repeats, contenders)
    heats = {name: heat_maps(made.ours(name), (224, 224)) for name in ("bf16", "fp32")}
    apart = (heats["bf16"] - heats["fp32"]).abs()
    facts = {"heat_bf16_to_fp32": {"largest": _digits(apart.max()), "mean": _digits(apart.mean())}}
    start = f"batch of {batch}, two ResNet18, 2048 dimensions;"
    plain = "fp32 NCHW, similarity of all pairs, tensors ready for the networks"
    ours = "from uint8 frames and int16 sound, own pairs alone"
    rate_of = {"work": batch, "unit": "pairs/s"}
    return [
        compared("inference", f"{start} {plain}; avloc in bf16 {ours}", spent, avloc=BF16, **rate_of, **facts),
        compared("inference, fp32", f"{start} {plain}; avloc in fp32 {ours}", spent, avloc=FP32, **rate_of),
    ]


def _digits(value: torch.Tensor) -> float:
    return float(f"{value.item():.3g}")


class _Networks:
    """The networks of `eval` on one batch in memory, again and again: the model's and that of the object prior."""

    def __init__(self, model: Path, prior: Path, precision: str) -> None:
        file = load_model(model)
        self.engine = Engine.from_file(file, torch.device("cpu"), precision)
        with patch.object(lookup, "hash_in_name", no_hash):
            self.prior = ObjectPrior("resnet18", prior.parent, torch.device("cpu"), precision=precision)
        self.frames = torch.randint(0, 256, (_BATCH, 3, file.config.frame, file.config.frame), dtype=torch.uint8)
        self.sound = torch.randint(-9999, 9999, (_BATCH, int(file.config.seconds * file.config.rate))).short()

    @torch.inference_mode()
    def run(self, clips: int) -> None:
        for _ in range(math.ceil(clips / _BATCH)):
            self.engine.predict(self.frames, self.sound, self.engine.config.rate)
            self.prior.maps(self.frames)


def _test_set(work: Path, clips: int) -> tuple[Path, Store, Path, Path]:
    """Boxes, store, model and weights of the prior."""
    ids = material.media(work / "media", clips, suffix=".jpg", distinct=_DISTINCT)
    boxes = material.boxes(work / "media", ids, ".jpg")
    store = material.store(work / "media", work / "store", annotations=boxes)
    model, _ = material.published_size_model(work / "model.safetensors")
    return boxes, store, model, material.object_prior_weights(work / "weights")


def evaluation_share(options: Options, work: Path) -> list[Row]:
    """Processor time of a clip in `eval`, in one thread: networks, loading and scoring, without the start."""
    clips, before = options.count(64, 4), torch.get_num_threads()
    keep_freed_memory()  # as `eval` does
    _, store, model, prior = _test_set(work, clips)
    networks = {name: _Networks(model, prior, name.split()[1]) for name in (BF16, FP32)}
    files = ClipSet(store, store.ids, networks[FP32].engine.config, prior_side=networks[FP32].prior.side)
    made, protocol = made_up_clips(4 * clips), [PROTOCOLS["avloc"]]
    torch.set_num_threads(1)
    spent = interleaved(
        options.repeats,
        {
            **{NETWORKS[name]: lambda own=own: own.run(_BATCH) for name, own in networks.items()},
            "loading": lambda: list(clip_loader(files, batch=_BATCH)),
            "scoring": lambda: score_protocols(made, protocol, "union", MAPS),
        },
    )
    torch.set_num_threads(before)
    counts = {**dict.fromkeys(NETWORKS.values(), _BATCH), "loading": clips, "scoring": len(made)}
    ms = {name: [1000 * one.processor_s / counts[name] for one in laps] for name, laps in spent.items()}
    rest = median(ms["loading"]) + median(ms["scoring"])
    facts = {"ms_a_clip": {name: round(median(values), 2) for name, values in ms.items()}}
    what = f"networks / (networks + loading + scoring), one protocol, {len(MAPS)} maps, one thread, processor time; "
    return [
        alone(f"evaluation share, {name.split()[1]}", what + name, [one / (one + rest) for one in ms[net]], "", **facts)
        for name, net in NETWORKS.items()
    ]


def evaluation(options: Options, work: Path) -> list[Row]:
    """Evaluation of a test set from disk, whole processes."""
    clips = options.count(1000, 4)
    keep_freed_memory()  # for the networks alone, as `eval` does
    boxes, store, model, prior = _test_set(work, clips)
    networks = {name: _Networks(model, prior, name.split()[1]) for name in (BF16, FP32)}
    scores: dict[str, Any] = {}

    def theirs() -> None:
        done = python("-m", "tests.bench.reference_run", "eval", work / "media", boxes, model, prior)
        scores[REFERENCE] = json.loads(done.stdout)

    def ours(precision: str) -> None:
        arguments = ("eval", model, "--store", store.folder, "--maps", ",".join(MAPS), "--weights-dir", prior.parent)
        done = python(
            "-m", "tests.bench.random_weights", *arguments, "--precision", precision, "--device", "cpu", "--json"
        )
        report = json.loads(done.stdout.splitlines()[0])
        scores[precision] = {name: report["maps"][name]["overall"]["mean_ciou"] for name in MAPS}

    contenders = {REFERENCE: theirs, BF16: lambda: ours("bf16"), FP32: lambda: ours("fp32")}
    contenders |= {NETWORKS[name]: lambda own=own: own.run(clips) for name, own in networks.items()}
    spent = interleaved(options.few, contenders, warm=False)
    start = f"{clips} clips ({min(clips, _DISTINCT)} differ), maps av, object and fused, whole processes from disk;"
    rate_of = {"work": clips, "unit": "clips/s"}
    rows = []
    for name, precision in ((BF16, "bf16"), (FP32, "fp32")):
        side = f"`avloc eval` in {precision} with its baselines and intervals"
        both = {REFERENCE: scores[REFERENCE], AVLOC: scores[precision]}
        beside = "beside the networks on a batch in memory, already loaded; the ratio is the share"
        rows += [
            compared(
                f"evaluation, {precision}",
                f"{start} one clip after the other in fp32; {side}",
                spent,
                avloc=name,
                **rate_of,
                mean_ciou=both,
            ),
            compared(
                f"evaluation, {precision}, share of its networks",
                f"{start} {side}, {beside}",
                spent,
                reference=NETWORKS[name],
                avloc=name,
                **rate_of,
            ),
        ]
    return rows
