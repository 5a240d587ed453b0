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
# # 08 · The forecast: what will RL gain?
#
# Before an RL run starts, its whole curve of mean reward can be computed from the checkpoint, and nothing is
# fitted. Here you build that forecast, from one coin to a small ladder of checkpoints, and check it against real runs. On
# language models the same three steps are `vgrad forecast PATH`; how well that works is in `docs/forecast.md`.
# Time: about 30 minutes. Ids such as **S26.ray** are entries of the project's ledger.

# %%
import matplotlib.pyplot as plt
import numpy as np
from _exercises import check, hint
from _sliders import Slider, explore

from vgrad_lab.advantage import from_group
from vgrad_lab.checkpoints.report.scores import r_squared, regret
from vgrad_lab.impact import grpo_scale
from vgrad_lab.ray import Ray, adam_step, along, band, conformal_width, expit, logit, speed, travel

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe–Ito: safe for colour-blind readers
GROUP = 8

# %% [markdown]
# ## 1 · One coin
# One prompt, one parameter: the answer is right with probability $p=\sigma(\theta)$. GRPO's expected gradient is
# $\kappa_G(p)\,p(1-p)$: the true one, scaled by the group's standardisation (**S10**). So $\theta$ moves at that speed, and
# the curve follows. With one parameter there is only one direction, the **ray** $\theta_0+x\,d$; the forecast reads $p$ off
# a few points along it and travels at the relative speed of the gradient. It is exact (**S26.ray**).


# %%
def coin_ray(p0, rate, reach):
    """The coin's ray at a few points, and κ there; x counts updates of the first speed."""
    step = rate * grpo_scale(np.array([p0]), GROUP)[0] * p0 * (1 - p0)
    x = np.concatenate([[0.0], np.geomspace(reach / 100, reach, 12)])
    p = expit(logit(np.array(p0)) + step * x)
    return Ray(x, p, step * p0 * (1 - p0)), grpo_scale(p, GROUP)


def coin_run(p0, rate, updates, rng, prompts=16):
    """Rewards of one real run: 16 groups of 8 coin flips per update, standardised advantages."""
    theta = float(logit(np.array(p0)))
    curve = [p0]
    for _ in range(updates):
        p = float(expit(np.array(theta)))
        won = (rng.random((prompts, GROUP)) < p).astype(float)
        advantage = from_group(won, "standardised", ddof=1, eps=1e-4)
        theta += rate * float(np.mean(advantage * (won - p)))
        curve.append(float(expit(np.array(theta))))
    return np.array(curve)


def forecast_coin(p0, rate, updates):
    ray, scale = coin_ray(p0, rate, reach=6.0 * updates)
    return np.array([along(ray)(x) for x in travel(speed(ray, scale), updates)])


def coin_picture(axis, p0, rate):
    rng = np.random.default_rng(0)
    for _ in range(8):
        axis.plot(coin_run(p0, rate, 30, rng), color="0.75", linewidth=0.8)
    axis.plot(forecast_coin(p0, rate, 30), "--", color=BLUE, label="forecast")
    axis.plot([], [], color="0.75", label="8 real runs")
    axis.set(xlabel="updates", ylabel="p", ylim=(0, 1))
    axis.legend(fontsize=8, loc="lower right")


explore(coin_picture, Slider("p₀", (0.02, 0.1, 0.3, 0.6)), Slider("rate", (0.1, 0.3, 1.0)))

# %% [markdown]
# ## 2 · Adam divides by the noise
# Adam's step is $\hat m/\sqrt{\hat v}$. If gradients scatter about a mean $\mu$ with variance $\sigma^2$, the mean step tends to
# $\mu/\sqrt{\mu^2+\sigma^2}$: a **sign, damped by noise** (**S26.adam**). Without noise a full step whatever the size of $\mu$.


