"""The training program of the GAN, on scikit-learn's 8 x 8 digits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted import killed_at
from small_programs import PROGRAMS
from torch import Tensor

from genserve.data.pictures import DataConfig
from genserve.learning.optim import generator as numbers
from genserve.models.gan import GanConfig, settle
from genserve.runs.directory import load_model, read_metrics
from genserve.runs.tensors import read_state, read_weights

PROGRAM = PROGRAMS["train_gan"]
SETTINGS: dict[str, Any] = {
    "data": DataConfig(name="digits"),
    "net": PROGRAM["NetConfig"](z_dim=16, channels=(16, 16)),
    "critic": PROGRAM["CriticConfig"](channels=(16, 16), hidden=16, group=8),
    "batch_size": 32,
    "epochs": 2,
    "max_batches_per_epoch": 12,
    "warmup": 2,
    "r1_every": 4,
    "checkpoint_every": 10,
    "sample_every": 24,
    "precision": "fp32",
    "device": "cpu",
}


def config_of(output: Path, **more: Any) -> Any:
    return PROGRAM["TrainConfig"](output=str(output), **SETTINGS | more)


def fit(output: Path, **more: Any) -> Path:
    """Train for 24 steps, unless told otherwise; return the run directory."""
    PROGRAM["main"](config_of(output, **more))
    return output / "gan"


def game_of(config: Any) -> Any:
    """Return both players of a configuration, freshly initialised."""
    torch.manual_seed(0)
    classes = tuple("0123456789")
    model = GanConfig(family="gan", shape=(1, 8, 8), classes=classes, net={"z_dim": 16, "channels": (16, 16)})
    return PROGRAM["Game"](config, model, torch.device("cpu"))


def parameters(network: torch.nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def batch(seed: int = 0) -> tuple[Tensor, Tensor, torch.Generator]:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(32, 1, 8, 8, generator=rng) * 2 - 1, torch.arange(32) % 10, rng


def test_a_run_that_was_killed_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    unbroken = fit(tmp_path / "unbroken")
    killed_at(20, lambda: fit(tmp_path / "killed"))
    assert read_state(tmp_path / "killed/gan/state.pt")["step"] == 10
    resumed = fit(tmp_path / "killed")
    assert (resumed / "weights.safetensors").read_bytes() == (unbroken / "weights.safetensors").read_bytes()
    assert (resumed / "samples.png").read_bytes() == (unbroken / "samples.png").read_bytes()
    ends = [read_state(run / "state.pt")["model"] for run in (resumed, unbroken)]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[1])


def test_the_metrics_show_both_players(tmp_path: Path) -> None:
    (line,) = read_metrics(fit(tmp_path))
    assert line["step"] == 24
    for name in (
        "loss",
        "loss_generator",
        "logit_real",
        "logit_fake",
        "grad_norm",
        "grad_norm_generator",
        "lr",
    ):
        assert isinstance(line[name], float)


@pytest.mark.parametrize(
    ("still", "loss", "fall"), [("generator", "loss", 0.1), ("discriminator", "loss_generator", 0.01)]
)
def test_each_player_moves_down_its_own_loss_if_the_other_stands_still(
    still: str, loss: str, fall: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    game, move = game_of(config_of(Path("x"), r1=0.0)), PROGRAM["Game"]._move
    for group in game.optimizer.param_groups:
        group["lr"] = 1e-2

    def moved(player: torch.nn.Module, loss: Tensor) -> float:
        if player is getattr(game, still):
            game.optimizer.zero_grad()
            return 0.0
        length: float = move(game, player, loss)
        return length

    monkeypatch.setattr(game, "_move", moved)
    before = parameters(getattr(game, still))
    losses = [game.step(step, *batch())[loss] for step in range(20)]
    assert losses[-1] < losses[0] - fall
    assert all(a.equal(b) for a, b in zip(before, parameters(getattr(game, still)), strict=True))
    assert all(p.grad is None and p.requires_grad for p in game.parameters())


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_a_player_s_step_leaves_the_other_as_it_is(player: str) -> None:
    """With weight decay too, which would shrink whatever the optimiser visits."""
    game, (x, y, rng) = game_of(config_of(Path("x"), weight_decay=0.1)), batch()
    for group in game.optimizer.param_groups:
        group["lr"] = 0.1
    other = game.discriminator if player == "generator" else game.generator
    before = parameters(other)
    z = torch.randn(32, 16, generator=rng)
    if player == "generator":
        game.discriminator.requires_grad_(False)
        loss = game.discriminator(game.generator(z, y), y).mean()
    else:
        loss = game.discriminator(x, y).mean()
    assert game._move(getattr(game, player), loss) > 0
    assert all(a.equal(b) for a, b in zip(before, parameters(other), strict=True))


def test_the_penalty_counts_as_often_as_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of gamma times `r1_every`, at each of those steps and at no other."""
    games = [game_of(config_of(Path("x"), r1=r1, r1_every=4)) for r1 in (0.0, 2.0)]
    losses: list[list[float]] = [[], []]
    scope = PROGRAM["Game"].step.__globals__
    penalties: list[float] = []
    penalise = scope["r1_penalty"]

    def noted(*arguments: Any) -> Tensor:
        penalty: Tensor = penalise(*arguments)
        penalties.append(penalty.mean().item())
        return penalty

    monkeypatch.setitem(scope, "r1_penalty", noted)
    for game, noted_losses in zip(games, losses, strict=True):
        move = type(game)._move

        def moved(
            player: Any,
            loss: Tensor,
            game: Any = game,
            noted_losses: list[float] = noted_losses,
            move: Any = move,
        ) -> Any:
            noted_losses.append(loss.item())
            return move(game, player, loss)

        monkeypatch.setattr(game, "_move", moved)
        for group in game.optimizer.param_groups:
            group["lr"] = 0.0
        for step in range(6):
            game.step(step, *batch(step))
    assert len(penalties) == 2  # steps 0 and 4
    added = [b - a for a, b in zip(losses[0][::2], losses[1][::2], strict=True)]  # of the discriminator
    assert added == pytest.approx([4 * penalties[0], 0, 0, 0, 4 * penalties[1], 0], rel=1e-3, abs=1e-5)


