"""Answers asked the other way round."""

from __future__ import annotations

import pytest
from PIL import Image

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Task
from gastrovl.inference.belief.checks import check_replies, checks_of, follow_ups, term_asked
from gastrovl.inference.question import Question, Reply

TAXONOMY = Taxonomy.load()
PICTURE = Image.new("RGB", (8, 8))


def ask(text, task):
    return Question(PICTURE, (("user", text),), task)


def say(text):
    return Reply(text, 0.5, 0.0, "end")


WHERE = ask("Where is the polyp?", Task.REC)
WHAT = ask("What lies in [000,000,500,500]?", Task.REG)
ALL = ask("Name every finding.", Task.CLS)


def made(question, reply, *further):
    return {one.name: one.passed for one in checks_of(question, say(reply), [say(one) for one in further], TAXONOMY)}


def test_a_question_names_its_term_by_any_wording():
    assert term_asked("Report the coordinates of suspicious area in this frame.", TAXONOMY) == "suspicious_area"
    assert term_asked("Where is it?", TAXONOMY) is None
    assert term_asked("Where are the polyp and the z-line?", TAXONOMY) is None


def test_boxes_are_named_and_looked_up_in_the_whole_frame():
    asked = follow_ups(WHERE, say("[000,000,500,500] [600,600,700,700]"), TAXONOMY)

    assert [one.task for one in asked] == [Task.CLS, Task.REG, Task.REG]
    assert "[600,600,700,700]" in asked[2].turns[0][1]
    assert made(WHERE, "[000,000,500,500]", "polyp", "polyp") == {"single": True, "in_frame": True, "named": True}
    assert made(WHERE, "[000,000,500,500] [600,600,700,700]", "cancer", "polyp", "cancer") == {
        "single": False,
        "in_frame": False,
        "named": False,
    }


def test_what_is_absent_should_be_absent_from_the_labels():
    assert [one.task for one in follow_ups(WHERE, say("absent"), TAXONOMY)] == [Task.CLS]
    assert made(WHERE, "absent", "cancer") == {"in_frame": True}
    assert made(WHERE, "absent", "cancer; polyp") == {"in_frame": False}


def test_a_narrower_or_wider_name_agrees():
    where = ask("Where is the esophagitis?", Task.REC)

    assert made(where, "[000,000,009,009]", "esophagitis", "esophageal diseases")["named"]
    assert not made(where, "[000,000,009,009]", "esophagitis", "gastric diseases")["named"]


def test_a_name_is_looked_for_where_the_region_is():
    assert [one.task for one in follow_ups(WHAT, say("polyp"), TAXONOMY)] == [Task.CLS, Task.REC]
    assert made(WHAT, "polyp", "polyp", "[000,000,500,490]") == {"in_frame": True, "found_again": True}
    assert made(WHAT, "polyp", "cancer", "[500,500,900,900]") == {"in_frame": False, "found_again": False}
    assert made(WHAT, "polyp", "polyp", "absent") == {"in_frame": True, "found_again": False}


@pytest.mark.parametrize(
    ("caption", "agrees"),
    [
        ("There is a polyp in the antrum.", True),
        ("A polyp, no sign of cancer.", True),
        ("A polyp beside a cancer.", False),
        ("The mucosa is normal.", False),
    ],
)
def test_a_caption_names_the_same_findings(caption, agrees):
    assert made(ALL, "antrum; polyp", caption) == {"caption": agrees}


def test_what_cannot_be_read_or_checked_has_no_checks():
    assert follow_ups(WHERE, say("over there"), TAXONOMY) == []
    assert follow_ups(ask("Describe the image.", Task.CAP), say("A polyp."), TAXONOMY) == []
    assert follow_ups(Question(PICTURE, (("user", "Where?"),)), say("[000,000,500,500]"), TAXONOMY) == []
    assert made(ALL, "nonsense") == {}


def test_a_question_about_one_picture_is_asked_once():
    asked = []

    def asks(questions, _):
        asked.extend(questions)
        return [say("polyp") for _ in questions]

    found = check_replies(asks, [WHERE, WHAT, WHERE], [say("[000,000,500,500]"), say("polyp"), say("absent")], TAXONOMY)

    assert sorted(one.task for one in asked) == [Task.CLS, Task.REC, Task.REG]
    assert [{one.name: one.passed for one in some} for some in found] == [
        {"single": True, "in_frame": True, "named": True},
        {"in_frame": True, "found_again": False},
        {"in_frame": False},
    ]
