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
# # 02 · Critic-free: what GRPO computes instead of a value function
#
# Actor-critic methods learn a second network, the critic, to say how good a state is. GRPO has none: it answers each
# prompt $n$ times and compares the answers with each other. Here you see what that comparison computes in expectation,
# by summing over **all** groups instead of sampling them; where it is exactly the policy gradient, where it is a
# rescaled one, and where it points the wrong way. Time: about 40 minutes. Ids such as **S10** are entries of the
# project's ledger. Sliders live with `ipywidgets`; exercises check themselves.

# %%
import itertools

import matplotlib.pyplot as plt
import numpy as np
from _exercises import check
from _sliders import Slider, explore
from scipy.stats import multinomial

from vgrad_lab import impact
from vgrad_lab.advantage import group_mean, group_standardised, leave_one_out
from vgrad_lab.continuous import environments, noise, oracles, policies
from vgrad_lab.continuous.rollout import rollout
from vgrad_lab.experiments.verify_continuous import fixed_action_costates

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe–Ito: safe for colour-blind readers
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1 · The smallest language model
# One prompt, one token, three words in the vocabulary: a softmax policy $p=\mathrm{softmax}(z)$ over tokens with rewards
# $r$. Everything is known: $J=\sum_a p_a r_a$ and $\partial J/\partial z_a=p_a(r_a-J)$. A score-function update is
#
# $$\hat g=\frac1n\sum_{i=1}^n \hat A_i\,\partial_z\log p(a_i),\qquad \partial_z\log p(a)=e_a-p .$$
#
# Any number $b$ that does not look at $a_i$ may be subtracted from its reward, since
# $\mathbb E\,[\,b\,\partial_z\log p\,]=0$. It changes the noise, not the mean. A critic supplies $b\approx J$; that is all
# it does for a one-token answer. GRPO reads $b$ off the other answers of the group.
#
# With $3^n$ possible groups the mean and the variance of $\hat g$ are finite sums.


# %%
def moments(p, reward, n, advantage):
    """Mean of the group update ĝ (V,) and its total variance, over all V^n groups."""
    groups = np.array(list(itertools.product(range(len(p)), repeat=n)))
    weight = np.prod(p[groups], axis=1)
    update = np.einsum("qg,qgv->qv", advantage(reward[groups]), np.eye(len(p))[groups] - p) / n
    mean = weight @ update
    return mean, float(weight @ ((update - mean) ** 2).sum(1))


def standardised(reward):
    return group_standardised(reward, ddof=0, eps=0.0)


p, right = np.array([0.2, 0.5, 0.3]), np.array([1.0, 0.0, 0.0])  # token 0 is the right answer
true = p * (right - p @ right)
ways = {
    "no baseline": lambda r: r,
    "exact critic J": lambda r: r - p @ right,
    "leave-one-out": leave_one_out,
    "own group's mean": group_mean,
    "standardised": standardised,
}
print(f"{'true gradient':18}{np.round(true, 4)}")
for name, way in ways.items():
    mean, _ = moments(p, right, 4, way)
    print(f"{name:18}{np.round(mean, 4)}   = {mean[0] / true[0]:.4f} × true")

# %% [markdown]
# ## 2 · Three baselines, three factors
# For rewards 0 and 1 every row above is the true gradient times **one number**:
#
# | advantage | factor | ledger |
# |---|---|---|
# | leave-one-out, $r_i-\frac1{n-1}\sum_{j\ne i}r_j$ | $1$ | **S10** |
# | own mean, $r_i-\bar r$ | $(n-1)/n$: each sample is also its own baseline, and cancels its share | **S10** |
# | standardised, $(r_i-\bar r)/s$ (GRPO, eq. 1) | $\kappa_n(p)=\mathbb E\,[s]/(p(1-p))$, $p$ the chance of success | **S10** |
#
# (Here $s$ is the group's standard deviation with ddof 0 and nothing added.) The first two hold for any reward.
#
# The price of not having a critic is noise: the other answers estimate $J$ with variance $\mathrm{Var}(r)/(n-1)$. A mere
# factor would feign more or less of it, so compare noise **relative to the signal**,
# $\sqrt{\mathrm{tr\,Cov}\,\hat g}\,/\,\|\mathbb E\,\hat g\|$; leave-one-out and own mean then coincide. In the smallest groups
# the borrowed baseline adds more noise than it removes; from a handful of answers on it pays. The exact critic is no
# floor either: $J$ is not the baseline of least variance, and standardising also weighs groups against each other.

