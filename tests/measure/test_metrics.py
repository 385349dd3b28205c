import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from genserve.measure import metrics
from genserve.measure.metrics import (
    Moments,
    frechet_between,
    frechet_distance,
    kernel_distance,
    manifolds,
    mean_kernel,
    moments,
    nearest,
    radii,
)


@pytest.fixture
def rng() -> Generator:
    return Generator().manual_seed(0)


def normal(rng: Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def gaussian(mean: list[float], covariance: list[list[float]]) -> Moments:
    return Moments(1000, torch.tensor(mean).double(), torch.tensor(covariance).double())


# ---- Frechet distance --------------------------------------------------------------------------------------


def test_frechet_distance_of_gaussians_on_a_line_is_the_squared_distance_of_mean_and_std() -> None:
    a, b = gaussian([1.0], [[4.0]]), gaussian([4.0], [[9.0]])
    assert frechet_between(a, b) == pytest.approx((1 - 4) ** 2 + (2 - 3) ** 2)


def test_frechet_distance_where_covariances_commute_and_where_they_do_not() -> None:
    a, b = gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 4.0]]), gaussian([3.0, 4.0], [[9.0, 0.0], [0.0, 1.0]])
    assert frechet_between(a, b) == pytest.approx(25 + (1 - 3) ** 2 + (2 - 1) ** 2)
    # In two dimensions tr (A B)^(1/2) = sqrt(tr AB + 2 sqrt(det AB)), for any A and B.
    c = gaussian([0.0, 0.0], [[2.0, 1.0], [1.0, 3.0]])
    cross = math.sqrt((1 * 2 + 4 * 3) + 2 * math.sqrt(4 * 5))
    assert frechet_between(a, c) == pytest.approx((1 + 4) + (2 + 3) - 2 * cross)


def test_frechet_distance_agrees_with_the_root_of_the_product(rng: Generator) -> None:
    a, b = normal(rng, 300, 16) @ normal(rng, 16, 16), normal(rng, 200, 16) @ normal(rng, 16, 16) + 1
    eigenvalues = torch.linalg.eigvals(a.T.cov() @ b.T.cov())  # of a product that is not symmetric
    means = (a.mean(0) - b.mean(0)).square().sum()
    expected = means + a.T.cov().trace() + b.T.cov().trace() - 2 * eigenvalues.sqrt().real.sum()
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-9)


def test_frechet_distance_of_a_set_to_itself_is_0_with_dead_or_few_features(
    rng: Generator,
) -> None:
    a = normal(rng, 500, 32) * torch.logspace(-3, 1, 32, dtype=torch.float64)
    a[:, :8] = 0
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(a[:10], a[:10]) == pytest.approx(0, abs=1e-5)


def test_frechet_distance_sees_neither_order_nor_rotation_and_is_symmetric(rng: Generator) -> None:
    a, b = normal(rng, 200, 8) * 2 + 1, normal(rng, 300, 8)
    rotation = torch.linalg.qr(normal(rng, 8, 8)).Q
    expected = frechet_distance(a, b)
    assert expected > 1
    assert frechet_distance(a[torch.randperm(200, generator=rng)], b) == pytest.approx(expected)
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(expected)
    assert frechet_distance(b, a) == pytest.approx(expected)


def test_moments_are_taken_in_float64() -> None:
    """In float32 the squares of 1e4 leave nothing of a variance of 1e-4."""
    x = 1e4 + torch.tensor([[-1.0], [1.0]]).repeat(500, 1) / 64
    assert moments(x).covariance.item() == pytest.approx(1000 / 999 / 64**2, rel=1e-9)


def test_frechet_distance_is_that_of_torch_fidelity(rng: Generator) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    a, b = normal(rng, 300, 16) @ normal(rng, 16, 16), normal(rng, 200, 16) @ normal(rng, 16, 16) + 1
    theirs = fid_statistics_to_metric(*map(fid_features_to_statistics, (a, b)), verbose=False)
    assert frechet_distance(a, b) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-9)


# ---- kernel distance ---------------------------------------------------------------------------------------


