"""AVE: its annotations, and its models and their losses."""

from __future__ import annotations

import itertools
import math
import re

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avloc.ave.annotations import (
    AVE_CLASSES,
    AveRow,
    class_names,
    one_hot,
    presence,
    read_order,
    read_rows,
    second_labels,
    video_labels,
    write_labels,
)
from avloc.ave.matching import AveMatch, distance, pool
from avloc.ave.metrics import background_accuracy
from avloc.ave.networks import AVE, Features, of_clip
from avloc.config import ModelConfig
from avloc.errors import UsageError
from tests.parity import drawing_events
from tests.parity.comparing import tensors
from tests.program import ROOT

PUBLISHED = ROOT.parent / "shared" / "data" / "ave"
needs_published_labels = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="AVE's published labels lie beside the checkout and are not there"
)
PARTS = ("train", "val", "test")
TEXT = "Bell&abc_-def123&good&0&10\nDog bark&b&good&2&5\nBell&c&good&0&0\n"
HEADING = "Category&VideoID&Quality&StartTime&EndTime\n"


def written(tmp_path, text: str | bytes):
    path = tmp_path / "Annotations.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- annotations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [TEXT, HEADING + TEXT, TEXT.replace("\n", "\r\n"), "\ufeff" + HEADING + TEXT + "\n"])
def test_rows_and_what_follows_from_them(tmp_path, text):
    rows = read_rows(written(tmp_path, text))
    assert rows[1] == AveRow(video="b", category="Dog bark", quality="good", start=2, end=5)
    classes = class_names(rows)
    assert classes == ("Bell", "Dog bark")
    labels = second_labels(rows, classes)
    assert labels.dtype == np.int64
    assert labels.tolist() == [[0] * 10, [2, 2, 1, 1, 1, 2, 2, 2, 2, 2], [2] * 10]
    assert presence(rows).dtype == np.float32
    assert presence(rows).tolist() == (labels < 2).astype(float).tolist()
    assert video_labels(rows, classes).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert np.array_equal(one_hot(labels, 2).argmax(-1), labels)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEXT + "Bell&d&good&1", "line 4: 4 fields"),
        (TEXT + HEADING, "line 4: Start = 'StartTime'"),
        ("Bell&d&good&-1&5", "line 1: Start = '-1'; valid: a whole second, 0 to 10"),
        ("Bell&d&good&1&11", "line 1: End = '11'"),
        ("Bell&d&good&1&2.5", "line 1: End = '2.5'"),
        (HEADING + "Bell&d&good&5&4", "line 2: Start = 5 is after End = 4"),
        ("&d&good&1&2", "line 1: no category"),
        ("Bell&../d&good&1&2", "VideoID '../d' is no name"),
        (HEADING, "has no row"),
        (b"\xff\xfe", "is no text"),
    ],
)
def test_annotations_that_are_none_are_refused_by_line(tmp_path, text, said):
    with pytest.raises(UsageError, match=f"Annotations.txt.*{re.escape(said)}"):
        read_rows(written(tmp_path, text))
    with pytest.raises(UsageError, match="nowhere cannot be read"):
        read_rows(tmp_path / "nowhere")


def test_a_category_that_is_no_class_is_refused(tmp_path):
    with pytest.raises(UsageError, match="category 'Dog bark' is no class; valid: Bell"):
        second_labels(read_rows(written(tmp_path, TEXT)), ("Bell",))


def test_labels_are_written_as_the_published_script_reads_them(tmp_path):
    rows = read_rows(written(tmp_path, TEXT))
    write_labels(tmp_path / "labels.h5", rows)
    with h5py.File(tmp_path / "labels.h5") as file:
        labels = file["avadataset"]
        assert (labels.shape, labels.dtype, labels.chunks) == ((3, 10, 3), np.float32, None)
        assert np.array_equal(labels[:].argmax(-1), second_labels(rows, class_names(rows)))


def _order(path, values) -> None:
    with h5py.File(path, "w") as file:
        file["order"] = values


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([0, 3]), "names row 3; valid: 0 to 2"),
        (np.array([0, -1]), "names row -1"),
        (np.array([1, 1]), "names a row twice"),
        (np.array([0.0, 1.0]), "not a vector of whole numbers"),
        (np.array([[0, 1]]), "not a vector of whole numbers"),
        (np.arange(4), "4 entries for 3 rows"),
        (h5py.ExternalLink("other.h5", "order"), "does not lie in it"),
        (h5py.SoftLink("/rows"), "does not lie in it"),
    ],
)
def test_an_order_that_is_none_is_refused(tmp_path, values, said):
    _order(tmp_path / "test_order.h5", values)
    with pytest.raises(UsageError, match=f"test_order.h5.*{said}"):
        read_order(tmp_path / "test_order.h5", 3)