# %%
for n in (2, 3, 4, 6):
    found = [moments(p, right, n, way)[0][0] / true[0] for way in (leave_one_out, group_mean, standardised)]
    kappa = impact.grpo_scale(p[:1], n, ddof=0, eps=0.0)[0]
    print(f"n = {n}: enumerated {np.round(found, 4)}   formulas {np.round([1, (n - 1) / n, kappa], 4)}")

sizes = np.arange(2, 10)
figure, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
for (name, way), look in zip(ways.items(), ("x:", "-", "o", "s--", "^-."), strict=True):
    if way is group_mean:
        continue
    noise_ratio = [np.sqrt(v) / np.linalg.norm(m) for m, v in (moments(p, right, n, way) for n in sizes)]
    shade = {"no baseline": "black", "exact critic J": ORANGE, "leave-one-out": BLUE, "standardised": GREEN}[name]
    label = "leave-one-out = own mean" if way is leave_one_out else name
    axis.plot(sizes, noise_ratio, look, color=shade, markerfacecolor="none", markersize=7, label=label)
axis.set(
    xlabel="group size n (answers)",
    ylabel="noise / signal of one update",
    title=f"What the critic would save, success probability {p[0]}",
    ylim=(0, None),
)
_ = axis.legend()

# %% [markdown]
# ### What one group hands out
# The advantage of a right and of a wrong answer in a group with $k$ right ones. Leave-one-out is a straight line in $k$;
# standardising pays a lone success $\sqrt{n-1}$, more than its reward, and punishes a lone failure as much. At $k=0$
# and $k=n$ nobody gets anything: section 7.


# %%
def handed_out(axis, n):
    """Advantages in groups of n with k right answers, as the library computes them."""
    counts = np.arange(1, int(n))
    groups = (np.arange(int(n)) < counts[:, None]) * 1.0  # row k: k ones, then zeros
    for way, colour, mark, name in (
        (leave_one_out, BLUE, "o-", "leave-one-out"),
        (standardised, GREEN, "^--", "standardised"),
    ):
        advantage = way(groups)
        axis.plot(counts, advantage[:, 0], mark, color=colour, markersize=5, label=name)
        axis.plot(counts, advantage[:, -1], mark, color=colour, markersize=5, markerfacecolor="none")
    axis.axhline(0, color="0.7", linewidth=0.8)
    axis.set(xlabel="right answers k in the group", ylabel="advantage (filled: right, open: wrong)", ylim=(-4.2, 4.2))
    axis.legend(fontsize=8, loc="upper right")


explore(handed_out, Slider("group size n", (3, 4, 6, 8, 12, 16)), size=(5, 3.6))

# %% [markdown]
# ## 3 · κ: which prompts count how much
# Standardising multiplies the gradient of each prompt by its own $\kappa_n(p)$. With several prompts in a batch this is a
# **weighting of prompts**: rare successes and rare failures are turned up, and the more so the larger the group, up to
# $\kappa_\infty=1/\sqrt{p(1-p)}$. Two curiosities: $\kappa_2=1$ and $\kappa_3=\sqrt2$ for every $p$. And a group-size
# effect: at $p=\frac12$ going from 2 to 64 answers about doubles the mean step, not only its accuracy.
#
# On the right, the speed $p(1-p)\,\kappa_n(p)$ of the right token's logit. Leave-one-out learns fastest at
# $p=\frac12$ too, but drops off faster towards both ends.

