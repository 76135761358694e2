"""Teachers: no side effects, attention, sound, and hints that do not depend on the batch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from avloc.errors import InputError, Refused, UsageError, WeightsError
from avloc.media.pictures import decode_picture
from avloc.networks.cnn14 import build_cnn14, load_cnn14
from avloc.networks.detr import load_detr, stretched
from avloc.registry import StoreSpec
from avloc.store import Store
from avloc.teachers.base import Teacher
from avloc.teachers.detr import DetrSettings, DetrTeacher
from avloc.teachers.panns import PannsSettings, PannsTeacher, choose_sound
from avloc.weights import CNN14, DETR, locate
from tests.fake_gpu import fake_gpu, on_gpu
from tests.teacher_makers import RATE, SECONDS, concept_teacher, hints_of, make_store

CPU = torch.device("cpu")
SMALL = 128


def panns(weights: Path, spec: StoreSpec, **settings: object) -> PannsTeacher:
    chosen = PannsSettings(**{"sound": "store", **settings})  # type: ignore[arg-type]
    return PannsTeacher(chosen, spec, locate(CNN14, weights_dir=weights), CPU)


def detr(weights: Path, **settings: object) -> DetrTeacher:
    chosen = DetrSettings(**{"side": SMALL, **settings})  # type: ignore[arg-type]
    return DetrTeacher(chosen, locate(DETR, weights_dir=weights), CPU)


def teacher_named(name: str, store: Store, weights: Path) -> Teacher[Any]:
    makers = {"panns": lambda: panns(weights, store.spec), "detr": lambda: detr(weights)}
    return makers[name]() if name in makers else concept_teacher(name, weights)


def test_teachers_come_without_side_effects(tmp_path: Path, weights: Path) -> None:
    script = """
import sys, torch
from pathlib import Path
from avloc.networks.cnn14 import load_cnn14
from avloc.networks.detr import load_detr, stretched
weights = Path(sys.argv[1])
load_cnn14(weights / "Cnn14_mAP=0.431.pth")
load_detr(weights / "detr-resnet-50")
left = [name for name in sys.modules if name.partition(".")[0] in ("panns_inference", "matplotlib")]
assert not left, left
"""
    home = tmp_path / "home"
    home.mkdir()
    env = {"HOME": str(home), "PATH": str(tmp_path / "nothing"), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(weights)], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.iterdir()) == []


def test_stubs_leave_other_modules_alone() -> None:
    script = """
import sys, matplotlib, matplotlib.pyplot
matplotlib.use("svg")
before = (sys.modules["matplotlib"], sys.modules["matplotlib.pyplot"])
from avloc.networks.cnn14 import build_cnn14
build_cnn14()
assert (sys.modules["matplotlib"], sys.modules["matplotlib.pyplot"]) == before
assert matplotlib.get_backend() == "svg"
assert not [name for name in sys.modules if name.startswith("panns_inference")]
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], env=env, check=True)


@pytest.mark.usefixtures("no_connections")
def test_models_load_without_a_connection(weights: Path) -> None:
    for model in (load_cnn14(CNN14.under(weights)), load_detr(DETR.under(weights))):
        assert not model.training
        assert not any(weight.requires_grad for weight in model.parameters())


