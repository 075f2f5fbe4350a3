"""Location tokens are decoded as numbers: means between bins, whole boxes, corners in order; replies read as always."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from gastrovl.core import geometry
from gastrovl.core.boxcoding import BoxCodingConfig
from gastrovl.core.boxtext import decode_box, decode_boxes
from gastrovl.core.errors import BoxTextError, ConfigError
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Task
from gastrovl.inference.batch import answer_batch
from gastrovl.inference.decoding.boxlocations import BoxLocations
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.model.checkpoint import build_model, load_checkpoint
from gastrovl.model.config import LoraConfig
from gastrovl.model.locations import LocationTokens
from gastrovl.training.config import TrainConfig
from gastrovl.training.start import start_model
from gastrovl.training.train import train

BINS, FIRST, VOCABULARY = 64, 10, 80
WORD, END = 3, 1


def scores_of(*rows):
    """Scores whose softmax over bins is as given, `{bin: share}`; an int is another token that is certain."""
    scores = torch.full((len(rows), VOCABULARY), -50.0)
    for row, said in enumerate(rows):
        if isinstance(said, int):
            scores[row, said] = 5.0
        else:
            for number, share in said.items():
                scores[row, FIRST + number] = torch.tensor(share).log()
    return scores


def chosen(chooser, ids, scores):
    return (chooser(torch.tensor(ids), scores).argmax(dim=-1) - FIRST).tolist()


@pytest.fixture
def chooser():
    return BoxLocations(LocationTokens(first=FIRST, count=BINS, sigma=2.0))


def test_a_location_is_the_mean_over_all_bins(chooser):
    ids = [[WORD, WORD]]

    # 0.75 x 20 + 0.25 x 23 = 20.75: the token is 21, which the model did not even name
    assert chosen(chooser, ids, scores_of({20: 0.75, 23: 0.25})) == [21]
    assert chooser.of_reply(0, 1) == pytest.approx([20.75])


def test_a_median_or_the_likeliest_bin_may_be_read_instead():
    locations = LocationTokens(first=FIRST, count=BINS, sigma=2.0)
    # half lies before two thirds of bin 21: 20.5 + (0.5 - 0.3) / 0.3 = 21.17
    scores, ids = scores_of({20: 0.3, 21: 0.3, 60: 0.4}), [[WORD, WORD]]
    for reading, place in (("mean", 36.3), ("median", 20.5 + 2 / 3), ("likeliest", 60.0)):
        chooser = BoxLocations(locations, reading)

        assert chosen(chooser, ids, scores) == [round(place)]
        assert chooser.of_reply(0, 1) == pytest.approx([place])


def test_other_words_are_left_alone(chooser):
    scores = scores_of(WORD, END)

    assert chooser(torch.tensor([[WORD, WORD]] * 2), scores) is scores
    assert chooser.of_reply(0, 1) == []


def test_the_second_corner_lies_behind_the_first_even_if_the_model_says_otherwise(chooser):
    one, two = FIRST + 30, FIRST + 50

    # behind x0 = 30 only 31 and 40 are left, a third and two thirds: 37
    assert chosen(chooser, [[WORD, one, two]], scores_of({5: 0.7, 31: 0.1, 40: 0.2})) == [37]
    # behind y0 = 50 nothing was said at all: the scores of all bins there are alike
    assert chosen(chooser, [[WORD, one, two, FIRST + 40]], scores_of({5: 1.0})) == [57]
    assert chooser.of_reply(0, 2) == pytest.approx([37.0, 57.0])


def test_the_first_corner_leaves_room_for_the_second(chooser):
    assert chosen(chooser, [[WORD, WORD]], scores_of({63: 0.9, 61: 0.1})) == [61]
    assert chosen(chooser, [[WORD, FIRST + 62, FIRST + 62]], scores_of({0: 1.0})) == [63]


def test_a_box_that_was_begun_is_ended_and_one_that_is_whole_is_left(chooser):
    half, whole = [WORD, WORD, FIRST + 1, FIRST + 2], [FIRST + 1, FIRST + 2, FIRST + 3, FIRST + 4]

    changed = chooser(torch.tensor([half, whole]), scores_of(END, END))

    assert FIRST < int(changed[0].argmax()) < FIRST + BINS
    assert int(changed[1].argmax()) == END
    assert len(chooser.of_reply(0, 1)) == 1
    assert chooser.of_reply(1, 1) == []


def test_a_batch_keeps_the_means_of_each_reply_apart(chooser):
    chooser(torch.tensor([[WORD, WORD]] * 2), scores_of({10: 1.0}, WORD))
    chooser(torch.tensor([[WORD, FIRST + 10], [WORD, WORD]]), scores_of({20: 0.5, 21: 0.5}, {30: 1.0}))

    assert chooser.of_reply(0, 2) == pytest.approx([10.0, 20.5])
    assert chooser.of_reply(1, 2) == pytest.approx([30.0])
    assert chooser.of_reply(0, 1) == pytest.approx([10.0])


def trained(folder, drawn, tiny_model, coding, steps):
    """A model that was taught where two lesions are and what lies there, and its questions."""
    conversations = drawn(folder / "data", images=2)
    stage = {
        "name": "instruct",
        "tasks": ["REC", "REG"],
        "trains": ["vision", "projector", "language"],
        "learning_rate": 1e-2,
        "weight_decay": 0.0,
        "warmup": 0.1,
        "steps": steps,
        "images_per_step": 2,
    }
    content = {
        "name": "located",
        "model": tiny_model("pool", box_coding=coding),
        "train": str(conversations),
        "val": str(conversations),
        "stages": [stage],
    }
    train(TrainConfig.model_validate(content), folder / "model", show_bar=False, say=lambda _: None)
    return folder / "model", conversations


@pytest.fixture(
    scope="module",
    params=[
        BoxCodingConfig(kind="tokens", bins=64, order="yxyx"),
        BoxCodingConfig(kind="pixels", order="xyxy"),
    ],
    ids=["tokens", "pixels"],
)
def located(request, tmp_path_factory, drawn, tiny_model):
    return trained(tmp_path_factory.mktemp(request.param.kind), drawn, tiny_model, request.param, 80)


def test_what_was_learnt_in_another_coding_is_answered_in_the_form_of_datasets(located):
    predictor = Predictor.load(located[0], "cpu")
    asked = [one for one in read_records(located[1], Conversation) if one.task in (Task.REC, Task.REG)]

    for task in (Task.REC, Task.REG):
        batch = [one for one in asked if one.task is task]
        for one, reply in zip(batch, answer_batch(predictor, batch, located[1].parent), strict=True):
            if task is Task.REG:
                assert reply.text == one.answer
            else:
                assert geometry.iou(decode_box(reply.text), one.target.boxes[0]) > 0.9
                # far less than the 1/63 and 1/64 of a side that a bin and a pixel of these pictures are
                assert decode_box(reply.text).xyxy == pytest.approx(one.target.boxes[0].xyxy, abs=0.008)


def test_pixels_are_those_of_the_original_whatever_copy_is_shown(located):
    predictor = Predictor.load(located[0], "cpu")
    conversation = next(one for one in read_records(located[1], Conversation) if one.task is Task.REC)
    image = Image.open(located[1].parent / conversation.image.path).resize((160, 160))
    turns = (("user", conversation.turns[0].text),)

    of_original, of_copy = predictor.answer(
        [Question(image, turns, size_wh=conversation.image.size_wh), Question(image, turns)], 40
    )

    assert geometry.iou(decode_box(of_original.text), conversation.target.boxes[0]) > 0.9
    if predictor.processor.coding.config.kind == "pixels":  # 64 px are taken for 160
        x0, y0, x1, y1 = (edge * 64 / 160 for edge in conversation.target.boxes[0].xyxy)
        assert decode_box(of_copy.text).xyxy == pytest.approx((x0, y0, x1, y1), abs=0.01)


def test_validation_reads_the_boxes_of_each_coding(located):
    log = (located[0] / "log.jsonl").read_text(encoding="utf-8")

    assert '"eval_rec_iou": 0.9' in log or '"eval_rec_iou": 1.0' in log


def test_an_untrained_model_says_whole_boxes_or_none(tiny_model):
    """Bins outnumber its other words, so that it says little else."""
    coding = BoxCodingConfig(kind="tokens", bins=1000)
    model, processor = build_model(tiny_model("pool", box_coding=coding), seed=5)
    predictor = Predictor(model.eval(), processor, card=None)
    image = Image.new("RGB", (40, 30), (200, 10, 60))
    questions = [Question(image, (("user", f"Where is polyp {number}?"),)) for number in range(4)]

    replies = predictor.answer(questions, max_new_tokens=40)

    assert all(reply.stop_reason == "length" for reply in replies if "<loc" in reply.text)  # cut inside a box
    assert any("[" in reply.text for reply in replies)


def test_a_reply_with_a_broken_box_stays_as_it_was_said(tiny_model):
    processor = build_model(tiny_model("pool", box_coding=BoxCodingConfig(kind="pixels")), seed=5)[1]
    for text in ("{<1><2><3>", "{<0><0><65><64>}", "[000,000,010,010]"):
        ids = processor.tokenizer.encode(text, add_special_tokens=False)

        read = processor.decode(ids, (64, 64))

        assert read.replace("[[", "[").replace("]]", "]") == text
        with pytest.raises(BoxTextError):
            decode_boxes(read)


@pytest.fixture
def goes_on(located, tiny_model):
    """`goes_on(coding)`: what a run begins with that starts from the checkpoint and names a coding."""

    def start(coding):
        stage = {"name": "on", "tasks": ["REC"], "trains": ["language"], "learning_rate": 1e-3, "steps": 1}
        content = {
            "name": "on",
            "start_from": str(located[0]),
            "model": tiny_model("pool", box_coding=coding),
            "train": str(located[1]),
            "stages": [stage],
        }
        return start_model(TrainConfig.model_validate(content))

    return start


def test_a_run_goes_on_in_the_coding_of_its_checkpoint(located, goes_on):
    own = load_checkpoint(located[0])[1].coding.config

    for said in (None, own):
        model, processor = goes_on(said)
        assert processor.coding.config == own
        assert model.locations == processor.locations


def test_a_run_may_go_on_in_another_coding_that_needs_no_new_words(located, goes_on):
    own = load_checkpoint(located[0])[1].coding.config
    if own.kind == "tokens":
        model, processor = goes_on(own.model_copy(update={"sigma": 4.0}))
        assert model.locations.sigma == processor.locations.sigma == 4.0
    else:
        assert goes_on(BoxCodingConfig(order="yxyx"))[1].coding.config == BoxCodingConfig(order="yxyx")


def test_a_run_gives_no_location_tokens_to_a_checkpoint_nor_takes_them(located, goes_on):
    own = load_checkpoint(located[0])[1].coding.config
    others = [BoxCodingConfig(kind="tokens", bins=100)] + [BoxCodingConfig()] * (own.kind == "tokens")

    for other in others:
        with pytest.raises(ConfigError, match="location tokens are given to a model when it is built"):
            goes_on(other)


def test_adapters_alone_cannot_teach_location_tokens(tiny_model, drawn, tmp_path):
    content = {
        "name": "adapted",
        "model": tiny_model("mlp", box_coding=BoxCodingConfig(kind="tokens"), lora=LoraConfig(rank=2, alpha=4)),
        "train": str(drawn(tmp_path / "data", images=2)),
        "stages": [{"name": "s", "tasks": ["REC"], "trains": ["lora"], "learning_rate": 1e-3, "steps": 1}],
    }

    with pytest.raises(ConfigError, match="no stage trains its embeddings"):
        start_model(TrainConfig.model_validate(content))


def test_adapters_go_with_location_tokens_that_a_tokenizer_brings(tiny_model, drawn, tmp_path):
    coding = BoxCodingConfig(kind="tokens", bins=64)
    build_model(tiny_model("mlp", box_coding=coding), seed=1)[1].tokenizer.save_pretrained(tmp_path / "words")
    described = tiny_model(
        "mlp", box_coding=coding, tokenizer=str(tmp_path / "words"), lora=LoraConfig(rank=2, alpha=4)
    )
    content = {
        "name": "adapted",
        "model": described,
        "train": str(drawn(tmp_path / "data", images=2)),
        "stages": [{"name": "s", "tasks": ["REC"], "trains": ["lora"], "learning_rate": 1e-3, "steps": 1}],
    }

    assert start_model(TrainConfig.model_validate(content))[1].locations.count == 64
