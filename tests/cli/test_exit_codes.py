"""Errors and signals become messages and exit codes: other inputs are processed, and the same command resumes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from avloc.cli import exit_codes
from avloc.config import ModelConfig
from avloc.files import folder_lock
from avloc.store import HintStamp, HintWriter, Store, hint_folder
from tests.command_lines import EVAL, LOCALIZE, NO_HINTS, SMALL_TRAINING, TRAIN, check_exit
from tests.media_makers import disc, make_picture, make_sound, tone
from tests.processes import start
from tests.program import ROOT, avloc
from tests.small_models import SMALL, save_small
from tests.synthetic_scenes import write_store

RATE = 22_050
pytestmark = pytest.mark.usefixtures("offline", "one_thread")
SMALL_RUN = (*SMALL_TRAINING, "--epochs", "1")

BAD = {
    "no-picture.mkv": "has no picture",
    "cut.mp4": "cannot be",
    "no-sound.mp4": "has no sound",
    "empty.mp4": "is empty (0 bytes)",
    "text.mp4": "cannot be",
}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("Caught RuntimeError in a process.\nTraceback:\nRuntimeError: can't allocate memory: 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.\nand more"),
    ],
)
def test_exhausted_memory_is_not_reported_as_a_bug(error: Exception, capsys) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        exit_codes.run(fail)
    err = capsys.readouterr().err
    assert end.value.code == 5
    assert "the memory is full" in err
    assert "Traceback" not in err
    assert "and more" not in err


FAILING_LOADER = """
from avloc import dataset

def failing(_self, _index):
    raise MemoryError("no more")