def test_embedding_is_that_of_the_package(store: Store, weights: Path) -> None:
    teacher = panns(weights, store.spec)
    content = torch.load(CNN14.under(weights), weights_only=True)["model"]
    package = build_cnn14()
    package.load_state_dict(content)
    package.eval()
    raw = hints_of(panns(weights, store.spec, normalise=False), store)
    for clip_id, plain, unit in zip(store.ids, raw, hints_of(teacher, store), strict=True):
        waveform = torch.from_numpy(teacher.read(store.read(clip_id)))[None]
        with torch.no_grad():
            expected = package(waveform, None)["embedding"][0].numpy()
        assert plain is not None
        assert unit is not None
        np.testing.assert_allclose(plain, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(unit, expected / np.linalg.norm(expected), rtol=1e-4, atol=1e-6)
        assert unit.shape == teacher.stamp.shape == (2048,)


def test_attention_against_a_loop(store: Store, weights: Path) -> None:
    model = published_detr(weights)
    outs = [_detr_output(model, store, clip_id) for clip_id in store.ids]
    chances = [torch.softmax(out.logits[0], 1)[:, :-1].amax(1) for out in outs]
    highest = sorted(float(each.max()) for each in chances)
    confidence = (highest[0] + highest[-1]) / 2  # in between: some clips have a hint, some have none
    found = hints_of(detr(weights, confidence=confidence), store)
    assert {hint is None for hint in found} == {True, False}
    for out, chance, hint in zip(outs, chances, found, strict=True):
        maps = []
        for query in range(out.logits.shape[1]):
            if chance[query] > confidence:
                heads = [out.cross_attentions[-1][0, head, query] for head in range(4)]
                maps.append(sum(heads) / 4)
        if not maps:
            assert hint is None
            continue
        expected = (sum(maps) / len(maps)).reshape(SMALL // 32, SMALL // 32)  # type: ignore[union-attr]
        assert hint is not None
        np.testing.assert_allclose(hint, expected.numpy(), rtol=1e-3, atol=1e-6)
        assert hint.sum() == pytest.approx(1, abs=1e-5)


def published_detr(weights: Path) -> Any:
    """The small DETR as `transformers` runs it: with masks, normalisation of its own, and all attention weights."""
    from transformers import DetrForObjectDetection

    return DetrForObjectDetection.from_pretrained(DETR.under(weights), attn_implementation="eager").eval()


def _detr_output(model: Any, store: Store, clip_id: str) -> Any:
    channels = np.moveaxis(decode_picture(store.read(clip_id).picture).astype(np.float32), 2, 0)
    stretched = [np.asarray(Image.fromarray(one).resize((SMALL, SMALL), Image.BILINEAR)) for one in channels]
    pixels = torch.tensor(np.stack(stretched, 2) / 255.0, dtype=torch.float32)
    pixels = (pixels - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        return model(pixel_values=pixels.permute(2, 0, 1)[None], output_attentions=True)


def test_frames_are_stretched_on_the_device_as_by_pillow(store: Store, weights: Path) -> None:
    """Up to Pillow's rounding to uint8, which changes hints by less than 1e-3."""
    teacher, largest = detr(weights), detr(weights, side=32)
    for clip_id in store.ids:
        clip = store.read(clip_id)
        frame = decode_picture(clip.picture)
        expected = stretched(frame, SMALL)
        np.testing.assert_array_equal(teacher.read(clip), frame)
        np.testing.assert_array_equal(largest.read(clip), stretched(frame, 32))  # no more pixels than needed
        found = teacher.preprocess(torch.tensor(frame)).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1.01)
        assert np.abs(found - expected).max() > 0.1, "not rounded"
        new, old = teacher.hints([frame, expected])
        assert new is not None
        assert old is not None
        np.testing.assert_allclose(new, old, rtol=0, atol=1e-3)


class ValueReads(TorchDispatchMode):
    """Names of the operations whose result Python needs at once; on a GPU each waits for all work queued before."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in ("_local_scalar_dense", "is_nonzero", "item", "nonzero"):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("no_hash_in_names")
@pytest.mark.parametrize("name", ["panns", "detr", "yamnet", "lite0"])
def test_a_batch_is_predicted_without_waiting_for_the_device(name: str, store: Store, weights: Path) -> None:
    teacher = teacher_named(name, store, weights)
    inputs = [teacher.read(store.read(clip_id)) for clip_id in store.ids]
    assert len(inputs) > teacher.batch_size or name != "detr"
    teacher.hints(inputs[:1])  # constants may be computed at the first use
    with ValueReads() as reads:
        teacher.hints(inputs)
    assert not reads.found
    with ValueReads() as reads, torch.inference_mode():
        bool(torch.ones(1))
    assert reads.found, "the mode sees them"


def test_published_size(store: Store, weights: Path) -> None:
    teacher = detr(weights, side=800, confidence=0.1)
    (hint,) = teacher.hints([teacher.read(store.read(store.ids[0]))])
    assert hint is not None
    assert hint.shape == teacher.stamp.shape == (25, 25)


@pytest.mark.usefixtures("no_hash_in_names")
@pytest.mark.parametrize("name", ["panns", "detr", "yamnet", "lite0"])
def test_a_batch_on_a_gpu_is_copied_there_once(name: str, store: Store, weights: Path) -> None:
    teacher = teacher_named(name, store, weights)
    inputs = [torch.tensor(teacher.read(store.read(clip_id))) for clip_id in store.ids[: teacher.batch_size]]
    model = teacher.model
    with fake_gpu() as copies, torch.no_grad():
        on_gpu(model)
        teacher.device = torch.device("cuda")
        for _ in range(2):  # the first copies constants
            copies.clear()
            hints = teacher._predict_some([one.pin_memory() for one in inputs])
    assert (hints.device.type, len(hints)) == ("cuda", len(inputs))
    assert (copies.blocking, copies.pageable) == ([], [])
    assert copies.pinned == [tuple(one.shape) for one in inputs]


@pytest.mark.usefixtures("no_hash_in_names")
@pytest.mark.parametrize("name", ["panns", "detr", "yamnet", "lite0"])
def test_hints_do_not_depend_on_the_batch(name: str, store: Store, weights: Path) -> None:
    teacher = teacher_named(name, store, weights)
    material = [teacher.read(store.read(clip_id)) for clip_id in store.ids]
    together = teacher.hints(material)
    alone = [teacher.hints([one])[0] for one in material]
    backwards = teacher.hints(material[::-1])[::-1]
    for other in (alone, backwards):
        for left, right in zip(together, other, strict=True):
            np.testing.assert_array_equal(left, right)  # bit for bit


@pytest.mark.usefixtures("no_hash_in_names")
@pytest.mark.parametrize("name", ["panns", "detr", "yamnet", "lite0"])
def test_hints_in_bf16(name: str, store: Store, weights: Path) -> None:
    """Close to those in fp32, but not equal, of the same length, independent of the batch, named in the stamp."""
    exact, rough = (teacher_named(name, store, weights).in_precision(kind) for kind in ("fp32", "bf16"))
    assert exact.stamp == teacher_named(name, store, weights).stamp
    assert rough.stamp.settings == {**exact.stamp.settings, "precision": "bf16"}
    inputs = [exact.read(store.read(clip_id)) for clip_id in store.ids]
    alone = [rough.hints([one])[0] for one in inputs]
    for expected, found, again in zip(exact.hints(inputs), rough.hints(inputs), alone, strict=True):
        assert expected is not None
        assert found is not None
        np.testing.assert_array_equal(found, again)
        assert found.dtype == np.float32
        assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
        assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(expected), rel=0.01)


def test_no_confident_query_is_no_hint(store: Store, weights: Path) -> None:
    assert hints_of(detr(weights, confidence=0.9999), store) == [None] * len(store)


@pytest.mark.usefixtures("no_hash_in_names")
@pytest.mark.parametrize("name", ["panns", "yamnet", "lite0"])
def test_a_hint_that_is_not_finite_is_an_error_where_none_may_lack(name: str, store: Store, weights: Path) -> None:
    teacher = teacher_named(name, store, weights)
    inputs = [torch.tensor(teacher.read(store.read(clip_id))) for clip_id in store.ids[:2]]
    for parameter in teacher.model.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(Refused, match=f"{name} computed a hint that is not finite") as caught:
        teacher.hints(inputs)
    assert caught.value.hint == "Try --precision fp32."


def test_source_is_read_at_full_bandwidth(store: Store, weights: Path) -> None:
    clip = store.read(store.ids[3])
    waveforms = {sound: panns(weights, store.spec, sound=sound).read(clip) for sound in ("source", "store")}
    for waveform in waveforms.values():
        assert waveform.shape == (int(SECONDS * 32_000),)
        assert waveform.dtype == np.float32
    spectra = {sound: np.abs(np.fft.rfft(waveform)) for sound, waveform in waveforms.items()}
    above = slice(int(SECONDS * 12_000), None)  # the store ends at 11 025 Hz
    assert spectra["source"][above].mean() > 10 * spectra["store"][above].mean()
    assert spectra["source"].argmax() == spectra["store"].argmax()


def test_source_window_begins_at_the_time_in_the_store(store: Store, weights: Path) -> None:
    clip = store.read(store.ids[0])
    teacher = panns(weights, store.spec, sound="source")
    tone = np.cos(2 * np.pi * 300 * np.arange(int(SECONDS * 32_000)) / 32_000 - np.pi / 2)  # 300 Hz from 0.5 s on
    assert np.corrcoef(teacher.read(clip), tone)[0, 1] > 0.95
    late = teacher.read(replace(clip, window_s=0.5 + 1 / 600))  # half a period later
    assert np.corrcoef(late, tone)[0, 1] < -0.95


def test_changed_source_is_a_failed_clip(store: Store, weights: Path, tmp_path: Path) -> None:
    clip = store.read(store.ids[0])
    teacher = panns(weights, store.spec, sound="source")
    for path in (str(tmp_path / "gone.wav"), "", str(Path(clip.sound_source).parent)):
        with pytest.raises(InputError, match="missing or changed"):
            teacher.read(replace(clip, sound_source=path))
    with pytest.raises(InputError, match="missing or changed"):
        teacher.read(replace(clip, source_bytes=clip.source_bytes + 1))


def test_auto_chooses_one_sound_for_the_whole_store(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", 3)
    assert choose_sound(store, "auto") == "source"
    Path(store.read(store.ids[1]).sound_source).unlink()
    assert choose_sound(store, "auto") == "store"
    assert choose_sound(store, "source") == "source"


def test_stamps_name_what_changes_a_hint(weights: Path) -> None:
    spec = StoreSpec(seconds=SECONDS, rate=RATE)
    stamp = panns(weights, spec).stamp
    assert set(stamp.weights) == {"Cnn14_mAP=0.431.pth"}
    assert stamp.settings == {"normalise": True, "sound": "store", "rate": 32_000, "seconds": SECONDS}
    stamp = detr(weights).stamp
    assert set(stamp.weights) == {"config.json", "model.safetensors"}
    assert stamp.settings == {"confidence": 0.3, "side": SMALL, "resize": "bilinear, not rounded"}
    assert DetrSettings().side == 800


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (PannsSettings, "sound", "both"),
        (DetrSettings, "confidence", 1.0),
        (DetrSettings, "confidence", -0.1),
        (DetrSettings, "side", 801),
    ],
)
def test_invalid_settings(kind: type, name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{name} = .* valid"):
        kind(**{name: value})


def test_clips_too_short_for_panns(weights: Path) -> None:
    with pytest.raises(Refused, match="too short"):
        panns(weights, StoreSpec(seconds=0.3))


def test_wrong_cnn14_files(tmp_path: Path, weights: Path) -> None:
    path = tmp_path / "Cnn14_mAP=0.431.pth"
    path.write_bytes(CNN14.under(weights).read_bytes()[:5000])
    with pytest.raises(WeightsError, match="Cnn14_mAP"):
        load_cnn14(path)
    torch.save({"weights": {}}, path)
    with pytest.raises(WeightsError, match="no entry 'model'"):
        load_cnn14(path)
    torch.save({"model": {"bn0.weight": torch.ones(64)}}, path)
    with pytest.raises(WeightsError, match="does not hold the weights of Cnn14"):
        load_cnn14(path)


@pytest.mark.usefixtures("no_connections")
def test_older_detr_settings(tmp_path: Path, weights: Path) -> None:
    folder = Path(shutil.copytree(DETR.under(weights), tmp_path / "detr"))
    stated = json.loads((folder / "config.json").read_text())
    blank = {"use_timm_backbone": False, "backbone": None, "dilation": None, "use_pretrained_backbone": None}
    for older in (blank, {**blank, "backbone": "resnet50", "use_pretrained_backbone": True, "scale_embedding": False}):
        (folder / "config.json").write_text(json.dumps({**stated, **older}))
        assert load_detr(folder).config.backbone_config.model_type == "resnet"
    for foreign in ({"use_timm_backbone": True}, {"backbone_config": {"model_type": "timm_backbone"}}):
        (folder / "config.json").write_text(json.dumps({**stated, **foreign}))
        with pytest.raises(WeightsError, match="no_timm"):
            load_detr(folder)
    (folder / "config.json").write_text(json.dumps({**stated, "model_type": "yolos"}))
    with pytest.raises(WeightsError, match="yolos"):
        load_detr(folder)


def test_wrong_detr_folders(tmp_path: Path, weights: Path) -> None:
    from safetensors.torch import load_file, save_file

    good = DETR.under(weights)
    tensors = load_file(good / "model.safetensors")
    shutil.copy(good / "config.json", tmp_path)
    with pytest.raises(WeightsError, match="does not hold a DETR"):
        load_detr(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not safe")
    with pytest.raises(WeightsError, match="does not hold a DETR"):
        load_detr(tmp_path)
    lacking = {key: value for key, value in tensors.items() if "class_labels" not in key}
    save_file(lacking, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="lacks 2 tensors"):
        load_detr(tmp_path)
    other = {**tensors, "class_labels_classifier.bias": torch.zeros(3)}
    save_file(other, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="does not hold a DETR"):
        load_detr(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="does not hold a DETR"):
        load_detr(tmp_path)


def test_matplotlib_stays_whole_beside_the_teacher():
    """Whether or not it was loaded before, drawing works after PANNs was loaded (here: with its core loaded only)."""
    code = (
        "import matplotlib, sys; from avloc.networks.cnn14 import build_cnn14; build_cnn14();"
        "assert not [m for m in sys.modules if m.startswith('panns_inference')];"
        "from matplotlib.figure import Figure; Figure().subplots(1, 3); import matplotlib.pyplot"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
