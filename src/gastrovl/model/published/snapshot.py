"""A local snapshot folder of a Hugging Face vision-language model to a model and processor, and back to a snapshot."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from gastrovl.core.errors import CheckpointError
from gastrovl.core.files import write_text
from gastrovl.model.published.answering import answering_class
from gastrovl.model.published.families import FAMILIES, Family, Preparation
from gastrovl.model.published.processor import ForeignProcessor

_NEEDED = "expected a local snapshot folder with config.json, *.safetensors, tokenizer and processor files"
_PROCESSOR_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template.*",
    "*processor_config.json",
)
_READ_AS_CODE = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")


def load_snapshot(
    folder: Path, image_size_px: int | None = None, dtype: torch.dtype = torch.float32
) -> tuple[Any, ForeignProcessor]:
    """Model (in evaluation mode) and processor of a snapshot: local files, safetensors, no code of the folder.

    Args:
        image_size_px: Side of the square that images are squashed to, where the family leaves a choice (Qwen-VL).

    Raises:
        CheckpointError: The folder is incomplete, of a family we do not know, wants code of its own, or its weights,
            tokenizer and template are of different models.
        ConfigError: The family cannot see images of that size.
    """
    folder = Path(folder)
    config = _read_config(folder)
    family = FAMILIES[config.model_type]
    shown = family.shown(config, image_size_px)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder}: the tokenizer cannot be read ({error}); {_NEEDED}") from error
    _check_words(folder, config, tokenizer)
    processor = ForeignProcessor(folder, family, config, tokenizer, _preparation(folder, family), shown)
    model = _read_weights(folder, config, dtype)
    embeddings = model.get_input_embeddings().num_embeddings
    if (most := max(tokenizer.get_vocab().values())) >= embeddings and most != config.image_token_id:
        raise CheckpointError(
            f"{folder}: the tokenizer has token {most}, the model embeds {embeddings} only; copy the tokenizer files "
            "that belong to the model"
        )
    return model.eval(), processor


def save_snapshot(folder: Path, model: Any, processor: ForeignProcessor) -> None:
    """Write a snapshot of the family's own class; its processor is told to squash images to the trained square."""
    folder = Path(folder)
    known = model.generation_config.eos_token_id
    ends = known if isinstance(known, list) else [] if known is None else [known]
    if processor.tokenizer.eos_token_id not in ends:  # plain `generate` would run on
        model.generation_config.eos_token_id = [processor.tokenizer.eos_token_id, *ends]
    model.save_pretrained(folder)
    for pattern in _PROCESSOR_FILES:
        for source in sorted(processor.folder.glob(pattern)):
            if source.is_file() and source.parent != folder:
                shutil.copyfile(source, folder / source.name)
    side = processor.image_size_px
    if processor.family.layout == "patches":  # this one keeps an image's aspect ratio whatever it is told
        size = {"shortest_edge": side * side, "longest_edge": side * side}
        settings: dict[str, Any] = {"size": size, "min_pixels": side * side, "max_pixels": side * side}
    else:
        settings = {"size": {"height": side, "width": side}, **processor.family.settings}
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            part = content.get("image_processor") if name == "processor_config.json" else content
            if isinstance(part, dict):
                part.update(settings)
                write_text(path, json.dumps(content, indent=2) + "\n")


def _read_config(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: has no config.json; {_NEEDED}")
    for name in _READ_AS_CODE:
        if (folder / name).is_file() and "auto_map" in _json(folder / name):
            raise CheckpointError(
                f"{folder / name}: asks for code of its own (auto_map), and code from a folder is never run; take a "
                "conversion of the model to a class of transformers (often named -hf)"
            )
    kind = _json(folder / "config.json").get("model_type")
    if kind not in FAMILIES:
        raise CheckpointError(
            f"{folder}: config.json has model_type {kind!r}; families that can be fine-tuned: {', '.join(FAMILIES)}"
        )
    if not any(folder.glob("*.safetensors")):
        others = sorted(path.name for pattern in ("*.bin", "*.pth", "*.pt") for path in folder.glob(pattern))
        found = f"only {others[0]}, which can hold code" if others else "none"
        raise CheckpointError(f"{folder}: has no weights as safetensors (found {found}); {_NEEDED}")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: cannot be read ({error}); {_NEEDED}") from error
    own = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)].__name__
    if (said := config.architectures or [own]) != [own]:
        raise CheckpointError(
            f"{folder}: config.json names the architecture {said[0]}; expected {own}, take a conversion of the model "
            "to that class (often named -hf)"
        )
    return config


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: is not JSON ({error}); {_NEEDED}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds {type(content).__name__}, expected an object; {_NEEDED}")
    return content


def _check_words(folder: Path, config: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer that lacks a token the config counts on."""
    known = set(tokenizer.get_vocab().values())
    for name in ("image_token_id", "boi_token_index", "eoi_token_index"):
        token = getattr(config, name, None)
        if token is not None and token not in known:
            raise CheckpointError(
                f"{folder}: config.json has {name} {token}, which the tokenizer lacks; copy the tokenizer files that "
                "belong to the model"
            )


def _preparation(folder: Path, family: Family) -> Preparation:
    """How the snapshot says that images are prepared."""
    files = [folder / "processor_config.json", folder / "preprocessor_config.json"]
    parts = [_json(path) for path in files if path.is_file()]
    parts = [part.get("image_processor", part) for part in parts]
    said = {name: value for part in parts for name, value in part.items() if value is not None}
    if not any("image_processor_type" in part for part in parts):
        raise CheckpointError(f"{folder}: no file describes its image processor; {_NEEDED}")
    if not (said.get("do_rescale", True) and said.get("do_normalize", True)) or said.get("offset"):
        raise CheckpointError(f"{folder}: its image processor leaves pixels unscaled, which is not done here")
    if abs(said.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise CheckpointError(f"{folder}: its image processor scales by {said['rescale_factor']:g}, expected 1/255")
    known = {field.name for field in fields(Preparation)} & said.keys()
    return replace(family.prepared, **{name: said[name] for name in known})


def _read_weights(folder: Path, config: Any, dtype: torch.dtype) -> Any:
    """The model with every weight of the folder; transformers would draw what is missing at random and go on."""
    model_class = answering_class(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)])
    try:
        model, report = model_class.from_pretrained(
            folder, config=config, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: the weights cannot be read ({error}); {_NEEDED}") from error
    if names := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"{folder}: the weights lack {names[0]} and {len(names) - 1} more; config.json and weights are of "
            "different models"
        )
    return model
