"""What a client may have a program do: its own class decides, an error names the key, no path leads out."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from genserve.cli import configure
from genserve.gateway.jobs.settings import checked, configurations, shipped_runs
from genserve.gateway.options import Options
from genserve.learning.identity import as_stored
from genserve.learning.programs import PROGRAMS, settings_of
from genserve.places import PROJECT
from genserve.serving.fields import BadRequest


@pytest.fixture
def options(tmp_path: Path) -> Options:
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    return Options(data=tmp_path / "data", runs=tmp_path / "runs")


def refused(options: Options, overrides: dict[str, Any], program: str = "diffusion") -> BadRequest:
    with pytest.raises(BadRequest) as refusal:
        checked(options, program, "diffusion-digits", overrides)
    json.loads(refusal.value.body())
    return refusal.value


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        ({"epochs": -1}, "epochs", "epochs must be above 0, got -1"),
        ({"epochs": "2"}, "epochs", "valid integer"),
        ({"epochs": 2.5}, "epochs", "valid integer"),
        ({"epochs": None}, "epochs", "valid integer"),
        ({"lr": True}, "lr", "valid number"),
        ({"lr": [1]}, "lr", "valid number"),
        ({"epoch": 2}, "epoch", "there is no such setting"),
        ({"net": 3}, "net", "must be an object"),
        ({"net": {"width": 2}}, "net.width", "there is no such setting"),
        ({"net.channels": ["a"]}, "net.channels", "valid integer"),
        ({"net.channels": 8}, "net.channels", "valid array"),
        ({"net": {"patch": 1}, "net.patch": 2}, "net.patch", "given twice"),
        ({"net.patch.x": 1}, "net.patch", "valid integer"),
        ({"betas": [0.9]}, "betas", "required"),
        ({"sigma_min": 50}, "sigma_min", "below sigma_max"),
        ({"data.name": "imagenet"}, "data.name", "must be one of mnist"),
        ({"net": {"class_path": "os.system"}}, "net.class_path", "no such setting"),
        ({"class_path": "os.system"}, "class_path", "no such setting"),
        ({"": 1}, "body", "no such setting"),
        ({"p_std": 1e400}, "p_std", ""),
        ({"output": "/tmp"}, "output", "the gateway chooses it"),
        ({"name": "../x"}, "name", "the gateway chooses it"),
        ({"threads": 64}, "threads", "the gateway chooses it"),
    ],
)
def test_what_the_program_s_class_refuses_is_refused_with_the_name_of_the_key(
    options: Options, overrides: dict[str, Any], key: str, words: str
) -> None:
    refusal = refused(options, overrides)
    assert refusal.status == 400
    assert refusal.field in (f"overrides.{key}", "overrides")
    assert words in refusal.message


@pytest.mark.parametrize(
    "root",
    [
        "../secret",
        "mine/../../secret",
        "/etc",
        "..",
        "",
        "nothing",
        "a\0b",
        "\ud800",
        "x" * 9999,
        5,
        ["mine"],
    ],
)
def test_data_are_read_below_the_folder_of_data_alone(options: Options, root: Any) -> None:
    if root == "":
        settings = checked(options, "diffusion", "diffusion-digits", {"data.root": root})
        assert Path(settings["data"]["root"]) == options.data.absolute()
    else:
        assert refused(options, {"data": {"root": root}}).field == "overrides.data.root"


def test_a_folder_below_that_of_data_is_read(options: Options) -> None:
    settings = checked(options, "diffusion", None, {"data": {"name": "folder", "root": "mine"}})
    assert Path(settings["data"]["root"]) == (options.data / "mine").absolute()


def test_data_sets_lie_in_the_operator_s_folder_and_texts_in_their_usual_places(options: Options) -> None:
    assert checked(options, "gan", None, {})["data"]["root"] == str(options.data.absolute())
    assert checked(options, "ngram", None, {})["data"]["root"] is None


@pytest.mark.parametrize("name", ["start_from", "teacher", "classifier"])
def test_runs_are_shipped_weights_by_name(options: Options, name: str) -> None:
    for value in ("diffusion-mnist", "weights/diffusion-mnist"):
        assert checked(options, "distill", None, {name: value})[name] == "weights/diffusion-mnist"
    for value in ("../runs/x", "/etc", "weights/../runs", "runs/mine", "", 3, ["a"], {"a": 1}):
        refusal = refused_run(options, {name: value})
        assert refusal.field == f"overrides.{name}"
        assert "diffusion-mnist" in refusal.allowed


def refused_run(options: Options, overrides: dict[str, Any]) -> BadRequest:
    with pytest.raises(BadRequest) as refusal:
        checked(options, "distill", None, overrides)
    return refusal.value


def test_a_configuration_is_one_of_the_operator_s_and_of_this_program(options: Options) -> None:
    for name in ("nothing", "../configs/diffusion-mnist", ""):
        with pytest.raises(BadRequest, match="there is no such configuration") as refusal:
            checked(options, "diffusion", name, {})
        assert "diffusion-digits" in refusal.value.allowed
    with pytest.raises(BadRequest, match="not one of this program"):
        checked(options, "text", "gan-mnist", {})


def read(program: str, *flags: str) -> Any:
    """Return what a program makes of its command line."""
    configs: list[Any] = []
    configure(configs.append, settings_of(program), "", list(flags))
    return configs[0]


PROGRAM_OF = {  # of a configuration, if its name does not begin with it
    "consistency": "distill", "judge": "classifier", "labels": "classifier"
}  # fmt: skip


@pytest.mark.parametrize("name", configurations(Options()))
def test_a_configuration_means_what_it_means_on_the_command_line(name: str, options: Options) -> None:
    program = PROGRAM_OF.get(name.split("-")[0], name.split("-")[0])
    settings = checked(options, program, name, {})
    file = PROJECT / "training" / "configs" / f"{name}.yaml"
    usual = as_stored(asdict(read(program, "--config", str(file))))
    for each in (settings, usual):
        each["data"]["root"] = None
    assert as_stored(settings) == usual


def test_what_was_checked_is_read_by_the_program_as_it_was_checked(options: Options, tmp_path: Path) -> None:
    overrides = {"lr": 1e-5, "net.channels": [8, 16], "data.name": "digits", "max_batches_per_epoch": None}
    settings = checked(options, "diffusion", None, overrides)
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings))
    config = read("diffusion", "--config", str(file), "--name", "x")
    assert as_stored(asdict(config)) == as_stored(settings | {"name": "x"})


def test_every_program_and_shipped_run_is_known() -> None:
    assert all(settings_of(name)().name for name in PROGRAMS)
    assert "diffusion-mnist" in shipped_runs()
