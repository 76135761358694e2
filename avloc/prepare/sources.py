"""Find and classify input files: videos, pairs of frame and sound, packed sets.

A frame and a sound with the same id are a pair. Several sounds can share a frame with several sources: `duet1_dog.wav`
and `duet1_cat.wav` go with `duet1.jpg` (see `_shared_pictures`).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from avloc.annotations.testsets import is_vggsound_id, media_id
from avloc.errors import UsageError
from avloc.files import real_path, refuse_url
from avloc.media.pictures import PICTURE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES
from avloc.sharding import JobShard

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
        """Id of its picture, which differs from `id` if several sounds share the picture."""
        return media_id(self.path, to_first_dot=True) if self.kind == "pair" else self.id

    @property
    def input(self) -> str:
        """Name in reports."""
        if self.frame_id != self.id:
            return str(self.sound)
        return f"{self.path}[{self.row}]" if self.kind == "packed" else str(self.path)

    @property
    def annotated_as(self) -> tuple[Path, ...]:
        """Paths under which its annotation is looked up.

        A clip with a shared picture is looked up by the frame it would have of its own, and by its sound: annotations
        of the shared picture do not distinguish its sources.
        """
        if self.frame_id == self.id or self.sound is None:
            return (self.path,)
        return self.path.with_name(self.sound.name.split(".", maxsplit=1)[0] + self.path.suffix), self.sound


@dataclass(frozen=True, kw_only=True)
class Skip:
    """An input that was not used; an entry of `skipped.jsonl`."""

    id: str
    """Id of the clip; '' for a file of many clips."""
    input: str
    reason: str

    def in_shard(self, shard: JobShard) -> bool:
        """Whether it is in a shard: by its id, else its file name, since folders may differ between machines."""
        return shard.contains(self.id or Path(self.input).name)


@dataclass(kw_only=True)
class FoundInputs:
    """The inputs found, in storage order."""

    sources: list[Source] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    packed: list[Path] = field(default_factory=list)
    """HDF5 files, converted to sources by `packed.packed_sources`."""
    ignored: int = 0
    """Number of unpaired pictures and sounds: beside videos of the same id, or without partner."""

    def within(self, shard: JobShard) -> FoundInputs:
        """The inputs of one shard."""
        sources = [source for source in self.sources if shard.contains(source.id)]
        return replace(self, sources=sources, skips=[skip for skip in self.skips if skip.in_shard(shard)])


def files_in(sources: Sequence[str], out: Path) -> list[Path]:
    """List the files of paths, folders (recursively, sorted) and globs, each once.

    Hidden files, stores and `out` are left out.

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
            found.update(dict.fromkeys(_files_at(Path(match), real_path(out))))
    return list(found)


def _files_at(path: Path, out: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    seen: set[Path] = set()
    for parent, folders, names in os.walk(path, followlinks=True):
        here = Path(parent)
        place = real_path(here)
        if place in seen or place == out or "store.json" in names:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (here / name for name in sorted(names) if not name.startswith("."))


def classify(paths: Iterable[Path], layout: str, *, named: frozenset[Path]) -> FoundInputs:
    """Classify files as videos, pairs and packed sets by their suffixes.

    Args:
        paths: the files, in order.
        layout: as in `PrepareOptions`; other kinds are ignored.
        named: files given one by one, which are videos if their suffix is unknown.
    """
    found = FoundInputs()
    pictures: dict[str, list[Path]] = {}
    sounds: dict[str, list[Path]] = {}
    for path in paths:
        suffix = path.suffix.lower()
        if reason := _encoding_problem(path):
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
    found.sources = found.sources if layout in ("auto", "videos") else []
    found.packed = found.packed if layout in ("auto", "hdf5") else []
    if layout in ("auto", "folders"):
        _pair(found, pictures, sounds, require_pairs=layout == "folders")
    return found


def _encoding_problem(path: Path) -> str:
    """Why a path cannot be stored as UTF-8; '' if it can."""
    full = str(real_path(path))
    try:
        full.encode()
    except UnicodeEncodeError:
        try:
            os.fsencode(full).decode()
        except UnicodeDecodeError:
            return "has a path that is not UTF-8; rename it"
        return "has a path beyond the characters of this locale; set PYTHONUTF8=1"
    return ""


def _pair(
    found: FoundInputs, pictures: dict[str, list[Path]], sounds: dict[str, list[Path]], *, require_pairs: bool
) -> None:
    """Pair frames and sounds by id. Unpaired files are failures if the input consists of pairs, else ignored."""
    videos = {source.id for source in found.sources}
    require_pairs = require_pairs or (bool(pictures) and bool(sounds)) or not (videos or found.packed)
    shared = _shared_pictures(pictures, sounds, videos)
    for frame_id, paths in pictures.items():
        clip_ids = [frame_id] if frame_id in sounds else shared.get(frame_id, [])
        if clip_ids:
            found.skips += _duplicates(frame_id, paths)
        else:
            _unpaired(
                found, frame_id, paths, "a frame without a sound", counts=require_pairs and frame_id not in videos
            )
        for clip_id in clip_ids:
            files = sounds.pop(clip_id)
            found.sources.append(Source(id=clip_id, kind="pair", path=paths[0], sound=files[0]))
            found.skips += _duplicates(clip_id, files)
    for clip_id, paths in sounds.items():
        _unpaired(found, clip_id, paths, "a sound without a frame", counts=require_pairs and clip_id not in videos)


def _shared_pictures(
    pictures: Mapping[str, list[Path]], sounds: Mapping[str, list[Path]], videos: Container[str]
) -> dict[str, list[str]]:
    """Frame id -> ids of the sounds that share the frame, for frames without a sound of the same id.

    A sound without a frame uses the frame of its id without the last `_token`, unless that frame has its own sound.
    VGGSound ids are excluded: their last token is a time, so the other frame is of another moment.
    """
    shared: dict[str, list[str]] = {}
    for clip_id in sounds:
        frame_id = clip_id.rpartition("_")[0]
        alone = clip_id not in pictures and clip_id not in videos and not is_vggsound_id(clip_id)
        if alone and frame_id in pictures and frame_id not in sounds and frame_id not in videos:
            shared.setdefault(frame_id, []).append(clip_id)
    return shared


def _duplicates(clip_id: str, paths: list[Path]) -> list[Skip]:
    reason = f"a second file for clip {clip_id}; {paths[0]} is used"
    return [Skip(id=clip_id, input=str(path), reason=reason) for path in paths[1:]]


def _unpaired(found: FoundInputs, clip_id: str, paths: list[Path], reason: str, *, counts: bool) -> None:
    if counts:
        found.skips += [Skip(id=clip_id, input=str(path), reason=f"is {reason}") for path in paths]
    else:
        found.ignored += len(paths)


def without_duplicates(sources: Iterable[Source], skips: list[Skip]) -> list[Source]:
    """The first input of each id; later ones are added to `skips`."""
    first: dict[str, Source] = {}
    for source in sources:
        earlier = first.setdefault(source.id, source)
        if earlier is not source:
            reason = f"has the same id as {earlier.input}, which is used"
            skips.append(Skip(id=source.id, input=source.input, reason=reason))
    return list(first.values())
