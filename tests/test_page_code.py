"""The Python code of the pages compiles, and tests run all of it."""

from __future__ import annotations

import ast
import importlib
import io
import json
import re
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from avloc.annotations.testsets import published_list
from avloc.store import Store
from tests import pages
from tests.clip_folder import make_clip
from tests.program import ROOT, avloc
from tests.synthetic_scenes import write_store

BLOCKS = [
    (path.relative_to(ROOT).as_posix(), match["comment"] or "", match["code"])
    for path in pages.PAGES
    for match in re.finditer(
        r"(?:^<!-- (?P<comment>[^\n]+?) -->\n)?^```python\n(?P<code>.*?)^```$",
        path.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
]
"""Page, comment before the block, code."""


@pytest.mark.parametrize(("page", "code"), [(page, code) for page, _, code in BLOCKS])
def test_a_block_compiles_and_its_names_of_avloc_exist(page: str, code: str) -> None:
    for node in ast.walk(ast.parse(code, page)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "avloc":
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "avloc":
            assert hasattr(importlib.import_module("avloc"), node.attr)


def test_every_block_is_run_by_a_test() -> None:
    assert BLOCKS
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [f"{page}: {name or code}" for page, name, code in BLOCKS if not name or f'"{name}"' not in tests] == []


def test_a_store_is_read_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_store(tmp_path / "data" / "mine", 2, hints=True)
    names: dict[str, Any] = {}
    exec(pages.block(pages.text("store"), "read a store"), names)
    assert names["clip"].sound.dtype == "int16"


# --- the guide from VGGSound to a test store

CLIP = sorted(published_list("vggss_test"))[0]
OTHER = "notatestclip_000001"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_clip(tmp_path_factory.mktemp("guide") / "clip.mp4").read_bytes()


def unpack(name: str, shard: Path) -> None:
    """Run a script of the page in the folder of a shard, as the page says."""
    (shard.parent / name).write_text(pages.block(pages.text("prepare"), name), encoding="utf-8")
    subprocess.run([sys.executable, name, shard.name], cwd=shard.parent, check=True, timeout=120)


def check_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the guide find the clip of the test list, and its boxes."""
    monkeypatch.chdir(folder)
    guide = pages.text("prepare").partition("## From VGGSound mp4s ")[2]
    lines = re.findall(r"^avloc (prepare .+ --ids vggss_test .+)$", guide, re.MULTILINE)
    for line, dry in zip(lines, (True, False), strict=True):
        done = avloc(*shlex.split(line), "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["stored"], report["outside"], report["dry_run"]) == (1, 1, dry)
        assert Path("data/vggss").exists() is not dry
    store = Store(Path("data/vggss"))
    assert list(store.ids) == [CLIP]
    assert len(store.read(CLIP).boxes)


def test_tar_shards_become_a_test_store(video: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = tmp_path / "shard-000000.tar"
    with tarfile.open(shard, "w") as tar:
        for number, clip_id in enumerate((CLIP, OTHER)):
            youtube_id, _, start = clip_id.rpartition("_")
            about = json.dumps({"youtube_id": youtube_id, "start": int(start)}).encode()
            for suffix, data in (("json", about), ("mp4", video)):
                member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    unpack("unpack_tar.py", shard)
    check_store(tmp_path, monkeypatch)


def test_parquet_shards_become_a_test_store(video: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow", reason="the script for parquet shards needs pyarrow")
    pq = pytest.importorskip("pyarrow.parquet", reason="the script for parquet shards needs pyarrow")
    rows = [{"bytes": video, "path": f"videos/{clip_id}.mp4"} for clip_id in (CLIP, OTHER)]
    pq.write_table(pa.table({"video": rows, "label": ["dog", "cat"]}), tmp_path / "shard-0.parquet")
    unpack("unpack_parquet.py", tmp_path / "shard-0.parquet")
    check_store(tmp_path, monkeypatch)
