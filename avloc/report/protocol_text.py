"""Labels and descriptions of the fields of a protocol and their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LABELS: Mapping[str, str] = {
    "name": "Name",
    "side": "Maps and ground truth are compared on",
    "resize": "Maps are resized by",
    "resize_elsewhere": "Resize on sets other than VGG-SS",
    "flat": "A map without contrast",
    "threshold": "Threshold of the mask",
    "comparison": "A pixel is inside if",
    "success": "cIoU@0.5 counts a clip if",
    "boxes": "Boxes of an annotation in use",
    "clips": "Scored clips",
    "lists": "Test sets with a list of their own",
    "fused": "Map fused",
    "fused_detr": "Map fused-detr",
    "fusion": "Fusion of",
    "no_query": "DETR where no query is confident",
    "precision": "Precision of the networks",
    "source": "Source of the rule",
}
"""Field of `avloc.protocols.Protocol` -> label."""

VALUES: Mapping[str, Mapping[str, str]] = {
    "resize": {
        "bilinear-corners": "bilinear interpolation, the centres of the outer cells on the border",
        "bilinear-halfpixel": "bilinear interpolation, half-pixel centres (as in OpenCV)",
        "bicubic-corners": "bicubic interpolation, the centres of the outer cells on the border",
    },
    "fusion": {
        "heats": "heat maps, each min-max normalised to [0, 1]",
        "fixed": "maps on fixed scales: (cosine + 1) / 2, activation / 2.5",
    },
    "resize_elsewhere": {"": "the same"},
    "flat": {
        "zeros": "becomes 0 everywhere: with threshold median the whole picture is inside",
        "nan": "becomes NaN: nothing is inside and the score is 0",
    },
    "threshold": {
        "median": "the median of the map: half of the picture is inside",
        "half": "0.5, half of the range of the map",
    },
    "comparison": {">=": "it reaches the threshold (>=)", ">": "it is above the threshold (>)"},
    "success": {">=": "its cIoU is 0.5 or more", ">": "its cIoU is more than 0.5"},
    "boxes": {"all": "all", "first": "the first one only"},
    "clips": {"named": "those on the list of the test set", "store": "on vggss all in the store that have boxes"},
    "no_query": {"zeros": "a map of zeros", "nan": "NaN: the mean over no query"},
    "precision": {"fp32": "32-bit floating point", "bf16": "bfloat16"},
}
"""Field -> value -> description."""

BOX_RULES: Mapping[str, str] = {
    "union": "union: a pixel counts if any box contains it",
    "consensus": "consensus: a pixel in one box counts half, in two or more fully",
}
"""Box rule (`avloc.metrics.ground_truth`) -> description."""


def describe_protocol(protocol: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Label and description of every field of `Protocol.as_json()`; unknown fields and values are verbatim."""
    return [(LABELS.get(name, name), _value(name, value)) for name, value in protocol.items()]


def describe_shipped(shipped: Mapping[str, str]) -> list[tuple[str, str]]:
    """Labels and descriptions of `EvalReport.shipped`; empty without that map."""
    if not shipped:
        return []
    fused = shipped["fusion"] or "the similarity map alone"
    return [("Map shipped, by the model's card", fused), ("Its resize", _value("resize", shipped["resize"]))]


def _value(name: str, value: Any) -> str:
    if name == "side":
        return f"a square of {value} x {value} pixels"
    if name == "lists":
        return ", ".join(f"{listed} instead of {testset}" for testset, listed in value.items()) or "none"
    if isinstance(value, Mapping):
        return " + ".join(f"{weight:.3g} {kind}" for kind, weight in value.items())
    return VALUES.get(name, {}).get(value, str(value))
