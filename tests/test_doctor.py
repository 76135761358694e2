"""The report on the machine: what it finds, and that it can be published."""

from __future__ import annotations

import hashlib
import json
import tempfile
import tomllib
from pathlib import Path

import av
import pytest

from avloc import doctor
from avloc.console.doctor_text import doctor_lines
from avloc.errors import UsageError
from tests.program import ROOT, avloc

pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the user zelda, without weights."""
    folder = tmp_path / "zelda"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USER", "zelda")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("AVLOC_WEIGHTS", raising=False)
    return folder


def test_weights_are_found_and_compared_with_the_hash_in_their_name(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, other = home / ".cache/avloc/weights", tmp_path / "zelda-weights"
    cache.mkdir(parents=True)
    other.mkdir()
    (cache / "Cnn14_mAP=0.431.pth").write_bytes(b"weights")
    (other / "resnet18-f37072fd.pth").write_bytes(b"other weights")
    monkeypatch.setenv("AVLOC_WEIGHTS", str(other))
    found = doctor.examine()
    rows = {row.pop("name"): row for row in found["weights"]["files"]}
    assert rows["Cnn14_mAP=0.431.pth"] == {"bytes": 7, "folder": "~/.cache/avloc/weights", "hash": "none in the name"}
    assert rows["resnet18-f37072fd.pth"]["hash"] == "differs"
    assert rows["detr-resnet-50/config.json"] == {"bytes": None, "folder": None, "hash": None}
    assert list(found["weights"]["places"]) == ["$AVLOC_WEIGHTS", "cache folder"]
    assert "zelda" not in json.dumps(found)


def test_a_hash_that_agrees_or_takes_too_long(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    path = tmp_path / f"net-{digest[:8]}.pth"
    path.write_bytes(b"weights")
    assert doctor._hash(path, 7) == "agrees"
    assert doctor._hash(path, 1 << 30) == "not checked"
    assert doctor._hash(tmp_path / "net-00000000.pth", 7) == "unreadable: No such file or directory"


def test_paths_lose_home_and_user(home: Path) -> None:
    assert doctor.shown(home / "a") == "~/a"
    assert doctor.shown(home) == "~"
    assert doctor.shown("/tmp/pytest-of-zelda/b") == "/tmp/pytest-of-USER/b"
    assert doctor.shown("/data/zeldas") == "/data/zeldas"


def test_folders_that_cannot_be_used_are_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".cache").write_text("a file")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(home / "absent"))
    folders = doctor.examine()["folders"]
    assert (folders["cache"]["path"], folders["cache"]["writable"]) == ("~/.cache/avloc/weights", False)
    assert folders["temporary"]["writable"]
    assert folders["temporary"]["free_bytes"] > 0


def test_without_a_home_folder_the_rest_is_reported(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    found = doctor.examine()
    assert "home directory" in found["weights"]["error"]
    assert "home directory" in found["folders"]["cache"]["error"]
    assert sum("home directory" in line for line in doctor_lines(found)) == 2


def test_absent_codecs_and_a_device_that_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(name: str) -> None:
        raise UsageError(f"--device {name} is not usable here: busy")

    monkeypatch.setattr("avloc.engine.pick_device", busy)
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264", "libdav1d"})
    found = doctor.examine()
    assert found["codecs"]["encoders"] == {"libx264": False, "aac": True}
    assert not found["codecs"]["decoders"]["av1"]
    assert found["devices"][0]["error"].endswith("busy")
    lines = list(doctor_lines(found))
    assert "  encoders: aac; missing: libx264" in lines
    assert "    --device cpu is not usable here: busy" in lines


def test_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {*doctor.EXTRAS, "dev"} == set(project["optional-dependencies"])


def test_the_option_prints_one_screen_or_json(home: Path) -> None:
    found = json.loads(avloc("--doctor", "--json").stdout)
    assert found["schema"] == doctor.SCHEMA
    cpu = found["devices"][0]
    assert cpu["name"] == "cpu"
    assert cpu["bf16"]["faster"] == pytest.approx(cpu["convolution_ms"]["fp32"] / cpu["convolution_ms"]["bf16"], 0.01)
    lines = avloc("--doctor").stdout.splitlines()
    assert lines[0].startswith(f"avloc {found['versions']['avloc']}, Python")
    assert len(lines) <= 35


def test_json_without_a_report_is_refused() -> None:
    refused = avloc("--json", "localize", "absent.mp4")
    assert refused.returncode == 2
    assert "--doctor" in refused.stderr
