# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · Costates: what backpropagation carries through a rollout
#
# You know the chain rule. An agent in state $s_t$ acts, earns, and moves on:
#
# $$a_t=\bar a_\theta(s_t)+\xi_t,\qquad r_t=r(s_t,a_t),\qquad s_{t+1}=f(s_t,a_t),\qquad
# R_t=\sum_{k=t}^{T}\gamma^{k-t}r_k .$$
#
# Nudge the state a little at time $t$, keep the noise $\xi$ as it was drawn, and let everything after follow. How much
# does the return change? The answer is the **costate** $\lambda_t=\partial R_t/\partial s_t$. Here you compute it by
# hand, check it, average it into the value gradient, see when it fades, and learn a critic of it. Time: about 45 minutes.
# Ids such as **S04** are entries of the project's ledger. Sliders live with `ipywidgets`; exercises check themselves.

# %%
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from _exercises import check
from _sliders import Slider, explore

from vgrad_lab import verify
from vgrad_lab.advantage import return_to_go
from vgrad_lab.continuous import environments, noise, oracles, policies
from vgrad_lab.continuous.costate import closed_loop_jacobian, closed_loop_reward_gradient, costate  # noqa: F401
from vgrad_lab.continuous.estimators import extra_terms, pathwise_gradient
from vgrad_lab.continuous.gradient_critic import blended_costate, constant_features, learn_gradient_critic, predict
from vgrad_lab.continuous.hybrid import hybrid_gradient
from vgrad_lab.continuous.rollout import rollout, sample_rollout

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe–Ito: safe for colour-blind readers
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1 · A rollout is a computation graph
# Grey arrows: who is computed from whom. Noise $\xi_t$ and parameters $\theta$ come from outside. Red arrows: the way
# back. A state reaches its own reward directly and through the action, and the future directly and through the action;
# along the whole step the policy is part of the loop. So the **closed-loop** slopes are
#
# $$Dr = r_s+\bar a_s^\top r_a,\qquad Df = f_s+f_a\,\bar a_s ,$$
#
# and the chain rule, read from the end, is the adjoint recursion (eq. 6 of the paper, **S04**):
#
# $$\lambda_t = Dr_t+\gamma\,Df_t^\top\lambda_{t+1},\qquad \lambda_{T+1}=0 .$$

# %%
figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")


def arrow(start, end, colour="0.55", bend=0.0, width=1.2):
    style = {"arrowstyle": "-|>", "color": colour, "lw": width, "shrinkA": 15, "shrinkB": 15}
    axis.annotate("", end, start, arrowprops={**style, "connectionstyle": f"arc3,rad={bend}"})


def node(place, text, colour):
    axis.text(*place, text, ha="center", va="center", fontsize=13, bbox={"boxstyle": "circle", "fc": colour})


for t, x in ((1, 0.0), (2, 3.0)):
    state, action, reward, outside, following = (x, 2), (x + 1.2, 1), (x, 0), (x + 2.2, 0.1), (x + 3, 2)
    for start, end in (
        (state, action),
        (state, reward),
        (action, reward),
        (state, following),
        (action, following),
        (outside, action),
    ):
        arrow(start, end)
    arrow(following, state, RED, bend=0.35, width=2)
    arrow(reward, state, RED, bend=-0.35, width=2)
    axis.text(x + 1.5, 2.72, rf"$\gamma\,Df_{t}^\top\lambda_{t + 1}$", color=RED, ha="center", fontsize=12)
    axis.text(x - 0.42, 1, rf"$Dr_{t}$", color=RED, ha="right", va="center", fontsize=12)
    node(state, rf"$s_{t}$", "#cfe6f5")
    node(action, rf"$a_{t}$", "white")
    node(reward, rf"$r_{t}$", "#fbe8c3")
    axis.text(*outside, rf"$\theta,\ \xi_{t}$", ha="center", va="center", fontsize=12)
node((6, 2), r"$s_3$", "#cfe6f5")
axis.text(6.4, 2, r"$\lambda_3=0$", color=RED, va="center", fontsize=12)
axis.set(xlim=(-1.1, 7.4), ylim=(-0.5, 3.1), title="Two steps: forwards in grey, costates backwards in red")
_ = axis.axis("off")

