"""A real, tiny checkpoint behind the server: what comes over the wire is what its predictor says."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import BoxTextError, ConfigError, ModelInputError
from gastrovl.core.types import Box
from gastrovl.inference import asking
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.model.checkpoint import build_model, save_checkpoint
from gastrovl.serving.app import load_engines
from gastrovl.serving.checkpoints import ServedCheckpoint
from gastrovl.serving.settings import ServerSettings

from .conftest import data_url, listening, messages, picture, png

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
IMAGES = [picture(number, (48, 36)) for number in range(6)]


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    """A checkpoint of random weights."""
    model, processor = build_model(tiny_model("mlp"), seed=1)
    folder = tmp_path_factory.mktemp("served") / "tiny"
    save_checkpoint(folder, model, processor, "tiny")
    return folder


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor.load(folder, "cpu")


@pytest.fixture(scope="module")
def site(folder):
    with listening([ServedCheckpoint.load(folder, device="cpu")], max_batch=4, max_new_tokens=24) as site:
        yield site


def test_a_chat_reply_is_what_the_predictor_says(site, predictor):
    expected = predictor.answer([Question(IMAGES[0], (("user", "What is it?"),))], 6)[0]

    with openai.OpenAI(base_url=f"{site.url}/v1", api_key="unused", max_retries=0) as client:
        reply = client.chat.completions.create(model="tiny", messages=messages(IMAGES[0]), max_tokens=6)
        chunks = client.chat.completions.create(model="tiny", messages=messages(IMAGES[0]), max_tokens=6, stream=True)
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    assert reply.choices[0].message.content == streamed == expected.text
    assert reply.model_extra["gastrovl"]["confidence"] == pytest.approx(expected.confidence, abs=1e-6)
    prompt = predictor.processor.encode_prompt((("user", "What is it?"),), IMAGES[0].size)
    assert reply.usage.prompt_tokens == len(prompt)


def test_log_probabilities_of_tokens_come_in_the_form_of_openai(site, predictor):
    asked = Question(IMAGES[0], (("user", "What is it?"),), top_logprobs=2)
    expected = predictor.answer([asked], 6)[0].tokens

    with openai.OpenAI(base_url=f"{site.url}/v1", api_key="unused", max_retries=0) as client:
        wanted = {"model": "tiny", "messages": messages(IMAGES[0]), "max_tokens": 6, "logprobs": True}
        whole = client.chat.completions.create(**wanted, top_logprobs=2)
        bare = client.chat.completions.create(**wanted)
        none = client.chat.completions.create(**wanted | {"logprobs": False})
        chunks = list(client.chat.completions.create(**wanted, top_logprobs=2, stream=True))

    said = whole.choices[0].logprobs.content
    assert len(said) == len(expected) == whole.usage.completion_tokens
    for one, token in zip(said, expected, strict=True):
        assert (bytes(one.bytes), one.token) == (token.said, token.said.decode("utf-8", "replace"))
        assert one.logprob == pytest.approx(token.log, abs=1e-4)
        assert [bytes(other.bytes) for other in one.top_logprobs] == [said for said, _ in token.likeliest]
        assert [other.logprob for other in one.top_logprobs] == pytest.approx(
            [log for _, log in token.likeliest], abs=1e-4
        )
    assert whole.choices[0].message.content in b"".join(bytes(one.bytes) for one in said).decode("utf-8", "replace")
    assert [one.top_logprobs for one in bare.choices[0].logprobs.content] == [[]] * len(said)
    assert none.choices[0].logprobs is None
    by_chunk = [chunk.choices[0] for chunk in chunks]
    streamed = [one for chunk in by_chunk if chunk.logprobs for one in chunk.logprobs.content]
    assert [one.bytes for one in streamed] == [one.bytes for one in said]
    assert [one.logprob for one in streamed] == pytest.approx([one.logprob for one in said], abs=1e-4)
    assert all(chunk.logprobs for chunk in by_chunk if chunk.delta.content)  # with the words that they make up


def test_several_images_stand_where_they_are_sent(site, predictor):
    first, second = messages(IMAGES[0])[0], messages(IMAGES[1], "And here?")[0]
    said = [first, {"role": "assistant", "content": "polyp"}, second]
    turns = (("user", "What is it?"), ("assistant", "polyp"), ("user", "And here?"))
    expected = predictor.answer([Question(IMAGES[0], turns, further=((2, IMAGES[1]),))], 6)[0]

    with openai.OpenAI(base_url=f"{site.url}/v1", api_key="unused", max_retries=0) as client:
        reply = client.chat.completions.create(model="tiny", messages=said, max_tokens=6)
        alone = client.chat.completions.create(model="tiny", messages=messages(IMAGES[0]), max_tokens=6)
        for task, code in (("REC", "invalid_image_count"), ("CLS", "invalid_image_count")):
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat.completions.create(model="tiny", messages=said, extra_body={"task": task})
            assert caught.value.code == code
        boxed = [*said[:2], messages(IMAGES[1], "What is in [1,2,3,4]?")[0]]
        with pytest.raises(openai.BadRequestError, match="does not say in which of them it lies"):
            client.chat.completions.create(model="tiny", messages=boxed)

    assert reply.choices[0].message.content == expected.text
    assert reply.model_extra["gastrovl"]["confidence"] == pytest.approx(expected.confidence, abs=1e-6)
    assert reply.model_extra["gastrovl"]["boxes"] == []
    assert reply.usage.prompt_tokens > alone.usage.prompt_tokens + 16


def test_typed_answers_are_those_of_the_predictor(site, predictor):
    image, box = IMAGES[1], Box(x0=0.25, y0=0.25, x1=0.75, y1=0.75)
    said = {"image": data_url(image)}

    expected = [
        predictor.answer([question], 24)[0]
        for question in (asking.classify(image), asking.name_region(image, box), asking.locate(image, "polyp"))
    ]

    labels = site.client.post("/v1/classify", json=said).json()
    region = site.client.post("/v1/name-region", json=said | {"box": box.xyxy}).json()
    place = site.client.post("/v1/locate", json=said | {"what": "polyp"}).json()

    assert [one["text"] for one in (labels, region, place)] == [reply.text for reply in expected]
    terms = asking.label_answer(expected[0], Taxonomy.load()).terms
    assert [label["id"] for label in labels["labels"]] == list(terms)
    assert labels["confidence"] == pytest.approx(expected[0].confidence, abs=1e-6)


def test_answers_of_many_clients_at_once_are_those_of_each_alone(site, predictor):
    asked = [(image, text) for image in IMAGES for text in ("What is it?", "Describe the image.", "Where is it?")]
    alone = [predictor.answer([Question(image, (("user", text),))], 6)[0].text for image, text in asked]

    def ask(one):
        body = {"model": "tiny", "messages": messages(*one), "max_tokens": 6}
        return site.client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]

    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(ask, asked))

    assert len(set(alone)) > 3
    assert together == alone


def test_an_image_in_a_form_is_seen_as_the_same_image_in_json(site):
    by_form = site.client.post("/v1/classify", files={"image": ("x.png", png(IMAGES[2]))}).json()

    assert by_form == site.client.post("/v1/classify", json={"image": data_url(IMAGES[2])}).json()


@pytest.mark.parametrize("mark", ["<image>", "<|user|>", "<|end|>"])
def test_words_that_would_forge_a_turn_or_an_image_are_refused(folder, mark):
    served = ServedCheckpoint.load(folder, device="cpu")

    with pytest.raises(ModelInputError, match="meaning of its own"):
        served.prompt_length(Question(IMAGES[0], (("user", f"polyp {mark} ulcer"),)))


def test_a_reversed_box_is_refused_by_a_model_that_takes_regions(tiny_model):
    model, processor = build_model(tiny_model("pool"), seed=1)
    served = ServedCheckpoint(Predictor(model, processor, _card()))

    with pytest.raises(BoxTextError):
        served.prompt_length(Question(IMAGES[0], (("user", "What is in [500,500,100,100]?"),)))


def test_a_prompt_that_fills_the_context_is_refused(site):
    answer = site.client.post(
        "/v1/chat/completions", json={"model": "tiny", "messages": messages(IMAGES[0], "polyp " * 600)}
    )

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_a_reply_ends_where_the_context_ends(site, predictor):
    served = ServedCheckpoint(predictor)

    def room(words):
        return served.room(served.prompt_length(Question(IMAGES[0], (("user", words),))))

    each = room("polyp") - room("polyp polyp")
    words = " ".join(["polyp"] * ((room("polyp") - 4) // each + 1))

    answer = site.client.post(
        "/v1/chat/completions", json={"model": "tiny", "messages": messages(IMAGES[0], words), "max_tokens": 5000}
    )

    assert 4 <= room(words) < 4 + each < 8
    assert answer.json()["usage"]["completion_tokens"] == room(words)
    assert answer.json()["choices"][0]["finish_reason"] == "length"


def test_checkpoints_are_served_under_names_of_their_own(folder):
    names = [one.name for one in load_engines([(None, folder), ("second", folder)], ServerSettings(), "cpu")]

    assert names == ["tiny", "second"]
    with pytest.raises(ConfigError, match="two checkpoints are called 'tiny'"):
        load_engines([(None, folder), (None, folder)], ServerSettings(), "cpu")


def _card():
    from gastrovl.model.checkpoint import CheckpointCard

    return CheckpointCard(name="tiny", image_tokens=17, image_size_px=32)


def test_a_reply_in_json_of_any_schema_is_valid_json(site):
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}}
    body = {"model": "tiny", "messages": messages(IMAGES[0]), "response_format": wanted}

    answer = site.client.post("/v1/chat/completions", json=body).json()
    broken = wanted | {"json_schema": {"name": "verdict", "schema": {"type": "strange"}}}
    refused = site.client.post("/v1/chat/completions", json=body | {"response_format": broken})

    assert answer["choices"][0]["finish_reason"] == "stop"
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["ok"], bool)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_prompt")


def test_a_stream_of_a_real_model_stops_when_nobody_listens(predictor):
    heard = []

    def say(piece):
        heard.append(piece)
        return False

    assert ServedCheckpoint(predictor).stream(Question(IMAGES[0], (("user", "What is it?"),)), 40, say) is None
    assert len(heard) == 1


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_schema_that_no_reply_can_end_is_the_clients_fault(site, is_stream):
    pytest.importorskip("llguidance")
    itself = {"type": "object", "properties": {"it": {"$ref": "#"}}, "required": ["it"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "itself", "schema": itself}}
    body = {"model": "tiny", "messages": messages(IMAGES[0]), "response_format": wanted, "stream": is_stream}

    answer = site.client.post("/v1/chat/completions", json=body)

    assert '"invalid_prompt"' in answer.text.replace(" ", "")
    assert "internal_error" not in answer.text
    assert is_stream or answer.status_code == 400
