"""A resumed run learns from the same words, with the same tokenizer, or not at all."""

from __future__ import annotations

import shutil

import pytest
from transformers import AutoTokenizer

from gastrovl.core.errors import ChangedInputError, TokenizerError
from gastrovl.model.checkpoint import build_model
from gastrovl.model.config import PartConfig
from gastrovl.model.tokenizer import train_tokenizer
from gastrovl.training import train as train_module
from gastrovl.training.config import TrainConfig
from gastrovl.training.inputs import check_tokenizer
from gastrovl.training.train import train

STAGE = {"name": "align", "tasks": ["CAP"], "trains": ["projector"], "learning_rate": 1e-3, "steps": 1}


@pytest.fixture
def begun(tiny_data, tiny_model, tiny_tokenizer, tmp_path, monkeypatch):
    """Config and folder of a run that died at its end, with a tokenizer of its own."""
    shutil.copytree(tiny_tokenizer, tmp_path / "words")
    config = TrainConfig.model_validate(
        {"name": "tiny", "model": tiny_model(tokenizer=str(tmp_path / "words")), "stages": [STAGE]}
        | {"train": str(tiny_data(images=2))}
    )

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "write_manifest", die)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run", show_bar=False, say=str)
    return config, tmp_path / "run"


def resume(config, output):
    return train(config, output, resume=True, show_bar=False, say=str)


def test_a_conversation_file_that_changed_is_refused_and_the_old_one_accepted(begun, tmp_path):
    config, output = begun
    file = tmp_path / "data" / "train.jsonl"
    content = file.read_text(encoding="utf-8")
    file.write_text(content.replace("Describe the image.", "Tell what you see."), encoding="utf-8")

    with pytest.raises(ChangedInputError, match=r"train\.jsonl: has changed since the run in .* Put the file back"):
        resume(config, output)
    file.write_text(content, encoding="utf-8")
    resume(config, output)

    assert (output / "manifest.json").is_file()


def test_a_tokenizer_that_changed_is_refused_with_both_sizes(begun, tmp_path):
    config, output = begun
    before = len(AutoTokenizer.from_pretrained(tmp_path / "words", local_files_only=True))
    other = train_tokenizer(["quite other words"] * 9, 300)
    other.save_pretrained(tmp_path / "words")

    with pytest.raises(TokenizerError, match=f"{before} tokens then, {len(other)} now"):
        resume(config, output)


def test_ids_beyond_the_embedding_are_refused_with_both_sizes(tiny_model):
    model, processor = build_model(tiny_model(), seed=1)
    config = TrainConfig.model_validate({"name": "tiny", "model": tiny_model(), "stages": [STAGE]})
    rows = model.get_input_embeddings().num_embeddings
    processor.tokenizer.add_tokens(["never seen"])

    with pytest.raises(TokenizerError, match=f"ids up to {rows}, the model's embedding {rows} rows"):
        check_tokenizer(model, processor.tokenizer, config)


def test_special_tokens_with_other_ids_are_refused(tiny_model):
    model, processor = build_model(tiny_model(), seed=1)
    config = TrainConfig.model_validate({"name": "tiny", "model": tiny_model(), "stages": [STAGE]})
    wanted = processor.tokenizer.eos_token_id
    processor.tokenizer.eos_token = "<|user|>"

    with pytest.raises(TokenizerError, match=rf"'<\|user\|>' as id \d+, the model .* expects id {wanted}"):
        check_tokenizer(model, processor.tokenizer, config)


def test_start_from_refuses_another_tokenizer_beside_it(learnt, tiny_model, tiny_data, tmp_path):
    other = train_tokenizer(["quite other words"] * 9, 300)
    other.save_pretrained(tmp_path / "other")
    config = TrainConfig.model_validate(
        {"name": "tiny", "model": tiny_model(tokenizer=str(tmp_path / "other")), "start_from": str(learnt[0])}
        | {"stages": [STAGE], "train": str(tiny_data(images=2))}
    )

    with pytest.raises(TokenizerError, match=rf"other' has {len(other)} tokens, the checkpoint's own \d+"):
        train(config, tmp_path / "run", show_bar=False, say=str)
    assert not (tmp_path / "run").exists()


def test_a_language_model_refuses_the_tokenizer_of_another(tiny_model, tiny_tokenizer, tmp_path):
    other = train_tokenizer(["quite other words"] * 9, 300)
    other.save_pretrained(tmp_path / "language")
    model, processor = build_model(tiny_model(), seed=1)
    described = tiny_model(tokenizer=str(tiny_tokenizer), language=PartConfig(path=str(tmp_path / "language")))
    config = TrainConfig.model_validate({"name": "tiny", "model": described, "stages": [STAGE]})

    with pytest.raises(TokenizerError, match=rf"that of .*language {len(other)}, and .* Leave model\.tokenizer out"):
        check_tokenizer(model, processor.tokenizer, config)
