"""The whole server on loopback: full queues, slow and absent clients, keys, sizes, logs, and the way it stops."""

from __future__ import annotations

import json
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from gastrovl.core.errors import ConfigError
from gastrovl.serving.app import create_app
from gastrovl.serving.logs import LOGGER, JsonLines
from gastrovl.serving.run import bind
from gastrovl.serving.settings import ServerSettings

from .conftest import Echo, data_url, listening, messages, picture, png, seen, until
from .test_pictures import bomb

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
KEY = "0123456789abcdef"
IMAGE = picture()


def chat(client, text="What is it?", image=IMAGE, **others):
    return client.post("/v1/chat/completions", json={"model": "echo", "messages": messages(image, text), **others})


def code(answer):
    return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture
def closed(echo):
    """A model at work on a question until its gate is opened."""
    echo.gate.clear()
    yield echo
    echo.gate.set()


def test_many_clients_get_their_own_answers(echo):
    with listening([echo], max_queue=40) as site, ThreadPoolExecutor(16) as pool:
        pictures = [picture(number) for number in range(40)]
        answers = list(pool.map(lambda n: chat(site.client, f"number {n}", pictures[n]).json(), range(40)))

    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert texts == [f"{seen(pictures[number])} number {number}" for number in range(40)]


def test_a_full_queue_is_429_with_a_time_to_come_back(closed):
    with listening([closed], max_queue=2) as site, ThreadPoolExecutor(4) as pool:
        engine = site.engines[0]
        begun = [pool.submit(chat, site.client)]
        assert closed.began.wait(10)
        begun += [pool.submit(chat, site.client) for _ in range(2)]
        until(lambda: engine.waiting == 2, "the questions do not arrive")

        refused = chat(site.client)
        closed.gate.set()

        assert code(refused) == (429, "queue_full")
        assert refused.headers["retry-after"] == "1"
        assert [future.result().status_code for future in begun] == [200, 200, 200]


def test_no_answer_in_time_is_504_and_frees_the_place(closed):
    with listening([closed], timeout_s=0.2) as site:
        first, second = chat(site.client), chat(site.client)

        assert [code(first), code(second)] == [(504, "timeout")] * 2
        assert site.engines[0].waiting == 0
        closed.gate.set()


def test_clients_that_go_away_leave_the_queue(closed):
    with listening([closed]) as site, ThreadPoolExecutor(1) as pool:
        running = pool.submit(chat, site.client)
        assert closed.began.wait(10)
        host = site.url.removeprefix("http://").split(":")
        body = json.dumps({"model": "echo", "messages": messages(IMAGE)}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        leaving = socket.create_connection((host[0], int(host[1])))
        leaving.sendall(head.encode() + body)
        until(lambda: site.engines[0].waiting == 1, "the question does not arrive")

        leaving.close()

        until(lambda: site.engines[0].waiting == 0, "the place is not given up")
        closed.gate.set()
        assert running.result().status_code == 200


def test_an_aborted_stream_frees_the_worker(echo):
    echo.pieces, echo.pause_s = 40, 0.05
    with listening([echo]) as site:
        body = {"model": "echo", "messages": messages(IMAGE, "w " * 100), "stream": True}
        with site.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_lines())
        until(lambda: site.engines[0].running == 0, "the worker goes on for nobody", seconds=1.5)  # of 2 s

        assert echo.said < 40


def test_keys_are_asked_for_everywhere_but_at_the_health_checks(echo):
    with listening([echo], keys=(KEY,)) as site:
        client = site.client
        paths = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/models", "/elsewhere"]
        without = [client.get(path).status_code for path in paths]
        wrong = client.get("/v1/models", headers={"authorization": f"Bearer {KEY}x"})
        client.headers["authorization"] = f"Bearer {KEY}"
        given = [client.get(path).status_code for path in paths]

        assert without == [200, 200, 401, 401, 401, 401]
        assert given == [200, 200, 200, 200, 200, 404]
        assert code(wrong) == (401, "invalid_api_key")
        assert chat(client).status_code == 200