def test_kernel_distance_by_hand() -> None:
    """k(0, 1) = 1, k(2, 3) = 7^3; across 1, 1, 3^3 and 4^3. In two dimensions the product is halved."""
    real, generated = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    assert kernel_distance(real, generated) == 1 + 7**3 - 2 * (1 + 1 + 3**3 + 4**3) / 4
    across = torch.tensor([[1.0, 1.0], [1.0, 3.0]])
    assert mean_kernel(across) == (4 / 2 + 1) ** 3
    assert mean_kernel(across, torch.tensor([[2.0, 0.0]])) == 2**3


def test_kernel_distance_of_gaussians_on_a_line_is_that_of_their_moments(rng: Generator) -> None:
    """(x y + 1)^3 compares third, second and first moments: 0, 1, 0 of N(0, 1) with 4, 2, 1 of N(1, 1)."""
    values = [kernel_distance(normal(rng, 2000, 1), normal(rng, 2000, 1) + 1) for _ in range(20)]
    mean, std = torch.tensor(values).mean().item(), torch.tensor(values).std().item()
    expected = (4 - 0) ** 2 + 3 * (2 - 1) ** 2 + 3 * (1 - 0) ** 2
    assert std < 3
    assert mean == pytest.approx(expected, abs=4 * std / 20**0.5)  # four standard errors


def test_kernel_distance_of_equal_distributions_is_0_on_average(
    rng: Generator,
) -> None:
    values = torch.tensor([kernel_distance(normal(rng, 8, 4), normal(rng, 5, 4)) for _ in range(2000)])
    error = values.std().item() / 2000**0.5
    assert values.min() < 0
    assert values.mean().item() == pytest.approx(0, abs=4 * error)
    # with the diagonal, which a biased estimate leaves in, a set would look far from another
    x = normal(rng, 8, 4)
    assert (mean_kernel(x, x) - mean_kernel(x)) > 4 * error