dataset.ClipSet.__getitem__ = failing
"""


def test_a_failed_loader_process_does_not_block_the_command(tmp_path: Path) -> None:
    """Loader processes leave signals to their parent, which reports the error and must not wait for them."""
    store = write_store(tmp_path / "store", 6)
    command = ("train", store, "--out", tmp_path / "run", *SMALL_RUN, "--set", "workers=1")
    done = run_patched(FAILING_LOADER, *command)
    assert (done.returncode, "the memory is full" in done.stderr) == (5, True), done.stderr


def test_a_killed_loader_process_is_reported_and_the_run_resumes(tmp_path: Path, here, monkeypatch) -> None:
    from avloc import dataset

    store, parent = write_store(tmp_path / "store", 6), os.getpid()
    command = ("train", store, "--out", tmp_path / "run", *SMALL_RUN, "--set", "workers=1")
    read = dataset.ClipSet.__getitem__

    def killed(self, index: int):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(dataset.ClipSet, "__getitem__", killed)
        done = here(*command)
    assert (done.code, "a process that reads clips has died" in done.err) == (5, True), done.err
    assert "Traceback" not in done.err
    assert here(*command).code == 0


def test_prepare_skips_and_names_bad_clips(media, tmp_path):
    done = avloc("prepare", str(media), "--out", str(tmp_path / "out"), "--json", "--workers", "1")
    check_exit(done, 1, *(f"{name} {reason}" for name, reason in BAD.items()))
    report = json.loads(done.stdout)
    assert (report["stored"], report["failed"], report["exit_code"]) == (1, 5, 1)
    assert Store(tmp_path / "out").ids == ["good"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert {Path(line["input"]).name for line in lines} == set(BAD), "nothing is replaced, nothing is lost"
    assert all(line["reason"].startswith(BAD[Path(line["input"]).name]) for line in lines)


def test_prepare_with_only_bad_clips_fails(media, tmp_path):
    sources = [str(media / name) for name in BAD]
    done = avloc("prepare", *sources, "--out", str(tmp_path / "out"), "--workers", "1")
    check_exit(done, 3, "every input failed (5)", *BAD, "skipped.jsonl")
    assert len((tmp_path / "out" / "skipped.jsonl").read_text().splitlines()) == 5
    assert not (tmp_path / "out" / "store.json").exists()


def test_localize_skips_and_names_bad_clips(media, model, tmp_path):
    sources = [str(path) for path in sorted(media.iterdir())]
    done = avloc("localize", *sources, "--model", str(model), "--json", "--out", f"{tmp_path}/out/")
    check_exit(done, 1, *(f"{media / name}: {reason}" for name, reason in BAD.items()))
    lines = {Path(line["input"]).name: line for line in map(json.loads, done.stdout.splitlines())}
    assert {name for name, line in lines.items() if line["error"]} == set(BAD)
    assert all(lines[name]["error"].startswith(reason) for name, reason in BAD.items())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]


def test_localize_with_only_bad_clips_fails(media, model, tmp_path):
    done = avloc("localize", *(str(media / n) for n in BAD), "--model", str(model), "--out", f"{tmp_path}/out/")
    check_exit(done, 3, "no input could be localized", *BAD)
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_incomplete_pairs_are_named_and_skipped(tmp_path):
    for name, parts in {"both": "fa", "mute": "f", "unseen": "a"}.items():
        if "f" in parts:
            make_picture(tmp_path / "in" / "frames" / f"{name}.jpg", disc((64, 48), (0.5, 0.5)))
        if "a" in parts:
            make_sound(tmp_path / "in" / "audio" / f"{name}.wav", tone(3, RATE), RATE)
    done = avloc("prepare", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", "1")
    check_exit(done, 1, "mute.jpg is a frame without a sound", "unseen.wav is a sound without a frame")
    assert Store(tmp_path / "out").ids == ["both"]


ABSENT = [
    (
        ("train", "store", "--out", "new", *NO_HINTS),
        ("resnet18-f37072fd.pth", "https://download.pytorch.org/models/", "--weights-dir", "--init random"),
    ),
    (
        ("distill-cache", "store", "--teacher", "panns"),
        ("Cnn14_mAP=0.431.pth", "https://zenodo.org/records/", "--weights-dir", "--no-audio-hint"),
    ),
    (
        ("distill-cache", "store", "--teacher", "detr"),
        ("detr-resnet-50/", "https://huggingface.co/facebook/detr-resnet-50/", "--weights-dir"),
    ),
    (
        ("distill-cache", "store", "--teacher", "yamnet"),
        ("yamnet.safetensors", "python -m tests.recipe yamnet", "--weights-dir"),
    ),
    ((*EVAL, "--maps", "fused"), ("resnet18-f37072fd.pth", "https://download.pytorch.org/", "eval --maps av")),
    ((*LOCALIZE, "--object-prior", "resnet18"), ("resnet18-f37072fd.pth", "the model in the package")),
]


@pytest.mark.parametrize(("arguments", "texts"), ABSENT, ids=lambda value: value[-1] if len(value) > 3 else "")
def test_absent_weights_are_named_with_their_folder_and_source(at_home, here, tmp_path, arguments, texts):
    done = here(*arguments)
    assert (done.code, done.out) == (4, "")
    for text in (*texts, str(tmp_path / "cache" / "avloc" / "weights")):
        assert text in done.err
    assert not (at_home / "new" / "model.safetensors").exists(), "no random weights unless requested"


def test_absent_weights_are_named_by_a_separate_process(at_home):
    check_exit(avloc("distill-cache", "store", "--teacher", "panns"), 4, "Cnn14_mAP=0.431.pth", "--weights-dir")


@pytest.mark.parametrize("name", ["bad.pth", "bad.safetensors"])
@pytest.mark.parametrize("command", [LOCALIZE[:2], EVAL[:3], ("train", "store", "--out", "new", *NO_HINTS)])
def test_a_damaged_model_is_named(at_home, here, command, name):
    Path(name).write_bytes(b"PK\x03\x04 damaged")
    done = here(*command, "--init" if command[0] == "train" else "--model", name)
    assert (done.code, done.out, name in done.err) == (4, "", True)
    assert "Traceback" not in done.err


def test_a_model_that_would_run_code_is_refused(at_home, here):
    import pickle

    class Malicious:
        def __reduce__(self):
            return (os.mkdir, ("owned",))

    Path("malicious.pth").write_bytes(pickle.dumps(Malicious()))
    done = here("localize", "good.mp4", "--model", "malicious.pth")
    assert (done.code, "malicious.pth" in done.err) == (4, True)
    assert not Path("owned").exists()


def stopped(
    process: subprocess.Popen, there: Path, signal_sent: signal.Signals, *, group: bool, after_s: float = 0.0
) -> str:
    """Wait until `there` exists and for `after_s` more, send the signal, and return standard error."""
    deadline = time.monotonic() + 60
    while process.poll() is None and not there.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(after_s)
    assert process.poll() is None, "it ended before it could be stopped"
    if group:
        os.killpg(process.pid, signal_sent)
    else:
        process.send_signal(signal_sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal_sent
    return err.decode()


@pytest.mark.parametrize(("signal_sent", "group", "workers"), [(signal.SIGINT, True, 2), (signal.SIGTERM, False, 1)])
def test_interrupted_prepare_keeps_finished_shards_and_resumes(tmp_path, signal_sent, group, workers):
    """Ctrl-C signals the whole process group, `kill` one process."""
    count = 300
    picture = make_picture(tmp_path / "in" / "frames" / "clip000.jpg", disc((256, 256), (0.5, 0.5)))
    sound = make_sound(tmp_path / "in" / "audio" / "clip000.wav", tone(3, 44_100), 44_100)
    for number in range(1, count):
        for source in (picture, sound):
            shutil.copy(source, source.with_stem(f"clip{number:03d}"))
    command = ("prepare", tmp_path / "in", "--out", tmp_path / "out", "--workers", workers)
    err = stopped(start(*command), tmp_path / "out" / "store.json", signal_sent, group=group, after_s=0.4)
    assert "Traceback" not in err
    kept = Store(tmp_path / "out").ids
    assert 0 < len(kept) < count
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("shard-*")}
    assert not list((tmp_path / "out").glob(".*.part"))
    again = avloc(*map(str, command), "--json")
    check_exit(again, 0)
    report = json.loads(again.stdout)
    assert (report["already"], report["stored"]) == (len(kept), count - len(kept))
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("shard-*")}
    assert before.items() <= after.items(), "what was finished is untouched"
    assert len(Store(tmp_path / "out")) == count


@pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_localize_leaves_only_complete_files(media, model, tmp_path, signal_sent):
    count = 400
    process = start("localize", *[media / "good.mp4"] * count, "--model", model, "--out", f"{tmp_path}/out/")
    err = stopped(process, tmp_path / "out" / "good-2.png", signal_sent, group=True)
    assert "Traceback" not in err
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert 2 <= len(names) < count
    assert all(name.endswith(".png") and not name.startswith(".") for name in names)
    for name in names:
        assert np.asarray(Image.open(tmp_path / "out" / name)).shape == (48, 64, 3)


_INTERRUPTED_IMPORTS = """
import os, signal, sys

