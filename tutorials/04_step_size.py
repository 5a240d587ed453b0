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
# # 04 · Step size: watch a threshold appear
#
# A gradient says where to go, not how far. Too short a step wastes samples; too long a step lowers the success rate, and
# if every step is too long, training stalls or collapses although each direction was right. Here you see one quantity
# that decides which: the **gradient gap**. One prompt, rewards 0 and 1, and sums instead of samples, so that a threshold
# is a line and not a cloud. Time: about 40 minutes. Ids such as **G04** are entries of the project's ledger; sliders live
# with `ipywidgets`; exercises check themselves.
#
# The theory is that of *On the Optimization Dynamics of RLVR: Gradient Gap and Step Size Thresholds*
# (arXiv [2510.08539](https://arxiv.org/abs/2510.08539)), known here through its abstract and secondary sources. "Reported"
# marks what those say; all instances and proofs are this project's.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
from _exercises import check
from _sliders import Slider, explore

from vgrad_lab.discrete.ascent import ascend, gap_at, gap_step, unit_step
from vgrad_lab.discrete.bandit import cosh_bandit, linear_bandit, logprob, score, tabular_bandit, washboard
from vgrad_lab.discrete.phase_diagram import draw_phases, phase_map, steepening_log_odds
from vgrad_lab.discrete.step_size import Bounds, diameter, reported_step, segment_bounds
from vgrad_lab.discrete.thresholds import cosh_threshold, measured_threshold, stagnation_level, token_threshold
from vgrad_lab.discrete.token_step import step_safety
from vgrad_lab.discrete.update_scale import update_scale
from vgrad_lab.experiments.verify_token_steps import token_failure

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe–Ito: safe for colour-blind readers

# %% [markdown]
# ## 1 · The gap
# Every response $o$ has a score $s(o)=\partial_\theta\log\pi(o)$. Average it over the correct responses and over the
# wrong ones; the difference $g=g^+-g^-$ is the gradient gap. Three facts, all exact (**G01**):
#
# $$\nabla J=J(1-J)\,g,\qquad g=\nabla\log\frac{J}{1-J},\qquad g^+=(1-J)\,g .$$
#
# The first is reported; the second says what the gap *is*: the slope of the **log-odds** $l=\log J/(1-J)$. The factor
# $J(1-J)$ that makes policy gradients tiny at both ends is the price of measuring progress in $J$ and not in $l$.

# %%
arms = linear_bandit(
    np.array([[1.0, 0.3], [-0.6, 1.2], [-1.0, -0.8], [0.4, -1.1]]), np.array([True, True, False, False])
)
theta = np.array([0.4, -0.2])
p, s = np.exp(logprob(arms, theta)), score(arms, theta)
gap = gap_at(arms, theta)
print(f"J = {gap.success:.4f}, log-odds {gap.log_odds:+.4f}, gap {np.round(gap.gap, 4)}")
print(f"∇J as a sum over responses {np.round(p[arms.correct] @ s[arms.correct], 6)}")
print(f"J(1−J) g                   {np.round(gap.objective_gradient, 6)}")
h = 1e-5
steps = [(gap_at(arms, theta + h * e).log_odds - gap_at(arms, theta - h * e).log_odds) / (2 * h) for e in np.eye(2)]
print(f"difference quotients of l  {np.round(steps, 6)}")

# %% [markdown]
# ## 2 · How far the slope can be trusted
# Along a unit direction $w$ the log-odds start with the slope $\Delta=\langle w,g\rangle$, the **gap alignment**, and bend.
# For logits that are linear in $\theta$ the bend is bounded by the diameter $D$ of the features (**G04**):
#
# $$|\,l(\theta+\eta w)-l(\theta)-\eta\Delta\,|\le\tfrac18\eta^2D^2 .$$
#
# So a step is safe while the line beats the parabola. For any other policy put $L_o+\frac12G_o^2$ for $\frac18D^2$, with bounds
# on scores and their derivatives (**G02.bound**). The threshold that is reported for the paper, $\Delta/(2(L_o+8G_o^2))$, is
# two to thirty-two times smaller than what that gives; under it $J(K)$ has a guaranteed floor (**G02**).
# Below, the three arms of section 3 at $\theta=0.8$.

