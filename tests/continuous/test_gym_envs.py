import subprocess
import sys
from itertools import product

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from vgrad_lab.continuous import gym_envs
from vgrad_lab.continuous.policies import linear_policy
from vgrad_lab.continuous.rollout import rollout
from vgrad_lab.registration import ENVIRONMENTS, register_environments
from vgrad_lab.tolerances import ALGEBRA


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_check_env(name: str, render_mode: str | None) -> None:
    check_env(gymnasium.make(name, render_mode=render_mode).unwrapped)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_episode_equals_the_core_rollout(name: str) -> None:
    env = gymnasium.make(name, horizon=20, state_size=3, action_size=1, system_seed=5).unwrapped
    state, _ = env.reset(seed=1)
    actions = np.random.default_rng(0).uniform(-1, 1, (1, 20, 1))
    expected = rollout(env.core, linear_policy(np.zeros((1, 3))), state[None], actions)
    for t in range(20):
        state, reward, terminated, truncated, _ = env.step(actions[0, t])
        assert np.max(np.abs(state - expected.state[0, t + 1])) <= ALGEBRA * env.bound
        assert abs(reward - expected.reward[0, t]) <= ALGEBRA * max(1.0, abs(reward))
        assert not terminated
        assert truncated is (t == 19)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_extreme_actions_stay_in_the_observation_space(name: str) -> None:
    env = gymnasium.make(name, horizon=200).unwrapped
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(200):
        state, *_ = env.step(rng.choice([-5.0, 1.0, 1e9], size=2))
        assert env.observation_space.contains(state)


def test_make_imports_the_module_in_a_fresh_process() -> None:
    alone = "import gymnasium; e = gymnasium.make('vgrad_lab:{}'); print(e.reset(seed=0)[0].shape)"
    package = "import gymnasium, vgrad_lab; e = gymnasium.make('{}'); print(e.reset(seed=0)[0].shape)"
    for name, code in product(ENVIRONMENTS, (alone, package)):
        command = [sys.executable, "-W", "error", "-c", code.format(name)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "(4,)"


def test_registering_twice_is_silent_and_bad_input_is_not() -> None:
    register_environments()
    env = gym_envs.tanh_network_env()
    env.reset(seed=0)
    assert env.render() is None
    for action in (np.zeros(3), np.array([np.nan, 0.0])):
        with pytest.raises(ValueError, match="expected 2 numbers"):
            env.step(action)
    with pytest.raises(ValueError, match="horizon must be at least 1"):
        gym_envs.linear_quadratic_env(horizon=0)
    with pytest.raises(ValueError, match="render_mode must be None or 'rgb_array'"):
        gym_envs.linear_quadratic_env(render_mode="human")
