"""Find the noise levels that draw best in few evaluations, for one model; an archive then serves with them.

    genserve tune                                   the shipped diffusion model, 4 to 12 steps
    genserve tune --run runs/mine --steps 5         of a run of your own
    genserve tune --classifier weights/classifier-mnist --n 2000
    genserve tune --run runs/distilled --steps 1 2 4 --samplers consistency --classifier ...

Without a classifier the model is its own judge: few steps should come to the picture that the
probability-flow ODE, solved in --reference-steps, leads to from the same noise. The result then
has no fresh noise. With the classifier of a data set the search minimises the Frechet distance to its
training images instead, and tries fresh noise as well, which mends errors of the network.

The search starts from the best of some Karras schedules, or from its own earlier result. It moves each noise
level in turn, and eta, a little, and keeps a move that is better, until none is or --budget is spent. The
result goes into the run's serving.json, under `tuned`, beside those for other numbers of steps; an archive
built after that answers a request of this number of steps with it.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from genserve.cli import config_of, plain_errors
from genserve.drawing.local import draw, fair_classes, served_model
from genserve.files import read_json, write_json
from genserve.measure import metrics
from genserve.measure.features import features_of, load_chooser
from genserve.places import locate
from genserve.precision import PRECISIONS, precision_for
from genserve.runs.contract import tuned_in
from genserve.runs.defaults import serving_of, spec_of
from genserve.runs.directory import model_config
from genserve.sampling.schedules import Tuned, karras
from genserve.sampling.settings import Setting
from genserve.sampling.solvers import TAKE_ETA

Score = Callable[[Tuned], float]  # the less the better
SOLVERS = (*TAKE_ETA, "consistency")  # one evaluation a step
LARGEST_MOVE, SMALLEST_MOVE = 0.24, 0.03  # of ln sigma, and of eta


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """What to tune.

    Args:
        run: run directory of a diffusion model, or of an energy that knows noise levels.
        steps: numbers of evaluations, each tuned by itself.
        classifier: run directory of the classifier whose features judge the images, not that of a judge; if
            not given, images are compared with the ODE's.
        samplers: the solvers to try.
        n: images per trial; if not given, 1000 with a classifier and 64 without.
        budget: trials for each number of steps.
        reference_steps: of the ODE's solution.
        seed: of the noise.
        precision: of the network: fp32, bf16, or auto (bf16 if the hardware has it).
        threads: CPU threads; 0 is torch's own choice.
        write: put the result into the run's serving.json; otherwise it is only printed.
    """

    run: Path = Path("weights/diffusion-mnist")
    steps: tuple[int, ...] = (4, 6, 8, 12)
    classifier: Path | None = None
    samplers: tuple[str, ...] = ("dpmpp_2m", "ddim")
    n: int | None = None
    budget: int = 60
    reference_steps: int = 60
    seed: int = 1
    precision: str = "bf16"
    threads: int = 0
    write: bool = True

    def __post_init__(self) -> None:
        if self.precision not in ("auto", *PRECISIONS):
            allowed = ", ".join(["auto", *PRECISIONS])
            raise ValueError(f"precision must be one of {allowed}, got {self.precision!r}")
        if not self.steps or min(self.steps) < 1 or self.budget < 1 or self.reference_steps < 1:
            raise ValueError("steps, budget and reference_steps must be at least 1")
        if wrong := set(self.samplers) - set(SOLVERS):
            raise ValueError(f"samplers must be among {', '.join(SOLVERS)}, got {', '.join(sorted(wrong))}")
        locate(self, "run", "classifier")
        if "consistency" in self.samplers and self.classifier is None:
            raise ValueError("consistency draws fresh noise and follows no ODE: it needs a classifier")


def judged(config: TuneConfig) -> tuple[Score, str]:
    """Return the score to minimise, and its unit.

    Raises:
        ValueError: the model cannot be tuned, or the classifier knows other images.
    """
    model = model_config(config.run)
    if model.sigma_min == model.sigma_max:
        raise ValueError(f"{config.run} knows one noise level: there is nothing to tune")
    device = torch.device("cpu")
    precision = precision_for(device) if config.precision == "auto" else config.precision
    _, network = served_model(config.run, device, precision)

    def drawn(setting: Setting, y: Tensor) -> Tensor:
        return draw(network, model, setting, y, config.seed, batch_size=50)

    defaults = spec_of(config.run).defaults

    def as_setting(tuned: Tuned) -> Setting:
        return Setting.of(replace(defaults, tuned=(tuned,)), steps=tuned.steps)  # as a request will

    if config.classifier is None:
        y = torch.arange(config.n or 64) % max(1, len(model.classes))
        exact = Setting.parse(f"dpmpp_2m:{config.reference_steps}", defaults)
        reference = drawn(exact, y).float()

        def difference(tuned: Tuned) -> float:
            return (drawn(as_setting(tuned), y) - reference).square().mean().sqrt().item()

        return difference, "rms of 255"

    chooser, stats = load_chooser(config.classifier)
    if chooser.shape != model.shape:
        raise ValueError(f"{config.classifier} knows images {chooser.shape}, the model draws {model.shape}")
    y = fair_classes(config.n or 1000, stats.class_counts)
    classes = y if model.classes else torch.zeros_like(y)

    def distance(tuned: Tuned) -> float:
        features = features_of(chooser, drawn(as_setting(tuned), classes))
        return metrics.frechet_between(metrics.moments(features), stats.train)

    return distance, "FD"


def starts(config: TuneConfig, steps: int) -> Iterator[Tuned]:
    """Yield the starts of a search: Karras over the model's own range without fresh noise, then the
    result of an earlier search or else other Karras schedules.
    """
    model = model_config(config.run)

    def karras_to(last: float, sampler: str, eta: float) -> Tuned:
        sigmas = karras(steps, last, model.sigma_max)[:-1].clamp(max=model.sigma_max)
        return Tuned(sampler=sampler, eta=eta, sigmas=tuple(sigmas.tolist()))

    yield karras_to(model.sigma_min, config.samplers[0], 0.0)
    for earlier in tuned_in(serving_of(config.run)):
        usable = earlier.sampler in config.samplers and (config.classifier or not earlier.eta)
        if earlier.steps == steps and usable:
            yield earlier
            return
    for last, sampler in product((0.05, 0.3, 1.0), config.samplers):
        yield karras_to(last, sampler, 0.0)
        if config.classifier and sampler in TAKE_ETA:
            yield karras_to(last, sampler, 0.7)


def moved(tuned: Tuned, k: int, by: float, sigma_max: float) -> Tuned | None:
    """Return the schedule with its k-th level times e**by, or with eta + by if k is behind the last level.

    None if the levels would no longer fall, or eta leave [0, 1].
    """
    if k == tuned.steps:
        eta = tuned.eta + by
        return replace(tuned, eta=eta) if tuned.sampler in TAKE_ETA and 0 <= eta <= 1 else None
    sigma = tuned.sigmas[k] * math.exp(by)
    above = tuned.sigmas[k - 1] if k else math.nextafter(sigma_max, math.inf)
    below = tuned.sigmas[k + 1] if k + 1 < tuned.steps else 0.0
    sigmas = (*tuned.sigmas[:k], sigma, *tuned.sigmas[k + 1 :])
    return replace(tuned, sigmas=sigmas) if below < sigma < above else None


def search(config: TuneConfig, steps: int, score: Score) -> tuple[Tuned, float, float]:
    """Return the best schedule, its score, and that of the Karras schedule over the model's own range."""
    sigma_max = model_config(config.run).sigma_max
    bar = tqdm(total=config.budget, desc=f"{steps} steps", unit="trial", leave=False, dynamic_ncols=True)

    def tried(tuned: Tuned) -> float:
        value = score(tuned)
        bar.update()
        return value

    scores = [(tried(tuned), tuned) for tuned in islice(starts(config, steps), config.budget)]
    before = scores[0][0]
    best, tuned = min(scores, key=lambda pair: pair[0])
    move, noisy = LARGEST_MOVE, config.classifier is not None
    while move >= SMALLEST_MOVE and bar.n < config.budget:
        best_before = best
        for k, by in product(range(steps + noisy), (move, -move)):
            other = moved(tuned, k, by, sigma_max)
            if other and bar.n < config.budget and (value := tried(other)) < best:
                best, tuned = value, other
                bar.set_postfix_str(f"best {best:.3f}")
        if best == best_before:
            move /= 2
    bar.close()
    return tuned, best, before