# %%
q = np.linspace(0.004, 0.996, 249)
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.7), layout="constrained")
for n, colour, style in ((2, "black", "-"), (4, BLUE, "--"), (8, ORANGE, "-."), (64, GREEN, ":")):
    kappa = impact.grpo_scale(q, n, ddof=0, eps=0.0)
    axes[0].plot(q, kappa, style, color=colour, label=f"n = {n}")
    axes[1].plot(
        q, kappa * q * (1 - q), style, color=colour, label="n = 2, and leave-one-out" if n == 2 else f"n = {n}"
    )
axes[0].plot(q, 1 / np.sqrt(q * (1 - q)), color=RED, linewidth=0.8, label="n → ∞")
axes[1].plot(q, np.sqrt(q * (1 - q)), color=RED, linewidth=0.8, label="n → ∞")
axes[0].set(
    xlabel="success probability p", ylabel="factor κ (no unit)", ylim=(0, 9), title="Standardised against true gradient"
)
axes[1].set(
    xlabel="success probability p", ylabel="mean logit step / learning rate", title="How fast the right token gains"
)
axes[0].legend(fontsize=8, loc="upper center")
axes[1].legend(fontsize=8, loc="lower center")
half = np.array([0.5])
for n in (2, 8, 64):
    common = impact.grpo_scale(half, n)[0]  # ddof = 1 and ε = 1e-4, the defaults of TRL
    print(
        f"κ at p = ½, n = {n:2}: {impact.grpo_scale(half, n, ddof=0, eps=0.0)[0]:.4f}, with ddof 1 and ε = 1e-4: {common:.4f}"
    )

# %% [markdown]
# ## 4 · Other rewards: the wrong way
# "Standardising only rescales" is folklore, true for binary rewards and false for others (**S10.nonbinary**). Three
# tokens, $p=(0.45,0.45,0.1)$, rewards $(0,1,10)$. The mean reward is above 1, so the true update takes the middle logit
# **down**. What does GRPO do?
#
# Ask what a token earns *on average over the rest of the group*: $g(a)=\mathbb E\,[\hat A_i\mid a_i=a]$. GRPO is the exact
# policy gradient of this **effective reward**, with $g$ held fixed; its mean is zero, so logit $a$ moves by $p_a\,g(a)$.
# Standardising makes $g$ a nondecreasing but *bent* function of the reward: in groups without a 10 the 1 is the best
# answer in sight and wins the prize that the 10 would have won (for $n=2$ exactly the same one).


# %%
def effective_reward(p, reward, n):
    """g(a) for the three tokens, over the counts of tokens among the n − 1 others."""
    counts = np.array([(i, j, n - 1 - i - j) for i in range(n) for j in range(n - i)])
    others = np.array([np.repeat([0, 1, 2], count) for count in counts])
    weight = multinomial.pmf(counts, n - 1, p)
    own = (np.full((len(counts), 1), r) for r in reward)
    return np.array([weight @ standardised(np.hstack([r, reward[others]]))[:, 0] for r in own])


policy, reward = np.array([0.45, 0.45, 0.1]), np.array([0.0, 1.0, 10.0])
down = policy * (reward - policy @ reward)
spread = np.sqrt(policy @ (reward - policy @ reward) ** 2)
sizes = np.array([2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 48, 64])
prizes = {n: effective_reward(policy, reward, n) for n in sizes.tolist()}
middle = np.array([policy[1] * g[1] for g in prizes.values()])

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.7), layout="constrained")
for n, colour, look in ((2, BLUE, "o-"), (8, ORANGE, "s--"), (64, GREEN, "^-.")):
    axes[0].plot(reward, prizes[n], look, color=colour, label=f"n = {n}")
