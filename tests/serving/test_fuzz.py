"""Requests made at random from the OpenAPI schema, and broken on the way: never a 5xx, a leak, or another error form.

A small number here; `benchmarks/serving.py` sends ten thousand.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter

import pytest

from .conftest import Echo, listening

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


@pytest.fixture(scope="module")
def bodies(repository):
    """benchmarks/fuzzed_bodies.py as a module."""
    spec = importlib.util.spec_from_file_location("fuzzed_bodies", repository / "benchmarks" / "fuzzed_bodies.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def test_no_fuzzed_request_breaks_the_server(bodies):
    wrong, statuses = [], Counter()
    with listening([Echo(fails="\1")]) as site:
        schema = site.client.get("/openapi.json").json()
        for sent in bodies.Fuzzer(schema, ["echo"], seed=7).requests(210):
            media = {"content-type": sent.media.encode()} if sent.media else {}
            answer = site.client.request(sent.method, sent.path, content=sent.body, headers=media)
            is_events = answer.headers["content-type"].startswith("text/event-stream")
            statuses[sent.way, answer.status_code] += 1
            if found := bodies.complaint(answer.status_code, answer.text, is_events):
                wrong.append((found, sent, answer.text[:200]))
        assert site.client.get("/readyz").status_code == 200

    assert wrong == []
    assert {way: count for (way, status), count in statuses.items() if way == "valid" and status == 200} == {
        "valid": 30
    }
    assert sum(count for (_, status), count in statuses.items() if status >= 400) > 60


@pytest.mark.parametrize(
    ("status", "text", "found"),
    [
        (500, "{}", "status 500"),
        (200, '{"text": "Traceback (most recent"}', "the answer holds 'Traceback'"),
        (400, '{"detail": "wrong"}', "the error has another form"),
        (200, "<html>", "the answer is no JSON"),
        (200, "{}", None),
    ],
)
def test_the_judge_of_fuzzed_answers_sees_what_is_wrong(bodies, status, text, found):
    assert bodies.complaint(status, text) == found
