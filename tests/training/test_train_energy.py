"""The training program of energies, both recipes, on scikit-learn's 8 x 8 digits."""

import json
import runpy
from functools import partial
from pathlib import Path
from typing import Any

import program
import pytest
import safetensors.torch
import torch
from torch import Tensor

from genserve.data.pictures import DataConfig, load_images
from genserve.images import normalise
from genserve.learning.checkpoint import Checkpoint
from genserve.models.energy import EnergyDenoiser
from genserve.runs.directory import load_denoiser, load_model, read_metrics

ROOT = Path(__file__).parents[2]
PATH = ROOT / "training/train_energy.py"
COMMON: dict[str, Any] = {
    "data": {"name": "digits"},
    "batch_size": 32,
    "epochs": 2,
    "max_batches_per_epoch": 30,
    "warmup": 10,
    "checkpoint_every": 25,
    "sample_every": 1000,
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
}
NET = {"patch": 1, "channels": [16, 32], "attention": [4], "heads": 2}
SMALL = {"patch": 1, "channels": (16, 16), "attention": ()}  # of a teacher and of those that it teaches
CHAINS = {"steps": 5, "step_size": 10.0, "buffer": 64, "final_steps": 10}
RECIPES: dict[str, dict[str, Any]] = {
    "score_matching": {"net": NET, "lr": 2e-3},
    "contrastive": {"channels": [16, 32], "langevin": CHAINS, "lr": 1e-3, "grad_clip": 0.1},
}
start = partial(program.start, PATH)


@pytest.fixture(scope="module")
def fit() -> Any:
    """Train in this process; give the files back that a resumed run must end with too."""
    module = runpy.run_path(str(PATH))

    def go(output: Path, recipe: str, **more: Any) -> dict[str, Any]:
        settings = COMMON | RECIPES[recipe] | {"data": DataConfig(name="digits")} | more
        for name, kind in (("net", "UNetConfig"), ("langevin", "ChainConfig")):
            if name in settings:
                values = {k: tuple(v) if isinstance(v, list) else v for k, v in settings[name].items()}
                settings[name] = module[kind](**values)
        module["main"](module["TrainConfig"](recipe=recipe, output=str(output), **settings))
        directory = output / settings.get("name", "energy")
        state = torch.load(directory / "state.pt", weights_only=True)
        return safetensors.torch.load_file(directory / "weights.safetensors") | {
            f"buffer {k}": v for k, v in state.items() if k == "buffer"
        }

    return go


