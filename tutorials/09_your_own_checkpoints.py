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
# # 09 · Your own checkpoints
#
# You have a causal language model that `transformers` opens, saved several times while it was trained, and a task with a
# reward. Here you make a ladder of the saves, let the audit look for lies in it, write the task down, measure, run GRPO,
# and run a sweep that survives a kill. All is real and small: a Llama of 80 000 weights, trained in the first cells,
# safetensors, a tokenizer of its own, a temporary folder, no network. Time: about 30 minutes.

# %%
import contextlib
import io
import json
import multiprocessing
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers
from _exercises import check, hint
from _sliders import Slider, explore

from vgrad_lab.checkpoints.embedded.tokenizer import train_tokenizer
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.cli import app

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "0.85"  # Okabe–Ito: colour-blind safe
TEMPORARY = tempfile.TemporaryDirectory()
HOME = Path(TEMPORARY.name)


def vgrad(line):
    """Do what `vgrad …` does in a terminal whose folder is HOME; an error is one line."""
    print(f"$ vgrad {line}")
    with contextlib.chdir(HOME):
        try:
            code = app(shlex.split(line), standalone_mode=False)
        except UserError as error:
            code = 2
            print(f"vgrad: {error}")
    if code:
        print(f"(exit code {code})")


def write(name, text):
    (HOME / name).write_text(text, encoding="utf-8")


# %% [markdown]
# ## 1 · A folder of checkpoints is a ladder
# The model reads a ticket and writes where it goes: a team and a grade, two tokens. Train it and save as any trainer does.

# %%
TEAMS = ("access", "billing", "email", "hardware", "network", "printing")
GRADES = ("low", "normal", "high", "urgent")
FORMS = (
    "Ticket: {} {}\nRoute:",
    "New: {} {}\nNo answer yet.\nRoute:",
    "Ticket: {} {}\nFirst seen today.\nRoute:",
)
tickets = [(form.format(team, grade), f"{team} {grade}") for form in FORMS for team in TEAMS for grade in GRADES]
lines = [f"{prompt} {answer}" for prompt, answer in tickets]
tokenizer = train_tokenizer(tuple(lines), vocab=339, model_max_length=128)  # so many that every word is one token
config = transformers.LlamaConfig(
    vocab_size=len(tokenizer),
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=128,
    bos_token_id=None,
    eos_token_id=tokenizer.eos_token_id,
    pad_token_id=tokenizer.pad_token_id,
)


def save(model, folder):
    model.save_pretrained(folder, max_shard_size="150KB")  # three shards, as a large model has
    tokenizer.save_pretrained(folder)


def pretrain(folder, steps=140, every=20):
    """Ordinary training on whole lines; a checkpoint every few steps."""
    encoded = [[*tokenizer.encode(line), tokenizer.eos_token_id] for line in lines]
    longest = max(map(len, encoded))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in encoded])
    target = ids.masked_fill(ids == tokenizer.pad_token_id, -100)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    optimizer, rng = torch.optim.AdamW(model.parameters(), lr=4e-3), np.random.default_rng(0)
    for step in range(1, steps + 1):
        rows = torch.from_numpy(rng.integers(0, len(lines), 24))
        optimizer.zero_grad()
        model(input_ids=ids[rows], labels=target[rows]).loss.backward()
        optimizer.step()
        if step % every == 0:
            save(model, folder / f"checkpoint-{step}")


transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
pretrain(HOME / "ladder")
print(*sorted(path.name for path in (HOME / "ladder").iterdir()))
for path in sorted((HOME / "ladder" / "checkpoint-20").iterdir()):
    print(f"{path.stat().st_size:>9,}  {path.name}")

# %% [markdown]
# Folders named `step<number>` need nothing more. These have a trainer's names, so the ladder does not know them yet:

# %%
vgrad("ladder audit ladder")

# %% [markdown]
# A specification of a few lines says what the names mean. `architecture` is what you expect; what you leave out need only
# agree among the rungs.

# %%
write(
    "ladder.yaml",
    r"""
folder: ladder
pattern: 'checkpoint-(?P<step>\d+)'
architecture: {class: LlamaForCausalLM, layers: 2, width: 48}
""",
)
vgrad("ladder list ladder.yaml")
vgrad("ladder audit ladder.yaml")

