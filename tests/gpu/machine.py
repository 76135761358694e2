"""Versions, the device, and copy rates from the host."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

from tests.gpu.results import Options, Row

_PACKAGES = ("numpy", "torch", "torchvision", "transformers", "h5py", "safetensors", "pillow", "panns-inference", "av")


def versions(options: Options) -> Iterator[Row]:
    """Versions of packages, the machine and the device."""
    yield Row(name="python", value=platform.python_version())
    for name in _PACKAGES:
        yield Row(name=name, value=_version(name))
    yield Row(name="cores", value=str(len(os.sched_getaffinity(0))))
    yield Row(name="memory", value=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, unit="GB")
    yield Row(name="free in /dev/shm", value=shutil.disk_usage("/dev/shm").free / 1e9, unit="GB")
    if options.on_gpu:
        about = torch.cuda.get_device_properties(options.device)
        yield Row(name="device", value=f"{about.name}, compute capability {about.major}.{about.minor}")
        yield Row(name="memory of the device", value=about.total_memory / 1e9, unit="GB")
        yield Row(name="CUDA, cuDNN", value=f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
        yield Row(name="NCCL", value=".".join(map(str, torch.cuda.nccl.version())))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def copies(options: Options) -> Iterator[Row]:
    """Rates of copies of a batch's size to the device, from pageable and from pinned memory."""
    source = torch.ones(options.size(1 << 28, 1 << 20), dtype=torch.uint8)
    target = torch.empty_like(source, device=options.device)
    for kind, memory in {"pageable": source, "pinned": options.pinned(source)}.items():

        def copy(memory: torch.Tensor = memory) -> None:
            target.copy_(memory, non_blocking=True)

        rate = source.nbytes / options.seconds(copy, 10) / 1e9
        yield Row(name=f"copy to the device, {kind}", value=rate, unit="GB/s")