def test_a_gradient_of_no_length_moves_nothing(tmp_path: Path) -> None:
    """Adam divides by the gradient's own size, but for eps: what is clipped far below that has no effect."""

    def moved(grad_clip: float) -> float:
        settings = {"epochs": 1, "max_batches_per_epoch": 2, "lr": 0.1, "grad_clip": grad_clip}
        after = read_state(fit(tmp_path / f"{grad_clip}", **settings) / "state.pt")["model"]
        start = game_of(config_of(tmp_path)).state_dict()
        return max(
            (after[key] - start[key]).abs().max().item()
            for key in start
            if "running" not in key and "num_batches" not in key
        )

    assert moved(1e-14) < 1e-4
    assert moved(100.0) > 0.05


def test_the_run_leaves_the_averaged_generator_with_statistics_of_its_own(tmp_path: Path) -> None:
    run = fit(tmp_path)
    weights, state = read_weights(run / "weights.safetensors"), read_state(run / "state.pt")
    generator = load_model(run)
    settle(generator, 10, numbers(0, 23, torch.device("cpu")), *PROGRAM["STATISTICS"])
    for key, value in generator.state_dict().items():
        torch.testing.assert_close(weights[key], value)
        torch.testing.assert_close(state["ema"][key], value)
    latest = state["model"]["generator.norm_1.norm.running_mean"]
    assert not torch.allclose(weights["norm_1.norm.running_mean"], latest, rtol=0.01)


def test_a_run_that_diverges_says_so(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"losses and gradient norms .* at step \d+, lr .* --lr"):
        fit(tmp_path, lr=1e30)
    assert not (tmp_path / "gan/weights.safetensors").exists()


def test_pictures_without_classes_are_learnt_too(tmp_path: Path) -> None:
    run = fit(tmp_path, conditional=False, epochs=1)
    assert read_weights(run / "weights.safetensors")["embed.weight"].shape == (1, 16)


@pytest.mark.slow
def test_it_learns_which_digit_is_which(tmp_path: Path) -> None:
    """A drawn digit is nearer to the mean of its own class than to that of another, mostly."""
    from genserve.data.pictures import load_images
    from genserve.images import normalise

    run = fit(
        tmp_path, epochs=8, max_batches_per_epoch=None, lr=2e-3, sample_every=1000, checkpoint_every=1000
    )
    digits = load_images(DataConfig(name="digits"), "train")
    means = torch.stack([normalise(digits.x[digits.y == k]).mean(0) for k in range(10)]).flatten(1)
    y = torch.arange(200) % 10
    x = load_model(run)(torch.randn(200, 16, generator=torch.Generator().manual_seed(0)), y)
    assert (torch.cdist(x.flatten(1), means).argmin(1) == y).float().mean() > 0.6
