"""Folds of a cross-validation: what may be put together, and what is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from gastrovl.core.errors import ConfigError, PredictionError, RecordError
from gastrovl.core.files import sha256_file
from gastrovl.core.records import write_records
from gastrovl.core.types import Conversation
from gastrovl.inference.belief.pooling import Fold, check_apart, check_recipe, hash_of, is_held_out, paired


def asked(path, *groups):
    """Conversations of one question for each group."""
    turns = [{"role": "user", "text": "What is it?"}, {"role": "assistant", "text": "polyp"}]
    told = {"task": "CLS", "source": "s", "split": "test", "turns": turns, "target": {"terms": ["polyp_unspecified"]}}
    image = {"path": "a.png", "width_px": 8, "height_px": 8, "sha256": "0" * 64}
    records = [{**told, "id": f"{one}#0", "sample_id": one, "group": one, "image": image} for one in groups]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_records(path, [Conversation.model_validate(one) for one in records])
    return path


def checkpoint(folder, train):
    """What training writes about its data."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"train": str(train)}), encoding="utf-8")
    facts = {"data": [{"file": train.name, "sha256": sha256_file(train)}]}
    (folder / "training.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def test_a_fold_has_predictions_conversations_and_a_checkpoint(tmp_path):
    one, two = tmp_path / "1", tmp_path / "2"

    assert paired([one], [two], []) == [Fold(one, two)]
    assert paired([one, two], [two, one], [one, two]) == [Fold(one, two, one), Fold(two, one, two)]
    for files in (([one, two], [one, two], []), ([one, two], [one], [one, two])):
        with pytest.raises(ConfigError, match="as many of each"):
            paired(*files)


def test_folds_that_share_a_question_are_refused(tmp_path):
    first, second = asked(tmp_path / "1.jsonl", "a", "b"), asked(tmp_path / "2.jsonl", "b", "c")

    check_apart([Fold(tmp_path, first), Fold(tmp_path, asked(tmp_path / "3.jsonl", "c"))])
    with pytest.raises(PredictionError, match=r"1 of its questions stand in an earlier fold, too, e.g. 'b#0'"):
        check_apart([Fold(tmp_path, first), Fold(tmp_path, second)])


def test_a_checkpoint_that_saw_a_group_is_refused(tmp_path):
    train = asked(tmp_path / "data" / "train.jsonl", "a", "b")
    test, seen = asked(tmp_path / "data" / "test.jsonl", "c"), asked(tmp_path / "data" / "seen.jsonl", "b", "c")
    model = checkpoint(tmp_path / "model", train)

    assert is_held_out(Fold(tmp_path, test, model)) is True
    with pytest.raises(
        ConfigError, match=r"was trained on 1 of the 2 groups .* e.g. 'b'; expected a fold that it never"
    ):
        is_held_out(Fold(tmp_path, seen, model))


def test_what_cannot_be_known_is_not_claimed(tmp_path):
    train, test = asked(tmp_path / "data" / "train.jsonl", "a"), asked(tmp_path / "data" / "test.jsonl", "a")
    model = checkpoint(tmp_path / "model", train)

    asked(train, "b")  # built anew since: the hash is another
    assert is_held_out(Fold(tmp_path, test, model)) is None
    assert is_held_out(Fold(tmp_path, test)) is None
    (model / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(RecordError, match=r"run.json: cannot be read"):
        is_held_out(Fold(tmp_path, test, model))


def test_models_of_another_recipe_are_refused(tmp_path):
    def model(side, words):
        card = SimpleNamespace(image_size_px=side, recognised={"polyp_unspecified": "polyp"}, locates=True, family=None)
        return SimpleNamespace(card=card, words=words)

    check_recipe(model(160, None), model(160, None), tmp_path)
    with pytest.raises(
        ConfigError, match=r"differs .* in image_size_px, perception head; expected models of one recipe"
    ):
        check_recipe(model(160, None), model(224, object()), tmp_path)


def test_the_hash_of_folds_knows_their_order(tmp_path):
    first, second = asked(tmp_path / "1.jsonl", "a"), asked(tmp_path / "2.jsonl", "b")

    assert hash_of([first]) == sha256_file(first)
    assert hash_of([first, second]) != hash_of([second, first])