class Interrupt:
    @staticmethod
    def find_spec(name, *_where):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs in the background of a script
sys.meta_path.insert(0, Interrupt)
sys.argv = ["avloc", "--help"]
from avloc.__main__ import main
main()
"""


def test_an_interrupt_during_the_imports_has_no_traceback():
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED_IMPORTS], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


_PATCHED_MAIN = """
import errno, sys
from pathlib import Path
import avloc.prepare.run
{patch}
from avloc.cli import main
sys.argv[0] = "avloc"
main()
"""


def run_patched(patch: str, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", _PATCHED_MAIN.format(patch=patch), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_bug_in_avloc_prints_its_traceback(media, tmp_path):
    patch = """
def broken(*_args):
    raise RuntimeError("unexpected failure")
avloc.prepare.run.files_in = broken
"""
    done = run_patched(patch, "prepare", media / "good.mp4", "--out", tmp_path / "out")
    assert done.returncode == 70
    assert "Traceback (most recent call last)" in done.stderr
    assert "in broken" in done.stderr, "the traceback is whole"
    assert "RuntimeError: unexpected failure" in done.stderr
    assert "this is a bug in avloc" in done.stderr
    assert done.stdout == ""


def test_a_full_disk_is_reported_and_the_next_run_resumes(media, tmp_path):
    patch = """
write = Path.write_bytes
def full(path, data):
    if ".h5" in path.name:
        write(path, bytes(data)[:100])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
    return write(path, data)
