"""A classifier behind the service: labels, features and explanations of pictures of any size."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joined_bodies import answered, array, close, content, one, rows
from PIL import Image
from small_labels import CLASSES, exported, pixels, sent
from small_latents import network, served
from tensors_sent import tensor
from torch import Tensor

from genserve.images import fitted, heat, normalise, to_pixels
from genserve.sampling.labelling import merged, ranked, views
from genserve.serving.fields import parse
from genserve.serving.joined import JoiningService
from genserve.serving.requests.labels import LabelsRequest
from genserve.serving.uploads import decoded

TEMPERATURES = [0.5, 0.25, 2.0]
SQUARE, OTHER, WIDE = pixels(1), pixels(2), pixels(3, 50, 20)
X = torch.stack([normalise(torch.from_numpy(p).permute(2, 0, 1)) for p in (SQUARE, OTHER)])
A, B = sent(SQUARE), sent(OTHER)
LAST_DIGIT = 1.01e-4  # of a number in an answer
P_DIGIT = 1.01e-5  # of a probability


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("labels"), temperatures=TEMPERATURES, quality={"images": 7})


@pytest.fixture(scope="module")
def net(run: Path) -> Any:
    return network(run)


@pytest.fixture(scope="module")
def service(run: Path) -> Iterator[JoiningService]:
    service = served(run, "labels")
    yield service
    service.close()


def heat_maps(service: JoiningService, **fields: Any) -> np.ndarray[Any, Any]:
    reply = one(service, task="explain", format="npy", **fields)
    return array(reply)


def gradient(net: Any, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_(True)
    net(x)[0].gather(1, y.unsqueeze(1)).sum().backward()
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("tta", [0, 1, 2])
def test_labels_are_the_network_s_with_the_temperature_of_their_level(
    tta: int, service: JoiningService, net: Any
) -> None:
    answer = content(one(service, images=[A, B], tta=tta, top_k=3))
    with torch.no_grad():
        logits = merged(net(views(X, tta, True))[0], tta, True)
    p = (logits.double() / TEMPERATURES[tta]).softmax(1)
    for row, ps in zip(answer["images"], p, strict=True):
        order = ps.argsort(descending=True)[:3].tolist()
        assert [top["index"] for top in row["top"]] == order
        assert [top["label"] for top in row["top"]] == [CLASSES[k] for k in order]
        assert [top["probability"] for top in row["top"]] == pytest.approx(ps[order].tolist(), abs=P_DIGIT)
        assert row.items() >= row["top"][0].items()
        assert row["entropy"] == pytest.approx(-(ps * ps.log()).sum().item(), abs=1e-4)
        assert (row["width"], row["height"]) == (16, 16)
    assert answer["nfe"] == (1, 2, 6)[tta]
    assert (answer["settings"]["tta"], answer["settings"]["temperature"]) == (tta, TEMPERATURES[tta])


def test_five_classes_are_named_or_all_if_asked_for_or_fewer(service: JoiningService, tmp_path: Path) -> None:
    (row,) = rows(service, images=A)
    assert len(row["top"]) == 5
    (row,) = rows(service, images=A, top_k=6)
    assert sum(top["probability"] for top in row["top"]) == pytest.approx(1, abs=1e-4)
    few = served(exported(tmp_path, classes=("да", "nein")), "labels")
    (row,) = rows(few, images=A)
    assert {top["label"] for top in row["top"]} == {"да", "nein"}
    assert one(few, images=A, task="explain", label="да").headers["X-Index"] == "0"
    few.close()


def test_a_classifier_of_what_no_mirror_keeps_sees_no_mirror_images(tmp_path: Path) -> None:
    service = served(exported(tmp_path, mirror=False), "labels")
    assert [content(one(service, images=A, tta=k))["nfe"] for k in (0, 1, 2)] == [1, 1, 3]
    service.close()


def test_a_picture_of_another_size_is_the_middle_of_it_resized(service: JoiningService) -> None:
    (row,) = rows(service, images=sent(WIDE), top_k=6)
    (small,) = rows(service, images=sent(fitted(WIDE, 16, 16)), top_k=6)
    assert (row["width"], row["height"], small["width"], small["height"]) == (50, 20, 16, 16)
    assert row["top"] == small["top"]
    edges = WIDE.copy()
    edges[:, :8] = edges[:, -8:] = 255 - edges[:, :8]
    (same,) = rows(service, images=sent(edges), top_k=6)
    assert same["top"] == row["top"]  # what is cut off says nothing, but for the filter's reach


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (15, 17), (200, 200)])
def test_a_picture_may_have_any_proportions(size: tuple[int, int], service: JoiningService) -> None:
    (row,) = rows(service, images=sent(pixels(4, *size)))
    assert (row["width"], row["height"]) == size


def test_a_picture_may_be_gray_transparent_or_inverted(service: JoiningService) -> None:
    gray = pixels(5, channels=1)
    plain = rows(service, images=sent(gray), top_k=6)
    assert plain == rows(service, images=sent(gray.repeat(3, axis=2)), top_k=6)
    assert plain == rows(service, images=sent(255 - gray), invert=True, top_k=6)
    ink = np.zeros((16, 16, 4), np.uint8)  # black, as a drawing program saves it
    ink[..., 3] = gray[..., 0]
    buffer = io.BytesIO()
    Image.fromarray(ink).save(buffer, "PNG")
    (drawn,) = rows(service, images=base64.b64encode(buffer.getvalue()).decode(), invert=True, top_k=6)
    for a, b in zip(drawn["top"], plain[0]["top"], strict=True):
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-3)  # transparency was rounded
    (black,) = rows(service, images=base64.b64encode(buffer.getvalue()).decode(), top_k=6)
    assert black["top"] == rows(service, images=sent(np.zeros_like(SQUARE)), top_k=6)[0]["top"]


@pytest.mark.parametrize("tta", [0, 2])
def test_features_are_the_network_s(tta: int, service: JoiningService, net: Any) -> None:
    embedded = rows(service, task="embed", images=[A, B], tta=tta)
    with torch.no_grad():
        expected = merged(net(views(X, tta, True))[1], tta, True)
    for row, features in zip(embedded, expected, strict=True):
        assert row["features"] == pytest.approx(features.tolist(), abs=LAST_DIGIT)
        assert len(row["features"]) == service.spec.n_features == 12


@pytest.mark.parametrize("label", [None, "dog", 2, [0, "fox"]])
def test_a_gradient_is_that_of_the_class_s_logit(label: Any, service: JoiningService, net: Any) -> None:
    with torch.no_grad():
        logits, _ = net(X)
    given = {None: logits.argmax(1).tolist(), "dog": [3, 3], 2: [2, 2]}
    y = torch.tensor([0, 5] if isinstance(label, list) else given[label])
    array = heat_maps(service, images=[A, B], label=label)
    assert close(array, to_pixels(heat(X, gradient(net, X, y))))
    p = (logits.double() / TEMPERATURES[0]).softmax(1)
    for k, row in enumerate(rows(service, task="explain", images=[A, B], label=label, format="json")):
        assert (row["index"], row["label"]) == (y[k], CLASSES[int(y[k])])
        assert row["logit"] == pytest.approx(logits[k, y[k]].item(), abs=LAST_DIGIT)
        assert row["probability"] == pytest.approx(p[k, y[k]].item(), abs=P_DIGIT)
        assert close(to_pixels(decoded(base64.b64decode(row["png"]), (3, 16, 16))[None])[0], array[k])


def test_what_all_pixels_add_is_the_rise_of_the_logit(service: JoiningService, net: Any) -> None:
    fields: dict[str, Any] = {"task": "explain", "method": "integrated", "images": [A, B], "label": 4}
    few, many = (rows(service, **fields, steps=steps, format="json") for steps in (2, 128))
    black = torch.full_like(X, -1)
    with torch.no_grad():
        rise = net(X)[0][:, 4] - net(black)[0][:, 4]
    assert [row["rise"] for row in many] == pytest.approx(rise.tolist(), abs=LAST_DIGIT)
    errors = [[abs(row["attributed"] - row["rise"]) for row in part] for part in (few, many)]
    assert max(errors[1]) < 2e-3
    assert sum(errors[1]) < sum(errors[0])
    y, mean = torch.tensor([4, 4]), torch.zeros_like(X)
    for k in range(7):
        mean += gradient(net, black + (k + 0.5) / 7 * (X - black), y) / 7
    del fields["task"]
    assert close(heat_maps(service, **fields, steps=7), to_pixels(heat(X, (X - black) * mean)))
    assert content(one(service, task="explain", **fields, format="json"))["nfe"] == 35  # 32 steps


def test_heat_maps_come_in_every_format(service: JoiningService) -> None:
    maps = heat_maps(service, images=[A, B], scale=2)
    assert maps.shape == (2, 32, 32, 3)
    reply = one(service, task="explain", images=[A, B], scale=2, columns=1)
    assert (reply.content_type, reply.headers["X-NFE"]) == ("image/png", "2")
    assert reply.headers["X-Index"] == ",".join(
        str(row["index"]) for row in rows(service, task="explain", images=[A, B], format="json")
    )
    picture = np.asarray(Image.open(io.BytesIO(reply.body)))
    assert picture.shape == (66, 32, 3)
    assert np.array_equal(picture[:32], maps[0])
    assert one(service, task="explain", images=[A, B], format="zip").content_type == "application/zip"


REQUESTS: list[dict[str, Any]] = [
    {"images": A},
    {"images": [A, B, sent(WIDE)], "tta": 2, "top_k": 6},
    {"images": [B], "tta": 1},
    {"task": "embed", "images": [A, B]},
    {"task": "explain", "images": [A, B], "format": "json"},
    {"task": "explain", "images": sent(WIDE), "method": "integrated", "steps": 9, "format": "json"},
]


@settings(max_examples=20)
@given(order=st.lists(st.sampled_from(range(len(REQUESTS))), min_size=1, max_size=9))
def test_the_same_answers_alone_and_in_any_company(service: JoiningService, order: list[int]) -> None:
    """To one in the last digit and one of 255 in a heat map: float32 adds up by the size of a batch."""
    requests = [REQUESTS[k] for k in order]
    for fields, reply in zip(requests, service.answers(requests), strict=True):
        for alone, together in zip(rows(service, **fields), content(reply)["images"], strict=True):
            assert like(alone, together), (alone, together)


def like(a: Any, b: Any) -> bool:
    """Return whether two parts of answers are the same but for rounding."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(
            close(*(to_pixels(decoded(base64.b64decode(v["png"]), (3, 16, 16))[None]) for v in (a, b)))
            if name == "png"
            else abs(a[name] - b[name]) <= P_DIGIT
            if name == "probability"
            else like(a[name], b[name])
            for name in a
        )
    if isinstance(a, list):
        return len(a) == len(b) and all(map(like, a, b))
    return bool(abs(a - b) <= LAST_DIGIT) if isinstance(a, float) else bool(a == b)


