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
# # 00 · One step: the score function meets the pathwise derivative
#
# An agent takes one action $a = \bar a + \xi$: a mean that it can move, and noise $\xi$ that it cannot. It earns $r(a)$.
# Which way should it move the mean, that is, what is $\frac{d}{d\bar a}\,\mathbb E\, r(\bar a+\xi)$?
#
# Two answers carry almost all of reinforcement learning:
#
# * the **score function** (SF) uses the reward as a number: $-\mathbb E\,[\,r(a)\,(\log\nu)'(\xi)\,]$, with $\nu$ the
#   density of the noise;
# * the **pathwise derivative** (PD) uses the reward's slope: $\mathbb E\,[\,r'(a)\,]$.
#
# GRPO, which trains language models, is of the first kind; backpropagation through time is of the second. Here you see
# when both are the same number, when one of them is wrong, and when both agree and are wrong. Time: about 30 minutes.
# Every claim has an id such as **S08** in the project's ledger. You need derivatives, expectations and a little NumPy.
#
# Some pictures have **sliders**; they live when you run the notebook with `ipywidgets` installed
# (`pip install -e '.[notebooks]'`), and show a few still values otherwise. The exercises at the end check your answers.

# %%
import matplotlib.pyplot as plt
import numpy as np
from _exercises import check, hint
from _sliders import Slider, explore
from scipy.optimize import brentq

from vgrad_lab import verify
from vgrad_lab.continuous import environments, noise, oracles, policies
from vgrad_lab.continuous.estimators import pathwise_gradient, score_function_gradient
from vgrad_lab.continuous.rollout import sample_rollout
from vgrad_lab.continuous.variance import one_step_moments

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe–Ito: safe for colour-blind readers
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1 · Two estimators in two lines
# Take $\nu = N(0,1)$, so $(\log\nu)'(\xi) = -\xi$, and $r(a)=\sin a$ at $\bar a = 0.5$.

# %%
mean = 0.5
xi = rng.standard_normal(100_000)
score_samples = np.sin(mean + xi) * xi  # reward × score
path_samples = np.cos(mean + xi)  # slope of the reward
for name, samples in (("score function", score_samples), ("pathwise", path_samples)):
    print(
        f"{name:15} mean {samples.mean():+.4f} ± {samples.std() / np.sqrt(len(samples)):.4f}   sd {samples.std():.3f}"
    )

# %% [markdown]
# Sampling only suggests that they agree. Quadrature proves it to 9 digits: `check_score_equals_pathwise` computes both
# forms and the true derivative, and raises an error that explains what is wrong when they differ.

# %%
found = verify.check_score_equals_pathwise(noise.gaussian(1.0), np.sin, np.cos, mean=mean)
print(found)

# %% [markdown]
# ## 2 · Why they agree: one integration by parts
# $\mathbb E\,r' = \int r'(\bar a+x)\,\nu(x)\,dx$ and $-\mathbb E\,[r\,(\log\nu)'] = -\int r(\bar a+x)\,\nu'(x)\,dx$ differ
# by $\int (r\nu)'\,dx$, which is zero **if $r\nu$ has no jumps** and all three are integrable. That is Lemma 1 of the
# paper (eq. 10, **S08**). The density may have a corner (Laplace), and so may the reward ($|a|$).

# %%
for law in (noise.gaussian(1.0), noise.laplace(1.0), noise.logistic(0.5)):
    step = verify.check_score_equals_pathwise(law, np.abs, np.sign, mean=mean, breaks=(0.0,))
    print(f"{law.name:10} r = |a|:  SF {step.score_function:.6f}  PD {step.pathwise:.6f}  truth {step.truth:.6f}")

# %% [markdown]
# ## 3 · The same mean, not the same variance
# "PD has lower variance" is a rule of thumb. For $r=\sin\omega a$ at $\bar a=0$ with noise of scale $\sigma$ both variances
# are known exactly, and the order flips at $\omega\sigma\approx1.109$ (**S03.variance**): a reward that wiggles within
# the noise has steep slopes that mean nothing. In a chaotic rollout the same thing happens to BPTT.


# %%
def variance_gap(omega, sigma=1.0):
    """Var PD − Var SF of one sample for r = sin ωa at ā = 0, in closed form."""
    both = one_step_moments("sine", scale=sigma, frequency=omega)
    return both.pathwise - both.score_function


flip = brentq(variance_gap, 0.5, 2.0)
grid = np.geomspace(0.2, 6, 60)
exact = [one_step_moments("sine", frequency=w) for w in grid]

figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
axis.loglog(grid, [m.score_function for m in exact], color=BLUE, label="score function")
axis.loglog(grid, [m.pathwise for m in exact], "--", color=ORANGE, label="pathwise")
for omega in (0.5, flip, 3.0):
    samples = np.sin(omega * xi) * xi, omega * np.cos(omega * xi)
    for s, colour in zip(samples, (BLUE, ORANGE), strict=True):
        axis.plot(omega, s.var(), "o", color=colour, markersize=5)