axes[0].plot(reward, (reward - policy @ reward) / spread, ":", color="black", label="n → ∞: straight")
axes[0].axhline(0, color="0.7", linewidth=0.8)
axes[0].set(xlabel="reward of the token", ylabel="effective reward g (no unit)", title="A bent reward")
axes[0].legend(fontsize=8)
axes[1].plot(sizes, middle, "o-", color=BLUE, label="GRPO, exact mean")
axes[1].axhline(down[1] / spread, color="black", linestyle=":", label="n → ∞: true update / sd of the reward")
axes[1].axhline(0, color="0.7", linewidth=0.8)
axes[1].set(
    xscale="log", xlabel="group size n (answers)", ylabel="update of the middle logit", title="Up, where down is right"
)
axes[1].set_xticks([2, 4, 8, 16, 32, 64], ["2", "4", "8", "16", "32", "64"])
axes[1].tick_params(axis="x", which="minor", labelbottom=False)
axes[1].legend(fontsize=8)
print(f"true update of the middle logit {down[1]:+.4f}")
for n in (2, 8, 16, 32):
    update = policy * prizes[n]
    cosine = update @ down / np.linalg.norm(update) / np.linalg.norm(down)
    print(f"n = {n:2}: GRPO {update[1]:+.4f}   cosine of the whole update with the true one {cosine:.3f}")
brute = moments(policy, reward, 6, standardised)[0][1]
print(f"check, n = 6: {prizes[6][1] * policy[1]:+.10f} by counts, {brute:+.10f} over all {3**6} groups")

# %% [markdown]
# Turn the reward $x$ of the third token and the group size. Up to $x=5.5$ the true update (black) takes the middle logit
# up; beyond it down, and GRPO (blue) goes on pushing it up unless the group is large.


# %%
def three_logits(axis, x, n):
    rewards = np.array([0.0, 1.0, x])
    right_way = policy * (rewards - policy @ rewards)
    right_way /= np.linalg.norm(right_way)
    grpo = policy * effective_reward(policy, rewards, int(n))
    grpo /= np.linalg.norm(grpo)
    place = np.arange(3)
    axis.bar(place - 0.2, right_way, 0.4, color="0.2", label="true")
    axis.bar(place + 0.2, grpo, 0.4, color=BLUE, label=f"GRPO, cosine {grpo @ right_way:.2f}")
    axis.set_xticks(place, ["reward 0", "reward 1", f"reward {x:g}"])
    axis.axhline(0, color="0.6", linewidth=0.8)
    axis.set(ylabel="direction of the update", ylim=(-1, 1))
    axis.legend(fontsize=7, loc="lower right")


explore(three_logits, Slider("x", (2.0, 4.0, 5.5, 7.0, 10.0)), Slider("n", (2, 4, 8, 16)))

# %% [markdown]
# The whole update still leans the right way; one token of it does not. That is luck of the parametrisation: let
# $z=Wh$ with features that are large for the middle token, and in terms of $h$ the whole update turns against the true
# one. Leave-one-out has no such trouble at any group size.

# %%
W = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, -0.015]])  # h = (0, 100) gives nearly the same p
logits = W @ np.array([0.0, 100.0])
shared = np.exp(logits) / np.exp(logits).sum()
truth = W.T @ (shared * (reward - shared @ reward))
for n in (2, 4, 8, 16):
    turned = W.T @ (shared * effective_reward(shared, reward, n))
    print(f"n = {n:2}: cosine in h {turned @ truth / np.linalg.norm(turned) / np.linalg.norm(truth):+.4f}")

# %% [markdown]
# ## 5 · Eq. 11 counts the reward twice
# The paper derives GRPO's backward pass from terms $\mathbb E\,[\hat A\,r\,\partial\log\pi]$, with $\hat A$ "a scalar
# behind a stop-gradient". But GRPO's term is $\hat A\,\partial\log\pi$: the reward is inside $\hat A$ already (**S09**).
# With a leave-one-out $\hat A$ and $\mu=\mathbb E\,r$,
#
# $$\mathbb E\,[\hat A\,r\,\partial\log\pi]=\partial\,\mathrm{Var}(r)+\mu\,\partial\mu ,\qquad
# \mathbb E\,[\hat A\,\partial\log\pi]=\partial\mu=\mathbb E\,[\bar a_\theta^\top\,\partial_a\hat A].$$
#
# In the last term $\hat A$ must **not** be stopped: all the signal sits in how $\hat A$ depends on the action. Left: a
# Gaussian action with $r=a$, mean $\theta$, truth 1; a grid exact for these integrands sums over both samples of a pair.
# Right: a right-or-wrong token.