def test_who_guesses_keys_has_to_wait(echo):
    with listening([echo], keys=(KEY,)) as site:
        statuses = [site.client.get("/v1/models").status_code for _ in range(32)]
        site.client.headers["authorization"] = f"Bearer {KEY}"
        late = site.client.get("/v1/models")

        assert statuses == [401] * 30 + [429] * 2
        assert code(late) == (429, "rate_limit_exceeded")


def test_a_rate_is_kept_for_each_key(echo):
    other = KEY[::-1]
    with listening([echo], keys=(KEY, other), rate="2/minute") as site:
        statuses = [
            site.client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code
            for key in (KEY, KEY, KEY, other)
        ]

    assert statuses == [200, 200, 429, 200]


def test_a_page_of_another_site_is_refused_without_a_key(echo):
    with listening([echo]) as site:
        by_name = site.client.get("/v1/models", headers={"host": "evil.example"})
        by_origin = site.client.get("/v1/models", headers={"origin": "https://evil.example"})

    assert [code(by_name), code(by_origin)] == [(403, "foreign_host")] * 2


def test_what_is_too_large_is_413_in_every_way(echo):
    with listening([echo], max_body_bytes=200_000, max_pixels=5000) as site:
        client = site.client
        said = client.post("/v1/classify", content=b"a" * 3_000_000, headers={"content-type": "application/json"})
        unsaid = client.post("/v1/classify", content=(b"a" * 50_000 for _ in range(5)))
        large = client.post("/v1/classify", json={"image": data_url(picture(0, (100, 51)))})
        unfolding = client.post("/v1/classify", files={"image": ("x.png", bomb(10_000, 10_000))})

        assert [code(said), code(unsaid)] == [(413, "too_large")] * 2
        assert [code(large), code(unfolding)] == [(413, "too_many_pixels")] * 2
        assert client.get("/healthz").status_code == 200


def test_a_client_that_sends_too_slowly_is_let_go(echo):
    with listening([echo], body_timeout_s=0.2) as site:
        host = site.url.removeprefix("http://").split(":")
        with socket.create_connection((host[0], int(host[1])), timeout=10) as slow:
            slow.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nab")
            answer = slow.recv(4096)

    assert b" 408 " in answer.splitlines()[0]


def test_no_answer_shows_a_path_or_a_traceback(echo):
    with listening([echo]) as site:
        client = site.client
        answers = [
            chat(client, "break down"),
            chat(client, "break down", stream=True),
            client.post("/v1/classify", content=b"\xff", headers={"content-type": "application/json"}),
            client.post("/v1/classify", json={"image": "AAAA"}),
            client.post("/v1/classify", json={"image": "file:///etc/passwd"}),
            client.get("/v1/../etc/passwd"),
            client.request("BREW", "/v1/models"),
            client.delete("/v1/classify"),
        ]

        assert [answer.status_code for answer in answers] == [500, 500, 400, 400, 400, 404, 405, 405]
        for answer in answers:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            assert not any(word in answer.text for word in ("Traceback", ".py", "secret", "passwd", "src/", "0x"))
        assert [answer.headers.get("allow") for answer in answers] == [None] * 6 + ["GET", "POST"]
        assert chat(client).status_code == 200


def test_a_log_line_counts_and_never_quotes(echo, caplog):
    with listening([echo], keys=(KEY,)) as site, caplog.at_level(logging.INFO, LOGGER.name):
        site.client.headers["authorization"] = f"Bearer {KEY}"
        chat(site.client, "a patient called Smith")
        chat(site.client, "Smith, break down")
        site.client.get("/Smith/Smith")
        client = site.client
        client.post("/v1/classify", files={"image": ("Smith.png", png(IMAGE))}, data={"Smith": "Smith"})
    lines = [JsonLines().format(record) for record in caplog.records if record.name == LOGGER.name]
    first, second, third, fourth = (json.loads(line) for line in lines)

    assert not any(
        word in line for line in lines for word in ("Smith", KEY, seen(IMAGE), data_url(IMAGE)[30:60], "/work")
    )
    assert (first["route"], first["status"], first["client"]) == ("/v1/chat/completions", 200, "key 1")
    assert (first["model"], first["image_px"], first["batch"], first["turns"]) == ("echo", [40, 20], 1, 1)
    assert (second["status"], second["error"], second["code"]) == (500, "ZeroDivisionError", "internal_error")
    assert second["at"][-1].endswith(" _reply")
    assert (third["route"], third["status"]) == ("other", 404)
    assert (fourth["status"], fourth["code"]) == (400, "unknown_parameter")
    assert len({one["id"] for one in (first, second, third, fourth)}) == 4