# %% [markdown]
# Now let a copy of the ladder lie: step 100 holds the weights of step 80, and step 60 has lost a shard. Both happened to
# published ladders (`docs/hub_ladders.md`), and `transformers` opens the first without a word.

# %%
shutil.copytree(HOME / "ladder", HOME / "spoilt")
shutil.rmtree(HOME / "spoilt" / "checkpoint-100")
shutil.copytree(HOME / "spoilt" / "checkpoint-80", HOME / "spoilt" / "checkpoint-100")
(HOME / "spoilt" / "checkpoint-60" / "model-00002-of-00003.safetensors").unlink()
write("spoilt.yaml", (HOME / "ladder.yaml").read_text().replace("folder: ladder", "folder: spoilt"))
vgrad("ladder audit spoilt.yaml")

# %% [markdown]
# A refused ladder stops every command that would use it. What you allow, by name, is recorded; a rung that lacks a shard
# is then left out, a duplicate is used twice.

# %%
vgrad("ladder plan spoilt.yaml")
vgrad("ladder audit spoilt.yaml --allow 'missing shard' --allow duplicate")

# %% [markdown]
# ## 2 · A ladder on a hub, and the disk
# `repository: owner/name` in place of `folder:` is all that a specification changes. `vgrad ladder list` knows some:

# %%
from vgrad_lab.checkpoints.inventory import HubFile, Inventory
from vgrad_lab.checkpoints.known_ladders import KNOWN
from vgrad_lab.checkpoints.plan import duration, gigabytes, make_plan
from vgrad_lab.checkpoints.specs import read_spec

write(
    "hub.yaml",
    "repository: you/your-model\npattern: 'step-(?P<step>\\d+)'\nsteps: {from: 1000, to: 20000, every: 1000}\n",
)
spec = read_spec(HOME / "hub.yaml")
print(spec.place, "asks for", len(spec.steps), "rungs, of names like", spec.pattern)
print("built in:", ", ".join(KNOWN))

# %% [markdown]
# | | folder | hub |
# |---|---|---|
# | names of rungs | sub-folders | branches and tags, listed and matched, never made up |
# | equal weights | files are hashed on the disk | hashes from metadata, no weights fetched; `main` is compared too |
# | plan | bytes that lie there | bytes to download, disk, time |
# | sweep | loads where the rung lies | fetches one rung ahead into a cache, deletes each after use |
#
# The commands are the same; the tests run them against a hub on the loopback interface. What costs is the disk: one rung
# is in use while the next one arrives. Draw it for twenty rungs of OLMo-2 1B, whose published shards hold 5.94 GB.

# %%
SIZES = [4_983_360_992 + 956_326_560] * 20


def schedule(sizes, rate, work):
    """Begin and end of each download and of the work on it: two rungs on the disk, one download and one job at a time."""
    fetched, done, rows = 0.0, [], []
    for k, size in enumerate(sizes):
        begin = max(fetched, done[k - 2]) if k > 1 else fetched
        fetched = begin + size / rate
        start = max(fetched, done[-1]) if done else fetched
        done.append(start + work)
        rows.append((begin, fetched, start, done[-1]))
    return np.array(rows)


def disk_picture(axis, rate, minutes):
    """Room taken on the disk (blue) over time; orange bars below: work."""
    rows = schedule(SIZES, 1e6 * rate, 60 * minutes) / 60
    times = np.linspace(0, rows[-1, -1], 1500)
    arriving = np.clip((times[:, None] - rows[:, 0]) / (rows[:, 1] - rows[:, 0]), 0, 1) * (times[:, None] < rows[:, 3])
    axis.fill_between(times, arriving @ np.array(SIZES) / 1e9, color=BLUE, alpha=0.6, label="on the disk")
    axis.broken_barh([(start, end - start) for _, _, start, end in rows], (-1.6, 1.0), color=ORANGE, label="work")
    axis.axhline(2 * SIZES[0] / 1e9, color="black", linestyle="--", linewidth=0.8, label="two rungs")
    axis.set(xlabel="minutes", ylabel="GB", ylim=(-2, 16))
    axis.legend(fontsize=7, loc="upper center", ncols=3)


explore(disk_picture, Slider("MB/s", (20.0, 50.0, 100.0, 500.0)), Slider("minutes of work", (0.5, 2.0, 10.0)))

