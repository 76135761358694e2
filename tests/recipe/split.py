"""Which pictures and sounds are for training and which for testing, decided by file and recording before anything else.

DATA holds `classes/` and `everyday/`, each with `images/CLASS/*.jpg`, `sounds/CLASS/*`, `sounds_only/CLASS/*`,
`boxes.json` (path -> boxes in fractions, by people but for farm animals and some pets) and `auto_boxes.json` (path ->
boxes with score and name, by a detector). The beginning of a file's name is its source. Paths are relative to DATA.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from avloc.files import sha256_of
from tests.recipe.pairs import TABLES, read_pairs

CLASSES, EVERYDAY = "classes", "everyday"
LICENCES = Path(__file__).with_name("licences.toml")
MACHINE_MADE = "hc"
"""Source whose pictures look machine-made: never tested on."""
THRESHOLDED = "ins"
"""Source whose boxes are thresholded backgrounds: how well they fit means little."""
UNBOXED_TEST, BOXED_TEST = 0.35, 0.5
"""Shares of the pictures for testing: of boxed ones of `classes` many, since few pictures have boxes made by people."""
FEW_BOXES = 10
"""Classes of `classes` with fewer boxed pictures keep all of them for testing."""
FEW_RECORDINGS = 3
"""Sounds of `everyday` of whose class there are fewer recordings are for training."""
SHOWN = 0.3
"""Score of automatic boxes above which a thing may be in a picture."""
TRAINING_ONLY = re.compile(
    "cal101_|pacs_"  # share motives with each other
    "|lspede_|shtech_B|intelvid_"  # several pictures of one camera
    "|snore_|shoyo_"  # pieces of a few recordings
    "|picoint_|picowake_|mycroft_"  # speakers not known
)
"""Beginning of names in `everyday` whose pictures, recordings or speakers cannot be told apart: never tested on."""
_BY_RECORDING = "us8k"
"""Source of `classes` with several sounds of one recording: `us8k_RECORDING-PART`."""
_SPEAKERS = {
    "arab": r"\d+",
    "emodb": r"\d\d",
    "gsc": r"[0-9a-f]{8}",
    "libri": r"\d+",
    "urdu": r"\w+-(S[MF]\d+)",
}
_IDS = {"fsdk18": r".*", "kitchen20": r"\d-(.*)-[A-Z]-\d+$", "opensfx": r".*"}
_TAKE = r"(.*?)[-.]?\d*$"
"""Names of other sources of `everyday`: those that differ by a number at the end may be takes of one recording."""


def chance(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def class_of(path: str) -> str:
    """The folder that a picture or sound lies in."""
    return path.split("/")[-2]


def sound_class_of(path: str) -> str:
    """The class of a sound; folders of several names may hold the same."""
    return read_pairs().sound_class(class_of(path))


def source_of(path: str) -> str:
    """The beginning of the file's name."""
    return path.split("/")[-1].split("_")[0]


def recording_of(path: str) -> str:
    """What a sound is a part of, or who speaks; in `classes` most are whole."""
    if not _is_everyday(path):
        name = path.split("/")[-1]
        return name.split("-")[0] if name.startswith(_BY_RECORDING) else name
    source, _, name = Path(path).stem.partition("_")
    found = re.match(_SPEAKERS.get(source) or _IDS.get(source) or _TAKE, name.split("+")[0])
    assert found, f"{path} is not named as the files of {source} are"
    return f"{source}_{found[found.lastindex or 0]}"


@dataclass(frozen=True)
class Source:
    """Where files come from."""

    any_use: bool
    """Whether all of them may be used for any purpose."""
    name: str
    licence: str


def tables_hash() -> str:
    """SHA-256 of the tables that say what is trained on: those of pairs.toml and licences.toml."""
    return sha256_of(TABLES, LICENCES)


@cache
def read_sources() -> dict[str, dict[str, Source]]:
    """The tables of licences.toml: folder -> beginning of a file's name -> its source."""
    tables = tomllib.loads(LICENCES.read_text(encoding="utf-8"))
    return {folder: {key: Source(**row) for key, row in rows.items()} for folder, rows in tables.items()}


def source(path: str) -> Source:
    """The source of a picture or sound.

    Raises:
        KeyError: licences.toml does not name it.
    """
    return read_sources()[path.split("/")[0]][source_of(path)]


def credited(parts: Iterable[Mapping[str, Iterable[str]]]) -> dict[str, dict[str, dict[str, object]]]:
    """Folder -> beginning of a file's name -> name, licence and number of files of the source.

    Args:
        parts: part of the split -> paths, for pictures and for sounds; those for training count.
    """
    counts = Counter((path.split("/")[0], source_of(path)) for part in parts for path in part["train"])
    out: dict[str, dict[str, dict[str, object]]] = {}
    for (folder, key), count in sorted(counts.items()):
        known = read_sources()[folder][key]
        out.setdefault(folder, {})[key] = {"name": known.name, "licence": known.licence, "files": count}
    return out


