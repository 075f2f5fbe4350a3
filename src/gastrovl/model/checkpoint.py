"""A checkpoint folder: safetensors, config, tokenizer, image processor and our own card of what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, LlavaConfig, LlavaProcessor

from gastrovl.core.boxcoding import BoxCodingConfig
from gastrovl.core.config import Config
from gastrovl.core.errors import CheckpointError
from gastrovl.core.files import write_text
from gastrovl.model.compose import compose
from gastrovl.model.config import GastroVLConfig, ModelConfig, part_hf_config
from gastrovl.model.fusion.second_tower import describe_second_tower
from gastrovl.model.gastrovl import GastroVLForConditionalGeneration
from gastrovl.model.locations import add_location_tokens, start_smoothly
from gastrovl.model.presets import resolve
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.model.published.processor import ForeignProcessor
from gastrovl.model.published.snapshot import load_snapshot, save_snapshot
from gastrovl.model.tokenizer import load_tokenizer
from gastrovl.model.vision import image_processor, tower_shape

VERSION = 1
CARD_NAME = "gastrovl.json"


class CheckpointCard(Config):
    """What a checkpoint is. `name` stands in every prediction; `version` is the layout's.

    Attributes:
        recognised: The terms whose presence and regions its perception head has learnt: ids, and names as learnt.
        locates: Whether its perception head has learnt to be asked in words.
        family: `model_type` of a Hugging Face model that was fine-tuned as it is; None for a composed one.
        box_coding: How boxes are written in its texts; left out of the file where they are written as in datasets.
    """

    version: int = VERSION
    name: str
    image_tokens: int
    image_size_px: int
    recognised: dict[str, str] = Field(default_factory=dict)
    locates: bool = False
    family: str | None = None
    box_coding: BoxCodingConfig = Field(default_factory=BoxCodingConfig)

    @model_serializer(mode="wrap")
    def _without_default_coding(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        said: dict[str, Any] = handler(self)
        return said if self.box_coding != BoxCodingConfig() else {k: v for k, v in said.items() if k != "box_coding"}


def build_model(
    config: ModelConfig, seed: int, *, only_shape: bool = False, least_words: int = 0
) -> tuple[GastroVLForConditionalGeneration, GastroVLProcessor]:
    """A model and its processor from a description; random parts are drawn from `seed`.

    Args:
        only_shape: Build it on torch's meta device: parts with a path are known by their config.json alone.
        least_words: Rows of the embedding, if the tokenizer has fewer.
    """
    if config.huggingface is not None:
        return load_snapshot(Path(config.huggingface), config.image_size_px)
    config = resolve(config)
    assert config.vision is not None
    assert config.language is not None
    assert config.connector is not None
    assert config.image_size_px is not None
    assert config.feature_layer is not None
    assert config.tokenizer is not None
    assert config.chat_template is not None
    tokenizer = load_tokenizer(config.tokenizer, config.chat_template)
    coding = config.box_coding or BoxCodingConfig()
    has_new_words = add_location_tokens(tokenizer, coding)
    pixels = image_processor(config.vision.path, part_hf_config(config.vision), config.image_size_px)
    second = None
    if config.vision_2:
        first = (pixels.image_mean, pixels.image_std)
        size_px = config.image_size_2_px or config.image_size_px
        second = describe_second_tower(config.vision_2, config.feature_layer_2, size_px, first)
    torch.manual_seed(seed)
    with torch.device("meta") if only_shape else nullcontext():
        model = compose(
            config.vision,
            config.language,
            config.connector,
            vocabulary=max(len(tokenizer), least_words),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            image_size_px=config.image_size_px,
            feature_layer=config.feature_layer,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            reads_weights=not only_shape,
            second=second,
            second_path=config.vision_2.path if config.vision_2 else None,
            perception=config.perception,
        )
    processor = _processor(model, tokenizer, pixels, coding)
    if has_new_words and not only_shape and processor.locations:
        start_smoothly(model, processor.locations)
    return model, processor


def checkpoint_shape(folder: Path) -> tuple[GastroVLForConditionalGeneration, GastroVLProcessor]:
    """The model of a checkpoint folder on torch's meta device, and its processor; no weights are read.

    Raises:
        CheckpointError: The folder is no checkpoint of ours, or a file of it cannot be read.
    """
    folder = Path(folder)
    card = read_card(folder)
    if card.family is not None:
        raise CheckpointError(f"{folder}: a fine-tuned {card.family} model, of which no estimate is made")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = GastroVLForConditionalGeneration(config)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        pixels = image_processor(str(folder), config.vision_config, card.image_size_px)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: cannot be read ({error}); copy or train the checkpoint again") from error
    return model, _processor(model, tokenizer, pixels, card.box_coding)


def save_checkpoint(
    folder: Path,
    model: GastroVLForConditionalGeneration,
    processor: GastroVLProcessor,
    name: str,
    *,
    recognised: Mapping[str, str] | None = None,
    locates: bool = False,
) -> None:
    """Write a whole model; with a linear or MLP connector the folder is a plain LLaVA checkpoint.

    A Hugging Face model becomes a snapshot of its own class again.
    """
    folder = Path(folder)
    card = CheckpointCard(
        name=name,
        image_tokens=processor.image_tokens,
        image_size_px=processor.image_size_px,
        recognised=dict(recognised or {}),
        locates=locates,
        box_coding=processor.coding.config,
    )
    if isinstance(processor, ForeignProcessor):
        save_snapshot(folder, model, processor)
        card = card.model_copy(update={"family": model.config.model_type})
        write_text(folder / CARD_NAME, card.model_dump_json(indent=2) + "\n")
        return
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(folder)
    if isinstance(model.config, GastroVLConfig):
        processor.tokenizer.save_pretrained(folder)
        processor.image_processor.save_pretrained(folder)
    else:
        _name_llava(folder)
        _llava_processor(model.config, processor).save_pretrained(folder)
    write_text(folder / CARD_NAME, card.model_dump_json(indent=2) + "\n")


def load_checkpoint(
    folder: Path, dtype: torch.dtype = torch.float32
) -> tuple[GastroVLForConditionalGeneration, GastroVLProcessor, CheckpointCard]:
    """Model (in evaluation mode), processor and card of a checkpoint folder.

    Raises:
        CheckpointError: A file is missing or broken, weights and config differ, or the layout is of another version.
    """
    folder = Path(folder)
    card = read_card(folder)
    if card.family is not None:
        return *load_snapshot(folder, card.image_size_px, dtype), card
    for needed in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / needed).is_file() and not (needed == "model.safetensors" and _is_sharded(folder)):
            raise CheckpointError(
                f"{folder / needed}: no such file; the checkpoint is incomplete, copy or train it again"
            )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if not isinstance(config, LlavaConfig):
            raise CheckpointError(
                f"{folder}: config.json has model_type {config.model_type!r}; expected llava or gastrovl"
            )
        model = _read_weights(folder, config, dtype)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        pixels = image_processor(str(folder), config.vision_config, card.image_size_px)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder}: cannot be read ({error}); copy or train the checkpoint again") from error
    return model.eval(), _processor(model, tokenizer, pixels, card.box_coding), card


def _processor(
    model: GastroVLForConditionalGeneration, tokenizer: Any, pixels: Any, coding: BoxCodingConfig
) -> GastroVLProcessor:
    """The processor of a model, which is told where its location tokens are."""
    has_regions = isinstance(model.config, GastroVLConfig) and model.config.region_tokens
    tokens = model.config.image_seq_length
    processor = GastroVLProcessor(tokenizer, pixels, tokens, has_regions=has_regions, coding=coding)
    model.locations = processor.locations
    return processor


def _read_weights(folder: Path, config: LlavaConfig, dtype: torch.dtype) -> GastroVLForConditionalGeneration:
    """The model with every weight of the folder; transformers would draw what is missing at random and go on."""
    try:
        model, report = GastroVLForConditionalGeneration.from_pretrained(
            folder, config=config, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except SafetensorError as error:
        raise CheckpointError(
            f"{folder}: the file model.safetensors is damaged ({error}); copy or train the checkpoint again"
        ) from error
    for kind, verb in (("missing_keys", "lack"), ("unexpected_keys", "hold more than the config says:")):
        if names := sorted(report[kind]):
            raise CheckpointError(
                f"{folder}: the weights {verb} {names[0]} and {len(names) - 1} more; "
                "config.json and weights are of different models, copy or train the checkpoint again"
            )
    model.model.arrange_tower()
    return model


def read_card(folder: Path) -> CheckpointCard:
    """What a checkpoint folder says it is.

    Raises:
        CheckpointError: It has no card, or one of another version.
    """
    path = folder / CARD_NAME
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a checkpoint folder written by `gastrovl train`")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.get("version")
        if found != VERSION:
            raise CheckpointError(
                f"{path}: checkpoint layout version {found!r}, this gastrovl reads version {VERSION}; "
                "use the gastrovl release that wrote it, or train again"
            )
        return CheckpointCard.model_validate(content)
    except (ValueError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: not a checkpoint card ({error}); copy or train the checkpoint again") from error


def _is_sharded(folder: Path) -> bool:
    return (folder / "model.safetensors.index.json").is_file()


def _name_llava(folder: Path) -> None:
    """Name plain LLaVA as the architecture, so that transformers, vLLM and SGLang pick their own class."""
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["architectures"] = ["LlavaForConditionalGeneration"]
    write_text(path, json.dumps(content, indent=2) + "\n")


def _llava_processor(config: LlavaConfig, processor: GastroVLProcessor) -> Any:
    shape = tower_shape(config.vision_config, processor.image_size_px)
    return LlavaProcessor(
        image_processor=processor.image_processor,
        tokenizer=processor.tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=processor.tokenizer.chat_template,
        num_additional_image_tokens=shape.prefix,
    )