# %%
rungs = [Inventory(f"step-{k}", (HubFile("model.safetensors", size),)) for k, size in enumerate(SIZES)]
for rate, work in ((20e6, 120.0), (100e6, 120.0), (100e6, 600.0)):
    plan = make_plan(rungs, rate=rate, compute=work)
    assert np.isclose(plan.total_seconds, schedule(SIZES, rate, work)[-1, -1])
    print(f"{rate / 1e6:4.0f} MB/s, {work / 60:2.0f} min a rung: {duration(plan.total_seconds)},"
          f" {gigabytes(plan.peak_bytes)} on the disk of {gigabytes(plan.weight_bytes)}")  # fmt: skip

# %% [markdown]
# **Exercise 09.1** Rungs need not be equal: some ladders keep float32 early and bfloat16 later. Write the room that a
# ladder needs, given the bytes of its rungs in order, with one fetched ahead.


# %%
def room(sizes):
    return None  # ← one line


# %%
_ = check("09.1", room)  # stuck? hint("09.1")

# %% [markdown]
# ## 3 · A task of your own
# Two kinds (`docs/tasks.md`). **Labels**: the answer is one token, and the chance of the right one is read off a softmax.
# **Sampled**: prompts from a file, answers of several tokens, and a reward, which may be a function of yours.

# %%
write(
    "labels.yaml",
    r"""
kind: label-copy
labels: [billing, email, hardware, network]
templates: ["Ticket: {y} {f}\nRoute:"]
fillers: [low, normal, high, urgent]
""",
)
write("tickets.jsonl", "".join(json.dumps({"prompt": p, "answer": a}) + "\n" for p, a in tickets))
write(
    "routes.yaml",
    """
kind: sampled
prompts: tickets.jsonl
held_out: 0.25            # of the prompts, to evaluate on
reward: exact
max_tokens: 2
""",
)
write(
    "marks.yaml",
    """
kind: sampled
prompts: tickets.jsonl
reward: {kind: importable, function: "ticket_marks:score"}
max_tokens: 2
""",
)
write(
    "ticket_marks.py",
    '''
def score(prompt, completion, row):
    """Half a mark for the team, half for the grade."""
    right, given = row["answer"].split(), completion.split()
    return sum(a == b for a, b in zip(right, given, strict=False)) / 2
''',
)
sys.path.insert(0, str(HOME))  # in a terminal: PYTHONPATH=. vgrad …

# %% [markdown]
# Look at answers before you believe a number: what does a checkpoint say, and what does the reward see?

# %%
from vgrad_lab.checkpoints.generation import sample
from vgrad_lab.checkpoints.loading import load_checkpoint
from vgrad_lab.checkpoints.sampled_tasks import evaluation_examples
from vgrad_lab.checkpoints.task_files import read_task

routes, marks = read_task(HOME / "routes.yaml"), read_task(HOME / "marks.yaml")
print(len(routes.prompts), "prompts to train on,", len(routes.evaluation), "to evaluate on")


def rung(step):
    return load_checkpoint(HOME / "ladder" / f"checkpoint-{step}")


seen = evaluation_examples(marks, 3)
for step in (20, 80, 140):
    answers = sample(rung(step), marks, seen, group_size=3, rng=np.random.default_rng(0))
    print(f"step {step}")
    for example, texts, rewards in zip(seen, answers.texts, answers.reward, strict=True):
        shown = " | ".join(f"{text!r} {reward:g}" for text, reward in zip(texts, rewards, strict=True))
        print(f"  {example.prompt.splitlines()[0]:<24}{shown}")

# %% [markdown]
# A mistake is told in one line, before any work:

# %%
write("wrong.yaml", "kind: sampled\nprompts: tickets.jsonl\nreward: exakt\n")
vgrad("measure ladder/checkpoint-80 --task wrong.yaml")
write("wrong.yaml", "kind: sampled\nprompts: tickets.jsonl\nmax_token: 2\n")
vgrad("measure ladder/checkpoint-80 --task wrong.yaml")

# %% [markdown]
# ## 4 · Measure it
# Every number is an estimate with a standard error over prompts, or *undefined* with a reason.

# %%
vgrad("measure ladder/checkpoint-100 --task routes.yaml --group 4 --answers 16 --state head")

# %% [markdown]
# Along the ladder, with 8 answers. A cross at the bottom: undefined there. Early on hardly any answer is right, and a
# product of two independent samples of the gradient needs two answers apart from the prompt's most common reward. With 16
# answers every rung here had a number.

