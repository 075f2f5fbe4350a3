"""Talking to a server that is busy, silent, confused or elsewhere; images never go where they must not."""

from __future__ import annotations

import base64
import io
import socket
import time
from email.utils import formatdate

import numpy as np
import pytest
from PIL import Image

from gastrovl.core.endpoint import (
    ChatEndpoint,
    EndpointOptions,
    Pace,
    UnusableReplyError,
    check_endpoint,
    data_url,
    is_loopback,
)
from gastrovl.core.errors import ConfigError, EndpointError

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((64, 48))
PROMPT = "- in view: antrum\n- finding: gastric ulcer"
REPLY = "This view of the antrum shows gastric ulcer."


@pytest.fixture
def served(served):
    served.answer = lambda _: REPLY
    return served


class Clock:
    """Seconds that pass only while somebody waits; `waits` are the waits in order."""

    def __init__(self):
        self.now, self.waits = 100.0, []

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.waits.append(round(seconds, 3))
        self.now += seconds


def describer(url, clock=None, per_minute=None, **changes):
    clock = clock or Clock()
    options = EndpointOptions(url=url, model="tiny", **{"attempts": 3, "timeout_s": 5.0, **changes})
    return ChatEndpoint(options, Pace(per_minute, clock, clock.wait))


def test_a_request_holds_image_prompt_seed_and_no_temperature(served):
    assert describer(served.url, seed=3, most_tokens=99)(PICTURE, PROMPT) == REPLY
    (body,) = served.requests
    image, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": PROMPT}
    assert image["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert {key: body[key] for key in ("model", "temperature", "seed", "max_tokens", "stream")} == {
        "model": "tiny", "temperature": 0, "seed": 3, "max_tokens": 99, "stream": False,
    }  # fmt: skip
    assert served.paths == ["/v1/chat/completions"]


def test_a_comment_in_the_image_file_is_not_sent_along():
    stream = io.BytesIO()
    PICTURE.save(stream, "JPEG", comment=b"a patient's name")
    with Image.open(stream) as named:
        sent = base64.b64decode(data_url(named.convert("RGB")).partition(",")[2])
    assert b"a patient's name" in stream.getvalue()
    assert b"a patient's name" not in sent


def test_the_image_in_a_request_is_the_picture():
    content = base64.b64decode(data_url(PICTURE).partition(",")[2])
    sent = Image.open(io.BytesIO(content))
    assert sent.size == PICTURE.size
    difference = np.asarray(sent, dtype=int) - np.asarray(PICTURE, dtype=int)
    assert np.abs(difference).mean() < 12  # JPEG


@pytest.mark.parametrize("fault", [500, 502, 503, 429, 408, "garbage", "truncated", "empty"])
def test_a_passing_fault_is_tried_again(served, fault):
    served.plan = [fault]
    assert describer(served.url)(PICTURE, PROMPT) == REPLY
    assert len(served.requests) == 2


def test_a_server_that_is_silent_is_asked_again(served):
    served.plan = ["hang"]
    assert describer(served.url, timeout_s=0.3)(PICTURE, PROMPT) == REPLY
    assert len(served.requests) == 2


def test_waits_double_from_a_second(served):
    served.plan = [500, 500, 500]
    clock = Clock()
    describer(served.url, clock, attempts=4)(PICTURE, PROMPT)
    assert clock.waits == [1.0, 2.0, 4.0]


def test_retry_after_in_seconds_holds_every_thread_for_so_long(served):
    served.plan = [("status", 429, {"Retry-After": "7"})]
    clock = Clock()
    describer(served.url, clock)(PICTURE, PROMPT)
    assert clock.waits == [7.0]


def test_retry_after_as_a_date_is_honoured(served):
    served.plan = [("status", 503, {"Retry-After": formatdate(time.time() + 30, usegmt=True)})]
    clock = Clock()
    describer(served.url, clock)(PICTURE, PROMPT)
    assert len(clock.waits) == 1
    assert 25 < clock.waits[0] <= 30


