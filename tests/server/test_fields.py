"""Fields on a real TorchServe: five transports, other servers' envelopes, the host's own errors."""

import base64
import gzip
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import httpx
import pytest
from grpc_client import predict
from real_server import ROOT, Server, wait_until

pytestmark = pytest.mark.server
URL = "/predictions/diffusion"
SEVEN = (ROOT / "docs" / "images" / "seven.png").read_bytes()
SMALL = {"num_samples": 1, "steps": 1, "format": "json"}


def answers_of(server: Server, name: str, value: Any) -> list[tuple[int, Any]]:
    """Return the status and JSON of one field sent in five ways; gRPC knows no status."""
    text = value if isinstance(value, str) else json.dumps(value)
    with server.client() as client:
        sent = [
            client.post(
                URL,
                content=json.dumps({name: value}),  # httpx itself refuses NaN
                headers={"Content-Type": "application/json"},
            ),
            client.post(URL, data={name: text}),
            client.post(URL, files={name: (None, text)}),
            client.get("/diffusion/predict", params={name: text}),
        ]
    remote = json.loads(predict(server.port + 3, "diffusion", {name: text.encode()}))
    return [(answer.status_code, answer.json()) for answer in sent] + [(400, remote)]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("num_samples", 65, "1 to 64"),
        ("num_samples", "1_0", "1 to 64"),
        ("num_samples", 4.0, "1 to 64"),
        ("num_samples", "", "1 to 64"),
        ("seed", 10**400, f"0 to {2**63 - 1}"),
        ("eta", float("nan"), "0 to 1"),
        ("eta", "+0.5", "0 to 1"),
        ("sampler", "DDIM", "ddim, ddpm, heun, dpmpp_2m, consistency"),
        ("stream", 2, "true, false, jsonl"),
    ],
)
def test_a_bad_value_gets_one_answer_in_five_transports(
    server: Server, name: str, value: Any, allowed: str
) -> None:
    bodies = answers_of(server, name, value)
    assert len({json.dumps(body) for body in bodies}) == 1, bodies
    error = bodies[0][1]
    assert (bodies[0][0], error["field"], error["allowed"]) == (400, name, allowed)
    assert error["error"] == f"{name}: {error['message']} (allowed: {allowed})"


def test_bodies_of_every_kind_are_told_what_they_are(server: Server) -> None:
    with server.client() as client:

        def post(content: bytes, **headers: str) -> httpx.Response:
            kind = {"Content-Type": "application/json"}
            return client.post(
                URL, content=content, headers=kind | {k.replace("_", "-"): v for k, v in headers.items()}
            )

        for content in (b"null", b"[]", b"4", b'"x"'):
            assert post(content).json()["message"] == "the body is not a JSON object"
        nameless = post(b'{"": 1}')
        assert (nameless.status_code, nameless.json()["field"]) == (400, "body")
        digits = post(b'{"num_samples": ' + b"9" * 5000 + b"}")  # which the host cannot parse
        assert (digits.status_code, digits.json()["field"]) == (400, "num_samples")
        packed = post(gzip.compress(b'{"steps": 4}'), content_encoding="gzip")
        assert (packed.status_code, packed.reason_phrase) == (415, "Unsupported Media Type")
        assert "Content-Encoding gzip" in packed.json()["message"]
        assert post(b'{"num_samples": null, "steps": 1, "seed": null}').status_code == 200


def log_bytes(server: Server) -> int:
    return sum(path.stat().st_size for path in server.home.rglob("*.log"))


def accesses(server: Server) -> int:
    """Return how many requests to the model are in the log of accesses."""
    return (server.home / "logs/access_log.log").read_text().count(URL)


def test_an_empty_json_body_is_a_request_and_a_line_in_the_log(server: Server) -> None:
    with server.client() as client, ThreadPoolExecutor(16) as pool:
        post = partial(client.post, URL, headers={"Content-Type": "application/json"})
        assert post(content=b"").status_code == 200
        before, accessed = log_bytes(server), accesses(server)
        answers = list(pool.map(lambda _: post(content=b""), range(16)))
        assert [answer.status_code for answer in answers] == [200] * 16
        assert [post(content=text).status_code for text in (b"{", b"\xff", b"[" * 50_000)] == [400] * 3
    wait_until(lambda: accesses(server) - accessed, 19)
    assert log_bytes(server) - before < 19 * 1000  # each has a line of access; the worker tells its counters
    assert "Failed json decoding" not in "".join(path.read_text() for path in server.home.rglob("*.log"))


@pytest.mark.parametrize("content", ["4", '"ddim"', "[4]"])
def test_a_part_that_was_sent_as_json_is_text_or_refused(server: Server, content: str) -> None:
    name = "sampler" if "ddim" in content else "steps"
    parts = {"num_samples": (None, "1"), name: ("f.json", content, "application/json")}
    with server.client() as client:
        answer = client.post(URL, files=parts)
    if name == "sampler":
        assert (answer.status_code, answer.headers["X-Sampler"]) == (200, "ddim")
    else:
        assert (answer.status_code, answer.json()["field"]) == (400, "steps")
        assert answer.json()["message"] == "not text"


