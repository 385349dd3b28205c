"""What scripts/bench --seeds-of-quality draws, keeps and says."""

import importlib
import json
from pathlib import Path
from typing import Any

import program
import pytest
from real_server import ROOT

RUN = ROOT / "weights" / "diffusion-mnist"


@pytest.fixture(scope="module")
def quality() -> Any:
    program.imported("scripts/bench")  # makes the folder of its parts known
    return importlib.import_module("quality")


@pytest.fixture(scope="module")
def system(quality: Any) -> Any:
    return importlib.import_module("systems").System(name="genserve-fp32", kind="archive", precision="fp32")


def test_what_is_drawn_is_kept_and_only_the_rest_is_drawn(
    quality: Any, system: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, seeds = tmp_path / "out" / "quality.json", []

    def draw(model: Any, spec: Any, setting: Any, y: Any, seed: int, **more: Any) -> Any:
        seeds.append(seed)
        return actual(model, spec, setting, y, seed, **more)

    actual = quality.draw
    monkeypatch.setattr(quality, "draw", draw)
    (first,) = quality.measured(RUN, [system], ["ddim:1"], 1, 20, output)
    assert json.loads(output.read_text()) == {"rows": [{k: v for k, v in first.items() if k != "system"}]}
    assert 0 <= first["judge_class"] <= 1
    assert first["judge_frechet_distance"] > first["held_out"]["judge_frechet_distance"] > 0
    again, second = quality.measured(RUN, [system], ["ddim:1"], 2, 20, output)
    assert again == first
    assert second["judge_frechet_distance"] != first["judge_frechet_distance"]
    assert seeds == [0, 1]
    quality.measured(
        RUN, [system], ["ddim:1"], 1, 21, output
    )  # of another number of images: not the same draw
    assert seeds == [0, 1, 0]
    assert len(json.loads(output.read_text())["rows"]) == 3


def test_a_model_without_noise_levels_has_nothing_to_compare(
    quality: Any, system: Any, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="gan-mnist draws in one evaluation"):
        quality.measured(ROOT / "weights" / "gan-mnist", [system], [], 1, 20, tmp_path / "quality.json")


def rows_of(name: str, distances: tuple[float, ...], shares: tuple[float, ...]) -> list[dict[str, Any]]:
    about = {"system": name, "precision": "bf16", "setting": "ddim:9", "n": 100, "nfe": 9}
    about |= {"held_out": {"judge_frechet_distance": 0.01}}
    pairs = zip(distances, shares, strict=True)
    return [
        about | {"seed": seed, "judge_frechet_distance": distance, "judge_class": share}
        for seed, (distance, share) in enumerate(pairs)
    ]


def test_systems_are_compared_with_the_first_in_spreads_over_the_seeds(quality: Any) -> None:
    rows = rows_of("one", (0.3, 0.4, 0.5), (0.9, 0.91, 0.92)) + rows_of(
        "two", (0.33, 0.43, 0.53), (0.8, 0.81, 0.82)
    )
    heading, held_out, one, two, _, words, note = quality.summary(rows).splitlines()
    assert heading.split()[-2:] == ["distance", "class"]
    assert held_out.split() == ["all", "held-out", "images", "-", "-", "0.0100", "-"]
    assert one.split("  ")[0] == "one (bf16), ddim:9"
    assert "0.4000 ± 0.1000" in one
    assert "0.4300 ± 0.1000" in two
    assert words == (
        "two (bf16) beside one (bf16), ddim:9: "
        "distance 0.0300 higher, differs by 0.3 spreads, within what seeds differ by; "
        "class 0.1000 lower, differs by 10.0 spreads, more than seeds differ by"
    )
    assert note.startswith("Of 3 seeds, mean ± standard deviation")


def test_one_seed_shows_no_spread(quality: Any) -> None:
    text = quality.summary(rows_of("one", (0.3,), (0.9,)) + rows_of("two", (0.2,), (0.9,)))
    assert "distance 0.1000 lower; class is the same" in text
    assert text.endswith("give --seeds-of-quality 2 or more.")


def test_seeds_that_agree_make_any_difference_more_than_theirs(quality: Any) -> None:
    assert quality.difference([1.0, 1.0], [1.0, 1.0]) == "is the same"
    assert quality.difference([1.0, 1.0], [2.0, 2.0]).endswith("inf spreads, more than seeds differ by")
