"""Which sounds go with which pictures: the tables of pairs.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLES = Path(__file__).with_name("pairs.toml")
Table = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Pairs:
    """Sound classes by what is in a picture."""

    same: Mapping[str, str]
    """Folder of sounds -> the class that they are of, where it has another name."""
    kinds: Table
    """Picture classes of people and of instruments."""
    fits: Table
    """Picture class -> sound classes that it is paired with."""
    may: Table
    """Picture class -> all sound classes that its pictures may show."""
    objects: Table
    """Object of the automatic boxes -> sound classes that a picture with one may show."""
    boxes: Table
    """Picture class -> objects of the automatic boxes that its sounds come from."""
    pictureless: frozenset[str]

    def sound_class(self, folder: str) -> str:
        """The class of the sounds of a folder."""
        return self.same.get(folder, folder)

    def shown(self, kind: str, objects: Iterable[str]) -> tuple[str, ...]:
        """Sound classes that a picture of a class with these objects in it may show, each once."""
        found = [*self.may[kind], *(name for thing in objects for name in self.objects.get(thing, ()))]
        return tuple(dict.fromkeys(found))


@cache
def read_pairs() -> Pairs:
    """The tables, groups replaced by their members."""
    tables = tomllib.loads(TABLES.read_text(encoding="utf-8"))
    groups = tables["groups"]

    def expanded(table: str) -> Table:
        return {
            name: tuple(one for entry in entries for one in (groups[entry[1:]] if entry[0] == "@" else [entry]))
            for name, entries in tables[table].items()
        }

    fits, may = expanded("fits"), expanded("may")
    return Pairs(
        same=tables["same"],
        kinds=expanded("kinds"),
        fits=fits,
        may={kind: (*sounds, *may.get(kind, ())) for kind, sounds in fits.items()},
        objects=expanded("objects"),
        boxes=expanded("boxes"),
        pictureless=frozenset(tables["pictureless"]["sounds"]),
    )
