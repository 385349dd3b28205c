"""Requests: what is taken, what is refused, and that a refusal names its field."""

import dataclasses
from typing import Any

import pytest

from genserve.runs.contract import Spec
from genserve.sampling.schedules import Tuned
from genserve.sampling.settings import Setting
from genserve.serving.fields import BadRequest, parse
from genserve.serving.limits import WORK_MAX
from genserve.serving.orders import Order
from genserve.serving.requests.diffusion import DiffusionRequest

DIGITS = Spec(
    name="digits",
    family="diffusion",
    shape=(1, 28, 28),
    classes=tuple("0123456789"),
    sigma_min=0.002,
    sigma_max=40.0,
    steps=12,
)
PLAIN = Spec(name="plain", family="diffusion", shape=(3, 32, 32), classes=(), sigma_min=0.002, sigma_max=80.0)


def resolved(fields: dict[str, Any], spec: Spec = DIGITS, *, text: bool = False) -> tuple[Order, Setting]:
    order, setting = parse(DiffusionRequest, fields, text).resolved(spec)
    assert setting is not None
    return order, setting


def order(fields: dict[str, Any], spec: Spec = DIGITS, *, text: bool = False) -> Order:
    return resolved(fields, spec, text=text)[0]


def setting(fields: dict[str, Any], spec: Spec = DIGITS) -> Setting:
    return resolved(fields, spec)[1]


def labels(fields: dict[str, Any], spec: Spec = DIGITS, *, text: bool = False) -> list[int]:
    """Return the class of each image, of a request that has classes."""
    label = order(fields, spec, text=text).label
    assert label is not None
    return list(label)


def test_no_field_at_all_is_a_request_with_the_model_s_defaults() -> None:
    images, how_drawn = resolved({})
    assert (images.n, images.format, images.scale) == (16, "png", 1)
    assert (how_drawn.steps, how_drawn.sampler, how_drawn.schedule) == (12, "dpmpp_2m", "karras")
    assert how_drawn.guidance == 1
    assert images.seed != order({}).seed


def test_the_model_s_own_eta_goes_with_its_own_sampler_only() -> None:
    noisy = dataclasses.replace(DIGITS, sampler="ddim", eta=0.5)
    assert setting({}, noisy).eta == 0.5
    assert setting({"steps": 3}, noisy).eta == 0.5
    assert setting({"eta": 0}, noisy).eta == 0
    assert setting({"sampler": "ddim"}, noisy).eta == 0
    assert order({"sampler": "heun"}, noisy).facts["eta"] is None
    with pytest.raises(ValueError, match="eta"):
        dataclasses.replace(DIGITS, sampler="heun", eta=0.5)


def test_the_steps_alone_bring_what_was_found_for_them() -> None:
    tuned = (
        Tuned(sampler="dpmpp_2m", eta=0.6, sigmas=(30.0, 3.0, 0.5)),
        Tuned(sampler="heun", sigmas=(9.0,)),
    )
    spec = dataclasses.replace(DIGITS, sampler="ddim", eta=1.0, steps=3, tuned=tuned)

    def levels(**fields: Any) -> tuple[Any, ...]:
        facts = order(fields, spec).facts
        return tuple(facts[name] for name in ("sampler", "steps", "schedule", "eta"))

    assert levels() == ("dpmpp_2m", 3, "tuned", 0.6)
    assert levels(steps=1) == ("heun", 1, "tuned", None)
    assert levels(steps=5) == ("ddim", 5, "karras", 1.0)  # nothing was found
    assert levels(schedule="karras") == ("ddim", 3, "karras", 1.0)
    assert levels(sampler="ddim") == ("ddim", 3, "karras", 0.0)
    assert levels(eta=0) == ("ddim", 3, "karras", 0.0)
    assert levels(schedule="tuned", sampler="ddim") == ("ddim", 3, "tuned", 0.0)
    assert levels(schedule="tuned", eta=0.1) == ("dpmpp_2m", 3, "tuned", 0.1)
    with pytest.raises(BadRequest, match="tuned knows 3, 1") as caught:
        resolved({"schedule": "tuned", "steps": 5}, spec)
    assert caught.value.field == "steps"
    with pytest.raises(BadRequest, match="tuned knows nothing"):
        resolved({"schedule": "tuned"}, DIGITS)
    with pytest.raises(
        ValueError, match="schedule must be one of karras, linear, cosine, offset_cosine, got"
    ):
        dataclasses.replace(DIGITS, schedule="tuned")  # of other numbers of steps it says nothing


