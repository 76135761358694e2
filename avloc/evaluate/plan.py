"""The options of an evaluation, and what they select: store, clips of each protocol, pairs of an extended set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avloc.annotations.lists import TESTSETS, SilentPair, silent_pairs, testset_ids
from avloc.backbone_names import CONVNETS
from avloc.errors import StoreNotFound, UsageError, nearest, normal_form
from avloc.protocols import PROTOCOLS, Protocol, protocol_named
from avloc.registry import MODES, SPECS
from avloc.store import Store

MAPS = ("shipped", "av", "object", "fused", "detr", "baselines", "sweep")
DEFAULT_MAPS = ("av", "object", "fused")
_PRIOR = "resnet18"
_OTHER_PRIORS = {"own": "shipped", "detr": "detr", "none": "av"}
"""Values of `--object-prior` of `localize` that name no network -> the row to ask for."""
EXTENDED = ("flickr-ext", "vggss-ext")
_BASES = {
    "flickr-250": "flickr",
    "flickr-ext": "flickr",
    "vggss-4692": "vggss",
    "vggss-ext": "vggss",
    "vggss-heard": "vggss",
    "vggss-unheard": "vggss",
}
"""Test sets whose clips may also lie in the store of another one."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """What to score, on what, and how."""

    testset: str = ""
    store: Path | None = None
    models: tuple[Path, ...] = ()
    """Empty: the model shipped with the package."""
    names: tuple[str, ...] = ()
    """Names of the models in reports, one each; empty: those of the files."""
    maps: tuple[str, ...] = ()
    """Empty: `shipped` for a model whose card has a fusion, `av`, and, if the prior's weights are there, `object` and
    `fused`. Baselines are always scored."""
    protocols: tuple[str, ...] = ()
    """Empty: `avloc` and the protocols of the models' methods."""
    prior: str = _PRIOR
    """ImageNet network of the object prior."""
    negatives: int = 0
    """Wrong sounds of each kind for every picture; 0 leaves them out."""
    weights_dir: Path | None = None
    device: str = "auto"
    precision: str = "fp32"
    batch: int = 16
    workers: int = 2
    max_missing: int = 0

    def __post_init__(self) -> None:
        for name in self.maps:
            if name not in MAPS:
                raise UsageError(f"--maps {name} is unknown; valid: {', '.join(MAPS)}", hint=nearest(name, MAPS))
        for flag, value, least in (
            ("--batch", self.batch, 1),
            ("--max-missing", self.max_missing, 0),
            ("--negatives", self.negatives, 0),
        ):
            if value < least:
                raise UsageError(f"{flag} {value} is impossible; valid: {least} or more")
        self.records()
        if self.prior != _PRIOR:
            self._check_prior()

    def _check_prior(self) -> None:
        row = _OTHER_PRIORS.get(self.prior)
        if row:
            reason = "it names the network of the row object"
            raise UsageError(f"--object-prior {self.prior} is not valid here: {reason}", hint=f"Use --maps {row}.")
        if self.prior not in CONVNETS:
            hint = nearest(self.prior, CONVNETS)
            raise UsageError(f"--object-prior {self.prior} is unknown; valid: {', '.join(CONVNETS)}", hint=hint)

    def records(self) -> list[Protocol]:
        """The protocols, each once.

        Raises:
            UsageError: an unknown protocol or precision.
        """
        names = dict.fromkeys(self.protocols or (next(iter(PROTOCOLS)),))
        return [protocol_named(name, self.precision).on(self.testset) for name in names]

    def with_protocols_of(self, methods: Sequence[str]) -> EvalOptions:
        """With the protocols of these methods, unless protocols were asked for."""
        if self.protocols:
            return self
        own = (SPECS[method].protocol for method in methods if SPECS[method].protocol)
        return replace(self, protocols=tuple(dict.fromkeys((next(iter(PROTOCOLS)), *own))))

    @property
    def baselines_only(self) -> bool:
        """Whether only boxes are needed: no pictures and no model."""
        return self.maps == ("baselines",)


def find_store(testset: str, store: Path | None) -> Path:
    """`--store`, else `$AVLOC_DATA/<testset>`, else `./data/<testset>`.

    A test set that is a part or an extension of another is also looked for under the other's name.

    Raises:
        UsageError: neither a test set nor a store was named, or a published set in another spelling, which would be
            scored as a set of one's own.
        StoreNotFound: no store there; the hint has the `prepare` command.
    """
    known = (*TESTSETS, *MODES["eval"])
    similar = nearest(testset, known)
    if testset not in known and normal_form(testset) in map(normal_form, known):
        raise UsageError(f"--testset {testset} is unknown; valid: {', '.join(known)}, or another name", hint=similar)
    if store is not None:
        return store
    if not testset:
        raise UsageError("name what to score: --testset vggss, or --store DIR")
    roots = [Path(os.environ["AVLOC_DATA"])] if os.environ.get("AVLOC_DATA") else []
    names = [testset, *([_BASES[testset]] if testset in _BASES else [])]
    places = [root / name for name in names for root in [*roots, Path("data")]]
    for place in places:
        if (place / "store.json").is_file():
            return place
    hint = _how_to_prepare(testset, places[0])
    if testset not in known and similar:
        hint = f"{similar} {hint}"
    raise StoreNotFound(f"no prepared test set {testset!r} in {' or '.join(map(str, places))}", hint=hint)


def _how_to_prepare(testset: str, place: Path) -> str:
    known = TESTSETS.get(testset, "")
    if not known:
        return f"Prepare it from the material you have: avloc prepare MEDIA --annotations BOXES.json --out {place}"
    if testset.startswith("flickr"):
        source = "Clips and XML annotations: https://github.com/ardasnck/learning_to_localize_sound_source"
        return f"{source}: avloc prepare Data --ids {known} --annotations Annotations --out {place}"
    source = "The clips are VGGSound's (https://www.robots.ox.ac.uk/~vgg/data/vggsound/); their boxes come with avloc"
    return f"{source}: avloc prepare VIDEOS --ids {known} --out {place}"


def expected_ids(protocol: Protocol, testset: str, store: Store | None, boxed: Sequence[str]) -> list[str]:
    """Canonical ids of the clips that a protocol scores.

    Args:
        protocol: may have a list of its own, or take all clips of the store.
        testset: as typed; '' for a store of one's own.
        store: None if only baselines are scored.
        boxed: clips with a truth.
    """
    if protocol.clips == "store" and store is not None and testset in ("", "vggss"):
        return list(boxed)
    name = protocol.lists.get(testset, testset)
    if name in TESTSETS:
        return list(testset_ids(name))
    return list(boxed) if store is None else list(store.header.expected) or store.ids


def pairs_of(testset: str) -> tuple[SilentPair, ...]:
    """Pairs of a picture and a sound with no source in it; none for a set that is not extended."""
    return silent_pairs(testset) if testset in EXTENDED else ()
