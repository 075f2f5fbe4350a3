"""A file of predictions: whole, in order, resumable at any point, every question asked once."""

from __future__ import annotations

import pytest

from gastrovl.core.errors import ImageError, OutputError, PredictionError, RecordError
from gastrovl.core.files import sha256_file
from gastrovl.core.records import read_records, to_line, write_records
from gastrovl.core.types import Conversation, Prediction, Task
from gastrovl.inference.batch import Ours, predict_file
from gastrovl.inference.head.looking import Looking
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Reply
from gastrovl.inference.runrecord import read_run
from gastrovl.model.checkpoint import CheckpointCard


class Parrot:
    """Says the last question back; dies at the n-th batch if told so."""

    words = None  # shares nothing between questions

    def __init__(self, name="parrot", dies_at=None, fingerprint="weights"):
        self.card = CheckpointCard(name=name, image_tokens=1, image_size_px=1)
        self.fingerprint = fingerprint
        self.looking = Looking()
        self.dies_at, self.batches = dies_at, []

    def answer(self, questions):
        if len(self.batches) + 1 == self.dies_at:
            raise KeyboardInterrupt
        self.batches.append(([question.turns[-1][1] for question in questions], {one.task for one in questions}))
        return [Reply(f"größe: {question.turns[-1][1]}", 0.5, 0.25, "end") for question in questions]

    @property
    def asked(self):
        return [text for batch, _ in self.batches for text in batch]


@pytest.fixture
def conversations(tiny_data):
    return tiny_data(images=3)


def questions_of(conversations):
    return [one.turns[0].text for one in read_records(conversations, Conversation)]


def test_predictions_stand_in_the_order_of_the_conversations(conversations, tmp_path):
    output = tmp_path / "new" / "predictions.jsonl"

    count = predict_file(Parrot(), conversations, output, batch_size=4)

    predictions = list(read_records(output, Prediction))
    assert count == 12
    assert [one.conversation_id for one in predictions] == [one.id for one in read_records(conversations, Conversation)]
    assert [one.text for one in predictions] == [f"größe: {text}" for text in questions_of(conversations)]
    assert {(one.model, one.confidence, one.seconds, one.stop_reason) for one in predictions} == {
        ("parrot", 0.5, 0.25, "end")
    }
    assert sorted(path.name for path in output.parent.iterdir()) == ["predictions.jsonl", "predictions.run.json"]


def test_a_batch_holds_one_task(conversations, tmp_path):
    parrot = Parrot()

    predict_file(parrot, conversations, tmp_path / "out.jsonl", batch_size=2)

    assert [(len(batch), tasks) for batch, tasks in parrot.batches] == [
        *((size, {Task.CLS}) for size in (2, 1)),
        *((size, {Task.REC}) for size in (2, 1)),
        *((size, {Task.REG}) for size in (2, 1)),
        *((size, {Task.CAP}) for size in (2, 1)),
    ]


@pytest.mark.parametrize("dies_at", [1, 2, 5])
def test_an_interrupted_run_goes_on_where_it_stopped(conversations, tmp_path, dies_at):
    predict_file(Parrot(), conversations, tmp_path / "whole.jsonl", batch_size=2)
    first, second = Parrot(dies_at=dies_at), Parrot()

    with pytest.raises(KeyboardInterrupt):
        predict_file(first, conversations, tmp_path / "parts.jsonl", batch_size=2)
    assert not (tmp_path / "parts.jsonl").exists()
    count = predict_file(second, conversations, tmp_path / "parts.jsonl", batch_size=2)

    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert count == len(second.asked) == 12 - len(first.asked)
    assert sorted(first.asked + second.asked) == sorted(questions_of(conversations))
    assert not (tmp_path / "parts.jsonl.partial").exists()


@pytest.mark.parametrize("cut", ["the line end", "a word", "a letter of two bytes"])
def test_a_half_written_last_line_is_asked_again(conversations, tmp_path, cut):
    with pytest.raises(KeyboardInterrupt):
        predict_file(Parrot(dies_at=3), conversations, tmp_path / "out.jsonl", batch_size=2)
    partial = tmp_path / "out.jsonl.partial"
    content = partial.read_bytes()
    assert content.count(b"\n") == 1 + 3  # what it belongs to, and three replies
    ends = {"the line end": -1, "a word": -9, "a letter of two bytes": content.rindex("ö".encode()) + 1}
    partial.write_bytes(content[: ends[cut]])

    parrot = Parrot()
    predict_file(parrot, conversations, tmp_path / "out.jsonl", batch_size=2)

    assert len(parrot.asked) == 12 - (3 - 1)  # batches of two and one were answered, one line of them was lost
    assert len(list(read_records(tmp_path / "out.jsonl", Prediction))) == 12


