"""Which inputs lie in the places a person named: videos, pairs of frame and sound, rows of packed sets.

A frame and a sound of one id are a pair. Several sounds can share a frame, as where one picture has several sources:
`duet1_dog.wav` and `duet1_cat.wav` go with `duet1.jpg`. See `_guests` for when.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from avloc.annotations import is_vggsound_id, media_id
from avloc.errors import UsageError
from avloc.files import real, refuse_url
from avloc.media import PICTURE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES
from avloc.sharding import Part

LAYOUTS = ("auto", "videos", "folders", "hdf5")
PACKED_SUFFIXES = frozenset({".h5", ".hdf5"})
_MEDIA = PICTURE_SUFFIXES | SOUND_SUFFIXES | VIDEO_SUFFIXES | PACKED_SUFFIXES


@dataclass(frozen=True, kw_only=True)
class Source:
    """One input that can become a clip."""

    id: str
    kind: Literal["video", "pair", "packed"]
    path: Path
    """The video, the frame, or the HDF5 file with the frames."""
    sound: Path | None = None
    """The sound file of a pair, or the HDF5 file with the sounds."""
    row: int = 0
    """Row of a packed set."""

    @property
    def frame_id(self) -> str:
        """Id that its picture goes by: not its own where several sounds share the picture."""
        return media_id(self.path, to_first_dot=True) if self.kind == "pair" else self.id

    @property
    def input(self) -> str:
        """How reports name it."""
        if self.frame_id != self.id:
            return str(self.sound)
        return f"{self.path}[{self.row}]" if self.kind == "packed" else str(self.path)

    @property
    def annotated_as(self) -> tuple[Path, ...]:
        """The paths by which annotations can name it.

        A clip that shares its picture goes by the frame it would have of its own, and by its sound. The boxes of the
        shared picture are not its own: they do not say which of its sources sounds.
        """
        if self.frame_id == self.id or self.sound is None:
            return (self.path,)
        return self.path.with_name(self.sound.name.split(".", maxsplit=1)[0] + self.path.suffix), self.sound


@dataclass(frozen=True, kw_only=True)
class Skip:
    """An input that did not make it."""

    id: str
    """Id of the clip that is not to be; '' where a whole file of clips is meant."""
    input: str
    reason: str

    def is_in(self, part: Part) -> bool:
        """Whether it belongs to a part; a file of clips does by its name, its folder may differ between machines."""
        return part.has(self.id or Path(self.input).name)


@dataclass(kw_only=True)
class Found:
    """Everything found, in the order it will be stored."""

    sources: list[Source] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    packed: list[Path] = field(default_factory=list)
    """HDF5 files found; `packed.rows` turns them into sources."""
    ignored: int = 0
    """Lone pictures and sounds that are no halves of a clip: beside videos of the same id, or without any partner."""

    def of(self, part: Part) -> Found:
        """What of it belongs to one part."""
        sources = [source for source in self.sources if part.has(source.id)]
        return replace(self, sources=sources, skips=[skip for skip in self.skips if skip.is_in(part)])


def files_in(sources: Sequence[str], out: Path) -> list[Path]:
    """The files meant by paths, folders (all the way down) and globs; each once, folders in sorted order.

    Hidden files, prepared stores and `out` itself are passed over.

    Raises:
        UsageError: a source does not exist, or a glob matches nothing.
    """
    found: dict[Path, None] = {}
    for text in sources:
        refuse_url(text)
        matches = [text] if os.path.lexists(text) else sorted(glob.glob(text, recursive=True))  # noqa: PTH207
        if not matches:
            raise UsageError(f"no such file or folder: {text}")
        for match in matches:
            found.update(dict.fromkeys(_files_at(Path(match), real(out))))
    return list(found)


def _files_at(path: Path, out: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    seen: set[Path] = set()
    for parent, folders, names in os.walk(path, followlinks=True):
        here = Path(parent)
        place = real(here)
        if place in seen or place == out or "store.json" in names:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (here / name for name in sorted(names) if not name.startswith("."))


def sort_out(paths: Iterable[Path], layout: str, *, named: frozenset[Path]) -> Found:
    """Tell videos, pairs and packed sets apart by their file name endings.

    Args:
        paths: the files, in order.
        layout: one of `LAYOUTS`; other kinds than the one named are passed over.
        named: files a person named one by one: taken for videos if their ending says nothing.
    """
    found = Found()
    pictures: dict[str, list[Path]] = {}
    sounds: dict[str, list[Path]] = {}
    for path in paths:
        suffix = path.suffix.lower()
        if reason := _no_text(path):
            if suffix in _MEDIA or path in named:
                clip_id = media_id(path).encode(errors="backslashreplace").decode()
                found.skips.append(Skip(id=clip_id, input=str(path), reason=reason))
        elif suffix in PICTURE_SUFFIXES:
            pictures.setdefault(media_id(path, to_first_dot=True), []).append(path)
        elif suffix in SOUND_SUFFIXES:
            sounds.setdefault(media_id(path, to_first_dot=True), []).append(path)
        elif suffix in PACKED_SUFFIXES:
            found.packed.append(path)
        elif suffix in VIDEO_SUFFIXES or path in named:
            found.sources.append(Source(id=media_id(path), kind="video", path=path))
    _keep(found, layout)
    if layout in ("auto", "folders"):
        _pair(found, pictures, sounds, strays_matter=layout == "folders")
    return found


def _no_text(path: Path) -> str:
    """Why a store, whose texts are UTF-8, cannot hold the path; '' where it can."""
    full = str(real(path))
    try:
        full.encode()
    except UnicodeEncodeError:
        try:
            os.fsencode(full).decode()
        except UnicodeDecodeError:
            return "has a path that is not UTF-8; rename it"
        return "has a path beyond the characters of this locale; set PYTHONUTF8=1"
    return ""


def _keep(found: Found, layout: str) -> None:
    if layout not in ("auto", "videos"):
        found.sources.clear()
    if layout not in ("auto", "hdf5"):
        found.packed.clear()


def _pair(found: Found, pictures: dict[str, list[Path]], sounds: dict[str, list[Path]], *, strays_matter: bool) -> None:
    """Match frames and sounds by id. Halves without partner are failures where pairs are what the folder holds."""
    videos = {source.id for source in found.sources}
    strays_matter = strays_matter or (bool(pictures) and bool(sounds)) or not (videos or found.packed)
    guests = _guests(pictures, sounds, videos)
    for frame_id, paths in pictures.items():
        clip_ids = [frame_id] if frame_id in sounds else guests.get(frame_id, [])
        if clip_ids:
            found.skips += _seconds(frame_id, paths)
        else:
            _stray(found, frame_id, paths, "a frame without a sound", counts=strays_matter and frame_id not in videos)
        for clip_id in clip_ids:
            heard = sounds.pop(clip_id)
            found.sources.append(Source(id=clip_id, kind="pair", path=paths[0], sound=heard[0]))
            found.skips += _seconds(clip_id, heard)
    for clip_id, paths in sounds.items():
        _stray(found, clip_id, paths, "a sound without a frame", counts=strays_matter and clip_id not in videos)


def _guests(
    pictures: Mapping[str, list[Path]], sounds: Mapping[str, list[Path]], videos: Container[str]
) -> dict[str, list[str]]:
    """Frame id -> ids of the sounds that share the frame, for frames without a sound of their own.

    A sound without a frame of its own goes with the frame of its id less the last `_token`. Where that frame has a
    sound of its own it is that sound's frame, and a lost one of another clip is not replaced by it. The last token of
    an id of VGGSound is a time: another moment of the video is another picture.
    """
    guests: dict[str, list[str]] = {}
    for clip_id in sounds:
        frame_id = clip_id.rpartition("_")[0]
        alone = clip_id not in pictures and clip_id not in videos and not is_vggsound_id(clip_id)
        if alone and frame_id in pictures and frame_id not in sounds and frame_id not in videos:
            guests.setdefault(frame_id, []).append(clip_id)
    return guests


def _seconds(clip_id: str, paths: list[Path]) -> list[Skip]:
    reason = f"a second file for clip {clip_id}; {paths[0]} is used"
    return [Skip(id=clip_id, input=str(path), reason=reason) for path in paths[1:]]


def _stray(found: Found, clip_id: str, paths: list[Path], reason: str, *, counts: bool) -> None:
    if counts:
        found.skips += [Skip(id=clip_id, input=str(path), reason=f"is {reason}") for path in paths]
    else:
        found.ignored += len(paths)


def without_doubles(sources: Iterable[Source], skips: list[Skip]) -> list[Source]:
    """The first input of each id; later ones go to `skips`."""
    first: dict[str, Source] = {}
    for source in sources:
        earlier = first.setdefault(source.id, source)
        if earlier is not source:
            reason = f"has the same id as {earlier.input}, which is used"
            skips.append(Skip(id=source.id, input=source.input, reason=reason))
    return list(first.values())