def test_an_order(tmp_path):
    path = tmp_path / "order.h5"
    _order(path, np.array([2, 0], np.uint16))
    assert read_order(path, 3) == [2, 0]
    path.write_bytes(path.read_bytes()[:700])
    for broken in (path, tmp_path / "nowhere", tmp_path):
        with pytest.raises(UsageError, match="cannot be read as an order of rows"):
            read_order(broken, 3)


@needs_published_labels
def test_the_published_labels_follow_from_the_annotations(tmp_path):
    rows = read_rows(PUBLISHED / "Annotations.txt")
    classes = class_names(rows)
    assert (len(rows), len(classes), classes[0], classes[-1]) == (4143, 28, "Church bell", "Mandolin")
    assert classes == AVE_CLASSES
    for name, ours in (("labels_closs", presence(rows)), ("mil_labels", video_labels(rows, classes))):
        with h5py.File(PUBLISHED / f"{name}.h5") as file:
            assert file["avadataset"].dtype == ours.dtype
            assert np.array_equal(file["avadataset"][:], ours)
    labels = second_labels(rows, classes)
    assert np.array_equal(labels < 28, presence(rows) > 0)
    with h5py.File(PUBLISHED / "mil_labels.h5") as file:
        category = file["avadataset"][:].argmax(-1)
    assert np.array_equal(labels, np.where(presence(rows) > 0, category[:, None], 28))
    test = read_order(PUBLISHED / "test_order.h5", len(rows))
    assert background_accuracy(labels[test], 29) == pytest.approx(0.178, abs=5e-4)


@needs_published_labels
def test_the_published_splits_share_videos_but_no_rows():
    rows = read_rows(PUBLISHED / "Annotations.txt")
    parts = {name: read_order(PUBLISHED / f"{name}_order.h5", len(rows)) for name in PARTS}
    assert sorted(itertools.chain(*parts.values())) == list(range(len(rows)))
    videos = {name: {rows[row].video for row in part} for name, part in parts.items()}
    assert len(videos["train"] & videos["test"]) == 8
    assert len(videos["train"] & videos["val"]) == 10
    match = {name: read_order(PUBLISHED / f"{name}_order_match.h5", len(rows)) for name in PARTS}
    assert len({*itertools.chain(*match.values())}) == len(rows)
    assert all(0 < rows[row].end - rows[row].start < 10 for row in match["test"])


# --- models -----------------------------------------------------------------------------------------------------


def ave(**own) -> AVE:
    torch.manual_seed(0)
    own = {"classes": 28, "dmrn": False, "weak": False, "cross_entropy": False, **own}
    return AVE(ModelConfig(method="ave", dim=512, rate=16_000, seconds=10.0, own=own))


def features(clips: int, seconds: int, background: int = 28) -> Features:
    random = torch.Generator().manual_seed(1)
    return Features(
        visual=torch.rand(clips, seconds, 7, 7, 512, generator=random),
        audio=torch.rand(clips, seconds, 128, generator=random),
        labels=torch.randint(0, background + 1, (clips, seconds), generator=random),
        background=background,
        clips=torch.arange(clips) % (background + 1),
    )


@pytest.mark.parametrize("dmrn", [False, True])
@pytest.mark.parametrize("weak", [False, True])
@pytest.mark.parametrize("cross_entropy", [False, True])
def test_clips_of_any_length_teach_every_parameter(dmrn, weak, cross_entropy):
    model = ave(classes=5, dmrn=dmrn, weak=weak, cross_entropy=cross_entropy)
    batch = features(3, 4, background=5)
    predicted = model.predict(batch.visual, batch.audio)
    assert predicted.scores.shape == predicted.probabilities.shape == (3, 4, 6)
    torch.testing.assert_close(predicted.attention.sum((2, 3)), torch.ones(3, 4))
    alone = model.predict(batch.visual[1:2], batch.audio[1:2])
    torch.testing.assert_close(alone.scores, predicted.scores[1:2])
    (loss,) = model.losses(batch).values()
    loss.backward()
    (group,) = model.groups()
    assert all(weight.grad.isfinite().all() and weight.grad.any() for weight in group.parameters)


