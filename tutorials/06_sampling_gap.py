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
# # 06 · The sampling gap: what fixed tokens do not carry
#
# A hidden state acts on the future in two ways. Directly, while the tokens stay as they were drawn: the **fixed-token
# path**. And by making other tokens likely: the **sampling path**. Backpropagation through a transcript sees the first
# only, since a drawn token has no derivative. The paper calls the rest the *sampling gap*, fills it with relaxed tokens
# (eq. 20), and bounds it by entropy (Prop. 2). Here you take the gap apart: what relaxations compute, what the bound is
# worth, and why GRPO has no gap at all. Time: about 30 minutes. Ids such as **S17** are entries of the project's ledger.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from _exercises import check, hint
from _sliders import Slider, explore

from vgrad_lab import simplex
from vgrad_lab.sequence.credit_flow import hidden_jacobian
from vgrad_lab.sequence.recurrent import GRU, RecurrentSpec
from vgrad_lab.sequence.sampling import relaxed_total_jacobian, relaxed_trace, sampling_path_jacobian
from vgrad_lab.sequence.transformer import Transformer, TransformerSpec

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe–Ito: safe for colour-blind readers
torch.set_num_threads(1)

# %% [markdown]
# ## 1 · One token, two words
# The smallest gap. Logits $(z,0)$, so token 1 has probability $p=\sigma(z)$; token 1 has embedding $x=1$, token 0 has $x=0$.
# Later the model earns $Q(x)$. The true derivative is that of a finite sum,
#
# $$\frac{d}{dz}\big[p\,Q(1)+(1-p)\,Q(0)\big]=p(1-p)\,\big(Q(1)-Q(0)\big).$$
#
# Relaxations put a soft token in its place:
#
# * **soft embedding**: feed $\bar x=p$ itself; derivative $p(1-p)\,Q'(p)$;
# * **straight-through**: feed the drawn token, pretend on the way back that it was soft; mean
#   $p(1-p)\,\mathbb E\,Q'(x)$;
# * **Gumbel-softmax** at temperature $\tau$: feed a noisy soft token; it can only be averaged.
#
# All three ask for the slope of $Q$ *between* the tokens, where no model was ever trained. With $Q(x)=2x^2-x$ token 1 earns
# 1 and token 0 earns 0, yet $Q$ first goes down.


# %%
def Q(x):
    return 2 * x**2 - x


def slope(x):
    return 4 * x - 1


def derivatives(p):
    """True derivative, soft embedding, straight-through."""
    return p * (1 - p), p * (1 - p) * slope(p), p * (1 - p) * (p * slope(1.0) + (1 - p) * slope(0.0))


def gumbel(p, temperature, draws=40_000):
    """Mean pathwise derivative of Gumbel-softmax for two tokens: the difference of two Gumbels is logistic."""
    u = (np.arange(draws) + 0.5) / draws
    soft = 1 / (1 + np.exp(-(np.log(p / (1 - p)) + np.log(u / (1 - u))) / temperature))
    return float(np.mean(slope(soft) * soft * (1 - soft) / temperature))


p = np.linspace(0.005, 0.995, 199)
true, soft, through = derivatives(p)
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
axes[0].plot(p, true, color="black", label="truth")
axes[0].plot(p, soft, "--", color=BLUE, label="soft embedding")
axes[0].plot(p, through, "-.", color=ORANGE, label="straight-through")
for temperature, colour in ((1.0, GREEN), (0.2, RED)):
    axes[0].plot(
        p, [gumbel(x, temperature) for x in p], ":", color=colour, label=f"Gumbel-softmax, τ = {temperature:g}"
    )
axes[0].axhline(0, color="0.7", linewidth=0.8)
axes[0].set(xlabel="p of token 1", ylabel="d/dz", title="Derivatives of the same policy")
axes[0].legend(fontsize=8)
axes[1].semilogx(p, soft / true, "--", color=BLUE)
axes[1].semilogx(p, through / true, "-.", color=ORANGE)
axes[1].axhline(0, color="0.7", linewidth=0.8)
axes[1].set(xlabel="p of token 1 (log scale)", ylabel="relaxed ÷ true", title="Low entropy does not help the direction")
for x in (0.5, 0.1, 0.01):
    t, s, g = derivatives(x)
    print(f"p = {x:4}: truth {t:+.4f}, soft {s:+.4f}, straight-through {g:+.4f}, Gumbel τ = 0.2 {gumbel(x, 0.2):+.4f}")

