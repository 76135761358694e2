"""Self-describing model files, and import of published checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from avloc import __version__
from avloc.config import ModelConfig, from_dict, to_dict
from avloc.errors import UsageError, WeightsError
from avloc.files import json_text, parse_json, sha256_of, write_bytes
from avloc.methods import PublishedModel, any_class
from avloc.protocols import PROTOCOLS
from avloc.registry import SPECS
from avloc.weights.keras_files import load_keras
from avloc.weights.legacy_checkpoints import load_modules
from avloc.weights.torch_files import load_plain

SCHEMA = 1
METADATA_KEY = "avloc"
KERAS_SUFFIX = ".h5"
MODEL_NAME = "model.safetensors"
"""The selected epoch, in a run folder."""
LAST_NAME = "last.safetensors"
"""The last epoch, in a run folder."""
_COHORT = "cohort."


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """Weights with their configuration and training record."""

    config: ModelConfig
    state: dict[str, Tensor]
    """Tensors under the published keys, without prefix."""
    card: dict[str, Any] = field(default_factory=dict)
    """Training record: data hash, epoch, seed, selection, licence and the like."""
    cohort: dict[str, Tensor] = field(default_factory=dict)
    """Vectors of `avloc.engine.Cohort`; empty for most models."""
    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """Short name for tables and JSON; files of a run are named after its folder."""
        if self.card.get("name"):
            return str(self.card["name"])
        run = self.path.resolve().parent.name
        return {MODEL_NAME: run, LAST_NAME: f"{run} (last epoch)"}.get(self.path.name, self.path.stem)


def default_model() -> Path:
    """The model shipped inside the package."""
    return Path(str(files("avloc") / "models" / "avloc-lite.safetensors"))


def save_model(
    path: Path,
    config: ModelConfig,
    state: Mapping[str, Tensor],
    card: dict[str, Any],
    cohort: Mapping[str, Tensor] | None = None,
) -> None:
    """Write one self-describing `.safetensors` file, atomically. `cohort` is that of `ModelFile`."""
    protocol = SPECS[config.method].protocol
    about = {
        "schema": SCHEMA,
        "version": __version__,
        "config": to_dict(config),
        "protocol": PROTOCOLS[protocol].as_json() if protocol else None,
        "card": card,
    }
    named = {**state, **{_COHORT + key: value for key, value in (cohort or {}).items()}}
    tensors = {key: value.detach().cpu().contiguous() for key, value in named.items()}
    # Serialised in memory: `save_file` raises the same error for a full disk as for everything else.
    write_bytes(path, save(tensors, metadata={METADATA_KEY: json_text(about)}))


def load_model(path: Path) -> ModelFile:
    """Read a run folder, a `.safetensors` of avloc, or a published checkpoint (a file, or a folder of files).

    Published checkpoints are `.pth` and `.pt`, including whole pickled modules, and Keras's `.h5` for AVE's cross-modal
    matching.

    Raises:
        UsageError: there is no file at `path`, or it is no model.
        WeightsError: the file is damaged, of an unknown kind, or would run code.
    """
    if path.is_dir() and not (path / MODEL_NAME).exists() and (files := published_files(path)):
        return _load_published(path, files)
    if path.is_dir():
        path = path / MODEL_NAME
    if not path.is_file():
        raise UsageError(f"no model at {path}", hint="--model takes a run folder, a .safetensors or a published .pth.")
    if path.suffix == ".safetensors":
        return _load_own(path)
    if path.suffix in (".pth", ".pt", KERAS_SUFFIX):
        return _load_published(path, [path])
    raise UsageError(f"{path}: a model is a run folder, a .safetensors or a published .pth")


def published_files(folder: Path) -> list[Path]:
    """The checkpoints of one published model in a folder; may be empty."""
    return sorted(folder.glob("*.pth"))


def _load_own(path: Path) -> ModelFile:
    try:
        with safe_open(path, "pt") as file:
            about = parse_json((file.metadata() or {})[METADATA_KEY])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)
        if not isinstance(about, dict):
            raise ValueError(f"its description is a {type(about).__name__}, not a table")
        if about["schema"] != SCHEMA:
            raise WeightsError(f"{path} has schema {about['schema']}; this avloc reads {SCHEMA}")
        config, card = from_dict(ModelConfig, _table(about, "config")), _table(about, "card")
        if config.method not in SPECS:
            raise ValueError(f"unknown method {config.method!r}; valid: {', '.join(SPECS)}")
    except KeyError:
        raise WeightsError(f"{path} is no model of avloc: its metadata does not describe one") from None
    except (SafetensorError, ValueError, OSError, UsageError) as error:
        raise WeightsError(f"{path} cannot be read as a model: {error}") from error
    full = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    cohort = {key.removeprefix(_COHORT): full.pop(key) for key in list(full) if key.startswith(_COHORT)}
    return ModelFile(config=config, state=full, card=card, cohort=cohort, path=path, sha256=sha256_of(path))


def _table(about: dict[str, Any], name: str) -> dict[str, Any]:
    table = about[name]
    if not isinstance(table, dict):
        raise ValueError(f"its {name} is a {type(table).__name__}, not a table")
    return table


def _load_published(path: Path, files: list[Path]) -> ModelFile:
    """Import a checkpoint of the first published method that recognises it."""
    contents = {file.stem: _content(file) for file in files}
    found = (any_class(name).from_published(contents) for name in SPECS)
    config, state = next(filter(None, found), (None, {}))
    if config is None:
        raise WeightsError(f"{path} is not a checkpoint of {', '.join(SPECS)}")
    epoch = next((content.get("epoch") for content in contents.values()), None)
    epoch = epoch if isinstance(epoch, int) else None
    card = {"name": path.stem, "source": f"published checkpoint {path.name}", "epoch": epoch}
    return ModelFile(config=config, state=state, card=card, path=path, sha256=sha256_of(*files))


def _content(file: Path) -> Mapping[str, Any]:
    """Plain data of a checkpoint, or the tensors of a module that was pickled whole (AVE's)."""
    if file.suffix == KERAS_SUFFIX:
        return load_keras(file)
    try:
        return load_plain(file)
    except WeightsError:
        if file.suffix != ".pt":
            raise
    return load_modules(file)


def put_weights(module: PublishedModel, model: ModelFile) -> None:
    """Load a model file into a network of its configuration; all keys must match.

    Tensors that only training uses may be missing; they keep their values.

    Raises:
        WeightsError: tensors are missing, unexpected or of another shape.
    """
    try:
        missing, unknown = module.load_state_dict(model.state, strict=False)
        needed = [name for name in missing if not name.startswith(module.training_only)]
        if needed or unknown:
            raise RuntimeError(f"missing: {', '.join(needed) or 'none'}; left over: {', '.join(unknown) or 'none'}")
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise WeightsError(f"{model.path} does not fit its configuration: {reason[:300]}") from error
