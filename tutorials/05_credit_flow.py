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
# # 05 · Credit flow: who sends credit to whom
#
# A language model answers at position $k$. Which of the states before it deserve credit? Here credit is a derivative:
# fix all tokens, nudge one hidden state $h_t^{(l)}$, and see how much the answer's logit moves,
#
# $$\Big\|\frac{\partial\tilde z_k}{\partial h_t^{(l)}}\Big\|,\qquad \tilde z=z_{\rm answer}-\tfrac1V\textstyle\sum_v z_v .$$
#
# (The mean logit is taken off because softmax does not see it; unlike $\log\pi$ this does not fade when the model is sure.)
# Written for all $k$ and $t$ this is the **credit matrix**. You will watch it while a transformer and a GRU learn, see
# where it is exactly zero, and find out what that means for the paper's recursion. Time: about 30 minutes. Ids such as
# **S13** are entries of the project's ledger; `docs/credit.md` has the same numbers for more tasks, models and seeds.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from _exercises import check, hint
from _sliders import Slider, explore

from vgrad_lab.sequence.credit_flow import credit_norms, empirical_costate
from vgrad_lab.sequence.enumeration import continuations, expected_costate, value_gradient
from vgrad_lab.sequence.recurrent import GRU, RecurrentSpec, TokenOnly
from vgrad_lab.sequence.recursion import one_step_recursion
from vgrad_lab.sequence.tasks import RecallTask, draw
from vgrad_lab.sequence.trace import trace
from vgrad_lab.sequence.training import quality, train_stages
from vgrad_lab.sequence.transformer import Transformer, TransformerSpec

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"  # Okabe–Ito: safe for colour-blind readers
torch.set_num_threads(1)

# %% [markdown]
# ## 1 · A task whose right credit is known
# **Associative recall.** Two pairs of key and value, then the keys again in any order; after each the model must name the
# value that stood behind it. Each answer was shown once, so we know which position *ought* to get the credit.

# %%
task = RecallTask(pairs=2, keys=4, values=4)
cases = draw(task, 256, rng=np.random.default_rng(0))
row = cases.inputs[0].tolist()
print("inputs  ", " ".join(f"k{t}" if t < task.keys else f"v{t - task.keys}" for t in row))
for query, position in enumerate(task.queries):
    print(f"position {position} asks; the answer v{int(cases.targets[0, position]) - task.keys} stood at position "
          f"{int(cases.source[0, query])}")  # fmt: skip

# %% [markdown]
# ## 2 · The credit matrix before any training
# Four panels of random networks: a transformer at the input of its first layer and at its last layer $h^{(L)}$, a GRU at
# $h^{(L)}$, and a network whose state is a function of the newest token alone. Row $k$: which logit; column $t$: which
# state.


# %%
def credit_matrix(model, layer, chosen=slice(None)):
    """Mean credit over the chosen sequences, (T, T): row k, column t."""
    result = trace(model, cases.inputs[chosen])
    rows = [credit_norms(result, cases.targets[chosen], position=k)[layer].mean(0) for k in range(task.length)]
    return np.array(rows)


def show(axis, matrix):
    """Draw each row's shares of its credit; exact zeros stay white."""
    share = matrix / matrix.sum(1, keepdims=True)
    axis.imshow(np.where(share > 0, share, np.nan), cmap="viridis", vmin=0, vmax=0.5, aspect="auto")
    axis.set(xlabel="state t", ylabel="logit k", xticks=range(task.length), yticks=range(task.length))


transformer = Transformer(TransformerSpec(task.vocab, width=32, heads=4, head_width=8, max_length=8), seed=0)
gru = GRU(RecurrentSpec(task.vocab, width=32, layers=2), seed=0)
forgetful = TokenOnly(RecurrentSpec(task.vocab, width=32, layers=2), seed=0)
panels = (
    ("transformer, embedding", transformer, 0),
    ("transformer, h^(L)", transformer, -1),
    ("GRU, h^(L)", gru, -1),
    ("token-only, embedding", forgetful, 0),
)
figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for axis, (name, model, layer) in zip(axes, panels, strict=True):
    matrix = credit_matrix(model, layer)
    show(axis, matrix)
    axis.set_title(name, fontsize=10)
    across = np.tril(matrix, -1)
    print(
        f"{name:24} largest credit across positions {across.max():.4f}, above the diagonal {np.triu(matrix, 1).max()}"
    )