# %% [markdown]
# As $p\to0$ the entropy goes to 0, and so do all derivatives: the *absolute* gap closes. The *ratio* goes to $-1$: the
# relaxed gradients point the wrong way (**S21**). "The gap is bounded by entropy" says nothing about direction, because the
# signal itself is bounded by the same entropy.
#
# (Here straight-through has the same mean as the soft embedding, because the slope of a quadratic $Q$ is linear.) Only
# Gumbel-softmax at a small $\tau$ comes near the truth, at the price of noise: one draw passes back up to $1/(4\tau)$ times
# the slope, whatever the entropy (**S17.gumbel**).
#
# ## 2 · Eq. 20 in a network
# Feed the token after position $t$ as a soft token, $e=E^\top\mathrm{softmax}(z/\tau)$. Then the chain rule is exact
# (**S16**):
#
# $$\frac{dh_{t+1}}{dh_t}=\underbrace{J}_{\text{fixed tokens}}+\underbrace{\frac1\tau\,\frac{\partial h_{t+1}}{\partial e}\,
# \mathrm{Cov}_q(e_o,w_o)}_{\text{sampling path }M}.$$
#
# Sum the two terms, and compare with autograd through the whole relaxed step.

# %%
V, POSITION = 12, 3
inputs = torch.from_numpy(np.random.default_rng(0).integers(0, V, (8, POSITION + 2)))


def models(sharpness):
    """A transformer and a GRU whose logits are multiplied by ``sharpness``: the larger, the lower the entropy."""
    made = {
        "transformer": Transformer(TransformerSpec(V, width=16, heads=2, head_width=8), seed=0),
        "GRU": GRU(RecurrentSpec(V, width=16, layers=2), seed=0),
    }
    with torch.no_grad():
        for model in made.values():
            model.head.weight *= sharpness
    return made


def paths(model):
    """Fixed-token path J and sampling path M of the step (L, t) → (L, t+1), and the entropy of the token between."""
    target = (model.layers, POSITION + 1)
    relaxed = relaxed_trace(model, inputs, position=POSITION)
    kept = hidden_jacobian(relaxed, source=(model.layers, POSITION), target=target)
    missing = sampling_path_jacobian(model, relaxed, position=POSITION, target=target).detach()
    q = relaxed.logits[:, POSITION].detach().softmax(-1).numpy()
    return kept, missing, simplex.entropy(q)


for name, model in models(1.0).items():
    kept, missing, _ = paths(model)
    whole = relaxed_total_jacobian(model, inputs, position=POSITION, target=(model.layers, POSITION + 1))
    error = float((kept + missing - whole).norm() / whole.norm())
    print(
        f"{name:12} ‖J‖ = {float(kept.norm()):.3f}, ‖M‖ = {float(missing.norm()):.3f}, J + M against autograd {error:.1e}"
    )

# %% [markdown]
# In the transformer $J=0$ at $h^{(L)}$ (tutorial 05): there the "missing" path is **all there is**. Now turn down the
# entropy by sharpening the logits.

# %%
SHARP = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
rows = []
for sharpness in SHARP:
    for name, model in models(sharpness).items():
        kept, missing, entropy = paths(model)
        m, j = (x.flatten(1).norm(dim=1).numpy() for x in (missing, kept))
        rows.append((name, entropy, m, m / (m + j)))
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), layout="constrained")
for name, colour, marker in (("transformer", BLUE, "o"), ("GRU", ORANGE, "s")):
    h, size, share = (np.concatenate([r[i] for r in rows if r[0] == name]) for i in (1, 2, 3))
    axes[0].plot(h, size, marker, color=colour, markersize=4, label=name)
    axes[1].plot(h, share, marker, color=colour, markersize=4, label=name)
axes[0].set(xlabel="entropy, nats", ylabel="‖M‖", yscale="log", title="Size of the sampling path")
axes[1].set(xlabel="entropy, nats", ylabel="‖M‖ / (‖M‖ + ‖J‖)", title="… as a share of the step", ylim=(-0.05, 1.05))
_ = axes[1].legend()

# %% [markdown]
# The size has a hump: few tokens in play at the left, and at the right logits so flat that the state hardly moves them. The
# share is 1 in the transformer at **every** entropy. What Prop. 2 bounds is a number without a comparison.
#
# ## 3 · What the bound is worth
# All of Prop. 2 sits in one factor, $\kappa(p)=\|\mathrm{diag}(p)-pp^\top\|$. The paper: $\kappa\le C\sqrt{H/\ln V}$, with a
# $C$ free of $V$. Draw many distributions and see what is true (**S17**, **S17.sharp**). Slider: the size of the vocabulary.


# %%
def draw_simplices(vocabulary, count=400):
    """Distributions of every entropy: softmax of normal logits of random size, a few of two atoms."""
    rng = np.random.default_rng(1)
    z = rng.standard_normal((count, vocabulary)) * 10 ** rng.uniform(-1, 1.3, (count, 1))
    q = np.exp(z - z.max(1, keepdims=True))
    two = np.zeros((50, vocabulary))
    two[:, 0] = np.linspace(0.5, 0.9999, 50)
    two[:, 1] = 1 - two[:, 0]
    return np.concatenate([q / q.sum(1, keepdims=True), two])


