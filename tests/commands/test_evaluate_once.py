"""An evaluation of models that draw in one evaluation: the same table, and the bound of an autoencoder."""

from pathlib import Path

import pytest
import torch
from evaluating import evaluate, evaluated

from genserve.data.pictures import DataConfig, load_images
from genserve.measure.bound import bound_of
from genserve.runs.directory import load_model


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory."""
    monkeypatch.chdir(tmp_path)


def test_a_gan_is_a_row_for_each_truncation(classifier: Path, gan: Path) -> None:
    common = ["--run", gan, "--classifier", classifier, "--n", "30"]
    settings = ["truncation=0.1", "truncation=inf"]
    *floor, near, full = evaluate(*common, "--settings", *settings)
    assert len(floor) == 2
    assert [(row["name"], row["nfe"]) for row in (near, full)] == [(text, 1) for text in settings]
    assert near["frechet_distance"] != full["frechet_distance"]
    *_, usual = evaluate(*common)
    assert usual["name"] == "truncation=inf"
    assert usual["frechet_distance"] == full["frechet_distance"]


def test_an_autoencoder_s_bound_is_of_the_held_out_images(
    classifier: Path, vae: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluated("--run", vae, "--classifier", classifier, "--n", "20", "--settings", "temperature=0.9")
    assert result["rows"][-1]["name"] == "temperature=0.9"
    test = load_images(DataConfig(name="digits"), "test")
    bound = bound_of(load_model(vae), test.x, test.y, torch.Generator().manual_seed(0))
    assert result["bound"] == pytest.approx(bound._asdict())
    assert f"{bound.bits_per_dim:.4f} bits/dim" in capsys.readouterr().out


def test_what_such_a_model_does_not_do_is_named(classifier: Path, gan: Path, vae: Path) -> None:
    common = ["--classifier", classifier, "--n", "20"]
    with pytest.raises(ValueError, match=r"is truncation=VALUE with a value above 0; got 'ddim:50'"):
        evaluate("--run", gan, *common, "--settings", "ddim:50")
    with pytest.raises(ValueError, match=r"is temperature=VALUE with a value above 0; got 'truncation=1'"):
        evaluate("--run", vae, *common, "--settings", "truncation=1")
    with pytest.raises(ValueError, match=r"unconditional: .*gan draws only with a class"):
        evaluate("--run", gan, *common, "--unconditional")
    wrong = r"precision must be fp32 and backend torchscript: .*vae draws in one evaluation"
    for flags in (("--precision", "bf16"), ("--backend", "openvino")):
        with pytest.raises(ValueError, match=wrong):
            evaluate("--run", vae, *common, *flags)