# %%
from vgrad_lab.checkpoints.probe import MeasureSettings
from vgrad_lab.checkpoints.sampled_measure import measure_sampled

STEPS = range(20, 141, 20)
settings = MeasureSettings(group_size=4, answers=8, states=("head",))
found = [measure_sampled(rung(step), routes, settings, seed=0) for step in STEPS]
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3), layout="constrained")
figure.get_layout_engine().set(w_pad=0.15)
panels = (("reward_before", "R before RL"), ("signal", "Σ"), ("alignment", "E⟨λ̂,G⟩"))
for axis, (key, title), colour in zip(axes, panels, (BLUE, ORANGE, GREEN), strict=True):
    known = [(step, m[key]) for step, m in zip(STEPS, found, strict=True) if m[key]["value"] is not None]
    axis.errorbar(
        [step for step, _ in known],
        [one["value"] for _, one in known],
        yerr=np.array([one["standard_error"] for _, one in known], dtype=float),  # none: no bar
        fmt="o-", color=colour, capsize=3,
    )  # fmt: skip
    unknown = [step for step, m in zip(STEPS, found, strict=True) if m[key]["value"] is None]
    axis.plot(unknown, [0.0] * len(unknown), "x", color="black", markersize=9)
    axis.axhline(0, color="black", linewidth=0.6)
    axis.set(xlabel="pretraining step", title=title)
plt.show()
for step, m in zip(STEPS, found, strict=True):
    if reason := m["signal"].get("reason"):
        print(f"step {step}: Σ is undefined: {reason}")

# %% [markdown]
# What is defined depends on how many answers each prompt has, and on the reward. From $m$ answers only polynomials of
# degree up to $m$ in the law of one answer have an unbiased estimate (**S22.sampled**, **S24.sampled**). Blue: a number.
# Groups of 4 here.

# %%
from vgrad_lab.checkpoints.group_costates import Place, score_products
from vgrad_lab.checkpoints.group_headroom import headroom_within
from vgrad_lab.checkpoints.group_rewards import pass_at_k
from vgrad_lab.checkpoints.group_signal import GroupRule
from vgrad_lab.checkpoints.sampled_measure import place_measures

ROWS = {
    "pass@4": "pass_at_k", "H_α, α = 1": "headroom_within", "Σ": "signal", "E⟨λ̂,G⟩": "alignment",
    "E‖E[λ̂|q] − G‖²": "costate_bias_squared", "Λ conditional": "costate_gap_conditional",
    "Λ single costates": "costate_gap_per_sample", "P_gap": "impact_score",
}  # fmt: skip
ANSWERS, RULE = range(2, 13), GroupRule(4)
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
for axis, task, title in zip(axes, (routes, marks), ("reward 0 or 1", "half marks"), strict=True):
    checkpoint = rung(100)
    drawn = sample(checkpoint, task, task.evaluation, group_size=12, rng=np.random.default_rng(1))
    gram = score_products(checkpoint.model, drawn, [Place()]).gram[Place().name]
    grid = []
    for m in ANSWERS:
        reward = drawn.reward[:, :m]
        one = place_measures(reward, gram[:, :m, :m], 1.0, RULE)
        one |= {"pass_at_k": pass_at_k(reward, 4), "headroom_within": headroom_within(reward, 1.0)}
        grid.append([one[key].value is not None for key in ROWS.values()])
    axis.pcolormesh(list(ANSWERS), range(len(ROWS)), np.array(grid).T, cmap=plt.matplotlib.colors.ListedColormap([GREY, BLUE]),
                    vmin=0, vmax=1, edgecolors="white", linewidth=1.5, shading="nearest")  # fmt: skip
    axis.set(xlabel="answers to each prompt", title=title, xticks=list(ANSWERS), yticks=range(len(ROWS)))
    axis.set_yticklabels(list(ROWS))
axes[0].invert_yaxis()
plt.show()

# %% [markdown]
# Λ of half marks stays grey: with rewards other than 0 and 1 the mean costate need not be parallel to $G$, and a norm has
# no unbiased estimate from any number of answers. $\sqrt{\Sigma\cdot E\|E[\hat\lambda|q]-G\|^2}$ bounds it.
#
# **Exercise 09.2** GRPO will use groups of 8, standardised. How many answers to each prompt does the alignment
# $E\langle\hat\lambda,G\rangle$ need at least?

