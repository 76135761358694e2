"""A further method is one new file and one record: a copy of the package that has both goes through the commands.

The copy differs from the package in nothing else. The method is a plain one: teachers, regions, a rule of its own for
scoring or files of its authors would each need their part elsewhere, once.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import avloc as package
from tests.program import avloc
from tests.synthetic_scenes import write_media

METHOD = '''
"""Newcomer: the mean of all cells against the sound, with backbones of its own."""

import torch.nn.functional as F
from torch import nn

from avloc.errors import UsageError
from avloc.methods.base import Embeddings, Method
from avloc.distributed import ALONE
from avloc.transforms import log_spectrogram


def trunk(channels, width):
    return nn.Sequential(nn.Conv2d(channels, 16, 8, 4, 2), nn.ReLU(), nn.Conv2d(16, width, 8, 4, 2))


class Newcomer(Method):
    def __init__(self, config):
        super().__init__(config)
        self.vision, self.audio = trunk(3, config.dim), trunk(1, config.dim)

    def audio_input(self, sound_BN, rate):
        return log_spectrogram(sound_BN, rate)

    def encode_image(self, frames_B3HW):
        cells = self.vision(frames_B3HW)
        return F.normalize(cells.float(), dim=1), cells.detach().float().abs().mean(1)

    def encode_audio(self, spectrograms):
        return F.normalize(self.audio(spectrograms).mean((2, 3)).float(), dim=1)

    def losses(self, embeddings, hints, weights, truth=None, peers=ALONE):
        sounds = peers.gather(embeddings.audio)
        scores = embeddings.image.mean((2, 3)) @ sounds.T * self.config.own["sharpness"]
        right = range(len(sounds))[peers.rows]
        return {"contrastive": peers.mean(F.cross_entropy(scores, scores.new_tensor(right).long(), reduction="none"))}

    def pretrained(self):
        return []

    def backbones(self):
        return [self.vision, self.audio]

    def freeze_backbones(self):
        raise UsageError("freeze = true leaves no trainable parameters")

    @classmethod
    def from_published(cls, files):
        return None
'''
RECORD = """
        "newcomer": MethodSpec(
            network="avloc.methods.newcomer.Newcomer",
            settings={"model": {"method": "newcomer", "dim": 16}, "loss": _WITHOUT_HINTS, "init": "random"},
            own={"sharpness": Setting(5.0, 0.0)},
            unused=("model.tau", *_OTHER_TERMS, *_TEACHER_SETTINGS, *_LABEL_SETTINGS),
        ),
"""
FIRST_RECORD = '        "avc": MethodSpec(network="avloc.methods.avc.AVC", hints=True, unused=_OTHER_TERMS),'


@pytest.fixture
def grown(tmp_path, monkeypatch) -> Path:
    """Links to everything in the package but for the table of methods; the folder that holds it is the current one."""
    source, copy = Path(package.__file__).parent, tmp_path / "grown" / "avloc"
    replaced = {"methods", "registry.py", "__pycache__"}
    for folder in (source, source / "methods"):
        place = copy / folder.relative_to(source)
        place.mkdir(parents=True)
        for entry in folder.iterdir():
            if entry.name not in replaced:
                (place / entry.name).symlink_to(entry)
    (copy / "methods" / "newcomer.py").write_text(METHOD)
    table = (source / "registry.py").read_text()
    assert table.count(FIRST_RECORD) == 1
    (copy / "registry.py").write_text(table.replace(FIRST_RECORD, FIRST_RECORD + RECORD))
    monkeypatch.chdir(copy.parent)  # before PYTHONPATH and all that is installed
    return copy.parent


@pytest.mark.slow
def test_a_method_is_one_file_and_one_record(grown, tmp_path):
    def ran(*arguments: str) -> dict:
        done = avloc(*arguments, "--json", PYTHONPATH=str(grown))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    media = write_media(tmp_path / "media", clips=8, held_out=False, seed=1)
    boxes = ("--annotations", str(media / "boxes.json"))
    store, run = str(tmp_path / "store"), str(tmp_path / "run")
    assert ran("prepare", str(media), "--out", store, "--for", "newcomer", *boxes)["stored"] == 8

    assert "newcomer" in avloc("train", "--help", PYTHONPATH=str(grown)).stdout
    impossible = ("train", store, "--method", "newcomer", "--init", "imagenet", "--out", run, "--dry-run")
    refused = avloc(*impossible, PYTHONPATH=str(grown))
    assert (refused.returncode, "impossible for newcomer; valid: random" in refused.stderr) == (2, True)
    small = ("--batch", "4", "--set", "model.frame=64", "--set", "newcomer.sharpness=2")
    flags = ("train", store, "--method", "newcomer", *small)
    assert ran(*flags, "--out", run, "--epochs", "1")["epochs_done"] == 1
    gone_on = ran(*flags, "--out", run, "--epochs", "2")["metrics"]
    at_once = ran(*flags, "--out", f"{run}-whole", "--epochs", "2")["metrics"]
    assert [row["contrastive"] for row in gone_on] == [row["contrastive"] for row in at_once]

    report = ran("eval", "--store", store, "--model", run, "--maps", "av", "--protocol", "avloc")
    assert (report["n_scored"], set(report["maps"])) == (8, {"av"})

    name = "scene1-0000"
    frame, sound = media / "frames" / f"{name}.jpg", media / "audio" / f"{name}.wav"
    line = ran("localize", str(frame), "--audio", str(sound), "--model", run, "--out", str(tmp_path / "heat.png"))
    assert line["error"] is None
    assert (tmp_path / "heat.png").is_file()