# %%
line, theta = cosh_bandit(), np.array([0.8])
gap = gap_at(line, theta)
w = gap.gap / np.linalg.norm(gap.gap)
aligned, D = float(w @ gap.gap), diameter(line.jacobian(theta))
eta = np.linspace(0, 2.4, 121)
exact = [gap_at(line, theta + x * w).log_odds - gap.log_odds for x in eta]
wide = segment_bounds(line, theta, eta[-1] * w)
figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
axis.fill_between(
    eta,
    eta * aligned - eta**2 * D**2 / 8,
    eta * aligned + eta**2 * D**2 / 8,
    color=BLUE,
    alpha=0.15,
    label="allowed: ±η²D²/8",
)
axis.plot(eta, eta * aligned, ":", color="black", label="first order: ηΔ")
axis.plot(eta, exact, color=BLUE, label="exact")
for place, colour, name in (
    (8 * aligned / D**2, GREEN, "8Δ/D²: proved to rise below"),
    (reported_step(aligned, wide), RED, "reported threshold"),
):
    axis.axvline(place, color=colour, linestyle="--", linewidth=1.2, label=f"{name}, {place:.3f}")
axis.axhline(0, color="0.6", linewidth=0.8)
axis.set(xlabel="step η along the gap", ylabel="gain of log-odds (nats)", title="Line, parabola, truth", ylim=(-0.8, 1))
axis.legend(fontsize=8, loc="lower left")
print(
    f"Δ = {aligned:.3f}, D = {D:.3f}: a step of up to {8 * aligned / D**2:.3f} cannot lower J; it does from 2θ = {2 * theta[0]:g} on"
)

# %% [markdown]
# ## 3 · A threshold appears
# The smallest policy on which the bound is **sharp** (**G04.sharp**): three arms on a line, the right one at 0, wrong ones
# at $\pm x$, one parameter. Best is $\theta=0$, where $J=\frac13$. Take steps of a fixed multiple of the gap,
# $\theta\leftarrow\theta+c\,g$, here $\theta\leftarrow\theta-c\,x\tanh x\theta$. Turn $c$: up to $c=2/x^2=8/D^2$ every run slides
# into the optimum. Beyond it overshoots by more than it came, from *however near*, and ends up hopping between two points
# at a success rate below the best.


# %%
def hops(axis, c, x):
    """Success rate along the run for a multiple c of the gap."""
    line = cosh_bandit(x)
    for start, colour, look in ((0.05, BLUE, "o-"), (1.5, ORANGE, "s--")):
        run = ascend(line, np.array([start / x]), gap_step(c), updates=30)
        axis.plot(run.success, look, color=colour, markersize=3, linewidth=1, label=f"from xθ = {start:g}")
    axis.axhline(1 / 3, color="0.6", linewidth=0.8)
    phase = "slides" if c <= cosh_threshold(x) else "hops"
    axis.set(xlabel="updates", ylabel="success rate J", ylim=(0, 0.36))
    axis.legend(fontsize=8, loc="lower right", title=f"{phase}: 2/x² = {cosh_threshold(x):g}")


explore(hops, Slider("c", (0.5, 1.0, 1.9, 2.1, 3.0, 6.0)), Slider("x", (1.0, 2.0)), size=(5, 3))

# %%
for x in (0.5, 1.0, 3.0):
    found = measured_threshold(cosh_bandit(x), start=1e-3 / x, low=0.1 / x**2, high=100 / x**2)
    print(f"x = {x:g}: threshold by bisection {found:.6f}, closed form 2/x² = {cosh_threshold(x):.6f}")

# %% [markdown]
# A step of fixed **length** $\eta$ has no threshold of its own: it overshoots as soon as the optimum is nearer than
# $\eta/2$. Lengths must shrink on the way; multiples of the gap shrink by themselves.
#
# ## 4 · Where none appears
# Not every bandit shows this. With one logit per arm, or with only two arms, an exact step along the gap **never** lowers
# $J$, at any size (**G03.tabular**): all right arms go up, all wrong ones down. If a direction separates right from wrong
# features, fixed multiples of any size succeed in the end, as a perceptron does (**G03.separable**). So a demonstration
# needs three arms and *shared* features. A generic experiment without a threshold says nothing against one.

# %%
table = tabular_bandit(np.array([True, True, False, False, False]))
for c in (0.1, 10.0, 1000.0):
    run = ascend(table, np.array([0.0, -1.0, 2.0, 1.0, 0.0]), gap_step(c), updates=40)
    print(f"one logit per arm, c = {c:6g}: smallest gain of a step {np.diff(run.log_odds).min():.2e} nats (never < 0)")
