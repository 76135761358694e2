"""Published rows: the paper's own, and those of other systems for context. Facts with their source, nothing computed.

The paper is Yaghoubi, Kelm, Gerkmann and Frintrop, ICMI 2023 (doi 10.1145/3577190.3614144). avloc knows which rows it
has for which training and test set. It does not know how the paper numbers its seven tables, but for one: the ablation
of the hints is Table 2. Rows of other systems come from their own papers and READMEs, and need not be in the paper.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass

from avloc.errors import UsageError, nearest

PAPER_TABLES = 7
PAPER = "Yaghoubi et al. 2023"
PAPER_NOTE = "mean of ten runs, each the best epoch on the test set"
BOTH_HINTS = ("audio", "visual")

TRAINING_LISTS: Mapping[str, tuple[str, ...]] = types.MappingProxyType(
    {
        "Flickr 10k": ("flickr_10k_random", "flickr_10k"),
        "Flickr 144k": ("flickr_144k_random", "flickr_144k"),
        "VGGSound 10k": ("vggsound_10k_random", "vggss_10k"),
        "VGGSound 144k": ("vggsound_144k_random", "vggss_144k"),
    }
)
"""Training set -> published lists that are meant by it: of the paper's code, of EZ-VSL. The paper names none."""


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One published row. Scores are shares, as everywhere in avloc: 77.7 in print is 0.777 here."""

    label: str
    train_list: str
    """Training set: a key of `TRAINING_LISTS`; '' where the source at hand does not say."""
    testset: str
    hints: tuple[str, ...] = ()
    """Teachers that the row's model learned from: `audio`, `visual`."""
    kind: str = "av"
    """Map that was scored: `av`, `fused`."""
    ciou_50: float
    ciou_50_std: float | None = None
    auc: float | None
    source: str
    note: str = ""
    """How the number came about; what keeps it from being compared."""
    context: bool = False
    """Another system: a row to read beside, not one that a run of avloc can fill."""
    comparable: bool = True
    """Whether the number is cIoU@0.5 of the hotter half of the map, the rule of the paper."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """Rows that belong together."""

    name: str
    title: str
    rows: tuple[PaperRow, ...]
    number: int = 0
    """Of the paper; 0 where it is not known to avloc."""

    @property
    def certain(self) -> bool:
        """Whether these are known to be the rows of that table of the paper."""
        return self.number > 0


def _share(percent: float) -> float:
    return round(percent / 100, 6)


def _avc(label: str, train: str, testset: str, ciou_50: float, std: float | None, auc: float) -> PaperRow:
    return PaperRow(
        label=label,
        train_list=train,
        testset=testset,
        hints=BOTH_HINTS,
        kind="fused" if label.startswith("OG-") else "av",
        ciou_50=_share(ciou_50),
        ciou_50_std=None if std is None else _share(std),
        auc=_share(auc),
        source=PAPER,
        note=PAPER_NOTE,
    )


def _hints(label: str, hints: tuple[str, ...], ciou_50: float, auc: float) -> PaperRow:
    return PaperRow(
        label=label,
        train_list="Flickr 10k",
        testset="flickr",
        hints=hints,
        ciou_50=_share(ciou_50),
        auc=_share(auc),
        source=PAPER,
        note=PAPER_NOTE,
    )


def _other(system: str, train: str, testset: str, ciou_50: float, auc: float | None) -> PaperRow:
    source, note, comparable = _SYSTEMS[system.partition(",")[0]]
    if system == "SSPL" and auc is None:
        source = f"{source}, as quoted by {PAPER}"
    return PaperRow(
        label=system,
        train_list=train,
        testset=testset,
        ciou_50=_share(ciou_50),
        auc=None if auc is None else _share(auc),
        source=source,
        note=note,
        context=True,
        comparable=comparable,
    )


_FIXED = "cut at half of the range, not at the median: another metric"
_SYSTEMS: Mapping[str, tuple[str, str, bool]] = types.MappingProxyType(
    {
        "Attention": ("Senocak et al. 2018", "", True),
        "LVS": ("Chen et al. 2021", "the boxes were updated after the paper: 2 to 3 points (its README)", True),
        "HardPos": ("Senocak et al. 2022", "", True),
        "SSPL": ("Song et al. 2022", _FIXED, False),
        "SACL": ("README of github.com/zjsong/SACL", _FIXED, False),
        "EZ-VSL": ("README of github.com/stoneMo/EZ-VSL", "with the object prior; best epoch on a test set", True),
        "SLAVC": (
            "README of github.com/stoneMo/SLAVC",
            "LocAcc: the clips of the extended set that sound, cIoU above 0.5",
            True,
        ),
        "FNAC": ("README of github.com/OpenNLPLab/FNAC_AVL", "", True),
        "Alignment": ("README of github.com/kaistmm/SSLalignment", "", True),
    }
)
"""System -> source, note, and whether its number follows the paper's rule."""

