"""What is wrong is named before a step is lost, by every training program."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_programs import PROGRAMS, ROOT, SETTINGS, config_of, fit

from genserve.cli import plain_errors
from genserve.learning.ranks import Ranks
from genserve.runs.tensors import read_state


def test_a_place_that_cannot_be_written_ends_in_one_line(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit) as stop, plain_errors():
        fit("train_diffusion", tmp_path / "file", pictures)
    assert stop.value.code == f"error: {tmp_path / 'file/train_diffusion'}: Not a directory"


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"threads": -1}, "threads must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"warmup": -5}, "warmup must be at least 0"),
        ({"max_batches_per_epoch": 0}, "max_batches_per_epoch must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(
    name: str, more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(name, tmp_path, tmp_path, **more)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("train_gan", {"start_from": "x"}, "start_from is not possible for a GAN: .* keeps no discriminator"),
        ("train_gan", {"batch_size": 6}, "batch_size must be a multiple of critic.group 4, got 6"),
        ("train_gan", {"critic": {"group": 0}}, "critic.group must be at least 1, got 0"),
        ("train_gan", {"r1": -1.0}, "r1 must be at least 0, got -1"),
        ("train_gan", {"r1_every": 0}, "r1_every must be at least 1, got 0"),
        ("train_vae", {"prior_epochs": 1}, "prior_epochs must be in 0 to epochs - 1, got 1"),
        ("train_vae", {"prior_batch": 0}, "prior_batch must be above 0, got 0"),
        ("train_vae", {"prior_lr": float("nan")}, "prior_lr must be above 0, got nan"),
        ("train_vae", {"kl_warmup": -1}, "kl_warmup must be at least 0, got -1"),
        ("train_vae", {"validation": -1}, "validation must be at least 0, got -1"),
    ],
)
def test_a_setting_of_one_program_that_makes_no_sense_is_named(
    name: str, more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(name, tmp_path, tmp_path, **more)


@pytest.mark.parametrize("name", ["train_gan", "train_vae"])
def test_what_learns_in_one_process_says_so(name: str, pictures: Path, tmp_path: Path) -> None:
    ranks = Ranks(rank=0, size=2, device=torch.device("cpu"))
    with pytest.raises(ValueError, match="is trained by one process"):
        PROGRAMS[name]["fit"](config_of(name, tmp_path, pictures), ranks)


def test_validation_leaves_images_to_learn_from(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="validation must be below the number of images 8, got 8"):
        fit("train_vae", tmp_path, pictures, validation=8)
    assert not (tmp_path / "train_vae").exists()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_needs_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ValueError, match="name must not be empty"):
        PROGRAMS[name]["TrainConfig"](name=" ")


@pytest.mark.parametrize("name", ["train_diffusion", "train_energy"])
def test_noise_levels_that_do_not_fall_are_named_before_a_step_is_lost(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sigma_min must be above 0 and below sigma_max, got 5 and 1"):
        config_of(name, tmp_path, tmp_path, sigma_min=5.0, sigma_max=1.0)


def test_a_picture_that_cannot_be_drawn_costs_no_step(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> bytes:
        raise ValueError("the image holds NaN")

    monkeypatch.setitem(PROGRAMS["train_diffusion"]["fit"].__globals__, "sample_grid", fails)
    with pytest.raises(ValueError, match="NaN"):
        fit("train_diffusion", tmp_path / "runs", pictures)
    assert read_state(tmp_path / "runs/train_diffusion/state.pt")["step"] == 2


def test_pictures_of_one_gray_are_nothing_to_learn_from(tmp_path: Path) -> None:
    for k in range(4):
        Image.new("L", (8, 8), 7).save(tmp_path / f"{k}.png")
    with pytest.raises(ValueError, match="all pixels of all images are equal"):
        fit("train_diffusion", tmp_path / "runs", tmp_path)


def test_a_gpu_that_is_not_there_is_named(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device must be auto or cpu where there is no GPU"):
        fit("train_diffusion", tmp_path / "runs", pictures, device="cuda")


def test_a_distillation_is_chosen_by_a_classifier_of_its_own_images(pictures: Path, tmp_path: Path) -> None:
    teacher = fit("train_diffusion", tmp_path, pictures)
    classifier = str(ROOT / "weights/classifier-mnist")
    with pytest.raises(ValueError, match=r"knows \(1, 28, 28\) 0, 1, .* the data are others"):
        fit("distill_diffusion", tmp_path, pictures, teacher=str(teacher), classifier=classifier)
    with pytest.raises(ValueError, match="few must be at most the teacher's sigma_max 80"):
        fit("distill_diffusion", tmp_path, pictures, teacher=str(teacher), few=(4000.0,))
    assert not (tmp_path / "distill_diffusion").exists()
