"""What makes a run another run: settings, model, data and inputs, compared in words."""

from pathlib import Path
from typing import Any

import pytest
import torch
from line_runs import Model, begun, checkpoint, trained
from unchanged import state_of

from genserve.data.pictures import DataConfig, ImageSet
from genserve.files import write_json
from genserve.learning.identity import changes, described, flat
from genserve.runs.directory import read_config
from genserve.runs.tensors import read_weights, save_state, write_weights


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_a_run_may_go_on_longer_and_elsewhere_but_not_learn_something_else(
    directory: Path, tmp_path: Path
) -> None:
    begun(directory)
    before = state_of(directory)
    other = {"lr": 0.2, "widths": (3,), "max_batches_per_epoch": 7}
    named = r"another run \(lr was 0.1, is 0.2; max_batches.* was None, is 7; widths was \[1, 2\], is \[3\]\)"
    with pytest.raises(ValueError, match=named):
        checkpoint(directory, **other).resume(*trained(), total=100)
    with pytest.raises(ValueError, match=r"another run \(classes were a, b, are a, b, c\)"):
        checkpoint(directory, model=Model(classes=("a", "b", "c"))).resume(*trained(), total=100)
    with pytest.raises(ValueError, match=r"is 60 steps long already, 59 are asked for"):
        checkpoint(directory).resume(*trained(), total=59)
    assert state_of(directory) == before
    moved = directory.rename(tmp_path / "moved")
    free = {"epochs": 9, "threads": 4, "data": DataConfig(root="else/where/", download=False)}
    assert checkpoint(moved, **free).resume(*trained(), total=300)["step"] == 60
    assert read_config(moved)["train"]["epochs"] == 9


def test_contents_of_inputs_are_compared_and_not_their_places(directory: Path) -> None:
    teacher = {"inputs": {"data": "1" * 64}}
    begun(directory, **teacher)
    before = state_of(directory)
    with pytest.raises(ValueError, match=r"another run \(data has other contents\)"):
        checkpoint(directory, inputs={"data": "2" * 64}).resume(*trained(), total=100)
    with pytest.raises(ValueError, match=r"another run \(data was "):
        checkpoint(directory).resume(*trained(), total=100)
    assert state_of(directory) == before


def test_a_run_of_an_older_version_goes_on_and_what_it_recorded_is_compared(directory: Path) -> None:
    """It has neither data nor inputs, and lacks settings that did not exist: they count as their defaults."""
    begun(directory)
    config = read_config(directory)
    old = {"format": 1, "model": config["model"], "train": {"lr": 0.1, "widths": [1, 2]}}
    write_json(directory / "config.json", old)
    state = torch.load(directory / "state.pt", weights_only=True)
    del state["kept"]
    save_state(directory / "state.pt", state)
    write_weights(directory / "weights.safetensors", {"best": torch.ones(1)})  # chosen by that version
    before = state_of(directory)
    for other in ({"lr": 0.2}, {"max_batches_per_epoch": 3}, {"start_from": "x"}):
        with pytest.raises(ValueError, match=next(iter(other))):
            checkpoint(directory, **other).resume(*trained(), total=100)
    assert state_of(directory) == before
    assert checkpoint(directory).resume(*trained(), total=100)["step"] == 60
    assert read_weights(directory / "weights.safetensors")["best"].item() == 1
    assert read_config(directory)["data"]["images"] == 8


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"family": "curve"}, "has family line, this run curve"),
        ({"shape": (3,)}, r"has shape \[2\], this run \[3\]"),
        ({"classes": ("a",)}, r"has classes \['a', 'b'\], this run \['a'\]"),
        ({"net": {"width": 3}}, "has net {'width': 2}, this run {'width': 3}"),
    ],
)
def test_weights_of_another_model_are_no_start(directory: Path, other: dict[str, Any], named: str) -> None:
    begun(directory)
    new = checkpoint(directory.with_name("new"), model=Model(**other), start_from=str(directory))
    with pytest.raises(ValueError, match=f"start_from .*run {named}"):
        new.resume(*trained(), total=100)
    assert not directory.with_name("new").exists()


# ---- the comparison ----------------------------------------------------------------------------------------


def data(**more: Any) -> dict[str, Any]:
    """Return the description of a data set, with some entries of its own."""
    return {"images": 2, "classes": ["a"], "mean": 0.0, "std": 1.0, "sha256": "1"} | more


def config(train: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a config.json."""
    return {"model": {"net": {"width": 2}}, "train": train, "data": data(), "inputs": {}} | more


def test_nested_settings_are_compared_by_their_dotted_keys() -> None:
    assert flat({"net": {"width": 2, "norm": {"eps": 1}}, "lr": 3}) == {
        "net.width": 2,
        "net.norm.eps": 1,
        "lr": 3,
    }
    before = config({"augment": {"shift": 1}})
    assert changes(before, before, {}) == []
    assert changes(before, config({"augment": {"shift": 2}}), {}) == ["augment.shift was 1, is 2"]


def test_a_setting_that_did_not_exist_counts_as_its_default() -> None:
    before, now = config({}), config({"huber": 0.5})
    assert changes(before, now, {"huber": 0.5}) == []
    assert changes(before, now, {"huber": 0.1}) == ["huber was 0.1, is 0.5"]


def test_of_data_only_the_plainest_difference_is_named() -> None:
    before = config({})
    for other, words in (
        ({"images": 3, "sha256": "2"}, "data had 2 images, have 3"),
        ({"mean": 0.5, "sha256": "2"}, "mean was 0.0, is 0.5"),
        ({"sha256": "2"}, "data have other pictures or labels"),
    ):
        assert changes(before, config({}, data=data(**other)), {}) == [words]


def test_of_many_classes_twenty_are_shown() -> None:
    names = [f"c{k}" for k in range(25)]
    before = config({}, model={"classes": []})
    shown = ", ".join(names[:20])
    assert changes(before, config({}, model={"classes": names}), {}) == [
        f"classes were none, are {shown} and 5 more"
    ]


def test_the_digest_of_data_knows_shape_pixels_and_labels() -> None:
    x, y = torch.arange(16, dtype=torch.uint8).view(2, 1, 2, 4), torch.tensor([0, 1])

    def digest_of(x: torch.Tensor, y: torch.Tensor) -> str:
        return str(described(ImageSet(x, y, ("a", "b")))["sha256"])

    others = [(x.view(2, 1, 4, 2), y), (x.flip(0), y), (x, y.flip(0))]
    digests = {digest_of(*images) for images in [(x, y), *others]}
    assert len(digests) == 4
    assert digest_of(x.clone(), y.clone()) in digests


def test_a_text_is_compared_by_its_length_and_then_by_its_characters() -> None:
    texts = [described(text) for text in ("a text", "a text", "a test", "texts")]
    assert texts[0] == texts[1]
    assert texts[0]["characters"] == 6
    of = [config({}, data=text) for text in texts]
    assert changes(of[0], of[1], {}) == []
    assert changes(of[0], of[2], {}) == ["data have other characters"]
    assert changes(of[0], of[3], {}) == ["data had 6 characters, have 5 characters"]
    assert changes(config({}), of[0], {}) == ["data had 0 characters, have 6 characters"]
