import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tests.helpers import whole
from vgrad_lab.continuous import gym_envs, pictures, systems
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


def test_defaults_and_arguments_reach_the_core() -> None:
    """Sizes, horizon and system seed by default; the same system from the same seed, another from another."""
    for make in (gym_envs.linear_quadratic_env, gym_envs.tanh_network_env, gym_envs.bandit_env):
        env, said = make(), make(state_size=4, action_size=2, system_seed=0)
        state, action = np.full((1, 4), 0.3), np.full((1, 2), 0.2)
        assert (env.core.state_size, env.core.action_size) == (4, 2)
        assert env.bound == said.bound
        assert env.core.reward(state, action)[0] == said.core.reward(state, action)[0]
        assert env.core.reward(state, action)[0] != make(system_seed=1).core.reward(state, action)[0]
        assert make(horizon=7).horizon == 7
    assert [gymnasium.make(name).unwrapped.horizon for name in ENVIRONMENTS] == [64, 64, 1, 200, 40]
    assert gym_envs.tanh_network_env().core.dynamics.inner.shape == (4, 6)
    assert gym_envs.tanh_network_env(width=9).core.dynamics.inner.shape == (9, 6)


def test_spaces_are_boxes_of_float64() -> None:
    env = gym_envs.linear_quadratic_env(state_size=3, action_size=2)
    for space, bound, size in ((env.observation_space, env.bound, 3), (env.action_space, 1.0, 2)):
        assert space.dtype == np.float64
        assert np.array_equal(space.low, np.full(size, -bound))
        assert np.array_equal(space.high, np.full(size, bound))


def test_bounds_follow_from_the_systems() -> None:
    """‖s‖ ≤ max(‖s_1‖, max‖Ba‖/(1 − ‖A‖)); |V tanh| ≤ the largest row sum; torque against damping; 4 s of pushing."""
    linear = gym_envs.linear_quadratic_env(state_size=3, action_size=2)
    push = np.linalg.svd(linear.core.dynamics.inner[:, 3:], compute_uv=False)[0] * np.sqrt(2)
    assert np.linalg.svd(linear.core.dynamics.inner[:, :3], compute_uv=False)[0] == pytest.approx(0.9, rel=ALGEBRA)
    assert push / 0.1 > np.sqrt(3)
    assert linear.bound == pytest.approx(push / 0.1, rel=ALGEBRA)
    network = gym_envs.tanh_network_env(state_size=3)
    assert network.bound == max(np.abs(row).sum() for row in network.core.dynamics.outer)
    narrow = gym_envs.tanh_network_env(state_size=1, width=1, system_seed=1)
    assert np.abs(narrow.core.dynamics.outer).item() < 1
    assert narrow.bound == 1.0
    assert gym_envs.bandit_env().bound == 1.0
    assert gym_envs.pendulum_env().bound == pytest.approx(0.05 * (10 + 4) / 0.1, rel=ALGEBRA)
    assert gym_envs.obstacle_env().bound == pytest.approx(1.1 + 40 * 0.1 * (0.1 + 40 * 0.1), rel=ALGEBRA)


def test_named_tasks_are_the_systems_with_their_numbers() -> None:
    state, action = np.array([[0.6, 0.8, 0.5, -0.25]]), np.array([[0.7, -0.4]])
    pendulum, expected = gym_envs.pendulum_env().core, systems.pendulum(time_step=0.05, gravity=10.0, torque=4.0)
    moved = pendulum.transition(state[:, :3], action[:, :1])
    assert np.array_equal(moved, expected.transition(state[:, :3], action[:, :1]))
    obstacle, expected = gym_envs.obstacle_env().core, systems.obstacle(centre=(0.0, 0.1), radius=0.3, goal=(1.0, 0.0))
    assert np.array_equal(obstacle.transition(state, action), expected.transition(state, action))
    assert np.array_equal(obstacle.reward(state, action), expected.reward(state, action))


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_each_task_has_its_own_picture(name: str) -> None:
    env = gymnasium.make(name, render_mode="rgb_array").unwrapped
    state, _ = env.reset(seed=2)
    own = {"vgrad_lab/Pendulum-v0": pictures.rod, "vgrad_lab/Obstacle-v0": pictures.plan}
    picture = own[name](state) if name in own else pictures.bars(state, env.bound)
    assert np.array_equal(env.render(), picture)
    assert env.render_mode == "rgb_array"


def test_starts_fill_the_box() -> None:
    for make in (gym_envs.linear_quadratic_env, gym_envs.tanh_network_env, gym_envs.bandit_env):
        starts = make().core.initial(np.random.default_rng(0), 1000)
        assert starts.shape == (1000, 4)
        assert -1 <= starts.min() < -0.99
        assert 0.99 < starts.max() <= 1


def test_the_best_action_of_the_bandit_lies_in_the_box_on_both_sides() -> None:
    """M read off r_s at s = 0, a = e_i, which is M_i exp(−1/2): uniform in ±1/S."""
    core, actions = gym_envs.bandit_env(state_size=3, action_size=50).core, np.eye(50)
    target = core.jacobians.reward_state(np.zeros((50, 3)), actions) / np.exp(-0.5)
    assert -1 / 3 <= target.min() < -0.32
    assert 0.32 < target.max() <= 1 / 3


def test_actions_are_clipped_to_the_box_and_other_dtypes_are_taken() -> None:
    env = gym_envs.linear_quadratic_env()
    for given, used in (([-7.0, 9.0], [-1.0, 1.0]), ([-1.5, 1.5], [-1.0, 1.0]), ([1, 0], [1.0, 0.0])):
        start, _ = env.reset(seed=0)
        state, reward, *_ = env.step(np.array(given))
        assert np.array_equal(state, env.core.transition(start[None], np.array([used]))[0])
        assert reward == env.core.reward(start[None], np.array([used]))[0]
    env, single = gym_envs.pendulum_env(), np.array([0.3], dtype=np.float32)
    start, _ = env.reset(seed=0)
    assert env.step(single)[1] == env.core.reward(start[None], single.astype(float)[None])[0]


def test_before_the_first_reset_the_state_is_zero_and_no_step_is_counted() -> None:
    env = gym_envs.linear_quadratic_env(horizon=2, render_mode="rgb_array")
    assert np.array_equal(env.render(), pictures.bars(np.zeros(4), env.bound))
    assert [env.step(np.zeros(2))[3] for _ in range(2)] == [False, True]


def test_refusals_say_what_was_given_and_what_was_expected() -> None:
    env = gym_envs.tanh_network_env()
    with pytest.raises(ValueError, match=whole("action is [0. 0. 0.], expected 2 numbers in [-1, 1]")):
        env.step(np.zeros(3))
    with pytest.raises(ValueError, match=whole("horizon must be at least 1, got 0")):
        gym_envs.pendulum_env(horizon=0)
    with pytest.raises(ValueError, match=whole("render_mode must be None or 'rgb_array', got 'human'")):
        gym_envs.obstacle_env(render_mode="human")