# %%
pair, weight = oracles.gauss_hermite_noise(6, 1, 2)
score = pair[:, 0, 0]  # ∂_θ log π of the first sample, for N(θ, 1)
means = np.linspace(-2, 2, 17)
twice, once = [], []
for theta in means:
    advantage = leave_one_out(theta + pair[:, 0])[:, 0]
    twice.append(weight @ (advantage * (theta + score) * score))
    once.append(weight @ (advantage * score))
stopped = weight @ advantage  # right side of eq. 11 with Â stopped: E[Â]·r'(a), r' = 1

levels = np.linspace(0.02, 0.98, 25)
coins = [np.array([x, 1 - x]) for x in levels]
heads = np.array([1.0, 0.0])
coin_twice = [moments(c, heads, 2, lambda r: leave_one_out(r) * r)[0][0] for c in coins]
coin_once = [moments(c, heads, 2, leave_one_out)[0][0] for c in coins]

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
axes[0].plot(means, twice, "s--", color=RED, markersize=4, label="eq. 11: E[Â r ∂log π]")
axes[0].plot(means, once, "o", color=BLUE, markersize=5, label="GRPO: E[Â ∂log π]")
axes[0].axhline(1, color="black", linewidth=0.8, label="truth ∂μ = 1")
axes[0].axhline(stopped, color=ORANGE, linestyle=":", label="eq. 11's right side, Â stopped")
axes[0].set(xlabel="mean action θ (= mean reward μ)", ylabel="derivative in θ", title="Gaussian action, r = a")
axes[1].plot(levels, coin_twice, "s--", color=RED, markersize=4, label="eq. 11: (1 − μ) ∂μ")
axes[1].plot(levels, coin_once, "o", color=BLUE, markersize=5, label="GRPO: ∂μ")
axes[1].plot(levels, levels * (1 - levels), color="black", linewidth=0.8, label="truth p(1 − p)")
axes[1].set(xlabel="success probability p = μ", ylabel="derivative in the logit", title="Right-or-wrong token")
for axis in axes:
    axis.legend(fontsize=8)
print(
    f"θ = {means[0]:+.1f}: eq. 11 gives {twice[0]:+.4f}, GRPO {once[0]:+.4f}; eq. 11's right side with Â stopped {stopped:+.1e}"
)

# %% [markdown]
# For $\theta<0$ eq. 11 even has the wrong sign.
#
# ## 6 · Is the backward signal a costate?
# GRPO backpropagates $\sum_k\hat A_k\log\pi(a_k\mid s_k)$ with the drawn actions held fixed. What arrives at $s_t$ is the
# empirical costate $\hat\lambda_t$. Its mean is the value gradient $G_t$ **if the reward sees the state only through
# actions**. Else the direct path is missing (**S11**, **S11.direct**):
#
# $$G_t=\mathbb E\,\hat\lambda_t+\mathbb E\sum_{k\ge t}\gamma^{k-t}\Big(\frac{\partial s_k}{\partial s_t}\Big)^{\!\top} r_s .$$
#
# Rewards of language models are functions of the tokens, so there nothing is missing. In control it matters: below the
# reward is $-w\,\|s\|^2-a^2$, three steps, all noise summed by an exact grid.