# %% [markdown]
# * Nothing lies above the diagonal: no model sees the future.
# * At a transformer's **last layer** only the diagonal is left, and the rest is exactly `0.0`, not small (**S13**). A state
#   of layer $l$ reads layer $l-1$; no two states of one layer depend on each other. The paper's Definition 2 looks for
#   attention's credit precisely there.
# * One has to go **down**: at the embedding every earlier state has credit, through attention in the layers above
#   (**S13.depth**).
# * The **GRU** has credit through time at its last layer, by its recurrence. "In an RNN sampling blocks all credit" is true
#   of the fourth panel alone (**S15**, **S15.token**).
#
# ## 3 · Watch it learn
# Now train the transformer and the GRU on the task, and stop now and then to look. Turn the slider: the step of training.
# Rows 4 and 6 are those that matter: the queries. The pictures show the sequences that ask for the first value first and
# for the second one next, so the right credit is at (4, 1) and (6, 3). Brighter: a larger share of its row.

# %%
STOPS = (0, 20, 40, 60, 100, 200, 400)
in_order = (cases.source == torch.tensor([1, 3])).all(1)


def learn(model):
    """Credit matrices at the embedding, accuracy, and selectivity, at each stop."""
    films = []
    for _ in train_stages(model, task, steps=STOPS[-1], stops=STOPS, batch=32, seed=0):
        result = trace(model, cases.inputs)
        asked, other = [], []
        for query, k in enumerate(task.queries):
            norms = credit_norms(result, cases.targets, position=k)[0]
            for t in (1, 3):
                hit = cases.source[:, query].numpy() == t
                asked += norms[hit, t].tolist()
                other += norms[~hit, t].tolist()
        films.append(
            (credit_matrix(model, 0, in_order), quality(model, task).accuracy, np.mean(asked) / np.mean(other))
        )
    return films


films = {
    "transformer": learn(
        Transformer(
            TransformerSpec(task.vocab, width=32, heads=4, head_width=8, max_length=8), seed=0, dtype=torch.float32
        )
    ),
    "GRU": learn(GRU(RecurrentSpec(task.vocab, width=32, layers=2), seed=0, dtype=torch.float32)),
}


def transformer_at(axis, step):
    show(axis, films["transformer"][STOPS.index(int(step))][0])


def gru_at(axis, step):
    show(axis, films["GRU"][STOPS.index(int(step))][0])


explore(transformer_at, Slider("transformer, step", tuple(map(float, STOPS))), size=(3.4, 3.0))

# %%
explore(gru_at, Slider("GRU, step", tuple(map(float, STOPS))), size=(3.4, 3.0))

# %% [markdown]
# One number for it, over all sequences: the credit of the value **asked for** divided by that of the **other** one,
# selectivity. 1 means that credit goes to both alike.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), layout="constrained")
for (name, film), colour, look in zip(films.items(), (BLUE, ORANGE), ("o-", "s--"), strict=True):
    axes[0].plot(STOPS, [a for _, a, _ in film], look, color=colour, label=name)
    axes[1].plot(STOPS, [s for _, _, s in film], look, color=colour, label=name)
    print(
        f"{name:12} accuracy {film[-1][1]:.2f}, selectivity {film[0][2]:.2f} before and {film[-1][2]:.2f} after training"
    )
axes[0].set(xlabel="step", ylabel="accuracy", title="Right answers")
axes[1].set(xlabel="step", ylabel="asked ÷ other", yscale="log", title="Selectivity at the embedding")
axes[1].axhline(1, color="0.6", linewidth=0.8)
_ = axes[0].legend()

