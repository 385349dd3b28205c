"""Who is let in: tokens in headers and cookies, and without tokens this machine's own programs."""

from functools import cache
from typing import Any

import pytest
from fastapi import FastAPI
from real_gateway import ADMIN, CLIENT
from starlette.testclient import TestClient

from genserve.gateway.app import create_app
from genserve.gateway.options import Options, Tokens
from genserve.operate.api import Server

AWAY = Server("http://127.0.0.1:9", "http://127.0.0.1:9")
GUARDED = Tokens(client=CLIENT, admin=ADMIN)
HTML = {"Accept": "text/html"}


@cache
def gateway(tokens: Tokens) -> FastAPI:
    return create_app(Options(find_server=lambda: AWAY, tokens=tokens))


def client(tokens: Tokens, **headers: str) -> TestClient:
    return TestClient(gateway(tokens), "http://127.0.0.1:8090", headers=headers, follow_redirects=False)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", CLIENT, f"Basic {CLIENT}", f"Bearer {CLIENT}x"])
def test_without_a_token_every_address_but_live_is_401(header: str) -> None:
    sent = {"Authorization": header} if header else {}
    for path in (
        "/docs",
        "/openapi.json",
        "/health",
        "/models",
        "/metrics",
        "/predictions/diffusion",
        "/none",
    ):
        answer = client(GUARDED, **sent).get(path)
        assert (answer.status_code, answer.headers["WWW-Authenticate"][:6]) == (401, "Bearer"), path
        assert set(answer.json()) == {"error", "message"}
    assert client(GUARDED, **sent).get("/live").status_code == 200


def test_the_client_s_token_opens_all_but_administration_and_the_admin_s_opens_all() -> None:
    for token, status in ((CLIENT, 403), (ADMIN, 200)):
        assert client(GUARDED, **bearer(token)).get("/docs").status_code == 200
        assert client(GUARDED, **bearer(token)).get("/metrics").status_code == status
    only_client = Tokens(client=CLIENT)
    assert client(only_client, **bearer(CLIENT)).get("/metrics").status_code == 403


def test_a_token_opens_a_gateway_under_any_name_of_its_host() -> None:
    headers = bearer(CLIENT) | {"Host": "gateway.example", "Origin": "https://elsewhere.example"}
    assert client(GUARDED, **headers).get("/docs").status_code == 200


def test_a_browser_gets_a_cookie_for_a_token_and_comes_to_the_page_that_it_wanted() -> None:
    browser = client(GUARDED)
    first = browser.get("/docs?a=1", headers=HTML)
    assert (first.status_code, first.headers["Location"]) == (303, "/login?next=%2Fdocs%3Fa%3D1")
    form = browser.get(first.headers["Location"], headers=HTML)
    assert 'value="/docs?a=1"' in form.text
    wrong = browser.post("/login", data={"token": "x", "next": "/docs"})
    assert (wrong.status_code, "not a token" in wrong.text, wrong.cookies) == (401, True, {})
    right = browser.post("/login", data={"token": CLIENT, "next": "/docs?a=1"})
    assert (right.status_code, right.headers["Location"]) == (303, "/docs?a=1")
    cookie = right.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert CLIENT not in cookie
    assert browser.get("/docs").status_code == 200
    assert browser.get("/metrics").status_code == 403
    browser.get("/logout")
    assert browser.get("/docs").status_code == 401


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://127.0.0.1:3000"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}]
)
def test_a_cookie_does_not_count_for_a_page_on_another_port(headers: dict[str, str]) -> None:
    browser = client(GUARDED)
    browser.post("/login", data={"token": ADMIN})
    assert browser.post("/predictions/diffusion").status_code == 503  # there is no server
    assert browser.post("/predictions/diffusion", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "next",
    ["https://elsewhere.example", "//elsewhere.example", "/\\elsewhere.example", "/a\r\nb", "javascript:1"],
)
def test_a_login_leads_to_this_gateway_only(next: str) -> None:
    answer = client(GUARDED).post("/login", data={"token": CLIENT, "next": next})
    assert answer.headers["Location"] == "/"
    assert "elsewhere" not in client(GUARDED).get("/login", params={"next": next}).text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8090"}, 200),
        ({"Host": "elsewhere.example"}, 403),  # a name of theirs that points at loopback
        ({"Host": "127.0.0.1.elsewhere.example"}, 403),
        ({"Origin": "http://127.0.0.1:8090"}, 200),
        ({"Origin": "http://127.0.0.1:3000"}, 403),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_without_tokens_pages_from_elsewhere_are_refused(headers: dict[str, str], status: int) -> None:
    anybody = client(Tokens())
    assert anybody.get("/metrics", headers=headers).status_code == status


def test_without_tokens_a_link_elsewhere_leads_to_the_pages_and_to_nothing_that_works() -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    anybody = client(Tokens())
    assert anybody.get("/docs", headers=link).status_code == 200
    assert anybody.get("/predictions/diffusion?seed=1", headers=link).status_code == 403
    assert anybody.get("/docs", headers=link | {"Host": "elsewhere.example"}).status_code == 403


def test_tokens_are_read_from_a_file_or_the_environment(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"client {CLIENT}\n\nadmin {ADMIN}\n")
    assert Tokens.read(file) == GUARDED
    monkeypatch.setenv("GENSERVE_TOKEN", CLIENT)
    assert Tokens.read(None) == Tokens(client=CLIENT)
    file.write_text("client")
    with pytest.raises(ValueError, match="every line must be"):
        Tokens.read(file)
    with pytest.raises(ValueError, match="16 characters or more"):
        Tokens(admin="short")
    with pytest.raises(ValueError, match="needs two tokens"):
        Options(host="0.0.0.0", tokens=Tokens(client=CLIENT))