print(
    "three arms on a line, c = 2.1 just above 2/x²:",
    f"{np.diff(ascend(cosh_bandit(), np.array([0.05]), gap_step(2.1), updates=5).log_odds).min():.2e}",
)

# %% [markdown]
# ## 5 · Collapse with perfect alignment
# The reported Theorem 2: even a direction exactly along the gap can drive $J$ to 0 if the step is too long. On linear
# softmax policies bounded steps cannot do it (**G03.softmax**); curved logits can. Two responses with log-odds
# $l(\theta)=\sin\theta-\varepsilon\theta/2\pi$: the slope at $\theta=0$ is positive, so every step of $2\pi$ goes right, lands on the next
# tooth at the same slope, and $\varepsilon$ lower. Exactly $l_k=-\varepsilon k$ (**G03**).

# %%
saw, tilt = washboard(1.2), 1.2
runs = {
    "2π (collapse)": (2 * math.pi, RED, "o-"),
    "2.0 (stands)": (2.0, ORANGE, "s--"),
    "0.2 (climbs)": (0.2, BLUE, "^-"),
}
x = np.linspace(-1.5, 27, 600)
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
axes[0].plot(x, np.sin(x) - tilt * x / (2 * math.pi), color="0.6", linewidth=1)
for name, (length, colour, look) in runs.items():
    run = ascend(saw, np.zeros(1), unit_step(length), updates=12)
    keep = slice(0, 5) if length > 6 else slice(None)
    axes[0].plot(run.theta[keep, 0], run.log_odds[keep], look, color=colour, markersize=4, linewidth=0.8)
    axes[1].plot(run.success, look, color=colour, markersize=4, label=f"η = {name}")
axes[0].set(xlabel="θ", ylabel="log-odds (nats)", title="A saw, seen by its slope")
axes[1].set(xlabel="updates", ylabel="success rate J", ylim=(0, 1), title="The same direction, three lengths")
axes[1].legend(fontsize=8)
collapse = ascend(saw, np.zeros(1), unit_step(2 * math.pi), updates=12)
print(f"largest |l_k + εk| over 12 steps: {np.abs(collapse.log_odds + tilt * np.arange(13)).max():.1e}")

# %% [markdown]
# ## 6 · Long answers, sure answers
# Reported for the token-level theorem: the admissible step shrinks with length $T$ and with the failure rate $1-J$. A step
# $\theta+c\,g$ with $c\le(1-J)/(2T(L_p+G_p^2))$ is indeed safe (**G05.tokens**). Is it *needed*? Take $T$ independent tokens
# $\pm1$ with one logit, right iff $|\sum o_t|\le m$. The exact threshold is $c^*=2(1-J)/(T-\mathrm{Var}^+)$.
#
# Left: at the same rule ($m=0$) the threshold falls like $1/T$, as claimed. Right: at $T=64$, with $m$ making the task
# easier. If the threshold were proportional to $1-J$ (dotted) it would have to fall nearly 600-fold; it falls 10-fold. For answers
# of bounded length a logarithm is enough (**G05.azuma**, **G05.linear**).

# %%
lengths = np.array([2, 4, 8, 16, 32, 64, 128])
margins = np.arange(0, 25, 2)
failure = np.array([token_failure(64, int(m)) for m in margins])
critical = np.array([token_threshold(64, int(m)) for m in margins])
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.7), layout="constrained")
scaled = [token_threshold(int(T), 0) / token_failure(int(T), 0) for T in lengths]
axes[0].loglog(lengths, scaled, "o-", color=BLUE, label="c*/(1 − J), exact")
axes[0].loglog(lengths, 2 / lengths, ":", color="black", label="2/T")
axes[0].set(xlabel="length T (tokens)", ylabel="threshold / failure rate", title="Length counts")
axes[1].loglog(failure, critical, "o-", color=BLUE, label="c*, exact")
axes[1].loglog(failure, critical[0] * failure / failure[0], ":", color=RED, label="proportional to 1 − J")
axes[1].loglog(
    failure,
    critical[0] * (1 + np.log(2 / failure[0])) / (1 + np.log(2 / failure)),
    "--",
    color=GREEN,
    label="one over 1 + ln(2/(1 − J))",
)
axes[1].set(xlabel="failure rate 1 − J", ylabel="threshold c*", title="T = 64: sureness counts little")
for axis in axes:
    axis.legend(fontsize=8)
print(f"1 − J from {failure[0]:.3f} to {failure[-1]:.5f}: c* from {critical[0]:.5f} to {critical[-1]:.5f}")

