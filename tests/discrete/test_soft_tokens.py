"""Soft tokens: the density's gradient against Taylor rates of the value, in two quadratures that share no formula."""

import math

import numpy as np
import pytest
from numpy import ndarray

from tests.helpers import unchecked
from vgrad_lab.discrete.soft_tokens import (
    CLAMP,
    clamped_nodes,
    density_gradient,
    density_second_moments,
    gumbel_nodes,
    soft_token,
    soft_value,
    to_logits,
)
from vgrad_lab.stats import assert_mean_close
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT, QUADRATURE, TAYLOR_RATE
from vgrad_lab.verify import taylor_rates


def log_softmax(z: ndarray) -> ndarray:
    return z - np.logaddexp.reduce(z)


def payoff(y: ndarray) -> ndarray:
    """A curved reward, not symmetric in its tokens."""
    weight = np.array([1.0, -0.3, 0.2])[: y.shape[1]]
    return y @ weight + 0.5 * y[:, 0] ** 2 - y[:, 0] * y[:, 1]


def draw(seed: int, vocab: int = 3) -> ndarray:
    return log_softmax(np.random.default_rng(seed).standard_normal(vocab))


@pytest.mark.parametrize("vocab", [2, 3])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_summed_log_density_is_exact(vocab: int, temperature: float) -> None:
    for seed in range(2):
        rng = np.random.default_rng(seed)
        z, along = rng.standard_normal((2, vocab))

        def value(x: ndarray, t: float = temperature) -> ndarray:
            return np.array(soft_value(gumbel_nodes(log_softmax(x), spacing=0.4), payoff, temperature=t))

        def slope(x: ndarray, t: float = temperature, factor: float = 1.0) -> ndarray:
            log_p = log_softmax(x)
            return factor * to_logits(log_p, density_gradient(gumbel_nodes(log_p, spacing=0.4), payoff, temperature=t))

        along = along + 3 * slope(z) / np.linalg.norm(slope(z))
        steps = {"step": 1e-3, "halvings": 2}
        assert np.abs(taylor_rates(value, slope, z, along, **steps) - 2).max() <= TAYLOR_RATE
        wrong = taylor_rates(value, lambda x, s=slope: s(x, factor=1 + PLANTED_FAULT), z, along, step=1e-4, halvings=2)
        assert np.abs(wrong - 2).max() > TAYLOR_RATE


@pytest.mark.parametrize("seed", range(6))
def test_the_nodes_are_a_law_and_their_score_has_mean_zero(seed: int) -> None:
    for vocab in (2, 3):
        for nodes in (gumbel_nodes(draw(seed, vocab), spacing=0.5), clamped_nodes(draw(seed, vocab), count=20)):
            assert nodes.weight.sum() == pytest.approx(1, abs=QUADRATURE)
            assert nodes.weight.min() >= 0
        assert (
            np.abs(gumbel_nodes(draw(seed, vocab)).weight @ gumbel_nodes(draw(seed, vocab)).score).max() <= QUADRATURE
        )


def test_the_two_quadratures_agree_where_the_clamp_is_out_of_reach() -> None:
    """Noise of [−3.8, 36] by a product rule with the derivative of each g_j, against the differences with its mean."""
    for seed in range(2):
        log_p = draw(seed)
        wide = clamped_nodes(log_p, clamp=(-4.0, 36.0), count=80)
        one = density_gradient(wide, payoff, temperature=1.0)
        other = density_gradient(gumbel_nodes(log_p), payoff, temperature=1.0)
        np.testing.assert_allclose(one, other, rtol=0, atol=QUADRATURE)
        scores = density_second_moments(gumbel_nodes(log_p), payoff, temperature=1.0)
        value = payoff(soft_token(wide.perturbed, 1.0))
        np.testing.assert_allclose((wide.weight * value**2) @ wide.score**2, scores[0], rtol=0, atol=QUADRATURE)
        assert np.all(scores[1] < 0.95 * scores[0]), "the density of y alone has the smaller variance"


def test_against_draws() -> None:
    """40,000 Gumbel draws: value and gradient within their standard errors; a fifth is seen."""
    rng = np.random.default_rng(0)
    log_p = draw(5)
    noise = rng.gumbel(size=(40_000, 3))
    value = payoff(soft_token(log_p + noise, 0.5))
    exact = density_gradient(gumbel_nodes(log_p), payoff, temperature=0.5)
    assert_mean_close(value[:, None] * (1 - np.exp(-noise)), exact, detectable=0.2)
    assert_mean_close(value, soft_value(gumbel_nodes(log_p), payoff, temperature=0.5), detectable=0.05)


def test_the_average_is_a_third_and_dropped_entries_turn_it() -> None:
    log_p = log_softmax(np.array([1.0, 0.5, -4.0]))
    nodes = gumbel_nodes(log_p)
    whole = density_gradient(nodes, payoff, temperature=0.5)
    third = density_gradient(nodes, payoff, temperature=0.5, mean=True)
    np.testing.assert_allclose(3 * third, whole, rtol=0, atol=ALGEBRA)
    entries = log_p > -3
    assert entries.tolist() == [True, True, False]
    dropped = density_gradient(nodes, payoff, temperature=0.5, entries=entries)
    np.testing.assert_array_equal(dropped, np.where(entries, whole, 0.0))
    assert np.abs(to_logits(log_p, dropped) - to_logits(log_p, whole)).max() > 1e-3


