"""PANNs Cnn14 teacher: an embedding of a clip's sound."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from avloc.config import PANNS_SOUNDS
from avloc.errors import InputError, UsageError
from avloc.files import read_json_object
from avloc.networks.cnn14 import MIN_SAMPLES, RATE, WIDTH, embed, load_cnn14
from avloc.progress import Notice
from avloc.registry import StoreSpec
from avloc.store import TRACK, Clip, Store, hint_folder
from avloc.store.hints import STAMP
from avloc.teachers.base import SoundTeacher, TeacherContext
from avloc.weights import CNN14, Located


@dataclass(frozen=True, kw_only=True)
class PannsSettings:
    """Settings of PANNs' hints.

    Raises:
        UsageError: an invalid value.
    """

    normalise: bool = True
    """Normalise embeddings to unit length, as the student's."""
    sound: str = "auto"
    """`source`: the clip's source file, at full bandwidth; `store`: the sound in the store; `auto`: see
    `choose_sound`."""

    def __post_init__(self) -> None:
        if self.sound not in PANNS_SOUNDS:
            raise UsageError(f"sound = {self.sound!r} is impossible; valid: {', '.join(PANNS_SOUNDS)}")


class PannsTeacher(SoundTeacher[nn.Module]):
    """Cnn14's embedding [2048] of a clip's sound; the input of its settings is `source` or `store`, not `auto`."""

    name = "panns"
    title = "PANNs"
    weight = CNN14
    load = staticmethod(load_cnn14)
    rate = RATE
    min_rate = 0
    min_samples = MIN_SAMPLES

    def __init__(self, settings: PannsSettings, spec: StoreSpec, weights: Located, device: torch.device) -> None:
        if settings.sound == "auto":
            raise ValueError("sound is auto; see choose_sound")
        super().__init__(spec, weights, device, shape=(WIDTH,), settings=asdict(settings))
        self.settings = settings

    @classmethod
    def build(cls, context: TeacherContext) -> Self:
        """With `sound` and `normalise` of the options; a notice names the input."""
        sound = choose_sound(context.store, context.sound)
        settings = PannsSettings(normalise=context.normalise, sound=sound)
        weights = context.find(cls.weight)
        context.listener(Notice(f"PANNs input: the {'source files' if sound == 'source' else 'sound in the store'}"))
        return cls(settings, context.store.spec, weights, context.device)

    def read(self, clip: Clip) -> NDArray[np.float32]:
        """The waveform [seconds * 32000] in [-1, 1].

        Raises:
            InputError: the source file is missing, changed or unreadable.
        """
        if self.settings.sound == "store":
            return super().read(clip)
        from avloc.media.audio import read_sound

        if not source_is_there(clip.sound_source, clip.source_bytes):
            source = clip.sound_source or "none is recorded"
            raise InputError(f"the source of its sound is missing or changed: {source}")
        centre_s = clip.window_s + self.spec.seconds / 2
        path = Path(clip.sound_source)
        return read_sound(path, seconds=self.spec.seconds, rate=RATE, centre_s=centre_s).waveform

    def predict(self, batch: Tensor) -> Tensor:
        """Embeddings, also for silence."""
        embedding = embed(self.model, batch).float()
        return F.normalize(embedding, dim=1) if self.settings.normalise else embedding


def source_is_there(sound_source: str, source_bytes: int) -> bool:
    """Whether the source file of a clip's sound exists, with the same size."""
    try:
        return bool(sound_source) and Path(sound_source).stat().st_size == source_bytes
    except OSError:
        return False


def choose_sound(store: Store, sound: str) -> str:
    """Resolve `auto` to `source` or `store`, once for the whole store.

    The stamp of existing hints decides, so that jobs resume consistently. Otherwise it is `source` if the source files
    of all clips exist. The choice is never made per clip, which would mix hints of full and reduced bandwidth.

    Raises:
        UsageError: `source` for a store with a selected sound track.
    """
    track = store.header.provenance.get(TRACK)
    if track is not None and sound == "source":
        raise UsageError(f"--sound source cannot be combined with a store of sound track {track}; valid: store")
    if sound != "auto":
        return sound
    if track is not None:
        return "store"
    stamp = hint_folder(store.folder, PannsTeacher.name) / STAMP
    if stamp.is_file():
        previous = read_json_object(stamp).get("settings", {}).get("sound")
        if previous in PANNS_SOUNDS:
            return str(previous)
    sources = zip(store.column("sound_source"), store.column("source_bytes"), strict=True)
    return "source" if all(source_is_there(str(path), int(size)) for path, size in sources) else "store"