@pytest.fixture(scope="module")
def unbroken(fit: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished run of each recipe: its directory, and what it ended with."""
    made: dict[str, tuple[Path, dict[str, Any]]] = {}

    def of(recipe: str) -> tuple[Path, dict[str, Any]]:
        if recipe not in made:
            output = tmp_path_factory.mktemp(recipe)
            made[recipe] = output / "energy", fit(output, recipe)
        return made[recipe]

    return of


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_that_was_killed_ends_where_an_unbroken_one_does(
    recipe: str, fit: Any, unbroken: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly, the chains in the buffer too."""
    save = Checkpoint.save

    def killed(self: Checkpoint, step: int, *models: Any, **more: Any) -> None:
        if step == 50:
            raise KeyboardInterrupt
        save(self, step, *models, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path, recipe)
    resumed, (directory, expected) = fit(tmp_path, recipe), unbroken(recipe)
    assert resumed.keys() == expected.keys()
    for name, value in expected.items():
        assert resumed[name].equal(value), name
    left = {path.name for path in directory.iterdir()}
    whole_run = {"config.json", "weights.safetensors", "state.pt", "metrics.jsonl", "samples.png"}
    assert left == whole_run | {"energies.json"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_diagnostics_say_how_data_negatives_and_noise_lie(recipe: str, unbroken: Any) -> None:
    directory, _ = unbroken(recipe)
    *_, last = read_metrics(directory)
    assert last["gap"] == pytest.approx(last["energy_negatives"] - last["energy_data"], abs=1e-4)
    assert last["energy_noise"] > last["energy_data"]  # it has learnt that much
    assert 0 <= last["acceptance"] <= 1
    assert {"gradient_data", "gradient_negatives", "gradient_noise", "grad_norm", "loss", "lr"} <= last.keys()


def test_score_matching_learns_to_denoise(fit: Any, tmp_path: Path) -> None:
    """At every noise level better than what is best for one who knows every pixel but no shapes.

    That one answers with each pixel's own posterior mean, as if its values in training were Gaussian.
    """
    more = {"epochs": 2, "max_batches_per_epoch": None, "lr": 5e-3, "ema_decay": 0.97}
    fit(tmp_path, "score_matching", net=SMALL, checkpoint_every=1000, **more)
    energy = load_model(tmp_path / "energy")
    pixels, digits = (load_images(DataConfig(name="digits"), split) for split in ("train", "test"))
    mean, variance = normalise(pixels.x).mean(0), normalise(pixels.x).var(0)

    def pixelwise(x_t: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        return mean + variance / (variance + sigma.view(-1, 1, 1, 1) ** 2) * (x_t - mean)

    x_0, rng = normalise(digits.x), torch.Generator().manual_seed(0)
    eps = torch.randn(x_0.shape, generator=rng)
    for level in (0.2, 0.5, 1.0, 2.0, 5.0):
        x_t, sigma = x_0 + level * eps, torch.full((len(digits),), level)
        learnt, shapeless = (
            (model(x_t, sigma, digits.y) - x_0).square().mean().item()
            for model in (EnergyDenoiser(energy), pixelwise)
        )
        assert learnt < shapeless, level


def test_the_energies_of_the_training_images_are_written_down(unbroken: Any) -> None:
    directory, _ = unbroken("contrastive")
    table = json.loads((directory / "energies.json").read_text())
    x = normalise(load_images(DataConfig(name="digits"), "train").x)
    with torch.no_grad():
        energies = load_model(directory)(x, torch.ones(len(x)), torch.zeros(len(x)).long())
    assert table["sigma"] == 1
    assert len(table["quantiles"]) == 1001
    assert table["quantiles"][0] == pytest.approx(energies.min().item(), abs=1e-3)
    assert table["quantiles"][500] == pytest.approx(energies.median().item(), abs=1e-3)
    assert table["quantiles"] == sorted(table["quantiles"])


def test_two_ranks_draw_the_curve_of_one(fit: Any, tmp_path: Path) -> None:
    """The same global batch in two halves; chains gather what float rounding leaves of that, step by step."""
    halves = {
        name: start(COMMON | {"recipe": name, "epochs": 1} | RECIPES[name], tmp_path, name, ranks=2)
        for name in RECIPES
    }
    for name, process in halves.items():
        fit(tmp_path / "runs/one", name, epochs=1, name=f"{name}-one")
        program.finish(process)
        (single,) = program.curve(tmp_path, f"one/{name}-one")
        (double,) = program.curve(tmp_path, name)
        assert single["step"] == double["step"] == 30
        for key in ("loss", "grad_norm", "energy_data", "energy_negatives"):
            assert double[key] == pytest.approx(single[key], rel=2e-3, abs=1e-4)


def test_short_run_chains_all_start_from_noise(fit: Any, tmp_path: Path) -> None:
    """With nothing persistent the buffer is as large as a batch, and each step leaves all of it replaced."""
    short = CHAINS | {"buffer": 0, "steps": 1, "step_size": 1e-6, "noise_std": 0.0}
    buffer = fit(tmp_path, "contrastive", langevin=short)["buffer buffer"]
    assert buffer.shape == (32, 1, 8, 8)
    assert buffer.std().item() == pytest.approx(3**-0.5, rel=0.05)  # as uniform as they started
    again = fit(tmp_path / "later", "contrastive", langevin=short, epochs=3)["buffer buffer"]
    assert (buffer - again).abs().flatten(1).amax(1).min() > 0.1


def test_a_run_that_diverges_says_so_and_keeps_its_last_checkpoint(fit: Any, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"mean energy of .* beyond the limit of 0\.5 at step \d+"):
        fit(tmp_path, "contrastive", lr=0.3, alpha=0.0, energy_limit=0.5, checkpoint_every=1, grad_clip=10.0)
    directory = tmp_path / "energy"
    state = torch.load(directory / "state.pt", weights_only=True)
    assert all(torch.isfinite(p).all() for p in state["model"].values())
    assert (directory / "weights.safetensors").exists()


def test_a_taught_energy_starts_as_its_teacher(fit: Any, teacher: Path, tmp_path: Path) -> None:
    one = {"lr": 1e-9, "epochs": 1, "max_batches_per_epoch": 1, "net": SMALL}
    taught = fit(tmp_path, "score_matching", teacher=str(teacher), **one)
    weights = safetensors.torch.load_file(teacher / "weights.safetensors")
    for name, value in weights.items():
        torch.testing.assert_close(taught[f"residual.{name}"], value, rtol=0, atol=1e-6)


def test_a_guided_teacher_teaches_its_guided_answers(fit: Any, teacher: Path, tmp_path: Path) -> None:
    """The weight of the class in what is learnt, by least squares along D(y) - D(no class): 3, not 1."""
    digits, rng = load_images(DataConfig(name="digits"), "test"), torch.Generator().manual_seed(0)
    x_0, sigma = normalise(digits.x), torch.full((len(digits),), 3.0)
    x_t, no_class = x_0 + 3 * torch.randn(x_0.shape, generator=rng), torch.full_like(digits.y, 10)
    denoiser = load_denoiser(teacher)
    without = denoiser(x_t, sigma, no_class)
    of_class = denoiser(x_t, sigma, digits.y) - without

    def learnt(guidance: float) -> tuple[float, float, float]:
        """Return the weight that was learnt, and the rms distance to the answers of weights 1 and 3."""
        few = {
            "teacher": str(teacher),
            "net": SMALL,
            "epochs": 1,
            "max_batches_per_epoch": 40,
            "ema_decay": 0.9,
        }
        fit(tmp_path, "score_matching", name=f"w-{guidance:g}", teacher_guidance=guidance, **few)
        energy = load_model(tmp_path / f"w-{guidance:g}")
        with torch.no_grad():
            answer = EnergyDenoiser(energy)(x_t, sigma, digits.y) - without
        weight = (answer * of_class).sum() / of_class.square().sum()
        far = ((answer - w * of_class).square().mean().sqrt().item() for w in (1, 3))
        return weight.item(), *far

    weight, from_plain, from_guided = learnt(3.0)
    assert weight == pytest.approx(3, abs=0.4)
    assert from_guided < 0.5 * from_plain
    weight, from_plain, from_guided = learnt(1.0)
    assert weight == pytest.approx(1, abs=0.1)
    assert from_plain < 0.2 * from_guided


def test_a_teacher_of_other_images_is_refused(
    fit: Any, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a shipped teacher is found from anywhere
    with pytest.raises(ValueError, match=r"teacher .* has shape"):
        fit(tmp_path, "score_matching", teacher="weights/diffusion-mnist")
    with pytest.raises(ValueError, match="score_matching alone"):
        fit(tmp_path, "contrastive", teacher=str(teacher))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a diffusion model that has learnt for seconds: it tells classes apart."""
    program, output = (
        runpy.run_path(str(ROOT / "training/train_diffusion.py")),
        tmp_path_factory.mktemp("teacher"),
    )
    few = {"epochs": 4, "batch_size": 32, "lr": 4e-3, "ema_decay": 0.98, "warmup": 20, "sample_every": 10_000}
    more = {"p_mean": 0.3, "p_std": 1.4, "device": "cpu", "precision": "fp32"}
    digits = {"data": DataConfig(name="digits"), "net": program["UNetConfig"](**SMALL)}
    program["main"](program["TrainConfig"](output=str(output), **digits, **few, **more))
    return output / "diffusion"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"recipe": "magic"}, "recipe must be one of score_matching, contrastive"),
        ({"langevin": {"buffer": 8}}, "langevin.buffer must be 0 or at least batch_size 32"),
        ({"langevin": {"fresh": 2.0}}, "langevin.fresh"),
        ({"langevin": {"step_size": 0.0}}, "langevin.step_size must be above 0"),
        ({"p_std": 0.0}, "p_std must be above 0"),
        ({"teacher_guidance": 2.0}, "teacher_guidance needs a teacher and classes"),
    ],
)
def test_what_is_wrong_is_named(settings: dict[str, Any], named: str) -> None:
    module = runpy.run_path(str(PATH))
    if "langevin" in settings:
        settings = settings | {"langevin": module["ChainConfig"](**settings["langevin"])}
    with pytest.raises(ValueError, match=named):
        module["TrainConfig"](batch_size=32, **settings)
