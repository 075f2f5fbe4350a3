"""The typed endpoints: JSON and forms get the same answer, with boxes twice, probabilities and the notice in each."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from gastrovl.inference.abstention import Fallback
from gastrovl.inference.description import NOTICE
from gastrovl.inference.verdicts import Belief, Check, ScopeAnswer

from .conftest import Echo, data_url, listening, messages, picture, png, seen

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
IMAGE = picture()
CASES = {
    "classify": {},
    "locate": {"what": "polyp"},
    "name-region": {"box": [0.25, 0.5, 0.75, 1.0]},
    "describe": {"max_tokens": 3},
}


@pytest.fixture(scope="module")
def echo():
    return Echo()


@pytest.fixture(scope="module")
def client(echo):
    with listening([echo]) as site:
        yield site.client


def post(client, name, **fields):
    return client.post(f"/v1/{name}", json={"image": base64.b64encode(png(IMAGE)).decode(), **fields})


@pytest.mark.parametrize("name", CASES)
def test_every_answer_has_its_model_size_confidence_and_notice(client, name):
    answer = post(client, name, **CASES[name]).json()

    assert answer["model"] == "echo"
    assert answer["image"] == {"width_px": 40, "height_px": 20}
    assert 0 <= answer["confidence"] <= 1
    assert answer["calibrated"] is False
    assert answer["unreadable"] is None
    assert answer["notice"] == NOTICE


@pytest.mark.parametrize("name", CASES)
def test_a_form_is_answered_as_json_is(client, name):
    fields = {key: ",".join(map(str, one)) if isinstance(one, list) else str(one) for key, one in CASES[name].items()}

    by_file = client.post(f"/v1/{name}", files={"image": ("frame.png", png(IMAGE))}, data=fields)
    by_text = client.post(f"/v1/{name}", data=fields | {"image": data_url(IMAGE)}, files={"unused": (None, "")})

    assert by_file.json() == post(client, name, **CASES[name]).json()
    assert by_text.json()["error"]["code"] == "unknown_parameter"


def test_labels_come_with_the_probability_of_each_term(client):
    answer = post(client, "classify").json()

    assert answer["labels"] == [{"id": "polyp_unspecified", "name": "polyp", "probability": 0.75}]
    assert answer["probabilities"] == {"polyp_unspecified": 0.75, "gastric_ulcer": 0.125}


def test_a_place_comes_in_fractions_and_pixels_with_presence_and_expected_overlap(client):
    answer = post(client, "locate", what="polyp").json()

    assert (answer["present"], answer["presence"], answer["what"]) == (True, 0.9, "polyp")
    (box,) = answer["boxes"]
    assert box["fractions"] == pytest.approx([100 / 999, 200 / 999, 300 / 999, 400 / 999])
    assert box["pixels"] == pytest.approx([4000 / 999, 4000 / 999, 12000 / 999, 8000 / 999])
    assert box["expected_iou"] == 0.625


def test_what_is_absent_has_no_box_and_an_unread_reply_says_so(client, echo, monkeypatch):
    from dataclasses import replace

    usual = echo._reply
    monkeypatch.setattr(echo, "_reply", lambda *a: replace(usual(*a), text="absent", expected_iou=()))
    absent = post(client, "locate", what="polyp").json()
    monkeypatch.setattr(echo, "_reply", lambda *a: replace(usual(*a), text="to the left", expected_iou=None))
    unread = post(client, "locate", what="polyp").json()

    assert (absent["present"], absent["boxes"], absent["unreadable"]) == (False, [], None)
    assert (unread["present"], unread["boxes"]) == (None, [])
    assert "no box" in unread["unreadable"]


def test_a_term_of_the_taxonomy_is_asked_for_by_its_name(client, echo):
    post(client, "locate", what="gastric_ulcer")

    assert echo.batches[-1] == ["Where is the following: gastric ulcer?"]


def test_a_box_in_pixels_asks_about_the_same_region(client, echo):
    in_fractions = post(client, "name-region", box=[0.25, 0.5, 0.75, 1.0]).json()
    in_pixels = post(client, "name-region", box=[10, 10, 30, 20], unit="pixel").json()

    assert in_pixels == in_fractions
    assert in_pixels["box"] == {"fractions": [0.25, 0.5, 0.75, 1.0], "pixels": [10, 10, 30, 20], "expected_iou": None}
    assert echo.batches[-1] == ["What is inside [250,500,749,999]?"]  # of 0-999


def test_a_description_may_be_cut(client):
    answer = post(client, "describe", max_tokens=2).json()

    assert (answer["text"], answer["stop_reason"]) == (f"{seen(IMAGE)} Describe", "length")


WRONG = {
    "a reversed box": ("name-region", {"box": [0.5, 0.5, 0.1, 0.9]}, 400, "invalid_box"),
    "a box outside": ("name-region", {"box": [0.5, 0.5, 1.5, 0.9]}, 400, "invalid_box"),
    "pixels outside": ("name-region", {"box": [0, 0, 4000, 10], "unit": "pixel"}, 400, "invalid_box"),
    "three corners": ("name-region", {"box": [0, 0, 1]}, 400, "invalid_value"),
    "nothing to locate": ("locate", {"what": "  "}, 400, "invalid_value"),
    "no what": ("locate", {}, 400, "invalid_value"),
    "another field": ("classify", {"prompt": "x"}, 400, "unknown_parameter"),
    "another model": ("classify", {"model": "gpt"}, 404, "model_not_found"),
    "an address": ("classify", {"image": "http://127.0.0.1/x.png"}, 400, "image_url_not_allowed"),
    "an image of text": ("classify", {"image": "aGVsbG8="}, 400, "invalid_image"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_question_is_refused_with_its_field(client, name):
    endpoint, fields, status, code = WRONG[name]

    answer = post(client, endpoint, **fields)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["param"]


def test_a_form_with_two_files_or_another_body_is_refused(client):
    two = client.post("/v1/classify", files=[("image", ("a.png", png(IMAGE))), ("image", ("b.png", png(IMAGE)))])
    text = client.post("/v1/classify", content=b"hello", headers={"content-type": "text/plain"})
    broken = client.post("/v1/classify", content=b"--x", headers={"content-type": "multipart/form-data; boundary=y"})
    nameless = client.post("/v1/classify", content=b"--x", headers={"content-type": "multipart/form-data"})

    codes = [(one.status_code, one.json()["error"]["code"]) for one in (two, text, broken, nameless)]
    assert codes == [
        (400, "invalid_form"),
        (415, "unsupported_media_type"),
        (400, "invalid_form"),
        (400, "invalid_form"),
    ]


def test_an_image_in_a_form_never_lies_in_a_file(client, monkeypatch):
    import tempfile

    def forbidden(*_, **__):
        raise AssertionError("a temporary file")

    for name in ("SpooledTemporaryFile", "TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, forbidden)
    large = picture(1, (900, 600))  # 1.6 MB, which Starlette would put on the disk

    answer = client.post("/v1/classify", files={"image": ("x.png", png(large))})

    assert answer.json()["image"] == {"width_px": 900, "height_px": 600}


BELIEF = Belief(
    is_calibrated=True,
    label_set=("polyp_unspecified", "z_line"),
    level=0.9,
    is_withheld=True,
    fallback=(Fallback(term="pathological_findings", probability=0.95),),
    risk=0.1,
    is_assured=False,
    checks=(Check("caption", passed=False, detail="the caption names no finding"),),
    scope=ScopeAnswer("unlike", "unlike any frame that the model learnt from", 1.5),
)


class Believing(Echo):
    """An echo that knows what to believe of it."""

    def answer(self, questions, max_new_tokens):
        return [replace(one, belief=BELIEF) for one in super().answer(questions, max_new_tokens)]


@pytest.fixture(scope="module")
def believing():
    with listening([Believing()]) as site:
        yield site.client


@pytest.mark.parametrize("name", CASES)
def test_what_to_believe_of_an_answer_comes_over_the_wire(believing, name):
    answer = post(believing, name, **CASES[name]).json()

    assert answer["scope"] == {"verdict": "unlike", "reason": "unlike any frame that the model learnt from"}
    assert answer["calibrated"] is True
    if name == "describe":
        assert answer["belief"] is None
        return
    assert answer["belief"] == {
        "withheld": True,
        "fallback": [{"id": "pathological_findings", "name": "pathological findings", "probability": 0.95}],
        "risk": 0.1,
        "risk_is_shown": False,
        "label_set": [{"id": "polyp_unspecified", "name": "polyp"}, {"id": "z_line", "name": "z-line"}],
        "level": 0.9,
        "checks": [{"name": "caption", "passed": False, "detail": "the caption names no finding"}],
    }


def test_a_chat_says_what_to_believe_and_a_client_may_ask_for_it_in_its_schema(believing):
    said = {"type": "object", "properties": {"belief": {}, "scope": {}, "text": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "classify", "schema": said}}
    body = {"model": "echo", "messages": messages(IMAGE), "response_format": form}

    answer = believing.post("/v1/chat/completions", json=body).json()

    content = json.loads(answer["choices"][0]["message"]["content"])
    assert content["belief"] == answer["gastrovl"]["belief"]
    assert content["belief"]["withheld"]
    assert answer["gastrovl"]["scope"]["verdict"] == "unlike"
    assert answer["gastrovl"]["calibrated"]
