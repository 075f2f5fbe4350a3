"""The report of an evaluation: one file, safe from what models say, with the cases that are worth looking at."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Score, Split, Task
from gastrovl.evaluation.evaluate import evaluate
from gastrovl.evaluation.items import pair
from gastrovl.evaluation.questions import questions_of
from gastrovl.evaluation.showing.report import choose_cases, verdicts

HOSTILE = """</script><script>alert(1)</script><img src=x onerror=alert(2)> "quoted" 'single' {{ 7 * 7 }} \u2028"""


@pytest.fixture
def report(made_up_run):
    return (made_up_run / "evaluation" / "test" / "report.html").read_text("utf-8")


def score(value, low, baseline, n_unparsed=0):
    return Score(
        task=Task.REC, metric="acc@0.5", dataset="all", split=Split.TEST, value=value, low=low, high=0.9, n=100,
        n_unparsed=n_unparsed, baseline=baseline, baseline_name="mean box",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            score(0.6, 0.5, 0.3),
            "REC, test: acc@IoU 0.5 is 60.0 % [50.0, 90.0] on 100 questions, 30.0 points above the best trivial "
            "baseline (mean box, 30.0 %).",
        ),
        (
            score(0.4, 0.2, 0.3, 7),
            "REC, test: acc@IoU 0.5 is 40.0 % [20.0, 90.0] on 100 questions, 10.0 points above the best trivial "
            "baseline (mean box, 30.0 %), which its interval does not exclude; 7 replies could not be read and count "
            "as wrong.",
        ),
        (
            score(0.3, 0.2, 0.3),
            "REC, test: acc@IoU 0.5 is 30.0 % [20.0, 90.0] on 100 questions, not above the best trivial baseline "
            "(mean box, 30.0 %): there is no evidence of seeing in it.",
        ),
    ],
)
def test_a_score_is_said_in_words_beside_its_baseline(found, sentence):
    assert verdicts([found]) == [sentence]


def test_a_reason_to_doubt_a_score_is_part_of_its_sentence():
    found = score(0.6, 0.5, 0.3).model_copy(update={"reason": "the interval rests on 2 groups only"})
    assert verdicts([found])[0].endswith("(mean box, 30.0 %); the interval rests on 2 groups only.")


def test_nothing_in_the_report_comes_from_elsewhere(report):
    addresses = re.findall(r"""(?:src|href|srcset|action)=["']([^"']*)""", report)
    assert addresses
    assert all(one.startswith(("data:image/", "#")) for one in addresses)
    assert "default-src 'none'" in report


def test_the_only_script_that_may_run_is_the_one_whose_hash_the_policy_names(report):
    [script] = re.findall(r"<script>(.*?)</script>", report, re.DOTALL)
    [named] = re.findall(r"script-src 'sha256-([^']+)'\"", report)
    assert base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii") == named
    assert not re.search(r"""<[^>]+\son\w+=""", report)  # no handler in a tag


def test_without_scripts_every_case_and_table_is_visible(report):
    before_script = report.split("<script>")[0]
    assert 'class="filters" id="filters" hidden' in before_script
    assert not re.search(r'<li class="card[^>]* hidden', before_script)


def test_cases_carry_what_they_are_filtered_and_sorted_by(report):
    cards = re.findall(r'<li class="card[^>]*>', report)
    overlaps = [
        re.search(r'data-task="(\w+)".*data-iou="([^"]*)" data-labels="([^"]*)"', card).groups() for card in cards
    ]
    assert all(iou == "" for task, iou, _ in overlaps if task != "REC")
    assert any(float(iou) == 1.0 for task, iou, _ in overlaps if task == "REC" and iou)
    assert {"esophagitis", "gastric ulcer"} <= {label for *_, label in overlaps}
    assert re.search(r'<select id="by-label">.*<option>gastric ulcer</option>', report)


def test_a_very_long_reply_does_not_swell_the_report(made_up_dataset, reply_with, tmp_path):
    conversations = made_up_dataset / "test.jsonl"
    replies = reply_with(conversations, tmp_path / "replies.jsonl", lambda _: "no " * 100_000)
    evaluate(replies, conversations, tmp_path / "out", resamples=0)
    page = tmp_path / "out" / "report.html"
    assert page.stat().st_size < 3_000_000
    assert "(300,000 letters in all)" in page.read_text("utf-8")


def test_the_report_says_which_command_made_it_and_what_metrics_mean(report):
    assert (
        "gastrovl evaluate test.jsonl --conversations test.jsonl --train train.jsonl --resamples 50 --seed 7" in report
    )
    assert "<dt>Matthews correlation (-1 to 1)</dt><dd>correlation of truth and answer" in report


def test_every_case_can_be_linked_and_filtered(report):
    numbers = re.findall(
        r'id="case-(\d+)" tabindex="0" data-task="[A-Z]+" data-dataset="\w+" data-verdict="\w+"', report
    )
    assert [int(number) for number in numbers] == list(range(len(numbers)))
    assert len(numbers) > 20


def test_a_hostile_reply_stays_text(made_up_dataset, reply_with, tmp_path):
    conversations = made_up_dataset / "test.jsonl"
    replies = reply_with(conversations, tmp_path / "replies.jsonl", lambda _: HOSTILE)
    evaluate(replies, conversations, tmp_path / "out", resamples=0)
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert text.count("<script>") == 1
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(2)&gt;" in text
    assert "{{ 7 * 7 }}" in text


def test_unread_and_surely_wrong_replies_come_first(conversation, prediction):
    asked = [conversation(Task.CLS, f"drawn/{i}#CLS-0", terms=["gastric_ulcer"]) for i in range(20)]
    said = ["what?"] * 2 + ["esophagitis"] * 8 + ["gastric ulcer"] * 10
    replies = {
        one.id: prediction(one.id, text).model_copy(update={"confidence": place / 20})
        for place, (one, text) in enumerate(zip(asked, said, strict=True))
    }
    items = pair(list(questions_of(asked)), replies, Taxonomy.load())
    chosen = choose_cases(items, 10, seed=1)
    assert {item.reply.text for item in chosen[:2]} == {"what?"}
    assert [item.reply.confidence for item in chosen[2:6]] == [9 / 20, 8 / 20, 7 / 20, 6 / 20]  # two fifths of 10
    assert len({item.question.id for item in chosen}) == 10
    assert len(choose_cases(items, 100, seed=1)) == 20


def test_a_report_without_images_says_so(made_up_dataset, reply_with, tmp_path):
    conversations = made_up_dataset / "test.jsonl"
    replies = reply_with(conversations, tmp_path / "replies.jsonl", lambda one: one.answer)
    evaluate(replies, conversations, tmp_path / "out", resamples=0, uses_images=False)
    text = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "The images were not opened, on request" in text
    assert 'id="case-0"' not in text
