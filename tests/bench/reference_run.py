"""Run one stage of the reference in a separate process: `python -m tests.bench.reference_run STAGE FOLDER ...`.

* `prepare VIDEOS OUT`: one video at a time; the middle frame to `OUT/frames/<id>.png`, three seconds of mono sound at
  22 050 Hz around it to `OUT/audio/<id>.flac`. The authors' script is not published; the output has the format that
  their loader reads.
* `distill MEDIA OUT WEIGHTS`: both teachers, one clip at a time, one `.npy` file per hint. The authors' scripts are not
  published; settings are those of the test script and of `panns-inference`.
* `epoch MEDIA HINTS BATCH WORKERS`: the training loop over media files and `.npy` hints, with a checkpoint.
* `eval MEDIA BOXES MODEL PRIOR`: the test script; prints the mean scores as JSON.
"""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE, SECONDS = 22_050, 3.0
TEACHER_RATE, TEACHER_SIDE, CONFIDENCE = 32_000, 800, 0.3


def prepare(videos: str, out: str) -> None:
    """Extract the media files that the loader reads."""
    for part in ("frames", "audio"):
        (Path(out) / part).mkdir(parents=True)
    for path in sorted(Path(videos).glob("*.mp4")):
        middle_s = _middle(path)
        _frame(path, middle_s).save(Path(out) / "frames" / f"{path.stem}.png")
        waveform = _waveform(path)
        start = max(round((middle_s - SECONDS / 2) * RATE), 0)
        cut = waveform[start : start + int(SECONDS * RATE)]
        soundfile.write(Path(out) / "audio" / f"{path.stem}.flac", cut, RATE, subtype="PCM_16")


def _middle(path: Path) -> float:
    import av

    with av.open(str(path)) as container:
        return container.duration / av.time_base / 2


def _frame(path: Path, time_s: float):
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        container.seek(int(Fraction(time_s) / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.time >= time_s:
                break
        return frame.to_image()


def _waveform(path: Path) -> NDArray[np.float32]:
    import av

    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        parts = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate([part.to_ndarray()[0] for part in parts])


def distill(media: str, out: str, weights: str) -> None:
    """Compute hints, one clip at a time."""
    import torch
    from PIL import Image
    from transformers import DetrForObjectDetection

    from avloc.networks.cnn14 import load_cnn14
    from avloc.weights import CNN14, DETR

    panns = load_cnn14(CNN14.under(Path(weights)))
    detr = DetrForObjectDetection.from_pretrained(DETR.under(Path(weights)), attn_implementation="eager").eval()
    folders = [Path(out) / name for name in ("audio_feats", "detr_dec_feats")]
    for folder in folders:
        folder.mkdir(parents=True)
    with torch.no_grad():
        for path in sorted((Path(media) / "audio").glob("*.flac")):
            embedding = panns(torch.from_numpy(_at_teacher_rate(path))[None])["embedding"][0].numpy()
            np.save(folders[0] / f"{path.name}.npy", embedding / np.linalg.norm(embedding))
            (frame,) = (Path(media) / "frames").glob(f"{path.stem}.*")
            np.save(folders[1] / f"{path.stem}.jpg.npy", _attention(detr, Image.open(frame).convert("RGB")))


def _at_teacher_rate(path: Path) -> NDArray[np.float32]:
    import librosa

    waveform, rate = soundfile.read(path, dtype="float32")
    return librosa.resample(waveform, orig_sr=rate, target_sr=TEACHER_RATE)


def _attention(detr, picture) -> NDArray[np.float32]:
    from torchvision import transforms

    from tests.bench.reference import DEVIATION, MEAN

    side = (TEACHER_SIDE, TEACHER_SIDE)
    steps = [transforms.Resize(side), transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)]
    output = detr(pixel_values=transforms.Compose(steps)(picture)[None], output_attentions=True)
    keep = output.logits.softmax(-1)[0, :, :-1].max(-1).values > CONFIDENCE
    attention = output.cross_attentions[-1][0].mean(0)[keep].mean(0)
    return attention.view(TEACHER_SIDE // 32, -1).numpy()


def epoch(media: str, hints: str, batch: str, workers: str) -> None:
    """Train one epoch from random weights and save a checkpoint beside the media files."""
    import torch
    from torch.utils.data import DataLoader

    from avloc.config import TrainConfig
    from tests.bench.reference import ReferenceClips, ReferenceNet, optimiser_of, training_step

    ids = sorted(path.stem for path in (Path(media) / "frames").iterdir())
    clips = ReferenceClips(Path(media), ids, hints=Path(hints))
    how = {"batch_size": int(batch), "shuffle": True, "drop_last": True, "num_workers": int(workers)}
    network = ReferenceNet(TrainConfig().model.dim).train()
    optimiser = optimiser_of(network)
    for loaded in DataLoader(clips, collate_fn=ReferenceClips.collate, **how):
        training_step(network, optimiser, loaded)
    torch.save({"model": network.state_dict(), "optimizer": optimiser.state_dict()}, Path(media) / "latest.pth")


def evaluate(media: str, boxes: str, model: str, prior: str) -> None:
    """Print the mean scores of the test set."""
    import torch
    import torchvision
    from safetensors.torch import load_file

    from tests.bench.reference import ReferenceNet
    from tests.bench.reference_scoring import TestClips, scored

    state = load_file(model)
    network = ReferenceNet(len(state["aud_proj.bias"]))
    network.load_state_dict(state)
    classifier = torchvision.models.resnet18(weights=None)
    classifier.load_state_dict(torch.load(prior))
    features = torch.nn.Sequential(*list(classifier.children())[:-2])
    clips = TestClips(Path(media), json.loads(Path(boxes).read_text()))
    scores = list(scored(network.eval(), features.eval(), clips))
    print(json.dumps({kind: float(np.mean([score[kind] for score in scores])) for kind in scores[0]}))


if __name__ == "__main__":
    {"prepare": prepare, "distill": distill, "epoch": epoch, "eval": evaluate}[sys.argv[1]](*sys.argv[2:])
