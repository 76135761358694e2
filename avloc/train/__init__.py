"""`avloc train`: a store with hints becomes a model."""

from avloc.train.loop import TrainReport, train
from avloc.train.plan import TrainOptions
from avloc.train.seeds import seed_runs

__all__ = ["TrainOptions", "TrainReport", "seed_runs", "train"]