def main(config: TuneConfig) -> None:
    """Tune each number of steps, and write each result at once."""
    if config.threads:
        torch.set_num_threads(config.threads)
    score, unit = judged(config)
    for steps in config.steps:
        clock = time.perf_counter()
        tuned, after, before = search(config, steps, score)
        tuned = replace(tuned, eta=round(tuned.eta, 3), sigmas=tuple(float(f"{s:.4g}") for s in tuned.sigmas))
        levels = " ".join(f"{sigma:g}" for sigma in tuned.sigmas)
        spent = time.perf_counter() - clock
        print(
            f"steps {steps}: {tuned.sampler}, eta {tuned.eta:g}, levels {levels}: {unit} {after:.3f}, "
            f"before {before:.3f} ({config.samplers[0]}, Karras); {spent:.0f} s",
            flush=True,
        )
        if config.write:
            keep(config.run, tuned)


def keep(directory: Path, tuned: Tuned) -> None:
    """Write a schedule into serving.json in place of the one for as many steps."""
    path = directory / "serving.json"
    serving: dict[str, Any] = read_json(path) if path.is_file() else {}
    others = [other for other in tuned_in(serving_of(directory)) if other.steps != tuned.steps]
    serving["tuned"] = [asdict(one) for one in sorted([*others, tuned], key=lambda one: one.steps)]
    write_json(path, serving)


def command_line(argv: list[str]) -> TuneConfig:
    """Return what the flags ask for; dashes and underscores are alike."""
    lists: dict[str, tuple[type, str]] = {
        "steps": (int, "numbers of evaluations, each tuned by itself"),
        "samplers": (str, "solvers to try"),
    }
    return config_of(TuneConfig, __doc__, argv, lists=lists)


def run(argv: list[str]) -> None:
    """Do what the flags ask for; a mistake ends the program in one line."""
    with plain_errors():
        main(command_line(argv))
