"""The HTML page of a report: one self-contained file with data, style and script.

Names of clips, classes and files are untrusted. They are embedded as JSON in non-executable elements, and the script
inserts them as text only. A Content Security Policy restricts it to the inlined script and style and to `data:` URLs.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from string import Template
from typing import Any

from avloc.json_text import to_json
from avloc.metrics import AUC_THRESHOLDS
from avloc.report.pictures import ReportPicture
from avloc.report.protocol_text import BOX_RULES, describe_protocol, describe_shipped
from avloc.report.tables import DASH, flatten, multi_model_tables, number, report_tables

SCRIPTS = ("dom.js", "curves.js", "overlay.js", "gallery.js", "page.js")
"""Files of the inlined script, in this order."""
MAP_KINDS = ("shipped", "av", "object", "detr", "fused", "fused-detr", "external")
"""Columns of the gallery after the frame; the order of the paper's Figure 3."""
OUTCOMES = ("found", "peak inside", "elsewhere")
"""cIoU of 0.5 or more; otherwise whether the hottest pixel is inside the truth."""
_DIGITS = 6  # of the scores in the page; the JSON and CSV files have all


def page(
    about: Mapping[str, Any],
    reports: Sequence[Mapping[str, Any]],
    pictures: Sequence[ReportPicture],
    further: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The HTML text of the page."""
    style, script = _part("page.css"), "\n".join(map(_part, SCRIPTS))
    data = {
        "about": list(flatten(about)),
        "overview": [asdict(table) for table in multi_model_tables(reports, further)],
        "bars": AUC_THRESHOLDS,
        "mapKinds": MAP_KINDS,
        "outcomes": OUTCOMES,
        "pictures": [[picture.id, *picture.size] for picture in pictures],
        "reports": [_report_data(report) for report in reports],
    }
    holders = [
        f'<script type="application/json" id="picture-{n}">{escape_json(picture.as_json())}</script>'
        for n, picture in enumerate(pictures)
    ]
    return Template(_part("page.html")).substitute(
        policy=_policy(style, script),
        style=style,
        script=script,
        data=escape_json(data),
        pictures="\n".join(holders),
    )


def escape_json(value: Any) -> str:
    """JSON with `<`, `>` and `&` escaped, so that it cannot close its HTML element or open another."""
    text = to_json(value)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _part(name: str) -> str:
    return resources.files("avloc.report").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    own = f"img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _report_data(report: Mapping[str, Any]) -> dict[str, Any]:
    """The data of one report that the script reads."""
    protocol = report["protocol"]
    scored = dict.fromkeys(kind for clip in report["clips"] for kind in clip["scores"])
    kinds = [*(kind for kind in MAP_KINDS if kind in scored), *(kind for kind in scored if kind not in MAP_KINDS)]
    return {
        "testset": report["testset"],
        "model": report["model"],
        "hash": report["model_hash"],
        "protocol": protocol["name"],
        "threshold": protocol["threshold"],
        "comparison": protocol["comparison"],
        "facts": _facts(report),
        "rule": describe_protocol(protocol) + describe_shipped(report.get("shipped", {})),
        "card": list(flatten(report["model_card"])),
        "notRun": list(report["not_run"].items()),
        "missing": [*report["missing"].items(), *report.get("missing_pairs", {}).items()],
        "tables": [asdict(table) for table in report_tables(report)],
        "curves": _curves(report),
        "kinds": kinds,
        "clips": [_clip(clip, kinds) for clip in report["clips"]],
    }


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    missing = len(report["missing"])
    priors = [(f"Prior {name}", ", ".join(map(str, of.values()))) for name, of in report.get("priors", {}).items()]
    no_query = report.get("no_query", 0)
    return [
        ("Test set", report["testset"]),
        ("Data hash", report["data_hash"] or DASH),
        ("Model", report["model"] or "none: baselines only"),
        ("Model hash", report["model_hash"] or DASH),
        ("Epoch chosen by", report.get("selection") or DASH),
        *priors,
        ("Clips", f"{number(report['n_scored'])} scored of {number(report['n_expected'])} expected, {missing} missing"),
        ("Truth", BOX_RULES.get(report["box_rule"], report["box_rule"])),
        *([("Without a confident DETR query", f"{no_query} clips")] if no_query else []),
    ]


def _curves(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    groups = (("map", report["maps"]), ("baseline", report["baselines"]))
    return [
        {"name": name, "group": group, "shares": scores["overall"]["curve"]}
        for group, scored in groups
        for name, scores in scored.items()
        if scores["overall"]["curve"]
    ]


def _clip(clip: Mapping[str, Any], kinds: Sequence[str]) -> list[Any]:
    scores = [_score(clip["scores"][kind]) if kind in clip["scores"] else None for kind in kinds]
    return [clip["id"], clip["label"], clip["size"], round(clip["area"], _DIGITS), list(clip["flags"]), scores]


def _score(score: Mapping[str, Any]) -> list[Any]:
    return [round(score["ciou"], _DIGITS), round(score["area_ciou"], _DIGITS), OUTCOMES.index(outcome(score))]


def outcome(score: Mapping[str, Any]) -> str:
    """One of `OUTCOMES`."""
    return "found" if score["ciou"] >= 0.5 else "peak inside" if score["hit"] else "elsewhere"
