"""Keys, rates, hosts and bodies: who is let in, and what is said to the others."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from pydantic import SecretStr

from gastrovl.core.config import parse_config
from gastrovl.core.errors import ConfigError
from gastrovl.serving.limits import Keys, Rates, check_local, drain, read_body
from gastrovl.serving.refusals import RefusedError
from gastrovl.serving.settings import ServerSettings, read_keys

KEY, OTHER, THIRD = "0123456789abcdef", "fedcba9876543210", "a third key, of a ward"


def refusal(work, *arguments) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        work(*arguments)
    return caught.value


@pytest.fixture
def keys():
    return Keys(tuple(hashlib.sha256(key.encode()).digest() for key in (KEY, OTHER)))


def test_each_key_is_known_by_its_number(keys):
    assert keys.number(f"Bearer {KEY}") == 1
    assert keys.number(f"bearer  {OTHER} ") == 2


@pytest.mark.parametrize(
    "said", [None, "", "Bearer", f"Bearer {KEY}x", f"Basic {KEY}", KEY, f"Bearer {KEY[:-1]}", "Bearer \udcff"]
)
def test_anything_but_a_key_is_refused(keys, said):
    found = refusal(keys.number, said)

    assert (found.status, found.code) == (401, "invalid_api_key")
    assert KEY not in found.message
    assert found.headers["www-authenticate"] == "Bearer"


def test_a_rate_holds_for_each_client_alone():
    rates = Rates("2/minute")
    for client in ("a", "a", "b"):
        rates.count(client)

    found = refusal(rates.count, "a")
    rates.count("b")

    assert (found.status, found.code) == (429, "rate_limit_exceeded")
    assert 1 <= found.retry_after_s <= 60


def test_a_rate_that_cannot_be_read_is_an_error_of_its_own():
    with pytest.raises(ConfigError, match="expected NUMBER/UNIT"):
        Rates("often")


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000"])
def test_names_of_this_machine_are_let_in(host):
    check_local({"host": host})
    check_local({"host": host, "origin": "http://127.0.0.1:8000"})


@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::1", "10.0.0.1"]
)
def test_a_request_by_another_name_is_refused(host):
    assert refusal(check_local, {"host": host}).code == "foreign_host"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost.evil.example", "http://[x"])
def test_a_request_of_another_site_is_refused(origin):
    assert refusal(check_local, {"host": "localhost", "origin": origin}).code == "foreign_host"


def sender(*parts: bytes, pause_s: float = 0.0, goes_away: bool = False):
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if goes_away:
        messages.append({"type": "http.disconnect"})
    elif messages:
        messages[-1]["more_body"] = False
    given = iter(messages)

    async def receive():
        await asyncio.sleep(pause_s)
        return next(given)

    return receive


def test_a_body_comes_whole():
    assert asyncio.run(read_body({}, sender(b"ab", b"", b"cd"), 4, 1.0)) == b"abcd"


@pytest.mark.parametrize(
    "headers", [{"content-length": "5"}, {"content-length": "9" * 5000}, {}, {"content-length": "-1"}]
)
def test_a_body_of_too_many_bytes_is_refused_whatever_its_header_says(headers):
    found = refusal(asyncio.run, read_body(headers, sender(b"ab", b"cde"), 4, 1.0))

    assert (found.status, found.code) == (413, "too_large")


def test_a_body_that_does_not_arrive_is_refused():
    assert refusal(asyncio.run, read_body({}, sender(b"a", b"b", pause_s=0.2), 4, 0.1)).status == 408


def test_a_client_that_goes_away_is_not_waited_for():
    assert refusal(asyncio.run, read_body({}, sender(b"a", goes_away=True), 4, 1.0)).code == "client_gone"


def test_draining_ends_with_the_body_the_bytes_or_the_time():
    asyncio.run(drain(sender(b"ab", b"cd"), 100, 1.0))
    asyncio.run(drain(sender(b"ab", b"cd", b"ef"), 3, 1.0))
    asyncio.run(drain(sender(b"ab", goes_away=True), 100, 1.0))
    asyncio.run(drain(sender(b"ab", pause_s=5.0), 100, 0.02))


def test_another_host_than_this_machine_demands_a_key():
    with pytest.raises(ConfigError, match="no API key is set"):
        parse_config({"host": "0.0.0.0"}, ServerSettings, where="gastrovl serve")
    assert ServerSettings(host="0.0.0.0", keys=(SecretStr(KEY),)).key_digests == (
        hashlib.sha256(KEY.encode()).digest(),
    )


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="fewer than 16 characters"):
        ServerSettings(keys=(SecretStr("secret"),))


def test_keys_come_from_a_variable_and_a_file_and_are_never_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("KEYS", f"{KEY}, {OTHER}")
    (tmp_path / "keys").write_text(f"# of the ward\n{OTHER}\n\n{THIRD}\n")

    keys = read_keys("KEYS", tmp_path / "keys")

    assert [key.get_secret_value() for key in keys] == [KEY, OTHER, THIRD]
    assert KEY not in repr(ServerSettings(keys=keys))
    assert KEY not in ServerSettings(keys=keys).model_dump_json()


@pytest.mark.parametrize(
    ("variable", "file", "complaint"),
    [("NONE", None, "not set"), (None, "no", "cannot be read"), (None, "empty", "no key")],
)
def test_keys_that_are_not_there_are_an_error(tmp_path, variable, file, complaint):
    (tmp_path / "empty").write_text("# nothing\n")

    with pytest.raises(ConfigError, match=complaint):
        read_keys(variable, tmp_path / file if file else None)
