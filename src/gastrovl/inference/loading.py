"""A checkpoint folder, a snapshot folder or a model description to whatever answers conversations."""

from __future__ import annotations

from pathlib import Path

from gastrovl.core.config import load_config
from gastrovl.core.errors import CheckpointError
from gastrovl.inference.batch import Answerer, Ours
from gastrovl.inference.description import ModelDescription, label_names, plain_description

CARD = "gastrovl.json"  # of a checkpoint of ours, see model.checkpoint; named here so that a server needs no PyTorch


def load_answerer(
    model: Path,
    conversations: Path,
    device: str | None = None,
    *,
    uses_head: bool = True,
    is_raw: bool = False,
    makes_checks: bool = False,
) -> Answerer:
    """What answers the conversations of a file.

    Args:
        model: A checkpoint folder of ours, a snapshot folder of a Hugging Face model, or the YAML that describes one.
        conversations: The file that will be asked; train.jsonl beside it may give the names of labels.
        device: cpu or cuda, of a model that runs here; the best there is when left out.
        uses_head: Let a checkpoint's perception head answer what it has learnt; else the language model writes all.
        is_raw: Leave confidences as they are, also where the checkpoint has a calibration.
        makes_checks: Ask a calibrated checkpoint the other way round, too, and let disagreement lower confidences.

    Raises:
        CheckpointError: There is no such model, or it cannot be loaded.
        ConfigError: The description is wrong, or a variable it names is not set.
    """
    model = Path(model)
    if model.is_file():
        described = load_config(model, ModelDescription)
        return answerer_of(described, conversations, device, is_raw=is_raw, makes_checks=makes_checks)
    if (model / CARD).is_file():
        return _checkpoint(model, device, uses_head=uses_head, is_raw=is_raw, makes_checks=makes_checks)
    if (model / "config.json").is_file():
        return answerer_of(plain_description("huggingface", model), conversations, device)
    raise CheckpointError(
        f"{model}: is no model; expected a checkpoint folder that `gastrovl train` wrote, the folder of a Hugging Face "
        "model (config.json, *.safetensors), or a YAML that describes one (`configs/evaluate/models/` holds examples)"
    )


def answerer_of(
    description: ModelDescription,
    conversations: Path,
    device: str | None = None,
    *,
    is_raw: bool = False,
    makes_checks: bool = False,
) -> Answerer:
    """What a description describes, as `load_answerer`."""
    if description.kind == "checkpoint":
        return _checkpoint(description.folder(), device, description, is_raw=is_raw, makes_checks=makes_checks)
    labels = label_names(description, conversations)
    if description.kind == "openai":
        from gastrovl.inference.served import Served

        return Served(description, labels)
    from gastrovl.inference.published import Published

    return Published(description, labels, device)


def _checkpoint(
    folder: Path,
    device: str | None = None,
    description: ModelDescription | None = None,
    *,
    uses_head: bool = True,
    is_raw: bool = False,
    makes_checks: bool = False,
) -> Answerer:
    from gastrovl.inference.believing import load_believer
    from gastrovl.inference.predictor import Predictor

    predictor = Predictor.load(folder, device, uses_head=uses_head)
    believer = None if is_raw else load_believer(folder, predictor.fingerprint, makes_checks=makes_checks)
    return Ours(predictor, description, believer)
