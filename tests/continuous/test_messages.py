"""Messages for arrays that do not fit each other; under pytest the annotations catch these first, so in a process."""

import json
import subprocess
import sys

import pytest

SETUP = """
import json
import numpy as np
from vgrad_lab.continuous import environments, policies, rollout, estimators, oracles
eye, rng = np.eye(2), np.random.default_rng(0)
env = environments.random_linear_quadratic(rng, 3, 2)
policy = policies.linear_policy(np.zeros((2, 3)))
played = rollout.sample_rollout(env, policy, rng, batch=4, horizon=5)
tanh = environments.random_tanh_network(rng, 3, 2)
def message(code):
    try:
        eval(code)
    except ValueError as error:
        return str(error)
    return "no error"
"""
CASES = {
    "environments.linear_quadratic(eye, eye, np.eye(1), eye)": "Q has shape (1, 1), expected (2, 2)",
    "environments.linear_quadratic(eye, np.zeros(2), eye, eye)": "B has shape (2,), expected (S, A)",
    "environments.linear_quadratic(eye * np.nan, eye, eye, eye)": "A holds non-finite values",
    "environments.tanh_network(np.ones((5, 2)), np.ones((5, 1)), np.zeros(5), np.ones((5, 2)), np.zeros(2))": (
        "output_weight has shape (5, 2), expected (2, 5); it looks transposed"
    ),
    "environments.tanh_network(np.ones(5), np.ones((5, 1)), np.zeros(5), np.ones((2, 5)), np.zeros(2))": (
        "expected matrices"
    ),
    "policies.linear_policy(np.ones((2, 3)), np.zeros(3))": "expected (A, S) and (A,)",
    "policies.tanh_policy(np.ones((4, 3)), np.zeros(4), np.ones((2, 3)))": "do not fit",
    "policy.mean_map(np.zeros(3))": "theta holds 3 numbers, but this map has 8 parameters",
    "rollout.rollout(env, policy, np.zeros((2, 3)), np.zeros((1, 5, 2)))": (
        "noise_draw has shape (1, 5, 2), expected (2, T, 2)"
    ),
    "estimators.score_function_gradient(env, policy, played, baseline=np.zeros((4, 4)))": (
        "baseline has shape (4, 4), expected (4, 5)"
    ),
    "oracles.linear_quadratic_oracle(tanh, policy, horizon=3)": "needs a linear-quadratic environment",
    "oracles.linear_quadratic_oracle(env, policy, horizon=0)": "horizon must be at least 1, got 0",
    "oracles.gauss_hermite_noise(20, 3, 2)": "asks for 64000000 sequences",
}


@pytest.fixture(scope="module")
def messages() -> dict[str, str]:
    code = f"{SETUP}\nprint(json.dumps({{c: message(c) for c in {list(CASES)!r}}}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(out.stdout)


@pytest.mark.parametrize("code", CASES)
def test_message(messages: dict[str, str], code: str) -> None:
    assert CASES[code] in messages[code]
