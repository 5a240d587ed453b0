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
# # 03 · Estimators: which of these is biased, and by how much
#
# RLOO, GRPO, Dr. GRPO, DAPO, GSPO, ReMax, PPO: each turns a group of sampled answers into one step for the weights. All
# of them claim to climb the mean reward $J$. Some do exactly, some at another speed, some in another direction. Samples
# hardly ever show which; exact sums do. Here is a language model with fifteen answers, small enough to sum over **every
# group**. Time: about 40 minutes. Ids such as **E07** are entries of the project's ledger; the whole table is
# `docs/estimators.md`, and `vgrad estimators` prints it for other trees. Sliders live with `ipywidgets`; exercises check
# themselves.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from _exercises import check
from _sliders import Slider, explore

from vgrad_lab.discrete.estimator_moments import row
from vgrad_lab.discrete.estimator_types import Options, reference_problem
from vgrad_lab.discrete.estimators import ESTIMATORS, token_advantage
from vgrad_lab.experiments.estimator_table import table, text
from vgrad_lab.experiments.verify_estimators import binary_scale, effective_reward, mean_reward

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe–Ito: safe for colour-blind readers
problem, binary = reference_problem(), reference_problem(binary=True)
tree, J = problem.tree, mean_reward(problem)

# %% [markdown]
# ## 1 · Fifteen answers
# Three tokens, at most three of them; token 2 ends an answer, and ending is an action like any other. The policy is one
# row of logits per prefix. Each answer has a probability, a length $|o|$ and a reward $R$. So
# $J=\sum_o\pi(o)R(o)$, and $\nabla J$, are finite sums too.

# %%
order = np.argsort(-problem.probability)
print("answer     length  probability   reward")
for b in order:
    name = " ".join(map(str, tree.answers[b]))
    print(f"{name:10} {tree.length[b]:6}  {problem.probability[b]:11.4f}  {problem.reward[b]:+7.3f}")
print(f"\nJ = {J:.4f}   length of the gradient {np.linalg.norm(problem.gradient):.4f}")

# %% [markdown]
# ## 2 · What one group does
# A group is $G$ answers drawn independently. Every estimator of this notebook gives each token a weight $w_{i,t}$ and
# moves the logits along
#
# $$D=\frac1G\sum_i\sum_t w_{i,t}\,g_{i,t},\qquad g_{i,t}=\partial\log\pi(o_{i,t}\mid o_{i,<t}) .$$
#
# The weights of one and the same group: answers of one, two, three and three tokens.

# %%
group = order[[0, 1, 3, 5]][None]
print("rewards", np.round(problem.reward[group[0]], 3), "  lengths", tree.length[group[0]])
for name in ("rloo", "dr_grpo", "grpo", "trl_default", "ppo"):
    weight = token_advantage(ESTIMATORS[name], problem, group)[0]
    print(f"\n{name}: {ESTIMATORS[name].formula}")
    print(np.round(weight, 3))

# %% [markdown]
# ## 3 · What all groups do on average
# There are $15^4=50\,625$ groups of four. Here is $\mathbb E[D]$ over all of them, against $\nabla J$:
#
# * **scale** $c$: how far it goes along $\nabla J$. The learning rate absorbs it.
# * **residual**: the share of it that points elsewhere, the sine of the angle. Nothing absorbs it: not the learning rate,
#   not more groups.
#
# Before you look: which of these do you expect to be exact?

# %%
names = [
    "rloo",
    "remax",
    "group_mean",
    "dr_grpo",
    "standardised",
    "sequence_mean",
    "grpo",
    "gspo",
    "token_mean",
    "dapo",
]
print(text(table(problem, group=4, names=names)))

