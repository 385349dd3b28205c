"""The command line of a program: flags and YAML from a config class, mistakes in one line."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tqdm import tqdm

from genserve.cli import configure, plain_errors


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


Command = Callable[..., OuterConfig]


@pytest.fixture
def command() -> Command:
    """Run a program that only returns its configuration, with this command line."""

    def configured(*words: str) -> OuterConfig:
        configs: list[OuterConfig] = []
        configure(configs.append, OuterConfig, "A program.", list(words))
        return configs[0]

    return configured


def test_no_words_give_the_defaults(command: Command) -> None:
    assert command() == OuterConfig()


def test_flags_reach_nested_keys_with_dashes_or_underscores(command: Command) -> None:
    expected = OuterConfig(inner_part=InnerConfig(max_width=5), some_widths=(4, 8), name="a-b_c")
    dashed = command("--inner-part.max-width", "5", "--some-widths", "[4, 8]", "--name", "a-b_c")
    underlined = command("--inner_part.max_width=5", "--some_widths=[4, 8]", "--name=a-b_c")
    assert dashed == underlined == expected


def test_flags_behind_a_yaml_file_override_it(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("lr: 1.0e-3\nname: yaml\ninner_part: {max_width: 7}\n")
    assert command("--config", str(file), "--name", "flag") == OuterConfig(
        lr=1e-3, name="flag", inner_part=InnerConfig(max_width=7)
    )


@pytest.mark.parametrize("text", ["lrr: 1", "inner_part: {lrr: 1}"])
def test_an_unknown_yaml_key_is_an_error_that_names_it(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
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
def test_an_unknown_flag_or_a_wrong_type_is_an_error_that_names_it(
    command: Command, capsys: pytest.CaptureFixture[str], words: list[str], named: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        command(*words)
    assert stop.value.code != 0
    assert named in capsys.readouterr().err


def test_a_value_that_is_refused_ends_in_one_line(command: Command) -> None:
    with pytest.raises(SystemExit, match=r"^error: lr must be above 0, got -1\.0$"):
        command("--lr=-1")


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
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
def test_what_a_user_can_mend_ends_in_one_line(
    error: Exception, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    bar = tqdm(total=3)
    with pytest.raises(SystemExit) as stop, plain_errors():
        raise error
    assert stop.value.code == f"error: {line}"
    assert capfd.readouterr().err.endswith("\n")  # the bar has a line of its own
    assert bar.disable  # closed
