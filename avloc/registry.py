"""The published methods, as far as they can be told without their networks. No torch here.

A method is a file of `avloc.methods` and its record in `METHOD_SPECS`, or in `EVENT_SPECS` where it tells what happens
in each second and not where; everything else asks these two.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from avloc.errors import UsageError, nearest

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


def merged(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `update` laid over it, table by table."""
    out = dict(base)
    for name, value in update.items():
        both_tables = isinstance(value, Mapping) and isinstance(out.get(name), Mapping)
        out[name] = merged(out[name], value) if both_tables else value
    return out


@dataclass(frozen=True)
class Own:
    """A setting that one method alone has: its default, and between what it makes sense."""

    default: bool | int | float
    least: float = 0.0
    most: float = math.inf

    def checked(self, name: str, value: object) -> bool | int | float:
        """The value, a whole number as a float where that is wanted.

        Raises:
            UsageError: it is of another type, or makes no sense.
        """
        kind = type(self.default)
        if kind is float and type(value) is int:
            value = float(value)
        check_setting(type(value) is kind, name, value, f"a value of type {kind.__name__}")
        assert isinstance(value, bool | int | float)
        check_setting(self.least <= value <= self.most, name, value, f"{self.least:g} to {self.most:g}")
        return value


def _none() -> Mapping[str, Any]:
    return types.MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Off:
    """What else is otherwise where a setting of its own is switched off."""

    settings: Mapping[str, Any] = field(default_factory=_none)
    own: Mapping[str, bool | int | float] = field(default_factory=_none)


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """One published method."""

    network: str
    """Module and class in `avloc.methods`."""
    store: StoreSpec = field(default_factory=StoreSpec)
    """`prepare --for METHOD`: what a store must hold to train or score it with its defaults."""
    settings: Mapping[str, Any] = field(default_factory=_none)
    """What its authors set otherwise than AVC's, as tables of a `TrainConfig`."""
    own: Mapping[str, Own] = field(default_factory=_none)
    """Settings that no other method has: `--set METHOD.KEY=VALUE`."""
    without: Mapping[str, Off] = field(default_factory=_none)
    """Own setting that is switched off -> what else its authors set then."""
    unused: tuple[str, ...] = ()
    """Settings that mean nothing to it."""
    protocol: str = "avloc"
    """The rule by which its authors score maps; avloc's own for AVC, whose code scores against the first box alone; ''
    where there are no maps to score."""
    hints: bool = False
    """Whether teachers speak in its training."""
    segments: bool = False
    """Whether it learns from regions of the frames (`avloc.media.superpixels`); its `grid` may take rectangles."""
    term: str = "contrastive"
    """The loss term that says how good it is where nothing else does."""

    @property
    def name(self) -> str:
        """As `--set NAME.KEY=VALUE` has it; `--method` has dashes in it."""
        return self.network.partition(".")[0]

    def settled(self, given: Mapping[str, Any]) -> dict[str, bool | int | float]:
        """Its own settings, those that are not given at their defaults.

        Raises:
            UsageError: a setting that it does not have, or a value that makes no sense.
        """
        unknown = next((name for name in given if name not in self.own), None)
        if unknown is not None:
            valid, hint = ", ".join(self.own) or "none", nearest(unknown, self.own)
            raise UsageError(f"unknown setting {unknown} of {self.name}; valid: {valid}", hint=hint)
        defaults = {name: own.default for name, own in self.own.items()}
        for off in self._off(given):
            defaults |= off.own
        return {
            name: self.own[name].checked(f"{self.name}.{name}", value) for name, value in {**defaults, **given}.items()
        }

    def defaults(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """`settings`, and those of `without` that go with its own settings as given."""
        out = dict(self.settings)
        for off in self._off(given):
            out = merged(out, off.settings)
        return out

    def _off(self, given: Mapping[str, Any]) -> list[Off]:
        return [off for name, off in self.without.items() if not given.get(name, self.own[name].default)]


_WITHOUT_HINTS = {"audio_hint": 0.0, "visual_hint": 0.0}
_VGG = {"vision_trunk": "vgg16", "audio_trunk": "vggish", "dim": 512, "rate": 16_000}
_OF_TEACHERS = ("loss.audio_hint", "loss.visual_hint", "audio_teacher", "visual_teacher", "augment.map")
_OF_LABELS = ("loss.same_class", "loss.box", "loss.peak")
_OF_OTHERS = ("loss.agreement", "loss.event")
_SWITCH_ON, _SWITCH_OFF = Own(default=True), Own(default=False)

METHOD_SPECS: Mapping[str, MethodSpec] = types.MappingProxyType(
    {
        "avc": MethodSpec(network="avc.AVC", hints=True, unused=_OF_OTHERS),
        "ezvsl": MethodSpec(
            network="ezvsl.EZVSL",
            settings={"model": {"method": "ezvsl", "dim": 512}, "loss": _WITHOUT_HINTS},
            unused=(*_OF_OTHERS, *_OF_TEACHERS),
            protocol="ezvsl",
        ),
        "lvs": MethodSpec(
            network="lvs.LVS",
            store=StoreSpec(seconds=10.0, rate=16_000),
            settings={
                "model": {"method": "lvs", "dim": 512, "seconds": 10.0, "rate": 16_000},
                "loss": _WITHOUT_HINTS,
            },
            own={
                "positive": Own(0.65, -1.0, 1.0),
                "negative": Own(0.4, -1.0, 1.0),
                "temperature": Own(0.07, 1e-6),
                "trimap": _SWITCH_ON,
                "legacy_diagonal": _SWITCH_OFF,
            },
            unused=("thaw", *_OF_OTHERS, *_OF_TEACHERS),
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
            own={"pcm": _SWITCH_ON, "head_lr": Own(2.5)},
            without={"pcm": Off(settings={"optim": {"lr": 5e-4}, "epochs": 100}, own={"head_lr": 4.0})},
            unused=("model.tau", "thaw", "loss.contrastive", "loss.event", *_OF_LABELS, *_OF_TEACHERS),
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
            own={
                "temperature": Own(0.005, 1e-6),
                "negatives": Own(0.75, 0.0, 1.0),
                "retained": Own(0.5, 0.0, 0.99),
                "grid": Own(0, 0, 14),
                "legacy_segments": _SWITCH_OFF,
            },
            unused=("model.tau", *_OF_OTHERS, *_OF_LABELS, *_OF_TEACHERS),
            protocol="sacl",
            segments=True,
        ),
    }
)
"""Name -> method that makes maps, the default first."""

_TEN_SECONDS = StoreSpec(seconds=10.0, rate=16_000)
_FEATURES = {"vision_trunk": "vgg19", "audio_trunk": "vggish", "dim": 512, "seconds": 10.0, "rate": 16_000}
_SMALL = {"loss": _WITHOUT_HINTS, "optim": {"lr": 1e-3}, "init": "random", "precision": "fp32"}
_OF_MEDIA = (
    *(f"model.{name}" for name in ("vision_trunk", "audio_trunk", "dim", "tau", "seconds", "rate", "frame")),
    *("augment.scale", "augment.flip", "freeze", "thaw", "precision", "workers"),
)
"""What says how media reach a network: these methods learn from features that lie in the store."""

EVENT_SPECS: Mapping[str, MethodSpec] = types.MappingProxyType(
    {
        "ave": MethodSpec(
            network="ave.AVE",
            store=_TEN_SECONDS,
            settings={"model": {"method": "ave", **_FEATURES}, **_SMALL, "epochs": 300, "batch": 64},
            own={"classes": Own(28, 1, 10_000), "dmrn": _SWITCH_OFF, "weak": _SWITCH_OFF, "cross_entropy": _SWITCH_OFF},
            unused=("loss.agreement", "loss.contrastive", *_OF_MEDIA, *_OF_LABELS, *_OF_TEACHERS),
            protocol="",
            term="event",
        ),
        "ave-match": MethodSpec(
            network="ave_match.AveMatch",
            store=_TEN_SECONDS,
            settings={"model": {"method": "ave-match", **_FEATURES}, **_SMALL, "epochs": 20, "batch": 8},
            own={"margin": Own(2.0, 1e-6, 1e6)},
            unused=(*_OF_OTHERS, *_OF_MEDIA, *_OF_LABELS, *_OF_TEACHERS),
            protocol="",
        ),
    }
)
"""Name -> method that tells events, second by second (AVE)."""

SPECS: Mapping[str, MethodSpec] = types.MappingProxyType({**METHOD_SPECS, **EVENT_SPECS})
"""All of them."""
