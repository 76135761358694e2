"""The options of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avloc.errors import UsageError, nearest
from avloc.networks.backbones import CONVNETS
from avloc.option_rules import MODES
from avloc.protocols import PROTOCOLS, Protocol, protocol_named
from avloc.registry import SPECS

MAPS = tuple(MODES["eval"]["maps"])
DEFAULT_MAPS = ("av", "object", "fused")
_OTHER_PRIORS = {"own": "shipped", "detr": "detr", "none": "av"}
"""Values of `--object-prior` of `localize` that are not networks -> the value of `--maps` to use instead."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Models, test set, maps and protocols of an evaluation."""

    testset: str = ""
    store: Path | None = None
    models: tuple[Path, ...] = ()
    """Empty: the model shipped with the package."""
    names: tuple[str, ...] = ()
    """Names of the models in reports, one each; empty: those of the files."""
    maps: tuple[str, ...] = ()
    """Empty: `shipped` for a model whose card has a fusion, `av`, and, if the prior's weights are available, `object`
    and `fused`. Baselines are always scored."""
    maps_dir: Path | None = None
    """Folder of `.npy` maps to score instead of models (`avloc.evaluate.external_maps`)."""
    protocols: tuple[str, ...] = ()
    """Empty: `avloc` and the protocols of the models' methods."""
    prior: str = "resnet18"
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
        if self.maps_dir is not None and not self.maps_dir.is_dir():
            raise UsageError(f"--maps-dir {self.maps_dir} is not a folder")
        self.protocol_records()
        if row := _OTHER_PRIORS.get(self.prior):
            reason = "it names the network of the row object"
            raise UsageError(f"--object-prior {self.prior} is not valid here: {reason}", hint=f"Use --maps {row}.")
        if self.prior not in CONVNETS:
            hint = nearest(self.prior, CONVNETS)
            raise UsageError(f"--object-prior {self.prior} is unknown; valid: {', '.join(CONVNETS)}", hint=hint)

    def protocol_records(self) -> list[Protocol]:
        """The protocols, each once.

        Raises:
            UsageError: unknown protocol or precision.
        """
        names = dict.fromkeys(self.protocols or (next(iter(PROTOCOLS)),))
        return [protocol_named(name, self.precision).on(self.testset) for name in names]

    def with_protocols_of(self, methods: Sequence[str]) -> EvalOptions:
        """With `avloc` and the protocols of these methods, unless protocols are given."""
        if self.protocols:
            return self
        own = (SPECS[method].protocol for method in methods if SPECS[method].protocol)
        return replace(self, protocols=tuple(dict.fromkeys((next(iter(PROTOCOLS)), *own))))

    @property
    def without_model(self) -> bool:
        """Whether no model is run, so that the annotations of a test set suffice: no pictures, no sound."""
        return self.maps_dir is not None or self.maps == ("baselines",)
