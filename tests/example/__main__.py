"""Make the example of the README: a picture of a guitar and a drum kit, a sound of each, and overlays.

    python -m tests.example            the sounds and the overlays
    python -m tests.example --render   and the picture first: needs POV-Ray 3.7 (Debian: povray), 7 minutes on two cores

The picture is a rendering of `scene.pov`, whose pixels differ a little from run to run (radiosity in threads). The
sounds are synthesised in `sounds.py`. Both are original and under the licence of this repository.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image, ImageDraw

import avloc
from tests.example import OVERLAYS, PICTURE, SOUNDS
from tests.example.sounds import RATE

WIDTH, HEIGHT = 640, 480
QUALITY = 90
STRIP = 56
"""Height of a waveform below its overlay."""
INK, GROUND = (247, 209, 61), (24, 20, 32)


def render() -> None:
    """Render the scene, nine rays a pixel.

    Raises:
        FileNotFoundError: there is no `povray`.
    """
    scene = Path(__file__).with_name("scene.pov")
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "scene.png"
        options = (f"+W{WIDTH}", f"+H{HEIGHT}", "+AM1", "+A0.0", "+R3", "-J", "-D")
        subprocess.run(["povray", f"+I{scene}", f"+O{drawn}", *options], check=True, capture_output=True)
        with Image.open(drawn) as image:
            image.convert("RGB").save(PICTURE, quality=QUALITY, optimize=True)


def synthesise() -> None:
    for path, make in SOUNDS.items():
        soundfile.write(path, make(), RATE, subtype="PCM_16")


def draw_overlays(out: Path) -> None:
    """One overlay for each sound, side by side, each above the waveform of its sound."""
    model = avloc.load()
    sheet = Image.new("RGB", (len(SOUNDS) * WIDTH, HEIGHT + STRIP), GROUND)
    with Image.open(PICTURE) as frame:
        for column, path in enumerate(SOUNDS):
            waveform, rate = soundfile.read(path, dtype="float32")
            overlay = Image.fromarray(model.localize(frame, waveform, rate).overlay())
            sheet.paste(overlay, (column * WIDTH, 0))
            sheet.paste(_waveform(waveform, path.stem), (column * WIDTH, HEIGHT))
    out.parent.mkdir(exist_ok=True)
    sheet.save(out, quality=QUALITY, optimize=True)


def _waveform(samples: np.ndarray, name: str) -> Image.Image:
    strip = Image.new("RGB", (WIDTH, STRIP), GROUND)
    draw = ImageDraw.Draw(strip)
    draw.text((12, STRIP // 2), name, fill=INK, font_size=20, anchor="lm")
    left, middle = 88, STRIP // 2
    for x, part in enumerate(np.array_split(samples, WIDTH - left - 12), start=left):
        reach = round(np.abs(part).max() * (middle - 4) / 0.7)
        draw.line((x, middle - reach, x, middle + reach), fill=INK)
    return strip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m tests.example", description="Make the example of the README.")
    out.add_argument("--render", action="store_true", help="render the picture too; needs POV-Ray")
    return out


def main() -> None:
    if parser().parse_args().render:
        render()
    synthesise()
    draw_overlays(OVERLAYS)


if __name__ == "__main__":
    main()
