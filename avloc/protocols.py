"""Evaluation protocols: the exact rules that turn maps into scores, named after the systems that use them.

All fields but `name` and `source` affect the scores. Outputs of the published code (`tests/parity`) verify `sspl`,
`sacl`, `lvs`, `ezvsl` and the resize and threshold of `avc-code`; only a slow reimplementation of their formulas
verifies the boxes and weights of `avc-code`, and `slavc` and `sslalign`. All clip boxes to the picture and truncate
corners to whole pixels (`avloc.metrics.ground_truth`); the published loaders differ there in ways that no box of VGG-SS
or Flickr-SoundNet triggers.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from avloc.errors import UsageError, nearest

RESIZES = ("bilinear-corners", "bilinear-halfpixel", "bicubic-corners")
"""`-corners`: corners aligned; `-halfpixel`: half-pixel centres, as in OpenCV."""
FLATS = ("zeros", "nan")
THRESHOLDS = ("median", "half")
COMPARISONS = (">=", ">")
BOXES = ("all", "first")
LISTS = ("named", "store")
FUSIONS = ("heats", "fixed")
PRECISIONS = ("fp32", "bf16")
SOURCES = ("av", "object", "detr")
"""Maps that can be fused."""


def valid_weights(weights: Mapping[str, float]) -> bool:
    """Whether the weights of a fused map are finite, none negative and not all 0."""
    return all(math.isfinite(weight) and weight >= 0 for weight in weights.values()) and sum(weights.values()) > 0


def _frozen(**weights: float) -> Mapping[str, float]:
    return types.MappingProxyType(weights)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The exact rule that turns similarity maps into scores. The defaults are avloc's own protocol.

    Source of the defaults: EZ-VSL and AVC `test.py`, with all boxes of an annotation instead of AVC's first one.
    """

    name: str = "avloc"
    side: int = 224
    """Side in pixels of the square on which maps and boxes are compared."""
    resize: str = "bilinear-corners"
    """Interpolation to that size: one of `RESIZES`."""
    resize_elsewhere: str = ""
    """Another interpolation for test sets other than VGG-SS, or '' (see `on`)."""
    flat: str = "zeros"
    """Min-max of a constant map: `zeros` (every pixel is at the median, so the mask is the whole picture), or `nan`
    (every comparison is false, so the mask is empty and the score 0)."""
    threshold: str = "median"
    """`median`: the value at rank side*side/2 of the sorted map; `half`: 0.5."""
    comparison: str = ">="
    """Comparison of a pixel inside the mask with the threshold."""
    success: str = ">="
    """Comparison of cIoU with 0.5 in cIoU@0.5; the curve of AUC always uses `>=`."""
    boxes: str = "all"
    """Boxes of an annotation that are used: `all` or `first`."""
    clips: str = "named"
    """`named`: the clips of the test set's list; `store`: on `vggss` and user-made sets, every clip with boxes."""
    lists: Mapping[str, str] = field(default_factory=lambda: types.MappingProxyType({}))
    """Test set -> the test set whose list replaces its own."""
    fused: Mapping[str, float] = field(default_factory=lambda: _frozen(av=0.6, object=0.4))
    """Weights of the audio-visual map and the object prior in the fused map."""
    fused_detr: Mapping[str, float] = field(default_factory=lambda: _frozen(av=1 / 3, object=1 / 3, detr=1 / 3))
    """The same with DETR's attention as a third map."""
    fusion: str = "heats"
    """Range of the fused maps: `heats`, each min-max normalised; or `fixed`, the cosine c as (c + 1) / 2 and the
    activation x as x / 2.5. DETR's attention has no fixed range: `fused-detr` always fuses heats."""
    no_query: str = "zeros"
    """DETR's map if no query is confident: `zeros`, or `nan`, the mean over no query."""
    precision: str = "fp32"
    source: str = "avloc's own"
    """Origin of the rule, and what verifies it."""

    def __post_init__(self) -> None:
        valid = {
            "resize": RESIZES,
            "flat": FLATS,
            "threshold": THRESHOLDS,
            "comparison": COMPARISONS,
            "success": COMPARISONS,
            "boxes": BOXES,
            "clips": LISTS,
            "no_query": FLATS,
            "resize_elsewhere": ("", *RESIZES),
            "fusion": FUSIONS,
            "precision": PRECISIONS,
        }
        for name, choices in valid.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} = {getattr(self, name)!r} is impossible; valid: {', '.join(choices)}")
        if not (isinstance(self.side, int) and self.side > 0):
            raise UsageError(f"side = {self.side!r} is impossible; valid: 1 or more")
        for name, weights in (("fused", self.fused), ("fused_detr", self.fused_detr)):
            if not (set(weights) <= set(SOURCES) and valid_weights(weights)):
                wanted = f"weights of {', '.join(SOURCES)}, none below 0 and one above"
                raise UsageError(f"{name} = {dict(weights)} is impossible; valid: {wanted}")

    def on(self, testset: str) -> Protocol:
        """The protocol for one test set."""
        elsewhere = self.resize_elsewhere and not testset.startswith("vggss")
        return replace(self, resize=self.resize_elsewhere) if elsewhere else self

    def as_json(self) -> dict[str, object]:
        """Plain data for reports and model files."""
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(self).items()}


_SSPL = Protocol(
    name="sspl",
    resize="bilinear-halfpixel",
    flat="nan",
    threshold="half",
    lists=types.MappingProxyType({"vggss": "vggss-4692"}),
    source="SSPL utils.py; parity numbers. Not comparable with the median rule; it fuses no maps",
)

PROTOCOLS: Mapping[str, Protocol] = types.MappingProxyType(
    {
        record.name: record
        for record in (
            Protocol(),
            Protocol(
                name="ezvsl",
                fused=_frozen(av=0.4, object=0.6),
                source="EZ-VSL test.py; parity numbers",
            ),
            Protocol(
                name="lvs",
                resize="bilinear-halfpixel",
                flat="nan",
                comparison=">",
                source="LVS test.py; parity numbers. Not part of the rule: its centre crop, flat maps, fused maps",
            ),
            _SSPL,
            replace(
                _SSPL,
                name="sacl",
                source="SACL utils.py; parity numbers. Not comparable with the median rule; it fuses no maps",
            ),
            Protocol(
                name="slavc",
                resize="bicubic-corners",
                success=">",
                fused=_frozen(av=0.9, object=0.1),
                fusion="fixed",
                source="SLAVC test.py with --relative_prediction --alpha 0.9; twin test only",
            ),
            Protocol(
                name="sslalign",
                resize="bilinear-halfpixel",
                resize_elsewhere="bilinear-corners",
                flat="nan",
                comparison=">",
                fused=_frozen(av=0.4, object=0.6),
                source="SSLalignment test.py; twin test only",
            ),
            Protocol(
                name="avc-code",
                boxes="first",
                clips="store",
                fused=_frozen(av=1.0, object=0.4),
                no_query="nan",
                source="AVC test_N_times.py; parity numbers, made with all boxes, for resize and cut; a twin test for "
                "the first box and 1 + 0.4. On Flickr-SoundNet its fused map is `fused-detr`",
            ),
        )
    }
)
"""Name -> protocol, the default first."""


def protocol_named(name: str, precision: str = "fp32") -> Protocol:
    """A protocol by name, with another precision of the networks.

    Raises:
        UsageError: unknown name or precision.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"--protocol {name} is unknown; valid: {', '.join(PROTOCOLS)}", hint=nearest(name, PROTOCOLS))
    return replace(PROTOCOLS[name], precision=precision)