# %%
A, B = np.array([[0.8, 0.3], [-0.2, 0.7]]), np.array([[0.3], [0.8]])
actor = policies.linear_policy(np.array([[0.3, -0.6]]), noise=noise.gaussian(0.5))
draws, weight = oracles.gauss_hermite_noise(4, 3, 1, scale=0.5)
start, gamma = np.tile([[1.0, -0.5]], (len(draws), 1)), 0.9
direct_weights = np.linspace(0, 1, 9)
parts = []
for w in direct_weights:
    plant = environments.linear_quadratic(A, B, w * np.eye(2), np.eye(1))
    played = rollout(plant, actor, start, draws)
    empirical, direct = (weight @ x[:, 0, 0] for x in fixed_action_costates(plant, actor, played, gamma))
    oracle = oracles.linear_quadratic_oracle(plant, actor, horizon=3, discount=gamma)
    parts.append((empirical, direct, oracles.value_gradient(oracle, played.state[:1])[0, 0, 0]))
empirical, direct, exact = np.array(parts).T

figure, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
axis.plot(direct_weights, exact, color="black", label="value gradient G₁, closed form")
axis.plot(direct_weights, empirical, "o--", color=BLUE, label="E λ̂₁, what GRPO propagates")
axis.plot(direct_weights, empirical + direct, "s", color=ORANGE, markersize=5, label="E λ̂₁ + direct path")
axis.set(
    xlabel="weight w of the state in the reward (reward per unit of state²)",
    ylabel="first component\n(reward per unit of state)",
    title="The gap is the direct path",
)
axis.legend(fontsize=8)
print(f"w = 0: E λ̂ − G = {empirical[0] - exact[0]:+.1e}")
print(
    f"w = 1: E λ̂ = {empirical[-1]:+.4f}, G = {exact[-1]:+.4f}, E λ̂ + direct − G = {(empirical + direct - exact)[-1]:+.1e}"
)

# %% [markdown]
# ## 7 · Groups that all agree
# When all $n$ answers earn the same, there is nothing to compare: $\hat A=0$. That is a share $p^n+(1-p)^n$ of all
# groups. For a hard prompt almost every group is silent.
#
# In floating point even silence needs care. Seven rewards of 0.7 in float32: their computed mean is not 0.7, so neither
# the centred reward nor the deviation is 0, and a tiny $\varepsilon$ divides rounding by rounding. All answers are then
# pushed the *same* way. The library tests for equality (max = min) instead of trusting the mean.

# %%
same = np.full((1, 7), 0.7, dtype=np.float32)
centred = same - same.mean(1, keepdims=True)
deviation = same.std(1, ddof=1, keepdims=True)
print(f"centred reward {centred[0, 0]:.2e}, standard deviation {deviation[0, 0]:.2e}")
for eps in (1e-8, 1e-4):
    naive = (centred / (deviation + np.float32(eps)))[0, 0]
    print(f"ε = {eps:.0e}: naive advantage {naive:+.4f}, library {group_standardised(same, eps=eps)[0, 0]:+.4f}")

figure, axis = plt.subplots(figsize=(6, 3.3), layout="constrained")
for n, colour, style in ((4, BLUE, "-"), (8, ORANGE, "--"), (64, GREEN, ":")):
    axis.plot(q, q**n + (1 - q) ** n, style, color=colour, label=f"n = {n}")
axis.set(xlabel="success probability p", ylabel="share of silent groups", title="Groups without a signal")
_ = axis.legend()

# %% [markdown]
# ## 8 · Expected against sampled
# One update first: 100 000 sampled groups against the sum over all groups.

# %%
tokens = rng.choice(3, size=(100_000, 4), p=p)
updates = np.einsum("qg,qgv->qv", standardised(right[tokens]), np.eye(3)[tokens] - p) / 4
error = updates.std(0, ddof=1) / np.sqrt(len(updates))
expected = moments(p, right, 4, standardised)[0]
for a in range(3):
    print(f"logit {a}: sampled {updates[:, a].mean():+.5f} ± {error[a]:.5f}   enumerated {expected[a]:+.5f}")

# %% [markdown]
# Now many updates in a row, from a success probability of 0.1, $n=4$. Dashed: every step is the expected update. Lines:
# 300 sampled runs, their mean and the middle 80 %. The bands are wide: the right token must be *met* before it can be
# reinforced. The mean of the runs need not follow the dashed line, since the update is not linear in $z$; the expected
# update is the law of one step, not of a whole run.


