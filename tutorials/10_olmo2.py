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
# # 10 · OLMo-2: from a sheet of paper to a GPU
#
# The paper's experiment runs on twenty checkpoints of OLMo-2 1B. Before a GPU is rented, paper answers three questions:
# does it fit into the card's memory, how fast can it be at best, and how long do the downloads take? Then the recorded
# results, and one live cell for a reader who has a GPU. Time: about 25 minutes.
#
# Sizes come from published configurations, everything else is counted; nothing is downloaded.

# %%
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers
from _exercises import check, hint
from _sliders import Slider, explore

from vgrad_lab.checkpoints import operations as op
from vgrad_lab.checkpoints.grpo import GrpoSettings
from vgrad_lab.checkpoints.memory import forecast_needed, memory_needed
from vgrad_lab.checkpoints.plan import duration, gigabytes

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"  # Okabe–Ito: safe for colour-blind readers
OLMO = {"vocab_size": 100_352, "tie_word_embeddings": False}
MODELS = {
    "1B": transformers.Olmo2Config(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=16, **OLMO
    ),
    "7B": transformers.Olmo2Config(
        hidden_size=4096, intermediate_size=11_008, num_hidden_layers=32, num_attention_heads=32, **OLMO
    ),
}
SHAPES = {name: op.shape_of(config) for name, config in MODELS.items()}
for name, shape in SHAPES.items():
    print(f"{name}: {shape.parameters:,} parameters, {gigabytes(4 * shape.parameters)} in float32")

# %% [markdown]
# ## 1 · Does it fit?
# RL keeps the weights, a gradient of the same size, AdamW's two moments, and what the backward pass needs of the forward
# pass (activations). `memory_needed` counts them from the configuration alone: it builds the model without numbers.

# %%
PROTOCOLS = {
    "AdamW": GrpoSettings(),
    "AdamW, layers computed twice": GrpoSettings(recompute=True),
    "AdamW, moments on the host": GrpoSettings(recompute=True, states="host"),
    "SGD": GrpoSettings(optimizer="sgd", recompute=True),
}
print(f"{'':30}{'1B':>10}{'7B':>10}   on the device")
for title, protocol in PROTOCOLS.items():
    sizes = [gigabytes(memory_needed(config, protocol).device) for config in MODELS.values()]
    print(f"{title:30}{sizes[0]:>10}{sizes[1]:>10}")
sizes = [gigabytes(forecast_needed(config)) for config in MODELS.values()]
print(f"{'a forecast':30}{sizes[0]:>10}{sizes[1]:>10}")

# %% [markdown]
# 1B fits a card of 40 GB; 7B with AdamW one of 141 GB if layers are computed twice. With the moments on the host it fits
# 80 GB: the same numbers up to rounding, but every update then crosses the link between card and host. The forecast is the
# largest guest: moments of three gradients, directions, weights to put back, sixteen copies in all. It fits 1B on a card of
# 141 GB, and 7B on none: `--no-forecast` there. (All of this, with options: `docs/real_ladders.md`.)
#
# ## 2 · How fast can it be?
# A multiply-add is two operations, and each weight makes one per token forward, two more backward. So both passes
# cost about $6N$ operations per token, whatever the model. The weights must also be *read*: once forward, once backward,
# and the gradient written. The slower of the two is the **floor**: no program is faster. Move the sliders to your card.

# %%
TOKENS = 12 * np.unique(np.geomspace(1, 5000, 60).astype(int))  # prompts of a dozen tokens


