"""Settings of the fit: the table of fit.toml."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from avloc.config import from_dict, read_toml

SETTINGS = Path(__file__).with_name("fit.toml")


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How projections are fitted; fit.toml explains and sets each."""

    unnamed: int
    steps: int
    learning_rate: float
    weight_decay: float
    dropout: float
    tau: float
    hint: float
    keep: float
    batch: int
    real_share: float
    alike: float
    box: float
    peak: float
    boxed_batch: int
    boxed_every: int
    scene_share: float
    picture_share: float
    people: float
    scenes: int
    variants: int
    cohort: int
    cohort_cells: int


@cache
def read_settings() -> FitSettings:
    """The settings of the recipe."""
    return from_dict(FitSettings, read_toml(SETTINGS)["fit"])
