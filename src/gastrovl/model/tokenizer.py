"""Tokenizers: the shipped one, how it is trained, and the special tokens and chat template any other one is given."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerFast

from gastrovl.core.errors import ConfigError

IMAGE_TOKEN = "<image>"
SHIPPED = "gastrovl"
_PAD, _END = "<|pad|>", "<|end|>"
_SPECIAL = [_PAD, _END, "<|user|>", "<|assistant|>", IMAGE_TOKEN]
# What a chat template writes around turns. The first ends an answer, so generation has to stop there; a template that
# is not listed ends answers with the tokenizer's own end token.
_MARKS = {
    "gastrovl": [_END, "<|user|>", "<|assistant|>"],
    "chatml": ["<|im_end|>", "<|im_start|>"],
    "llama3": ["<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"],
}


def train_tokenizer(texts: Iterable[str], vocabulary: int = 2048) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer (Sennrich et al. 2016) of a domain corpus; every digit is a token of its own.

    Digits stand alone so that the 1000 box bins share ten tokens and neighbouring bins share their leading digits.
    Bytes the corpus lacks remain encodable.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=_SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END)
    wrapped.add_special_tokens({"additional_special_tokens": _SPECIAL[2:]})
    return wrapped


def load_tokenizer(name: str, chat_template: str) -> Any:
    """The shipped tokenizer (`gastrovl`) or one in a local folder, made ready for a chat template.

    Image token, padding token and the template's own marks are single tokens afterwards, and the end token is the mark
    that ends an answer: a model that is taught one mark and waits for another never stops.

    Raises:
        ConfigError: There is no such folder or template, or the template needs an end token the tokenizer lacks.
    """
    folder = shipped_tokenizer_folder() if name == SHIPPED else Path(name)
    if not folder.is_dir():
        raise ConfigError(
            f"tokenizer {name!r}: no such folder; give {SHIPPED!r} or a local Hugging Face tokenizer folder"
        )
    template, marks = read_chat_template(chat_template), _MARKS.get(chat_template, [])
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"tokenizer {name!r}: the folder holds no Hugging Face tokenizer ({error})") from error
    if new := [AddedToken(word, special=True) for word in [IMAGE_TOKEN, *marks] if word not in tokenizer.get_vocab()]:
        tokenizer.add_tokens(new, special_tokens=True)
    if marks:
        tokenizer.eos_token = marks[0]
    if tokenizer.eos_token is None:
        raise ConfigError(
            f"tokenizer {name!r} has no end token, which chat_template {chat_template!r} ends answers with; "
            f"take one of {', '.join(_MARKS)}, which bring their own"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = template
    return tokenizer


def shipped_tokenizer_folder() -> Path:
    """Where the package keeps the tokenizer trained on its own corpus."""
    return Path(str(resources.files("gastrovl.model") / "nano_tokenizer"))


def read_chat_template(name: str) -> str:
    """A Jinja chat template by name; each marks the assistant's words with `generation`.

    Raises:
        ConfigError: There is no template of that name.
    """
    folder = resources.files("gastrovl.model") / "chat_templates"
    path = folder / f"{name}.jinja"
    if not path.is_file():
        known = sorted(entry.name.removesuffix(".jinja") for entry in folder.iterdir())
        raise ConfigError(f"chat_template {name!r} does not exist; known: {', '.join(known)}")
    return path.read_text(encoding="utf-8")