# %% [markdown]
# Three things bend the direction, each by itself: the **standard deviation** (`standardised`), **1/|o|**
# (`sequence_mean`) and the **mean over the group's tokens** (`token_mean`). `grpo`, as first published, has the first two;
# GSPO on-policy *is* `grpo`, length factor and all (**E07.gspo**); `dapo` and TRL's default have the first and the third.
# Leave-one-out is exact (**E05**), whatever the lengths; Dr. GRPO is exact up to $(G-1)/(GL)$ (**E05.mean**).
#
# ## 4 · 1/|o|: who pays for length
# With 1/|o_i| the expectation is the policy gradient of another reward, $(R-J)/|o|$ with $J$ held fixed
# (**E07.effective**). A wrong answer is blamed less the longer it is; a right one is praised less. On the left what each
# answer is paid. On the right the same tree with a policy that ends ever earlier: where nearly all answers have one
# length there is nothing to bend.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
for n, colour, mark in ((1, BLUE, "o"), (2, ORANGE, "s"), (3, GREEN, "^")):
    here = tree.length == n
    pay = (problem.reward - J)[here]
    axes[0].plot(pay, pay / n, mark, color=colour, label=f"{n} token{'s' * (n > 1)}")
axes[0].axline((0, 0), slope=1, color="0.6", linewidth=0.8, linestyle="--")
axes[0].set(xlabel="R − J", ylabel="what the answer is paid", title="With 1/|o|: the same reward, three prices")
axes[0].legend(fontsize=8)

shifts = np.linspace(-6, 6, 25)  # of the end token's logit: late ends on the left, early ones on the right
residual, spread = {"sequence_mean": [], "token_mean": []}, []
for shift in shifts:
    moved = replace(problem, logits=problem.logits + shift * (np.arange(3) == tree.end))
    mean = moved.probability @ tree.length
    spread.append(np.sqrt(moved.probability @ (tree.length - mean) ** 2) / mean)
    for name, found in residual.items():
        found.append(row(ESTIMATORS[name], moved, group=4).residual)
axes[1].plot(shifts, residual["sequence_mean"], "s-", color=RED, markersize=3, label="residual of 1/|o|")
axes[1].plot(shifts, residual["token_mean"], "v:", color=GREEN, markersize=3, label="residual of the token mean")
axes[1].plot(shifts, spread, color="0.5", label="spread of |o| / mean of |o|")
axes[1].set(xlabel="added to the logit of the end token", title="No spread of lengths, no bend")
_ = axes[1].legend(fontsize=8)

# %% [markdown]
# ## 5 · The standard deviation bends real rewards
# $\hat A_i=(R_i-\bar R)/s$ averages to the policy gradient of an **effective reward** $w(R)=\mathbb E[\hat A_1\mid R_1=R]$,
# which keeps the order of the rewards and not their sizes (**E06.effective**). If $w$ were a straight line the direction
# would be right. Turn the group size.


# %%
def bent_reward(axis, G):
    """Effective reward of the fifteen answers, and the straight line that it would have to be."""
    w = effective_reward(problem, group=int(G))
    place = np.argsort(problem.reward)
    slope = (problem.probability * (problem.reward - J)) @ w / (problem.probability @ (problem.reward - J) ** 2)
    found = row(ESTIMATORS["standardised"], problem, group=int(G)).residual
    axis.plot(problem.reward[place], w[place], "o-", color=BLUE, markersize=4, label=f"w, residual {found:.3f}")
    axis.plot(problem.reward[place], slope * (problem.reward[place] - J), "--", color="black", label="straight")
    axis.set(xlabel="reward", ylabel="effective reward w", ylim=(-2.2, 2.2))
    axis.legend(fontsize=8, loc="upper left")


explore(bent_reward, Slider("G", (2, 3, 4, 5, 6)), size=(5, 3.6))

# %% [markdown]
# ## 6 · What a larger group cures
# The bends of the standard deviation and of the token mean come from small groups and fade; that of 1/|o| does not know
# the group size (**E07.effective**, **E07.ratio**).

# %%
sizes = [2, 3, 4, 5, 6]
figure, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
for name, colour, look in (
    ("sequence_mean", RED, "s-"), ("trl_default", BLUE, "o--"), ("standardised", ORANGE, "^-."), ("token_mean", GREEN, "v:"),
):  # fmt: skip
    residual = [row(ESTIMATORS[name], problem, group=G).residual for G in sizes]
    axis.plot(sizes, residual, look, color=colour, label=name)
    print(f"{name:14}", np.round(residual, 4))
