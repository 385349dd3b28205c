"""Temperature, top_k, top_p and the draw, against their definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from genserve.language.rules import Rules, draw, log_probabilities, probabilities

rows = arrays(np.float32, st.integers(1, 12), elements=st.floats(-30, 30, width=32))


def softmax(logits: np.ndarray) -> list[float]:
    top = float(max(logits))
    terms = [math.exp(float(value) - top) for value in logits]
    return [term / math.fsum(terms) for term in terms]


def by_definition(logits: np.ndarray, rules: Rules) -> list[float]:
    """Return the probabilities by the sentences of the module's docstring, one token after the other."""
    p = softmax(np.asarray(logits, np.float64) / rules.temperature)
    ranked = sorted(range(len(p)), key=lambda k: (-p[k], k))
    ranked = ranked[: rules.top_k] if rules.top_k else ranked
    if rules.top_p < 1:
        left = math.fsum(p[k] for k in ranked)
        kept: list[int] = []
        while math.fsum(p[k] for k in kept) < rules.top_p * left - 1e-12:
            kept.append(ranked[len(kept)])
        ranked = kept
    total = math.fsum(p[k] for k in ranked)
    return [p[k] / total if k in ranked else 0.0 for k in range(len(p))]


@given(
    logits=rows,
    temperature=st.floats(0.1, 5),
    top_k=st.integers(0, 13),
    top_p=st.sampled_from([0.05, 0.37, 0.61, 0.93, 1.0]),
)
def test_the_rules_are_their_definition(
    logits: np.ndarray, temperature: float, top_k: int, top_p: float
) -> None:
    rules = Rules(temperature=temperature, top_k=top_k, top_p=top_p)
    p = probabilities(logits, rules)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(p, by_definition(logits, rules), atol=1e-9)


def test_top_p_keeps_the_token_that_reaches_it() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    for top_p, n in ((0.4, 1), (0.51, 2), (0.79, 2), (0.81, 3), (0.96, 4)):
        assert np.count_nonzero(probabilities(logits, Rules(top_p=top_p))) == n


@pytest.mark.parametrize("scale", [0.0, 1.0, 6.0])
@pytest.mark.parametrize(
    "rules", [Rules(top_p=0.5), Rules(top_p=0.95), Rules(top_k=40), Rules(top_k=40, top_p=0.9)]
)
def test_of_a_large_vocabulary_the_rules_leave_the_same(rules: Rules, scale: float) -> None:
    logits = scale * np.random.default_rng(1).standard_normal(3000)
    p = probabilities(logits, rules)
    order = np.argsort(-np.array(softmax(logits)), kind="stable")[: rules.top_k or None]
    ends = np.cumsum(np.array(softmax(logits))[order])
    n = 1 + np.count_nonzero(ends < rules.top_p * ends[-1] - 1e-12) if rules.top_p < 1 else len(order)
    assert np.flatnonzero(p).tolist() == sorted(order[:n].tolist())


def test_a_top_p_that_is_almost_1_keeps_every_token_that_counts() -> None:
    logits = 3 * np.random.default_rng(0).standard_normal(5000)
    p = probabilities(logits, Rules(top_p=math.nextafter(1, 0)))
    np.testing.assert_allclose(p, softmax(logits), rtol=1e-9, atol=1e-11)


def test_of_equally_likely_tokens_the_first_ones_are_kept() -> None:
    logits = np.random.default_rng(0).integers(0, 3, 1000).astype(float)
    p = probabilities(logits, Rules(top_k=20))
    assert np.flatnonzero(p).tolist() == np.flatnonzero(logits == 2)[:20].tolist()
    assert probabilities(np.zeros(5), Rules(temperature=0)).tolist() == [1, 0, 0, 0, 0]


def test_a_small_temperature_comes_to_the_same_as_none() -> None:
    logits = np.array([1.0, 3.0, 2.999, -80.0])
    assert probabilities(logits, Rules(temperature=1e-300)).tolist() == [0, 1, 0, 0]
    assert probabilities(logits, Rules(temperature=0)).tolist() == [0, 1, 0, 0]


def test_a_forbidden_token_never_has_a_chance() -> None:
    logits = np.array([0.0, -np.inf, 1.0])
    for rules in (Rules(), Rules(temperature=0.2), Rules(top_k=3), Rules(top_p=0.999)):
        assert probabilities(logits, rules)[1] == 0
    for bad in ([-np.inf, -np.inf], [np.nan, 0.0], [np.inf, 0.0]):
        with pytest.raises(ValueError, match="no finite largest"):
            probabilities(np.array(bad), Rules())


@given(logits=rows)
def test_log_probabilities_are_those_of_the_model(logits: np.ndarray) -> None:
    np.testing.assert_allclose(np.exp(log_probabilities(logits)), softmax(logits), atol=1e-12)


@given(p=st.lists(st.integers(0, 5), min_size=1, max_size=8).filter(any), u=st.floats(0, 1, exclude_max=True))
def test_the_draw_is_the_piece_that_holds_u(p: list[int], u: float) -> None:
    token = draw(np.array(p, float), u)
    assert p[token] > 0
    assert sum(p[:token]) <= u * sum(p)
    assert u * sum(p) < sum(p[: token + 1])


def test_u_just_below_1_draws_the_last_token_that_has_a_chance() -> None:
    p = np.array([0.1] * 10 + [0.0])
    assert draw(p / p.sum(), np.nextafter(1, 0)) == 9


def test_draws_have_the_frequencies_of_the_probabilities() -> None:
    p = np.array([0.5, 0.0, 0.2, 0.3])
    n = 20_000
    drawn = np.bincount([draw(p, u) for u in np.random.default_rng(0).random(n)], minlength=4)
    np.testing.assert_allclose(drawn / n, p, atol=4 * 0.5 / n**0.5)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"temperature": -0.1}, "temperature must be at least 0"),
        ({"temperature": math.nan}, "temperature must be at least 0"),
        ({"temperature": math.inf}, "temperature must be at least 0"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1"),
    ],
)
def test_rules_out_of_range_are_named(rules: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rules(**rules)  # type: ignore[arg-type]
