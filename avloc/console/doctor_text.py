"""The report of `avloc --doctor` as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Fields = Mapping[str, Any]


def doctor_lines(report: Fields) -> Iterator[str]:
    """The lines of a report of `avloc.doctor.examine`."""
    of = report["versions"]
    yield f"avloc {of['avloc']}, Python {of['python']}, {of['system']}"
    yield f"torch {of['torch']}, torchvision {of['torchvision']}, NumPy {of['numpy']}"
    yield f"PyAV {of['pyav']}, FFmpeg {of['ffmpeg']}"
    yield _present("extras", report["extras"])
    yield ""
    yield "Devices"
    for device in report["devices"]:
        yield from _device(device)
    yield ""
    yield "FFmpeg"
    yield from (f"  {_present(kind, codecs)}" for kind, codecs in report["codecs"].items())
    yield ""
    yield "Weights"
    yield from _weights(report["weights"])
    yield ""
    yield "Folders"
    yield from (_folder(name, folder) for name, folder in report["folders"].items())


def _present(kind: str, names: Mapping[str, bool]) -> str:
    present = ", ".join(name for name, is_there in names.items() if is_there)
    absent = ", ".join(name for name, is_there in names.items() if not is_there)
    return f"{kind}: {present or 'none'}" + (f"; missing: {absent}" if absent else "")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _device(device: Fields) -> Iterator[str]:
    sizes = [f"threads: {device['threads']}"] if "threads" in device else []
    sizes += [_size(device["memory_bytes"])] if "memory_bytes" in device else []
    yield f"  {device['name']}: {', '.join(filter(None, (device['model'], *sizes, *device['abilities'])))}"
    if "error" in device:
        yield f"    {device['error']}"
        return
    times, bf16 = device["convolution_ms"], device["bf16"]
    yield (
        f"    bf16 is {bf16['faster']} times as fast as fp32 "
        f"(a convolution takes {times['bf16']} and {times['fp32']} ms); --precision auto is {bf16['auto']}"
    )


def _weights(weights: Fields) -> Iterator[str]:
    if "error" in weights:
        yield f"  {weights['error']}"
    for name, folder in weights["places"].items():
        yield f"  looked for in {folder} ({name})"
    present = [file for file in weights["files"] if file["bytes"] is not None]
    width = max((len(file["name"]) for file in present), default=0)
    for file in present:
        yield f"  {file['name']:<{width}}  {_size(file['bytes']):>9}  hash: {file['hash']}  {file['folder']}"
    absent = [file["name"] for file in weights["files"] if file["bytes"] is None]
    if absent:
        yield f"  absent: {', '.join(absent)}"


def _folder(name: str, folder: Fields) -> str:
    if "error" in folder:
        return f"  {name}: {folder['error']}"
    writable = "can be written" if folder["writable"] else "CANNOT BE WRITTEN"
    return f"  {name}: {folder['path']} {writable}, {_size(folder['free_bytes'])} free"
