"""Getting about on the web page in a real browser: images, keys, keyboard, errors, and both widths of a screen."""

from __future__ import annotations

import base64

import pytest

from .browsing import IMAGE, LAPTOP, MARKS, OTHER, PHONE, add, card, drag, expect, opened, upload
from .conftest import Echo, listening, png, seen

KEY = "0123456789abcdef"
pytestmark = MARKS


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
