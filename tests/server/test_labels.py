"""The shipped classifiers on a real TorchServe: labels, features and explanations by HTTP."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from real_server import ROOT, Server
from small_labels import pixels, sent

pytestmark = pytest.mark.server
SEVEN = (ROOT / "docs/images/seven.png").read_bytes()
PHOTO = base64.b64decode(sent(pixels(1, 90, 60), "JPEG"))
BOTH = pytest.mark.parametrize("name", ["classifier", "classifier-mnist"])
LAST_DIGIT = 1.01e-4  # of an answer


def images(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["images"]
    return rows


def test_digits_get_their_labels(course: Server) -> None:
    with np.load(ROOT / "tests/mnist/sample.npz") as sample:
        x, y = sample["test_x"][:64], sample["test_y"][:64]
    large = [sent(np.kron(digit, np.ones((3, 3), np.uint8)).reshape(84, 84, 1)) for digit in x]
    paper = [sent(255 - digit.reshape(28, 28, 1)) for digit in x]
    with course.client() as client:
        for more in ({"images": large}, {"images": paper, "invert": True, "tta": 2}):
            rows = images(client.post("/predictions/classifier-mnist", json=more))
            assert sum(row["index"] == k for row, k in zip(rows, y.tolist(), strict=True)) >= 62
            assert all(row["label"] == str(row["index"]) for row in rows)


@BOTH
def test_a_picture_is_sent_as_a_body_a_file_or_text(course: Server, name: str) -> None:
    url, text = f"/predictions/{name}", base64.b64encode(PHOTO).decode()
    with course.client() as client:
        answers = [
            client.put(url, content=PHOTO, headers={"Content-Type": "image/jpeg"}),
            client.post(url, files={"images": ("photo.jpg", PHOTO)}),
            client.post(url, json={"images": text}),
            client.post(url, data={"images": f"data:image/jpeg;base64,{text}"}),
            client.post(f"/{name}/predict", json={"images": [text]}),
        ]
    (row,) = images(answers[0])
    assert (row["width"], row["height"], len(row["top"])) == (90, 60, 5)
    assert sum(top["probability"] for top in row["top"]) <= 1 + 1e-4
    assert all(images(answer) == [row] for answer in answers)
    assert all(answer.headers["X-NFE"] == "1" for answer in answers)


@BOTH
def test_explanations_are_heat_maps(course: Server, name: str) -> None:
    with course.client() as client:
        answer = client.post(f"/explanations/{name}", files={"images": ("photo.jpg", PHOTO)})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        shape = client.post(f"/predictions/{name}", json={"task": "describe"}).json()["shape"]
        shown = Image.open(io.BytesIO(answer.content))
        assert (shown.size, shown.mode) == ((shape[2], shape[1]), "RGB")
        fields = {"images": base64.b64encode(PHOTO).decode(), "method": "integrated", "label": 3}
        (row,) = images(client.post(f"/explanations/{name}", json=fields | {"format": "json", "steps": 64}))
        assert row["index"] == 3
        assert row["attributed"] == pytest.approx(row["rise"], abs=0.02 * max(1, abs(row["rise"])))
        other = client.post(f"/explanations/{name}", json={"task": "embed", "images": fields["images"]})
        assert (other.status_code, other.json()["field"]) == (400, "task")


@BOTH
def test_a_crowd_gets_what_each_gets_alone(course: Server, name: str) -> None:
    text = [sent(pixels(k, 20 + k, 30)) for k in range(16)]
    requests: list[dict[str, Any]] = [
        {"images": text[k : k + 1 + k % 3], "tta": k % 3} if k % 4 else {"images": text[k], "task": "embed"}
        for k in range(14)
    ]
    requests += [{"images": text[1], "task": "explain", "method": "integrated", "steps": 5, "format": "json"}]
    requests += [{"images": "broken"}]
    with course.client() as client:

        def ask(fields: dict[str, Any]) -> httpx.Response:
            return client.post(f"/predictions/{name}", json=fields)

        alone = [ask(fields) for fields in requests]
        with ThreadPoolExecutor(16) as pool:
            together = list(pool.map(ask, requests))
    assert [answer.status_code for answer in together] == [200] * 15 + [400]
    for a, b in zip(alone[:-1], together[:-1], strict=True):
        for one, other in zip(images(a), images(b), strict=True):
            one.pop("png", None), other.pop("png", None)
            assert numbers(one) == pytest.approx(numbers(other), abs=LAST_DIGIT)


def numbers(row: dict[str, Any]) -> list[float]:
    """Return all numbers of a row, and of what is inside it."""
    values: list[float] = []
    for value in row.values():
        for one in value if isinstance(value, list) else [value]:
            values += numbers(one) if isinstance(one, dict) else [one] if isinstance(one, int | float) else []
    return values


@BOTH
def test_kserve_s_protocols_have_labels(course: Server, name: str) -> None:
    text = base64.b64encode(SEVEN).decode()
    inputs = [{"name": "images", "shape": [2], "datatype": "BYTES", "data": [text, text]}]
    with course.client() as client:
        (plain,) = images(client.post(f"/predictions/{name}", json={"images": text}))
        body = {"instances": [{"images": {"b64": text}}, {"images": text, "tta": 9}]}
        first, second = client.post(f"/v1/models/{name}:predict", json=body).json()["predictions"]
        assert first["images"] == [plain]
        assert (second["status"], second["field"]) == (400, "tta")
        answer = client.post(f"/v2/models/{name}/infer", json={"inputs": inputs})
    outputs = {one["name"]: one for one in answer.json()["outputs"]}
    assert (outputs["label"]["shape"], outputs["label"]["data"]) == ([2, 1], [plain["label"]] * 2)
    assert outputs["top_probability"]["shape"] == [2, 1, 5]


@BOTH
@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "images"),
        ({"images": ""}, "images"),
        ({"images": "AAAA"}, "images"),
        ({"images": [3]}, "images"),
        ({"images": "PICTURE", "top_k": 1e300}, "top_k"),
        ({"images": "PICTURE", "top_k": 11}, "top_k"),
        ({"images": "PICTURE", "tta": -1}, "tta"),
        ({"images": "PICTURE", "task": "🙂"}, "task"),
        ({"images": "PICTURE", "task": "explain", "label": "🙂" * 999}, "label"),
        ({"images": "PICTURE", "task": "explain", "steps": 9}, "steps"),
        ({"images": "PICTURE", "stream": True}, "stream"),
        ({"images": "PICTURE", "\n": 1}, "body"),
    ],
)
def test_a_mistake_is_400_and_names_its_field(
    course: Server, name: str, fields: dict[str, Any], field: str
) -> None:
    text = base64.b64encode(SEVEN).decode()
    with course.client() as client:
        sent_fields = {key: text if value == "PICTURE" else value for key, value in fields.items()}
        answer = client.post(f"/predictions/{name}", json=sent_fields)
        assert (answer.status_code, answer.json()["field"]) == (400, field), answer.text
        assert answer.json()["allowed"]
        assert len(answer.content) < 2000
        if fields and field != "body":  # the host itself fails at a form's field without a name
            form = {key: json.dumps(v) if not isinstance(v, str) else v for key, v in sent_fields.items()}
            assert client.post(f"/predictions/{name}", data=form).status_code == 400
