"""Unknown flags and invalid values are refused by name, with the valid ones, before anything is written."""

from __future__ import annotations

import pytest

from tests.command_lines import DISTILL, EVAL, LOCALIZE, PREPARE, TRAIN, check_exit
from tests.program import avloc

pytestmark = pytest.mark.usefixtures("offline", "one_thread")


@pytest.mark.parametrize("command", ["prepare", "distill-cache", "train", "eval", "localize"])
def test_an_unknown_flag_is_named(command):
    done = avloc(command, "x", "--nonsense", "3")
    check_exit(done, 2, "--nonsense", f"avloc {command} -h")
    assert done.stdout == ""


IMPOSSIBLE = [
    ((*PREPARE, "--layout", "nonsense"), "--layout nonsense is unknown; valid: auto, videos, folders, hdf5"),
    ((*PREPARE, "--frame", "never"), "--frame never is impossible; valid: middle, or seconds"),
    ((*PREPARE, "--frame", "-1"), "--frame -1 is impossible; valid: middle, or seconds"),
    ((*PREPARE, "--ids", "nosuchlist"), "--ids nosuchlist: neither a file nor a published list; valid: flickr_10k,"),
    ((*PREPARE, "--rate", "-5"), "rate = -5 is impossible; valid: a sample rate in Hz"),
    ((*PREPARE, "--rate", "fast"), "'--rate': Input should be a valid integer"),
    ((*PREPARE, "--workers", "-1"), "--workers -1 is impossible; valid: 0"),
    ((*PREPARE, "--for", "bert"), "--for bert is unknown; valid: avc, ezvsl"),
    ((*PREPARE, "--annotations", "absent.json"), "--annotations absent.json: no such file or folder"),
    ((*PREPARE, "--annotations", "good.mp4"), "--annotations good.mp4 is not valid JSON"),
    (("prepare", "absent.mp4", "--out", "new"), "no such file or folder: absent.mp4"),
    (
        ("prepare", "good.mp4", "--out", "good.mp4"),
        "--out good.mp4 is a file; valid: a new folder or an existing store",
    ),
    (("prepare", "good.mp4"), "Missing option '--out'"),
    ((*DISTILL, "--teacher", "bert"), "--teacher bert is unknown; valid: panns, yamnet, vggish, detr, lite0"),
    ((*DISTILL, "--batch", "0"), "--batch 0 is impossible; valid: 1 or more"),
    ((*DISTILL, "--sound", "nonsense"), "--sound nonsense is unknown; valid: auto, source, store"),
    ((*DISTILL, "--confidence", "3"), "--confidence 3.0 is impossible; valid: 0 or more, less than 1"),
    ((*DISTILL, "--confidence", "nan"), "--confidence nan is impossible; valid: 0 or more, less than 1"),
    ((*DISTILL, "--import-npy", "absent"), "--import-npy absent has no audio_feats/"),
    ((*TRAIN, "--set", "optim.rl=1"), "unknown setting optim.rl; valid: optim.name, optim.lr, optim.schedule"),
    ((*TRAIN, "--set", "nonsense"), "--set 'nonsense' is not key=value"),
    ((*TRAIN, "--set", "optim.beta1=2"), "optim.beta1 = 2.0 is impossible; valid: 0 or more"),
    ((*TRAIN, "--set", "optim.weight_decay=-1"), "optim.weight_decay = -1.0 is impossible; valid: 0 or more"),
    ((*TRAIN, "--set", "optim.lr=nan"), "optim.lr = nan is impossible; valid: a positive number"),
    ((*TRAIN, "--set", "loss.contrastive=-1"), "loss.contrastive = -1.0 is impossible; valid: 0 or more"),
    ((*TRAIN, "--set", "precision=fp16"), "precision = 'fp16' is impossible; valid: auto, fp32, bf16"),
    ((*TRAIN, "--epochs", "-3"), "epochs = -3 is impossible; valid: a positive integer"),
    ((*TRAIN, "--batch", "1"), "batch = 1 is impossible; valid: 2 or more"),
    ((*TRAIN, "--seed", "-1"), "seed = -1 is impossible; valid: 0 or more"),
    ((*TRAIN, "--dim", "0"), "model.dim = 0 is impossible; valid: a positive integer"),
    ((*TRAIN, "--config", "absent.toml"), "no such configuration file: absent.toml"),
    ((*EVAL, "--maps", "nonsense"), "--maps nonsense is unknown; valid: shipped, av, object, fused"),
    ((*EVAL, "--batch", "-4"), "--batch -4 is impossible; valid: 1 or more"),
    ((*EVAL, "--max-missing", "-1"), "--max-missing -1 is impossible; valid: 0 or more"),
    (("eval",), "--testset vggss, or --store DIR"),
    ((*LOCALIZE, "--precision", "fp8"), "precision = 'fp8' is impossible; valid: fp32, bf16"),
    ((*LOCALIZE, "--out", "h.tiff"), "--out h.tiff: unknown suffix; valid: .png, .jpg, .jpeg, .webp, .gif, .npy, .mp4"),
    ((*LOCALIZE, "-o", "new/{foo}.png"), "--out new/{foo}.png: {foo} is unknown; valid: {stem}, {time}"),
    ((*LOCALIZE, "absent.mp4"), "no such file: absent.mp4"),
    ((*LOCALIZE, "--out", "a" * 300 + ".png"), "a name is too long"),
    (("prepare", "good.mp4", "--out", "a" * 300), "a name is too long"),
    ((*LOCALIZE, "--audio", "absent.wav"), "--audio: no such file: absent.wav"),
]
MISSPELT = [
    ((*PREPARE, "--layout", "HDF-5"), "Did you mean hdf5?"),
    ((*PREPARE, "--ids", "VGGSS"), "Did you mean vggss?"),
    ((*PREPARE, "--for", "ez-vsl"), "Did you mean ezvsl?"),
    ((*DISTILL, "--teacher", "pans"), "Did you mean panns?"),
    ((*DISTILL, "--sound", "sauce"), "Did you mean source?"),
    ((*TRAIN, "--method", "EZVSL"), "Did you mean ezvsl?"),
    ((*TRAIN, "--set", "optim.rate=1"), ""),
    ((*TRAIN, "--set", "optim.lrs=1"), "Did you mean lr?"),
    (("eval", "--testset", "VGGSS"), "Did you mean vggss?"),
    (("eval", "--store", "store", "--testset", "vgg-ss"), "Did you mean vggss?"),
    (("eval", "--store", "store", "--testset", "AVE"), "Did you mean ave?"),
    ((*EVAL, "--maps", "fuse"), "Did you mean fused?"),
    ((*EVAL, "--protocol", "AVLOC"), "Did you mean avloc?"),
    ((*EVAL, "--paper-table", "Flickr"), "Did you mean flickr?"),
    ((*LOCALIZE, "--style", "colors=magma"), "Did you mean colours?"),
]
NEEDS_TORCH = [
    ((*DISTILL, "--device", "abacus"), "--device abacus is not usable here"),
    ((*DISTILL, "--weights-dir", "absent"), "--weights-dir absent is not a folder"),
    ((*TRAIN, "--device", "abacus"), "--device abacus is not usable here"),
    ((*TRAIN, "--val", "3"), "--val 3 is impossible; valid: a share between 0 and 1, a store, or a split's name"),
    ((*TRAIN, "--val", "nosuch"), "--val nosuch: no such store or split"),
    ((*TRAIN, "--vision-trunk", "nosuch"), "unknown trunk 'nosuch'; valid: resnet18,"),
    ((*TRAIN, "--init", "absent.pth"), "no model at absent.pth"),
    ((*EVAL, "--device", "abacus"), "--device abacus is not usable here"),
    ((*EVAL, "--model", "absent.pth"), "no model at absent.pth"),
    ((*LOCALIZE, "--device", "abacus"), "--device abacus is not usable here"),
    ((*LOCALIZE, "--device", "meta"), "--device meta is not usable here; valid: auto, cpu"),
    ((*DISTILL, "--device", "xpu"), "--device xpu is not usable here; valid: auto, cpu"),
    ((*TRAIN, "--device", "cuda:99"), "--device cuda:99 is not usable here; valid: auto, cpu"),
    ((*EVAL, "--device", "cuda:99"), "--device cuda:99 is not usable here; valid: auto, cpu"),
    ((*LOCALIZE, "--model", "absent"), "no model at absent"),
]


