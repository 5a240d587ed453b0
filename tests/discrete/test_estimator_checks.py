"""The ledger's checks of estimators: each finds an error of 0.1 % in what it checks, over many seeds none without."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vgrad_lab.discrete.u_statistic import pair_kernel
from vgrad_lab.experiments import verify_estimators as baselines
from vgrad_lab.experiments import verify_estimators_tokens as tokens
from vgrad_lab.tolerances import PLANTED_FAULT

OFF = 1 + PLANTED_FAULT
CHECKS = {
    name: (module, getattr(module, name))
    for module in (baselines, tokens)
    for name in dir(module)
    if name.startswith("e0") and "examples" in getattr(module, name).__wrapped__.__code__.co_varnames
}


def scaled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its result off by 0.1 %."""
    return lambda *a, **k: OFF * function(*a, **k)


def scaled_for(function: Callable[..., Any], wanted: Callable[..., bool]) -> Callable[..., Any]:
    """The same for those calls of ``mean_of`` that are wanted."""

    def other(name: object, problem: object, **k: Any) -> Any:
        return (OFF if wanted(name, k.get("options")) else 1) * function(name, problem, **k)

    return other


def only(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return lambda function: scaled_for(function, lambda name, options: name in names)


def sample_only(function: Callable[..., Any]) -> Callable[..., Any]:
    return scaled_for(function, lambda name, options: options.ddof == 1)


def bent(function: Callable[..., Any]) -> Callable[..., Any]:
    """An effective reward that is wrong for the best answer alone."""

    def other(problem: Any, **k: Any) -> Any:
        found = np.array(function(problem, **k))
        found[np.argmax(problem.reward)] *= OFF
        return found

    return other


def more_variance(function: Callable[..., Any]) -> Callable[..., Any]:
    def other(*a: Any, **k: Any) -> Any:
        found = function(*a, **k)
        return replace(found, variance=OFF * found.variance)

    return other


FAULTS: tuple[tuple[str, str, Callable[[Callable[..., Any]], Callable[..., Any]]], ...] = (
    ("e05_leave_one_out", "mean_of", scaled),
    ("e05_own_mean", "mean_of", only("group_mean")),
    ("e05_own_mean", "mean_of", only("dr_grpo")),
    ("e05_greedy", "mean_of", only("remax")),
    ("e05_greedy", "mean_of", only("reinforce")),
    ("e06_effective", "mean_of", scaled),
    ("e06_effective", "effective_reward", bent),
    ("e06_binary", "mean_of", scaled),
    ("e06_binary", "grpo_scale", scaled),
    ("e06_binary", "binary_scale", scaled),
    ("e06_ddof", "mean_of", sample_only),
    ("e06_mixed", "mean_of", only("rloo")),
    ("e06_mixed", "mean_of", only("standardised")),
    ("e06_mixed", "mean_reward", scaled),
    ("e07_effective", "mean_of", scaled),
    ("e07_effective", "mean_reward", scaled),
    ("e07_equal", "mean_of", only("sequence_mean")),
    ("e07_equal", "mean_of", only("token_mean")),
    ("e07_equal", "mean_of", only("grpo")),
    ("e07_equal", "mean_of", only("gspo")),
    ("e07_gspo", "mean_of", scaled),
    ("e07_gspo", "off_policy_surrogate", scaled),
    ("e07_ratio", "first_bias", scaled),
    ("e07_ratio", "group_mean", scaled),
    ("e08_pointwise", "pair_kernel", scaled),
    ("e08_pointwise", "leave_one_out", scaled),
    ("e08_mse", "leave_one_out_variance", scaled),
    ("e08_mse", "pair_kernel", scaled),
    ("e08_mse", "exact_moments", more_variance),
    ("e08_constant", "best_constant", scaled),
    ("e08_constant", "exact_moments", more_variance),
    ("e09_any_critic", "mean_of", scaled),
)


@pytest.mark.parametrize(("name", "part", "fault"), FAULTS)
def test_a_planted_error_is_found(
    name: str, part: str, fault: Callable[[Callable[..., Any]], Callable[..., Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, check = CHECKS[name]
    assert check(seed=1, examples=6).passed
    monkeypatch.setattr(module, part, fault(getattr(module, part)))
    assert not check(seed=1, examples=6).passed


def test_every_check_has_a_fault() -> None:
    assert {name for name, _, _ in FAULTS} == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_many_seeds(name: str) -> None:
    """Residuals stay below half of the tolerance over other random problems."""
    _, check = CHECKS[name]
    found = check(seed=12345, examples=25)
    assert found.residual <= 0.5 * found.tolerance


@pytest.mark.parametrize("module", [baselines, tokens])
def test_counterexamples(module: ModuleType) -> None:
    for name in dir(module):
        if name.startswith("e0") and name not in CHECKS:
            assert getattr(module, name)().refutes


def test_the_kernel_is_symmetric() -> None:
    problem = baselines.three_answers((0.0, 0.5, 2.0))
    pairs = np.array([[0, 1], [1, 2], [0, 2]])
    np.testing.assert_array_equal(pair_kernel(problem, pairs), pair_kernel(problem, pairs[:, ::-1]))
