"""What a client may ask of a classifier, and what is refused."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joined_bodies import one, refused
from PIL import Image
from small_labels import CLASSES, exported, pixels, sent
from small_latents import served

from genserve.families import FAMILIES, load
from genserve.serving.fields import BadRequest, parse
from genserve.serving.jobs.labelling import METHODS, TASKS
from genserve.serving.joined import JoiningService
from genserve.serving.requests.labels import LabelsRequest

A = sent(pixels(1))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JoiningService]:
    service = served(exported(tmp_path_factory.mktemp("labels")), "labels")
    yield service
    service.close()


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "images"),
        ({"images": []}, "images"),
        ({"images": [A] * 65}, "images"),
        ({"images": "aGVsbG8="}, "images"),
        ({"images": 3}, "images"),
        ({"images": [A, "🙂"]}, "images"),
        ({"images": A, "task": "sample"}, "task"),
        ({"images": A, "task": ""}, "task"),
        ({"task": "describe", "images": A}, "images"),
        ({"images": A, "top_k": 0}, "top_k"),
        ({"images": A, "top_k": 7}, "top_k"),
        ({"images": A, "top_k": 10**30}, "top_k"),
        ({"images": A, "top_k": "3"}, "top_k"),
        ({"images": A, "top_k": [1]}, "top_k"),
        ({"images": A, "task": "embed", "top_k": 3}, "top_k"),
        ({"images": A, "tta": 3}, "tta"),
        ({"images": A, "tta": True}, "tta"),
        ({"images": A, "task": "explain", "tta": 1}, "tta"),
        ({"images": A, "invert": "true"}, "invert"),
        ({"images": A, "invert": 1}, "invert"),
        ({"images": A, "label": 1}, "label"),
        ({"images": A, "method": "gradient"}, "method"),
        ({"images": A, "scale": 2}, "scale"),
        ({"images": A, "format": "png"}, "format"),
        ({"images": A, "task": "embed", "format": "npy"}, "format"),
        ({"images": A, "task": "explain", "format": "gif"}, "format"),
        ({"images": A, "task": "explain", "format": "json", "columns": 2}, "columns"),
        ({"images": A, "task": "explain", "label": "gnu"}, "label"),
        ({"images": A, "task": "explain", "label": "none"}, "label"),
        ({"images": A, "task": "explain", "label": 6}, "label"),
        ({"images": A, "task": "explain", "label": []}, "label"),
        ({"images": A, "task": "explain", "label": [1, 2]}, "label"),
        ({"images": A, "task": "explain", "method": "magic"}, "method"),
        ({"images": A, "task": "explain", "steps": 4}, "steps"),
        ({"images": A, "task": "explain", "method": "integrated", "steps": 257}, "steps"),
        ({"images": [A] * 64, "task": "explain", "method": "integrated", "steps": 256}, "steps"),
        ({"images": [A] * 64, "task": "explain", "scale": 16}, "scale"),
        ({"images": A, "stream": True}, "stream"),
        ({"images": A, "num_samples": 2}, "num_samples"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_the_name_of_its_field(
    fields: dict[str, Any], name: str, service: JoiningService
) -> None:
    refused(one(service, **fields), name)


ODD: list[Any] = [None, True, False, -1, 0, 1, 3, 1e300, float("nan"), A, [], [A]]
ODD += ["", "1", "да", "integrated", "explain", "embed", "json", "npy"]


@settings(max_examples=150)
@given(fields=st.dictionaries(st.sampled_from(list(LabelsRequest.model_fields)), st.sampled_from(ODD)))
def test_no_fields_are_a_fault_of_the_server(fields: dict[str, Any], service: JoiningService) -> None:
    reply = one(service, **{"images": A, **fields})
    assert reply.status in (200, 400), (fields, reply.body)
    if reply.status == 400:
        assert json.loads(reply.body)["field"] in LabelsRequest.model_fields


def test_pictures_too_large_to_unpack_are_refused_before_they_are() -> None:
    buffer = io.BytesIO()
    Image.new("1", (2000, 1500)).save(buffer, "PNG")  # 3 million pixels, in some 400 bytes
    assert len(buffer.getvalue()) < 1000
    request = parse(LabelsRequest, {"images": [buffer.getvalue()] * 2}, text=False)
    spec = load(FAMILIES["labels"].contract)(
        name="x", family="labels", shape=(3, 16, 16), classes=CLASSES, n_features=12, mirror=True
    )
    with pytest.raises(BadRequest, match=r"images 1: 2000 x 1500 pixels, more than 1194304") as error:
        request.job(spec, {"backend": "torchscript", "precision": "fp32"})
    assert "4194304 pixels in all" in error.value.allowed


def test_text_fields_mean_the_same_as_json(service: JoiningService) -> None:
    files = base64.b64decode(A)
    text = {"images": files, "task": "explain", "label": "1", "scale": "2", "invert": "yes"}
    typed = {"images": A, "task": "explain", "label": 1, "scale": 2, "invert": True}
    jobs = [
        parse(LabelsRequest, fields, text=is_text).job(service.spec, service.running.computed)
        for fields, is_text in ((text, True), (typed, False))
    ]
    assert jobs[0].question == jobs[1].question
    assert jobs[0].question.x.equal(jobs[1].question.x)


def test_a_log_line_of_a_job_has_no_picture(service: JoiningService) -> None:
    job = parse(LabelsRequest, {"images": A}, text=False).job(service.spec, service.running.computed)
    assert str(job).startswith("task=classify images=1 settings={'model': 'labels'")
    assert "tensor" not in repr(job.question)


def test_every_task_and_method_is_a_value_of_its_field() -> None:
    for name, table in (("task", TASKS), ("method", METHODS)):
        info = LabelsRequest.model_fields[name]
        assert all(f"`{key}`" in (info.description or "") for key in table)
