"""Evaluation protocols: the exact rules that turn maps into scores, as frozen records under the names of their systems.

Every field but `name` and `source` steers the scoring. Numbers of the published code (`tests/parity`)
hold `sspl`, `sacl`, `lvs`, `ezvsl` and the resize and cut of `avc-code`; slow twins of their formulas alone hold the
boxes and weights of `avc-code`, and `slavc` and `sslalign`.
All seven clip boxes to the picture and truncate corners to whole pixels (`avloc.metrics.ground_truth`); the published
loaders differ there in ways that no box of VGG-SS or Flickr-SoundNet shows.
"""

from __future__ import annotations

import math
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from avloc.errors import UsageError, nearest

RESIZES = ("bilinear-corners", "bilinear-halfpixel", "bicubic-corners")
"""`-corners`: the outer cells' centres lie on the border; `-halfpixel`: cells are areas, as OpenCV has it."""
FLATS = ("zeros", "nan")
THRESHOLDS = ("median", "half")
COMPARISONS = (">=", ">")
BOXES = ("all", "first")
LISTS = ("named", "store")
FUSIONS = ("heats", "fixed")
SOURCES = ("av", "object", "detr")
"""What a fused map may be made of."""


def _fused() -> Mapping[str, float]:
    return types.MappingProxyType({"av": 0.6, "object": 0.4})


def _thirds() -> Mapping[str, float]:
    return types.MappingProxyType({"av": 1 / 3, "object": 1 / 3, "detr": 1 / 3})


def _can_weigh(weights: Collection[float]) -> bool:
    return all(math.isfinite(weight) and weight >= 0 for weight in weights) and sum(weights) > 0


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The exact rule that turns similarity maps into scores. The defaults are avloc's own protocol.

    Source of the defaults: EZ-VSL and AVC `test.py`, with all boxes of an annotation instead of AVC's first one.
    """

    name: str = "avloc"
    side: int = 224
    """Maps and boxes are compared on a square of this many pixels."""
    resize: str = "bilinear-corners"
    """How a map reaches that size: one of `RESIZES`."""
    resize_elsewhere: str = ""
    """The same on test sets other than VGG-SS, where it differs there (`on`)."""
    flat: str = "zeros"
    """What min-max makes of a map without any contrast: `zeros` (then everything lies above the median: the whole
    picture), or `nan`, which no comparison lets through: an empty mask and a score of 0."""
    threshold: str = "median"
    """`median`: the value at rank side*side/2 of the sorted map; `half`: 0.5."""
    comparison: str = ">="
    """How a pixel has to compare with the threshold to be inside."""
    success: str = ">="
    """How a picture's cIoU has to compare with 0.5 to count in cIoU@0.5; the curve behind AUC is always `>=`."""
    boxes: str = "all"
    """Boxes of an annotation that count: `all`, or `first`."""
    clips: str = "named"
    """`named`: the clips of the test set's list; `store`: on `vggss` and sets of one's own, every
    clip of the store that has boxes."""
    lists: Mapping[str, str] = field(default_factory=lambda: types.MappingProxyType({}))
    """Test set -> test set: where the system scores on a list of its own."""
    fused: Mapping[str, float] = field(default_factory=_fused)
    """Weights of the audio-visual map and the object prior in the fused map."""
    fused_detr: Mapping[str, float] = field(default_factory=_thirds)
    """The same with DETR's attention as a third."""
    fusion: str = "heats"
    """What is weighed: `heats`, each in [0, 1] by its own minimum and maximum; or `fixed`, the cosine c as (c + 1) / 2
    and the activation x as x / 2.5. DETR's attention has no fixed range: `fused-detr` is always of heats."""
    no_query: str = "zeros"
    """DETR's map where no query is confident: `zeros`, or `nan` as the mean over none of them."""
    precision: str = "fp32"
    """Precision of the networks."""
    source: str = "avloc's own"
    """Whose rule this is, and what holds it."""

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
            "precision": ("fp32", "bf16"),
        }
        for name, choices in valid.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{name} = {getattr(self, name)!r} is impossible; valid: {', '.join(choices)}")
        if not (isinstance(self.side, int) and self.side > 0):
            raise UsageError(f"side = {self.side!r} is impossible; valid: 1 or more")
        for name, weights in (("fused", self.fused), ("fused_detr", self.fused_detr)):
            if not (set(weights) <= set(SOURCES) and _can_weigh(weights.values())):
                wanted = f"weights of {', '.join(SOURCES)}, none below 0 and one above"
                raise UsageError(f"{name} = {dict(weights)} is impossible; valid: {wanted}")

    def on(self, testset: str) -> Protocol:
        """The rule as it stands on a test set."""
        elsewhere = self.resize_elsewhere and not testset.startswith("vggss")
        return replace(self, resize=self.resize_elsewhere) if elsewhere else self

    def as_json(self) -> dict[str, object]:
        """Plain data for reports and model files."""
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(self).items()}


_VGGSS_4692 = types.MappingProxyType({"vggss": "vggss-4692"})

PROTOCOLS: Mapping[str, Protocol] = types.MappingProxyType(
    {
        record.name: record
        for record in (
            Protocol(),
            Protocol(
                name="ezvsl",
                fused=types.MappingProxyType({"av": 0.4, "object": 0.6}),
                source="EZ-VSL test.py; parity numbers",
            ),
            Protocol(
                name="lvs",
                resize="bilinear-halfpixel",
                flat="nan",
                comparison=">",
                source="LVS test.py; parity numbers. Not part of the rule: its centre crop, flat maps, fused maps",
            ),
            Protocol(
                name="sspl",
                resize="bilinear-halfpixel",
                flat="nan",
                threshold="half",
                lists=_VGGSS_4692,
                source="SSPL utils.py; parity numbers. Not comparable with the median rule; it fuses no maps",
            ),
            Protocol(
                name="sacl",
                resize="bilinear-halfpixel",
                flat="nan",
                threshold="half",
                lists=_VGGSS_4692,
                source="SACL utils.py; parity numbers. Not comparable with the median rule; it fuses no maps",
            ),
            Protocol(
                name="slavc",
                resize="bicubic-corners",
                success=">",
                fused=types.MappingProxyType({"av": 0.9, "object": 0.1}),
                fusion="fixed",
                source="SLAVC test.py with --relative_prediction --alpha 0.9; twin test only",
            ),
            Protocol(
                name="sslalign",
                resize="bilinear-halfpixel",
                resize_elsewhere="bilinear-corners",
                flat="nan",
                comparison=">",
                fused=types.MappingProxyType({"av": 0.4, "object": 0.6}),
                source="SSLalignment test.py; twin test only",
            ),
            Protocol(
                name="avc-code",
                boxes="first",
                clips="store",
                fused=types.MappingProxyType({"av": 1.0, "object": 0.4}),
                no_query="nan",
                source="AVC test_N_times.py; parity numbers, made with all boxes, for resize and cut; a twin test for "
                "the first box and 1 + 0.4. On Flickr-SoundNet its fused map is `fused-detr`",
            ),
        )
    }
)
"""Name -> protocol, the default first."""


def protocol_named(name: str, precision: str = "fp32") -> Protocol:
    """A protocol by name, with the precision the networks run in.

    Raises:
        UsageError: there is none of that name, or no such precision.
    """
    if name not in PROTOCOLS:
        raise UsageError(f"--protocol {name} is unknown; valid: {', '.join(PROTOCOLS)}", hint=nearest(name, PROTOCOLS))
    return replace(PROTOCOLS[name], precision=precision)
