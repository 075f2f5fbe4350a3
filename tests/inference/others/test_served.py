"""A server that errs, hangs, limits and babbles: every question is answered or counted, once, also over a kill."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from PIL import Image

from gastrovl.clinical.answers import ParseFailure, parse_answer
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.boxtext import encode_box
from gastrovl.core.errors import ConfigError, EndpointError, OutputError, PredictionError
from gastrovl.core.records import read_records, write_records
from gastrovl.core.types import Conversation, Prediction, Target, Task, Turn
from gastrovl.inference import batch as batch_module
from gastrovl.inference.batch import predict_file
from gastrovl.inference.loading import answerer_of
from gastrovl.inference.others.description import ModelDescription
from gastrovl.inference.runrecord import read_run

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture
def conversations(tiny_data):
    return tiny_data(images=3)


@pytest.fixture
def describe(served):
    """`describe(workers=2, **fields)`: a description of the server of this test."""

    def make(workers=1, attempts=2, timeout_s=0.5, **fields):
        server = {"url": served.url, "model": "m", "workers": workers, "attempts": attempts, "timeout_s": timeout_s}
        return ModelDescription.model_validate({"kind": "openai", "name": "rival", "server": server, **fields})

    return make


@pytest.fixture
def ask(conversations, tmp_path, describe, monkeypatch):
    """`ask(name, **fields)`: answer all conversations into NAME.jsonl; returns its predictions. Waits are short."""
    monkeypatch.setattr("gastrovl.core.endpoint.Pace.__init__.__defaults__", (time.monotonic, lambda _: None))

    def run(name="out", retries_failed=False, **fields):
        output = tmp_path / f"{name}.jsonl"
        answerer = answerer_of(describe(**fields), conversations)
        predict_file(answerer, conversations, output, retries_failed=retries_failed)
        return list(read_records(output, Prediction))

    return run


def texts(request):
    """The words of each turn of a request."""
    said = [turn["content"] for turn in request["messages"]]
    return [content if isinstance(content, str) else content[-1]["text"] for content in said]


def test_every_question_is_asked_once_and_answered_in_the_order_of_the_file(ask, served, conversations):
    asked = list(read_records(conversations, Conversation))

    predictions = ask(workers=4)

    assert [one.conversation_id for one in predictions] == [one.id for one in asked]
    assert [one.text for one in predictions] == [one.turns[0].text for one in asked]
    assert sorted(texts(one)[-1] for one in served.requests) == sorted(one.turns[0].text for one in asked)
    assert {(one.model, one.stop_reason, one.form) for one in predictions} == {("rival", "end", None)}
    assert all(one.usage.attempts == 1 and one.usage.prompt_tokens == 11 for one in predictions)


def test_the_prompt_of_its_task_stands_behind_the_last_question(ask, served):
    ask(
        prompts={"CLS": "One of: {labels}.", "REC": 'JSON {{"box": [..]}} in {width}x{height}.'},
        labels=("polyp", "cancer"),
        system="Be brief.",
        image={"most_side_px": 32},
        most_tokens={"REC": 33},
    )

    said = {texts(one)[-1]: one for one in served.requests}
    assert "What does the image show?\nOne of: polyp; cancer." in said
    request = said['Where is the polyp?\nJSON {"box": [..]} in 32x32.']
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert request["max_tokens"] == 33
    picture = base64.b64decode(request["messages"][1]["content"][0]["image_url"]["url"].partition(",")[2])
    assert Image.open(io.BytesIO(picture)).size == (32, 32)


def test_a_prompt_with_the_question_or_the_thing_in_it_takes_the_questions_place(ask, served):
    ask(prompts={"REC": "detect {asked}", "CLS": "Look: {question} Say."})

    said = [texts(one)[-1] for one in served.requests]
    assert "detect esophagitis" in said
    assert said.count("Look: What does the image show? Say.") == 3


def test_boxes_of_a_question_are_written_in_the_models_form(ask, served):
    form = {"boxes": {"scale": "pixels", "syntax": "tags"}}
    predictions = ask(form=form, image={"most_side_px": 32})

    said = [texts(one)[-1] for one in served.requests]
    assert "What lies in <box>(4,8),(16,24)</box>?" in said  # 1/8, 2/8, 4/8, 6/8 of 32 pixels
    assert {one.image_wh for one in predictions} == {(32, 32)}
    assert {one.form.boxes.scale for one in predictions} == {"pixels"}


def test_a_reply_in_the_models_form_is_read_as_the_box_it_means(ask, served, conversations):
    """The server answers with the true box in pixels of the image as it was sent."""
    asked = {one.turns[0].text: one for one in read_records(conversations, Conversation)}

    def answer(text):
        box = asked[text].target.boxes[0] if asked.get(text) and asked[text].task is Task.REC else None
        return "nothing" if box is None else json.dumps([{"bbox_2d": [round(32 * v) for v in box.xyxy], "label": "x"}])

    served.answer = answer
    form = {"boxes": {"scale": "pixels", "syntax": "json", "key": "bbox_2d"}}
    predictions = {one.conversation_id: one for one in ask(form=form, image={"most_side_px": 32})}

    for one in asked.values():
        if one.task is Task.REC:
            said = predictions[one.id]
            parsed = parse_answer(one.task, said.text, Taxonomy.load(), said.form, said.image_wh)
            assert parsed.boxes == one.target.boxes
            assert isinstance(parse_answer(one.task, said.text, Taxonomy.load()), ParseFailure)


def test_an_earlier_exchange_is_sent_as_turns_of_their_speakers(conversations, describe, served, tmp_path):
    first = next(read_records(conversations, Conversation))
    box = encode_box(next(one for one in read_records(conversations, Conversation) if one.target.boxes).target.boxes[0])
    said = ("Where is it?", box, f"And what is in {box}?", "polyp")
    turns = tuple(Turn(role="assistant" if n % 2 else "user", text=text) for n, text in enumerate(said))
    one = first.model_copy(update={"turns": turns, "task": Task.REG, "target": Target(terms=("polyp",))})
    path = conversations.parent / "talk.jsonl"
    write_records(path, [one])

    form = {"boxes": {"scale": "0-1000", "syntax": "lists"}}
    predict_file(answerer_of(describe(form=form), path), path, tmp_path / "talk-out.jsonl")

    (request,) = served.requests  # bins 125,250,500,749 of 999
    assert [turn["role"] for turn in request["messages"]] == ["user", "assistant", "user"]
    assert texts(request) == ["Where is it?", "[125, 250, 501, 750]", "And what is in [125, 250, 501, 750]?"]
    assert [part["type"] for part in request["messages"][0]["content"]] == ["image_url", "text"]


def test_errors_limits_hangs_and_garbage_are_survived(ask, served, conversations):
    served.plan = [
        500,
        ("status", 429, {"Retry-After": "0"}),
        "garbage",
        "hang",
        "truncated",
        "empty",
        503,
        ("status", 429, {"Retry-After": "soon"}),
    ]

    predictions = ask(workers=2, attempts=9)

    assert {one.stop_reason for one in predictions} == {"end"}
    assert sum(one.usage.attempts for one in predictions) == 12 + 8
    assert len(served.requests) == 20
    assert [one.text for one in predictions] == [one.turns[0].text for one in read_records(conversations, Conversation)]


def test_a_question_without_a_usable_reply_is_counted_and_can_be_asked_again(ask, served, tmp_path):
    served.plan = ["garbage", "garbage", 400]

    predictions = ask()

    failed = [one for one in predictions if one.stop_reason == "failed"]
    assert [one.text for one in failed] == ["", ""]
    assert "no chat completion" in failed[0].failure
    assert "HTTP 400" in failed[1].failure
    assert isinstance(parse_answer(Task.CLS, failed[0].text, Taxonomy.load()), ParseFailure)
    run = read_run(tmp_path / "out.jsonl")
    assert (run.replies, run.failures) == (12, 2)
    assert "2 without a usable reply" in run.lines()[1]

    with pytest.raises(OutputError, match="--retry-failed asks for failures only"):
        ask()
    seen = len(served.requests)
    again = ask(retries_failed=True)

    assert len(served.requests) - seen == 2
    kept = [one for one in predictions if one.stop_reason == "end"]
    assert [one for one in again if one in kept] == kept
    assert {one.stop_reason for one in again} == {"end"}
    assert read_run(tmp_path / "out.jsonl").failures == 0


def test_failures_are_asked_again_of_the_same_model_only(ask, served):
    served.plan = [400]
    ask()

    with pytest.raises(PredictionError, match="another description"):
        ask(retries_failed=True, system="Be kind.")
    assert {one.stop_reason for one in ask(retries_failed=True, workers=3)} == {"end"}  # only faster


def test_a_server_that_is_gone_stops_the_run_and_what_was_answered_is_kept(ask, served, tmp_path):
    seen = []

    def answer(text):
        seen.append(text)
        if len(seen) == 5:
            served.plan = [401]
        return text

    served.answer = answer
    with pytest.raises(EndpointError, match="HTTP 401"):
        ask()
    assert not (tmp_path / "out.jsonl").exists()
    assert (tmp_path / "out.jsonl.partial").read_bytes().count(b"\n") == 1 + 5

    assert len(ask()) == 12
    assert len(served.requests) == 12 + 1


def test_nobody_listening_is_one_message(conversations, tmp_path, describe):
    description = describe(attempts=1)
    server = description.server.model_copy(update={"url": "http://127.0.0.1:1/v1"})
    gone = answerer_of(description.model_copy(update={"server": server}), conversations)

    with pytest.raises(EndpointError, match="is the server running"):
        predict_file(gone, conversations, tmp_path / "out.jsonl")
    assert list(tmp_path.glob("out*")) == []


def test_a_server_that_fails_on_everything_is_not_asked_to_the_end(ask, served, monkeypatch):
    monkeypatch.setattr(batch_module, "MOST_FAILED", 3)
    served.plan = [400] * 99

    with pytest.raises(EndpointError, match=r"3 questions in a row.*--retry-failed"):
        ask()

    assert len(served.requests) == 3
    served.plan = []
    assert {one.stop_reason for one in ask(retries_failed=True)} == {"end"}


def test_a_cut_reply_says_so(ask, served):
    served.plan = ["cut"]

    assert Counter(one.stop_reason for one in ask()) == {"length": 1, "end": 11}


def test_costs_are_worked_out_from_the_servers_own_counts(ask, tmp_path):
    prices = {"currency": "EUR", "input_per_million": 1000.0, "output_per_million": 10_000.0}

    predictions = ask(prices=prices)

    assert predictions[0].usage.cost == pytest.approx(11 * 1000 / 1e6 + 5 * 10_000 / 1e6)  # 0.061
    run = read_run(tmp_path / "out.jsonl")
    assert (run.cost, run.currency) == (pytest.approx(12 * 0.061), "EUR")
    assert (run.prompt_tokens, run.completion_tokens, run.attempts) == (12 * 11, 12 * 5, 12)
    assert run.lines()[-1] == "cost: 0.7320 EUR"


def test_the_key_is_sent_and_never_written(served, tmp_path, monkeypatch, conversations, describe):
    monkeypatch.setenv("RIVAL_KEY", "geheim-77")
    description = describe()
    server = description.server.model_copy(update={"key_env": "RIVAL_KEY"})
    answerer = answerer_of(description.model_copy(update={"server": server}), conversations)

    predict_file(answerer, conversations, tmp_path / "out.jsonl")

    assert {one["Authorization"] for one in served.headers} == {"Bearer geheim-77"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"geheim-77" in path.read_bytes()]
    monkeypatch.delenv("RIVAL_KEY")
    with pytest.raises(ConfigError, match="RIVAL_KEY is not set"):
        answerer_of(description.model_copy(update={"server": server}), conversations)


def test_several_requests_are_under_way_at_once_and_no_more_than_wished(ask, served):
    lock, now, most = threading.Lock(), [0], [0]

    def answer(text):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return text

    served.answer = answer
    ask(workers=3)
    assert most[0] == 3


def test_images_do_not_leave_this_machine_without_leave(describe, conversations):
    description = describe()
    server = description.server.model_copy(update={"url": "https://example.org/v1"})
    with pytest.raises(ConfigError, match="another machine"):
        answerer_of(description.model_copy(update={"server": server}), conversations)


def start(model, conversations, output):
    """`gastrovl predict` in a process of its own, on a machine without PyTorch."""
    script = "import sys; sys.modules['torch'] = None; from gastrovl.cli.app import main; main()"
    command = [sys.executable, "-c", script, "predict", str(model), str(conversations), "-o", str(output)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_killed_again_and_again_a_run_asks_no_finished_question_twice(drawn, tmp_path, served):
    """SIGKILL after 3, 9, 16 finished replies; the three requests under way then are all that may be sent again."""
    conversations = drawn(tmp_path / "data", images=8)
    asked = [
        one.model_copy(update={"turns": (Turn(role="user", text=one.id), one.turns[1])})
        for one in read_records(conversations, Conversation)
    ]
    write_records(conversations, asked)
    model, output = tmp_path / "model.yaml", tmp_path / "out.jsonl"
    server = f"{{url: '{served.url}', model: m, workers: 3}}"
    model.write_text(f"kind: openai\nname: rival\nserver: {server}\n", encoding="utf-8")
    partial = tmp_path / "out.jsonl.partial"
    served.seconds = 0.04
    finished: dict[str, int] = {}  # question -> requests that the server had seen when it was found finished
    for wanted in (3, 9, 16):
        process = start(model, conversations, output)
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.read_bytes().count(b"\n") > wanted) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        time.sleep(0.2)  # what was under way arrives
        for line in partial.read_bytes().rpartition(b"\n")[0].splitlines()[1:]:
            finished.setdefault(json.loads(line)["conversation_id"], len(served.requests))
    process = start(model, conversations, output)
    said, _ = process.communicate(timeout=120)

    assert process.returncode == 0, said.decode()
    assert b"32 replies; " in said
    predictions = list(read_records(output, Prediction))
    assert [(one.conversation_id, one.text) for one in predictions] == [(one.id, one.id) for one in asked]
    requests = [texts(one)[-1] for one in served.requests]
    assert set(requests) == {one.id for one in asked}
    assert len(requests) <= 32 + 3 * 3
    assert len(finished) >= 16
    assert not [name for name, seen in finished.items() if name in requests[seen:]]
