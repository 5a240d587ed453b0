import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from vgrad_lab.continuous import gym_envs, pictures
from vgrad_lab.continuous.policies import linear_policy
from vgrad_lab.continuous.rollout import rollout
from vgrad_lab.registration import ENVIRONMENTS, register_environments
from vgrad_lab.tolerances import ALGEBRA

OTHER_SIZES = {"state_size": 3, "action_size": 1, "system_seed": 5}


def takes_sizes(name: str) -> bool:
    return not name.startswith(("vgrad_lab/Pendulum", "vgrad_lab/Obstacle"))


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("render_mode", [None, "rgb_array"])
def test_check_env(name: str, render_mode: str | None) -> None:
    check_env(gymnasium.make(name, render_mode=render_mode).unwrapped)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_render_shows_the_state(name: str) -> None:
    env = gymnasium.make(name, render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    before = env.render()
    assert before.dtype == np.uint8
    assert before.shape[0] == 64
    assert before.shape[2] == 3
    env.reset(seed=3)
    assert not np.array_equal(before, env.render())


def test_pictures_put_things_where_they_are() -> None:
    """Upright is up, a quarter turn to the right; a mass at (0.9, 0.9) is upper right, one far off at the rim."""

    def middle(picture: np.ndarray, colour: tuple[int, int, int]) -> tuple[float, float]:
        row, column = np.nonzero((picture == colour).all(-1))
        return float(row.mean()), float(column.mean())

    for state, expected in (
        ([1.0, 0.0, 3.0], (31.5 - 25.6, 31.5)),
        ([0.0, 1.0, 0.0], (31.5, 31.5 + 25.6)),
        ([-1.0, 0.0, 0.0], (31.5 + 25.6, 31.5)),
    ):
        found = middle(pictures.rod(np.array(state)), pictures.ORANGE)
        assert np.allclose(found, expected, atol=0.5)
    scale = 32 / 1.5
    picture = pictures.plan(np.array([0.9, 0.9, 0.0, 0.0]), goal=(1.0, 0.0), centre=(0.0, 0.2), radius=0.3)
    for colour, place in ((pictures.BLUE, (0.9, 0.9)), (pictures.ORANGE, (1.0, 0.0)), (pictures.GREY, (0.0, 0.2))):
        assert np.allclose(middle(picture, colour), (31.5 - scale * place[1], 31.5 + scale * place[0]), atol=0.5)
    away = middle(pictures.plan(np.array([-1e6, 0.0, 0.0, 0.0])), pictures.BLUE)
    assert away[1] < 2


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_episode_equals_the_core_rollout(name: str) -> None:
    env = gymnasium.make(name, horizon=20, **(OTHER_SIZES if takes_sizes(name) else {})).unwrapped
    state, _ = env.reset(seed=1)
    actions = np.random.default_rng(0).uniform(-1, 1, (1, 20, env.core.action_size))
    policy = linear_policy(np.zeros((env.core.action_size, env.core.state_size)))
    expected = rollout(env.core, policy, state[None], actions)
    for t in range(20):
        state, reward, terminated, truncated, _ = env.step(actions[0, t])
        assert np.max(np.abs(state - expected.state[0, t + 1])) <= ALGEBRA * env.bound
        assert abs(reward - expected.reward[0, t]) <= ALGEBRA * max(1.0, abs(reward))
        assert (terminated, truncated) == ((t == 19, False) if "Bandit" in name else (False, t == 19))


def test_the_bandit_is_over_after_one_step() -> None:
    env = gymnasium.make("vgrad_lab/Bandit-v0")
    env.reset(seed=0)
    _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    assert terminated
    assert not truncated
    assert 0 < reward <= 1


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("push", [(-5.0, 1.0, 1e9), (1.0,)])
def test_extreme_actions_stay_in_the_observation_space(name: str, push: tuple[float, ...]) -> None:
    env = gymnasium.make(name, horizon=200).unwrapped
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(200):
        state, *_ = env.step(rng.choice(push, size=env.core.action_size))
        assert env.observation_space.contains(state)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_one_step_from_every_start_stays_in_the_observation_space(name: str) -> None:
    env = gymnasium.make(name, horizon=1).unwrapped
    for seed in range(50):
        start, _ = env.reset(seed=seed)
        assert env.observation_space.contains(start)
        assert env.observation_space.contains(env.step(np.ones(env.core.action_size))[0])


def test_make_imports_the_module_in_a_fresh_process() -> None:
    alone = "import gymnasium; e = gymnasium.make('vgrad_lab:{}'); print(e.reset(seed=0)[0].shape)"
    package = (
        "import gymnasium, vgrad_lab; from vgrad_lab.registration import ENVIRONMENTS as names; "
        "print(*[len(gymnasium.make(name).reset(seed=0)[0]) for name in names])"
    )
    for code, out in ((alone.format(next(iter(ENVIRONMENTS))), "(4,)"), (package, "4 4 4 3 4")):
        command = [sys.executable, "-W", "error", "-c", code]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == out


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
