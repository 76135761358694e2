"""Runs that differ only in their seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from avloc.config import TrainConfig
from avloc.errors import Refused
from avloc.train.loop import make_task
from avloc.train.plan import TrainOptions
from avloc.train.run_folder import RunFolder


def seed_runs(
    options: TrainOptions, config: TrainConfig, seeds: Sequence[int]
) -> list[tuple[TrainOptions, TrainConfig]]:
    """One run per seed, each in a folder `seed-N` within `options.out`.

    All folders are checked first, so that a conflict in the last one is not found after hours of training.

    Args:
        options: options of all runs; `out` is the folder around them.
        config: configuration of all runs.
        seeds: distinct seeds.

    Returns:
        Options and configuration of each run, in the order of the seeds, as `train` takes them.

    Raises:
        StoreNotFound: no store there.
        Refused: the store does not fit, `options.out` is a run itself, or one of the folders holds another
            run.
    """
    if (options.out / "config.toml").is_file():
        raise Refused(f"{options.out} is a run; --seeds needs a folder around its runs", hint="Take another --out.")
    runs = [(replace(options, out=options.out / f"seed-{seed}"), replace(config, seed=seed)) for seed in seeds]
    known = make_task(options, config).identity  # clips, selection and hints do not depend on the seed
    for run, settings in runs:
        RunFolder(run.out).check_config(settings, known)
    return runs