@pytest.mark.parametrize("fields", REQUESTS)
def test_the_work_of_a_request_is_what_is_evaluated(fields: dict[str, Any], service: JoiningService) -> None:
    job = parse(LabelsRequest, fields, text=False).job(service.spec, service.running.computed)
    before = service.lanes.totals.items
    answer = content(one(service, **fields))
    assert service.lanes.totals.items - before == job.work == job.n * answer["nfe"]


def test_a_description_has_classes_temperatures_and_quality(service: JoiningService) -> None:
    description = content(one(service, task="describe"))
    assert (description["classes"], description["temperatures"]) == (list(CLASSES), TEMPERATURES)
    assert (description["quality"], description["n_features"]) == ({"images": 7}, 12)


def test_tensors_have_the_labels_of_every_picture(service: JoiningService) -> None:
    inputs = [tensor("images", [A, B, A, B], "BYTES", [2, 2]), tensor("top_k", [3])]
    reply = answered(service, {"inputs": inputs})
    outputs = {one["name"]: one for one in content(reply)["outputs"]}
    expected = rows(service, images=[A, B], top_k=3)
    assert outputs["label"] == {
        "name": "label", "shape": [2, 2], "datatype": "BYTES", "data": [row["label"] for row in expected] * 2
    }  # fmt: skip
    assert outputs["top_label"]["shape"] == outputs["top_probability"]["shape"] == [2, 2, 3]
    assert outputs["top_index"]["data"][:3] == [top["index"] for top in expected[0]["top"]]
    assert outputs["width"]["data"] == [16] * 4
    reply = answered(service, {"inputs": [inputs[0], tensor("top_k", [1, 2])]})
    assert (reply.status, json.loads(reply.body)["field"]) == (400, "top_k")
    reply = answered(service, {"inputs": [inputs[0], tensor("task", ["embed"], "BYTES")]})
    outputs = {one["name"]: one for one in content(reply)["outputs"]}
    assert outputs["features"]["shape"] == [2, 2, 12]


def test_instances_are_answered_in_their_order(service: JoiningService) -> None:
    instances = [{"images": {"b64": A}}, {"images": A, "task": "explain"}, {"images": A, "top_k": 9}]
    first, second, third = content(answered(service, {"instances": instances}))["predictions"]
    assert first["images"] == rows(service, images=A)
    assert "png" in second["images"][0]
    assert (third["status"], third["field"]) == (400, "top_k")
    explained = content(answered(service, {"instances": instances[:1]}, explain="True"))["explanations"]
    assert explained[0]["settings"] | {"task": "explain", "method": "gradient"} == explained[0]["settings"]


def test_ties_are_broken_by_the_order_of_the_classes() -> None:
    assert ranked(torch.tensor([[0.2, 0.4, 0.4]]), 3)[1].tolist() == [[1, 2, 0]]
