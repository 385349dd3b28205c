"""The classifier that is served, and its exported form."""

import io

import pytest
import torch
import torch.nn.functional as F

from genserve.models.labels import Airbench, FixedScaleNorm, LabelsConfig
from genserve.runs.loading import torchscript


@pytest.fixture
def network() -> Airbench:
    """A classifier of 8 x 8 pictures whose norms have statistics of their own."""
    torch.manual_seed(0)
    classifier = Airbench((3, 8, 8), 5, (6, 8))
    x = torch.rand(300, 3, 8, 8) * 2 - 1
    classifier.learn_patches(x)
    with torch.no_grad():
        for _ in range(5):
            classifier(x)
    return classifier.eval().requires_grad_(False)


def pictures(n: int = 4) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_the_logits_are_a_ninth_of_a_linear_function_of_the_features(network: Airbench) -> None:
    logits, features = network(pictures())
    assert features.shape == (4, 8)
    torch.testing.assert_close(logits, features @ network.read_out.weight.T / 9)


def test_the_features_are_the_largest_values_over_positions_of_the_last_block(network: Airbench) -> None:
    body, h = network.body, pictures()
    for k in range(4):  # stem, SiLU, two blocks
        h = body[k](h)
    torch.testing.assert_close(network(pictures())[1], h.amax((2, 3)))


def test_answers_are_float32_whatever_the_weights_are(network: Airbench) -> None:
    logits, features = network.to(torch.bfloat16)(pictures())
    assert logits.dtype == features.dtype == torch.float32
    assert network.gradient(pictures(), torch.arange(4)).dtype == torch.float32


def test_a_norm_has_a_fixed_scale_and_forgets_fast() -> None:
    norm, x = FixedScaleNorm(3), torch.randn(50, 3, 4, 4) * 2 + 1
    expected = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(norm(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_mean, 0.4 * x.mean((0, 2, 3)))
    assert [name for name, p in norm.named_parameters() if p.requires_grad] == ["bias"]


def test_the_stem_whitens_patches_as_pixels_of_variance_1_would_be(network: Airbench) -> None:
    """Contrast changes nothing but the scale: the same picture at a third of it has the same answer."""
    x = F.avg_pool2d(torch.randn(200, 3, 9, 9), 2, 1)
    answers = []
    for scale in (1.0, 1 / 3):
        classifier = Airbench((3, 8, 8), 5, (6, 8))
        classifier.learn_patches(scale * x)
        answers.append(classifier.body[0](scale * x).detach())
    torch.testing.assert_close(answers[0].abs(), answers[1].abs(), rtol=1e-3, atol=1e-3)


def test_only_the_bias_of_the_stem_learns_and_only_for_a_while(network: Airbench) -> None:
    stem = network.body[0]
    network.learn_stem(True)
    assert [name for name, p in stem.named_parameters() if p.requires_grad] == ["bias"]
    network.learn_stem(False)
    assert not any(p.requires_grad for p in stem.parameters())


def test_the_gradient_is_that_of_finite_differences(network: Airbench) -> None:
    network.double()
    x, y = pictures().double(), torch.tensor([0, 3, 4, 1])
    classifier = network
    direction = torch.randn(x.shape, dtype=torch.double)
    eps = 1e-6

    def logit(at: torch.Tensor) -> torch.Tensor:
        features = classifier.body(at)
        return (features @ classifier.read_out.weight.T / 9).gather(1, y.unsqueeze(1)).squeeze(1)

    rise = (logit(x + eps * direction) - logit(x - eps * direction)) / (2 * eps)
    along = (classifier.gradient(x, y).double() * direction).flatten(1).sum(1)
    torch.testing.assert_close(along, rise, rtol=1e-4, atol=1e-6)


def test_a_picture_has_the_same_gradient_alone_and_in_a_crowd(network: Airbench) -> None:
    x, y = pictures(), torch.tensor([0, 3, 4, 1])
    crowd = network.gradient(x, y)
    for k in range(4):
        torch.testing.assert_close(network.gradient(x[k : k + 1], y[k : k + 1])[0], crowd[k])


def test_the_exported_form_answers_as_the_network_does_also_without_gradients(network: Airbench) -> None:
    x, y = pictures(), torch.tensor([0, 3, 4, 1])
    file = io.BytesIO()
    with torchscript():
        torch.jit.save(torch.jit.script(network), file)
        file.seek(0)
        loaded = torch.jit.freeze(torch.jit.load(file).eval(), preserved_attrs=["gradient"])
        with torch.no_grad():
            answer, gradient = loaded(x), loaded.gradient(x, y)
            assert not torch.is_grad_enabled()
    for a, b in zip(answer, network(x), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(gradient, network.gradient(x, y))


def test_what_is_no_classifier_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        Airbench((1, 8, 8), 1, (4,))
    with pytest.raises(ValueError, match="8 x 4 pixels, less 1, do not halve 2 times"):
        Airbench((1, 8, 4), 3, (4, 4))
    with pytest.raises(ValueError, match="halve 0 times"):
        Airbench((1, 8, 8), 3, ())
    config = LabelsConfig(family="labels", shape=(1, 8, 8), classes=("a", "b"), channels=(4, 6), mirror=False)
    assert config.build()(torch.zeros(2, 1, 8, 8))[0].shape == (2, 2)