def test_a_reply_with_exotic_line_ends_is_one_line(conversations, tmp_path):
    class Exotic(Parrot):
        def answer(self, questions):
            replies = super().answer(questions)
            return [Reply(f"a\u2028b\x85c\x0bd {reply.text}", 0.5, 0.25, "end") for reply in replies]

    with pytest.raises(KeyboardInterrupt):
        predict_file(Exotic(dies_at=2), conversations, tmp_path / "out.jsonl", batch_size=3)
    predict_file(Exotic(), conversations, tmp_path / "out.jsonl", batch_size=3)

    assert all(one.text.startswith("a\u2028b\x85c\x0bd") for one in read_records(tmp_path / "out.jsonl", Prediction))


def test_what_another_model_began_is_not_mixed_in(conversations, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        predict_file(Parrot("old", dies_at=2), conversations, tmp_path / "out.jsonl", batch_size=2)

    with pytest.raises(PredictionError, match=r"out\.jsonl\.partial:1: was begun by model 'old', and 'new'"):
        predict_file(Parrot("new"), conversations, tmp_path / "out.jsonl")


def test_a_model_that_was_trained_on_under_the_same_name_is_another_one(conversations, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        predict_file(Parrot(dies_at=2), conversations, tmp_path / "out.jsonl", batch_size=2)
    trained_on = Parrot(fingerprint="other weights")

    with pytest.raises(PredictionError, match="was begun by 'parrot' with other weights or another description"):
        predict_file(trained_on, conversations, tmp_path / "out.jsonl")
    assert trained_on.batches == []


def test_answers_to_another_state_of_the_questions_are_not_mixed_in(conversations, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        predict_file(Parrot(dies_at=2), conversations, tmp_path / "out.jsonl", batch_size=2)
    records = list(read_records(conversations, Conversation))
    write_records(conversations, records[:-1])

    with pytest.raises(PredictionError, match="was begun for another state of the file of conversations"):
        predict_file(Parrot(), conversations, tmp_path / "out.jsonl")


def test_a_partial_file_that_does_not_say_what_it_belongs_to_is_refused(conversations, tmp_path):
    other = Prediction(conversation_id="other", text="x", model="parrot", seconds=1, stop_reason="end")
    (tmp_path / "out.jsonl.partial").write_text(to_line(other) + "\n", encoding="utf-8")

    with pytest.raises(PredictionError, match="does not say which model the replies are of"):
        predict_file(Parrot(), conversations, tmp_path / "out.jsonl")


def test_a_run_that_answered_nothing_leaves_nothing(conversations, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        predict_file(Parrot(dies_at=1), conversations, tmp_path / "new" / "out.jsonl")

    assert list((tmp_path / "new").iterdir()) == []


def test_two_runs_do_not_write_one_file(conversations, tmp_path):
    class Nosy(Parrot):
        def answer(self, questions):
            with pytest.raises(OutputError, match="another run is writing it"):
                predict_file(Parrot(), conversations, tmp_path / "out.jsonl")
            return super().answer(questions)

    assert predict_file(Nosy(), conversations, tmp_path / "out.jsonl") == 12


def test_the_record_beside_the_file_says_who_answered_and_what_it_took(conversations, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        predict_file(Parrot(dies_at=2), conversations, tmp_path / "out.jsonl", batch_size=3)
    predict_file(Parrot(), conversations, tmp_path / "out.jsonl", batch_size=3)

    run = read_run(tmp_path / "out.jsonl")
    assert (run.model, run.fingerprint, run.replies, run.failures, run.cut) == ("parrot", "weights", 12, 0, 0)
    assert (run.asked_now, run.reply_seconds) == (9, 12 * 0.25)
    assert run.conversations == sha256_file(conversations)
    assert run.cost is None
    assert run.lines()[0].startswith("12 replies; 9 asked now in ")


def test_an_existing_file_is_kept_unless_it_is_to_be_replaced(conversations, tmp_path):
    output = tmp_path / "out.jsonl"
    output.write_text("mine", encoding="utf-8")
    parrot = Parrot()

    with pytest.raises(OutputError, match="exists already; choose another -o, or pass --overwrite"):
        predict_file(parrot, conversations, output)
    assert parrot.batches == []
    assert output.read_text(encoding="utf-8") == "mine"
    assert predict_file(parrot, conversations, output, is_replaced=True) == 12


def test_a_broken_image_is_named_and_what_was_answered_is_kept(conversations, tmp_path):
    picture = conversations.parent / "1.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:50])

    with pytest.raises(ImageError, match=r"1\.png: cannot be decoded"):
        predict_file(Parrot(), conversations, tmp_path / "out.jsonl", batch_size=1)
    assert not (tmp_path / "out.jsonl").exists()
    picture.unlink()
    with pytest.raises(ImageError, match=r"1\.png: no such image"):
        predict_file(Parrot(), conversations, tmp_path / "out.jsonl", batch_size=1)
    picture.write_bytes(whole)
    assert predict_file(Parrot(), conversations, tmp_path / "out.jsonl", batch_size=1) == 11


def test_doubled_or_missing_conversations_are_refused(conversations, tmp_path):
    records = list(read_records(conversations, Conversation))
    write_records(tmp_path / "double.jsonl", [*records, records[0]])
    write_records(tmp_path / "empty.jsonl", [])

    with pytest.raises(RecordError, match=r"double\.jsonl: conversation 'tiny/0#CLS' stands there twice"):
        predict_file(Parrot(), tmp_path / "double.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(RecordError, match="holds no conversation"):
        predict_file(Parrot(), tmp_path / "empty.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(RecordError, match=r"none\.jsonl: no such file"):
        predict_file(Parrot(), tmp_path / "none.jsonl", tmp_path / "out.jsonl")


def test_progress_counts_what_was_answered_before(conversations, tmp_path):
    seen = []
    with pytest.raises(KeyboardInterrupt):
        predict_file(Parrot(dies_at=2), conversations, tmp_path / "out.jsonl", batch_size=3)

    predict_file(
        Parrot(),
        conversations,
        tmp_path / "out.jsonl",
        batch_size=3,
        progress=lambda done, total: seen.append((done, total)),
    )

    assert seen == [(6, 12), (9, 12), (12, 12)]


def test_only_the_dialogue_before_the_last_answer_is_shown(conversations, tmp_path):
    """The last turn is the truth; a model must not see it."""
    seen = []

    class Spy(Parrot):
        def answer(self, questions):
            seen.extend(question.turns for question in questions)
            return super().answer(questions)

    predict_file(Spy(), conversations, tmp_path / "out.jsonl")

    assert {role for turns in seen for role, _ in turns} == {"user"}


def test_a_learnt_model_answers_a_file_exactly(learnt, tmp_path):
    checkpoint, conversations = learnt

    predict_file(Predictor.load(checkpoint, "cpu"), conversations, tmp_path / "out.jsonl", batch_size=3)

    replies = [one.text for one in read_records(tmp_path / "out.jsonl", Prediction)]
    assert replies == [one.answer for one in read_records(conversations, Conversation)]


def test_a_checkpoint_is_asked_image_by_image_and_its_labels_carry_probabilities(learnt, tmp_path):
    checkpoint, conversations = learnt
    seen = []

    class Watched(Ours):
        def answers(self, batch, folder):
            seen.append([(one.image.path, one.task) for one in batch])
            return super().answers(batch, folder)

    predict_file(Watched(Predictor.load(checkpoint, "cpu")), conversations, tmp_path / "out.jsonl", batch_size=4)

    replies = list(read_records(tmp_path / "out.jsonl", Prediction))
    asked = list(read_records(conversations, Conversation))
    assert [sorted({path for path, _ in batch}) for batch in seen] == [["0.png"], ["1.png"]]
    assert [reply.text for reply in replies] == [one.answer for one in asked]
    for one, reply in zip(asked, replies, strict=True):
        assert (reply.probabilities is not None) == (one.task in (Task.CLS, Task.REG))
