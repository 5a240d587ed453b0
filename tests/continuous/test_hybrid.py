from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given

from tests.continuous.systems import Spec, assert_close, build, specs
from tests.helpers import unchecked, whole
from vgrad_lab import strategies
from vgrad_lab.continuous import environments, oracles
from vgrad_lab.continuous.estimators import pathwise_gradient, pull_parameters, score_function_gradient
from vgrad_lab.continuous.hybrid import hybrid_gradient
from vgrad_lab.continuous.noise import gaussian
from vgrad_lab.continuous.policies import linear_policy
from vgrad_lab.continuous.rollout import rollout
from vgrad_lab.tolerances import ALGEBRA, CLOSED_FORM, PLANTED_FAULT, QUADRATURE

FORMS = ("score", "pathwise")


@given(specs(), strategies.seeds())
def test_equal_forms_are_the_two_plain_estimators(spec: Spec, seed: int) -> None:
    system = build(spec)
    arguments, discount = (system.environment, system.policy, system.rollout), system.discount
    level = np.random.default_rng(seed).normal(size=system.rollout.reward.shape)
    both = hybrid_gradient(*arguments, immediate="pathwise", future="pathwise", discount=discount)
    assert_close(both, pathwise_gradient(*arguments, discount=discount), ALGEBRA)
    for given_level in (None, level):
        options = {"discount": discount, "baseline": given_level}
        numbers = hybrid_gradient(*arguments, immediate="score", future="score", **options)
        assert_close(numbers, score_function_gradient(*arguments, **options), 10 * ALGEBRA)


@given(strategies.linear_systems(max_state=3, max_action=1), strategies.discounts(), strategies.seeds())
def test_all_mixtures_have_the_mean_of_the_oracle(system: strategies.LinearSystem, discount: float, seed: int) -> None:
    environment = environments.linear_quadratic(system.A, system.B, system.Q, system.R)
    policy = linear_policy(system.K, system.bias, noise=gaussian(0.7))
    noise, weight = oracles.gauss_hermite_noise(3, 3, 1, scale=0.7)
    start = np.tile(np.random.default_rng(seed).normal(size=(1, len(system.A))), (len(noise), 1))
    played = rollout(environment, policy, start, noise)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=3, discount=discount)
    expected = oracles.parameter_gradient(oracle, start[:1])
    exact = oracles.value_gradient(oracle, played.state)
    scale = max(1.0, float(np.max(np.abs(played.reward))))
    for immediate in FORMS:
        for future, critic in (("score", None), ("pathwise", None), ("pathwise", exact)):
            for level in (None, oracles.value(oracle, played.state)[:, :-1]):
                if level is not None and "score" not in (immediate, future):
                    continue
                options = {"immediate": immediate, "future": future, "value_gradient": critic, "baseline": level}
                found = weight @ hybrid_gradient(environment, policy, played, discount=discount, **options)
                assert np.max(np.abs(found - expected)) <= CLOSED_FORM * scale
                if np.max(np.abs(expected)) > 0.1 * scale:
                    assert np.max(np.abs(found * (1 + PLANTED_FAULT) - expected)) > CLOSED_FORM * scale


def test_a_reward_that_jumps_needs_the_score_for_its_own_step_only() -> None:
    """r_1 = 1[a > 0], r_2 = −s²: the pathwise form misses the jump's φ(ā/σ)/σ, the mixture does not."""
    step, after, scale, centre = 1.0, 0.8, 1.0, 0.3

    def reward(state: np.ndarray, action: np.ndarray) -> np.ndarray:
        return np.where(state[:, 1] == 0, step * (action[:, 0] > 0), -after * state[:, 0] ** 2)

    def zeros(*shape: int):  # type: ignore[no-untyped-def]
        return lambda s, a: np.zeros((len(s), *shape))

    jacobians = environments.Jacobians(
        zeros(2, 2),
        lambda s, a: np.tile([[1.0], [0.0]], (len(s), 1, 1)),
        lambda s, a: np.where(s[:, 1:] == 0, 0.0, np.column_stack([-2 * after * s[:, 0], 0 * s[:, 0]])),
        zeros(1),
    )
    environment = environments.Environment(
        2,
        1,
        lambda rng, batch: np.zeros((batch, 2)),
        lambda s, a: np.column_stack([a[:, 0], s[:, 1] + 1]),
        reward,
        jacobians,
    )
    policy = linear_policy(np.zeros((1, 2)), np.array([centre]), noise=gaussian(scale))
    x, weight = policy.noise.quadrature((-centre,))
    noise = np.stack([x, np.zeros_like(x)], 1)[..., None]
    played = rollout(environment, policy, np.zeros((len(x), 2)), noise)
    density = np.exp(-(centre**2) / 2) / np.sqrt(2 * np.pi)
    truth = density - 2 * after * centre  # the bias moves ā_1 only as far as rewards can see
    mixed, plain = (weight @ hybrid_gradient(environment, policy, played, immediate=form)[:, 2] for form in FORMS)
    assert abs(mixed - truth) <= QUADRATURE
    assert abs(plain - (truth - density)) <= QUADRATURE


