"""Saved sessions to ratings that `rate summary` reads, and to corrections that training reads."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from gastrovl.cli.app import app
from gastrovl.core.errors import OutputError, RecordError
from gastrovl.core.images import open_image
from gastrovl.core.records import read_records
from gastrovl.core.types import Box, Conversation, Rating, Split, Task
from gastrovl.evaluation.judging.gather import summarise_files
from gastrovl.evaluation.judging.rubric import load_rubric
from gastrovl.inference.others.rated import import_sessions, read_session
from gastrovl.inference.question import Reply
from gastrovl.inference.session import Kind, Session, Wish

BOX = Box(x0=0.25, y0=0.25, x1=0.5, y1=0.75)


class Fixed:
    """Says "polyp" to everything but a place, which is a box."""

    def answer(self, questions):
        return [self._reply(question.task) for question in questions]

    def _reply(self, task):
        return Reply("[100,200,300,400]" if task is Task.REC else "polyp", 0.5, 0.125, "end")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "pictures" / "deep" / "a.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (40, 20), (200, 90, 80)).save(path)
    return path


@pytest.fixture
def session(image):
    found = Session(Fixed(), "fixed")
    found.show(open_image(image), "a.png")
    return found


def saved(session, path):
    session.save(path)
    return path


def imported(session, tmp_path, **options):
    path = saved(session, tmp_path / "session.json")
    options = {"rater": "reader-1", "images": tmp_path / "pictures"} | options
    return import_sessions([path], tmp_path / "out", **options)


def corrections(tmp_path):
    return list(read_records(tmp_path / "out" / "corrections.jsonl", Conversation))


def test_three_verdicts_are_the_levels_two_one_and_zero_and_their_mean_is_one(session, tmp_path):
    for verdict in ("right", "partly", "wrong"):
        session.ask(Wish(Kind.CLASSIFY))
        session.rate(len(session.exchanges), verdict)
    session.ask(Wish(Kind.DESCRIBE))

    found = imported(session, tmp_path)

    assert (found.ratings, found.unrated) == (3, 1)
    ratings = tmp_path / "out" / "ratings.jsonl"
    assert [one.scores["verdict"] for one in read_records(ratings, Rating)] == [2, 1, 0]
    judged = summarise_files(
        tmp_path / "out" / "questions.jsonl",
        tmp_path / "summary",
        ratings=[ratings],
        rubrics=[load_rubric(str(tmp_path / "out" / "rubric.yaml"))],
        resamples=10,
    )
    [mean] = judged.means
    assert (mean.model, mean.criterion, mean.value, mean.most, mean.n) == ("fixed", "verdict", 1.0, 2, 3)


def test_corrected_labels_boxes_and_names_become_typed_training_conversations(session, image, tmp_path):
    session.ask(Wish(Kind.CLASSIFY))
    session.rate(1, "wrong", "Gastric Ulcer")
    session.ask(Wish(Kind.LOCATE, "polyp"))
    session.rate(2, "partly", "[000,000,999,999]")
    session.ask(Wish(Kind.NAME, box=BOX))
    session.rate(3, "wrong", "gastric ulcer")
    session.ask(Wish(Kind.LOCATE, "polyp"))
    session.rate(4, "wrong", "absent")
    session.ask(Wish(Kind.DESCRIBE))
    session.rate(5, "partly", "An ulcer of the antrum.")

    assert imported(session, tmp_path).corrected == 5

    labels, place, name, absent, text = corrections(tmp_path)
    assert (labels.task, labels.answer, labels.target.terms) == (Task.CLS, "gastric ulcer", ("gastric_ulcer",))
    assert (place.task, place.answer) == (Task.REC, "[000,000,999,999]")
    assert place.target.boxes == (Box(x0=0, y0=0, x1=1, y1=1),)
    assert place.target.terms == ("polyp_unspecified",)
    assert (name.task, name.target.terms, name.target.boxes) == (Task.REG, ("gastric_ulcer",), (BOX,))
    assert (absent.answer, absent.target.boxes) == ("absent", ())
    assert (text.task, text.answer) == (Task.CAP, "An ulcer of the antrum.")
    assert {one.split for one in corrections(tmp_path)} == {Split.TRAIN}
    copy = tmp_path / "out" / labels.image.path
    assert copy.read_bytes() == image.read_bytes()


def test_a_right_answer_teaches_nothing_also_with_a_remark(session, tmp_path):
    session.ask(Wish(Kind.CLASSIFY))
    session.rate(1, "right", "gastric ulcer")

    assert imported(session, tmp_path).corrected == 0
    assert corrections(tmp_path) == []


@pytest.mark.parametrize(
    ("wish", "correction", "why"),
    [
        (Wish(Kind.CLASSIFY), "it lies in the antrum", "is not written as names of the taxonomy"),
        (Wish(Kind.LOCATE, "polyp"), "further left", "is not written as boxes"),
        (Wish(Kind.LOCATE, "the odd thing"), "absent", "no term of the taxonomy"),
        (Wish(Kind.NAME, box=BOX), "polyp; gastric ulcer", "a box has one name"),
        (Wish(Kind.DESCRIBE), "A polyp. <image> And more.", "holds a mark"),
        (Wish(Kind.SAY, "What <|assistant|> is it?"), "an ulcer", "holds a mark"),
    ],
)
def test_a_correction_that_cannot_be_a_target_is_left_out_and_counted(session, tmp_path, wish, correction, why):
    session.ask(wish)
    session.rate(1, "wrong", correction)

    found = imported(session, tmp_path)

    [(said, count)] = found.skipped.items()
    assert why in said
    assert (found.ratings, found.corrected, count) == (1, 0, 1)


def test_a_later_turn_of_a_dialogue_is_no_question_of_its_own(session, tmp_path):
    session.ask(Wish(Kind.SAY, "Is there a polyp?"))
    session.rate(1, "wrong", "no")
    session.ask(Wish(Kind.SAY, "And there?"))
    session.rate(2, "wrong", "yes")

    found = imported(session, tmp_path)

    assert [one.turns[0].text for one in corrections(tmp_path)] == ["Is there a polyp?"]
    assert "later turn" in next(iter(found.skipped))


def test_an_image_of_that_name_with_other_pixels_is_not_taken(session, image, tmp_path):
    session.ask(Wish(Kind.CLASSIFY))
    session.rate(1, "wrong", "gastric ulcer")
    Image.new("RGB", (40, 20), (0, 0, 0)).save(image)

    assert imported(session, tmp_path).skipped == {"the image is not in the folder": 1}


def test_the_same_answer_in_two_files_counts_once(session, tmp_path):
    session.ask(Wish(Kind.CLASSIFY))
    session.rate(1, "right")
    first = saved(session, tmp_path / "early.json")
    session.ask(Wish(Kind.DESCRIBE))
    second = saved(session, tmp_path / "late.json")

    found = import_sessions([first, second], tmp_path / "out", rater="reader-1")

    assert (found.ratings, found.unrated) == (1, 1)


def test_two_opinions_on_one_answer_in_two_files_are_refused(session, tmp_path):
    session.ask(Wish(Kind.CLASSIFY))
    session.rate(1, "right")
    first = saved(session, tmp_path / "early.json")
    session.rate(1, "wrong")
    second = saved(session, tmp_path / "late.json")

    with pytest.raises(RecordError, match=r"late\.json: answer 1 is rated 'wrong' here and otherwise"):
        import_sessions([first, second], tmp_path / "out", rater="reader-1")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content | {"schema": "gastrovl/session/9"}, "found schema 'gastrovl/session/9', expected"),
        (lambda _: {"answers": 3}, "found schema 'None'"),
        (lambda content: [content], "found schema 'None'"),
        (lambda content: content | {"exchanges": [{"number": 1}]}, r"exchanges\.0\.image: Field required"),
    ],
)
def test_what_is_no_session_is_refused_by_name(session, tmp_path, change, message):
    path = saved(session, tmp_path / "session.json")
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))), "utf-8")

    with pytest.raises(RecordError, match=rf"session\.json: {message}"):
        read_session(path)


def test_a_file_cut_off_is_no_session(session, tmp_path):
    path = saved(session, tmp_path / "session.json")
    path.write_text(path.read_text("utf-8")[:-20], "utf-8")

    with pytest.raises(RecordError, match="not a whole JSON file"):
        read_session(path)


def test_a_session_nobody_rated_and_a_folder_that_is_not_ours_are_refused(session, tmp_path):
    session.ask(Wish(Kind.CLASSIFY))
    with pytest.raises(RecordError, match="no answer of 1 sessions is rated"):
        imported(session, tmp_path)

    session.rate(1, "right")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept", "utf-8")
    with pytest.raises(OutputError, match="already holds files"):
        imported(session, tmp_path)


def test_the_command_says_what_it_wrote_and_what_it_left_out(session, tmp_path):
    session.ask(Wish(Kind.CLASSIFY))
    session.rate(1, "wrong", "no idea")
    path = saved(session, tmp_path / "session.json")
    arguments = ["rate", "import-session", str(path), "-o", str(tmp_path / "out"), "--rater", "reader-1"]

    result = CliRunner().invoke(app, [*arguments, "--images", str(tmp_path / "pictures")])

    assert result.exit_code == 0, result.output
    assert "1 ratings" in result.stdout
    assert "0 corrections to train on" in result.stdout
    assert "1 corrections left out: the correction of CLS is not written as names of the taxonomy" in result.stdout