# %% [markdown]
# ## 2 · Two steps by hand
# One number as state, one as action: $f=0.9s+0.5a$, $r=-s^2-0.1a^2$, policy $\bar a=ks$ with $k=-0.4$. The slopes can be
# read off: $Dr=-2s-0.2\,a\,k$ and $Df=0.9+0.5k$. Two lines backwards, then compare with the library, and with brute
# force: nudge $s_1$ by ±0.001 and play again with the same noise.

# %%
k, gamma = -0.4, 0.95
small = environments.linear_quadratic(np.array([[0.9]]), np.array([[0.5]]), np.array([[1.0]]), np.array([[0.1]]))
policy = policies.linear_policy(np.array([[k]]))
start, xi = np.array([[1.0]]), np.array([[[0.3], [-0.2]]])  # (B, S) and (B, T, A)
played = rollout(small, policy, start, xi)
(s1, s2, _), (a1, a2) = played.state[0, :, 0], played.action[0, :, 0]

slope = 0.9 + 0.5 * k
lambda_2 = -2 * s2 - 0.2 * a2 * k
lambda_1 = (-2 * s1 - 0.2 * a1 * k) + gamma * slope * lambda_2


def total(state, draw=xi):
    """R_1 of the same noise from another first state."""
    return return_to_go(rollout(small, policy, state, draw).reward, discount=gamma)[:, 0]


library = costate(small, policy, played, discount=gamma)[0, :, 0]
nudged = (total(start + 1e-3) - total(start - 1e-3))[0] / 2e-3
print(f"by hand   λ_1 = {lambda_1:.10f}   λ_2 = {lambda_2:.10f}")
print(f"library   λ_1 = {library[0]:.10f}   λ_2 = {library[1]:.10f}   λ_3 = {library[2]:.1f}")
print(f"nudging   λ_1 = {nudged:.10f}")

# %% [markdown]
# ## 3 · Exact, along one rollout: the Taylor rate
# A costate is not an estimate. Along the drawn noise it **is** the derivative, so
# $R_1(s_1+hd)-R_1(s_1)-h\,\lambda_1^\top d$ must shrink like $h^2$: halve $h$ and the remainder drops fourfold, slope 2
# on logarithmic axes. With a costate that is 0.1 % too large, a linear error remains and the slope turns to 1. That makes
# the rate a sharper test than "the numbers look close". Here on a network: $s'=V\tanh(Ws+Ua+b)$, twelve steps.

# %%
network = environments.random_tanh_network(np.random.default_rng(3), 4, 2)
brain = policies.tanh_policy(rng.normal(size=(5, 4)), rng.normal(size=5), 0.4 * rng.normal(size=(2, 5)))
played = sample_rollout(network, brain, rng, batch=1, horizon=12)
first = costate(network, brain, played, discount=gamma)[0, 0]
direction = rng.normal(size=4)


def from_state(s):
    moved = rollout(network, brain, s[None], played.noise_draw)
    return return_to_go(moved.reward, discount=gamma)[0, :1]


sizes = 0.1 * 0.5 ** np.arange(13)
here = played.state[0, 0]
remainder = {
    name: np.array(
        [abs((from_state(here + h * direction) - from_state(here))[0] - h * first @ direction * c) for h in sizes]
    )
    for name, c in (("λ₁", 1.0), ("λ₁ × 1.001", 1.001))
}
figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
axis.loglog(sizes, remainder["λ₁"], "o-", color=BLUE, label="costate")
axis.loglog(sizes, remainder["λ₁ × 1.001"], "s--", color=RED, label="costate with a 0.1 % error")
axis.loglog(sizes, remainder["λ₁"][0] * (sizes / sizes[0]) ** 2, ":", color="0.4", label="slope 2")
axis.set(
    xlabel="size h of the nudge (state units)", ylabel="remainder (reward units)", title="A right derivative: slope 2"
)
axis.legend()
for name, c in (("right", 1.0), ("0.1 % off", 1.001)):
    rates = verify.taylor_rates(from_state, lambda _, c=c: c * first[None], here, direction, step=2e-4)
    print(f"{name:10} rates {np.round(rates, 2)}")

