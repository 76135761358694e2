"""Comparing what folders hold."""

from __future__ import annotations

from pathlib import Path


def folder_contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder and its subfolders, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
