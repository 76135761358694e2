"""What is known of published weights before they are looked for, and once they are found."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class HashSource(Enum):
    """Where the publisher says what a file hashes to."""

    FILE_NAME = "leading hex digits of the SHA-256 in the file name"
    RECORD = "checksum in the record's JSON, asked for when downloading"
    HEADER = "X-Linked-ETag or ETag of the response: SHA-256, or git blob hash of a small file"
    NOWHERE = "no hash is published; the computed one is recorded, unverified"


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One file at its publisher."""

    name: str
    hash_source: HashSource
    url: str = ""
    """Where it can be downloaded; '' where no address is known."""
    record: str = ""
    """Address of the record's JSON, for `HashSource.RECORD`."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One set of published weights: a file, or a folder of files."""

    name: str
    files: tuple[WeightFile, ...]
    folder: str = ""
    """Name of the folder that holds the files; '' for a file that lies by itself."""
    package: str = ""
    """Python package that carries the files in its folder `models`; '' for none. It is looked into, never imported."""
    advice: str = ""
    """How to get files without an address: a sentence with its full stop."""

    @property
    def label(self) -> str:
        """What a user looks for on disk: the file's name, or the folder's with its files."""
        names = ", ".join(file.name for file in self.files)
        return f"{self.folder}/ ({names})" if self.folder else names

    def under(self, place: Path) -> Path:
        """Where the weights lie inside a folder of weights."""
        return place / (self.folder or self.files[0].name)

    def files_under(self, place: Path) -> list[Path]:
        """The path of each file inside a folder of weights."""
        return [place / self.folder / file.name for file in self.files]


@dataclass(frozen=True, kw_only=True)
class Located:
    """Weights on disk."""

    path: Path
    """The file, or the folder that holds the files."""
    hashes: dict[str, str]
    """File name -> SHA-256 in hex, as computed here."""
    verified: bool
    """Whether every file agreed with a hash that its publisher states."""

    @property
    def sha256(self) -> str:
        """The file's SHA-256; for a folder, that of its `<hash>  <name>` lines."""
        if len(self.hashes) == 1:
            return next(iter(self.hashes.values()))
        lines = "".join(f"{value}  {name}\n" for name, value in sorted(self.hashes.items()))
        return hashlib.sha256(lines.encode()).hexdigest()