# %% [markdown]
# ## 4 · Costates scatter; their mean is the value gradient
# Start again and again from the *same* $s_1$ with fresh noise: each rollout has its own costate. The value
# $V_1(s)=\mathbb E\,[R_1\mid s_1=s]$ is the mean return. As the noise does not depend on the state (eq. 9, **S07**),
#
# $$\mathbb E\,[\lambda_t\mid s_t]=\frac{\partial V_t}{\partial s_t}=:G_t ,$$
#
# so a costate is an unbiased sample of a gradient that a critic would have to learn. In a linear-quadratic system $G_t$
# is known in closed form (the star).

# %%
A = np.array([[0.9, 0.4], [-0.3, 0.8]])
quadratic = environments.linear_quadratic(A, np.array([[0.2], [0.5]]), np.eye(2), np.array([[0.2]]))
linear = policies.linear_policy(np.array([[0.1, -0.5]]), noise=noise.gaussian(0.6))
horizon, count = 15, 1500
start = np.tile([[1.0, 0.5]], (count, 1))
draws = linear.noise.draw(rng, (count, horizon, 1))
cloud = costate(quadratic, linear, rollout(quadratic, linear, start, draws), discount=gamma)[:, 0]
oracle = oracles.linear_quadratic_oracle(quadratic, linear, horizon=horizon, discount=gamma)
exact = oracles.value_gradient(oracle, np.tile(start[:1, None], (1, horizon + 1, 1)))[0, 0]

pair = np.concatenate([draws[:1], -draws[:1]])
twins = costate(quadratic, linear, rollout(quadratic, linear, start[:2], pair), discount=gamma)[:, 0]

figure, axis = plt.subplots(figsize=(6, 4.2), layout="constrained")
axis.plot(*cloud.T, ".", color=BLUE, markersize=3, alpha=0.35, label=f"λ₁ of {count} rollouts")
axis.plot(*twins.T, "s-", color=RED, markersize=6, label="a rollout and its mirror image (ξ and −ξ)")
axis.plot(*exact, "*", color=ORANGE, markeredgecolor="black", markersize=17, label="value gradient, closed form")
axis.set(
    xlabel="first component (reward per unit of state)",
    ylabel="second component (reward per unit of state)",
    title="One state, many costates, one value gradient",
)
axis.legend(fontsize=8)
error = cloud.std(0, ddof=1) / np.sqrt(count)
print(f"mean of {count} costates  {np.round(cloud.mean(0), 3)}  standard error {np.round(error, 3)}")
print(f"value gradient         {np.round(exact, 3)}")

# %% [markdown]
# The red pair is a trick worth knowing. Here $\lambda_1$ is an affine function of the noise, so averaging $\xi$ with
# $-\xi$ cancels the noise *exactly*: two rollouts give the value gradient to rounding. In a network $\lambda$ bends with
# the noise and the pair is only a good start. There the mean over all noise is still the gradient of the mean: with
# three steps a Gauss–Hermite grid sums over all noise, and differences of the mean return confirm it.

# %%
print(f"linear-quadratic: |mean of the pair − G| = {np.abs(twins.mean(0) - exact).max():.1e}")

tame = environments.random_tanh_network(np.random.default_rng(3), 2, 1)
still = policies.linear_policy(np.array([[0.4, -0.3]]))
grid, weight = oracles.gauss_hermite_noise(24, 3, 1)
origin = np.array([[0.5, -0.5]])


def mean_return(states):
    tiled = (rollout(tame, still, np.tile(s, (len(grid), 1)), grid).reward for s in states)
    return np.array([weight @ return_to_go(reward, discount=gamma)[:, 0] for reward in tiled])


played = rollout(tame, still, np.tile(origin, (len(grid), 1)), grid)
mean_costate = weight @ costate(tame, still, played, discount=gamma)[:, 0]
gradient = verify.difference_quotients(mean_return, origin)[0]
draw = rng.standard_normal((1, 3, 1))
twins = costate(
    tame, still, rollout(tame, still, np.tile(origin, (2, 1)), np.concatenate([draw, -draw])), discount=gamma
)
print(f"network, all noise: |E λ_1 − ∂V| = {np.abs(mean_costate - gradient).max():.1e}")
print(f"network, one pair:  |mean − ∂V| = {np.abs(twins[:, 0].mean(0) - gradient).max():.1e}")