def test_fields_in_data_draw_the_same(server: Server) -> None:
    fields = {**SMALL, "seed": 3, "label": 7}
    with server.client() as client:
        sent = [
            client.post(URL, json=fields),
            client.post(URL, json={"data": fields}),
            client.post(URL, files={"data": json.dumps(fields)}),
            client.post(URL, files={"data": ("f.json", json.dumps(fields), "application/json")}),
        ]
        assert [answer.status_code for answer in sent] == [200] * len(sent), [a.text[:200] for a in sent]
        remote = predict(server.port + 3, "diffusion", {"data": json.dumps(fields).encode()})
        assert {answer.content for answer in sent} == {remote}
        files = client.post("/predictions/energy", files={"data": ("seven.png", SEVEN, "image/png")})
        assert files.content == client.post("/predictions/energy", files={"images": SEVEN}).content


def test_a_picture_is_read_in_every_honest_form_of_base64(server: Server) -> None:
    text = base64.b64encode(SEVEN).decode()
    lines = base64.encodebytes(SEVEN).decode()
    url = f"data:image/png;base64,{text}"
    with server.client() as client:
        plain = client.post("/predictions/energy", json={"images": text})
        assert plain.status_code == 200
        others = [
            client.post(
                "/predictions/energy", json={"images": base64.urlsafe_b64encode(SEVEN).decode().rstrip("=")}
            ),
            client.post("/predictions/energy", json={"images": lines}),
            client.post("/predictions/energy", data={"images": lines}),
            client.post("/predictions/energy", data={"images": url}),
            client.post("/predictions/energy", files={"images": (None, url)}),
        ]
        assert [answer.content for answer in others] == [plain.content] * len(others)
        two = client.post("/predictions/energy", data={"images": f"{url},{url}"})
        assert len(two.json()["images"]) == 2
        one = client.post("/predictions/energy", json={"images": f"{text},{text}"})
        assert (one.status_code, one.json()["field"]) == (400, "images")
        unescaped = client.post(
            "/predictions/energy",
            content=f"images={text}".encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert "%2B" in unescaped.json()["message"]
        by_query = client.get("/energy/predict", params={"sigma": "0.5", "images": text, "task": "score"})
        assert by_query.content == plain.content
    logs = "".join(path.read_text(errors="replace") for path in server.home.rglob("*.log"))
    assert text[:12] not in logs
    assert "/energy/predict?sigma=0.5&images=...&task=score HTTP/1.1" in logs


def test_of_a_field_that_comes_twice_the_host_keeps_the_last(server: Server) -> None:
    query = "&".join(f"{name}={value}" for name, value in SMALL.items())
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    text = json.dumps(SMALL)[:-1] + ', "seed": 1, "seed": 2}'
    parts = [(name, (None, str(value))) for name, value in SMALL.items()]
    with server.client() as client:
        sent = [
            client.get(f"/diffusion/predict?{query}&seed=1&seed=2"),
            client.post(URL, content=f"{query}&seed=1&seed=2", headers=form),
            client.post(URL, files=[*parts, ("seed", (None, "1")), ("seed", (None, "2"))]),
            client.post(URL, content=text, headers={"Content-Type": "application/json"}),
            client.post(f"/diffusion/predict?{query}&seed=1", data={"seed": "2"}),
            client.post(f"/diffusion/predict?{query}&seed=1", files={"seed": (None, "2")}),
        ]
    assert [answer.json()["seed"] for answer in sent] == [2] * len(sent)


def test_the_host_s_own_errors_are_those_that_the_page_lists(server: Server) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    nameless = b"--x\r\nContent-Disposition: form-data\r\n\r\n3\r\n--x--\r\n"
    with server.client() as client:
        sent = [
            client.post(URL, content=b"seed=%zz", headers=form),
            client.post(URL, content=b"=3", headers=form),
            client.post(URL, content=nameless, headers={"Content-Type": "multipart/form-data; boundary=x"}),
            client.post("/predictions/energy", content=SEVEN, headers=form),
        ]
    assert [answer.status_code for answer in sent] == [500] * len(sent)
    assert all(set(answer.json()) == {"code", "type", "message"} for answer in sent)
    address = f"http://127.0.0.1:{server.port}"
    curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "20"]
    for arguments, status in (
        ([address + "/diffusion/predict?a=%zz"], "403"),
        (["--http2-prior-knowledge", address], "000"),
    ):
        assert subprocess.run([*curl, *arguments], capture_output=True, text=True).stdout == status


def test_a_grpc_message_above_the_limit_is_cancelled(server: Server) -> None:
    assert b"no such field" in predict(server.port + 3, "diffusion", {"x": b"a" * 262_000})
    with pytest.raises(grpc.RpcError) as caught:
        predict(server.port + 3, "diffusion", {"x": b"a" * 262_144})
    assert caught.value.code() == grpc.StatusCode.CANCELLED
