"""The web page opened in Chromium, and what a person does on it again and again."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from gastrovl.core.types import Task

from .conftest import Echo, picture, png

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
expect = playwright.expect
expect.set_options(timeout=30_000)  # of a machine that does much else
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
IMAGE, OTHER = picture(1, (320, 240)), picture(2, (240, 320))
LAPTOP, PHONE = (1280, 860), (390, 844)

MARKS = [
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


@contextmanager
def launched():
    """A browser that knows no host but this machine."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


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
