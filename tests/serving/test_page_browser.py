"""Asking on the web page in a real browser, and what becomes of answers, without a request to any other host."""

from __future__ import annotations

import json
import re

import pytest

from gastrovl.inference.others.rated import import_sessions, read_session
from gastrovl.inference.question import NOTICE
from gastrovl.inference.session import Kind, pixel_digest

from .browsing import IMAGE, MARKS, add, card, drag, expect, saved
from .conftest import seen

pytestmark = MARKS


def test_labels_come_as_bars_with_names_and_how_sure_they_are(page):
    add(page)
    page.click("#classify")
    answer = card(page, 1)

    assert answer.locator(".bars li").all_inner_texts() == ["polyp\n75 %", "gastric ulcer\n13 %"]
    assert answer.locator(".bars .given").all_inner_texts() == ["polyp\n75 %"]
    widths = [bar.evaluate("bar => bar.getBoundingClientRect().width") for bar in answer.locator(".filled").all()]
    assert widths[1] / widths[0] == pytest.approx(0.125 / 0.75, abs=0.01)
    assert "Confidence 75 % not calibrated" in answer.inner_text()


def test_what_is_located_is_drawn_where_it_is_with_its_name(page):
    add(page)
    page.fill("#term", "Polyps")
    page.keyboard.press("Enter")
    card(page, 1)

    frame, mark = page.locator("#shown").bounding_box(), page.locator(".mark").bounding_box()
    assert mark["x"] - frame["x"] == pytest.approx(frame["width"] * 100 / 999, abs=1)
    assert mark["y"] - frame["y"] == pytest.approx(frame["height"] * 200 / 999, abs=1)
    assert mark["width"] == pytest.approx(frame["width"] * 200 / 999, abs=1)
    assert mark["height"] == pytest.approx(frame["height"] * 200 / 999, abs=1)
    expect(page.locator(".mark .words")).to_have_text("Polyps · IoU ≈ 0.63")
    page.locator(".toggle input").uncheck()
    expect(page.locator(".mark")).to_have_count(0)


def test_terms_are_offered_by_name(page):
    names = page.locator("#terms option").evaluate_all("options => options.map((option) => option.value)")

    assert {"polyp", "gastric ulcer"} <= set(names)


def test_a_box_is_drawn_with_the_mouse_and_named(page, site):
    add(page)
    expect(page.locator("#name")).to_be_disabled()
    drag(page, (0.75, 0.5), (0.25, 0.1))  # from the lower right: corners are put in order
    edges = [float(page.input_value(f"#{edge}")) for edge in ("x0", "y0", "x1", "y1")]
    page.click("#name")
    card(page, 1)

    assert edges == pytest.approx([25, 10, 75, 50], abs=0.5)
    assert re.search(r"\[2\d\d,(09|10)\d,7\d\d,(49|50)\d\]", site.engines[0].model.batches[-1][-1])
    expect(page.locator(".mark .words")).to_have_text("gastric ulcer")


def test_a_box_is_typed_and_a_wrong_one_is_explained(page):
    add(page)
    for edge, value in {"x0": "60", "y0": "10", "x1": "50", "y1": "50"}.items():
        page.fill(f"#{edge}", value)
    expect(page.locator("#box-problem")).to_contain_text("Left must lie before right")
    expect(page.locator("#name")).to_be_disabled()
    page.fill("#x1", "100")
    expect(page.locator("#box-problem")).to_be_hidden()
    page.focus("#name")
    page.keyboard.press("Enter")

    expect(card(page, 1).locator(".asked")).to_have_text("What is inside [599,100,999,500]?")


def test_a_dialogue_is_streamed_goes_on_and_begins_anew(page):
    add(page)
    for words in ("What is it?", "And <b>where</b>?"):
        page.fill("#words", words)
        page.keyboard.press("Enter")
        card(page, 1 if words == "What is it?" else 2)
    expect(page.locator("#dialogue")).to_contain_text("2 turns")
    expect(card(page, 2).locator(".text")).to_have_text(f"{seen(IMAGE)} And <b>where</b>?")
    page.click("#forget")
    expect(page.locator("#dialogue")).to_be_hidden()


def test_turns_that_were_said_go_with_the_next_question(page):
    sent = []
    page.on("request", lambda request: sent.append(request.post_data_json) if "chat" in request.url else None)
    add(page)
    for number, words in enumerate(("one", "two"), start=1):
        page.fill("#words", words)
        page.click("#say")
        card(page, number)

    turns = [message["content"] for message in sent[1]["messages"]]
    assert turns[0][1] == {"type": "text", "text": "one"}
    assert turns[1:] == [f"{seen(IMAGE)} one", "two"]


def test_two_models_answer_side_by_side_and_their_agreement_is_said(page):
    add(page)
    page.select_option("#compare", "second")
    page.click("#classify")
    labels = card(page, 1)
    page.fill("#term", "polyp")
    page.click("#locate")
    places = card(page, 2)

    assert labels.locator("h3").all_inner_texts() == ["first", "second"]
    expect(labels.locator(".agreed")).to_have_text("They differ in polyp, gastric ulcer.")
    # boxes of 200 x 200 bins, half a width apart: 20,000 in common of 60,000
    expect(places.locator(".agreed")).to_have_text("Overlap of their boxes: IoU 0.33.")
    expect(page.locator(".mark .words").nth(0)).to_have_text("first: polyp · IoU ≈ 0.63")
    expect(page.locator(".mark.dashed .words")).to_have_text("second: polyp")