_FLICKR = PaperTable(
    name="flickr",
    title="trained on Flickr, tested on Flickr-SoundNet",
    rows=(
        _other("Attention", "Flickr 144k", "flickr", 66.0, 55.8),
        _other("LVS", "Flickr 144k", "flickr", 69.9, 57.3),
        _other("SSPL", "Flickr 10k", "flickr", 74.3, None),
        _other("SSPL", "Flickr 144k", "flickr", 75.9, 61.0),
        _other("EZ-VSL", "Flickr 10k", "flickr", 81.93, 62.58),
        _other("EZ-VSL", "Flickr 144k", "flickr", 83.13, 63.06),
        _other("SACL", "Flickr 10k", "flickr", 81.5, 62.3),
        _other("SACL", "Flickr 144k", "flickr", 85.1, 62.3),
        _other("Alignment, supervised encoders", "Flickr 144k", "flickr", 85.20, None),
        _other("Alignment, self-supervised encoders", "Flickr 144k", "flickr", 84.80, None),
        _other("Alignment, pre-trained vision", "Flickr 144k", "flickr", 86.00, None),
        _avc("AVC-10k", "Flickr 10k", "flickr", 77.7, 2.4, 60.0),
        _avc("AVC-144k", "Flickr 144k", "flickr", 78.5, 1.8, 61.0),
        _avc("OG-AVC-10k", "Flickr 10k", "flickr", 82.7, None, 62.8),
        _avc("OG-AVC-144k", "Flickr 144k", "flickr", 83.7, None, 63.4),
    ),
)

_VGGSS = PaperTable(
    name="vggss",
    title="trained on VGGSound, tested on VGG-SS",
    rows=(
        _other("Attention", "", "vggss", 18.5, 30.2),
        _other("LVS", "", "vggss", 34.4, 38.2),
        _other("HardPos", "", "vggss", 34.6, 38.0),
        _other("SSPL", "VGGSound 10k", "vggss", 31.4, None),
        _other("SSPL", "VGGSound 144k", "vggss", 33.9, 38.0),
        _other("EZ-VSL", "VGGSound 10k", "vggss", 37.18, 38.75),
        _other("EZ-VSL", "VGGSound 144k", "vggss", 38.85, 39.54),
        _other("SLAVC", "VGGSound 144k", "vggss", 37.79, None),
        _other("FNAC", "VGGSound 10k", "vggss", 37.29, 38.99),
        _other("FNAC", "VGGSound 144k", "vggss", 39.50, 39.66),
        _other("SACL", "VGGSound 10k", "vggss", 36.0, 39.7),
        _other("SACL", "VGGSound 144k", "vggss", 38.0, 40.0),
        _other("Alignment, supervised encoders", "VGGSound 144k", "vggss", 39.94, None),
        _other("Alignment, self-supervised encoders", "VGGSound 144k", "vggss", 39.16, None),
        _other("Alignment, pre-trained vision", "VGGSound 144k", "vggss", 41.42, None),
        _avc("AVC-10k", "VGGSound 10k", "vggss", 33.8, 2.4, 36.7),
        _avc("AVC-144k", "VGGSound 144k", "vggss", 37.9, 0.5, 38.5),
        _avc("OG-AVC-10k", "VGGSound 10k", "vggss", 37.1, None, 38.2),
        _avc("OG-AVC-144k", "VGGSound 144k", "vggss", 39.2, None, 39.2),
    ),
)

_CROSS = PaperTable(
    name="cross",
    title="trained on one data set, tested on the other",
    rows=(
        _other("LVS", "VGGSound 144k", "flickr", 71.9, 58.2),
        _other("EZ-VSL", "VGGSound 144k", "flickr", 83.94, 63.60),
        _other("SLAVC", "VGGSound 144k", "flickr", 83.60, None),
        _other("FNAC", "Flickr 10k", "vggss", 35.27, 38.00),
        _other("FNAC", "Flickr 144k", "vggss", 33.93, 37.29),
        _avc("AVC-10k", "VGGSound 10k", "flickr", 78.9, 2.0, 61.0),
        _avc("AVC-144k", "VGGSound 144k", "flickr", 81.4, 2.2, 63.1),
        _avc("OG-AVC-10k", "VGGSound 10k", "flickr", 82.0, None, 62.7),
        _avc("OG-AVC-144k", "VGGSound 144k", "flickr", 82.8, None, 63.6),
        _avc("AVC-10k", "Flickr 10k", "vggss", 29.4, 1.7, 35.0),
        _avc("AVC-144k", "Flickr 144k", "vggss", 31.5, 3.4, 35.8),
        _avc("OG-AVC-10k", "Flickr 10k", "vggss", 34.5, None, 37.2),
        _avc("OG-AVC-144k", "Flickr 144k", "vggss", 35.8, None, 37.7),
    ),
)

_ABLATION = PaperTable(
    name="ablation",
    number=2,
    title="the hints, trained on Flickr 10k, tested on Flickr-SoundNet",
    rows=(
        _hints("base", (), 67.4, 56.3),
        _hints("+ audio hint", ("audio",), 74.5, 58.4),
        _hints("+ visual hint", ("visual",), 71.6, 57.9),
        _hints("both", BOTH_HINTS, 77.7, 59.9),
    ),
)

TABLES: Mapping[str, PaperTable] = types.MappingProxyType(
    {table.name: table for table in (_FLICKR, _VGGSS, _CROSS, _ABLATION)}
)
"""Every table that avloc has rows of, by name."""


def find_table(text: str) -> PaperTable:
    """The table that `--paper-table` means: a name, or a number of the paper.

    Which rows stand in which numbered table is known for one of them. For the others the answer is every row that has
    no numbered place yet, under a title that says so.

    Raises:
        UsageError: no such table; names those that are known.
    """
    known = ", ".join(f"{table.number} ({name})" if table.certain else name for name, table in TABLES.items())
    for name, table in TABLES.items():
        if text == name or (table.certain and text == str(table.number)):
            return table
    if text in map(str, range(1, PAPER_TABLES + 1)):
        title = f"which of these rows Table {text} of the paper prints is not known to avloc; all that it may be"
        loose = [row for table in TABLES.values() if not table.certain for row in table.rows]
        return PaperTable(name="unplaced", title=title, rows=tuple(loose))
    raise UsageError(f"--paper-table {text} is unknown; known: {known}", hint=nearest(text, TABLES))
