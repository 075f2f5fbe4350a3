from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gastrovl.clinical.answers import ParseFailure, parse_answer
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import PredictionError, RecordError
from gastrovl.core.records import to_line, write_records
from gastrovl.core.replyform import BoxForm, ReplyForm, Scale
from gastrovl.core.types import Box, Prediction, Task
from gastrovl.evaluation.items import parse_failures, read_items
from gastrovl.evaluation.questions import questions_of, read_questions
from gastrovl.evaluation.tasks import is_right, measures_of


@pytest.fixture
def asked(conversation):
    return [conversation(Task.CLS, f"drawn/{i}#CLS-0", terms=["gastric_ulcer"]) for i in range(5)]


@pytest.fixture
def files(tmp_path, asked):
    """Writes conversations and the given predictions, and returns both paths in the order of `read_items`."""

    def write(predictions):
        write_records(tmp_path / "test.jsonl", asked)
        write_records(tmp_path / "replies.jsonl", predictions)
        return tmp_path / "replies.jsonl", tmp_path / "test.jsonl"

    return write


def test_replies_meet_their_questions_whatever_their_order(files, asked, prediction):
    items = read_items(*files([prediction(one.id, one.id) for one in reversed(asked)]), Taxonomy.load())
    assert [item.question.id for item in items] == [one.id for one in asked]
    assert all(item.reply.text == item.question.id for item in items)


def test_missing_predictions_are_counted_named_and_refused(files, asked, prediction):
    paths = files([prediction(one.id, "gastric ulcer") for one in asked[:1]])
    with pytest.raises(PredictionError) as caught:
        read_items(*paths, Taxonomy.load())
    message = str(caught.value)
    assert message.startswith(f"{paths[0]}: 4 of 5 conversations of {paths[1]} have no prediction")
    assert "'drawn/1#CLS-0', 'drawn/2#CLS-0', 'drawn/3#CLS-0' and 1 more" in message
    assert "gastrovl predict" in message


def test_a_double_prediction_is_refused_with_both_lines(files, asked, prediction):
    paths = files([prediction(one.id, "gastric ulcer") for one in (*asked, asked[1])])
    with pytest.raises(PredictionError, match="the first is at line 2") as caught:
        read_items(*paths, Taxonomy.load())
    assert str(caught.value).startswith(f"{paths[0]}:6: a second prediction for conversation 'drawn/1#CLS-0'")


def test_an_unknown_prediction_is_refused_with_its_line(files, asked, prediction):
    paths = files([prediction(one.id, "gastric ulcer") for one in asked] + [prediction("other/9#CLS-0", "angle")])
    with pytest.raises(PredictionError, match="the conversations file these predictions were made from") as caught:
        read_items(*paths, Taxonomy.load())
    assert str(caught.value).startswith(f"{paths[0]}:6: 1 of 6 predictions answer no conversation")
    assert "'other/9#CLS-0'" in str(caught.value)


def test_half_a_line_is_refused_with_file_and_line(files, asked, prediction):
    predictions, conversations = files([prediction(one.id, "gastric ulcer") for one in asked])
    whole = predictions.read_text("utf-8")
    predictions.write_text(whole[: len(whole) - 30], "utf-8")
    with pytest.raises(RecordError, match="cut off") as caught:
        read_items(predictions, conversations, Taxonomy.load())
    assert str(caught.value).startswith(f"{predictions}:5: ")


def test_conversations_passed_as_predictions_are_refused(files):
    _, conversations = files([])
    with pytest.raises(RecordError, match="expected 'gastrovl/prediction/1'"):
        read_items(conversations, conversations, Taxonomy.load())


def test_an_empty_file_of_conversations_is_refused(tmp_path):
    (tmp_path / "test.jsonl").write_text("\n")
    with pytest.raises(RecordError, match="holds no conversation"):
        read_questions(tmp_path / "test.jsonl")


def test_a_conversation_that_comes_twice_is_refused_with_both_lines(tmp_path, asked):
    path = tmp_path / "test.jsonl"
    path.write_text(to_line(asked[0]) + "\n\n" + to_line(asked[0]) + "\n", "utf-8")
    with pytest.raises(RecordError, match="stands at line 1") as caught:
        read_questions(path)
    assert str(caught.value).startswith(f"{path}:3: ")


def test_reasons_of_unread_replies_are_counted_by_kind(files, asked, prediction):
    replies = ["gastric ulcer", "a frog", "a toad", "", "ulcer?"]
    paths = files([prediction(one.id, text) for one, text in zip(asked, replies, strict=True)])
    items = read_items(*paths, Taxonomy.load())
    assert parse_failures(items) == {"... is no label of the taxonomy": 3, "the reply is empty": 1}


BOX = Box(x0=0.1, y0=0.1, x1=0.5, y1=0.5)
MALFORMED = st.one_of(
    st.text(max_size=60),
    st.from_regex(r"\[-?\d{0,5},-?\d{0,5},-?\d{0,5}(,-?\d{0,5}\]?)?", fullmatch=True),
    st.sampled_from(["[", "[[0,0,1,1]]", "[999,999,0,0]", "[1,2,3", "absent [0,0,1,1]", "nan", "\x00", ";", "; ;"]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reply=MALFORMED, task=st.sampled_from([Task.CLS, Task.REC, Task.REG, Task.CAP]))
def test_no_reply_crashes_the_scoring(reply, task, conversation):
    answer = parse_answer(task, reply, Taxonomy.load())
    one = conversation(task, "drawn/0#0", terms=["gastric_ulcer"], boxes=[BOX], caption="An ulcer of the stomach.")
    question = next(questions_of([one]))
    measures_of(task, [question], [answer])
    if isinstance(answer, ParseFailure) and task is not Task.CAP:
        assert is_right(question, answer) is False


def test_a_reply_is_read_in_the_form_that_its_prediction_declares(conversation, tmp_path):
    box = Box(x0=0.25, y0=0.5, x1=0.75, y1=0.875)
    asked = [conversation(Task.REC, f"drawn/{n}#REC-0", terms=["gastric_ulcer"], boxes=[box]) for n in range(3)]
    form = ReplyForm(boxes=BoxForm(scale=Scale.PIXELS))
    same = {"text": "[40, 40, 120, 70]", "model": "m", "seconds": 0.0, "stop_reason": "end"}
    write_records(tmp_path / "rec.jsonl", asked)
    write_records(
        tmp_path / "foreign.jsonl",
        [
            Prediction(conversation_id=asked[0].id, form=form, image_wh=(160, 80), **same),
            Prediction(conversation_id=asked[1].id, form=form, image_wh=(320, 240), **same),
            Prediction(conversation_id=asked[2].id, **same),
        ],
    )

    items = read_items(tmp_path / "foreign.jsonl", tmp_path / "rec.jsonl", Taxonomy.load())

    assert [is_right(item.question, item.answer) for item in items] == [True, False, False]
    assert items[0].answer.boxes == (box,)
    assert items[2].answer.boxes[0].x0 == pytest.approx(40 / 999)  # of our own texts the very same numbers are bins
