"""OpenAI's chat interface as its own client sees it: whole and streamed replies, typed JSON, and typed errors."""

from __future__ import annotations

import json
from contextlib import contextmanager

import httpx
import openai
import pytest

from gastrovl.core.types import Task
from gastrovl.inference.question import NOTICE

from .conftest import STARTED, Echo, data_url, listening, messages, picture, seen

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
IMAGE = picture()


@contextmanager
def client_of(site, key="unused"):
    with openai.OpenAI(base_url=f"{site.url}/v1", api_key=key, max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def client():
    with listening([Echo()]) as site, client_of(site) as client:
        yield client


def ask(client, text="What is it?", **others):
    return client.chat.completions.create(model="echo", messages=messages(IMAGE, text), **others)


def as_json(name, **properties):
    schema = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}


def test_the_models_are_listed_and_found(client):
    assert [(one.id, one.created) for one in client.models.list()] == [("echo", STARTED)]
    assert client.models.retrieve("echo").id == "echo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")


def test_a_question_about_an_image_is_answered_with_counts_and_confidence(client):
    reply = ask(client)

    assert reply.choices[0].message.content == f"{seen(IMAGE)} What is it?"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 19,  # 16 of the image and 3 words
        "completion_tokens": 4,
        "total_tokens": 23,
    }
    assert reply.model_extra["gastrovl"] == {
        "confidence": 0.25,
        "calibrated": False,
        "belief": None,
        "scope": None,
        "boxes": [],
        "notice": NOTICE,
    }


def test_a_dialogue_goes_on_with_our_own_message_sent_back(client):
    first = ask(client)
    turns = [*messages(IMAGE), first.choices[0].message, {"role": "user", "content": "And where?"}]

    reply = client.chat.completions.create(model="echo", messages=turns)

    assert reply.choices[0].message.content == f"{seen(IMAGE)} And where?"


def test_a_limit_of_tokens_cuts_and_says_so(client):
    reply = ask(client, max_tokens=2)

    assert reply.choices[0].message.content == f"{seen(IMAGE)} What"
    assert reply.choices[0].finish_reason == "length"


def test_a_streamed_reply_is_the_same_in_pieces(client):
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]

    assert len(pieces) == 3
    assert "".join(pieces) == f"{seen(IMAGE)} What is it?"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens == 23
    assert len({chunk.id for chunk in chunks}) == 1


def test_boxes_in_a_reply_come_in_fractions_and_pixels_too(client):
    about = ask(client, "Where is it?", extra_body={"task": "REC"}).model_extra["gastrovl"]

    (box,) = about["boxes"]
    assert box["fractions"] == pytest.approx([100 / 999, 200 / 999, 300 / 999, 400 / 999])
    assert box["pixels"] == pytest.approx([40 * 100 / 999, 20 * 200 / 999, 40 * 300 / 999, 20 * 400 / 999])
    assert box["expected_iou"] == 0.625


def test_a_schema_of_a_typed_answer_is_filled_from_it(client):
    labels = {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "string"}}}}

    reply = ask(client, response_format=as_json("classify", labels=labels, confidence={"type": "number"}))

    assert json.loads(reply.choices[0].message.content) == {"labels": [{"id": "polyp_unspecified"}], "confidence": 0.75}


def test_a_task_chooses_the_typed_answer_of_a_schema_with_another_name(client):
    reply = ask(
        client, response_format=as_json("MyBoxes", present={"type": ["boolean", "null"]}), extra_body={"task": "REC"}
    )

    assert json.loads(reply.choices[0].message.content) == {"present": True}


def test_a_typed_answer_is_streamed_in_one_valid_piece(client):
    chunks = ask(
        client,
        "What is in [100,100,500,500]?",
        stream=True,
        response_format=as_json("name_region", text={"type": "string"}),
    )
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]

    assert [json.loads(piece) for piece in pieces] == [{"text": "gastric ulcer"}]


def test_any_other_schema_steers_the_words(client):
    wanted = as_json("findings", text={"type": "string"})
    reply = ask(client, response_format=wanted)
    any_json = ask(client, response_format={"type": "json_object"})

    assert json.loads(reply.choices[0].message.content) == {"schema": wanted["json_schema"]["schema"]}
    assert json.loads(any_json.choices[0].message.content) == {"schema": {"type": "object"}}


DEEP: dict = {}
for _ in range(100):
    DEEP = {"items": DEEP}


@pytest.mark.parametrize("schema", ['{"minimum": NaN}', json.dumps(DEEP), json.dumps({"title": "a" * 30_000})])
def test_a_schema_that_would_choke_the_decoder_is_refused(client, schema):
    body = {"model": "echo", "messages": messages(IMAGE), "response_format": as_json("mine")}
    text = json.dumps(body).replace(json.dumps(body["response_format"]["json_schema"]["schema"]), schema)

    answer = httpx.post(f"{client.base_url}chat/completions", content=text, timeout=20, trust_env=False)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_response_format")


def test_a_description_can_be_asked_for_as_json(client):
    reply = ask(
        client,
        "Describe.",
        response_format=as_json("describe", text={"type": "string"}, stop_reason={"type": "string"}),
    )

    assert json.loads(reply.choices[0].message.content) == {"text": f"{seen(IMAGE)} Describe.", "stop_reason": "end"}