# %% [markdown]
# In the transformer selectivity rises with accuracy. The GRU must carry both values along, whichever will be asked for,
# learns the task only in part in so few steps, and its credit hardly tells the two apart. The paper's Prop. 3 speaks of *broad* attention as richer credit; what learning
# builds here is the opposite, credit that goes where the answer was (**S19**). One run of one seed is an anecdote: the
# study behind `docs/credit.md` has five seeds, two ways to be equal and intervals.
#
# ## 4 · The recursion of eq. 15
# GRPO's empirical costate is $\hat\lambda_t^{(l)}=\partial_{h_t^{(l)}}\sum_k\hat A_k\log\pi(o_k)$. The paper writes it as a
# recursion in time, $\hat\lambda_t=\hat A_t\,\partial\ell_t+J_{t+1\leftarrow t}^\top\hat\lambda_{t+1}$, with $J$ within one layer.
# You have just seen which $J$ are zero. So where is the recursion right?

# %%
rng = np.random.default_rng(1)
few, advantage = cases.inputs[:2], rng.standard_normal((2, task.length))
for name, model in (("transformer", transformer), ("GRU", gru)):
    result = trace(model, few)
    exact = empirical_costate(result, cases.targets[:2], advantage)
    for layer in range(model.layers + 1):
        guess = one_step_recursion(result, cases.targets[:2], advantage, layer=layer)
        print(
            f"{name:12} layer {layer}: relative error {float((guess - exact[layer]).norm() / exact[layer].norm()):.1e}"
        )

# %% [markdown]
# At the transformer's last layer it is true and empty: $J=0$, only $\hat A_t\,\partial\ell_t$ is left. Below it fails. At the
# top of the GRU it is exact, with $J\ne0$: the reverse of the paper's story (**S14**, **S14.gru**).
#
# ## 5 · Is credit at one's own token then all there is? No matter: it is unbiased
# Sum over **all** continuations of a prompt. The mean of $\hat\lambda$ is the derivative of the expected reward,
# $\mathbb E\,\hat\lambda_t^{(l)}=\partial_h\mathbb E\,[R\mid do(h_t^{(l)}=h)]$, at every layer, position and in every model:
# what does not flow along fixed tokens is carried by $\hat A$, which knows what came later (**S21.exact**).

# %%
small = continuations(3, [0, 2, 1], remaining=2)
reward = np.random.default_rng(2).standard_normal(9)
for name, model in (
    ("transformer", Transformer(TransformerSpec(3, width=8), seed=1)),
    ("GRU", GRU(RecurrentSpec(3, width=8), seed=1)),
    ("token-only", TokenOnly(RecurrentSpec(3, width=8), seed=1)),
):
    truth, mean = value_gradient(model, small, reward), expected_costate(model, small, reward)
    print(
        f"{name:12} relative error of E λ̂ over all layers and positions: {float((mean - truth).norm() / truth.norm()):.1e}"
    )

# %% [markdown]
# ## Exercises
# Put your answer in place of `None` and run the two cells. `hint("05.1")` gives a push, `solution("05.1")` the answer.
#
# **1.** Eleven tokens, a transformer with random weights. How many entries of the credit matrix are not zero, at the
# embedding and at $h^{(L)}$?

# %%
my_entries = {"embedding": None, "h^(L)": None}

# %%
_ = check("05.1", my_entries)

# %% [markdown]
# **2.** Write selectivity: `norms` (B, T) is the credit from one query, `source` (B,) the position asked for in each row, and
# `shown` (T,) says which positions were candidates. Mean credit of the sources ÷ mean credit of the other candidates.


# %%
def my_selectivity(norms, source, shown):
    return None


# %%
_ = check("05.2", my_selectivity)

# %% [markdown]
# **3.** Predict before you compute: at which of these states is eq. 15 exact for *random* weights? Answer `"exact"`,
# `"empty"` (exact, with $J=0$) or `"wrong"`.

# %%
my_recursions = {
    "transformer, embedding": None,
    "transformer, h^(L)": None,
    "GRU of one layer, h^(L)": None,
    "GRU of two layers, first layer": None,
    "token-only, h^(L)": None,
}

# %%
_ = check("05.3", my_recursions)

# %% [markdown]
# Stuck? For example:

# %%
hint("05.3")

# %% [markdown]
# ## What to remember
# * Within a layer of a transformer nothing crosses positions; credit crosses on its way down through the layers.
# * A GRU carries credit through time at every state. Only a network that forgets all but the newest token does not.
# * Learning makes credit selective.
# * Whatever flows or not: with advantages of return type the mean empirical costate is the value gradient.
