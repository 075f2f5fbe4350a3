"""A run over a dataset: complete, sorted, resumable after a kill at any moment, and never asking twice what is done."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from gastrovl.core import records
from gastrovl.core.endpoint import UnusableReplyError, data_url
from gastrovl.core.errors import EndpointError, OutputError, RecordError
from gastrovl.core.images import open_image
from gastrovl.core.types import Caption, Finding, Sample, Split, Verdict
from gastrovl.data.captioning import run as run_module
from gastrovl.data.captioning.prompts import load_template
from gastrovl.data.captioning.run import CaptionOptions, caption_dataset

from .conftest import honest

NOTE = load_template("note")


class Model:
    """A model that is a function; `asked` are its prompts."""

    def __init__(self, answer=honest):
        self.answer, self.asked, self.sizes = answer, [], []

    def __call__(self, image, prompt):
        self.asked.append(prompt)
        self.sizes.append(image.size)
        return self.answer(prompt)


def run(folder, output, describe, **changes):
    options = CaptionOptions(
        **{name: changes.pop(name) for name in list(changes) if name in CaptionOptions.model_fields}
    )
    return caption_dataset(
        folder, output, describe, **{"model": "tiny", "template": NOTE, "options": options, **changes}
    )


def test_every_sample_has_one_line_in_order_of_ids(dataset, tmp_path):
    done = run(dataset(5), tmp_path / "captions.jsonl", Model(), workers=3)
    lines = list(records.read_records(tmp_path / "captions.jsonl", Caption))
    assert [line.sample_id for line in lines] == [f"own/{n:03d}" for n in range(5)]
    assert {line.verdict for line in lines} == {Verdict.ACCEPTED}
    assert lines[0].text == "This view of the antrum shows gastric ulcer."
    assert (lines[0].model, lines[0].template, lines[0].attempts) == ("tiny", "note", 1)
    assert done.captions == tuple(lines)
    assert done.asked == 5
    assert not (tmp_path / "captions.jsonl.partial").exists()


def test_the_image_is_shown_no_larger_than_wanted(dataset, tmp_path):
    model = Model()
    run(dataset(1), tmp_path / "c.jsonl", model, most_side_px=64)
    assert model.sizes == [(64, 48)]


def test_a_wrong_caption_is_asked_for_again_with_what_was_wrong(dataset, tmp_path):
    def answer(prompt):
        return honest(prompt) if "wrong in these points" in prompt else "A duodenal ulcer, 8 mm."

    model = Model(answer)
    (line,) = run(dataset(1), tmp_path / "c.jsonl", model).captions
    assert (line.verdict, line.attempts, line.reasons) == (Verdict.ACCEPTED, 2, ())
    assert "A duodenal ulcer, 8 mm." in model.asked[1]
    assert (
        "- invented finding: duodenal ulcer\n- invented size: 8 mm\n- missing finding: gastric ulcer" in model.asked[1]
    )


def test_after_the_last_attempt_a_caption_is_rejected_with_its_reasons(dataset, tmp_path):
    model = Model(lambda _: "A duodenal ulcer.")
    (line,) = run(dataset(1), tmp_path / "c.jsonl", model, attempts=3).captions
    assert len(model.asked) == 3
    assert (line.verdict, line.text, line.attempts) == (Verdict.REJECTED, None, 3)
    assert line.reasons == ("invented finding: duodenal ulcer", "missing finding: gastric ulcer")


def test_a_repaired_caption_keeps_what_was_cut_as_reason(dataset, tmp_path):
    model = Model(lambda prompt: honest(prompt) + " Biopsies were taken.")
    (line,) = run(dataset(1), tmp_path / "c.jsonl", model).captions
    assert (line.verdict, line.text) == (Verdict.REPAIRED, "This view of the antrum shows gastric ulcer.")
    assert line.reasons == ("treatment: biopsies",)
    assert len(model.asked) == 1


def test_a_record_that_states_nothing_is_not_asked_about(dataset, tmp_path):
    model = Model()
    (line,) = run(dataset(1, findings=()), tmp_path / "c.jsonl", model).captions
    assert (line.verdict, line.attempts, model.asked) == (Verdict.REJECTED, 0, [])


def test_only_the_splits_that_are_named_are_captioned(dataset, tmp_path):
    folder = dataset(2, split=Split.TEST)
    with pytest.raises(RecordError, match="no record of the splits train"):
        run(folder, tmp_path / "c.jsonl", Model())
    assert len(run(folder, tmp_path / "c.jsonl", Model(), splits=("test",)).captions) == 2


def test_a_finished_file_is_a_cache_and_stays_byte_for_byte(dataset, tmp_path):
    folder, output, model = dataset(3), tmp_path / "c.jsonl", Model()
    run(folder, output, model)
    before = output.read_bytes()
    assert run(folder, output, model).asked == 0
    assert output.read_bytes() == before
    assert len(model.asked) == 3


def test_a_larger_dataset_asks_for_what_is_new_only(dataset, tmp_path):
    output, model = tmp_path / "c.jsonl", Model()
    run(dataset(2), output, model)
    assert run(dataset(4), output, model).asked == 2


def test_a_changed_record_is_asked_for_again(dataset, tmp_path):
    folder, output, model = dataset(2), tmp_path / "c.jsonl", Model()
    run(folder, output, model)
    first, second = records.read_records(folder / "records.jsonl", Sample)
    other = first.model_copy(update={"findings": (*first.findings, Finding(term="gastritis"))})
    records.write_records(folder / "records.jsonl", [other, second])
    with pytest.raises(OutputError, match="does not ask for"):
        run(folder, output, model)
    assert run(folder, output, model, is_replaced=True).asked == 1


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"template": load_template("visual")},
        {"sampling": {"seed": 1}},
        {"attempts": 3},
        {"limit": 1},
    ],
)
def test_another_request_does_not_overwrite_unasked(dataset, tmp_path, change):
    folder, output = dataset(2), tmp_path / "c.jsonl"
    run(folder, output, Model())
    with pytest.raises(OutputError, match="pass --overwrite to drop them"):
        run(folder, output, Model(), **change)


def broken_at(number):
    """A model that answers `number` images and then is gone."""
    model = Model()

    def answer(image, prompt):
        if len(model.asked) == number:
            raise EndpointError("gone")
        return model(image, prompt)

    return answer


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(dataset, tmp_path):
    folder, model = dataset(6), Model()
    run(folder, tmp_path / "whole.jsonl", Model())
    with pytest.raises(EndpointError):
        run(folder, tmp_path / "c.jsonl", broken_at(4))
    assert not (tmp_path / "c.jsonl").exists()
    assert run(folder, tmp_path / "c.jsonl", model).asked == 2
    assert (tmp_path / "c.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_line_cut_at_any_byte_is_asked_for_again_and_nothing_else(dataset, tmp_path):
    folder, output = dataset(2), tmp_path / "c.jsonl"
    run(folder, tmp_path / "whole.jsonl", Model())
    whole = (tmp_path / "whole.jsonl").read_bytes()
    first = whole.index(b"\n") + 1
    for cut in (first + 1, first + 40, len(whole) - 1):
        (tmp_path / "c.jsonl.partial").write_bytes(whole[:cut])
        output.unlink(missing_ok=True)
        assert run(folder, output, Model()).asked == 1
        assert output.read_bytes() == whole


def test_a_broken_line_in_the_middle_is_named(dataset, tmp_path):
    folder = dataset(2)
    (tmp_path / "c.jsonl.partial").write_text("{}\n")
    with pytest.raises(RecordError, match=r"c\.jsonl\.partial:1"):
        run(folder, tmp_path / "c.jsonl", Model())


def test_a_second_run_does_not_ask_for_what_a_first_is_asking(dataset, tmp_path):
    folder, output, second = dataset(2), tmp_path / "c.jsonl", Model()

    def first(_, prompt):
        with pytest.raises(OutputError, match="another run is writing it"):
            run(folder, output, second)
        return honest(prompt)

    assert run(folder, output, first).asked == 2
    assert second.asked == []


def test_a_run_that_gets_nothing_leaves_nothing(dataset, tmp_path):
    folder = dataset(1)
    with pytest.raises(EndpointError):
        run(folder, tmp_path / "c.jsonl", broken_at(0))
    assert list(tmp_path.iterdir()) == [folder]


def test_an_image_without_a_reply_stops_before_the_file_and_keeps_the_others(dataset, tmp_path):
    def answer(prompt):
        if "body" in prompt:
            raise UnusableReplyError("HTTP 500")
        return honest(prompt)

    folder, output = dataset(3), tmp_path / "c.jsonl"
    with pytest.raises(EndpointError, match=r"1 of 3 images .* own/001: HTTP 500.*--give-up"):
        run(folder, output, Model(answer))
    assert not output.exists()
    again = Model(answer)
    done = run(folder, output, again, gives_up=True)
    assert len(again.asked) == 1
    assert done.unanswered == {"own/001": "HTTP 500"}
    assert [line.verdict for line in done.captions] == [Verdict.ACCEPTED, Verdict.REJECTED, Verdict.ACCEPTED]
    assert done.captions[1].reasons == ("no reply: HTTP 500",)


def test_a_model_that_fails_on_every_image_is_not_asked_to_the_end(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "MOST_UNANSWERED", 3)

    def answer(_):
        raise UnusableReplyError("HTTP 500")

    model = Model(answer)
    with pytest.raises(EndpointError, match="3 images in a row"):
        run(dataset(50), tmp_path / "c.jsonl", model)
    assert len(model.asked) < 50


COMMAND = (sys.executable, "-c", "from gastrovl.cli.app import main; main()", "data", "caption")


def start(folder, output, url):
    options = ("--endpoint", url, "--model", "tiny", "--concurrency", "2", "-o", str(output))
    return subprocess.Popen([*COMMAND, str(folder), *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_killed_again_and_again_a_run_ends_with_the_same_bytes_and_asks_for_no_finished_image_twice(
    dataset, tmp_path, served
):
    """SIGKILL after 3, 7, 12 finished images; the two requests under way then are all that may be sent again."""
    folder, output = dataset(24), tmp_path / "captions.jsonl"
    partial = tmp_path / "captions.jsonl.partial"
    served.seconds = 0.05
    finished_before: dict[str, int] = {}  # sample -> requests that the server had seen when it was found finished
    for wanted in (3, 7, 12):
        process = start(folder, output, served.url)
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.read_bytes().count(b"\n") >= wanted) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        time.sleep(0.2)  # what was under way arrives
        whole = partial.read_bytes().rpartition(b"\n")[0].splitlines()
        for line in whole:
            finished_before.setdefault(json.loads(line)["sample_id"], len(served.requests))
    process = start(folder, output, served.url)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said.decode()

    plain = tmp_path / "plain.jsonl"
    run(folder, plain, Model(), sampling={"max_tokens": 256, "seed": 0})
    assert output.read_bytes() == plain.read_bytes()
    image_of = {}
    for line in records.read_records(output, Caption):
        image_of[line.sample_id] = served.images.index(picture_hash(folder, line.sample_id))
    for sample, seen in finished_before.items():
        assert served.images[image_of[sample]] not in served.images[seen:], f"{sample} was finished and asked again"
    assert len(served.requests) <= 24 + 3 * 2
    assert max(Counter(served.images).values()) <= 4
    assert len(finished_before) >= 12


def picture_hash(folder, sample_id):
    """Hash of the picture as a request holds it."""
    url = data_url(open_image(folder / f"images/{sample_id.removeprefix('own/')}.png"))
    return hashlib.sha256(base64.b64decode(url.partition(",")[2])).hexdigest()
