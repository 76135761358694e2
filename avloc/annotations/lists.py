"""The published lists shipped with the package, and lists of a person's own."""

from __future__ import annotations

import lzma
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePath

from avloc.annotations.ids import canonical_id, media_id
from avloc.errors import UsageError

TESTSETS: Mapping[str, str] = types.MappingProxyType(
    {
        "flickr": "flickr_test",
        "vggss": "vggss_test",
        "vggss-heard": "vggss_heard_test",
        "vggss-unheard": "vggss_unheard_test",
    }
)
"""`eval --testset` -> name of its published list."""

TEST_LISTS = frozenset({*TESTSETS.values(), "vggss_test_4692"})
"""The published lists that are test sets."""

_UNLISTED = frozenset({"3908875357"})
"""Flickr-SoundNet has 250 test clips; the list that systems publish and score on has 249 of them."""

_ENDING = ".txt.xz"
_PAIRED = "_plus_silent"
_MEDIA_ENDINGS = (".mp4", ".mkv", ".webm", ".jpg", ".jpeg", ".png", ".wav", ".flac", ".mp3", ".ogg")


@dataclass(frozen=True)
class SilentPair:
    """A row of SLAVC's extended sets: a frame with a sound that does not belong to it, or that says nothing."""

    video: str
    """Id of the clip that is seen."""
    audio: str
    """Id of the clip that is heard."""
    label: str


@dataclass(frozen=True, kw_only=True)
class IdList:
    """The ids a person asked for with `--ids`."""

    ids: tuple[str, ...]
    """Canonical, in the order of the list, each once."""
    name: str
    """Name of the published list that these are, or ''."""
    is_test: bool
    """Whether every id is a test clip of VGG-SS or Flickr-SoundNet."""


def shipped(name: str) -> bytes:
    """Decompressed contents of one file in `annotations/data`."""
    return lzma.decompress(files("avloc.annotations").joinpath("data", f"{name}.xz").read_bytes())


@cache
def list_names() -> tuple[str, ...]:
    """Names of the published id lists, sorted."""
    names = (
        entry.name.removesuffix(_ENDING)
        for entry in files("avloc.annotations").joinpath("data").iterdir()
        if entry.name.endswith(_ENDING)
    )
    return tuple(sorted(name for name in names if not name.endswith(_PAIRED)))


def list_name(text: str) -> str:
    """The published list that `text` means: its name with `_` or `-`, or a test set as `eval --testset` calls it.

    One pair is told apart by the dash alone: `vggss_heard` is the training list, `vggss-heard` the test set.

    Raises:
        UsageError: there is none.
    """
    name = TESTSETS.get(text, text.replace("-", "_"))
    if name not in list_names():
        raise UsageError(f"--ids {text}: neither a file nor a published list; valid: {', '.join(list_names())}")
    return name


@cache
def published_list(name: str) -> tuple[str, ...]:
    """Ids of a published list, canonical; test lists in their published order, training lists sorted.

    Raises:
        UsageError: there is no list of this name.
    """
    return tuple(shipped(f"{list_name(name)}.txt").decode().split())


def testset_list(testset: str) -> str:
    """Name of the published list behind a test set as `eval --testset` names it; '' where there is none."""
    return TESTSETS.get(testset, "")


def silent_pairs(testset: str) -> tuple[SilentPair, ...]:
    """SLAVC's extension of `flickr` or `vggss` by pairs that must show nothing.

    Raises:
        UsageError: that test set has no such extension.
    """
    if testset not in ("flickr", "vggss"):
        raise UsageError(f"{testset} has no extension with silent pairs; valid: flickr, vggss")
    lines = shipped(f"{TESTSETS[testset]}{_PAIRED}.txt").decode().splitlines()[1:]
    return tuple(SilentPair(*line.split(",")) for line in lines)


@cache
def test_ids() -> frozenset[str]:
    """Every test clip of VGG-SS and Flickr-SoundNet, also the one that the published list of the latter lacks."""
    return frozenset(clip_id for name in TEST_LISTS for clip_id in published_list(name)) | _UNLISTED


def read_ids(text: str) -> IdList:
    """What `--ids` names: a file with one id a line (first column of a CSV, also xz-compressed), or a published list.

    A file that holds exactly the ids of a published list is that list.

    Raises:
        UsageError: neither a file nor a list, or a file without ids.
    """
    path = Path(text)
    if not path.is_file():
        name = list_name(text)
        ids = published_list(name)
    else:
        ids = _ids_in(path)
        name = next((n for n in sorted(TEST_LISTS) if frozenset(published_list(n)) == frozenset(ids)), "")
    return IdList(ids=ids, name=name, is_test=test_ids().issuperset(ids))


def _ids_in(path: Path) -> tuple[str, ...]:
    try:
        data = path.read_bytes()
        lines = (lzma.decompress(data) if path.suffix == ".xz" else data).decode("utf-8-sig").splitlines()
    except (lzma.LZMAError, UnicodeDecodeError) as error:
        raise UsageError(f"--ids {path} is not a text file with one id a line: {error}") from None
    ids = tuple(dict.fromkeys(_id_of(field) for line in lines if (field := line.split(",")[0].strip())))
    if not ids:
        raise UsageError(f"--ids {path} holds no id")
    return ids


def _id_of(field: str) -> str:
    path = PurePath(field)
    return media_id(path) if path.suffix.lower() in _MEDIA_ENDINGS else canonical_id(field)