# %%
fewest = None  # ← a whole number

# %%
_ = check("09.2", fewest)  # stuck? hint("09.2")

# %% [markdown]
# ## 5 · GRPO, and the forecast
# The same checkpoint, the same groups, two rewards. A group whose answers all have one reward is dead and teaches nothing.
# `--out` keeps the records.

# %%
vgrad("rl ladder/checkpoint-80 --task routes.yaml --lr 2e-3 --budget 10 --budget 20 --budget 30 --out rl/routes")
vgrad("rl ladder/checkpoint-80 --task marks.yaml --lr 2e-3 --budget 10 --budget 20 --budget 30 --out rl/marks")

# %% [markdown]
# For the label task the whole curve can be forecast before the run (tutorial 08), because the chance of each right label is
# exact, and so is its gradient. For sampled answers it is not, and the command refuses.

# %%
vgrad("forecast ladder/checkpoint-80 --task labels.yaml --lr 2e-4 --budget 10 --budget 20 --quiet")
vgrad("forecast ladder/checkpoint-80 --task routes.yaml")

# %%
from vgrad_lab.checkpoints.forecast import forecast
from vgrad_lab.checkpoints.grpo import GrpoSettings, train
from vgrad_lab.checkpoints.store import read_records

BUDGETS = (5, 10, 15, 20)
labels, protocol = read_task(HOME / "labels.yaml"), GrpoSettings(learning_rate=2e-4, budgets=BUDGETS)
said = forecast(rung(80), labels, protocol)
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained")
figure.get_layout_engine().set(w_pad=0.15)
axes[0].fill_between(range(21), said.lower, said.upper, color=BLUE, alpha=0.2, label="90 % band")
axes[0].plot(said.reward, "--", color=BLUE, label="forecast")
for seed in (0, 1):
    run = train(rung(80), labels, protocol, seed=seed)
    axes[0].plot([0, *BUDGETS], [run["reward_before"], *run["reward_after"]], "o", color="black", markersize=4)
axes[0].set(xlabel="updates", ylabel="mean reward", title="labels: forecast and two runs")
axes[0].legend(fontsize=8)
for name, folder, colour in (("0 or 1", "routes", BLUE), ("half marks", "marks", ORANGE)):
    (record,) = read_records(HOME / "rl" / folder).values()
    run = record["result"]
    curve = [run["reward_before"], *run["reward_after"]]
    error = [run["reward_before_standard_error"], *run["reward_standard_error"]]
    name += f", {run['dead_groups'][-1]:.0%} dead"
    axes[1].errorbar([0, *run["budgets"]], curve, yerr=error, fmt="o-", color=colour, capsize=3, label=name)
axes[1].set(xlabel="updates", ylabel="mean reward of its own kind", title="sampled answers, ± standard error")
axes[1].legend(fontsize=8)
plt.show()

# %% [markdown]
# The two curves on the right count different things, each its own reward. Standard errors are over prompts; all
# evaluations share their random numbers, so two of them differ by the model alone.
#
# ## 6 · A sweep: killed, continued, repaired
# Checkpoints × stages × protocols × seeds is a list of units; each leaves one record. First damage a rung: a download that
# stopped half-way. The audit sees an odd size, but a size alone refuses nothing.

