"""The published methods, as far as they can be told without their networks. No torch here.

A method is a file of `avloc.methods` and its record in `METHOD_SPECS`; everything else asks these two.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from avloc.errors import UsageError

LONGEST_S, FASTEST_HZ = 600, 768_000
"""Seconds and hertz beyond which a sound is a mistake, or a file's attempt to fill the memory."""


def check_setting(fine: bool, name: str, value: object, valid: str) -> None:
    """Raise UsageError that names a setting, its value and what is valid, unless it is fine."""
    if not fine:
        raise UsageError(f"{name} = {value!r} is impossible; valid: {valid}")


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """What every clip of a store holds."""

    seconds: float = 3.0
    """Length of the sound in seconds."""
    rate: int = 22_050
    """Sample rate of the stored sound in Hz."""
    shorter_side: int = 0
    """Shorter side of the stored frames in pixels; 0 keeps the original picture (test stores)."""

    def __post_init__(self) -> None:
        check_setting(0 < self.seconds <= LONGEST_S, "seconds", self.seconds, f"more than 0, {LONGEST_S} at most")
        check_setting(8_000 <= self.rate <= FASTEST_HZ, "rate", self.rate, f"a sample rate in Hz, 8000 to {FASTEST_HZ}")

    @property
    def samples(self) -> int:
        """Stored samples of one clip."""
        return int(self.seconds * self.rate)


def _none() -> Mapping[str, Any]:
    return types.MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """One published method."""

    network: str
    """Module and class in `avloc.methods`."""
    store: StoreSpec = field(default_factory=StoreSpec)
    """`prepare --for METHOD`: what a store must hold to train or score it with its defaults."""
    settings: Mapping[str, Any] = field(default_factory=_none)
    """What its authors set otherwise than AVC's, as tables of a `TrainConfig`."""
    own: Mapping[str, bool | int | float | str] = field(default_factory=_none)
    """Settings that no other method has, with their defaults: `--set METHOD.KEY=VALUE`."""
    without: Mapping[str, Mapping[str, Any]] = field(default_factory=_none)
    """Own setting that is switched off -> what else its authors set then."""
    protocol: str = "avloc"
    """The rule by which its authors score; avloc's own for AVC, whose code scores against the first box alone."""
    hints: bool = False
    """Whether teachers speak in its training."""
    segments: bool = False
    """Whether it learns from regions of the frames (`avloc.media.segments`)."""
    term: str = "contrastive"
    """The loss term that says how good it is where nothing else does."""

    def defaults(self, own: object) -> dict[str, Any]:
        """`settings`, and those of `without` that go with its own settings as given."""
        given = own if isinstance(own, Mapping) else {}
        off = [extra for name, extra in self.without.items() if not given.get(name, self.own[name])]
        return {key: value for table in (self.settings, *off) for key, value in table.items()}

    def settled(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Its own settings, those that are not given at their defaults.

        Raises:
            UsageError: a setting that it does not have, or a value of another type.
        """
        for name, value in given.items():
            if name not in self.own:
                valid = ", ".join(self.own) or "none"
                raise UsageError(f"unknown setting {name} of {self.network.partition('.')[0]}; valid: {valid}")
            kind = type(self.own[name])
            check_setting(type(value) is kind, name, value, f"a value of type {kind.__name__}")
        return {**self.own, **given}


_WITHOUT_HINTS = {"audio_hint": 0.0, "visual_hint": 0.0}

_VGG = {"vision_trunk": "vgg16", "audio_trunk": "vggish", "dim": 512, "rate": 16_000}

METHOD_SPECS: Mapping[str, MethodSpec] = types.MappingProxyType(
    {
        "avc": MethodSpec(network="avc.AVC", hints=True),
        "ezvsl": MethodSpec(
            network="ezvsl.EZVSL",
            settings={"model": {"method": "ezvsl", "dim": 512}, "loss": _WITHOUT_HINTS},
            protocol="ezvsl",
        ),
        "lvs": MethodSpec(
            network="lvs.LVS",
            store=StoreSpec(seconds=10.0, rate=16_000),
            settings={
                "model": {"method": "lvs", "dim": 512, "seconds": 10.0, "rate": 16_000},
                "loss": _WITHOUT_HINTS,
            },
            own={"positive": 0.65, "negative": 0.4, "temperature": 0.07, "trimap": True, "legacy_diagonal": False},
            protocol="lvs",
        ),
        "sspl": MethodSpec(
            network="sspl.SSPL",
            store=StoreSpec(seconds=3.0, rate=16_000),
            settings={
                "model": {"method": "sspl", **_VGG},
                "loss": _WITHOUT_HINTS,
                "optim": {"name": "adamw", "lr": 2e-5, "weight_decay": 1e-4},
                "epochs": 20,
                "batch": 256,
            },
            own={"pcm": True, "head_lr": 2.5},
            without={
                "pcm": {
                    "optim": {"name": "adamw", "lr": 5e-4, "weight_decay": 1e-4},
                    "epochs": 100,
                }
            },
            protocol="sspl",
            term="agreement",
        ),
        "sacl": MethodSpec(
            network="sacl.SACL",
            store=StoreSpec(seconds=3.0, rate=16_000),
            settings={
                "model": {"method": "sacl", **_VGG, "vision_trunk": "resnet18"},
                "loss": _WITHOUT_HINTS,
                "optim": {"name": "adamw", "lr": 2e-4, "weight_decay": 1e-4},
                "batch": 256,
            },
            own={"temperature": 0.005, "negatives": 0.75, "retained": 0.5, "grid": 0, "legacy_segments": False},
            protocol="sacl",
            segments=True,
        ),
    }
)
"""Name -> method, the default first."""