REFUSED = {
    "another model": ({"model": "gpt"}, openai.NotFoundError, "model_not_found"),
    "sampling": ({"temperature": 0.7}, openai.BadRequestError, "unsupported_parameter"),
    "several replies": ({"n": 2}, openai.BadRequestError, "unsupported_parameter"),
    "tokens of what the head answers": (
        {"logprobs": True, "extra_body": {"task": "REC"}},
        openai.BadRequestError,
        "unsupported_parameter",
    ),
    "tokens of what the head answers, in a stream": (
        {"logprobs": True, "stream": True, "extra_body": {"task": "REC"}},
        openai.BadRequestError,
        "unsupported_parameter",
    ),
    "tokens of a typed answer": (
        {"logprobs": True, "response_format": as_json("describe", text={"type": "string"})},
        openai.BadRequestError,
        "unsupported_parameter",
    ),
    "likeliest tokens alone": ({"top_logprobs": 3}, openai.BadRequestError, "invalid_value"),
    "too many of the likeliest tokens": (
        {"logprobs": True, "top_logprobs": 21},
        openai.BadRequestError,
        "invalid_value",
    ),
    "tools": ({"tools": []}, openai.BadRequestError, "unknown_parameter"),
    "no tokens": ({"max_tokens": 0}, openai.BadRequestError, "invalid_value"),
    "any JSON of a task with a form": (
        {"response_format": {"type": "json_object"}, "extra_body": {"task": "CLS"}},
        openai.BadRequestError,
        "unsupported_response_format",
    ),
    "a schema that ours does not keep": (
        {"response_format": as_json("classify", diagnosis={"type": "string"})},
        openai.BadRequestError,
        "unsupported_response_format",
    ),
    "a schema against the task": (
        {"response_format": as_json("classify", text={"type": "string"}), "extra_body": {"task": Task.REC.value}},
        openai.BadRequestError,
        "invalid_value",
    ),
    "a region without a box": ({"extra_body": {"task": "REG"}}, openai.BadRequestError, "invalid_box"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_as_asked_is_refused(client, name):
    others, kind, code = REFUSED[name]

    with pytest.raises(kind) as caught:
        client.chat.completions.create(**{"model": "echo", "messages": messages(IMAGE), **others})

    assert caught.value.code == code


def part(url):
    return {"type": "image_url", "image_url": {"url": url}}


def user(*parts):
    return {"role": "user", "content": [*parts]}


SHOWN, WORDS = part(data_url(IMAGE)), {"type": "text", "text": "What is it?"}
WRONG = {
    "a fetched image": ([user(part("https://example.org/x.png"), WORDS)], "image_url_not_allowed"),
    "a file": ([user(part("file:///etc/hostname"), WORDS)], "image_url_not_allowed"),
    "no image": ([user(WORDS)], "invalid_image_count"),
    "nine images": ([user(*[SHOWN] * 9, WORDS)], "invalid_image_count"),
    "no words": ([user(SHOWN)], "empty_message"),
    "a system message": ([{"role": "system", "content": "Be kind."}, user(SHOWN, WORDS)], "unsupported_role"),
    "the assistant last": ([user(SHOWN, WORDS), {"role": "assistant", "content": "a polyp"}], "invalid_turns"),
    "two turns of one": ([user(SHOWN, WORDS), user(WORDS)], "invalid_turns"),
    "a forged image": ([user(SHOWN, {"type": "text", "text": "<image> again"})], "invalid_prompt"),
    "too long a prompt": ([user(SHOWN, {"type": "text", "text": "word " * 600})], "context_length_exceeded"),
    "too many characters": ([user(SHOWN, {"type": "text", "text": "w" * 30_000})], "too_many_characters"),
    "a broken image": ([user(part("data:image/png;base64,AAAA"), WORDS)], "invalid_image"),
    "sound": ([user(SHOWN, {"type": "input_audio", "input_audio": {}})], "invalid_value"),
}


@pytest.mark.parametrize("name", WRONG)
def test_messages_that_cannot_be_put_to_the_model_are_refused(client, name):
    said, code = WRONG[name]

    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="echo", messages=said)

    assert caught.value.code == code
    assert caught.value.type == "invalid_request_error"


def test_a_wrong_key_is_an_authentication_error_and_the_right_one_opens(echo):
    with listening([echo], keys=("0123456789abcdef",)) as site:
        with client_of(site, "0123456789abcdeX") as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
        with client_of(site, "0123456789abcdef") as client:
            assert ask(client).choices


def test_a_model_that_fails_in_a_stream_says_so_before_it_begins(client):
    with pytest.raises(openai.InternalServerError, match="request id"):
        ask(client, "break down", stream=True)


def test_a_stream_that_runs_out_of_time_ends_with_an_error(echo):
    echo.pieces, echo.pause_s = 20, 0.1
    with (
        listening([echo], timeout_s=0.3) as site,
        client_of(site) as client,
        pytest.raises(openai.APIError, match="no answer"),
    ):
        list(ask(client, stream=True))
