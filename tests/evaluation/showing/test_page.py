from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from gastrovl.core.errors import PredictionError, RecordError
from gastrovl.core.types import Task
from gastrovl.evaluation.showing.page import write_run_page

VOID = {"meta", "img", "link", "br", "input"}


class Outline(HTMLParser):
    """Checks that tags are balanced, and keeps what the tests ask about."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(page):
    outline = Outline()
    outline.feed(page.read_text("utf-8"))
    assert outline.open == []
    return outline


@pytest.fixture
def page(made_up_run):
    return write_run_page(made_up_run)


def test_the_page_is_one_file_without_remote_asset_or_script(page):
    text = page.read_text("utf-8")
    outline = parse(page)
    addresses = [
        value
        for _, found in outline.tags
        for name, value in found.items()
        if name in ("src", "href", "srcset", "poster")
    ]
    assert addresses
    assert all(re.match(r"data:image/(png|jpeg);base64,|#", address or "") for address in addresses)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in outline.tags}
    assert "@import" not in text
    assert "url(" not in text
    assert page.stat().st_size < 5_000_000


def test_the_page_says_first_that_a_physician_decides(page):
    text = " ".join("".join(parse(page).text).split())
    assert text.index("not a medical device") < text.index("Scores beside trivial baselines")
    assert "a draft; a physician decides" in text


def test_examples_show_every_task_right_and_wrong(page):
    cards = [found["class"].split()[1] for tag, found in parse(page).tags if tag == "li" and "class" in found]
    assert len(cards) >= 24
    assert {"right", "wrong", "text"} <= set(cards)
    text = page.read_text("utf-8")
    assert all(f"<h3>{task}: " in text for task in (Task.CLS, Task.REC, Task.REG, Task.CAP))


def test_true_and_predicted_boxes_are_drawn_apart(page):
    roles = {found["class"] for tag, found in parse(page).tags if tag == "rect"}
    assert roles == {"halo", "true", "predicted", "asked"}


def test_every_score_table_carries_baseline_and_interval(page):
    text = page.read_text("utf-8")
    for caption in ("Overall by task", "By dataset, test", "By dataset, val", "All metrics, test", "All metrics, val"):
        table = text.split(f"<caption>{caption}</caption>")[1].split("</table>")[0]
        assert "best baseline" in table
        assert "[95 % CI]" in table


def test_every_picture_has_words_for_who_cannot_see_it(page):
    assert all(found.get("alt") for tag, found in parse(page).tags if tag == "img")


def test_wide_tables_can_be_reached_and_scrolled_by_keyboard(page):
    scrolls = [found for _, found in parse(page).tags if found.get("class") == "scroll"]
    assert scrolls
    assert all(found["tabindex"] == "0" and found["role"] == "region" and found["aria-label"] for found in scrolls)


def test_every_link_of_the_page_leads_somewhere_on_it(page):
    outline = parse(page)
    ids = {found["id"] for _, found in outline.tags if "id" in found}
    targets = {found["href"][1:] for tag, found in outline.tags if tag == "a"}
    assert {"scores", "examples", "curves", "test", "val", "made"} <= targets
    assert targets <= ids


def test_the_page_tells_how_it_was_made(page):
    text = "".join(parse(page).text)
    assert "drawn: Apache-2.0" in text
    assert "name: made-up" in text
    assert "gastrovl " in text


def test_the_same_run_gives_the_same_page(made_up_run, page):
    first = page.read_bytes()
    assert write_run_page(made_up_run).read_bytes() == first


def test_another_seed_shows_other_examples(made_up_run, page):
    first = page.read_text("utf-8").split('<section id="examples">')[1]
    assert write_run_page(made_up_run, seed=8).read_text("utf-8").split('<section id="examples">')[1] != first


def test_a_reply_cannot_put_markup_into_the_page(made_up_run):
    path = made_up_run / "predictions" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    text = "<script>alert(1)</script><img src=x>"
    path.write_text("".join(json.dumps({**row, "text": text}) + "\n" for row in rows), "utf-8")
    page = write_run_page(made_up_run).read_text("utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_run_without_training_log_has_a_page_without_curves(made_up_run):
    (made_up_run / "train" / "log.jsonl").unlink()
    text = write_run_page(made_up_run).read_text("utf-8")
    assert 'id="curves"' not in text
    assert 'href="#curves"' not in text


def test_a_broken_log_line_is_owned_up_to(made_up_run):
    with (made_up_run / "train" / "log.jsonl").open("a") as stream:
        stream.write('{"step": 3')
    assert "1 line(s) of train/log.jsonl could not be read" in write_run_page(made_up_run).read_text("utf-8")


def test_one_evaluated_split_is_enough(made_up_run):
    (made_up_run / "evaluation" / "test" / "results.json").unlink()
    assert "Examples from the val split" in write_run_page(made_up_run).read_text("utf-8")


def test_a_folder_without_evaluation_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(RecordError, match="gastrovl evaluate"):
        write_run_page(tmp_path)
    assert not (tmp_path / "index.html").exists()


def test_predictions_changed_since_are_refused_and_the_old_page_stays(made_up_run, page):
    before = page.read_bytes()
    (made_up_run / "predictions" / "test.jsonl").write_text("")
    with pytest.raises(PredictionError):
        write_run_page(made_up_run)
    assert page.read_bytes() == before