def test_the_metrics_count_requests_batches_and_refusals(echo):
    with listening([echo]) as site:
        chat(site.client)
        chat(site.client, temperature=1.0)
        text = site.client.get("/metrics").text

    assert 'gastrovl_requests_total{route="/v1/chat/completions",status="200"} 1.0' in text
    assert 'gastrovl_requests_total{route="/v1/chat/completions",status="400"} 1.0' in text
    assert 'gastrovl_refused_total{code="unsupported_parameter"} 1.0' in text
    assert 'gastrovl_batch_size_sum{model="echo"} 1.0' in text
    assert 'gastrovl_waiting{model="echo"} 0.0' in text


def test_several_models_are_asked_by_their_names(echo):
    with listening([echo, Echo("second")]) as site:
        names = [entry["id"] for entry in site.client.get("/v1/models").json()["data"]]
        answers = [
            site.client.post("/v1/classify", json={"image": data_url(IMAGE), **fields}).json()["model"]
            for fields in ({}, {"model": "second"}, {"model": "echo"})
        ]

    assert names == ["echo", "second"]
    assert answers == ["echo", "second", "echo"]


def test_the_server_is_not_ready_once_a_model_leaves(echo):
    with listening([echo]) as site:
        site.engines[0].close(1.0)
        ready, asked = site.client.get("/readyz"), chat(site.client)

    assert ready.status_code == 503
    assert code(asked) == (503, "shutting_down")


def test_a_server_that_is_told_to_stop_finishes_what_it_has_begun(closed):
    opener = threading.Timer(0.4, closed.gate.set)
    with ThreadPoolExecutor(1) as pool:
        with listening([closed], grace_s=10.0) as site:
            client = httpx.Client(base_url=site.url, timeout=20, trust_env=False)
            answer = pool.submit(chat, client)
            assert closed.began.wait(10)
            opener.start()
        assert answer.result().status_code == 200
        client.close()


def test_a_port_that_is_taken_is_known_before_anything_is_loaded(echo):
    with listening([echo]) as site, pytest.raises(ConfigError, match="choose another --port"):
        bind(ServerSettings(port=int(site.url.rsplit(":", 1)[1])))


def test_a_server_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="nothing to serve"):
        create_app([], ServerSettings())


def test_the_schema_names_every_endpoint_its_errors_and_no_422(echo):
    with listening([echo]) as site:
        schema = site.client.get("/openapi.json").json()
    text = json.dumps(schema)

    asked = {path: body["post"] for path, body in schema["paths"].items() if "post" in body}
    assert set(asked) == {
        f"/v1/{name}" for name in ("chat/completions", "classify", "locate", "name-region", "describe", "image")
    }
    for operation in asked.values():
        assert {"200", "400", "401", "413", "429", "504"} <= set(operation["responses"])
        assert "422" not in operation["responses"]
        assert "application/json" in operation["requestBody"]["content"]
    names = {name.rsplit("/", 1)[1] for name in _references(schema)}
    assert names <= set(schema["components"]["schemas"])
    assert "not a diagnosis" in text


def _references(node):
    if isinstance(node, dict):
        yield from ([node["$ref"]] if isinstance(node.get("$ref"), str) else [])
        node = list(node.values())
    if isinstance(node, list):
        for one in node:
            yield from _references(one)
