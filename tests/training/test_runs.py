"""A run is what it was, for every training program: other data, other teachers and full disks are refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_programs import PROGRAMS, ROOT, SETTINGS, draw_pictures, fit
from unchanged import state_of

from genserve.cli import configure
from genserve.learning.checkpoint import held
from genserve.runs.directory import load_classifier, read_config
from genserve.runs.tensors import read_weights, write_weights

KINDS = [name for name in SETTINGS if name != "distill_diffusion"]  # that one needs a teacher


def more_pictures(folder: Path) -> None:
    draw_pictures(folder / "train/a", 3, 200, 255)


def another_class(folder: Path) -> None:
    draw_pictures(folder / "train/c", 3, 200, 255)


def renamed_class(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / part / "b").rename(folder / part / "dark")


def other_pixels(folder: Path) -> None:
    """Turn one picture upside down: number, mean and std stay."""
    path = next((folder / "train/a").iterdir())
    with Image.open(path) as picture:
        turned = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    turned.save(path)


def swapped_labels(folder: Path) -> None:
    """Exchange the pictures of the classes."""
    (folder / "train/a").rename(folder / "train/c")
    (folder / "train/b").rename(folder / "train/a")
    (folder / "train/c").rename(folder / "train/b")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (more_pictures, "data had 8 images, have 11"),
        (another_class, "classes were a, b, are a, b, c"),
        (renamed_class, "classes were a, b, are a, dark"),
        (other_pixels, "data have other pictures or labels"),
        (swapped_labels, "data have other pictures or labels"),
    ],
)
def test_a_finished_run_is_not_rewritten_from_other_data(
    name: str, change: Callable[[Path], None], named: str, pictures: Path, tmp_path: Path
) -> None:
    directory = fit(name, tmp_path, pictures)
    before = state_of(directory)
    change(pictures)
    with pytest.raises(
        ValueError, match=rf"{name} holds another run \([^\n]*{named}[^\n]*\): give"
    ) as refusal:
        fit(name, tmp_path, pictures, epochs=2)
    assert "\n" not in str(refusal.value)
    assert state_of(directory) == before
    read_config(directory)


@pytest.mark.parametrize("name", KINDS)
def test_data_may_lie_elsewhere(name: str, pictures: Path, tmp_path: Path) -> None:
    directory = fit(name, tmp_path, pictures)
    weights = (directory / "weights.safetensors").read_bytes()
    fit(name, tmp_path, f"{pictures}/")
    pictures.rename(tmp_path / "moved")
    fit(name, tmp_path, tmp_path / "moved")
    assert (directory / "weights.safetensors").read_bytes() == weights
    assert read_config(directory)["train"]["data"]["root"] == str(tmp_path / "moved")


def test_a_classifiers_held_out_images_are_part_of_the_run(pictures: Path, tmp_path: Path) -> None:
    directory = fit("train_classifier", tmp_path, pictures)
    before = state_of(directory)
    draw_pictures(pictures / "test/b", 1, 200, 255)
    with pytest.raises(ValueError, match=r"held-out data had 4 images, have 5"):
        fit("train_classifier", tmp_path, pictures)
    assert state_of(directory) == before


def rewritten(directory: Path, file: str = "weights.safetensors") -> None:
    """Change the first number of a file of tensors a little."""
    tensors = read_weights(directory / file)
    name = next(name for name, value in tensors.items() if value.is_floating_point())
    write_weights(directory / file, tensors | {name: tensors[name] + 0.001})


def test_what_else_a_run_depends_on_may_move_but_not_change(pictures: Path, tmp_path: Path) -> None:
    """The teacher of an energy and of a distilled model, and the classifier that chooses its weights."""
    teacher = fit("train_diffusion", tmp_path, pictures)
    judge = fit("train_classifier", tmp_path, pictures)
    inputs = {"teacher": str(teacher), "classifier": str(judge)}
    energy = fit("train_energy", tmp_path, pictures, teacher=str(teacher))
    student = fit("distill_diffusion", tmp_path, pictures, **inputs)
    moved = {name: str(shutil.copytree(place, f"{place}-moved")) for name, place in inputs.items()}
    fit("train_energy", tmp_path, pictures, teacher=moved["teacher"])
    fit("distill_diffusion", tmp_path, pictures, **moved)
    before = state_of(energy), state_of(student)
    rewritten(Path(moved["teacher"]))
    with pytest.raises(ValueError, match=r"another run \(teacher has other contents\)"):
        fit("train_energy", tmp_path, pictures, teacher=moved["teacher"])
    with pytest.raises(ValueError, match=r"another run \(teacher has other contents\)"):
        fit("distill_diffusion", tmp_path, pictures, **inputs | {"teacher": moved["teacher"]})
    for file in ("weights.safetensors", "train_features_stats.safetensors"):
        rewritten(Path(moved["classifier"]), file)
        with pytest.raises(ValueError, match=r"another run \(classifier has other contents\)"):
            fit("distill_diffusion", tmp_path, pictures, **inputs | {"classifier": moved["classifier"]})
    assert (state_of(energy), state_of(student)) == before


def test_every_program_can_start_from_the_weights_of_its_kind(pictures: Path, tmp_path: Path) -> None:
    """After one step at a rate of almost 0 the weights are those that the run started from."""
    teacher, judge = (fit(name, tmp_path, pictures) for name in ("train_diffusion", "train_classifier"))
    student = fit("distill_diffusion", tmp_path, pictures, teacher=str(teacher))
    assert (student / "weights.safetensors").read_bytes() != (teacher / "weights.safetensors").read_bytes()
    still: dict[str, Any] = {"lr": 1e-12, "max_batches_per_epoch": 1}
    for name in (name for name in SETTINGS if name != "train_gan"):  # it keeps half of what it needs
        more = {"teacher": str(teacher)} if name == "distill_diffusion" else {}
        start = fit(name, tmp_path, pictures, **more)
        new = fit(name, tmp_path / "new", pictures, start_from=str(start), **still, **more)
        old = read_weights(start / "weights.safetensors")
        for key, value in read_weights(new / "weights.safetensors").items():
            torch.testing.assert_close(value, old[key], rtol=0, atol=1e-6)
        other = str(judge if name != "train_classifier" else teacher)
        with pytest.raises(ValueError, match=r"^start_from .* has family "):
            fit(name, tmp_path / "other", pictures, start_from=other, **more)
        assert not (tmp_path / "other" / name).exists()
    assert load_classifier(tmp_path / "new/train_classifier").shape == (1, 8, 8)


def test_a_shipped_run_is_not_overwritten(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "weights/diffusion-mnist", tmp_path / "train_diffusion")
    before = state_of(tmp_path / "train_diffusion")
    with pytest.raises(ValueError, match=r"weights and no state\.pt"):
        fit("train_diffusion", tmp_path, pictures)
    assert state_of(tmp_path / "train_diffusion") == before


@pytest.mark.parametrize("name", ["train_diffusion", "train_classifier"])
def test_a_full_disk_ends_in_one_line_and_the_run_goes_on_when_there_is_room(
    name: str,
    pictures: Path,
    tmp_path: Path,
    full_disk: Callable[[int], Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    def commanded(output: Path) -> None:
        more = ["--checkpoint-every=2", "--net.attention=[]", "--net.heads=1"]
        program, kind = PROGRAMS[name]["main"], PROGRAMS[name]["TrainConfig"]
        words = [f"--name={name}", f"--output={output}", "--data.name=folder", f"--data.root={pictures}"]
        words += ["--net.patch=1", "--net.channels=[8]", "--batch-size=4", "--epochs=3", "--device=cpu"]
        words += ["--precision=fp32", *(more if name == "train_diffusion" else [])]
        configure(program, kind, "A program.", words)

    commanded(tmp_path / "unhindered")
    output = tmp_path / "hindered"
    with full_disk(3000), pytest.raises(SystemExit) as stop:
        commanded(output)
    assert stop.value.code == f"error: {output / name / 'state.pt'}: File too large"
    assert capfd.readouterr().err.endswith("\n")  # the bar has a line of its own
    assert not list((output / name).glob(".*"))
    commanded(output)
    files = [place / name / "weights.safetensors" for place in (output, tmp_path / "unhindered")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_second_program_in_a_directory_ends_without_a_trace(
    name: str, pictures: Path, tmp_path: Path
) -> None:
    with held(tmp_path / name):
        with pytest.raises(ValueError, match=rf"{name} is in use by another program that trains"):
            fit(name, tmp_path, pictures)
        assert not list((tmp_path / name).iterdir())
