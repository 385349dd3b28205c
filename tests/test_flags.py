"""Flags: every field of a config, lists in both spellings, mistakes in one line."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from genserve.cli import config_of, plain_errors, typed_command


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to do.

    Args:
        batch_size: images together.
        levels: noise levels.
        figures: names.
        quick: hurry.
    """

    batch_size: int = 8
    levels: tuple[float, ...] = (1.0, 0.5)
    figures: tuple[str, ...] = ("a",)
    quick: bool = False


def read(*words: str) -> Settings:
    return config_of(
        Settings,
        "A program.",
        list(words),
        lists={"levels": (float, "noise levels"), "figures": (str, "names")},
        switches={"quick": "hurry"},
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--levels", "2", "0.25"],
        ["--levels", "[2, 0.25]"],
        ["--levels=[2,0.25]"],
        ["--levels", "[2]", "0.25"],
    ],
)
def test_a_list_is_written_as_words_or_in_brackets(words: list[str]) -> None:
    assert read(*words).levels == (2.0, 0.25)


def test_what_is_not_given_is_the_default_and_dashes_are_underscores() -> None:
    assert read() == Settings()
    assert read("--batch-size", "3", "--quick") == read("--batch_size=3", "--quick")
    assert read("--batch-size", "3", "--quick") == Settings(batch_size=3, quick=True)
    assert read("--figures", "b", "c").figures == ("b", "c")


def test_a_yaml_file_gives_the_same_and_flags_come_after_it(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("batch_size: 4\nlevels: [3, 0.5]\nfigures: [b]\nquick: true\n")
    given = Settings(batch_size=4, levels=(3.0, 0.5), figures=("b",), quick=True)
    assert read("--config", str(file)) == given
    assert read(f"--config={file}", "--batch-size", "5").batch_size == 5


def test_a_configuration_is_read_below_the_project_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):  # its keys are others: so the file was there
        read("--config", "training/configs/diffusion-digits.yaml")
    Path("training/configs").mkdir(parents=True)
    Path("training/configs/diffusion-digits.yaml").write_text("batch_size: 2\n")
    assert read("--config", "training/configs/diffusion-digits.yaml").batch_size == 2


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, plain_errors():
        read("--levels", "2", "high")
    assert end.value.code == "error: levels must be float values, got 'high'"
    with pytest.raises(SystemExit) as end:
        read("--no-such-flag", "1")
    assert end.value.code == 2
    assert "no_such_flag" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["scripts/evaluate.py", "--run", "a b"], "python scripts/evaluate.py --run 'a b'"),
        (["genserve evaluate", "--n", "8"], "genserve evaluate --n 8"),
        (["genserve evaluate"], "genserve evaluate"),
    ],
)
def test_a_record_has_the_command_as_its_user_typed_it(
    argv: list[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert typed_command() == text
