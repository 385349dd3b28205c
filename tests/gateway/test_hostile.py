"""Thousands of hostile requests: none is answered with a 5xx, and all is as it was before."""

import contextlib
import json
import random
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from real_gateway import Gateway, beside
from real_server import ROOT, Server

pytestmark = pytest.mark.server
N, THREADS = 5000, 8
MODELS = ("diffusion", "energy")
SMALL: dict[str, Any] = {"num_samples": 1, "steps": 2, "seed": 1}
SEVEN = (ROOT / "docs" / "images" / "seven.png").read_bytes()
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "BREW", "get", "PRI")
WORDS = (
    "predictions", "explanations", "models", "diffusion", "energy", "nothing", "1.0", "..", "%2e%2e", "%00",
    "%ff", "%zz", "", "health", "live", "metrics", "docs", "login", "logout", "openapi.json", "invocations",
    "static-offline-docs", "x" * 300, "diffusion;a=b", "diffusion%2f..%2fmodels", "\u00e9", "@evil", "a:b",
)  # fmt: skip
QUERIES = (
    "?seed=1&steps=2&num_samples=1", "?seed=%zz", "?=1", "?customized=true", "?steps=1e9", "?a=%00",
    "?seed=x#x", "?next=//evil", "?task=describe", "?task=explain", "?" + "a=1&" * 200, "?" + "x" * 6000,
)  # fmt: skip
FORMS = (
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "image/png",
)
HEADERS = (
    *(f"Content-Type: {form}" for form in (*FORMS, "multipart/form-data", "\xff\xfe", "a/b" * 100)),
    "Content-Encoding: gzip", "explain: True", "describe: True", "X-Hang-Up: notice", "Accept: text/html",
    "Authorization: Bearer \xe9", "Cookie: genserve=\xff; =; a", "Cookie: " + "a=b; " * 200,
    "Host: evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Expect: 100-continue",
    "Upgrade: websocket\r\nConnection: Upgrade", "X-Forwarded-For: ::1", "Range: bytes=0-", " : x",
    "Inference-Header-Content-Length: 3", "Transfer-Encoding: gzip", "Content-Length: -1",
    "Content-Length: 99999999999999999999", "X: " + "y" * 2000, "ts_request_sequence_id: 1",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 10**400, 1.5, 1e308, "", "x", "\x00", "\ud800", "\u202e", [], [1] * 100, {},
    {"a": {}}, [[[[]]]], "none", "NaN", "7", "' OR 1=1", "{{7*7}}", "../../etc/passwd",
    "data:image/png;base64,AAAA",
)  # fmt: skip
FIELDS = (
    "num_samples", "seed", "label", "format", "steps", "eta", "task", "images", "init_image", "mask",
    "stream", "sampler", "guidance", "__class__", "", "instances", "inputs", "data", "body", "a" * 1000,
)  # fmt: skip
PART = b"--x\r\nContent-Disposition: form-data; name="
BODIES = (
    b"{", b"[]", b"null", b"\xff\xfe", b"[" * 5000, b'{"a":' * 3000, b"seed=%zz", b"=3", SEVEN[:50],
    b"--x\r\n\r\n\r\n--x--", PART + b'""\r\n\r\n3\r\n--x--\r\n', b"a=1&" * 999, b'{"num_samples": 1e999}',
    PART + b'"images"; filename="../a"\r\n\r\n\x89PNG\r\n--x--\r\n', b'{"seed": NaN}',
    b'{"steps": ' + b"9" * 5000 + b"}",
)  # fmt: skip


