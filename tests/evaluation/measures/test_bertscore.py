"""BERTScore by tiny random encoders, against the formula worked out pair by pair, and what is refused."""

from __future__ import annotations

import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gastrovl.core.errors import CheckpointError, ConfigError, MissingExtraError
from gastrovl.core.types import Task
from gastrovl.evaluation.evaluate import evaluate
from gastrovl.evaluation.measures.bertscore import BertScorer, measures, open_scorer
from gastrovl.evaluation.measures.measure import value
from gastrovl.evaluation.results import read_results

WORDS = ["gastric", "ulcer", "polyp", "in", "the", "antrum", "red", "small", "no", "mucosa", "normal", "with", "a", "."]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
PAIRS = [
    ("gastric ulcer in the antrum .", "a small polyp ."),
    ("no polyp", "no red polyp in the antrum . mucosa normal"),
    ("red", "small"),
    ("normal mucosa in the antrum", "the antrum with normal mucosa"),
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of three layers with random weights, 24 positions, in a folder."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("encoder") / "tiny-bert"
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    BertTokenizer(vocab={word: place for place, word in enumerate(vocabulary)}).save_pretrained(folder)
    torch.manual_seed(7)
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=24, initializer_range=0.3, **SHAPE)
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def scorer(encoder: Path) -> BertScorer:
    return open_scorer(encoder, 2)


def by_hand(scorer: BertScorer, reference: str, reply: str, weight_of: dict[int, float] | None = None) -> list[float]:
    """Zhang et al. 2020, section 3: greedy matching of every token with every other, in plain loops."""
    import torch

    sides = []
    for text in (reference, reply):
        ids = scorer.tokenizer.encode(text)
        with torch.no_grad():
            hidden = scorer.model(torch.tensor([ids])).last_hidden_state[0].double().numpy()
        weights = [1.0] * len(ids) if weight_of is None else [weight_of[token] for token in ids]
        weights[0] = weights[-1] = 0.0  # [CLS] and [SEP]
        sides.append(([vector / math.sqrt(float(vector @ vector)) for vector in hidden], weights))
    (stated, stated_weights), (replied, replied_weights) = sides

    def covered(vectors: list[np.ndarray], weights: list[float], others: list[np.ndarray]) -> float:
        best = [max(float(vector @ other) for other in others) for vector in vectors]
        return sum(w * b for w, b in zip(weights, best, strict=True)) / sum(weights)

    precision = covered(replied, replied_weights, stated)
    recall = covered(stated, stated_weights, replied)
    return [precision, recall, 2 * precision * recall / (precision + recall)]


def scores(scorer: BertScorer, *pairs: tuple[str | tuple[str, ...], str | None]) -> list[float | None]:
    references = [wanted if isinstance(wanted, tuple) else (wanted,) for wanted, _ in pairs]
    return [value(one) for one in measures(references, [reply for _, reply in pairs], scorer)]


@pytest.mark.parametrize(("reference", "reply"), PAIRS)
def test_a_pair_scores_as_the_formula_says(scorer, reference, reply):
    assert scores(scorer, (reference, reply)) == pytest.approx(by_hand(scorer, reference, reply), abs=1e-5)


def test_the_score_is_the_mean_over_conversations(encoder, scorer):
    together = scores(open_scorer(encoder, 2, batch_size=3), *PAIRS)
    assert together == pytest.approx(np.mean([by_hand(scorer, *pair) for pair in PAIRS], axis=0), abs=1e-5)


def test_rare_words_weigh_more_on_request(encoder):
    scorer = open_scorer(encoder, 3, idf=True)
    # "the" is in both references, "ulcer" and "polyp" in one each, "red" in none: log(3 / (references + 1))
    references = ("the ulcer", "the polyp")
    ids = {word: scorer.tokenizer.convert_tokens_to_ids(word) for word in WORDS}
    weights = dict.fromkeys(range(30), math.log(3 / 1))
    weights |= {ids["the"]: math.log(3 / 3), ids["ulcer"]: math.log(3 / 2), ids["polyp"]: math.log(3 / 2)}
    by_pair = [
        by_hand(scorer, references[0], "red ulcer", weights),
        by_hand(scorer, references[1], "the red polyp", weights),
    ]
    found = scores(scorer, (references[0], "red ulcer"), (references[1], "the red polyp"))
    assert found == pytest.approx(np.mean(by_pair, axis=0), abs=1e-5)


def test_equal_texts_score_one_and_no_text_scores_zero(scorer):
    assert scores(scorer, ("gastric ulcer", "gastric ulcer")) == pytest.approx([1, 1, 1], abs=1e-6)
    assert scores(scorer, ("gastric ulcer", None)) == [0, 0, 0]
    assert scores(scorer, ("gastric ulcer", "  ")) == [0, 0, 0]


def test_the_best_reference_counts_and_blank_ones_do_not(scorer):
    assert scores(scorer, (("no polyp", "red ulcer", " "), "red ulcer")) == pytest.approx([1, 1, 1], abs=1e-6)
    found = measures([(" ",), ("red",)], ["red", "red"], scorer)
    assert found[2].applies.tolist() == [False, True]
    assert scores(scorer, (" ", "red")) == [None, None, None]
    assert scores(scorer) == [None, None, None]


