"""A checkpoint folder, a snapshot folder or a model description to whatever answers conversations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gastrovl.core.config import load_config
from gastrovl.core.errors import CheckpointError
from gastrovl.inference.batch import Answerer, Ours
from gastrovl.inference.head.looking import Manner
from gastrovl.inference.others.description import ModelDescription, label_names, plain_description
from gastrovl.inference.starter import checkpoint_folder

if TYPE_CHECKING:
    from gastrovl.inference.predictor import Predictor

CARD = "gastrovl.json"  # of a checkpoint of ours, see model.checkpoint; named here so that a server needs no PyTorch


def load_answerer(
    model: Path,
    conversations: Path,
    device: str | None = None,
    manner: Manner | None = None,
) -> Answerer:
    """What answers the conversations of a file.

    Args:
        model: A checkpoint folder of ours, `starter`, a snapshot folder of a Hugging Face model, or the YAML that
            describes one.
        conversations: The file that will be asked; train.jsonl beside it may give the names of labels.
        device: cpu or cuda, of a model that runs here; the best there is when left out.
        manner: Of a checkpoint, how it comes to its answers.

    Raises:
        CheckpointError: There is no such model, or it cannot be loaded.
        ConfigError: The description is wrong, a variable it names is not set, or `looking` asks for what the model
            cannot do.
    """
    model = checkpoint_folder(model)
    if model.is_file():
        return answerer_of(load_config(model, ModelDescription), conversations, device, manner)
    if (model / CARD).is_file():
        return _checkpoint(model, device, manner=manner)
    if manner:
        manner.looking.need_head(str(model), has_head=False)
    if (model / "config.json").is_file():
        return answerer_of(plain_description("huggingface", model), conversations, device)
    raise CheckpointError(
        f"{model}: is no model; expected a checkpoint folder that `gastrovl train` wrote, the folder of a Hugging Face "
        "model (config.json, *.safetensors), or a YAML that describes one (`configs/evaluate/models/` holds examples)"
    )


def load_predictor(folder: Path, device: str | None = None, manner: Manner | None = None) -> Predictor:
    """A checkpoint folder to what answers people: calibrated and checked as far as the folder and `manner` have it.

    Raises:
        CheckpointError, ConfigError: As `Predictor.load`.
    """
    from gastrovl.inference.predictor import Predictor

    manner = manner or Manner()
    return Predictor.load(
        folder,
        device,
        uses_head=manner.uses_head,
        looking=manner.looking,
        believes=not manner.is_raw,
        makes_checks=manner.makes_checks,
    )


def answerer_of(
    description: ModelDescription, conversations: Path, device: str | None = None, manner: Manner | None = None
) -> Answerer:
    """What a description describes, as `load_answerer`."""
    if description.kind == "checkpoint":
        return _checkpoint(description.folder(), device, description, manner)
    if manner:
        manner.looking.need_head(description.name, has_head=False)
    labels = label_names(description, conversations)
    if description.kind == "openai":
        from gastrovl.inference.others.served import Served

        return Served(description, labels)
    from gastrovl.inference.others.published import Published

    return Published(description, labels, device)


def _checkpoint(
    folder: Path,
    device: str | None,
    description: ModelDescription | None = None,
    manner: Manner | None = None,
) -> Answerer:
    from gastrovl.inference.belief.believing import load_believer
    from gastrovl.inference.predictor import Predictor

    manner, folder = manner or Manner(), checkpoint_folder(folder)
    predictor = Predictor.load(folder, device, uses_head=manner.uses_head, looking=manner.looking)
    believer = None
    if not manner.is_raw:
        believer = load_believer(folder, predictor.fingerprint, makes_checks=manner.makes_checks)
    return Ours(predictor, description, believer)