# %%
write(
    "sweep.yaml",
    """
ladders: [ladder.yaml]
out: run
task: routes.yaml
stages: [measure, rl]
seeds: [0]
measures: {group_size: 4, answers: 8, states: [head]}
protocols:
  - {optimizer: adamw, learning_rate: 2e-3, prompts: 8, group_size: 4, budgets: [5, 10], evaluation_samples: 2}
executor: {kind: local, workers: 1, threads: 1}
""",
)
shard = HOME / "ladder" / "checkpoint-60" / "model-00001-of-00003.safetensors"
whole = shard.read_bytes()
shard.write_bytes(whole[: len(whole) // 2])
vgrad("ladder audit ladder.yaml")

# %% [markdown]
# Start `vgrad sweep sweep.yaml` as a process, and kill it (SIGKILL, as the system does when memory is short) after a few
# records.

# %%
from vgrad_lab.checkpoints.executors import PRELOAD
from vgrad_lab.experiments.sweep_command import sweep

globals().pop("__file__", None)  # of a plain script: the processes below are not to run it again
method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
context = multiprocessing.get_context(method)
if method == "forkserver":
    context.set_forkserver_preload(list(PRELOAD))  # a server that has loaded torch: processes start in no time
with contextlib.chdir(HOME):
    process = context.Process(target=sweep, args=(Path("sweep.yaml"),), kwargs={"quiet": True})
    process.start()
deadline = time.monotonic() + 80
while len(list((HOME / "run" / "units").glob("*.json"))) < 4 and process.is_alive() and time.monotonic() < deadline:
    time.sleep(0.02)
process.kill()
process.join()
print("exit code", process.exitcode)
vgrad("sweep sweep.yaml --status --quiet")


# %%
def told():
    """The table of units as data."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.chdir(HOME):
        app(["sweep", "sweep.yaml", "--status", "--json"], standalone_mode=False)
    return json.loads(said.getvalue())


pictures = {"killed": told()}

# %% [markdown]
# The same line continues. What was published is not run again; the damaged rung fails alone, with the reason, and the exit
# code says so.

# %%
before = {path.name: path.stat().st_mtime_ns for path in (HOME / "run" / "units").glob("*.json")}
vgrad("sweep sweep.yaml --quiet")
kept = [name for name, when in before.items() if (HOME / "run" / "units" / name).stat().st_mtime_ns == when]
print(len(kept), "of", len(before), "records are those from before the kill")
pictures["continued"] = told()

# %% [markdown]
# The record of a failed unit: everything but a result.

# %%
failed = next(row["unit"] for row in pictures["continued"] if row["status"] == "failed")
record = json.loads((HOME / "run" / "units" / f"{failed}.json").read_text(encoding="utf-8"))
for key in ("unit", "stage", "status", "error", "result", "checkpoint", "task", "protocol", "seed"):
    value = record[key]["name"] if key == "checkpoint" else record[key]
    print(f"{key:<12}{value}")

# %% [markdown]
# Fetch the shard again and repeat the line: only that rung's units run.

# %%
shard.write_bytes(whole)
vgrad("sweep sweep.yaml --quiet")
pictures["repaired"] = told()

# %%
STATES = {"open": GREY, "running": ORANGE, "failed": RED, "done": BLUE}
figure, axes = plt.subplots(1, 3, figsize=(9, 1.9), layout="constrained", sharey=True)
for axis, (title, rows) in zip(axes, pictures.items(), strict=True):
    for i, row in enumerate(rows):  # in the ladder's order: measure and rl of each rung
        axis.add_patch(plt.Rectangle((i // 2 - 0.45, i % 2 - 0.45), 0.9, 0.9, color=STATES[row["status"]]))
    axis.set(xlim=(-0.6, 6.6), ylim=(1.6, -0.6), title=title, xticks=range(7), yticks=(0, 1))
    axis.set_xticklabels(list(STEPS), fontsize=7)
    axis.set_yticklabels(("measure", "rl"))
figure.legend([plt.Rectangle((0, 0), 1, 1, color=c) for c in STATES.values()], list(STATES), loc="outside lower center",
              ncols=4, fontsize=8)  # fmt: skip
plt.show()

# %% [markdown]
# A unit's id ends in a hash of what its result depends on: weights, task, stage with its settings, seed. Change one, and it
# is another unit with a record of its own; change anything else, and the old record counts.
#
# **Exercise 09.3** A sweep measures and runs RL on one checkpoint, on a task of yours. Whose id changes with each of
# these: `"both"`, `"measure"`, `"rl"` or `"neither"`?

# %%
changed = {
    "a label of a label task": None,
    "a comment in the file of the reward function": None,
    "α of the headroom": None,
    "the learning rate": None,
    "a second seed is added": None,
    "the prompts file moves to another folder": None,
}

# %%
_ = check("09.3", changed)  # stuck? hint("09.3")

# %%
hint("09.3")
TEMPORARY.cleanup()

# %% [markdown]
# ## Where to go next
# * `docs/hub_ladders.md`: specifications, all findings of the audit, known traps of published ladders.
# * `docs/tasks.md` and `docs/sampled_measures.md`: every key, every measure, every reason.
# * `docs/clusters.md`: the same sweep on Ray, on SLURM, or on several machines that share a folder.
# * `docs/reliability.md`: what each fault does, and the test that plants it.
# * Tutorial 10: what a billion parameters need of a GPU, before you rent one.
