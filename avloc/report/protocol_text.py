"""A protocol in words: what each field says, for people who did not write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LABELS: Mapping[str, str] = {
    "name": "Name",
    "side": "Maps and truths are compared on",
    "resize": "A map gets there by",
    "resize_elsewhere": "Resize on sets other than VGG-SS",
    "flat": "A map without contrast",
    "threshold": "Threshold of the mask",
    "comparison": "A pixel is inside if",
    "success": "cIoU@0.5 counts a clip if",
    "boxes": "Boxes of an annotation that count",
    "clips": "Clips that are scored",
    "lists": "Test sets with a list of its own",
    "fused": "Map fused",
    "fused_detr": "Map fused-detr",
    "fusion": "Fused are",
    "no_query": "DETR where no query is confident",
    "precision": "Precision of the networks",
    "source": "Whose rule this is",
}
"""Field of `avloc.protocols.Protocol` -> what it is about."""

VALUES: Mapping[str, Mapping[str, str]] = {
    "resize": {
        "bilinear-corners": "bilinear interpolation, the centres of the outer cells on the border",
        "bilinear-halfpixel": "bilinear interpolation, cells being areas (as OpenCV does it)",
        "bicubic-corners": "bicubic interpolation, the centres of the outer cells on the border",
    },
    "fusion": {
        "heats": "heat maps, each in [0, 1] by its own minimum and maximum",
        "fixed": "maps on scales that all clips share: (cosine + 1) / 2, activation / 2.5",
    },
    "resize_elsewhere": {"": "the same"},
    "flat": {
        "zeros": "becomes 0 everywhere: at the median the whole picture is inside",
        "nan": "is no number: nothing is inside and the score is 0",
    },
    "threshold": {
        "median": "the median of the map: half of the picture is inside",
        "half": "0.5, half of the range of the map",
    },
    "comparison": {">=": "it reaches the threshold (>=)", ">": "it is above the threshold (>)"},
    "success": {">=": "its cIoU is 0.5 or more", ">": "its cIoU is more than 0.5"},
    "boxes": {"all": "all", "first": "the first one only"},
    "clips": {"named": "those on the list of the test set", "store": "on vggss all in the store that have boxes"},
    "no_query": {"zeros": "a map of zeros", "nan": "no number: the mean over no query"},
    "precision": {"fp32": "32-bit floating point", "bf16": "bfloat16"},
}
"""Field -> value -> what the value means."""

BOX_RULES: Mapping[str, str] = {
    "union": "union: a pixel counts if any box holds it",
    "consensus": "consensus: a pixel counts half in one box, whole in two or more",
}


def in_words(protocol: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every field of a protocol as label and words, in the protocol's order.

    Args:
        protocol: `Protocol.as_json()`. A field or a value without words is shown as it is.
    """
    return [(LABELS.get(name, name), _value(name, value)) for name, value in protocol.items()]


def shipped_in_words(shipped: Mapping[str, str]) -> list[tuple[str, str]]:
    """`EvalReport.shipped` as labels and words; empty without that map."""
    if not shipped:
        return []
    fused = shipped["fusion"] or "the similarity map alone"
    return [("Map shipped, by the model's card", fused), ("Its resize", _value("resize", shipped["resize"]))]


def boxes_in_words(rule: str) -> str:
    """How the boxes of a clip become its truth (`avloc.metrics.ground_truth`)."""
    return BOX_RULES.get(rule, rule)


def _value(name: str, value: Any) -> str:
    if name == "side":
        return f"a square of {value} x {value} pixels"
    if name == "lists":
        return ", ".join(f"{listed} instead of {testset}" for testset, listed in value.items()) or "none"
    if isinstance(value, Mapping):
        return " + ".join(f"{weight:.3g} {kind}" for kind, weight in value.items())
    return VALUES.get(name, {}).get(value, str(value))
