"""Every check of K01 to K11 fails when what it checks is wrong by 0.1 %."""

from collections.abc import Callable
from typing import Any

import pytest

from vgrad_lab.experiments import verify_kl, verify_neighbours, verify_off_policy
from vgrad_lab.tolerances import PLANTED_FAULT

CHECKS = [
    (verify_kl, "k01_values", "kl_value"),
    (verify_kl, "k02_table", "kl_term_gradient"),
    (verify_kl, "k02_ratio", "kl_term_gradient"),
    (verify_kl, "k03_reward", "sequence_kl_gradient"),
    (verify_kl, "k04_future", "local_kl_gradient"),
    (verify_kl, "k04_future", "prefix_kl"),
    (verify_kl, "k04_sequence", "kl_term_gradient"),
    (verify_off_policy, "k05_sequence", "off_policy_gradient"),
    (verify_off_policy, "k06_parts", "off_policy_gradient"),
    (verify_off_policy, "k08_left_out", "importance_ratio"),
    (verify_neighbours, "k09_density", "density_gradient"),
    (verify_neighbours, "k10_target", "tilted"),
    (verify_neighbours, "k10_best_of_n", "best_of_n_value"),
    (verify_neighbours, "k10_ascent", "flow_direction"),
    (verify_neighbours, "k10_rest", "gaussian_kernel"),
    (verify_neighbours, "k09_marginal", "density_second_moments"),
    (verify_neighbours, "k10_budget", "squared_mmd"),
    (verify_neighbours, "k11_exact", "from_group"),
]


def spoiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, 0.1 % too large; of several results the first."""

    def wrong(*args: Any, **options: Any) -> Any:
        found = function(*args, **options)
        if isinstance(found, tuple):
            return (found[0] * (1 + PLANTED_FAULT), *found[1:])
        return found * (1 + PLANTED_FAULT)

    return wrong


def added(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function plus 0.001, for what is zero or has a bound to spare."""
    return lambda *args, **options: function(*args, **options) + PLANTED_FAULT


@pytest.mark.parametrize(("module", "check", "name"), CHECKS, ids=lambda x: x if isinstance(x, str) else "")
def test_planted_fault_is_found(module: Any, check: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = getattr(module, check)
    assert run(examples=5).passed
    if name == "gaussian_kernel":
        kernel = module.gaussian_kernel
        wide = 1 + PLANTED_FAULT
        monkeypatch.setattr(module, name, lambda x, y, *, bandwidth: kernel(x, y, bandwidth=wide * bandwidth))
    elif name == "squared_mmd":
        monkeypatch.setattr(module, name, lambda *args, **options: 2.0)
    else:
        plant = added if name == "from_group" else spoiled
        monkeypatch.setattr(module, name, plant(getattr(module, name)))
    assert not run(examples=5).passed