def floor_picture(axis, tflops, terabytes):
    """Floor of forward and backward in milliseconds against tokens per update; dotted: operations alone."""
    for (name, shape), colour in zip(SHAPES.items(), (BLUE, ORANGE), strict=True):
        batches = [np.full(t // 12, 12) for t in TOKENS]
        work = [op.forward_work(shape, batch) + op.backward_work(shape, batch) for batch in batches]
        both = [1e3 * op.floor_seconds(w, flops=1e12 * tflops, bandwidth=1e12 * terabytes) for w in work]
        axis.loglog(TOKENS, both, color=colour, label=name)
        axis.loglog(TOKENS, [1e3 * w.flops / (1e12 * tflops) for w in work], ":", color=colour)
    axis.set(xlabel="tokens per update", ylabel="floor, ms")
    axis.legend(fontsize=8)


explore(floor_picture, Slider("tflops", (50.0, 100.0, 400.0, 1000.0)), Slider("terabytes", (0.5, 1.0, 4.0)))

# %% [markdown]
# Left of the bend a card waits for memory. The label-copy task sits far to the left: 16 prompts of a dozen tokens are 200
# tokens, so an update costs what it costs to read the weights and step the optimiser. Longer answers move to the right.
#
# ## 3 · One rung, stage by stage
# A card with round numbers; put yours in its place (`benchmarks/gpu.py --part rates` measures them).

# %%
CARD = {"flops": 100e12, "bandwidth": 1e12, "disk": 1e9}  # operations/s, bytes/s of the memory, bytes/s off the disk
PROMPT, DIFFERENT = 12, 110  # tokens of a prompt, different prompts among the 256 that are drawn
evaluated = np.full(DIFFERENT, PROMPT)
rl = GrpoSettings()
stages = {
    "load": lambda s: op.load_work(s),
    "measure": lambda s: op.measure_work(s, evaluated),
    "forecast": lambda s: op.forecast_work(s, {"forward": 750, "backward": 576}, PROMPT),
    "30 updates of GRPO": lambda s: op.grpo_work(
        s, np.full(30 * rl.prompts, PROMPT), 30, [evaluated] * 5, optimizer="adamw"
    ),
}
print(f"{'floor, seconds':22}{'1B':>8}{'7B':>8}")
for title, stage in stages.items():
    print(f"{title:22}" + "".join(f"{op.floor_seconds(stage(s), **CARD):8.2f}" for s in SHAPES.values()))

# %% [markdown]
# Loading rules: a rung is read once, so the next one is read while the present one computes, and its weights are put into
# the model that stands there. Everything above the floor is launch overhead and waiting; how much, only a measurement says.
#
# ## 4 · The downloads, from metadata
# Twenty rungs of two shards each; one is fetched ahead and each is deleted after use. (`vgrad ladder plan olmo2-1b-paper`
# asks the hub for the real sizes, without a byte of weights.)

# %%
from vgrad_lab.checkpoints.inventory import HubFile, Inventory
from vgrad_lab.checkpoints.known_ladders import KNOWN
from vgrad_lab.checkpoints.plan import make_plan

SHARDS = {"model-00001-of-00002.safetensors": 4_983_360_992, "model-00002-of-00002.safetensors": 956_326_560}
files = tuple(HubFile(path, size) for path, size in SHARDS.items())
steps = KNOWN["olmo2-1b-paper"].steps
ladder = [Inventory(f"step{step}", files, shards=frozenset(SHARDS)) for step in steps]
print(f"{len(ladder)} rungs; published shards hold {gigabytes(sum(SHARDS.values()))}")
for rate in (20e6, 100e6, 500e6):
    plan = make_plan(ladder, rate=rate, compute=60.0)
    print(f"{rate / 1e6:5.0f} MB/s, a minute of work a rung: {gigabytes(plan.weight_bytes)} in {duration(plan.total_seconds)},"
          f" at most {gigabytes(plan.peak_bytes)} on the disk")  # fmt: skip

# %% [markdown]
# ## 5 · What is recorded
# Results of GPUs, if any are committed; otherwise the embedded ladder's: half a million parameters instead of a billion,
# the same code and the same task.

# %%
RESULTS = Path("../docs/results")
gpu = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("gpu-*.json"))]
if gpu:
    studies = [
        (f"{r['card']}, {s['optimizer']}", [(x["predictor"], x["spearman"]) for x in s["predictors"]])
        for r in gpu
        for s in r["parts"]["b"]["result"]["studies"]
        if "predictors" in s
    ]