# %% [markdown]
# ## 5 · From costates to parameters, and what eq. 7 leaves out
# $\theta$ moves the mean action at every step; the costate prices what that does to the future (eq. 7, **S05**):
#
# $$\frac{\partial R_1}{\partial\theta}=\sum_t\gamma^{t-1}\,\bar a_\theta^\top\big(r_a+\gamma f_a^\top\lambda_{t+1}\big).$$
#
# With the mean over rollouts this is the policy gradient. It is complete only if $\theta$ enters through the action
# **alone**. If $\theta$ also sets the first state (a prompt processed by the same network) or the reward (a length
# penalty with a learned weight), two more terms belong to it:
# $\;(\partial s_1/\partial\theta)^\top\lambda_1+\sum_t\gamma^{t-1}\,\partial r_t/\partial\theta$ (**S05.extra**).
#
# Below one extra parameter $\omega$ (at 0) moves the first state along $u$ and adds $\omega\,s_{t,1}$ to every reward.
# The policy does not contain $\omega$, so eq. 7 says 0.

# %%
played = rollout(quadratic, linear, start[:1], draws[:1])
u = np.array([0.3, -1.0])


def with_omega(omega):
    moved = rollout(quadratic, linear, start[:1] + omega * u, draws[:1])
    reward = moved.reward + omega * moved.state[:, :-1, 0]
    return return_to_go(reward, discount=gamma)[0, 0]


lambdas = costate(quadratic, linear, played, discount=gamma)
by_start = extra_terms(played, lambdas, discount=gamma, initial_state=u[None, :, None])
by_reward = extra_terms(played, lambdas, discount=gamma, reward=played.state[:, :-1, :1])
truth = (with_omega(1e-4) - with_omega(-1e-4)) / 2e-4
print(f"through s_1 {by_start[0, 0]:+.4f}   through r {by_reward[0, 0]:+.4f}")
print(f"sum {(by_start + by_reward)[0, 0]:+.6f}   truth, by differences {truth:+.6f}")

many = rollout(quadratic, linear, start, draws)
sampled = pathwise_gradient(quadratic, linear, many, discount=gamma)
policy_gradient = oracles.parameter_gradient(oracle, start[:1])
print("\neq. 7 for the policy's own θ = (K, b), mean of", count, "rollouts:")
for name, found, spread, right in zip(("K₁", "K₂", "b"), sampled.mean(0), sampled.std(0), policy_gradient, strict=True):
    print(f"  {name:3}{found:+8.3f} ± {spread / np.sqrt(count):.3f}   closed form {right:+8.3f}")

# %% [markdown]
# ## 6 · How far back does credit reach?
# Unroll the recursion: reward $k$ enters $\lambda_1$ through
# $\gamma^{k-1}(Df_{k-1}\cdots Df_1)^\top Dr_k$. In a linear loop all $Df$ are one matrix $M$, and
# $\gamma^{k-1}\|M^{k-1}\|$ goes like $(\gamma\rho)^{k-1}$ with $\rho$ the **spectral radius** of $M$ (the
# largest modulus of an eigenvalue): credit fades for $\gamma\rho<1$ and explodes for $\gamma\rho>1$. Only in the long run: a shear (eigenvalues
# small, but one direction feeding the other) lets credit grow first and fade later. In the tanh network every rollout
# has its own Jacobians.


# %%
def reach(environment, mean_policy, steps):
    """γ^{k−1}‖Df_{k−1} ⋯ Df_1‖ for k = 1..steps along one rollout."""
    track = sample_rollout(environment, mean_policy, np.random.default_rng(5), batch=1, horizon=steps)
    product, norms = np.eye(environment.state_size), []
    for t, step in enumerate(closed_loop_jacobian(environment, mean_policy, track)[0]):
        norms.append(gamma**t * np.linalg.norm(product, 2))
        product = step @ product
    return np.array(norms)


def loop(matrix):
    return environments.linear_quadratic(matrix, np.zeros((2, 1)), np.eye(2), np.eye(1))


turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
passive, steps = policies.linear_policy(np.zeros((1, 2))), 40
age = np.arange(steps)
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for rho, colour, marker in ((0.6, BLUE, "o"), (0.95, GREEN, "s"), (1.1, RED, "^")):
    axis.semilogy(
        age, reach(loop(rho * turn), passive, steps), marker, color=colour, markersize=4, label=f"turning, ρ = {rho}"
    )
    axis.semilogy(age, (gamma * rho) ** age, "-", color=colour, linewidth=0.8)