def test_a_form_says_the_same_as_json() -> None:
    form = {
        "num_samples": "4",
        "seed": "9",
        "eta": "0.5",
        "sampler": "ddim",
        "label": "1,2,3,4",
        "columns": "2",
        "guidance": "3",
    }
    json = {
        "num_samples": 4,
        "seed": 9,
        "eta": 0.5,
        "sampler": "ddim",
        "label": [1, 2, 3, 4],
        "columns": 2,
        "guidance": 3,
    }
    assert resolved(form, text=True) == resolved(json)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": 65}, "num_samples"),
        ({"num_samples": "4"}, "num_samples"),
        ({"num_samples": True}, "num_samples"),
        ({"num_samples": 4.0}, "num_samples"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"steps": 0}, "steps"),
        ({"steps": 1001}, "steps"),
        ({"steps": 900, "schedule": "linear", "num_samples": 1}, "steps"),
        ({"steps": 1000, "num_samples": 64}, "steps"),
        ({"sampler": "euler"}, "sampler"),
        ({"sampler": ["ddim"]}, "sampler"),
        ({"schedule": "sqrt"}, "schedule"),
        ({"eta": 1.5, "sampler": "ddim"}, "eta"),
        ({"eta": float("nan"), "sampler": "ddim"}, "eta"),
        ({"eta": 0.5, "sampler": "heun"}, "eta"),
        ({"eta": 0, "sampler": "ddpm"}, "eta"),
        ({"eta": 1, "sampler": "ddpm"}, "eta"),
        ({"label": 10}, "label"),
        ({"label": -1}, "label"),
        ({"label": "cat"}, "label"),
        ({"label": True}, "label"),
        ({"label": {}}, "label"),
        ({"label": []}, "label"),
        ({"label": [1] * 65}, "label"),
        ({"label": [1, 2], "num_samples": 3}, "label"),
        ({"label": 10**30}, "label"),
        ({"label": "0000000007"}, "label"),
        ({"label": "\u0663"}, "label"),
        ({"label": "1,2"}, "label"),
        ({"label": [[]] * 2_000_000}, "label"),
        ({"task": "describe", "num_samples": 3}, "num_samples"),
        ({"\ud800": 1}, "?"),
        ({"": 1}, "body"),
        ({"guidance": 2, "label": "none"}, "guidance"),
        ({"label": ["none", 1]}, "label"),
        ({"guidance": 21, "label": 1}, "guidance"),
        ({"guidance": float("inf"), "label": 1}, "guidance"),
        ({"format": "jpeg"}, "format"),
        ({"columns": 0}, "columns"),
        ({"columns": 2, "format": "zip"}, "columns"),
        ({"scale": 17}, "scale"),
        ({"scale": 16, "num_samples": 64, "format": "gif"}, "scale"),
        ({"first_index": 2**60}, "first_index"),
        ({"task": "train"}, "task"),
        ({"steps_": 3}, "steps_"),
        ({"x" * 5000: 3}, "x" * 40),
    ],
)
def test_a_wrong_field_is_named_with_what_is_allowed(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        resolved(fields)
    assert caught.value.field == field
    assert caught.value.allowed
    assert len(caught.value.body()) < 1000


def test_without_a_label_each_image_has_a_class_of_its_own_seed_and_index() -> None:
    first, later = labels({"seed": 3}), labels({"seed": 3, "first_index": 8})
    assert first[8:] == later[:8]
    many = [label for seed in range(100) for label in labels({"seed": seed, "steps": 1})]
    counts = [many.count(k) for k in range(10)]  # of 1,600, chi-square with 9 degrees of freedom
    assert sum((c - 160) ** 2 / 160 for c in counts) < 27.9  # exceeded once in a thousand
    assert order({"label": "none"}).label is None
    assert setting({"guidance": 2}).guidance == 2
    assert order({}, PLAIN).label is None


@pytest.mark.parametrize("number", ["1_0", "4.0", " 4", "+3", "", "\u0663"])
def test_a_number_in_a_form_is_digits(number: str) -> None:
    with pytest.raises(BadRequest) as caught:
        resolved({"num_samples": number}, text=True)
    assert caught.value.field == "num_samples"


def test_a_class_goes_by_number_or_name_and_only_where_there_are_classes() -> None:
    assert labels({"label": 7, "num_samples": 2}) == [7, 7]
    assert labels({"label": "7", "num_samples": 1}) == [7]
    assert labels({"label": [3, "4"]}) == [3, 4]
    named = Spec(
        name="pets",
        family="diffusion",
        shape=(3, 8, 8),
        classes=("cat", "dog"),
        sigma_min=0.01,
        sigma_max=80.0,
    )
    assert labels({"label": "dog,cat"}, named, text=True) == [1, 0]
    with pytest.raises(BadRequest, match="no class"):
        resolved({"label": 0}, PLAIN)


def test_a_label_means_one_class_in_json_in_text_and_in_a_list() -> None:
    for classes in (("1", "2", "10"), ("0", "1", "10", "2"), ("cat", "2", "0"), ("-1", "b")):
        spec = dataclasses.replace(PLAIN, classes=classes)
        for label in (*range(-1, 12), *classes):
            results: list[Any] = []
            for fields, text in (
                ({"label": label}, False),
                ({"label": str(label)}, False),
                ({"label": [label]}, False),
                ({"label": str(label)}, True),
            ):
                try:
                    results.append(labels(fields | {"num_samples": "1" if text else 1}, spec, text=text))
                except BadRequest as error:
                    results.append(error.field)
            expected: Any = "label"
            if str(label) in classes:  # a name comes first
                expected = [classes.index(str(label))]
            elif not all(name.isdecimal() for name in classes) and label in range(len(classes)):
                expected = [label]
            assert results == [expected] * 4


def test_work_is_bounded_with_guidance_counted() -> None:
    steps = WORK_MAX // 64
    assert setting({"num_samples": 64, "steps": steps}).steps == steps
    with pytest.raises(BadRequest, match="network evaluations"):
        resolved({"num_samples": 64, "steps": steps, "label": 1, "guidance": 2})


@pytest.mark.parametrize(
    ("fields", "field", "advice"),
    [
        ({"format": "gif", "num_samples": 64, "steps": 90, "scale": 2}, "steps",
         "fewer steps or fewer samples or a smaller scale"),
        ({"format": "gif", "num_samples": 1, "scale": 16, "steps": 30}, "steps",
         "fewer steps or a smaller scale"),
        ({"stream": True, "frames": 50, "steps": 90, "num_samples": 64, "scale": 2}, "frames",
         "fewer frames or fewer samples or a smaller scale"),
        ({"stream": True, "frames": 50, "num_samples": 64, "scale": 16}, "scale",
         "fewer samples or a smaller scale"),
        ({"format": "filmstrip", "num_samples": 64, "scale": 8}, "scale", "fewer samples or a smaller scale"),
    ],
)  # fmt: skip
def test_too_large_an_answer_names_what_makes_it_so(fields: dict[str, Any], field: str, advice: str) -> None:
    with pytest.raises(BadRequest, match="pixel values") as caught:
        resolved(fields)
    assert caught.value.field == field
    assert caught.value.allowed.endswith(f"in all: {advice}")


def test_image_numbers_go_on_where_another_request_stopped() -> None:
    assert list(order({"num_samples": 3, "first_index": 5}).indices) == [5, 6, 7]
