"""`avloc train`: a store with hints becomes a model."""

from avloc.train.loop import TrainReport, seed_runs, train
from avloc.train.plan import TrainOptions

__all__ = ["TrainOptions", "TrainReport", "seed_runs", "train"]