shear = np.array([[0.8, 2.0], [0.0, 0.8]])
axis.semilogy(age, reach(loop(shear), passive, steps), "D--", color=ORANGE, markersize=4, label="shear, ρ = 0.8")
axis.semilogy(age, reach(network, brain, steps), "x:", color="black", markersize=5, label="tanh network, one rollout")
axis.axhline(0.01, color="0.7", linewidth=0.8)
axis.set(
    xlabel="age of the nudge k − 1 (steps)",
    ylabel="weight of reward k in λ₁ (no unit)",
    ylim=(1e-8, 30),
    title=f"Credit fades or grows with γρ, γ = {gamma} (lines: (γρ)^(k−1))",
)
_ = axis.legend(fontsize=8, loc="lower left")

# %% [markdown]
# Which state plays this part in a language model, and along which axis the product runs, is less obvious than it looks:
# see **S13** to **S15** in the ledger.
#
# Turn the two sliders: the shear lifts the curve before it falls, however small ρ is. That is why vanishing or exploding
# credit cannot be read off eigenvalues alone.


# %%
def sheared_reach(axis, rho, feed):
    weights = reach(loop(np.array([[rho, feed], [0.0, rho]])), passive, steps)
    axis.semilogy(age, weights, "D-", color=ORANGE, markersize=3, label=f"peak {weights.max():.1f}")
    axis.semilogy(age, (gamma * rho) ** age, color="0.5", linewidth=0.8, label="(γρ)^age")
    axis.axhline(0.01, color="0.8", linewidth=0.8)
    axis.set(xlabel="age of the nudge (steps)", ylabel="weight in λ₁", ylim=(1e-6, 1e2))
    axis.legend(fontsize=8, loc="lower left")


explore(
    sheared_reach, Slider("spectral radius ρ", (0.5, 0.65, 0.8, 0.9, 1.0)), Slider("shear", (0.0, 0.5, 1.0, 2.0, 4.0))
)

# %% [markdown]
# ## 7 · One backward sweep for all derivatives
# Nudging needs two rollouts per state component and step. The recursion needs one sweep for all of them, at about the
# price of the rollout itself: a step back is one product with a transposed Jacobian.

# %%
wide = environments.random_tanh_network(np.random.default_rng(0), 8, 4)
actor = policies.linear_policy(0.2 * rng.normal(size=(4, 8)))


def best_time(task):
    """Milliseconds, the best of seven."""
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        task()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


batch = sample_rollout(wide, actor, rng, batch=256, horizon=64)
initial, drawn = batch.state[:, 0].copy(), batch.noise_draw.copy()
forwards = best_time(lambda: rollout(wide, actor, initial, drawn))
backwards = best_time(lambda: costate(wide, actor, batch, discount=gamma))
nudges = 2 * 8 * sum(range(1, 65)) / 64  # rollouts of the remaining steps, in units of a full rollout
print(f"256 rollouts of 64 steps: {forwards:.1f} ms forwards, {backwards:.1f} ms for all costates")
print(f"by nudging every state: about {nudges:.0f} times the rollout, {nudges * forwards:.0f} ms")

# %% [markdown]
# `benchmarks/costate.py` times the same sweep against an autograd library.
#
# ## 8 · A learnt value gradient against the raw costate
# A costate is right on average and noisy. A **gradient critic** $g_w(s)\approx\partial V/\partial s$ is learnt from earlier
# costates, so it is smooth but perhaps wrong. Value-gradient learning, VGL(λ), mixes them on the way back (**E01**; here λ
# without an index is the mixing weight, not a costate):
#
# $$g'_t = Dr_t+\gamma\,Df_t^\top\big(\lambda\,g'_{t+1}+(1-\lambda)\,g_w(s_{t+1})\big).$$
#
# λ = 1 is eq. 6. λ = 0 looks one step ahead and trusts the critic. If the critic is the true value gradient, every λ has
# the right mean. Below, two critics learnt from 200 rollouts: one sees the state (its features can hold the truth), one
# is told nothing and gives all states of a step the same gradient. The star is the exact value gradient at one state.