def test_the_download_is_a_session_that_ratings_are_read_from(page, site, tmp_path):
    add(page)
    page.select_option("#compare", "second")
    page.click("#classify")
    answer = card(page, 1)
    page.select_option("#compare", "")
    page.fill("#term", "polyp")
    page.click("#locate")
    card(page, 2)
    drag(page, (0.2, 0.2), (0.6, 0.6))
    page.click("#name")
    card(page, 3)
    page.click("#describe")
    card(page, 4)
    page.fill("#words", "Is it flat?")
    page.click("#say")
    card(page, 5)
    asked = [batch[-1] for batch in site.engines[0].model.batches[-4:]]
    answer.locator("[data-model=first] [data-verdict=wrong]").click()
    answer.locator("[data-model=first] .rating input").fill("gastric ulcer; ")
    answer.locator("[data-model=second] [data-verdict=right]").click()

    path = saved(page, tmp_path)
    first, second = read_session(path), read_session(saved(page, tmp_path, "second"))

    assert first.notice == json.loads(path.read_text())["notice"] == NOTICE
    assert (first.model, [one.number for one in first.exchanges]) == ("first", [1, 2, 3, 4, 5])
    assert [one.kind for one in first.exchanges] == [Kind.CLASSIFY, Kind.LOCATE, Kind.NAME, Kind.DESCRIBE, Kind.SAY]
    assert [one.asked for one in first.exchanges] == [*asked, "Is it flat?"]
    assert {(one.image.name, one.image.sha256) for one in first.exchanges} == {("frame.png", pixel_digest(IMAGE))}
    labels, places, region, _, said = first.exchanges
    assert (labels.terms, labels.probabilities["gastric_ulcer"]) == (("polyp_unspecified",), 0.125)
    assert (labels.rating, labels.correction) == ("wrong", "gastric ulcer;")
    assert places.boxes[0].xyxy == pytest.approx((100 / 999, 200 / 999, 300 / 999, 400 / 999))
    assert (places.expected_iou, places.presence, places.confidence) == ((0.625,), 0.9, 0.5)
    assert region.region.xyxy == pytest.approx((0.2, 0.2, 0.6, 0.6), abs=0.01)
    assert (said.text, said.confidence) == (f"{seen(IMAGE)} Is it flat?", 0.25)
    assert [(one.kind, one.rating) for one in second.exchanges] == [(Kind.CLASSIFY, "right")]
    assert import_sessions([path], tmp_path / "ratings", rater="r1").ratings == 1


BELIEF = {
    "withheld": True,
    "fallback": [{"id": "polyp_unspecified", "name": "polyp", "probability": 0.9}],
    "risk": 0.1,
    "risk_is_shown": True,
    "label_set": [{"id": "gastric_ulcer", "name": "gastric ulcer"}],
    "level": 0.9,
    "checks": [{"name": "caption", "passed": False, "detail": "a caption names no ulcer"}],
}


def test_what_a_calibrated_model_withholds_doubts_and_checks_is_shown_and_kept(page, tmp_path):
    def calibrated(route):
        answer = route.fetch().json() | {"belief": BELIEF, "scope": {"verdict": "outside", "reason": "a colon"}}
        route.fulfill(json=answer | {"calibrated": True})

    page.route("**/v1/classify", calibrated)
    add(page)
    page.click("#classify")
    shown = card(page, 1).inner_text()
    kept = read_session(saved(page, tmp_path)).exchanges[0].model_dump(mode="json")

    assert "Withheld: too unsure of “polyp”, but sure of polyp (90 %)." in shown
    assert "The image is perhaps out of scope (a colon)" in shown
    assert "Confidence 75 % calibrated" in shown
    assert "Label set at 90 %: gastric ulcer" in shown
    assert "✗ against it: a caption names no ulcer" in shown
    assert kept["belief"] == {
        "scope": {"verdict": "outside", "reason": "a colon", "strangeness": None, "outsideness": None},
        "is_calibrated": True,
        "label_set": ["gastric_ulcer"],
        "level": 0.9,
        "is_withheld": True,
        "fallback": [{"term": "polyp_unspecified", "probability": 0.9}],
        "risk": 0.1,
        "is_assured": True,
        "checks": BELIEF["checks"],
    }


def test_a_rating_can_be_changed_and_taken_back(page, tmp_path):
    add(page)
    page.click("#describe")
    answer = card(page, 1)
    verdict = answer.locator("[data-verdict=partly]")
    verdict.click()
    answer.locator(".rating input").fill("a flat polyp")
    rated = read_session(saved(page, tmp_path)).exchanges[0]
    verdict.click()
    taken_back = read_session(saved(page, tmp_path)).exchanges[0]

    assert (rated.rating, rated.correction) == ("partly", "a flat polyp")
    assert (taken_back.rating, taken_back.correction) == (None, None)
