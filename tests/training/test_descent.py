"""The step of descent in each program of a generator: the optimiser sees a clipped gradient."""

from pathlib import Path
from typing import Any

import pytest
from small_programs import fit

from genserve.runs.tensors import read_state, read_weights

RECIPES: list[tuple[str, dict[str, Any]]] = [
    ("train_diffusion", {}),
    ("train_energy", {}),
    ("train_energy", {"recipe": "contrastive", "channels": (4, 8), "energy_limit": 1e9}),
    ("distill_diffusion", {}),
    ("train_vae", {}),
]


@pytest.mark.parametrize(("name", "more"), RECIPES)
def test_a_gradient_of_no_length_moves_nothing(
    name: str, more: dict[str, Any], pictures: Path, tmp_path: Path
) -> None:
    """Adam divides by the gradient's own size, but for eps: what is clipped far below that has no effect."""
    if name == "distill_diffusion":
        start = fit("train_diffusion", tmp_path / "start", pictures)
        more = more | {"teacher": str(start)}
    else:
        start = fit(name, tmp_path / "start", pictures, **more)
    before = read_weights(start / "weights.safetensors")

    def moved(grad_clip: float) -> float:
        """Return the largest change of a weight in two steps at lr 0.1."""
        settings = more | {"start_from": str(start), "lr": 0.1, "grad_clip": grad_clip, "epochs": 1}
        run = fit(name, tmp_path / f"{grad_clip}", pictures, **settings)
        after = read_state(run / "state.pt")["model"]
        return max((after[key] - value).abs().max().item() for key, value in before.items())

    assert moved(1e-14) < 1e-4
    assert moved(1.0) > 0.05
