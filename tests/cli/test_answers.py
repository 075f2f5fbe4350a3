"""Answers and what to believe of them, as lines and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gastrovl.cli.answers import lines_of, print_answers, scope_line
from gastrovl.core.types import Box
from gastrovl.inference.abstention import Fallback
from gastrovl.inference.session import Kind, Wish
from gastrovl.inference.typed import BoxAnswer, LabelAnswer, TextAnswer
from gastrovl.inference.verdicts import Belief, Check, ScopeAnswer

BOX = Box(x0=0.25, y0=0.25, x1=0.5, y1=0.5)
CHANCES = {"esophagitis": 0.625, "z_line": 0.25, "cancer_unspecified": 0.0}
CHECKS = (
    Check("in_frame", passed=True, detail="the whole frame is labelled 'esophagitis'"),
    Check("found_again", passed=False, detail="located with IoU 0.10 to the region"),
)
OUTSIDE = ScopeAnswer("outside", "more like pictures that the model is not for", 0.5, 0.25)
WIDER = (Fallback(term="esophageal_diseases", probability=0.95),)


def region(**changes):
    told = {"is_calibrated": True, "label_set": ("esophagitis", "z_line"), "level": 0.9, "risk": 0.1}
    belief = Belief(**(told | changes))
    return LabelAnswer("esophagitis", ("esophagitis",), CHANCES, 0.625, calibrated=True, belief=belief)


def test_an_answer_is_followed_by_its_label_set_and_checks():
    assert lines_of(Wish(Kind.NAME, box=BOX), region(checks=CHECKS)) == [
        "in x 0.250 to 0.500, y 0.250 to 0.500: esophagitis  (confidence 0.62, calibrated)",
        "probabilities: esophagitis 0.62, z-line 0.25",
        "label set at 90%: esophagitis, z-line",
        "for it: the whole frame is labelled 'esophagitis'",
        "against it: located with IoU 0.10 to the region",
    ]


@pytest.mark.parametrize(
    ("fallback", "said"),
    [
        (WIDER, 'withheld: too unsure of "esophagitis", but sure of esophageal diseases (0.95)'),
        ((), 'withheld: too unsure of "esophagitis" and of anything wider'),
    ],
)
def test_a_withheld_name_is_said_with_what_is_sure(fallback, said):
    heading = lines_of(Wish(Kind.CLASSIFY), region(is_withheld=True, fallback=fallback))[0]

    assert heading == f"{said}  (confidence 0.62, calibrated)"


def test_a_set_of_every_label_is_said_to_tell_nothing():
    assert "label set at 90%: every label; none can be left out" in lines_of(
        Wish(Kind.CLASSIFY), region(label_set=tuple(CHANCES))
    )


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ((), "polyp: withheld: too unsure that it is absent"),
        ((BOX,), "polyp: withheld: too unsure of this place"),
        ((BOX, BOX), "polyp: withheld: too unsure of these places"),
    ],
)
def test_a_withheld_place_is_said_and_still_shown(boxes, said):
    belief = Belief(is_calibrated=True, is_withheld=True, risk=0.1)
    lines = lines_of(Wish(Kind.LOCATE, "polyp"), BoxAnswer("", boxes, None, 0.5, 0.25, True, belief))

    assert lines[0] == f"{said}  (there with probability 0.50; confidence 0.25, calibrated)"
    assert len(lines) == 1 + len(boxes)


def test_a_picture_is_spoken_of_only_where_something_speaks_against_it():
    assert scope_line(None) is scope_line(ScopeAnswer("in_scope", "")) is None
    assert scope_line(ScopeAnswer("unreadable", "dark")).startswith("unreadable (dark): ")
    assert scope_line(OUTSIDE).startswith("perhaps out of scope (more like pictures that the model is not for): ")


def test_json_says_scope_once_and_belief_of_each_answer(capsys):
    found = [(region(is_withheld=True, fallback=WIDER, checks=CHECKS, scope=OUTSIDE), 0.5)]
    found.append((TextAnswer("A z-line.", 0.5, "end", belief=Belief(scope=OUTSIDE)), 0.5))
    wishes = [Wish(Kind.CLASSIFY), Wish(Kind.DESCRIBE)]

    print_answers(Path("a.png"), (40, 20), wishes, found, as_json=True, is_alone=False)

    content = json.loads(capsys.readouterr().out)
    labels, text = content["answers"]
    assert (content["scope"]["verdict"], content["scope"]["outsideness"]) == ("outside", 0.25)
    assert labels["belief"]["fallback"] == [{"term": "esophageal_diseases", "probability": 0.95}]
    assert labels["belief"]["checks"][1]["passed"] is False
    assert (labels["belief"]["label_set"], labels["calibrated"]) == (["esophagitis", "z_line"], True)
    assert "scope" not in labels["belief"]
    assert (text["calibrated"], text["belief"]["is_withheld"]) == (False, False)


def test_a_lone_reply_stands_alone_and_all_else_beside_it(capsys):
    wish = Wish(Kind.SAY, "Which labels?")
    answer = region(is_withheld=True, fallback=WIDER, checks=CHECKS, scope=OUTSIDE)

    print_answers(Path("a.png"), (40, 20), [wish], [(answer, 0.5)], as_json=False, is_alone=True)

    out, err = capsys.readouterr()
    assert out == "esophagitis\n"
    assert [line.partition(" ")[0] for line in err.splitlines()] == [
        "confidence", "perhaps", "withheld:", "label", "for", "against"
    ]  # fmt: skip