# %% [markdown]
# ## 7 · What an algorithm takes of the gap
# No algorithm steps by the gap itself. Its expected update is $\mathrm{lr}\cdot\omega(J)\,g$ (**G06.scale**):
#
# | algorithm | ω(J) | near J = 1 |
# |---|---|---|
# | REINFORCE, leave-one-out | $J(1-J)$ | $1-J$ |
# | divided by the policy's standard deviation (GRPO, infinite groups) | $\sqrt{J(1-J)}$ | $\sqrt{1-J}$ |
# | GRPO, groups of $G$ | $\mathbb E\sqrt{\hat p(1-\hat p)}$ | $\sqrt{G-1}\,(1-J)$ |
# | the same, silent groups drawn again (dynamic sampling) | the row above over $1-J^G-(1-J)^G$ | $\sqrt{G-1}/G$ |
#
# So at a fixed learning rate the multiple $c=\mathrm{lr}\cdot\omega$ is a curve over $1-J$. Where it crosses the threshold of
# the task, progress ends. Below, a task whose threshold is $2(1-J)/V$ (section 8). REINFORCE runs parallel to it: below
# once, below always. Infinite groups cross it, at any rate. Groups of 8 bend down in time. Dynamic sampling never does.

# %%
rate, V = 0.2, 2.0
q = np.geomspace(1e-5, 0.9, 200)
figure, axis = plt.subplots(figsize=(6.8, 4), layout="constrained")
axis.fill_between(q, 2 * q / V, 10, color=RED, alpha=0.08, linewidth=0)
axis.loglog(q, 2 * q / V, color=RED, label="threshold 2(1 − J)/V; above it: overshoot")
for name, label, colour, look in (
    ("reinforce", "REINFORCE", BLUE, "-"),
    ("population_grpo", "GRPO, infinite groups", ORANGE, "--"),
    ("grpo", "GRPO, groups of 8", GREEN, "-."),
    ("dynamic_sampling", "GRPO, mixed groups of 8 only", "black", ":"),
):
    omega = update_scale(1 - q, name, failure=q, group_size=8, ddof=0, eps=0.0)
    axis.loglog(q, rate * omega, look, color=colour, label=label)
axis.set(xlabel="failure rate 1 − J", ylabel="multiple of the gap, lr · ω(J)", ylim=(1e-7, 10))
axis.set_title(f"Learning rate {rate:g}: who crosses the threshold?")
axis.invert_xaxis()
_ = axis.legend(fontsize=8, loc="lower left")

# %% [markdown]
# ## 8 · Stagnation below 100 %
# The abstract's claim: with a fixed learning rate GRPO's division by the standard deviation makes $J$ stagnate strictly
# below 1. A task where it can be seen (**G06**): the right answer has logit $b$, two wrong ones have $\pm y$ with
# $y=x_0e^{b/2}a$. The surer the policy, the steeper the wrong answers: $V=2x_0^2$, $\sup J=1$. The level at which infinite
# groups stop follows from one equation, and the run obeys it to nine digits. With groups of 8 the same rate goes on to 1.

# %%
names = {
    "reinforce": ("REINFORCE", BLUE, "-"),
    "population_grpo": ("GRPO, infinite groups", ORANGE, "--"),
    "grpo": ("GRPO, groups of 8", GREEN, "-."),
    "dynamic_sampling": ("mixed groups of 8 only", "black", ":"),
}
figure, axis = plt.subplots(figsize=(6.8, 3.8), layout="constrained")
for name, (label, colour, look) in names.items():
    odds = steepening_log_odds(np.array([0.2]), np.array([0.5]), name, updates=600)[0]
    axis.loglog(np.arange(1, 602), 1 / (1 + np.exp(odds)), look, color=colour, label=label)
axis.axhline(stagnation_level(0.2, "population_grpo"), color=ORANGE, linewidth=0.8)
axis.set(xlabel="updates", ylabel="failure rate 1 − J", title="One learning rate, 0.2")
axis.legend(fontsize=8, loc="lower left")
for rate in (0.2, 0.4, 0.8):
    end = steepening_log_odds(np.array([rate]), np.array([0.5]), "population_grpo", updates=1000)[0, -1]
    print(
        f"lr {rate:g}: 1 − J at the end {1 / (1 + np.exp(end)):.9f}, predicted {stagnation_level(rate, 'population_grpo'):.9f}"
    )