@dataclass(frozen=True)
class Classes:
    """Pictures and sounds by class."""

    data: Path
    folders: tuple[str, ...] = (CLASSES, EVERYDAY)
    open_only: bool = False
    """Only files that may be used for any purpose; each is in the same part as without."""

    @cached_property
    def boxes(self) -> dict[str, list[list[float]]]:
        """Picture -> boxes by people."""
        return self._of_folders("boxes.json")

    @cached_property
    def auto_boxes(self) -> dict[str, list[tuple[float, float, float, float, float, str]]]:
        """Picture -> boxes by a detector: corners, score, name."""
        return self._of_folders("auto_boxes.json")

    @cached_property
    def pictures(self) -> dict[str, list[str]]:
        """Part (`train`, `test` or `unused`) -> pictures."""
        paths = self._paths("images/*/*.jpg")
        well_boxed = [class_of(path) for path in paths if self.is_well_boxed(path) and not _is_everyday(path)]
        few = {class_of(path) for path in paths if well_boxed.count(class_of(path)) < FEW_BOXES}
        parts = {path: self._picture_part(path, few) for path in paths}
        tested = {_coco_id(path) for path, part in parts.items() if part == "test"} - {None}
        for path, part in parts.items():
            if part == "train" and _coco_id(path) in tested:
                parts[path] = "unused"  # the same picture lies in the folder of another class
        return self._by_part(parts)

    @cached_property
    def sounds(self) -> dict[str, list[str]]:
        """Part (`train` or `test`) -> sounds, those of classes without pictures included."""
        paths = [path for folder in self.folders for path in self._sounds_of(folder)]
        recordings: dict[str, set[str]] = defaultdict(set)
        for path in paths:
            recordings[sound_class_of(path)].add(recording_of(path))
        rare = {one for found in recordings.values() if len(found) < FEW_RECORDINGS for one in found}
        return self._by_part({path: _sound_part(path, rare) for path in paths})

    def is_well_boxed(self, path: str) -> bool:
        """Whether a picture can be scored by its boxes."""
        return path in self.boxes and source_of(path) not in (THRESHOLDED, MACHINE_MADE)

    def shown(self, path: str) -> tuple[str, ...]:
        """Sound classes that a picture may show, by its class and its automatic boxes."""
        objects = (name for *_, score, name in self.auto_boxes.get(path, ()) if score > SHOWN)
        return read_pairs().shown(class_of(path), objects)

    def _picture_part(self, path: str, few: set[str]) -> str:
        if _is_everyday(path):
            return _everyday_part(path, path)
        draw = chance(path.partition("/")[2])
        if self.is_well_boxed(path):
            return "test" if class_of(path) in few or draw < BOXED_TEST else "train"
        if draw >= UNBOXED_TEST:
            return "train"
        return "unused" if source_of(path) == MACHINE_MADE else "test"

    def _paths(self, pattern: str) -> list[str]:
        found = ((folder, path) for folder in self.folders for path in sorted((self.data / folder).glob(pattern)))
        return [path.relative_to(self.data).as_posix() for _, path in found]

    def _sounds_of(self, folder: str) -> list[str]:
        patterns = ("sounds/*/*", "sounds_only/*/*")
        return [path for pattern in patterns for path in Classes(self.data, (folder,))._paths(pattern)]

    def _of_folders(self, name: str) -> dict:
        """The entries of a file of each folder, with paths from DATA."""
        read = {folder: json.loads((self.data / folder / name).read_text(encoding="utf-8")) for folder in self.folders}
        return {f"{folder}/{path}": rows for folder, entries in read.items() for path, rows in entries.items()}

    def _by_part(self, parts: Mapping[str, str]) -> dict[str, list[str]]:
        out: dict[str, list[str]] = {"train": [], "test": []}
        for path, part in parts.items():
            if not self.open_only or source(path).any_use:
                out.setdefault(part, []).append(path)
        return out


def _is_everyday(path: str) -> bool:
    return path.startswith(f"{EVERYDAY}/")


def _coco_id(path: str) -> str | None:
    found = re.match(r"\w*coco[a-z0-9]*_(\d+)\.", path.split("/")[-1])
    return found[1] if found else None


def _everyday_part(path: str, key: str) -> str:
    if TRAINING_ONLY.match(path.split("/")[-1]):
        return "train"
    return "test" if chance(key) < UNBOXED_TEST else "train"


def _sound_part(path: str, rare: set[str]) -> str:
    recording = recording_of(path)
    if _is_everyday(path):
        return "train" if recording in rare else _everyday_part(path, recording)
    return "test" if chance(recording) < UNBOXED_TEST else "train"


def by_class(paths: Iterable[str], named: Callable[[str], str] = class_of) -> dict[str, list[str]]:
    """Class -> its files."""
    out: dict[str, list[str]] = {}
    for path in paths:
        out.setdefault(named(path), []).append(path)
    return out