axis.set(
    xlabel="group size G", ylabel="residual", xscale="log", yscale="log", title="Share of the mean step that is wrong"
)
axis.set_xticks(sizes, map(str, sizes))
axis.tick_params(axis="both", which="minor", labelbottom=False)
_ = axis.legend(fontsize=8)

# %% [markdown]
# ## 7 · Right or wrong: only a factor, but one per prompt
# With rewards 0 and 1 an effective reward has two values, and two points always lie on a line: the standard deviation
# only multiplies $\nabla p$ by $w_G(p)$ (**E06.binary**). Lengths bend as before.

# %%
print(text(table(binary, group=4, names=["rloo", "standardised", "dynamic_sampling", "sequence_mean", "grpo", "dapo"])))

# %% [markdown]
# A batch holds many prompts, each with its own $p$, so the factor weighs prompts. Drawing groups again until they are
# mixed (DAPO's dynamic sampling) divides by the chance that a group is mixed (**E06.mixed**), and this weighs them much
# more strongly; leave-one-out, which otherwise weighs all prompts alike, too.


# %%
def weights(axis, G):
    p = np.linspace(0.02, 0.98, 97)
    mixed = 1 - p ** int(G) - (1 - p) ** int(G)
    plain = np.array([binary_scale(x, int(G)) for x in p])
    axis.plot(p, np.ones_like(p), color="black", label="leave-one-out")
    axis.plot(p, plain, color=BLUE, label="standardised")
    axis.plot(p, plain / mixed, "--", color=ORANGE, label="standardised, mixed groups")
    axis.plot(p, 1 / mixed, ":", color=GREEN, label="leave-one-out, mixed groups")
    axis.set(xlabel="success probability p", ylabel="weight of the prompt", yscale="log", ylim=(0.5, 60))
    axis.legend(fontsize=7, loc="upper center")


explore(weights, Slider("G", (2, 4, 8, 16, 32)), size=(5, 3.6))

# %% [markdown]
# ## 8 · Noise, and when a bias matters
# An average over $N$ groups has the error of one group over $\sqrt N$, plus the bend, which stays. Give every estimator
# its best learning rate (divide by $c$):
#
# $$\mathbb E\Big\|\tfrac1c\bar D-\nabla J\Big\|^2=\|\nabla J\|^2\tan^2\varphi+\frac{\mathrm{Var}(D)}{c^2N},$$
#
# $\varphi$ the angle between $\mathbb E[D]$ and $\nabla J$. At first noise rules and a biased estimator may even be ahead;
# then only the unbiased ones go on.

# %%
N = np.logspace(0, 4, 41)
square = float(problem.gradient @ problem.gradient)
figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
for name, colour, look in (
    ("rloo", "black", "-"), ("standardised", ORANGE, "-."), ("grpo", RED, "--"), ("trl_default", BLUE, ":"),
    ("token_mean", GREEN, "--"),
):  # fmt: skip
    found = row(ESTIMATORS[name], problem, group=4)
    bend = square * (1 / found.cosine**2 - 1)
    axis.plot(N, np.sqrt((bend + found.rescaled / N) / square), look, color=colour, label=name)
    print(f"{name:13} c = {found.scale:.4f}  cosine {found.cosine:.4f}  Var/c² {found.rescaled:.4f}  bend² {bend:.5f}")
axis.set(xlabel="groups of four in the batch, N", ylabel="error / length of the gradient", xscale="log", yscale="log")
axis.set_title("One prompt, best learning rate each")
_ = axis.legend(fontsize=8)

