"""The web page in a real browser: everything a person can do on it, without a request to any other host."""

from __future__ import annotations

import base64
import json
import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gastrovl.core.types import Task
from gastrovl.inference.description import NOTICE
from gastrovl.inference.rated import import_sessions, read_session
from gastrovl.inference.session import Kind, pixel_digest

from .conftest import Echo, listening, picture, png, seen

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
expect = playwright.expect
expect.set_options(timeout=30_000)  # of a machine that does much else
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
KEY = "0123456789abcdef"
IMAGE, OTHER = picture(1, (320, 240)), picture(2, (240, 320))
LAPTOP, PHONE = (1280, 860), (390, 844)

pytestmark = [
    pytest.mark.allow_hosts(["127.0.0.1"]),
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium here: apt-get install chromium"),
]


class Second(Echo):
    """Says another label than Echo, and puts what it locates a little further to the right."""

    def _reply(self, question, limit):
        reply = super()._reply(question, limit)
        if question.task is Task.CLS:
            return replace(reply, text="gastric ulcer")
        if question.task is Task.REC:
            return replace(reply, text="[200,200,400,400]", expected_iou=None, presence=None)
        return reply


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield found
        found.close()


@contextmanager
def opened(browser, url, size_wh=LAPTOP, **others):
    """A page of the server; whatever it asks of another host is aborted, and fails at the end, as do its errors."""
    host, foreign, wrong = urlsplit(url).netloc, [], []

    def pass_on(route):
        target = urlsplit(route.request.url)
        is_own = target.scheme in ("blob", "data") or target.netloc == host
        foreign.extend([] if is_own else [route.request.url])
        return route.continue_() if is_own else route.abort()

    context = browser.new_context(viewport={"width": size_wh[0], "height": size_wh[1]}, **others)
    try:
        context.route("**/*", pass_on)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
        page.goto(url)
        expect(page.locator("#files:enabled, #key:visible")).to_have_count(1)
        yield page
    finally:
        context.close()
    assert foreign == []
    assert wrong == []


@pytest.fixture(scope="module")
def site():
    with listening([Echo("first"), Second("second")]) as site:
        yield site


@pytest.fixture
def page(browser, site):
    with opened(browser, site.url) as page:
        yield page


def upload(page, *files):
    given = [{"name": name, "mimeType": "image/png", "buffer": content} for name, content in files]
    page.set_input_files("#files", given)


def add(page, image=IMAGE, name="frame.png"):
    upload(page, (name, png(image)))
    expect(page.locator("#caption")).to_contain_text(name)


def card(page, number):
    """The answer of that number, when it is whole."""
    found = page.locator(f"#answers > li:has(.chip:text-is('{number}'))")
    expect(found.locator(".rating").first).to_be_visible()
    expect(page.locator("#stop")).to_be_hidden()
    return found