def test_the_published_loss_has_a_floor_and_cross_entropy_has_none():
    perfect = F.one_hot(torch.arange(29), 29) * 1000.0
    floor = F.multilabel_soft_margin_loss(perfect.softmax(-1), F.one_hot(torch.arange(29), 29).float())
    assert floor.item() == pytest.approx(0.680, abs=5e-4)
    batch = features(2, 3)
    predicted = ave().predict(batch.visual, batch.audio)
    truth = F.one_hot(batch.labels, 29).float()
    theirs = F.multilabel_soft_margin_loss(predicted.probabilities.flatten(0, 1), truth.flatten(0, 1))
    torch.testing.assert_close(ave().losses(batch), {"event": theirs})
    plain = -predicted.scores.log_softmax(-1)[truth > 0].mean()
    torch.testing.assert_close(ave(cross_entropy=True).losses(batch), {"event": plain})


def test_weak_labels_say_what_a_clip_holds():
    labels = torch.tensor([[28, 4, 4, 28], [28, 28, 28, 28], [0, 0, 0, 0]])
    batch = features(3, 4)
    batch = Features(visual=batch.visual, audio=batch.audio, labels=labels, clips=torch.tensor([4, 28, 0]))
    scores = of_clip(ave().predict(batch.visual, batch.audio).scores)
    expected = F.cross_entropy(scores, torch.tensor([4, 28, 0]))
    torch.testing.assert_close(ave(weak=True, cross_entropy=True).losses(batch), {"event": expected})
    theirs = F.multilabel_soft_margin_loss(scores.softmax(-1), F.one_hot(torch.tensor([4, 28, 0]), 29).float())
    torch.testing.assert_close(ave(weak=True).losses(batch), {"event": theirs})


def test_initial_weights_are_the_published_ones():
    drawn = {name for name, part in ave().named_modules() if isinstance(part, torch.nn.Linear)}
    for dmrn, xavier in ((False, drawn), (True, {"L2"})):
        model = ave(dmrn=dmrn)
        for name, part in model.named_modules():
            if isinstance(part, torch.nn.Linear) and part.weight.numel() > 1000:
                outputs, inputs = part.weight.shape
                bound = math.sqrt(6 / (outputs + inputs)) if name in xavier else math.sqrt(1 / inputs)
                assert part.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
    layer = AveMatch(ModelConfig(method="ave-match", dim=512, own={"margin": 2.0})).visual[0]
    assert layer.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 640), rel=0.02)
    assert not layer.bias.any()


def test_published_files_are_told_apart():
    files = {name: tensors(state) for name, state in drawing_events.weights(3).items()}
    sizes = {"AV_att": 1_335_246, "AV_att_weak": 1_335_246, "DMRN": 1_571_150}
    for name, size in sizes.items():
        config, state = AVE.from_published({name: files[name]})
        own = {"classes": 28, "dmrn": name == "DMRN", "weak": name == "AV_att_weak", "cross_entropy": False}
        assert (config.method, config.rate, config.seconds, config.own) == ("ave", 16_000, 10.0, own)
        model = AVE(config)
        model.load_state_dict(state)
        assert sum(weight.numel() for weight in model.parameters()) == size
        assert AveMatch.from_published({name: files[name]}) is None
    keras = files["cmm_model_weights"]
    config, state = AveMatch.from_published({"cmm_model_weights": keras})
    model = AveMatch(config)
    model.load_state_dict(state)
    assert torch.equal(model.audio[2].weight, keras["dense_4/dense_4/kernel:0"].T)
    assert sum(weight.numel() for weight in model.parameters()) == 98_688
    assert AVE.from_published({"cmm_model_weights": keras}) is None
    assert AVE.from_published(files) is AveMatch.from_published(files) is None


def test_seconds_of_an_event_come_together_and_the_others_keep_apart():
    model = AveMatch(ModelConfig(method="ave-match", dim=512, own={"margin": 0.5}))
    batch = features(2, 3)
    labels = torch.tensor([[28, 1, 1], [28, 28, 7]])
    batch = Features(visual=batch.visual, audio=batch.audio, labels=labels)
    with torch.no_grad():
        apart = distance(model.embed_visual(batch.visual.mean((2, 3))), model.embed_audio(batch.audio))
    slow = [d**2 if c < 28 else max(0.5 - d, 0) ** 2 for d, c in zip(apart.flatten(), labels.flatten(), strict=True)]
    (loss,) = model.losses(batch).values()
    assert loss.item() == pytest.approx(float(sum(slow)) / 6)
    once = Features(visual=pool(batch.visual)[:, :, None, None], audio=batch.audio, labels=labels)
    torch.testing.assert_close(model.losses(once), {"contrastive": loss})
    same = torch.ones(4, requires_grad=True)
    distance(same, torch.ones(4)).backward()
    assert same.grad.isfinite().all()