# %%
lesson = sample_rollout(quadratic, linear, np.random.default_rng(7), batch=200, horizon=horizon)
fresh = rollout(quadratic, linear, start, draws)


def critic_of(features, decay):
    """Gradient critic along `fresh`, learnt from the rollouts of `lesson` with VGL(λ = decay)."""
    if features is None:
        learnt = learn_gradient_critic(quadratic, linear, lesson, discount=gamma, decay=decay)
    else:
        learnt = learn_gradient_critic(quadratic, linear, lesson, features=features, discount=gamma, decay=decay)
    return predict(learnt, fresh.state)


def target_cloud(axis, decay):
    for features, colour, name in (
        (constant_features, RED, "critic without state"),
        (None, BLUE, "critic of the state"),
    ):
        targets, _ = blended_costate(quadratic, linear, fresh, critic_of(features, decay), discount=gamma, decay=decay)
        first = targets[:, 0]
        axis.plot(*first[:400].T, ".", color=colour, markersize=3, alpha=0.4)
        axis.plot(*first.mean(0), "X", color=colour, markeredgecolor="black", markersize=9, label=name)
    axis.plot(*exact, "*", color=ORANGE, markeredgecolor="black", markersize=15, label="truth")
    axis.set(xlabel="first component", ylabel="second component", xlim=(-13, 3), ylim=(-12, 7))
    axis.legend(fontsize=7, loc="upper left")


explore(target_cloud, Slider("λ", (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)), size=(5, 4))

# %% [markdown]
# Small λ: a tight cloud in a place that is only as good as the critic. λ = 1: a wide cloud around the truth, whatever the
# critic. What matters in the end is the gradient of θ: put the blend in the place of $\lambda_{t+1}$ in eq. 7 and measure
# variance and bias against the closed form.

# %%
levels = np.array([0.0, 0.25, 0.5, 0.75, 0.9, 1.0])
raw = pathwise_gradient(quadratic, linear, fresh, discount=gamma)
size_of = np.linalg.norm(policy_gradient)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for features, colour, mark, name in (
    (None, BLUE, "o-", "critic of the state"),
    (constant_features, RED, "s--", "critic without state"),
):
    spread, off = [], []
    for decay in levels:
        _, blend = blended_costate(quadratic, linear, fresh, critic_of(features, decay), discount=gamma, decay=decay)
        samples = hybrid_gradient(quadratic, linear, fresh, immediate="pathwise", discount=gamma, value_gradient=blend)
        spread.append(samples.var(0).sum() / raw.var(0).sum())
        change = (samples - raw).mean(0)  # the raw costate has no bias: the same rollouts, so most noise cancels
        off.append(np.linalg.norm(change) / size_of)
    axes[0].plot(levels, spread, mark, color=colour, label=name)
    axes[1].plot(levels, off, mark, color=colour, label=name)
    print(f"{name:21} λ = 0: variance {spread[0]:.2f} of the raw costate's, bias {100 * off[0]:.1f} % of the gradient")
axes[0].set(xlabel="λ", ylabel="variance ÷ raw costate's", ylim=(0, None), title="What is saved")
axes[1].set(xlabel="λ", ylabel="|bias| ÷ |gradient|", ylim=(0, None), title="What it costs")
_ = axes[0].legend(fontsize=8)

# %% [markdown]
# Two kinds of bias. The critic of the state *can* hold the truth; what is left is the error of learning from few rollouts,
# which shrinks as `lesson` grows (try a batch of 40, then 2000). The critic without state cannot, and no amount of data
# helps it: only λ → 1 does, at the price of variance. Less variance is no merit in itself, as λ = 0 shows. GRPO sits at
# the end without a critic. Exact answers for every λ: ledger **E01** and **E04**.
#
# ## Exercises
# Put your answer in place of `None` and run the cells. A wrong answer is told what to look at; after
# `from _exercises import hint, solution`, `hint("01.2")` gives a push and `solution("01.2")` the answer.
#
# **1. Your own environment.** Three functions make one: `initial`, `transition`, `reward`, all for a batch of rows. With
# four Jacobians it has costates. This is a pendulum pushed by a torque, angle $x$ and speed $v$, steps of 0.1 s:
# $v'=v+0.1(-\sin x-0.1v+a)$, $x'=x+0.1v'$, $r=\cos x-0.05v^2-0.01a^2$. One sign in the Jacobians below is wrong.