def drag(page, start, end):
    """From one place of the image to another, in fractions."""
    frame = page.locator("#shown").bounding_box()
    places = [(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=4)
    page.mouse.up()


def saved(page, tmp_path, model="first"):
    with page.expect_download() as download:
        page.click(f"[data-download={model}]")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    return path


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
    kept = json.loads(saved(page, tmp_path).read_text())["exchanges"][0]

    assert "Withheld: too unsure of “polyp”, but sure of polyp (90 %)." in shown
    assert "The image is perhaps out of scope (a colon)" in shown
    assert "Confidence 75 % calibrated" in shown
    assert "Label set at 90 %: gastric ulcer" in shown
    assert "✗ against it: a caption names no ulcer" in shown
    assert kept["belief"] == {
        "scope": {"verdict": "outside", "reason": "a colon"},
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


def test_several_images_stand_in_a_strip_each_with_its_own_marks(page):
    upload(page, ("one.png", png(IMAGE)), ("<i>two.png", png(OTHER)))
    expect(page.locator("#strip li")).to_have_count(2)
    expect(page.locator("#caption")).to_have_text("<i>two.png · 240 × 320 px")
    page.fill("#term", "polyp")
    page.click("#locate")
    card(page, 1)
    expect(page.locator(".mark")).to_have_count(1)
    page.get_by_label("Show one.png").click()
    expect(page.locator(".mark")).to_have_count(0)
    page.click("#remove")
    expect(page.locator("#strip li")).to_have_count(1)
    expect(page.locator(".mark")).to_have_count(1)


def test_images_can_be_dropped(page):
    page.evaluate(
        """(base64) => {
          const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
          const given = new DataTransfer();
          given.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
          document.getElementById("stage").dispatchEvent(
            new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true }));
        }""",
        base64.b64encode(png(IMAGE)).decode(),
    )

    expect(page.locator("#caption")).to_contain_text("dropped.png")


def test_a_file_that_is_no_image_is_named_and_the_others_stay(page):
    upload(page, ("notes.png", b"no image"), ("frame.png", png(IMAGE)))

    expect(page.locator("#strip li")).to_have_count(1)
    expect(page.locator("#problem")).to_contain_text("notes.png: the image cannot be decoded")


def test_an_answer_that_fails_says_so_and_the_next_one_is_asked(page):
    add(page)
    page.fill("#words", "break down")
    page.click("#say")
    expect(page.locator("#answers .wrong")).to_be_visible()
    expect(page.locator("#answers")).not_to_contain_text("secret")
    page.click("#describe")

    card(page, 2)


def test_an_answer_can_be_stopped(browser):
    slow = Echo("slow", pieces=50, pause_s=0.1)
    with listening([slow]) as site, opened(browser, site.url) as page:
        add(page)
        page.fill("#words", "word " * 60)
        page.click("#say")
        expect(page.locator("#answers .pending")).to_contain_text(seen(IMAGE)[:1])
        page.click("#stop")

        expect(page.locator("#answers .wrong")).to_have_text("Stopped.")
        assert slow.said < 50


def test_a_key_is_asked_for_and_kept_in_memory_only(browser):
    with listening([Echo()], keys=(KEY,)) as site, opened(browser, site.url) as page:
        page.fill("#key", KEY[::-1])
        page.keyboard.press("Enter")
        expect(page.locator("#problem")).to_contain_text("a wrong API key")
        page.fill("#key", KEY)
        page.click("#key-form button")
        expect(page.locator("#key-form")).to_be_hidden()
        add(page)
        page.click("#classify")
        card(page, 1)
        kept = page.evaluate("() => [localStorage.length, sessionStorage.length, document.cookie, location.href]")
        page.reload()

        expect(page.locator("#key-form")).to_be_visible()
        assert kept == [0, 0, "", f"{site.url}/"]


def test_everything_is_reached_by_the_tabulator_key(page):
    add(page)
    for edge, value in {"x0": "10", "y0": "10", "x1": "90", "y1": "90"}.items():
        page.fill(f"#{edge}", value)
    page.click("#describe")
    card(page, 1)
    reached = set()
    page.locator("body").click(position={"x": 2, "y": 60})
    for _ in range(34):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "() => (({ id, ariaLabel, textContent }) => id || ariaLabel || textContent)(document.activeElement)"
            )
        )

    picture_part = {"files", "remove", "Show frame.png", "x0", "y0", "x1", "y1", "draw", "clear-box", "name"}
    ask_part = {"model", "compare", "classify", "describe", "term", "locate", "words", "say"}
    assert picture_part | ask_part | {"Download session", "right", "partly", "wrong"} <= reached


@pytest.mark.parametrize("size_wh", [LAPTOP, PHONE])
def test_nothing_has_to_be_scrolled_sideways_and_the_notice_stays(browser, site, size_wh):
    is_phone = size_wh == PHONE
    with opened(browser, site.url, size_wh, is_mobile=is_phone, has_touch=is_phone) as page:
        add(page, name="a_name_without_an_end_" * 6 + ".png")
        page.select_option("#compare", "second")
        page.click("#classify")
        card(page, 1)
        page.mouse.wheel(0, 600)
        width = page.evaluate("() => document.documentElement.scrollWidth")
        heights = [one.bounding_box()["height"] for one in page.locator("button:visible, select").all()]

        expect(page.locator("#notice")).to_be_in_viewport(ratio=1)
        assert width == size_wh[0]
        assert min(heights) >= 44
        columns = {round(page.locator(f"#{part}").bounding_box()["x"]) for part in ("picture", "talk")}
        assert len(columns) == (1 if is_phone else 2)


def test_a_finger_scrolls_until_drawing_is_switched_on(browser, site):
    with opened(browser, site.url, PHONE, is_mobile=True, has_touch=True) as page:
        add(page)
        drag(page, (0.2, 0.2), (0.6, 0.6))
        expect(page.locator("#x0")).to_have_value("")
        page.tap("#draw")
        expect(page.locator("#draw")).to_have_attribute("aria-pressed", "true")
        drag(page, (0.2, 0.2), (0.6, 0.6))

        expect(page.locator("#x0")).not_to_have_value("")
        assert page.locator("#stage").evaluate("stage => getComputedStyle(stage).touchAction") == "none"