@pytest.mark.parametrize(("value", "expected"), [("soon", 1.0), ("-5", 0.0), ("1e9", 300.0), ("nan", 1.0)])
def test_a_retry_after_that_makes_no_sense_is_bounded(served, value, expected):
    served.plan = [("status", 500, {"Retry-After": value})]
    clock = Clock()
    describer(served.url, clock)(PICTURE, PROMPT)
    assert clock.waits == [expected]


@pytest.mark.parametrize("fault", [500, "garbage", "empty"])
def test_faults_that_last_end_with_what_was_seen(served, fault):
    served.plan = [fault] * 3
    with pytest.raises(UnusableReplyError, match=r"\(3 attempts\)"):
        describer(served.url)(PICTURE, PROMPT)
    assert len(served.requests) == 3


@pytest.mark.parametrize("fault", [400, 413, 422, "cut"])
def test_a_refusal_of_this_image_is_not_repeated(served, fault):
    served.plan = [fault]
    with pytest.raises(UnusableReplyError):
        describer(served.url)(PICTURE, PROMPT)
    assert len(served.requests) == 1


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_refusal_of_every_image_stops_the_run(served, code):
    served.plan = [code]
    with pytest.raises(EndpointError, match=f"HTTP {code}.*--model"):
        describer(served.url)(PICTURE, PROMPT)
    assert len(served.requests) == 1


def test_nobody_listening_stops_the_run():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(EndpointError, match="is the server running"):
        describer(url)(PICTURE, PROMPT)


def test_a_redirect_is_not_followed(served):
    served.plan = ["redirect"]
    with pytest.raises(EndpointError, match="HTTP 307"):
        describer(served.url)(PICTURE, PROMPT)
    assert served.paths == ["/v1/chat/completions"]


def test_a_proxy_of_the_environment_does_not_see_images_for_this_machine(served, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://192.0.2.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert describer(served.url)(PICTURE, PROMPT) == REPLY


def test_the_key_is_sent_and_never_shown(served):
    served.plan = [("status", 401, {})]
    asked = describer(served.url, api_key="secret-busy")
    with pytest.raises(EndpointError) as caught:
        asked(PICTURE, PROMPT)
    assert served.headers[0]["Authorization"] == "Bearer secret-busy"
    assert "secret-busy" not in str(caught.value) + repr(asked.options)


def test_requests_go_evenly_at_the_rate_that_is_set(served):
    clock = Clock()
    asked = describer(served.url, clock, per_minute=20)
    for _ in range(4):
        asked(PICTURE, PROMPT)
    assert clock.waits == [3.0, 3.0, 3.0]  # the first goes at once


def test_a_retry_counts_against_the_rate(served):
    served.plan = [500]
    clock = Clock()
    describer(served.url, clock, per_minute=6)(PICTURE, PROMPT)
    assert clock.waits == [1.0, 9.0]  # a second of patience, then the rest of ten seconds


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:80/v1", "https://127.9.9.9/v1"]
)
def test_this_machine_may_be_asked(url):
    check_endpoint(url, allows_remote=False)


@pytest.mark.parametrize(
    ("url", "is_allowed", "message"),
    [
        ("https://api.example.com/v1", False, "would leave this one"),
        ("http://192.168.1.5:8000/v1", False, "would leave this one"),
        ("http://127.0.0.1.example.com/v1", False, "would leave this one"),
        ("http://api.example.com/v1", True, "clear text"),
        ("https://name:word@127.0.0.1/v1", False, "ends in logs"),
        ("ftp://127.0.0.1/v1", True, "expected http"),
        ("127.0.0.1:8000", True, "expected http"),
        ("http://127.0.0.1:99999/v1", True, "not an address"),
        ("http:///v1", True, "expected http"),
    ],
)
def test_an_address_to_which_images_must_not_go_is_refused(url, is_allowed, message):
    with pytest.raises(ConfigError, match=message):
        EndpointOptions(url=url, model="tiny", allows_remote=is_allowed)


def test_another_machine_may_be_asked_over_https_with_leave():
    EndpointOptions(url="https://api.example.com/v1", model="tiny", allows_remote=True)
    assert not is_loopback("api.example.com")