# %% [markdown]
# These are expected updates. In a real run the rare group with a failure still makes a step of full size, so finite groups
# stagnate through noise where the expectation would not.
#
# ## 9 · The phase diagram
# The same task for every learning rate and every success rate at the start: does the run **converge** to $J=1$,
# **stagnate** below it, or **collapse** to 0? REINFORCE has a sharp border at $\mathrm{lr}=2/V$. Infinite groups converge
# nowhere: the blue strip on the left is runs that have not come far enough yet, and narrows as you wait. Groups of $G$ have
# their border at $2/(V\sqrt{G-1})$ (**G06.groups**). Beyond the borders the picture is frayed: there the run is chaotic.

# %%
rates, starts = np.geomspace(0.01, 8, 44), np.linspace(0.04, 0.96, 24)
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.6), layout="constrained", sharey=True)
for axis, name, title in zip(
    axes,
    ("reinforce", "population_grpo", "grpo"),
    ("REINFORCE", "GRPO, infinite groups", "GRPO, groups of 8"),
    strict=True,
):
    draw_phases(axis, rates, starts, phase_map(rates, starts, name, updates=800))
    axis.set_title(title)
for axis in axes[1:]:
    axis.set_ylabel("")


# %%
def groups(axis, size, waiting):
    """Phases of GRPO with groups of one size after a number of updates."""
    coarse, few = np.geomspace(0.02, 4, 24), np.linspace(0.1, 0.9, 7)
    draw_phases(axis, coarse, few, phase_map(coarse, few, "grpo", updates=int(waiting), group_size=int(size)))
    axis.axvline(1 / math.sqrt(size - 1), color="black", linewidth=1, linestyle="--")


explore(groups, Slider("group size", (2, 4, 16, 64)), Slider("updates", (100, 300)), size=(5, 2.8))

# %% [markdown]
# ## 10 · For your own run
# `step_safety` turns section 6 into learning rates: the largest rate of plain gradient steps whose expected update is
# *proved* to raise the log-odds, from the success rate, the length, and bounds on one token's score and its derivative.
# It is a lower bound, mostly a generous one; no noise, no Adam. Its use is the comparison down a column: which algorithms
# may keep their rate as $J\to1$, and which may not.

# %%
bounds = Bounds(score=1.5, curvature=0.6)
levels = (0.3, 0.9, 0.99, 0.999)
print("success rate       " + "".join(f"{J:>10g}" for J in levels))
safe = [step_safety(J, length=200, bounds=bounds, ddof=0, eps=0.0) for J in levels]
for name in safe[0]:
    print(f"{name:18} " + "".join(f"{column[name]:10.2e}" for column in safe))

# %% [markdown]
# ## Exercises
# Put your answer in place of `None` and run the two cells. A wrong answer is told what to look at; after
# `from _exercises import hint, solution`, `hint("04.1")` gives a push and `solution("04.1")` the answer.
#
# **1.** Write the gradient gap of a linear softmax policy, given the probabilities $p$ of the responses, their features
# (a row each) and which are right.


# %%
def my_gap(p, feature, right):
    return None


# %%
_ = check("04.1", my_gap)

# %% [markdown]
# **2.** Section 3 with wrong arms at $\pm4$. What is the largest multiple of the gap that lowers $J$ from no start?

# %%
my_multiple = None

# %%
_ = check("04.2", my_multiple)

# %% [markdown]
# **3.** Section 7: at which failure rate $1-J$ do infinite groups at learning rate 0.2 cross the threshold $2(1-J)/V$, $V=2$?
# (The run of section 8 stops earlier, at .102: there it hops with a finite height, where the threshold is another.)

# %%
my_crossing = None

# %%
_ = check("04.3", my_crossing)

# %% [markdown]
# **4.** Groups of 17, $V=2$: up to which learning rate do the expected updates of GRPO converge to $J=1$?

# %%
my_rate = None

# %%
_ = check("04.4", my_rate)

# %% [markdown]
# ## What to remember
# * The gradient gap is the slope of the log-odds; $\nabla J=J(1-J)\,g$ hides it at both ends.
# * A step is safe while the line beats the parabola: $c\le8/D^2$ for linear policies, sharp for three arms on a line.
# * One logit per arm, or two arms: no threshold. Perfect alignment does not protect from a collapse.
# * Thresholds fall like $1/T$; in $1-J$ a logarithm is enough for answers of bounded length.
# * Which algorithm stagnates is a matter of how fast $\omega(J)$ vanishes against the threshold: $\sqrt{1-J}$ is too slow,
#   finite groups are not, dynamic sampling does not vanish at all.