axis.axvline(flip, color="0.6", linewidth=1)
axis.set(xlabel="frequency ω of the reward (noise σ = 1)", ylabel="variance of one sample", title="The order flips")
axis.set_xticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
axis.tick_params(axis="x", which="minor", labelbottom=False)
axis.legend()
print(f"the order flips at ωσ = {flip:.4f}; lines: closed form, dots: {len(xi)} samples")

# %% [markdown]
# What a single sample looks like on either side. A pathwise sample is at most ω in size, but takes both extremes as soon
# as the noise spans a period; a score-function sample does not care how often the reward wiggles. Turn both sliders and
# watch the product ωσ.


# %%
def sample_histogram(axis, omega, sigma):
    shift = sigma * xi[:20_000]
    samples = {"score function": np.sin(omega * shift) * shift / sigma**2, "pathwise": omega * np.cos(omega * shift)}
    both = one_step_moments("sine", scale=sigma, frequency=omega)
    variance = {"score function": both.score_function, "pathwise": both.pathwise}
    for (name, s), colour in zip(samples.items(), (BLUE, ORANGE), strict=True):
        label = f"{name}, variance {variance[name]:.2f}"
        axis.hist(s, np.linspace(-4, 4, 81), density=True, histtype="step", color=colour, label=label)
    axis.axvline(both.mean, color="black", linewidth=0.8)
    axis.set(xlabel="one sample of the gradient (line: the mean)", ylabel="density", ylim=(0, 2.2))
    axis.legend(fontsize=7, loc="upper left")


explore(sample_histogram, Slider("ω", (0.3, 0.5, 0.8, 1.1, 1.5, 2.0, 3.0)), Slider("σ", (0.5, 0.7, 1.0, 1.4, 2.0)))

# %% [markdown]
# ## 4 · Noise with an edge breaks the score function
# For uniform noise the density is flat inside, so its score is 0 and SF is exactly 0, whatever the reward. PD is right.
# What is missing sits at the edges, where $\nu$ jumps. In general (**S08.jump**)
#
# $$\text{PD} = \text{SF} - \sum_x \big[\,r(\bar a+\cdot)\,\nu\,\big]_x ,$$
#
# the sum of the jumps of reward times density. Moving the mean moves the edges: that is a real effect on $\mathbb E\,r$,
# and a score evaluated at the samples cannot see it.

# %%
step = verify.score_and_pathwise(noise.uniform(1.0), np.sin, np.cos, mean=mean)
print(f"SF {step.score_function:+.6f}   PD {step.pathwise:+.6f}   Σ[rν] {step.jump:+.6f}   truth {step.truth:+.6f}")
print(f"SF − Σ[rν] = {step.score_function - step.jump:+.6f}")

x = np.linspace(-1.6, 2.6, 1401)
figure, axis = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
axis.plot(x, np.sin(x), color="0.6", label="reward r(a)")
product = np.sin(x) * noise.uniform(1.0).density(x - mean)
axis.plot(x, product, color=BLUE, label="r(a)·ν(a − ā)")
for edge, start, end in ((mean - 1, 0, np.sin(mean - 1) / 2), (mean + 1, np.sin(mean + 1) / 2, 0)):
    axis.annotate("", (edge, end), (edge, start), arrowprops={"arrowstyle": "->", "color": RED, "lw": 2})
axis.set(xlabel="action a", title="What SF misses: the jumps (red) at the edges of the noise")
_ = axis.legend()

# %% [markdown]
# Move the mean. The score function stays at 0; the pathwise derivative and the truth follow $\cos$, and the jump makes up
# the difference. Where the two edges earn the same, the jumps cancel and SF is right by accident.


# %%
def edge_effect(axis, mean):
    step = verify.score_and_pathwise(noise.uniform(1.0), np.sin, np.cos, mean=mean)
    bars = {"SF": step.score_function, "PD": step.pathwise, "SF − Σ[rν]": step.score_function - step.jump}
    axis.bar(bars.keys(), bars.values(), color=(BLUE, ORANGE, GREEN))
    axis.axhline(step.truth, color="black", linewidth=1, label=f"truth {step.truth:+.3f}")
    axis.set(ylabel="derivative of E r in ā", ylim=(-1, 1))
    axis.legend(fontsize=8)


explore(edge_effect, Slider("mean action ā", tuple(np.round(np.linspace(0, np.pi, 9), 2))))

# %% [markdown]
# The checker refuses and says which form is to blame:

# %%
try:
    verify.check_score_equals_pathwise(noise.uniform(1.0), np.sin, np.cos, mean=mean)
except AssertionError as error:
    print(error)

