"""Features and their moments come back as they were written."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from genserve.measure import features, metrics
from genserve.measure.features import features_of, load_chooser, read_stats, write_stats
from genserve.runs.directory import classifier_config, load_classifier
from genserve.runs.tensors import write_weights

SHIPPED = Path(__file__).parents[2] / "weights" / "classifier-mnist"


def test_the_shipped_moments_are_moments_of_the_shipped_classes() -> None:
    stats, config = read_stats(SHIPPED), classifier_config(SHIPPED)
    assert stats.train.n == stats.class_counts.sum() == 60_000
    assert len(stats.class_counts) == len(config.classes) == 10
    for moments in (stats.train, stats.test):
        assert moments.covariance.dtype == moments.mean.dtype == torch.float64
        torch.testing.assert_close(moments.covariance, moments.covariance.T, rtol=1e-12, atol=1e-12)
        assert torch.linalg.eigvalsh(moments.covariance).min() > -1e-9


def test_moments_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    values, y = torch.randn(40, 3), torch.arange(40) % 3
    write_stats(tmp_path, values, values[:20], y, n_classes=4)
    stats = read_stats(tmp_path)
    assert stats.class_counts.tolist() == [14, 13, 13, 0]
    for value, expected in zip(stats.train, metrics.moments(values), strict=True):
        assert torch.as_tensor(value).equal(torch.as_tensor(expected))
    assert metrics.frechet_between(stats.test, metrics.moments(values[:20])) == pytest.approx(0, abs=1e-9)


def test_moments_that_are_not_there_are_named(tmp_path: Path) -> None:
    write_weights(tmp_path / "train_features_stats.safetensors", {"train.n": torch.tensor(3)})
    with pytest.raises(ValueError, match=r"train_features_stats\.safetensors is not the moments .*: no "):
        read_stats(tmp_path)


def test_features_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = load_classifier(SHIPPED)
    x = torch.randint(0, 256, (10, 1, 28, 28), generator=torch.Generator().manual_seed(0)).byte()
    together, starts = features_of(classifier, x), []
    monkeypatch.setattr(features, "CHUNK", 4)

    def chunks(k: Iterable[int]) -> Iterable[int]:
        starts.extend(k)
        return iter(starts)

    torch.testing.assert_close(features_of(classifier, x, chunks), together, rtol=1e-5, atol=1e-5)
    assert starts == [0, 4, 8]
    assert together.shape == (10, classifier.n_features)


def test_a_judge_chooses_nothing() -> None:
    chooser, stats = load_chooser(SHIPPED)
    assert len(stats.train.mean) == chooser.n_features
    with pytest.raises(ValueError, match="judge-mnist is a judge, which chooses nothing"):
        load_chooser(SHIPPED.parent / "judge-mnist")