# %%
def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def train(way, *, runs=300, steps=60, rate=0.5, n=4):
    """Success probability after each update: along expected updates (steps + 1,), and of sampled runs (runs, steps + 1)."""
    draw = np.random.default_rng(1)
    z = np.log([0.1, 0.5, 0.4])
    sampled = np.tile(z, (runs, 1))
    flow, paths = [softmax(z)[0]], [softmax(sampled)[:, 0]]
    for _ in range(steps):
        z = z + rate * moments(softmax(z), right, n, way)[0]
        now = softmax(sampled)
        chosen = (draw.random((runs, n, 1)) > now.cumsum(1)[:, None, :2]).sum(2)
        sampled = sampled + rate * np.einsum("rg,rgv->rv", way(right[chosen]), np.eye(3)[chosen] - now[:, None]) / n
        flow.append(softmax(z)[0])
        paths.append(softmax(sampled)[:, 0])
    return np.array(flow), np.array(paths).T


figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained", sharey=True)
for axis, way, name in zip(axes, (leave_one_out, standardised), ("leave-one-out", "standardised"), strict=True):
    flow, paths = train(way)
    low, high = np.quantile(paths, [0.1, 0.9], axis=0)
    axis.fill_between(range(len(flow)), low, high, color=BLUE, alpha=0.2, linewidth=0, label="sampled, middle 80 %")
    axis.plot(paths.mean(0), color=BLUE, label="sampled, mean of 300 runs")
    axis.plot(flow, "--", color=RED, label="expected updates")
    axis.set(xlabel="updates", title=name)
    reached = int(np.argmax(flow > 0.5))
    print(
        f"{name:14} expected updates pass p = ½ after {reached} steps; sampled mean there {paths.mean(0)[reached]:.3f}"
    )
axes[0].set(ylabel="success probability")
_ = axes[1].legend(fontsize=8, loc="lower right")

# %% [markdown]
# Standardising is faster at the same learning rate, by its $\kappa_4(p)>1$: a larger step, not a better direction.
#
# ## Exercises
# Put your answer in place of `None` and run the two cells. A wrong answer is told what to look at; after
# `from _exercises import hint, solution`, `hint("02.1")` gives a push and `solution("02.1")` the answer.
#
# **1.** By what number must the learning rate of the own-mean baseline be multiplied for $n=4$, so that it makes the same
# mean step as leave-one-out?

# %%
my_factor = None

# %%
_ = check("02.1", my_factor)

# %% [markdown]
# **2.** A group of three binary rewards is silent or has one odd one out. What is its standard deviation in the second
# case, with ddof = 0? Then explain with $\mathbb E\,s=p(1-p)\,\kappa$ why $\kappa_3$ does not depend on $p$: the chance of an
# odd one out is $3p(1-p)$.

# %%
my_deviation = None

# %%
_ = check("02.2", my_deviation)

# %% [markdown]
# **3.** Section 4 with rewards $(0,1,x)$: up to which $x$ does the true update take the middle logit *up*? Calculate;
# the slider only shows the neighbourhood.

# %%
my_limit = None

# %%
_ = check("02.3", my_limit)

# %% [markdown]
# **4.** A hard prompt: $p=0.02$. How many answers must a group have, so that fewer than half of all groups are silent?

# %%
my_size = None

# %%
_ = check("02.4", my_size)

# %% [markdown]
# ## What to remember
# * Leave-one-out gives the exact policy gradient without a critic; a critic could only lower the noise.
# * Own mean: $(n-1)/n$. Standardised binary rewards: $\kappa_n(p)$, a weighting of prompts. Other rewards: a bent reward
#   that can push a token the wrong way.
# * The reward belongs in $\hat A$ once, and $\hat A$ is what carries the signal.
# * The backward signal averages to the value gradient where the reward sees tokens only; else add the direct path.