# %%
def transition(s, a):
    speed = s[:, 1] + 0.1 * (-np.sin(s[:, 0]) - 0.1 * s[:, 1] + a[:, 0])
    return np.stack([s[:, 0] + 0.1 * speed, speed], axis=1)


def reward(s, a):
    return np.cos(s[:, 0]) - 0.05 * s[:, 1] ** 2 - 0.01 * a[:, 0] ** 2


def transition_by_state(s, a, sign=+1.0):
    """Rows: what changes (x', v'); columns: by what (x, v)."""
    gravity = sign * 0.1 * np.cos(s[:, 0])
    drag = np.full(len(s), 1 - 0.1 * 0.1)
    return np.stack([np.stack([1 + 0.1 * gravity, 0.1 * drag], 1), np.stack([gravity, drag], 1)], 1)


pendulum = environments.Environment(
    state_size=2,
    action_size=1,
    initial=lambda rng, batch: rng.normal(size=(batch, 2)),
    transition=transition,
    reward=reward,
    jacobians=environments.Jacobians(
        transition_state=transition_by_state,
        transition_action=lambda s, a: np.tile([[0.01], [0.1]], (len(s), 1, 1)),
        reward_state=lambda s, a: np.stack([-np.sin(s[:, 0]), -0.1 * s[:, 1]], axis=1),
        reward_action=lambda s, a: -0.02 * a,
    ),
)
try:
    verify.check_environment(pendulum)
except AssertionError as problem:
    print(problem)

# %% [markdown]
# The checker names the worst entry, $[1,0]=\partial v'/\partial x$, with the right value beside it, and the Taylor rate 1
# of section 3. It counts two wrong entries in each of six rows: $x'$ contains $v'$, so the sign is wrong there too.
# Repair it.

# %%
my_sign = None

# %%
my_pendulum = None
if my_sign is not None:
    mended = replace(pendulum.jacobians, transition_state=lambda s, a: transition_by_state(s, a, my_sign))
    my_pendulum = replace(pendulum, jacobians=mended)
if check("01.1", my_pendulum):
    swing = policies.linear_policy(np.array([[-0.5, -0.5]]), noise=noise.gaussian(0.3))
    played = sample_rollout(my_pendulum, swing, rng, batch=1, horizon=50)
    print("λ_1 of a swing of 50 steps:", np.round(costate(my_pendulum, swing, played, discount=gamma)[0, 0], 3))

# %% [markdown]
# Now change `pendulum` into a system of your own; the checker works for any.
#
# **2.** In section 6 the grey line is at 1 %. For a turning loop with $\rho=0.95$ and $\gamma=0.95$, at which age is the
# weight first below it? Find a formula before you read it off.

# %%
my_age = None

# %%
_ = check("01.2", my_age)

# %% [markdown]
# **3.** $\gamma=0$ makes the agent myopic. What is $\lambda_t$ then, in terms of slopes that section 1 names?
# Return it for every step of a rollout, shape (B, T, S). (`closed_loop_reward_gradient` and `closed_loop_jacobian` are
# imported; both take the environment, the policy and the rollout.)


# %%
def my_myopic_costate(environment, policy, track):
    return None


# %%
_ = check("01.3", my_myopic_costate)

# %% [markdown]
# **4.** Write one step of VGL(λ), section 8. `Dr` is (B, S), `Df` (B, S, S) with rows = outputs, `next_target` is
# $g'_{t+1}$ and `next_critic` is $g_w(s_{t+1})$, both (B, S); `decay` is λ.


# %%
def my_target(Dr, Df, next_target, next_critic, discount, decay):
    return None


# %%
_ = check("01.4", my_target)

# %% [markdown]
# ## What to remember
# * A costate is the exact derivative of the return along one rollout; the Taylor rate 2 proves a formula, 1 refutes it.
# * Costates scatter, and their mean is the value gradient: a critic's gradient without a critic. A learnt one scatters
#   less and is as right as its features; VGL(λ) goes from one to the other.
# * Eq. 7 is complete only where $\theta$ acts through actions alone; add the terms for $s_1$ and $r$ otherwise.
# * Credit fades like $(\gamma\rho)^{\rm age}$ in the long run, after any growth that a shear allows.
