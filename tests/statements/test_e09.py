"""E09: PPO's advantage with any critic."""

import numpy as np
from hypothesis import given

from vgrad_lab import strategies
from vgrad_lab.advantage import gae
from vgrad_lab.discrete.estimator_rules import critic, token_rewards
from vgrad_lab.discrete.estimator_rules import gae as exact_or_noisy_gae
from vgrad_lab.discrete.estimator_types import Estimator, Options, Problem, random_problem
from vgrad_lab.experiments import verify_estimators_tokens as checks
from vgrad_lab.experiments.verify_estimators import bend, deviation, mean_of
from vgrad_lab.tolerances import ALGEBRA, PLANTED_FAULT

CASE = random_problem()
NOISE = 0.5 * np.random.default_rng(1).standard_normal(CASE.logits.shape)
NOISY = NOISE[:, 0].copy()


def ppo(*, token: object = exact_or_noisy_gae, decay: float = 1.0, whitened: bool = False, mean: bool = False) -> float:
    """Bend of the mean direction for batches of two answers and the noisy critic."""
    estimator = Estimator(
        "mine", "Σ_t Â_t g_t", "a test", "biased", token=token, whitened=whitened,
        aggregation="token_mean" if mean else "sum",
    )  # fmt: skip
    return bend(mean_of(estimator, CASE, group=2, options=Options(decay=decay, critic_error=NOISY)), CASE.gradient)


@given(strategies.seeds())
def test_holds(seed: int) -> None:
    assert checks.e09_any_critic(seed=seed, examples=1).passed


def test_a_planted_error_is_seen() -> None:
    found = mean_of("ppo", CASE, group=1, options=Options(critic_error=NOISY))
    assert deviation(found, CASE.gradient) <= ALGEBRA
    assert deviation((1 + PLANTED_FAULT) * found, CASE.gradient) > ALGEBRA


def test_the_reward_sits_at_the_last_token() -> None:
    """GAE by hand where the critic is zero: R λ^(tokens left)."""
    exact = critic(CASE, Options())[:, :-1]
    for decay in (0.0, 0.5, 1.0):
        no_critic = exact_or_noisy_gae(CASE, Options(decay=decay)) + _of_critic(exact, decay)
        left = CASE.tree.length[:, None] - 1 - np.arange(CASE.tree.horizon)
        expected = np.where(left >= 0, CASE.reward[:, None] * decay ** np.maximum(left, 0), 0.0)
        np.testing.assert_allclose(no_critic, expected, atol=ALGEBRA)


def _of_critic(value: np.ndarray, decay: float) -> np.ndarray:
    """What the critic takes away from GAE: GAE is linear in rewards and critic."""
    nodes = np.column_stack([value, np.zeros(len(value))])
    return -gae(np.zeros(value.shape), nodes, decay=decay) * CASE.tree.scored


def test_a_shorter_lambda_needs_the_exact_critic() -> None:
    bends = [ppo(decay=decay) for decay in (0.0, 0.5, 0.95)]
    assert bends[0] > bends[1] > bends[2] > 0.001
    assert ppo() <= ALGEBRA
    for decay in (0.0, 0.5):
        assert deviation(mean_of("ppo", CASE, group=1, options=Options(decay=decay)), CASE.gradient) <= ALGEBRA


def peeking(problem: Problem, options: Options) -> np.ndarray:
    """λ = 1 with a critic that reads the token it judges."""
    tree = problem.tree
    value = critic(problem, Options())[:, :-1] + NOISE[tree.node, tree.tokens] * tree.scored
    nodes = np.column_stack([value, np.zeros(tree.size)])
    return gae(token_rewards(problem, options), nodes) * tree.scored


def test_a_critic_that_sees_the_token_breaks_it() -> None:
    assert ppo(token=peeking) > 0.1


def test_a_mean_over_tokens_breaks_it() -> None:
    assert ppo(mean=True) > 0.005


def test_whitening_breaks_it() -> None:
    assert ppo(whitened=True) > 0.01
    assert ppo(whitened=True, mean=True) > 0.01