# %%
def adam_mean_step(ratio, updates=4000, seed=0):
    """Mean step of Adam over the later half of a run of gradients with mean 1 and standard deviation 1/ratio."""
    gradient = 1 + np.random.default_rng(seed).standard_normal(updates) / ratio
    m = v = 0.0
    steps = []
    for k, g in enumerate(gradient, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        steps.append((m / (1 - 0.9**k)) / np.sqrt(v / (1 - 0.999**k)))
    return np.mean(steps[updates // 2 :])


ratios = np.array([0.1, 0.3, 0.5, 1.0, 2.0, 5.0])
found = [adam_mean_step(r) for r in ratios]
line = np.geomspace(0.08, 6, 100)
figure, axis = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
axis.semilogx(line, adam_step(np.ones(100), 1 / line**2), color=BLUE, label="μ/√(μ² + σ²)")
axis.semilogx(ratios, found, "o", color=ORANGE, label="Adam, simulated")
axis.set(xlabel="μ/σ of one update's gradient", ylabel="mean step ÷ learning rate", ylim=(0, 1.05))
_ = axis.legend()

# %% [markdown]
# This is half of an old riddle: a forecast that took full sign steps needed a factor of about 0.6 to be right. The noise
# gives a part of it; the rest is that the reward's logit bends along the ray (section 4).
#
# ## 3 · Many prompts, shared weights
# Now a small policy: prompts are feature vectors $x_q$, logits $Wx_q$, ten tokens, one of them right. Prompts share $W$, so
# the gradient **turns** as some are learnt before others. A checkpoint is a $W$; supervised training makes a ladder of them.

# %%
TOKENS, FEATURES, PROMPTS = 10, 12, 24


def task(seed):
    """Features and right tokens of all prompts; prompts of one token lie near each other."""
    rng = np.random.default_rng(seed)
    right = np.arange(PROMPTS) % 4
    centre = rng.standard_normal((4, FEATURES))
    return (centre[right] + 0.8 * rng.standard_normal((PROMPTS, FEATURES))) / np.sqrt(FEATURES), right


def probabilities(w, x):
    z = x @ w.T
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def success(w, world):
    x, right = world
    return probabilities(w, x)[np.arange(PROMPTS), right]


def ladder(world, rungs=12, rate=1.5):
    """Checkpoints of supervised training from small random weights."""
    x, right = world
    w = 0.3 * np.random.default_rng(5).standard_normal((TOKENS, FEATURES))
    made = []
    for _ in range(rungs):
        made.append(w.copy())
        for _ in range(2):
            w += rate * (np.eye(TOKENS)[right] - probabilities(w, x)).T @ x / PROMPTS
    return made


def sampled_gradient(w, world, rng, prompts=16):
    """One GRPO gradient: prompts drawn with replacement, groups of 8 samples, standardised advantages."""
    x, right = world
    q = rng.integers(0, PROMPTS, prompts)
    p = probabilities(w, x[q])
    token = (rng.random((prompts, GROUP, 1)) > p.cumsum(1)[:, None]).sum(-1).clip(max=TOKENS - 1)
    advantage = from_group((token == right[q][:, None]).astype(float), "standardised", ddof=1, eps=1e-4)
    score = np.eye(TOKENS)[token] - p[:, None]
    return np.einsum("qg,qgv,qd->vd", advantage, score, x[q]) / (prompts * GROUP)


def real_run(w, world, rate, updates, seed):
    """Mean reward along one run of GRPO with Adam."""
    rng = np.random.default_rng(seed)
    w, m, v = w.copy(), np.zeros_like(w), np.zeros_like(w)
    curve = [success(w, world).mean()]
    for k in range(1, updates + 1):
        g = sampled_gradient(w, world, rng)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w += rate * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
        curve.append(success(w, world).mean())
    return np.array(curve)


world = task(0)
rungs = ladder(world)
print("mean reward of the rungs:", np.round([success(w, world).mean() for w in rungs], 2))

# %% [markdown]
# ## 4 · Step, ray, and measured again
# The expected gradient is exact, $\mu=\frac1Q\sum_q\kappa_G(p_q)\nabla p_q$; its noise is estimated from a few sampled
# gradients. Step $d$ by Adam's law, rewards along $W+\eta x d$ by forward passes, one update per unit of $x$. After a third
# of the updates measure again where the ray has led; Adam's $\hat v$ still holds the squares from before. Slider: how often
# the gradient is measured.


# %%
def expected_gradient(w, world):
    x, right = world
    p = probabilities(w, x)
    own = p[np.arange(PROMPTS), right]
    slope = own[:, None] * (np.eye(TOKENS)[right] - p)  # ∂p_y/∂z
    return np.einsum("q,qv,qd->vd", grpo_scale(own, GROUP), slope, x) / PROMPTS


def direction(w, world, rng, memory, share, samples=40):
    """Adam's expected step, the share of a full sign step that noise leaves, and the mean square that v̂ holds."""
    mean = expected_gradient(w, world)
    noise = np.var([sampled_gradient(w, world, rng) for _ in range(samples)], axis=0, ddof=1)
    square = mean**2 + noise
    if memory is not None:
        square = share * memory + (1 - share) * square
    d = mean / np.sqrt(square)
    return d, float((mean * d).sum() / np.abs(mean).sum()), square


def forecast(w, world, rate, updates, passes=3, seed=0):
    """Mean reward after 0 … updates; the weights are followed along rays, nothing is trained."""
    rng, w, memory, done = np.random.default_rng([seed, 9]), w.copy(), None, 0
    curve, factors = [success(w, world).mean()], []
    for part in np.array_split(np.arange(updates), passes):
        d, factor, memory = direction(w, world, rng, memory, done / updates)
        curve += [success(w + rate * x * d, world).mean() for x in range(1, len(part) + 1)]
        w += rate * len(part) * d
        done += len(part)
        factors.append(factor)
    return np.array(curve), factors


RATE, UPDATES = 0.05, 30


def passes_picture(axis, rung, passes):
    w = rungs[int(rung)]
    runs = np.array([real_run(w, world, RATE, UPDATES, seed) for seed in range(6)])
    axis.plot(runs.T, color="0.8", linewidth=0.8)
    axis.plot(runs.mean(0), color="black", label="mean of 6 real runs")
    axis.plot(forecast(w, world, RATE, UPDATES, int(passes))[0], "--", color=BLUE, label="forecast")
    axis.set(xlabel="updates", ylabel="mean reward", ylim=(0, 1))
    axis.legend(fontsize=8, loc="lower right")


explore(passes_picture, Slider("rung", (0.0, 4.0, 10.0)), Slider("passes", (1.0, 2.0, 3.0)))

# %% [markdown]
# At the first rung the gradient turns and grows on the way; later rungs hardly need a second look:

# %%
for i in (0, 4, 10):
    runs = np.mean([real_run(rungs[i], world, RATE, UPDATES, seed) for seed in range(20)], axis=0)
    off = [np.abs(forecast(rungs[i], world, RATE, UPDATES, k)[0] - runs).mean() for k in (1, 2, 3)]
    print(f"rung {i:2}: mean error of the curve with 1, 2, 3 passes: " + ", ".join(f"{x:.4f}" for x in off))

# %% [markdown]
# And the old constant? Compare the first-order gain of a full sign step, in the logit, with what happens.

# %%
for i in (0, 4, 10):
    w = rungs[i]
    curve, factors = forecast(w, world, RATE, UPDATES)
    x, right = world
    p = probabilities(w, x)
    true = np.einsum("qv,qd->vd", success(w, world)[:, None] * (np.eye(TOKENS)[right] - p), x) / PROMPTS
    r = curve[0]
    full = RATE * UPDATES * np.abs(true).sum() / (r * (1 - r))
    rise = float(logit(np.array(curve[-1])) - logit(np.array(r)))
    print(f"rung {i:2}: constant {rise / full:.2f}, of which noise leaves {factors[0]:.2f}")

# %% [markdown]
# About a half here, and another number at every rung: noise leaves 0.7 of a full step, the rest is the bend of the logit
# along the ray. The forecast needs no such constant, because it reads both off the checkpoint.
#
# **Without Adam it is simpler.** The noise of a plain gradient step moves the mean reward in second order of the rate only
# (**S26.rehearsal**). So take the steps themselves, with the exact expected gradient, and nothing needs to be sampled:


# %%
def rehearsal(w, world, rate, updates):
    """Mean reward after 0 … updates along the expected gradient, measured anew at every update."""
    w, curve = w.copy(), [success(w, world).mean()]
    for _ in range(updates):
        w += rate * expected_gradient(w, world)
        curve.append(success(w, world).mean())
    return np.array(curve)


def plain_run(w, world, rate, updates, seed):
    """The same with sampled gradients: plain GRPO steps."""
    rng, w = np.random.default_rng(seed), w.copy()
    curve = [success(w, world).mean()]
    for _ in range(updates):
        w += rate * sampled_gradient(w, world, rng)
        curve.append(success(w, world).mean())
    return np.array(curve)


for i in (0, 4, 10):
    runs = np.array([plain_run(rungs[i], world, 3.0, UPDATES, seed) for seed in range(20)])
    gain, off = runs.mean(0)[-1] - runs[0, 0], np.abs(rehearsal(rungs[i], world, 3.0, UPDATES) - runs.mean(0)).mean()
    print(
        f"rung {i:2}: gain {gain:.3f}, mean error of the rehearsed curve {off:.4f}, one run's spread {runs[:, -1].std():.3f}"
    )

# %% [markdown]
# ## 5 · A band that keeps its word
# How wrong may a forecast be? Measure it on ladders that you keep for this: the band's half-width in the logit is
# *width* × (0.05 + change of the logit), and *width* is the 90 % quantile of the errors in these units (split conformal).
# Then judge it on ladders that chose nothing.


# %%
def curves(worlds, seeds=(0, 1)):
    """Forecast and real curves of every rung of several ladders, one row per run."""
    said, real = [], []
    for number in worlds:
        here = task(number)
        for w in ladder(here)[::2]:
            f = forecast(w, here, RATE, UPDATES)[0]
            for seed in seeds:
                said.append(f)
                real.append(real_run(w, here, RATE, UPDATES, seed))
    return np.array(said), np.array(real)


said, real = curves(range(1, 7))
width = conformal_width(said, real, level=0.9)
new_said, new_real = curves(range(7, 13))
inside = [
    (low[1:] <= run[1:]) & (run[1:] <= high[1:])
    for f, run in zip(new_said, new_real, strict=True)
    for low, high in [band(f, width=width)]
]
print(f"width {width:.2f} from 6 ladders; on 6 others {100 * np.mean(inside):.0f} % of all points lie in the band")

# %% [markdown]
# The points of one run hang together, so the share scatters about 90 % by several points: six ladders are few.
#
# ## 6 · Which checkpoint should RL start from?
# Forecast the mean gain of every rung of a ladder that has chosen nothing, and compare.

# %%
here = task(20)
forecasts, gains, before = [], [], []
for w in ladder(here):
    f = forecast(w, here, RATE, UPDATES)[0]
    runs = np.array([real_run(w, here, RATE, UPDATES, seed) for seed in range(3)])
    before.append(f[0])
    forecasts.append(f[1:].mean() - f[0])
    gains.append((runs[:, 1:] - f[0]).mean())
forecasts, gains, before = np.array(forecasts), np.array(gains), np.array(before)
figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.3), layout="constrained")
axes[0].axline((0, 0), slope=1, color="0.6", linewidth=0.8)
axes[0].plot(forecasts, gains, "o", color=BLUE)
axes[0].set(xlabel="forecast mean gain", ylabel="real mean gain", title="one point per rung")
axes[1].plot(before, gains, "s", color=ORANGE)
axes[1].set(xlabel="reward before RL", ylabel="real mean gain", title="… against today's reward")
print(f"R² {r_squared(forecasts, gains):.2f}, regret of the rung it chooses {regret(forecasts, gains):.3f}")
print(f"regret of the rung with the best reward before RL {regret(before, gains):.3f}")

# %% [markdown]
# ## Exercises
# Put your answer in place of `None` and run the two cells. `hint("08.1")` gives a push, `solution("08.1")` the answer.
#
# **1.** A parameter's gradient scatters with a standard deviation equal to its mean. What share of a full step does Adam make?

# %%
my_share = None

# %%
_ = check("08.1", my_share)

# %% [markdown]
# **2.** The coin of section 1, trained by plain gradient ascent. It has come from $p_0$ to $p$. Write how fast its *parameter*
# moves now, relative to the first update. (`grpo_scale(p, GROUP)` takes an array of probabilities.)


# %%
def my_speed(p, p0):
    return None


# %%
_ = check("08.2", my_speed)

# %% [markdown]
# **3.** Split conformal takes the $\lceil0.9\,(n+1)\rceil$-th smallest of $n$ calibration errors as the width of a 90 % band.
# What is the smallest $n$ for which there is such an error?

# %%
my_n = None

# %%
_ = check("08.3", my_n)

# %% [markdown]
# Stuck? For example:

# %%
hint("08.2")

# %% [markdown]
# ## What to remember
# * GRPO's expected update is known at a checkpoint. Adam turns it into a sign damped by noise.
# * Forward passes along the ray replace every higher derivative; where the gradient turns, measure again.
# * Plain gradient steps forget their noise to first order: rehearse them with exact gradients. Adam's steps are made of it.
# * The old factor of 0.6 is noise times curvature, and differs from checkpoint to checkpoint.
# * A band is worth what it covers on ladders that chose nothing.
