"""What a run was begun with, written down at its start, so that a resumed run learns from the same words or not at "
"all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from gastrovl.core.boxcoding import BoxCodingConfig
from gastrovl.core.errors import ChangedInputError, ConfigError, TokenizerError
from gastrovl.core.files import write_text
from gastrovl.model import adapters
from gastrovl.model.locations import LocationTokens, add_location_tokens
from gastrovl.model.presets import resolve
from gastrovl.model.tokenizer import IMAGE_TOKEN, load_tokenizer
from gastrovl.training.config import TrainConfig
from gastrovl.training.runfolder import input_hashes

NAME = "inputs.json"


def begin_or_check_inputs(output: Path, config: TrainConfig, tokenizer: Any) -> None:
    """Note the hashes of conversations and tokenizer of a run that begins; compare them when it goes on.

    Raises:
        ChangedInputError: A conversation file is another than at the start.
        TokenizerError: The tokenizer is another than at the start.
    """
    path = output / "stages" / NAME
    now: dict[str, Any] = {
        "conversations": input_hashes(config),
        "tokenizer": tokenizer_hash(tokenizer),
        "tokens": len(tokenizer),
    }
    if not path.is_file():
        write_text(path, json.dumps(now, indent=2) + "\n")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    for file, found in now["conversations"].items():
        if found != before["conversations"].get(file):
            raise ChangedInputError(
                f"{file}: has changed since the run in {output} began (SHA-256 then "
                f"{str(before['conversations'].get(file))[:12]}, now {found[:12]}); its steps would mix two data sets. "
                "Put the file back as it was and pass --resume, or begin a new run in another -o"
            )
    if now["tokenizer"] != before["tokenizer"]:
        raise TokenizerError(
            f"the tokenizer has changed since the run in {output} began: {before['tokens']:,} tokens then, "
            f"{now['tokens']:,} now, or the same number with other words; the weights learnt the ids of the first. "
            "Put its "
            "folder back as it was and pass --resume, or begin a new run in another -o"
        )


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256 of every token with its id, and of the special ones."""
    words = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    special = sorted((name, str(value)) for name, value in tokenizer.special_tokens_map.items())
    return hashlib.sha256(json.dumps([words, special]).encode()).hexdigest()


def check_tokenizer(model: Any, tokenizer: Any, config: TrainConfig) -> None:
    """Refuse a tokenizer whose ids mean other words to the model's weights, or nothing.

    Raises:
        TokenizerError: Its ids exceed the embedding; image or end token have other ids than the model's config says; or
            the config names another tokenizer than the weights were made for.
    """
    if config.model.huggingface is not None:
        return  # its loader has compared them
    where = f"start_from {config.start_from}" if config.start_from else f"model of {config.name}"
    inner = adapters.inner(model)
    rows, tokens = inner.get_input_embeddings().num_embeddings, max(tokenizer.get_vocab().values()) + 1
    if tokens > rows:
        raise TokenizerError(
            f"{where}: the tokenizer has ids up to {tokens - 1:,}, the model's embedding {rows:,} rows; they are of "
            "different models. Take the tokenizer that came with the weights"
        )
    expected = {IMAGE_TOKEN: inner.config.image_token_id}
    if isinstance(end := inner.config.text_config.eos_token_id, int):
        expected[str(tokenizer.eos_token)] = end
    for word, wanted in expected.items():
        if (found := tokenizer.convert_tokens_to_ids(word)) != wanted:
            raise TokenizerError(
                f"{where}: the tokenizer ({tokens:,} tokens) has {word!r} as id {found}, the model ({rows:,} rows) "
                "expects "
                f"id {wanted}; they are of different models. Take the tokenizer that came with the weights"
            )
    _check_named(tokenizer, config, where, inner.locations)


def _check_named(tokenizer: Any, config: TrainConfig, where: str, locations: LocationTokens | None) -> None:
    """Compare with the tokenizer that the weights bring, where the config names one beside it."""
    said = config.model.tokenizer
    if said is None:
        return
    described = resolve(config.model)
    if config.start_from:
        assert described.chat_template is not None
        named = load_tokenizer(said, described.chat_template)
        if locations is not None:  # a run adds them itself
            add_location_tokens(named, BoxCodingConfig(kind="tokens", bins=locations.count))
        _compare(named.get_vocab(), tokenizer.get_vocab(), f"{where}: model.tokenizer {said!r}", "the checkpoint's own")
    elif described.language is not None and described.language.path is not None:
        folder = Path(described.language.path)
        if not (folder / "tokenizer.json").is_file():
            return
        try:
            own = AutoTokenizer.from_pretrained(folder, local_files_only=True).get_vocab()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{folder}: its tokenizer cannot be read ({error}); copy the folder again") from error
        _compare(tokenizer.get_vocab(), own, f"{where}: model.tokenizer {said!r}", f"that of {folder}")


def _compare(named: dict[str, int], own: dict[str, int], what: str, whose: str) -> None:
    """Every word of the tokenizer that came with the weights must have the same id in the one that is named."""
    other = next((word for word, number in own.items() if named.get(word) != number), None)
    if other is not None:
        raise TokenizerError(
            f"{what} has {len(named):,} tokens, {whose} {len(own):,}, and {other!r} is id {named.get(other)} in the "
            "one and "
            f"{own[other]} in the other; the weights would read other words. Leave model.tokenizer out, or name the "
            "folder "
            "that came with the weights"
        )
