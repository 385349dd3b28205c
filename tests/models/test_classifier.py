"""The classifier's blocks, and the shipped classifiers."""

import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from genserve.measure import metrics
from genserve.measure.features import features_of, read_stats
from genserve.measure.reference import Reference
from genserve.models.classifier import Classifier, Pooled, Whitening
from genserve.runs.directory import load_classifier, read_metrics

SHIPPED = Path(__file__).parents[2] / "weights" / "classifier-mnist"


@pytest.fixture(scope="module")
def shipped() -> Classifier:
    return load_classifier(SHIPPED)


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """The 1,797 digits of scikit-learn, 8 x 8, enlarged into MNIST's frame: other writers and scanner."""
    from sklearn.datasets import load_digits

    dataset = load_digits()
    small = torch.from_numpy(dataset.images).float().unsqueeze(1) * (255 / 16)
    large = F.interpolate(small, (20, 20), mode="bicubic", align_corners=False).clamp(0, 255)
    return F.pad(large, (4, 4, 4, 4)).round().byte(), torch.from_numpy(dataset.target)


def test_the_shipped_classifier_reads_digits_that_it_was_not_made_for(shipped: Classifier) -> None:
    x, y = digits()
    assert metrics.accuracy(shipped.logits(features_of(shipped, x)), y) > 0.9


def test_features_of_an_image_do_not_depend_on_its_neighbours(shipped: Classifier) -> None:
    x = torch.rand(8, 1, 28, 28) * 2 - 1
    together = shipped.features(x)
    x[1:] = 100
    torch.testing.assert_close(shipped.features(x)[0], together[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shipped.features(x[:1])[0], together[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("classifier-mnist", 2_000_000), ("judge-mnist", 1_000_000), ("classifier-cifar10", 2**23)],
)
def test_the_model_card_gives_the_numbers_that_the_files_give(name: str, limit: int) -> None:
    directory = SHIPPED.parent / name
    card, stats = (directory / "README.md").read_text(), read_stats(directory)
    assert f"{100 * read_metrics(directory)[-1]['test_accuracy']:.2f} %" in card
    assert f"{metrics.frechet_between(stats.test, stats.train):.3f}" in card
    assert (directory / "weights.safetensors").stat().st_size < limit


def test_a_whitening_stem_answers_with_uncorrelated_values_of_variance_1() -> None:
    torch.manual_seed(0)
    smooth = F.avg_pool2d(torch.randn(400, 3, 12, 12), 3, 1) + torch.randn(400, 3, 1, 1)
    stem = Whitening(3)
    stem.learn(smooth)
    answer = stem(smooth).transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(answer[:12], -answer[12:])
    torch.testing.assert_close(answer[:12].cov(), torch.eye(12, dtype=torch.float64), rtol=0, atol=0.05)
    assert not stem.weight.requires_grad


def test_a_pooled_block_begins_by_passing_its_input_on() -> None:
    x = torch.rand(5, 4, 8, 8) + 1
    block = Pooled(4, 9).eval()
    expected = F.silu(F.silu(F.max_pool2d(x, 2)))  # BatchNorm does nothing before it has learnt
    torch.testing.assert_close(block(x)[:, :4], expected, rtol=1e-4, atol=1e-4)


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2 classes"):
        Classifier((1, 8, 8), 1)
    with pytest.raises(ValueError, match="31 x 28 pixels do not fold by 2"):
        Classifier((1, 31, 28), 10)
    with pytest.raises(ValueError, match="7 x 8 pixels do not fold by 1 and halve 3 times"):
        Classifier((3, 7, 8), 10, blocks="pooled", patch=1, channels=(8, 8, 8), norm="batch")
    with pytest.raises(ValueError, match="pooled blocks need norm batch"):
        Classifier((3, 8, 8), 10, blocks="pooled")
    with pytest.raises(ValueError, match="blocks must be residual or pooled, got 'dense'"):
        Classifier((3, 8, 8), 10, blocks="dense")
    with pytest.raises(ValueError, match="norm must be one of group, batch, got 'layer'"):
        Classifier((3, 8, 8), 10, norm="layer")
    with pytest.raises(FileNotFoundError, match=r"train_classifier\.py writes it"):
        read_stats(tmp_path)
    with pytest.raises(ValueError, match="'diffusion', not a classifier"):
        load_classifier(SHIPPED.parent / "diffusion-mnist")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", '{"format": 1, "model": {"family": "classifier"'),
        ("config.json", '{"format": 1, "model": {"family": "classifier"}}'),
        (
            "config.json",
            '{"format": 1, "model": {"family": "classifier", "shape": 3, "classes": [], "net": {}}}',
        ),
        ("weights.safetensors", "no tensors"),
        ("train_features_stats.safetensors", "no tensors"),
    ],
)
def test_a_classifier_with_a_broken_file_is_refused_in_one_sentence(
    tmp_path: Path, file: str, content: str
) -> None:
    shutil.copytree(SHIPPED, tmp_path / "judge")
    (tmp_path / "judge" / file).write_text(content)
    with pytest.raises(ValueError, match=rf"judge/{file} [^\n]*$"):
        Reference(tmp_path / "judge", None, torch.device("cpu"))
