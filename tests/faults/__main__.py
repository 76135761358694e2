"""`python -m tests.faults kills`, `trouble`, `media`, `soak` or `fuzz`: all of it, with figures."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from avloc.registry import METHOD_SPECS
from tests.faults.disk_faults import trouble
from tests.faults.fuzz import TARGETS
from tests.faults.fuzzed import Fuzzed, fuzzed
from tests.faults.kills import Tally, kills
from tests.faults.media import Corpus, malformed
from tests.faults.scenarios import SCENARIOS
from tests.faults.soak import Soak, soaked


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kill = kinds.add_parser("kills", help="Kill every command at seeded moments, run it again, compare.")
    kill.add_argument("--points", type=int, default=42, help="for each command")
    kill.add_argument("--twice", type=float, default=0.75, help="share of the struck runs that are struck again")
    ill = kinds.add_parser("trouble", help="Full disks, vanishing files, second writers, wrong clocks.")
    ill.add_argument("--rounds", type=int, default=5, help="of each kind for each command")
    for one in (kill, ill):
        one.add_argument("--command", action="append", default=[], choices=[one.name for one in SCENARIOS])
        one.add_argument("--method", default="avc", choices=list(METHOD_SPECS), help="whose model it is")
    media = kinds.add_parser("media", help="Malformed media through prepare and localize.")
    media.add_argument("--flips", type=int, default=60, help="copies of each file with turned bits")
    media.add_argument("--cuts", type=int, default=12, help="copies of each file that end somewhere")
    soak = kinds.add_parser("soak", help="Thousands of clips, some broken, through prepare and eval; memory watched.")
    soak.add_argument("--clips", type=int, default=20_000)
    soak.add_argument("--share", type=float, default=0.01, help="of broken ones")
    fuzz = kinds.add_parser("fuzz", help="Readers of foreign files under a coverage-guided fuzzer.")
    fuzz.add_argument("--seconds", type=int, default=60, help="for each reader")
    fuzz.add_argument("--target", action="append", default=[], choices=list(TARGETS))
    for one in (kill, ill, media, soak, fuzz):
        one.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def figures(given: argparse.Namespace, work: Path) -> Iterable[Tally | Corpus | Soak | Fuzzed]:
    """Of the kind that was asked for, one after another."""
    chosen = {"commands": tuple(getattr(given, "command", ())), "method": getattr(given, "method", "")}
    match given.kind:
        case "kills":
            return kills(work, points=given.points, seed=given.seed, twice=given.twice, **chosen)
        case "trouble":
            return trouble(work, rounds=given.rounds, seed=given.seed, **chosen)
        case "media":
            return [malformed(work, flips=given.flips, cuts=given.cuts, seed=given.seed)]
        case "soak":
            return [soaked(work, clips=given.clips, share=given.share, seed=given.seed)]
        case _:
            return (fuzzed(name, given.seconds, given.seed, work) for name in given.target or TARGETS)


def main() -> int:
    given, wrong = parsed(), 0
    with tempfile.TemporaryDirectory() as folder:
        for one in figures(given, Path(folder)):
            print(json.dumps(asdict(one)), flush=True)
            wrong += len(one.faults)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
