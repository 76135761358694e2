"""All inputs of one run, from the places a person named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avloc.errors import UsageError
from avloc.files import real
from avloc.prepare import packed
from avloc.prepare.sources import Found, files_in, sort_out
from avloc.progress import Listener, Notice


def find(sources: Sequence[str], out: Path, *, layout: str, masks: Path | None, listener: Listener) -> Found:
    """Find the inputs.

    Args:
        sources: files, folders and globs.
        out: the store, which is no input.
        layout: one of `avloc.prepare.sources.LAYOUTS`.
        masks: the folder of masks, if there is one; what lies in it is no frame.
        listener: hears what a person should know of them.

    Raises:
        UsageError: a source does not exist, or there is nothing in any.
    """
    paths = files_in(sources, out)
    if masks is not None:
        paths = [path for path in paths if not _is_mask(path, real(masks))]
    found = sort_out(paths, layout, named=frozenset(Path(text) for text in sources))
    found.sources += packed.rows(found.packed, found.skips)
    if not found.sources and not found.skips:
        raise UsageError(f"nothing to prepare in {', '.join(sources)} (--layout {layout}, {len(paths)} files)")
    if found.ignored:
        listener(Notice(f"{found.ignored} pictures and sounds are no halves of a clip and are passed over"))
    _announce_guests(found, listener)
    return found


def _is_mask(path: Path, masks: Path) -> bool:
    return path.suffix.lower() == ".png" and masks in real(path).parents


def _announce_guests(found: Found, listener: Listener) -> None:
    guests = [source for source in found.sources if source.frame_id != source.id]
    if guests:
        frames = len({source.path for source in guests})
        example = f"{guests[0].sound} goes with {guests[0].path}"
        listener(Notice(f"{len(guests)} sounds share {frames} pictures, by their names less the last part: {example}"))