def test_kernel_distance_is_that_of_torch_fidelity(rng: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    def theirs(subsets: int, size: int) -> tuple[float, float]:
        result = kid_features_to_metric(a, b, kid_subsets=subsets, kid_subset_size=size, verbose=False)
        return result["kernel_inception_distance_mean"], result["kernel_inception_distance_std"]

    monkeypatch.setattr(metrics, "CHUNK", 17)
    a, b = normal(rng, 120, 6), 1.2 * normal(rng, 120, 6) + 0.3
    ours = kernel_distance(a, b)
    all_pairs, _ = theirs(1, 120)
    assert ours == pytest.approx(all_pairs, rel=1e-9)
    mean, std = theirs(400, 30)
    assert std > abs(ours) / 10
    assert ours == pytest.approx(mean, abs=4 * std / 400**0.5)
    assert kernel_distance(a, b, mean_kernel(a)) == ours
    assert kernel_distance(b, a) == pytest.approx(ours)
    assert kernel_distance(a.float(), b.float()) == pytest.approx(ours, rel=1e-4)


# ---- neighbourhoods ----------------------------------------------------------------------------------------


def test_radii_on_a_line() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert radii(x, k=1).sqrt().tolist() == [1, 1, 2, 4]
    assert radii(x, k=2).sqrt().tolist() == [3, 2, 3, 6]


def test_manifolds_of_points_on_a_line() -> None:
    """Real 0, 1, 3, 7 reach 1, 1, 2, 4 to their nearest; generated 0.5, 2.5, 20 reach 2, 2, 17.5."""
    real, generated = torch.tensor([[0.0], [1.0], [3.0], [7.0]]), torch.tensor([[0.5], [2.5], [20.0]])
    result = manifolds(real, generated, k=1)
    assert result.precision == pytest.approx(2 / 3)  # 20 is in no real neighbourhood
    assert result.density == pytest.approx((2 + 1 + 0) / 3)  # 0.5 is near 0 and 1; 2.5 near 3 alone
    assert result.coverage == pytest.approx(3 / 4)  # 7 reaches 3 to 11: no generated point there
    assert result.recall == 1  # 20 reaches 2.5 to 37.5, and so takes in 3 and 7: an outlier inflates recall


def test_manifolds_of_a_set_against_itself_and_against_one_far_away(rng: Generator) -> None:
    x = normal(rng, 300, 4)
    same, apart = manifolds(x, x), manifolds(x, x + 100)
    assert same.precision == same.recall == same.coverage == 1
    assert same.density == pytest.approx(6 / 5)  # k neighbours and the point itself
    assert tuple(apart) == (0, 0, 0, 0)


def test_a_generator_that_forgot_half_the_data_loses_recall_and_coverage(
    rng: Generator,
) -> None:
    left, right = normal(rng, 400, 3), normal(rng, 400, 3) + 50
    result = manifolds(torch.cat([left, right]), left + 0.01 * normal(rng, 400, 3))
    assert result.precision > 0.95
    assert 0.45 < result.recall <= 0.5
    assert 0.45 < result.coverage <= 0.5


def test_manifolds_agree_with_brute_force_over_several_chunks(
    rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "CHUNK", 17)
    real, generated = normal(rng, 90, 6) + 20, 1.3 * normal(rng, 70, 6) + 20.2
    real_r = torch.stack([sorted((p - q).norm() for q in real)[5] for p in real])  # [0] is the point itself
    generated_r = torch.stack([sorted((p - q).norm() for q in generated)[5] for p in generated])
    d = torch.tensor([[(p - q).norm() for q in generated] for p in real], dtype=torch.float64)
    inside = d <= real_r[:, None]
    result = manifolds(real, generated)
    assert 0 < result.precision < 1
    assert result.precision == pytest.approx(inside.any(0).double().mean().item())
    assert result.recall == pytest.approx((d <= generated_r).any(1).double().mean().item())
    assert result.density == pytest.approx(inside.double().sum().item() / (5 * 70))
    assert result.coverage == pytest.approx(inside.any(1).double().mean().item())
    assert manifolds(real, generated, real_radii=radii(real)) == result


def test_precision_and_recall_are_those_of_torch_fidelity(rng: Generator) -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

    real, generated = normal(rng, 200, 6), 1.3 * normal(rng, 150, 6) + 0.2
    theirs = prc_features_to_metric(generated, real, prc_neighborhood=5, verbose=False)
    result = manifolds(real, generated)
    assert 0 < result.precision < 1
    assert result.precision == pytest.approx(theirs["precision"], rel=1e-6)
    assert result.recall == pytest.approx(theirs["recall"], rel=1e-6)


def test_nearest_finds_the_image_a_copy_was_made_from(rng: Generator) -> None:
    reference = normal(rng, 1000, 12)
    picked = torch.tensor([3, 999, 3, 500])
    distance, index = nearest(reference[picked] + 0.001, reference)
    assert index.equal(picked)
    assert distance.tolist() == pytest.approx([0.001 * 12**0.5] * 4, rel=1e-6)


# ---- classes and errors ------------------------------------------------------------------------------------


def test_accuracy_counts_the_largest_logit() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 4.0, 3.0], [0.0, 0.0, -1.0], [-3.0, -2.0, -1.0]])
    assert metrics.accuracy(logits, torch.tensor([1, 0, 2, 2])) == 3 / 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: moments(torch.zeros(1, 4)), "at least 2"),
        (lambda: moments(torch.full((4, 4), torch.nan)), "NaN"),
        (lambda: frechet_distance(torch.zeros(4, 3), torch.zeros(4, 2)), "3 and of 2 dimensions"),
        (lambda: kernel_distance(torch.zeros(4, 3), torch.zeros(4, 2)), "3 and of 2 dimensions"),
        (lambda: kernel_distance(torch.zeros(4, 3), torch.zeros(1, 3)), "at least 2 of each, got 4 and 1"),
        (lambda: radii(torch.zeros(5, 2), k=5), "1 to 4"),
        (lambda: manifolds(torch.zeros(9, 2), torch.zeros(5, 2)), "1 to 4"),
        (lambda: metrics.accuracy(torch.zeros(2, 3), torch.zeros(1)), "2 images and 1 classes"),
    ],
)
def test_what_cannot_be_measured_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
