"""Several runs that differ in nothing but their seed."""

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
    """One run a seed, each in a folder `seed-N` of its own within `options.out`.

    A folder of the third seed that holds another run is found now, not after two trainings.

    Args:
        options: what the runs share; `out` is the folder around them.
        config: what the runs share.
        seeds: each seed once.

    Returns:
        Options and configuration of each run, in the order of the seeds, as `train` takes them.

    Raises:
        StoreNotFound: no store there.
        Refused: the store does not fit, `options.out` is a run itself, or one of the folders holds a run made
            otherwise.
    """
    if (options.out / "config.toml").is_file():
        raise Refused(f"{options.out} is a run; --seeds needs a folder around its runs", hint="Take another --out.")
    runs = [(replace(options, out=options.out / f"seed-{seed}"), replace(config, seed=seed)) for seed in seeds]
    known = make_task(options, config).identity  # clips, selection and hints do not depend on the seed
    for run, settings in runs:
        RunFolder(run.out).check_config(settings, known)
    return runs