def hostile_body(chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return chance.choice(BODIES)
    names = chance.sample(FIELDS, chance.randint(1, 3))
    return json.dumps(SMALL | {name: chance.choice(VALUES) for name in names}).encode()


def hostile_head(chance: random.Random, body: bytes) -> bytes:
    """Return the head of a request that a client of good faith would rarely send."""
    method, words = chance.choice(METHODS), chance.choices(WORDS, k=chance.randint(1, 4))
    if chance.random() < 0.6:
        method, words = "POST", [chance.choice(("predictions", "explanations")), chance.choice(MODELS)]
    target = "/" + "/".join(words) + (chance.choice(QUERIES) if chance.random() < 0.4 else "")
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *chance.sample(HEADERS, chance.randint(0, 3))]
    if not any(line.startswith(("Content-Length", "Transfer-Encoding")) for line in lines):
        lines.append(f"Content-Length: {len(body)}")
    if chance.random() < 0.02:
        lines = [chance.choice(("\x00\x01\x02", "GET", "GET / HTTP/9.9", "GET  /", "\x16\x03\x01\x02"))]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


class Raw:
    """A connection that is kept alive as long as the gateway keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: socket.socket | None = None

    def status(self, request: bytes, method_is_head: bool) -> int:
        """Send bytes and return the status of the answer; 0 if the connection is closed without one."""
        if self._connection is None:
            self._connection = socket.create_connection(("127.0.0.1", self._port), timeout=60)
        with contextlib.suppress(ConnectionError):
            self._connection.sendall(request)
            status, closes = self._answer(self._connection, method_is_head)
            if not closes:
                return status
            self.close()
            return status
        self.close()
        return 0

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @staticmethod
    def _answer(connection: socket.socket, method_is_head: bool) -> tuple[int, bool]:
        with connection.makefile("rb") as file:
            status = 100
            while status == 100:
                words = file.readline().split()
                if not words:
                    return 0, True
                status = int(words[1])
                lines = list(iter(lambda: file.readline().strip().lower(), b""))
            headers = dict(line.split(b": ", 1) for line in lines if b": " in line)
            if not method_is_head and status != 204:
                if headers.get(b"transfer-encoding") == b"chunked":
                    while size := int(file.readline(), 16):
                        file.read(size + 2)
                    file.readline()
                else:
                    file.read(int(headers.get(b"content-length", b"0")))
        return status, True if headers.get(b"connection") == b"close" else status == 400


def attack(port: int, seed: int, n: int) -> Counter[int]:
    chance, raw, statuses = random.Random(seed), Raw(port), Counter[int]()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for k in range(n):
            body = hostile_body(chance)
            if k % 4:
                head = hostile_head(chance, body)
                status = raw.status(head + body, head.startswith(b"HEAD"))
            else:
                head = f"{chance.choice(MODELS)} {chance.choice(FORMS)}".encode()
                model, form = head.decode().split(" ", 1)
                kind = {"Content-Type": form}
                status = client.post(f"/predictions/{model}", content=body, headers=kind).status_code
            statuses[status] += 1
            assert status < 500, (k, body[:200], head[:500])
    raw.close()
    return statuses


def test_no_hostile_request_is_a_5xx_or_costs_a_worker(server: Server, tmp_path: Path) -> None:
    gateway: Gateway = beside(server, tmp_path)
    with gateway.running("--requests", "0", "--work", "0", "--open", "0"), gateway.client() as client:
        before = client.post("/predictions/diffusion", json=SMALL).content
        workers = client.get("/models/diffusion").json()["versions"][0]["workers"]
        with ThreadPoolExecutor(THREADS) as pool:
            attacks = [pool.submit(attack, gateway.port, seed, N // THREADS) for seed in range(THREADS)]
            statuses = sum((one.result() for one in attacks), Counter[int]())
        assert sum(statuses.values()) == N
        assert {200, 400, 404, 405, 413} <= statuses.keys()
        assert statuses[0] < N / 10  # connections that were closed without an answer
        assert client.post("/predictions/diffusion", json=SMALL).content == before
        assert [w["id"] for w in client.get("/models/diffusion").json()["versions"][0]["workers"]] == [
            w["id"] for w in workers
        ]
    assert "Traceback" not in (gateway.folder / "log").read_text()