# %% [markdown]
# ### Unbiased is not the same as quiet
# Baselines change the noise alone. A constant one is best at $b^*=\mathbb E[R\|g\|^2]/\mathbb E\|g\|^2$, not at $J$
# (**E08.constant**); the greedy answer's reward (ReMax) can be worse than none (**E08.oracle**). Leave-one-out reads
# $J$ off $G-1$ others, and pays $2\zeta/(G(G-1))$ for it, exactly (**E08.mse**). What helps more is to look at the prefix:
# the last two rows, which need its value.

# %%
shown = ("reinforce", "expected_baseline", "optimal_baseline", "remax", "rloo", "value_baseline", "theorem_2")
print(f"{'variance':18}" + "".join(f"{f'G = {G}':>10}" for G in (2, 4, 6)))
for name in shown:
    print(f"{name:18}" + "".join(f"{row(ESTIMATORS[name], problem, group=G).variance:10.4f}" for G in (2, 4, 6)))

# %% [markdown]
# ## 9 · PPO: a wrong critic
# At $\lambda=1$ a critic is a baseline: any critic, however wrong, leaves the mean alone (**E09**). Below, its error
# enters the mean and the noise falls. Turn the critic's error (its standard deviation, in units of the reward).

# %%
error = np.random.default_rng(0).standard_normal(len(tree.prefixes))
decays = np.linspace(0, 1, 11)


def critics(axis, size):
    """Bias and noise of one answer by λ."""
    rows = [
        row(ESTIMATORS["ppo"], problem, group=1, options=Options(decay=float(d), critic_error=size * error))
        for d in decays
    ]
    axis.plot(decays, [r.bias for r in rows], "o-", color=RED, markersize=3, label="bias / length of the gradient")
    axis.plot(decays, [r.variance for r in rows], "--", color=BLUE, label="variance")
    axis.set(xlabel="λ", ylim=(-0.05, 2.0))
    axis.legend(fontsize=8, loc="upper left")


explore(critics, Slider("critic's error", (0.0, 0.25, 0.5, 1.0)), size=(4.6, 3.4))

# %% [markdown]
# ## Exercises
# Put your answer in place of `None` and run the two cells. A wrong answer is told what to look at; after
# `from _exercises import hint, solution`, `hint("03.1")` gives a push and `solution("03.1")` the answer.
#
# **1.** Dr. GRPO with $G=8$ and $L=512$ tokens. By what number must the learning rate of leave-one-out be multiplied, so
# that Dr. GRPO makes the same mean step?

# %%
my_multiple = None

# %%
_ = check("03.1", my_multiple)

# %% [markdown]
# **2.** A trainer that you cannot change averages the tokens of each answer (1/|o_i|) and then over the group; you only
# supply the advantages. Write them from `reward` and `length`, both of shape (groups, G), so that the mean step is
# parallel to $\nabla J$ for any rewards and lengths. (Real rewards, no standard deviation.)


# %%
def my_advantage(reward, length):
    return None


# %%
_ = check("03.2", my_advantage)

# %% [markdown]
# **3.** Section 8, `grpo` with $G=4$: from which number $N$ of groups on is its bend larger than its noise, that is,
# $\|\nabla J\|^2\tan^2\varphi>\mathrm{Var}(D)/(c^2N)$?

# %%
my_groups = None

# %%
_ = check("03.3", my_groups)

# %% [markdown]
# **4.** Rewards 0 and 1, answers of **one** length $T>1$. What is each of these in expectation: `"exact"` ($\nabla J$
# itself), `"scaled"` or `"bent"`?

# %%
my_table = {"rloo": None, "group_mean": None, "grpo": None, "dapo": None, "reinforce": None}

# %%
_ = check("03.4", my_table)

# %% [markdown]
# ## What to remember
# * A scale is forgiven by the learning rate; a bend is not. Leave-one-out, ReMax, REINFORCE and PPO at $\lambda=1$ have
#   neither.
# * 1/|o| bends in every group, however large; the token mean and the standard deviation bend in small groups. Right or
#   wrong rewards straighten the standard deviation and turn it into weights of prompts.
# * Unbiased is not quiet: compare variances at the same scale, and ask how many groups you average before the bend
#   matters.
