"""How well masked pictures are completed: masks, seams by hand, and a table from the shipped digits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from real_server import ROOT

from genserve.commands import fill


def test_masks_keep_a_half_and_all_but_a_square() -> None:
    masks = fill.masks(28, 32)
    assert masks["half"].sum() == 28 * 16
    assert masks["half"][0, :, :16].all()
    assert (~masks["hole"]).sum() == 14 * 16
    assert not masks["hole"][0, 7:21, 8:24].any()


def test_a_seam_is_the_mean_step_across_the_border() -> None:
    x = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    x[:, :, :, 2:] = 10
    x[:, :, 1:] += 1  # steps along the border do not count
    half, hole = fill.masks(4, 4).values()
    assert fill.seam(x, half) == 10
    # the square of 2 x 2 has 8 borders; only the two above it have a step, of 1
    assert fill.seam(x, hole) == pytest.approx(2 / 8)


def test_the_shipped_digits_are_completed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a sample of the digits beside the tests; with resampling seams are less."""
    sample = np.load(ROOT / "tests" / "mnist" / "sample.npz")
    for label in range(10):
        for k in np.flatnonzero(sample["test_y"] == label)[:2]:
            for split in ("train", "test"):
                folder = tmp_path / "data" / split / str(label)
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(sample["test_x"][k]).save(folder / f"{k}.png")
    output = tmp_path / "out.json"
    flags = ["--n", "20", "--settings", "dpmpp_2m:4:schedule=tuned", "--resample", "1", "4", "--threads", "1"]
    fill.run([*flags, "--dataset", "folder", "--data", str(tmp_path / "data"), "--output", str(output)])
    table = json.loads(output.read_text())
    assert len(capsys.readouterr().out.splitlines()) == 10
    assert table["n"] == 20
    for mask in ("half", "hole"):
        for label in (True, False):
            plain, often = (row for row in table["rows"] if (row["mask"], row["label"]) == (mask, label))
            assert (plain["nfe"], often["nfe"]) == (4, 16)
            assert often["seam"] < plain["seam"]


def test_a_precision_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="precision must be"):
        fill.Filling(precision="fp8")