def test_a_pair_goes_through_the_model_once(encoder, monkeypatch):
    from bert_score import utils

    seen: list[list[str]] = []
    score = utils.bert_cos_score_idf

    def counted(model, references, *others, **options):
        seen.append(references)
        return score(model, references, *others, **options)

    monkeypatch.setattr(utils, "bert_cos_score_idf", counted)
    scorer = open_scorer(encoder)
    scores(scorer, PAIRS[0], PAIRS[0], PAIRS[1])
    scores(scorer, PAIRS[1], PAIRS[2])
    assert seen == [[PAIRS[0][0], PAIRS[1][0]], [PAIRS[2][0]]]


def test_a_text_longer_than_the_model_reads_is_cut(scorer):
    beginning = "red " * 22  # 24 positions, two of them for [CLS] and [SEP]
    assert scores(scorer, (beginning + "gastric ulcer", beginning + "polyp")) == pytest.approx([1, 1, 1], abs=1e-6)


def test_the_layer_decides_the_score_and_stands_in_the_signature(encoder):
    by_layer = {layer: open_scorer(encoder, layer) for layer in (1, 3)}
    assert scores(by_layer[1], PAIRS[0]) != pytest.approx(scores(by_layer[3], PAIRS[0]), abs=1e-3)
    last = open_scorer(encoder)
    assert last.signature == by_layer[3].signature
    assert last.signature.startswith("model:tiny-bert|layer:3|idf:no|rescaled:no|weights:")
    assert by_layer[1].signature == last.signature.replace("layer:3", "layer:1")
    assert scores(last, PAIRS[0]) == scores(by_layer[3], PAIRS[0])


def test_a_byte_level_encoder_reads_the_first_word_as_any_other_and_cuts_long_texts(tmp_path):
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    signs = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    vocab = {sign: place for place, sign in enumerate(signs)}
    RobertaTokenizer(vocab=vocab, merges=[]).save_pretrained(tmp_path)
    torch.manual_seed(7)
    RobertaModel(RobertaConfig(vocab_size=len(vocab), max_position_embeddings=20, **SHAPE)).save_pretrained(tmp_path)
    scorer = open_scorer(tmp_path)
    assert scorer.tokenizer.tokenize("red")[0] == "\u0120"  # the blank that stands before every word
    assert scorer.tokenizer.model_max_length == 18  # two positions are those of padding
    assert scores(scorer, ("red", "red " * 90))[2] is not None


def test_opening_says_nothing_of_the_layers_left_out(encoder, capfd):
    open_scorer(encoder, 1)
    said = capfd.readouterr()
    assert "encoder.layer" not in said.out + said.err


@pytest.mark.parametrize(("layer", "batch_size"), [(0, 8), (4, 8), (1, 0)])
def test_a_layer_or_batch_that_cannot_be_is_refused(encoder, layer, batch_size):
    with pytest.raises(ConfigError, match=r"expected 1 (to 3|or more)"):
        open_scorer(encoder, layer, batch_size=batch_size)


def test_a_name_of_a_hub_is_refused():
    with pytest.raises(CheckpointError, match="downloads none"):
        open_scorer(Path("roberta-large"))


def test_a_folder_without_safetensors_is_refused(encoder, tmp_path):
    (tmp_path / "config.json").write_bytes((encoder / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(CheckpointError, match=r"only pytorch_model\.bin; other formats can run code"):
        open_scorer(tmp_path)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        open_scorer(tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be read as a text encoder"):
        open_scorer(tmp_path)


def test_a_missing_library_names_its_extra(encoder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bert_score.utils", None)
    with pytest.raises(MissingExtraError, match=r"gastrovl\[bertscore\]"):
        open_scorer(encoder)


def test_threads_that_share_a_scorer_take_turns(encoder, monkeypatch):
    module = sys.modules[measures.__module__]
    inside, most = [], []

    def slow(_: BertScorer, pairs: list[tuple[str, str]], __: object) -> list[tuple[float, float, float]]:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return [(0.5, 0.5, 0.5)] * len(pairs)

    monkeypatch.setattr(module, "_scores", slow)
    shared = open_scorer(encoder)
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda place: value(measures([(f"red {place}",)], ["ulcer"], shared)[2]), range(4))
        assert list(found) == [0.5] * 4
    assert most == [1, 1, 1, 1]


def test_an_evaluation_scores_captions_and_baselines_by_the_model_and_keeps_its_signature(
    encoder, finished_run, reply_with, tmp_path
):
    conversations = finished_run / "data" / "test.jsonl"
    predictions = reply_with(conversations, tmp_path / "replies.jsonl", lambda one: one.answer)
    results = evaluate(
        predictions, conversations, tmp_path / "out", resamples=0, uses_images=False, by_facts=False,
        bertscore=encoder, bertscore_layer=2,
    )  # fmt: skip
    assert results.bertscore == open_scorer(encoder, 2).signature
    assert read_results(tmp_path / "out" / "results.json") == results
    own = {one.metric: one for one in results.scores if one.dataset == "all" and one.task is Task.CAP}
    assert list(own)[4:] == ["bertscore_precision", "bertscore_recall", "bertscore_f1"]  # and no facts
    assert own["bertscore_f1"].value == pytest.approx(1)
    assert own["bertscore_f1"].baseline is not None
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert f"<code>{results.bertscore}</code>" in page
    assert "--no-images --no-facts --bertscore tiny-bert --bertscore-layer 2 -o OUTPUT" in page


def test_a_layer_without_a_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="name its folder"):
        evaluate(tmp_path / "replies.jsonl", tmp_path / "test.jsonl", tmp_path / "out", bertscore_layer=2,
                 train=Path(__file__))  # fmt: skip
    assert not (tmp_path / "out").exists()