# %% [markdown]
# ## 5 · A reward with an edge breaks the pathwise derivative
# Pass or fail, right or wrong: $r(a)=\mathbb 1[a>0]$. Its slope is 0 wherever it exists, so PD = 0 (**S03**). SF does not
# mind: the truth is $\nu(-\bar a)$, the density of the samples that are about to flip. Rewards of language models are of
# this kind, and this is why policy gradients there use scores.


# %%
def heaviside(a):
    return (a > 0) * 1.0


step = verify.score_and_pathwise(noise.gaussian(1.0), heaviside, np.zeros_like, mean=mean, breaks=(0.0,))
print(f"SF {step.score_function:.6f}   PD {step.pathwise:.6f}   truth {step.truth:.6f}")

# %% [markdown]
# ## 6 · Agreement proves nothing
# Put both edges together: uniform noise and a pass-or-fail reward. SF = 0 and PD = 0. They agree, and the truth is ½:
# the jumps in the noise's edges and in the reward cancel in $\sum[r\nu]$. So a test that compares two estimators with each
# other can pass while both are wrong. **Always compare with the derivative of the mean itself.**

# %%
step = verify.score_and_pathwise(noise.uniform(1.0), heaviside, np.zeros_like, mean=mean, breaks=(0.0,))
print(f"SF {step.score_function:.6f}   PD {step.pathwise:.6f}   Σ[rν] {step.jump:.6f}   truth {step.truth:.6f}")
try:
    verify.check_score_equals_pathwise(noise.uniform(1.0), heaviside, np.zeros_like, mean=mean, breaks=(0.0,))
except AssertionError as error:
    print(error)

# %% [markdown]
# ## 7 · From one step to a rollout
# The same two estimators exist for a whole rollout; the pathwise one is backpropagation through time, and what it carries
# backwards is the **costate** $\lambda_t=\partial R_t/\partial s_t$ (**S04**). In a linear-quadratic system the exact
# gradient is known in closed form, so both can be judged. Here is the first entry of $\partial J/\partial K$.

# %%
environment = environments.random_linear_quadratic(np.random.default_rng(1), 2, 1)
policy = policies.linear_policy(np.array([[0.2, -0.1]]), noise=noise.gaussian(0.3))
played = sample_rollout(environment, policy, rng, batch=20_000, horizon=10)
estimates = {
    "score function": score_function_gradient(environment, policy, played, discount=0.95)[:, 0],
    "pathwise": pathwise_gradient(environment, policy, played, discount=0.95)[:, 0],
}
oracle = oracles.linear_quadratic_oracle(environment, policy, horizon=10, discount=0.95)
exact = oracles.parameter_gradient(oracle, played.state[:, 0])[0]
print(f"exact {exact:+.4f}")
for name, samples in estimates.items():
    print(
        f"{name:15} {samples.mean():+.4f} ± {samples.std() / np.sqrt(len(samples)):.4f}   sd of one sample {samples.std():.2f}"
    )

# %% [markdown]
# ## Exercises
# Put your answer in place of `None` and run the two cells. A wrong answer is told what to look at; `hint("00.1")` gives a
# push and `solution("00.1")` the answer.
#
# **1.** The flip of section 3 was at ω = 1.109 for σ = 1. At which ω does it happen for σ = 0.5?

# %%
my_omega = None

# %%
_ = check("00.1", my_omega)

# %% [markdown]
# **2.** Exponential noise, $\nu(x)=e^{-x}$ for $x\ge0$, and $r(a)=a$. There is one jump, at $x=0$. What is $\sum[r\nu]$ as a
# function of $\bar a$, and so what does SF give? (The truth is 1.)


# %%
def my_jump(mean):
    return None


# %%
_ = check("00.2", my_jump)

# %% [markdown]
# **3.** Bring your own noise: the triangle $\nu(x)=1-|x|$ on $[-1,1]$. It has corners but no jumps, so Lemma 1 should hold.
# Write its score $(\log\nu)'$ for an array `x` inside the support. The check builds the noise with `noise.custom` and puts
# it through `check_score_equals_pathwise`.


# %%
def my_score(x):
    return None


# %%
_ = check("00.3", my_score)

# %% [markdown]
# **4.** Predict before you compute. Noise of scale 1, mean $\bar a=0.3$; "step" is $\mathbb 1[a>0]$. Which form is the true
# derivative: `"both"`, `"SF"`, `"PD"` or `"neither"`?

# %%
my_forms = {
    "gaussian, sin": None,
    "uniform, sin": None,
    "gaussian, step": None,
    "exponential, |a|": None,
    "uniform, step": None,
}

# %%
_ = check("00.4", my_forms)

# %% [markdown]
# Stuck? For example:

# %%
hint("00.4")

# %% [markdown]
# ## What to remember
# * SF and PD are one integral, integrated by parts; edges of the noise break SF, edges of the reward break PD.
# * Equal means, different variances: neither is always better.
# * Two estimators that agree may both be wrong. Check against the derivative of the mean.