def test_a_wrong_model_biases_the_future_only() -> None:
    rng = np.random.default_rng(4)
    environment = environments.random_linear_quadratic(rng, 2, 1)
    dynamics = environments.Map(environment.dynamics.inner * 1.1, environment.dynamics.shift)
    model = environments.from_arrays(dynamics, environment.payoff)
    policy = linear_policy(np.array([[0.2, -0.1]]), np.array([0.3]))
    noise, weight = oracles.gauss_hermite_noise(3, 3, 1)
    start = np.tile([0.5, -1.0], (len(noise), 1))
    played = rollout(environment, policy, start, noise)
    oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=3)
    truth = oracles.parameter_gradient(oracle, start[:1])
    true, wrong = (weight @ hybrid_gradient(e, policy, played) for e in (environment, model))
    assert np.max(np.abs(true - truth)) <= CLOSED_FORM * np.max(np.abs(truth))
    assert np.max(np.abs(wrong - truth)) > 0.01 * np.max(np.abs(truth))
    numbers = weight @ hybrid_gradient(model, policy, played, future="score")
    assert np.max(np.abs(numbers - truth)) <= CLOSED_FORM * np.max(np.abs(truth))


SYSTEM = build(Spec(strategies.RolloutShape(3, 2, 2, 1), "linear-quadratic", "linear", 1.0, 0))
PARTS, PLAYED = (SYSTEM.environment, SYSTEM.policy, SYSTEM.rollout), SYSTEM.rollout
BARE = environments.Environment(2, 1, *(getattr(SYSTEM.environment, n) for n in ("initial", "transition", "reward")))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: unchecked(hybrid_gradient)(*PARTS, immediate="both"),
            "immediate is 'both'; choose one of score, pathwise",
        ),
        (lambda: unchecked(hybrid_gradient)(*PARTS, future="none"), "future is 'none'; choose one of score, pathwise"),
        (
            lambda: hybrid_gradient(*PARTS, immediate="pathwise", baseline=np.zeros((3, 2))),
            "a baseline has no effect on two pathwise forms; leave it out",
        ),
        (
            lambda: hybrid_gradient(*PARTS, baseline=np.zeros((3, 1))),
            "baseline has shape (3, 1), expected (3, 2), one per step",
        ),
        (
            lambda: hybrid_gradient(*PARTS, future="score", value_gradient=PLAYED.state),
            "value_gradient serves future='pathwise' only; leave it out or choose that form",
        ),
        (
            lambda: hybrid_gradient(*PARTS, value_gradient=PLAYED.state[:, 1:]),
            "value_gradient has shape (3, 2, 2), expected (3, 3, 2), one row per node",
        ),
        (lambda: hybrid_gradient(*PARTS, discount=-0.5), "discount must lie in [0, 1], got -0.5"),
        (
            lambda: hybrid_gradient(BARE, SYSTEM.policy, PLAYED),
            "this environment has no Jacobians, so there are no costates: give it Jacobians(transition_state, "
            "transition_action, reward_state, reward_action) and check them with vgrad_lab.verify.check_environment",
        ),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        call()


def test_by_default_the_score_for_the_step_and_costates_for_the_future() -> None:
    plain = hybrid_gradient(*PARTS, immediate="score", future="pathwise", discount=1.0)
    assert np.array_equal(hybrid_gradient(*PARTS), plain)


def test_a_baseline_serves_the_future_alone_too() -> None:
    level, forms = np.arange(6.0).reshape(3, 2), {"immediate": "pathwise", "future": "score", "discount": 0.9}
    moved = hybrid_gradient(*PARTS, **forms) - hybrid_gradient(*PARTS, **forms, baseline=level)
    score = pull_parameters(
        SYSTEM.policy, PLAYED, -SYSTEM.policy.noise.score(PLAYED.noise_draw) * (level * [1.0, 0.9])[..., None]
    )
    assert_close(moved, score, ALGEBRA)