def truth(log_p: ndarray, temperature: float, **noise: object) -> ndarray:
    """∂E[f(y)]/∂z by extrapolated differences of the value, the clamp and the scale as they are sampled."""
    z = np.array(log_p)

    def value(x: ndarray) -> float:
        return soft_value(clamped_nodes(log_softmax(x), **noise), payoff, temperature=temperature)  # type: ignore[arg-type]

    def difference(h: float) -> ndarray:
        return np.array([(value(z + h * e) - value(z - h * e)) / (2 * h) for e in np.eye(len(z))])

    return (4 * difference(5e-4) - difference(1e-3)) / 3


def test_the_clamp_is_biased_in_both_readings() -> None:
    for seed in range(3):
        log_p = draw(seed)
        exact = truth(log_p, 0.5, clamp=CLAMP)
        for passed, most in ((True, 0.03), (False, 0.15)):
            nodes = clamped_nodes(log_p, clamp=CLAMP)
            found = to_logits(log_p, density_gradient(nodes, payoff, temperature=0.5, pass_bounds=passed))
            error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
            assert error > most
        assert np.abs(clamped_nodes(log_p).weight @ clamped_nodes(log_p).score).min() > 0.01, (
            "no score: its mean is not 0"
        )


def test_clamped_noise_by_its_marginal() -> None:
    """Atoms with the Gumbel's tails, everything between inside; stopped and passed derivatives as plain sums."""
    log_p = draw(1, 2)
    nodes = clamped_nodes(log_p, count=30)
    z = nodes.perturbed - log_p
    np.testing.assert_array_equal(nodes.inside, (z > -1.5 + 1e-9) & (z < 3 - 1e-9))
    low, high = nodes.weight @ (z[:, 0] < -1.5 + 1e-9), nodes.weight @ (z[:, 1] > 3 - 1e-9)
    assert [low, high] == pytest.approx([np.exp(-np.exp(1.5)), 1 - np.exp(-np.exp(-3))], abs=ALGEBRA)
    value = payoff(soft_token(nodes.perturbed, 1.0))
    for passed, share in ((True, 1.0), (False, nodes.inside)):
        expected = (nodes.weight * value) @ ((1 - np.exp(-z)) * share)
        found = density_gradient(nodes, payoff, temperature=1.0, pass_bounds=passed)
        np.testing.assert_allclose(found, expected, rtol=0, atol=ALGEBRA)


def test_chain_rule_of_the_log_softmax() -> None:
    """A linear function of log p, whose gradient in log p does not sum to zero."""
    z, slope = np.random.default_rng(3).standard_normal((2, 4))
    rates = taylor_rates(
        lambda x: np.array(log_softmax(x) @ slope), lambda x: to_logits(log_softmax(x), slope), z, slope**2
    )
    assert np.all(rates > 2 - TAYLOR_RATE)


def test_scaled_noise_needs_the_scaled_density() -> None:
    """Noise s·G in the density of G: the mean of 1 − e^{−sG} is 1 − Γ(1 + s), not 0."""
    for scale in (0.5, 1.0, 1.5):
        nodes = clamped_nodes(draw(0, 2), clamp=(-4.0, 60.0), scale=scale, count=200)
        np.testing.assert_allclose(nodes.weight @ nodes.score, 1 - math.gamma(1 + scale), rtol=0, atol=QUADRATURE)
    log_p = draw(0)
    exact = truth(log_p, 0.5, clamp=(-3.8, 36.0), scale=0.5, count=64)
    half = clamped_nodes(log_p, clamp=(-3.8, 36.0), scale=0.5, count=64)
    coded = to_logits(log_p, density_gradient(half, payoff, temperature=0.5))
    assert np.linalg.norm(coded - exact) > 0.2 * np.linalg.norm(exact)
    value = payoff(soft_token(half.perturbed, 0.5))
    right = (half.weight * value) @ (2 * (1 - np.exp(-2 * (half.perturbed - log_p))))
    np.testing.assert_allclose(to_logits(log_p, right), exact, rtol=0, atol=1e-7)


def test_soft_tokens_lie_on_the_simplex() -> None:
    y = soft_token(np.array([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]]), 0.1)
    np.testing.assert_allclose(y, [[1, 0, 0], [1 / 3] * 3], atol=ALGEBRA)
    found = soft_token(np.log([[1.0, 2.0, 3.0]]), 0.5)
    np.testing.assert_allclose(found, np.array([[1.0, 4.0, 9.0]]) / 14, atol=ALGEBRA)


def test_bad_input() -> None:
    log_p = draw(0)
    with pytest.raises(ValueError, match="2 to 3 tokens"):
        unchecked(gumbel_nodes)(np.log(np.full(4, 0.25)))
    with pytest.raises(ValueError, match="sum to 1"):
        unchecked(gumbel_nodes)(log_p + 0.1)
    with pytest.raises(ValueError, match="spacing"):
        unchecked(gumbel_nodes)(log_p, spacing=0.0)
    for settings in ({"clamp": (3.0, -1.5)}, {"scale": 0.0}, {"count": 1}, {"clamp": (-np.inf, 3.0)}):
        with pytest.raises(ValueError, match="a < b"):
            unchecked(clamped_nodes)(log_p, **settings)
    with pytest.raises(ValueError, match="τ > 0"):
        unchecked(soft_token)(log_p[None], 0.0)
    with pytest.raises(ValueError, match="at least one token"):
        density_gradient(gumbel_nodes(log_p), payoff, temperature=1.0, entries=np.zeros(3, dtype=bool))
