"""Full fault-injection runs: `python -m tests.faults kills`, `disk`, `media`, `soak` or `fuzz`."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from avloc.registry import METHOD_SPECS
from tests.faults.disk_faults import disk_faults
from tests.faults.fuzz import TARGETS
from tests.faults.fuzzed import Fuzzed, fuzzed
from tests.faults.kills import Tally, kills
from tests.faults.media import Corpus, malformed
from tests.faults.scenarios import SCENARIOS
from tests.faults.soak import Soak, soaked


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    kinds = out.add_subparsers(dest="kind", required=True)
    kill = kinds.add_parser(
        "kills", help="Kill every command at seeded moments, resume it, compare with an uninterrupted run."
    )
    kill.add_argument("--points", type=int, default=42, help="interruptions of each command")
    kill.add_argument(
        "--twice", type=float, default=0.75, help="share of the interrupted runs that are interrupted a second time"
    )
    disk = kinds.add_parser("disk", help="Full disks, deleted files, second writers, wrong clocks.")
    disk.add_argument("--rounds", type=int, default=5, help="rounds of each fault for each command")
    for one in (kill, disk):
        one.add_argument("--command", action="append", default=[], choices=[one.name for one in SCENARIOS])
        one.add_argument("--method", default="avc", choices=list(METHOD_SPECS), help="method of the model")
    media = kinds.add_parser("media", help="Malformed media through prepare and localize.")
    media.add_argument("--flips", type=int, default=60, help="copies of each file with flipped bits")
    media.add_argument("--cuts", type=int, default=12, help="truncated copies of each file")
    soak = kinds.add_parser(
        "soak", help="Thousands of clips, some broken, through prepare and eval; memory is measured."
    )
    soak.add_argument("--clips", type=int, default=20_000)
    soak.add_argument("--share", type=float, default=0.01, help="share of broken clips")
    fuzz = kinds.add_parser("fuzz", help="Readers of untrusted files under a coverage-guided fuzzer.")
    fuzz.add_argument("--seconds", type=int, default=60, help="seconds for each reader")
    fuzz.add_argument("--target", action="append", default=[], choices=list(TARGETS))
    for one in (kill, disk, media, soak, fuzz):
        one.add_argument("--seed", type=int, default=0)
    return out


def results(options: argparse.Namespace, work: Path) -> Iterable[Tally | Corpus | Soak | Fuzzed]:
    """Results of the requested kind, one at a time."""
    chosen = {"commands": tuple(getattr(options, "command", ())), "method": getattr(options, "method", "")}
    match options.kind:
        case "kills":
            return kills(work, points=options.points, seed=options.seed, twice=options.twice, **chosen)
        case "disk":
            return disk_faults(work, rounds=options.rounds, seed=options.seed, **chosen)
        case "media":
            return [malformed(work, flips=options.flips, cuts=options.cuts, seed=options.seed)]
        case "soak":
            return [soaked(work, clips=options.clips, share=options.share, seed=options.seed)]
        case _:
            return (fuzzed(name, options.seconds, options.seed, work) for name in options.target or TARGETS)


def main() -> int:
    options, wrong = parser().parse_args(), 0
    with tempfile.TemporaryDirectory() as folder:
        for one in results(options, Path(folder)):
            print(json.dumps(asdict(one)), flush=True)
            wrong += len(one.faults)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