def ident(case) -> str:
    return " ".join(case[0][-2:]) if isinstance(case, tuple) else ""


@pytest.mark.parametrize("case", IMPOSSIBLE, ids=lambda case: f"{case[0][0]} {ident(case)}")
def test_an_invalid_value_is_named_with_valid_ones(at_home, case):
    arguments, text = case
    before = sorted(at_home.iterdir())
    done = avloc(*arguments)
    check_exit(done, 2, text)
    assert done.stdout == ""
    assert sorted(at_home.iterdir()) == before, "nothing is left behind"


@pytest.mark.parametrize("case", MISSPELT, ids=lambda case: f"{case[0][0]} {ident(case)}")
def test_a_misspelt_name_gets_a_suggestion(at_home, here, case):
    arguments, hint = case
    done = here(*arguments)
    assert (done.code, done.out) == (2, "")
    assert hint in done.err
    assert ("Did you mean" in done.err) == bool(hint)


@pytest.mark.parametrize("case", NEEDS_TORCH, ids=lambda case: f"{case[0][0]} {ident(case)}")
def test_an_invalid_value_that_only_the_engine_can_check_is_named(at_home, here, case):
    """Runs in this process, because loading the engine takes seconds."""
    arguments, text = case
    done = here(*arguments)
    assert (done.code, done.out) == (2, "")
    assert text in done.err
    assert "Traceback" not in done.err


def test_no_command_prints_the_help():
    done = avloc()
    check_exit(done, 2)
    assert "localize" in done.stdout + done.stderr
