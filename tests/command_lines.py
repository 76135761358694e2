"""Command lines for `good.mp4`, `store` and `small.safetensors` in the current folder, and the check of a failure."""

from __future__ import annotations

import subprocess

NO_HINTS = ("--no-audio-hint", "--no-visual-hint")
SMALL_TRUNKS = ("--vision-trunk", "shufflenet_v2_x0_5", "--audio-trunk", "shufflenet_v2_x0_5", "--dim", "16")
SMALL_TRAINING = (
    *(*NO_HINTS, "--init", "random", "--dim", "8", "--batch", "2"),
    *("--vision-trunk", "shufflenet_v2_x0_5", "--audio-trunk", "shufflenet_v2_x0_5", "--set", "model.frame=64"),
)

PREPARE = ("prepare", "good.mp4", "--out", "new")
DISTILL = ("distill-cache", "store")
TRAIN = ("train", "store", "--out", "new", "--init", "random", *NO_HINTS, *SMALL_TRUNKS)
EVAL = ("eval", "--store", "store", "--model", "small.safetensors")
LOCALIZE = ("localize", "good.mp4", "--model", "small.safetensors")


def check_exit(done: subprocess.CompletedProcess, code: int, *texts: str) -> None:
    """Assert the exit code, the texts on standard error, and that there is no traceback."""
    assert done.returncode == code, done.stderr
    for text in texts:
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" not in done.stdout