Path.write_bytes = full
"""
    command = ("prepare", media / "good.mp4", "--out", tmp_path / "out")
    check_exit(run_patched(patch, *command), 5, "the disk is full", "run the same command again")
    assert not list((tmp_path / "out").glob("*.h5"))
    assert not list((tmp_path / "out").glob(".*.part"))
    check_exit(avloc(*map(str, command)), 0)
    assert Store(tmp_path / "out").ids == ["good"]


def test_localize_reports_a_full_disk(media, model, tmp_path, here, monkeypatch):
    def full(_image, path, **_save):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Image.Image, "save", full)
    done = here("localize", media / "good.mp4", "--model", model, "--out", tmp_path / "h.png")
    assert (done.code, done.out, "the disk is full" in done.err) == (5, "", True)
    assert "Traceback" not in done.err
    assert not list(tmp_path.glob("*.png"))
    assert not list(tmp_path.glob(".*.part"))


def test_an_unwritable_output_folder_is_named(media, model, tmp_path, here, monkeypatch):
    def forbidden(_image, path, **_save):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image.Image, "save", forbidden)
    done = here("localize", media / "good.mp4", "--model", model, "--out", tmp_path / "h.png")
    assert (done.code, done.out) == (5, "")
    assert "no permission" in done.err
    assert str(tmp_path) in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("out", "what"), [("heat.png", "file"), ("new/heat.png", "folder"), ("new/", "folder")])
def test_an_output_folder_that_cannot_be_created_is_named(media, model, here, out, what):
    done = here("localize", media / "good.mp4", "--model", model, "--out", f"/proc/{out}")
    assert (done.code, done.out) == (5, "")
    assert f"a {what} cannot be created there" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", [("prepare", "good.mp4"), (*LOCALIZE[:2], "--model", "small.safetensors")])
def test_an_output_path_below_a_plain_file_is_named(at_home, here, command):
    Path("plain").write_text("")
    done = here(*command, "--out", "plain/new/")
    assert (done.code, done.out, "plain" in done.err) == (2, "", True)
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "command", [("prepare", "good.mp4", "--out", "new"), ("distill-cache", "copy", "--teacher", "panns")]
)
def test_a_held_lock_is_refused(at_home, store, command):
    shutil.copytree(store, at_home / "copy")
    with folder_lock(at_home / "new"), folder_lock(at_home / "copy"):
        done = avloc(*command)
    check_exit(done, 5, "another avloc process is writing to")
    assert not list((at_home / "new").glob("*.h5"))


def test_a_store_with_other_settings_is_refused(media, tmp_path):
    command = ("prepare", str(media / "good.mp4"), "--out", str(tmp_path / "out"))
    check_exit(avloc(*command), 0)
    check_exit(
        avloc(*command, "--rate", "44100"),
        5,
        "holds a store with other settings",
        "rate (22050 stored, 44100 requested)",
    )
    assert Store(tmp_path / "out").spec.rate == 22_050


def test_hints_with_other_settings_are_refused(tmp_path):
    folder = write_store(tmp_path / "store", 2)
    with HintWriter(folder, HintStamp(teacher="panns", shape=(2048,), settings={"sound": "store"})) as writer:
        writer.add(Store(folder).ids[0], np.ones(2048, np.float16))
    before = {path.name: path.read_bytes() for path in hint_folder(folder, "panns").iterdir()}
    (tmp_path / "theirs" / "audio_feats").mkdir(parents=True)
    np.save(tmp_path / "theirs" / "audio_feats" / f"{Store(folder).ids[1]}.npy", np.zeros(2048, np.float32))
    done = avloc("distill-cache", str(folder), "--teacher", "panns", "--import-npy", str(tmp_path / "theirs"))
    check_exit(done, 5, "contains hints with other settings: settings differ", "Delete")
    assert {path.name: path.read_bytes() for path in hint_folder(folder, "panns").iterdir()} == before


def test_an_incompatible_store_is_refused(at_home, here):
    save_small(Path("wide.safetensors"), ModelConfig(**{**vars(SMALL), "rate": 44_100}))
    for command in ((*EVAL[:3], "--model", "wide.safetensors"), (*TRAIN, "--set", "model.rate=44100")):
        done = here(*command)
        assert (done.code, done.out) == (5, "")
        assert "the store holds 3 s at 22050 Hz; the model needs 3 s at 44100 Hz" in done.err
        assert "--rate 44100" in done.err


@pytest.mark.parametrize(
    "command", [("distill-cache", "absent"), ("train", "absent", "--out", "new"), ("eval", "--store", "absent")]
)
def test_a_missing_store_is_named(at_home, here, command):
    done = here(*command)
    assert (done.code, done.out) == (5, "")
    assert "absent is not a prepared store" in done.err
    assert "avloc prepare" in done.err
    assert not (at_home / "new").exists()


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"OMP_WAIT_POLICY": "active"}, None), ({"GOMP_SPINCOUNT": "7"}, "7")],
)
def test_threads_spin_briefly_unless_configured(
    given: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that what is set below is undone
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    exit_codes.run(lambda: None)
    assert os.environ.get("GOMP_SPINCOUNT") == spins
