"""What surrounds the training loop: command line, learning rate, EMA, ranks."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn
from tqdm import tqdm

from genserve.cli import configure
from genserve.learning.optim import generator, learning_rate, precision_of, seed_dropout, update_ema
from genserve.learning.ranks import Ranks, join_ranks, plain_errors

CPU = torch.device("cpu")


# ---- the command line --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class InnerConfig:
    """Inner.

    Args:
        max_width: a number.
    """

    max_width: int = 3


@dataclass(frozen=True, kw_only=True)
class OuterConfig:
    """Outer.

    Args:
        inner_part: nested.
        some_widths: several.
        lr: a number above 0.
        name: text.
    """

    inner_part: InnerConfig = field(default_factory=InnerConfig)
    some_widths: tuple[int, ...] = (1,)
    lr: float = 0.1
    name: str = "none"

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")


@pytest.fixture
def command():
    """Run a program that only returns its configuration, with this command line."""

    def configured(*words: str) -> OuterConfig:
        seen: list[OuterConfig] = []
        configure(seen.append, OuterConfig, "A program.", list(words))
        return seen[0]

    return configured


def test_no_words_give_the_defaults(command):
    assert command() == OuterConfig()


def test_flags_reach_nested_keys_with_dashes_or_underscores(command):
    expected = OuterConfig(inner_part=InnerConfig(max_width=5), some_widths=(4, 8), name="a-b_c")
    dashed = command("--inner-part.max-width", "5", "--some-widths", "[4, 8]", "--name", "a-b_c")
    underlined = command("--inner_part.max_width=5", "--some_widths=[4, 8]", "--name=a-b_c")
    assert dashed == underlined == expected


def test_flags_behind_a_yaml_file_override_it(command, tmp_path: Path):
    file = tmp_path / "config.yaml"
    file.write_text("lr: 1.0e-3\nname: yaml\ninner_part: {max_width: 7}\n")
    assert command("--config", str(file), "--name", "flag") == OuterConfig(
        lr=1e-3, name="flag", inner_part=InnerConfig(max_width=7)
    )


@pytest.mark.parametrize("text", ["lrr: 1", "inner_part: {lrr: 1}"])
def test_an_unknown_yaml_key_is_an_error_that_names_it(command, tmp_path: Path, capsys, text: str):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(SystemExit) as stop:
        command("--config", str(file))
    assert stop.value.code != 0
    assert "lrr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [(["--lrr", "1"], "lrr"), (["--inner-part.lrr=1"], "lrr"), (["--lr", "fast"], "lr"), (["oops"], "oops")],
)
def test_an_unknown_flag_or_a_wrong_type_is_an_error_that_names_it(command, capsys, words, named: str):
    with pytest.raises(SystemExit) as stop:
        command(*words)
    assert stop.value.code != 0
    assert named in capsys.readouterr().err


def test_a_value_that_is_refused_ends_in_one_line(command):
    with pytest.raises(SystemExit, match=r"^error: lr must be above 0, got -1\.0$"):
        command("--lr=-1")


def test_a_mistake_of_ours_keeps_its_traceback():
    def program(config: OuterConfig) -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        configure(program, OuterConfig, "A program.", [])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(28, "No space left on device", "runs/a/state.pt"),
            "runs/a/state.pt: No space left on device",
        ),
        (PermissionError(13, "Permission denied", "runs"), "runs: Permission denied"),
        (FileNotFoundError("there is no such file"), "there is no such file"),
        (FloatingPointError("loss nan"), "loss nan"),
    ],
)
def test_what_a_user_can_mend_ends_in_one_line(error: Exception, line: str, capfd):
    bar = tqdm(total=3)
    with pytest.raises(SystemExit) as stop, plain_errors():
        raise error
    assert stop.value.code == f"error: {line}"
    assert capfd.readouterr().err.endswith("\n")  # the bar has a line of its own
    assert bar.disable  # closed


# ---- learning rate and EMA ---------------------------------------------------------------------------------


def test_learning_rate_rises_by_equal_parts_and_falls_as_half_a_cosine():
    rates = [learning_rate(step, 110, 10, 2.0) for step in range(111)]
    assert rates[:10] == pytest.approx([0.2 * k for k in range(1, 11)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.0)  # half way down
    assert rates[110] == pytest.approx(0.0)
    for k in range(101):  # a cosine is odd around its middle
        assert rates[10 + k] + rates[110 - k] == pytest.approx(2.0)
    assert rates[35] == pytest.approx(1 + math.cos(math.pi / 4))


def test_learning_rate_without_warmup_starts_at_its_peak():
    assert learning_rate(0, 10, 0, 0.3) == 0.3


def ema_of(values: list[float], decay: float, start: float = 0.0) -> float:
    model, ema = nn.Linear(1, 1).double(), nn.Linear(1, 1).double().requires_grad_(False)
    nn.init.constant_(ema.weight, start)
    for step, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        update_ema(ema, model, decay, step)
    return ema.weight.item()


def test_the_random_start_is_forgotten_by_the_law_of_the_warm_up():
    """Decay k / (k + 10) at the k-th step, k = 1, 2, ...: their product is n! 10! / (n + 10)!."""
    for n in (1, 5, 40):
        assert ema_of([0.0] * n, 0.9999, start=1.0) == pytest.approx(1 / math.comb(n + 10, 10), rel=1e-9)


def test_ema_settles_to_its_decay():
    """Long after the warm-up a step of the weights from 0 to 1 is followed as 1 - decay^n."""
    assert ema_of([0.0] * 200 + [1.0] * 30, 0.9) == pytest.approx(1 - 0.9**30, rel=1e-9)


def test_ema_of_constant_weights_is_those_weights():
    assert ema_of([0.7] * 50, 0.99, start=0.7) == pytest.approx(0.7, rel=1e-12)


# ---- ranks, randomness, precision --------------------------------------------------------------------------


def test_the_parts_of_the_ranks_make_up_the_batch():
    batch = torch.arange(12).view(12, 1)
    parts = [Ranks(rank, 4, CPU).mine(batch) for rank in range(4)]
    assert [len(part) for part in parts] == [3] * 4
    assert torch.equal(torch.cat(parts), batch)


def test_alone_a_process_is_the_first_and_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    ranks = join_ranks("cpu")
    model, batch = nn.Linear(1, 1), torch.arange(4)
    assert ranks.first
    assert ranks.wrap(model) is model
    assert torch.equal(ranks.mine(batch), batch)
    assert ranks.mean(torch.tensor(3.5)) == 3.5


def test_the_numbers_of_a_step_depend_on_seed_and_step():
    def numbers(seed: int, step: int) -> tuple[float, ...]:
        return tuple(torch.rand(4, generator=generator(seed, step, CPU)).tolist())

    assert numbers(3, 5) == numbers(3, 5)
    assert len({numbers(seed, step) for seed in range(10) for step in range(100)}) == 1000


def test_dropout_depends_on_seed_step_and_rank_and_not_on_what_was_drawn_before():
    def mask(seed: int, step: int, rank: int) -> tuple[bool, ...]:
        seed_dropout(seed, step, rank)
        return tuple((nn.functional.dropout(torch.ones(64)) > 0).tolist())

    cases = [(seed, step, rank) for seed in (0, 1, 2) for step in (0, 1, 2) for rank in (0, 1)]
    masks = [mask(*case) for case in cases]
    assert masks == [mask(*case) for case in reversed(cases)][::-1]
    assert len(set(masks)) == len(cases)


def test_precision_rules_where_matrices_are_multiplied():
    a = torch.ones(2, 2)
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with precision_of(name, CPU)():
            assert (a @ a).dtype == dtype
