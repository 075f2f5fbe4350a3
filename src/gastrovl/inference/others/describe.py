"""A local folder of a vision-language model in the Hugging Face layout to a function from image and prompt to words."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from gastrovl.core.errors import CheckpointError
from gastrovl.inference.others.stillprocessor import CLASSES, StillProcessor
from gastrovl.inference.predictor import pick_device

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Describer:
    """Greedy replies of one model, one image at a time; call it with an RGB image (or None) and a prompt.

    Attributes:
        name: The folder's name and a hash of its config and weights' sizes, so that another model has another name.
    """

    name: str
    model: Any
    processor: Any
    most_tokens: int

    @torch.inference_mode()
    def __call__(self, image: Image.Image | None, prompt: str) -> str:
        """What the model says; a reply that runs into the limit ends at its last whole sentence."""
        shown = [] if image is None else [{"type": "image", "image": image}]
        said = [{"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}]
        inputs = self.processor.apply_chat_template(
            said, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        inputs = inputs.to(self.model.device, dtype=self.model.dtype)
        length = inputs["input_ids"].shape[1]
        generated = self.model.generate(**inputs, max_new_tokens=self.most_tokens, do_sample=False, num_beams=1)
        reply = str(self.processor.decode(generated[0, length:], skip_special_tokens=True)).strip()
        is_cut = generated.shape[1] - length >= self.most_tokens
        return whole_sentences(reply) if is_cut else reply


def load_describer(
    folder: Path, *, device: str | None = None, dtype: str = "auto", most_tokens: int = 256
) -> Describer:
    """Load a model and its processor from a local folder: safetensors only, no code of the folder, no network.

    Args:
        device: "cpu" or "cuda"; the best there is when left out.
        dtype: "float32", "bfloat16", "float16", or "auto" for what the folder says.

    Raises:
        CheckpointError: The folder is missing, incomplete, of a kind that transformers does not know, or has no chat
            template.
        ConfigError: There is no such device.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: has no config.json; expected the local folder of a vision-language model")
    chosen = pick_device(device)
    try:
        processor = _load_processor(folder)
        model = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=_DTYPES.get(dtype, dtype)
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise CheckpointError(
            f"{folder}: cannot be loaded as an image-text-to-text model ({error}); expected config, processor, "
            "tokenizer and safetensors weights of a kind that the installed transformers knows"
        ) from error
    if getattr(processor, "chat_template", None) is None:
        raise CheckpointError(f"{folder}: its processor has no chat template; add chat_template.jinja to the folder")
    return Describer(f"{folder.name}@{_fingerprint(folder)}", model.eval().to(chosen), processor, most_tokens)


def whole_sentences(text: str) -> str:
    """The text up to its last full stop; the text itself when there is none."""
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s|$)", text)]
    return text[: ends[-1]] if ends else text


def _load_processor(folder: Path) -> Any:
    """The processor with image code that needs no torchvision."""
    try:
        return AutoProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    except ImportError:
        if not _is_of_qwen(folder):
            raise
    return StillProcessor(folder, _chat_template(folder))


def _is_of_qwen(folder: Path) -> bool:
    paths = [folder / name for name in ("processor_config.json", "preprocessor_config.json")]
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.is_file()]
    return any(content.get("processor_class") in CLASSES for content in contents)


def _chat_template(folder: Path) -> str | None:
    """The chat template in a file of its own, or None."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if (folder / "chat_template.json").is_file():
        content = json.loads((folder / "chat_template.json").read_text(encoding="utf-8"))
        return str(content["chat_template"]) if "chat_template" in content else None
    return None


def _fingerprint(folder: Path) -> str:
    """Twelve letters that change with the config, or with the name or size of a weight file."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = sorted((path.name, path.stat().st_size) for path in folder.glob("*.safetensors"))
    return hashlib.sha256(json.dumps([config, weights], sort_keys=True).encode()).hexdigest()[:12]