else:
    print("No GPU result is committed; these are the embedded ladder's, made on a CPU.")
    summary = json.loads((RESULTS / "embedded.json").read_text(encoding="utf-8"))["summary"]
    studies = [
        (f"embedded, {s['optimizer']}", [(x["predictor"], x["spearman"]) for x in s["predictors"]])
        for s in summary["studies"]
    ]
for title, rows in studies:
    known = sorted((x for x in rows if x[1] is not None), key=lambda x: -x[1])
    print(f"\n{title}: Spearman with the gain")
    for name, value in [*known[:5], *[x for x in known[5:] if "P_gap" in x[0]]]:
        print(f"  {name:32}{value:+.2f}")

# %%
figure, axes = plt.subplots(1, len(studies), figsize=(4.4 * len(studies), 3.6), layout="constrained", squeeze=False)
for axis, (title, rows) in zip(axes[0], studies, strict=True):
    known = sorted((x for x in rows if x[1] is not None), key=lambda x: x[1])
    colours = [ORANGE if "P_gap" in name else GREEN if "forecast" in name else BLUE for name, _ in known]
    axis.barh([name for name, _ in known], [value for _, value in known], color=colours)
    axis.tick_params(axis="y", labelsize=6)
    axis.set(xlabel="Spearman with the gain", xlim=(-1, 1), title=title)
plt.show()

# %% [markdown]
# Orange: readings of the paper's score. Green: forecasts. One ladder of one pretraining seed each; whether a billion
# parameters rank the predictors in the same way is what the GPU is for.
#
# ## 6 · Live
# With a GPU this measures the two rates that all floors come from, and the floors of section 3 with them. Then
# `python benchmarks/gpu.py` does the rest: a random 1B against these floors, and a real ladder a tenth the size.

# %%
if torch.cuda.is_available():
    sys.path.insert(0, "../benchmarks")
    from gpu_rates import copy_bandwidth, matrix_rate

    CARD |= {"flops": matrix_rate("cuda", 8192, torch.bfloat16), "bandwidth": copy_bandwidth("cuda", 1 << 30)}
    print(f"{torch.cuda.get_device_name()}: {CARD['flops'] / 1e12:.0f} TFLOP/s, {CARD['bandwidth'] / 1e12:.1f} TB/s")
    for title, stage in stages.items():
        print(f"{title:22}{op.floor_seconds(stage(SHAPES['1B']), **CARD):8.2f} s at best")
else:
    print("No GPU here. The floors of section 3 stand for a card with round numbers.")

# %% [markdown]
# ## Exercises
# Put your answer in place of `None` and run the two cells. `hint("10.1")` gives a push, `solution("10.1")` the answer.
#
# **1.** Weights, gradient and AdamW's moments of 7B (7,298,617,344 parameters) in float32: how many GB of 10⁹ bytes?

# %%
my_gigabytes = None

# %%
_ = check("10.1", my_gigabytes)

# %% [markdown]
# **2.** Where is the bend of section 2? Take $6N$ operations per token, and $12N$ bytes per update (weights read twice,
# gradient written once, in float32). From how many tokens on does a card of `flops` and `bandwidth` compute rather than wait?


# %%
def my_bend(flops, bandwidth):
    return None


# %%
_ = check("10.2", my_bend)

# %% [markdown]
# **3.** Twenty rungs of 6 GB each over a line of 50 MB/s, one fetched ahead; the work on a rung takes a minute. After how many
# minutes is the last rung done?

# %%
my_minutes = None

# %%
_ = check("10.3", my_minutes)

# %%
hint("10.2")

# %% [markdown]
# ## What to remember
# * Sixteen bytes a weight: that is AdamW in float32, and it decides which card.
# * Count operations and bytes first. The floor says whether a measured time is good, and what to change.
# * One-token answers leave a large card waiting for its memory: share one prefill, read the next rung meanwhile.
# * A ladder is a download problem until the line is faster than the work.
