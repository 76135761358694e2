"""Options that do not apply to what the others select, unknown flags and invalid values are refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from avloc.cli import app
from avloc.config import TrainConfig, check_used, dotted, from_dict, resolve_config, to_dict, write_toml
from avloc.errors import Refused, UsageError
from avloc.prepare import PrepareOptions, prepare
from avloc.registry import SPECS
from avloc.train.run_folder import RunFolder
from tests.command_lines import DISTILL, EVAL, LOCALIZE, PREPARE, TRAIN, check_exit
from tests.program import avloc

pytestmark = pytest.mark.usefixtures("offline", "one_thread")

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands
BASE = {
    "prepare": ("absent", "--out", "out"),
    "distill-cache": ("absent",),
    "train": ("absent", "--out", "out"),
    "eval": ("--store", "absent"),
    "localize": ("absent.mp4",),
}
"""Arguments with which a command ends early: its input does not exist."""

MODEL_OPTIONS = ("--object-prior", "--prior", "--negatives", "--compare", "--paper-table", "--batch")
OF_PICTURES = (*MODEL_OPTIONS, "--maps", "--maps-dir", "--protocol", "--report", "--weights-dir", "--precision")
NOT_RUN = (*MODEL_OPTIONS, "--model", "--weights-dir", "--device", "--precision", "--clean-split")
OF_MAPS = ("--audio", "--track", "--at", "--every", "--start", "--end", "--object-prior", "--map-weights", "--weights")
HINTS = ("--no-audio-hint", "--no-visual-hint")
OF_NETWORKS = ("--dim", "--vision-trunk", "--audio-trunk", "--weights-dir", *HINTS)
OF_CLIPS = (
    "--annotations",
    "--ids",
    "--for",
    "--rate",
    "--side",
    "--kind",
    "--frame",
    "--track",
    "--allow-test-overlap",
)
OF_TEACHERS = ("--sound", "--raw-embedding", "--confidence")

REFUSED = {
    ("prepare",): (),
    ("prepare", "--layout", "folders"): ("--frame",),
    ("prepare", "--layout", "hdf5"): ("--frame", "--track"),
    ("prepare", "--layout", "ave"): OF_CLIPS,
    ("prepare", "--kind", "test"): ("--side", "--allow-test-overlap"),
    ("distill-cache",): (),
    ("distill-cache", "--teacher", "panns"): ("--confidence",),
    ("distill-cache", "--teacher", "detr"): ("--sound", "--raw-embedding"),
    ("distill-cache", "--teacher", "yamnet"): OF_TEACHERS,
    ("distill-cache", "--teacher", "vgg19", "--teacher", "vggish"): OF_TEACHERS,
    ("distill-cache", "--teacher", "lite0", "--teacher", "panns"): ("--confidence",),
    ("distill-cache", "--import-npy", "absent"): (
        *(*OF_TEACHERS, "--batch", "--workers", "--precision"),
        *("--weights-dir", "--device"),
    ),
    ("train",): (),
    **{("train", "--method", name): HINTS for name in ("ezvsl", "lvs", "sspl", "sacl")},
    **{("train", "--method", name): OF_NETWORKS for name in ("ave", "ave-match")},
    ("eval",): ("--clean-split",),
    ("eval", "--testset", "vggss"): ("--clean-split",),
    **{("eval", "--testset", name): OF_PICTURES for name in ("ave", "ave-weak", "ave-match")},
    ("eval", "absent", "absent-too"): ("--clean-split",),
    ("eval", "--paper-table", "2"): ("--compare", "--report", "--clean-split"),
    ("eval", "--maps-dir", "absent"): (*NOT_RUN, "--maps"),
    ("eval", "--maps", "baselines"): NOT_RUN,
    ("eval", "--maps", "av"): ("--object-prior", "--prior", "--clean-split"),
    ("eval", "--maps", "shipped,baselines"): ("--object-prior", "--prior", "--clean-split"),
    ("eval", "--maps", "av,sweep"): ("--clean-split",),
    ("localize",): (),
    ("localize", "--events"): (*OF_MAPS, "--style", "--skip-existing", "--precision"),
}
"""A command with what selects a mode of it -> the other options that have no effect then."""


def flag_of(option: Any) -> str:
    return max(option.opts, key=len)


def given(option: Any) -> tuple[str, ...]:
    """The option with its default, or with 1 if it has none."""
    if option.is_flag:
        return (flag_of(option),)
    return flag_of(option), "1" if option.default in (None, "") else str(option.default)


@pytest.mark.parametrize("command", REFUSED, ids=" ".join)
def test_options_that_do_not_apply_are_refused_by_name_and_all_others_are_not(command, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *selection = command
    options = [option for option in COMMANDS[name].params if option.param_type_name == "option"]
    others = [option for option in options if flag_of(option) not in (*selection, *BASE[name])]
    assert {flag_of(option) for option in others} >= set(REFUSED[command])
    for option in others:
        done = here(name, *BASE[name], *selection, *given(option))
        flag = flag_of(option)
        refused = any(f"avloc: {flag} {verb}" in done.err for verb in ("does not apply to", "applies only to"))
        assert (refused, done.code == 2 and refused) == (flag in REFUSED[command],) * 2, (flag, done.err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("maps", ["av, object", " object,", ",,av,fused"])
@pytest.mark.usefixtures("at_home")
def test_an_option_of_one_map_applies_beside_others(here, maps):
    done = here("eval", "--store", "absent", "--maps", maps, "--object-prior", "resnet18")
    assert (done.code, "--object-prior" in done.err) == (5, False), done.err


@pytest.mark.parametrize("maps", [" baselines", "baselines,", "baselines,baselines"])
def test_spaces_and_empty_names_hide_no_map(here, maps):
    done = here("eval", "--store", "absent", "--maps", maps, "--object-prior", "resnet18")
    assert (done.code, done.err) == (2, "avloc: --object-prior does not apply to --maps baselines\n")


def test_options_of_training_stores_are_refused_at_their_default_if_a_list_makes_a_test_store(here, tmp_path):
    for options in ((), ("--side", "0")):
        done = here("prepare", tmp_path / "absent", "--out", tmp_path / "out", "--ids", "vggss", *options)
        refused = "--side applies to training stores only" in done.err
        assert (done.code, refused) == (2, bool(options)), done.err


@pytest.mark.parametrize("term", ["audio_hint", "visual_hint"])
def test_a_hint_term_is_disabled_or_has_a_weight(here, tmp_path, term):
    flag = f"--no-{term.replace('_', '-')}"
    command = ("train", "absent", "--out", tmp_path / "run", flag, "--print-config", "--set")
    done = here(*command, f"loss.{term}=5")
    assert (done.code, done.err) == (
        2,
        f"avloc: {flag} and --set loss.{term}=5 contradict each other; valid: one of them\n",
    )
    assert f"{term} = 0.0" in here(*command, f"loss.{term}=0").out


def test_a_model_is_refused_as_an_argument_too(here):
    done = here("eval", "absent", "--maps", "baselines", "--testset", "vggss")
    assert (done.code, done.err) == (2, "avloc: RUN does not apply to --maps baselines\n")


def test_the_method_of_a_layout_may_be_named(here, tmp_path):
    for method, words in (
        ("ave", "no such file or folder"),
        ("avc", "--for does not apply"),
        ("lvs", "--for does not"),
    ):
        done = here("prepare", tmp_path / "absent", "--layout", "ave", "--for", method, "--out", tmp_path / "out")
        assert (done.code, words in done.err) == (2, True), done.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "lvs"}, "method = 'lvs' does not"),
        ({"rate": 8000}, "rate = 8000"),
        ({"method": "ave"}, "no such file"),
    ],
)
def test_the_library_refuses_options_of_prepare_that_have_another_value(tmp_path, changes, words):
    with pytest.raises(UsageError, match=words):
        prepare([str(tmp_path / "absent")], tmp_path / "out", PrepareOptions(layout="ave", **changes))


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", SPECS)
def test_unused_settings_are_refused_on_the_command_line_even_at_their_defaults(method, here, tmp_path):
    defaults = dotted(to_dict(resolve_config({}, method)))
    for name in SPECS[method].unused:
        if name not in defaults:
            assert name == "weights_dir"
            continue
        value = str(defaults[name]).lower()
        done = here("train", tmp_path, "--out", tmp_path / "run", "--method", method, "--set", f"{name}={value}")
        assert (done.code, done.err) == (2, f"avloc: --set {name} does not apply to --method {method}\n")


def test_a_table_of_settings_is_looked_into(here):
    done = here("train", "absent", "--out", "out", "--method", "ave", "--set", "model={tau = 0.03}")
    assert (done.code, done.err) == (2, "avloc: --set model.tau does not apply to --method ave\n")


@pytest.mark.parametrize("method", SPECS)
def test_printed_settings_and_those_of_a_run_folder_are_taken_as_they_are(method, here, tmp_path):
    command = ("train", "absent", "--out", tmp_path / "run", "--print-config")
    printed = here(*command, "--method", method).out
    (tmp_path / "printed.toml").write_text(printed)
    assert here(*command, "--config", tmp_path / "printed.toml").out == printed
    written = {"run": {"precision": "fp32"}, "train": to_dict(resolve_config({}, method))}
    (tmp_path / "run.toml").write_text(write_toml(written))
    for options in ((), ("--method", method)):
        done = here(*command, "--config", tmp_path / "run.toml", *options)
        assert (done.code, done.out) == (0, printed), done.err


def test_a_file_that_gives_an_unused_setting_another_value_is_refused(here, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("[model]\nmethod = 'ave'\ntau = 0.5\n")
    command = ("train", "absent", "--out", tmp_path / "run", "--config", file)
    done = here(*command)
    assert (done.code, done.err) == (2, "avloc: model.tau = 0.5 does not apply to --method ave\n")
    file.write_text("[model]\nmethod = 'ave'\ndim = 64\n")
    done = here(*command, "--dim", "64")
    assert (done.code, done.err) == (2, "avloc: --dim does not apply to --method ave\n")


def test_a_configuration_built_in_python_is_checked_by_its_values():
    table = to_dict(resolve_config({}, "ezvsl"))
    check_used(from_dict(TrainConfig, table))
    table["audio_teacher"] = "vggish"
    with pytest.raises(UsageError, match="audio_teacher = 'vggish' does not apply to --method ezvsl"):
        check_used(from_dict(TrainConfig, table))


@pytest.mark.parametrize(("one", "other"), [("lvs", "sspl"), ("avc", "lvs")])
def test_a_run_of_another_method_is_refused_with_what_differs(tmp_path, one, other):
    folder = RunFolder(tmp_path)
    folder.write_config(resolve_config({}, one), {})
    folder.check_config(resolve_config({}, one), {})
    with pytest.raises(Refused, match=f"model.method was '{one}', now '{other}'"):
        folder.check_config(resolve_config({}, other), {})


# --- unknown flags, invalid values ------------------------------------------------------------------------------


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
    ((*DISTILL, "--workers", "-1"), "--workers -1 is impossible; valid: 0 or more"),
    ((*DISTILL, "--precision", "half"), "--precision half is unknown; valid: fp32, bf16"),
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
    ((*DISTILL, "--teacher", "pann", "--sound", "source"), "Did you mean panns?"),
    ((*PREPARE, "--layout", "folder", "--frame", "5s"), "Did you mean folders?"),
    ((*EVAL, "--maps", "objekt", "--object-prior", "resnet18"), "Did you mean object?"),
    ((*EVAL, "--object-prior", "resnet18", "--maps", "baseline"), "Did you mean baselines?"),
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
    ((*TRAIN, "--vision-trunk", "nosuch"), "unknown backbone 'nosuch'; valid: resnet18,"),
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