grid = np.linspace(1e-4, 3, 300)


def bounds(axis, vocabulary):
    """κ against H, with the sharp bound, the linear one, and the paper's with C = 1."""
    q = draw_simplices(int(vocabulary))
    axis.plot(simplex.entropy(q), simplex.softmax_covariance_norm(q), ".", color="0.6", markersize=3)
    axis.plot(grid, simplex.sharp_entropy_bound(grid), color="black", label="K(H), sharp")
    axis.plot(grid, simplex.linear_entropy_bound(grid), "--", color=BLUE, label="min(½, H/(2 ln 2))")
    axis.plot(grid, simplex.paper_entropy_bound(grid, int(vocabulary), 1.0), ":", color=RED, label="√(H/ln V), C = 1")
    axis.set(xlabel="entropy H, nats", ylabel="κ", xlim=(0, 3), ylim=(0, 0.8))
    axis.legend(fontsize=8)


explore(bounds, Slider("V", (3.0, 30.0, 300.0, 3000.0)))

# %% [markdown]
# * With $V$ the red curve sinks through the points: two equally likely tokens have $\kappa=\frac12$ in any vocabulary. The
#   smallest $C$ that works is $0.600561\sqrt{\ln V}$, and $\ln V$ cancels.
# * The true law is **linear** and free of $V$: $\kappa\le H/(2\ln2)$. The square root gives the bound away where it
#   matters, at low entropy.
# * A small $\kappa$ does not need a small entropy: a uniform $p$ has $\kappa=1/V$.
#
# ## 4 · GRPO has no gap
# Put a model behind the token: the state moves $p$, the drawn token earns $R$. GRPO never differentiates through the token.
# It multiplies $\partial\log p(o)$ by an advantage, and the mean of that is the true derivative, sampling path included
# (**S21.exact**). Below, both terms for the policy of section 1: with $\mathbb E[\hat A\,\partial_z\log p]$ exactly on the
# truth, at every entropy, and no slope of $Q$ needed.


# %%
def score_term(x):
    """E[(Q − V) ∂_z log π] over the two tokens, V = E Q the baseline."""
    value = x * Q(1.0) + (1 - x) * Q(0.0)
    return x * (Q(1.0) - value) * (1 - x) + (1 - x) * (Q(0.0) - value) * (-x)


assert np.allclose(score_term(p), true, rtol=1e-12)
square = p * (1 - p) * ((1 - p) ** 3 + p**3)  # mean square of one sample
noise = np.sqrt(np.maximum(square - true**2, 0)) / true
figure, axis = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
axis.semilogy(p, noise, color=BLUE)
axis.set(xlabel="p of token 1", ylabel="noise ÷ signal of one sample", title="No bias; the price is noise")
print(f"noise ÷ signal at p = ½: {noise[99]:.2f}, at p = {p[1]:.3f}: {noise[1]:.1f}")

# %% [markdown]
# ## Exercises
# Put your answer in place of `None` and run the two cells. `hint("06.1")` gives a push, `solution("06.1")` the answer.
#
# **1.** In section 1, below which $p$ does the *soft embedding* move the logit the wrong way?

# %%
my_p = None

# %%
_ = check("06.1", my_p)

# %% [markdown]
# **2.** OLMo-2 has a vocabulary of $V=100\,352$. What is the smallest $C$ with $\kappa\le C\sqrt{H/\ln V}$ for all $p$?

# %%
my_constant = None

# %%
_ = check("06.2", my_constant)

# %% [markdown]
# **3.** Straight-through in general. Tokens $o=0\dots V-1$ with probabilities $p$ and logits $z$; the reward is $\varphi(o)$
# for the one-hot vector $o$, with gradients `slopes` (V, V), row $o$ the gradient $\nabla\varphi$ at token $o$. Write the
# expected straight-through gradient in $z$ (softmax backward): $C(p)\,\mathbb E\,\nabla\varphi(o)$.


# %%
def my_straight_through(p, slopes):
    return None


# %%
_ = check("06.3", my_straight_through)

# %% [markdown]
# Stuck? For example:

# %%
hint("06.3")

# %% [markdown]
# ## What to remember
# * Relaxed gradients need the slope of the future *between* tokens; as entropy falls, their size is right and their sign
#   need not be.
# * Eq. 20 is exact for soft tokens. At a transformer's last layer the sampling path is everything, whatever the entropy.
# * Prop. 2's $\ln V$ cancels; the sharp law is $\kappa\le\min(\frac12,H/(2\ln2))$.
# * GRPO's score term estimates the sampling path without bias: there is no gap, there is noise.
