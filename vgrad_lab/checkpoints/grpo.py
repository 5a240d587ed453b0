"""GRPO on the one-token task: sample, advantage, one on-policy step; rewards recorded at several budgets of one run.

Departures from library trainers: no ratio (one step per batch is on-policy), one prefill shared by the group, logits at
the answer position only; the KL penalty, off by default, is exact over the vocabulary. Sampling is from the FULL
vocabulary.
"""

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from vgrad_lab.advantage import Baseline, from_group
from vgrad_lab.checkpoints.card import Placed, Watch, advantages, not_finite, place, placed_rows
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.loading import Checkpoint
from vgrad_lab.checkpoints.offload import HostAdamW
from vgrad_lab.checkpoints.precision import Precision, known_precision, recomputing, running
from vgrad_lab.checkpoints.probe import (
    answer_logits,
    check_answer_logits,
    evaluation_prompts,
    micro_batches,
    on_device,
    reward_summary,
)
from vgrad_lab.checkpoints.tasks import LabelCopy, PromptBatch, draw_prompts, encode_prompts
from vgrad_lab.impact import Optimizer

DEFAULTS: dict[str, tuple[float, float | None]] = {"adamw": (1e-4, 1.0), "sgd": (1e-2, None)}
"""Learning rate (one that spreads the gains of the embedded ladder) and gradient-norm clip of each optimiser.

SGD is not clipped: clipping at 1 makes it a normalised step, which the mean-field forecast does not model."""
Schedule = Literal["constant", "linear", "cosine"]
"""Shape of the learning rate after the warm-up."""
LATER: dict[str, Any] = {
    "schedule": "constant",
    "warmup": 0,
    "kl": 0.0,
    "precision": "float32",
    "recompute": False,
    "states": "device",
}
"""Settings that came after the first records, with the values at which ``facts`` leaves them out."""


@dataclass(frozen=True)
class GrpoSettings:
    """One GRPO protocol; ``budgets`` are update counts, all prefixes of one run.

    schedule: of the learning rate over the last budget's updates, after ``warmup`` updates that rise linearly from 0.
    kl: β of the penalty β·KL(π‖π_start) at the answer position, in reward per nat.
    micro_batch: prompts that go through the model at a time; an update adds their gradients up.
    precision: of the backbone's matrix products. recompute: layers are computed again in the backward pass, which saves
    memory. states: where AdamW's moments and the weights that it changes lie; on the host they leave room on a card.
    """

    optimizer: Optimizer = "adamw"
    learning_rate: float = 1e-4
    prompts: int = 16
    group_size: int = 8
    budgets: tuple[int, ...] = (10, 20, 25, 30)
    baseline: Baseline = "standardised"
    ddof: int = 1
    eps: float = 1e-4
    clip: float | None = 1.0
    evaluation_prompts: int = 256
    micro_batch: int = 64
    schedule: Schedule = "constant"
    warmup: int = 0
    kl: float = 0.0
    precision: Precision = "float32"
    recompute: bool = False
    states: Literal["device", "host"] = "device"

    def __post_init__(self) -> None:
        if not self.budgets or list(self.budgets) != sorted(set(self.budgets)) or self.budgets[0] < 1:
            raise UserError(f"budgets are {self.budgets}; give increasing numbers of updates, each at least 1")
        if self.group_size < 2 or self.prompts < 1:
            raise UserError(
                f"group_size is {self.group_size} and prompts {self.prompts}; a group needs at least 2 samples, "
                "an update at least 1 prompt"
            )
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UserError(f"learning_rate is {self.learning_rate}; give a positive number")
        if self.clip is not None and not (math.isfinite(self.clip) and self.clip > 0):
            raise UserError(f"clip is {self.clip}; give a positive gradient norm, or none")
        known_schedule(self.schedule)
        if not 0 <= self.warmup < self.budgets[-1]:
            raise UserError(f"warmup is {self.warmup}; give a number of updates below the last budget")
        if not (math.isfinite(self.kl) and self.kl >= 0):
            raise UserError(f"kl is {self.kl}; give a number that is not negative")
        known_precision(self.precision)
        if self.micro_batch < 1 or self.states not in ("device", "host"):
            given = f"micro_batch is {self.micro_batch} and states {self.states!r}"
            raise UserError(f"{given}; give at least 1 prompt, and device or host")


def default_settings(optimizer: str) -> GrpoSettings:
    """The protocol of an optimiser with its own default rate and clip.

    Raises UserError for an optimiser that is not known.
    """
    if optimizer not in DEFAULTS:
        raise UserError(f"optimizer is {optimizer!r}; choose one of {', '.join(DEFAULTS)}")
    rate, clip = DEFAULTS[optimizer]
    return GrpoSettings(optimizer=cast(Optimizer, optimizer), learning_rate=rate, clip=clip)


def known_baseline(name: str) -> Baseline:
    """The name, if a baseline has it. Raises UserError otherwise."""
    if name not in get_args(Baseline):
        raise UserError(f"baseline is {name!r}; choose one of {', '.join(get_args(Baseline))}")
    return cast(Baseline, name)


def known_schedule(name: str) -> Schedule:
    """The name, if a schedule has it. Raises UserError otherwise."""
    if name not in get_args(Schedule):
        raise UserError(f"schedule is {name!r}; choose one of {', '.join(get_args(Schedule))}")
    return cast(Schedule, name)


def facts(settings: GrpoSettings) -> dict[str, Any]:
    """Settings as a record holds them: what came later is left out at its default, so that old hashes stay valid."""
    return {k: v for k, v in asdict(settings).items() if k not in LATER or v != LATER[k]}


def learning_rates(settings: GrpoSettings) -> Float[ndarray, " N"]:
    """Learning rate of every update up to the last budget over ``learning_rate``, as in transformers' schedulers."""
    total, warm = settings.budgets[-1], settings.warmup
    update = np.arange(total)
    done = (update - warm) / (total - warm)
    if settings.schedule == "linear":
        rate = 1 - done
    elif settings.schedule == "cosine":
        rate = 0.5 * (1 + np.cos(np.pi * done))
    else:
        rate = np.ones(total)
    return np.where(update < warm, update / max(warm, 1), rate)


def make_optimizer(model: Any, settings: GrpoSettings) -> torch.optim.Optimizer:
    """AdamW (0.9, 0.999) or plain SGD, no weight decay."""
    if settings.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=settings.learning_rate)
    kind = torch.optim.AdamW if settings.states == "device" else HostAdamW
    return kind(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.999), weight_decay=0.0, fused=True)


def grpo_loss(
    logits: Tensor, target: Tensor, settings: GrpoSettings, generator: torch.Generator, *, on_card: bool = False
) -> Tensor:
    """−mean(Â log π(a)) over prompts and group; samples drawn from ``logits``, advantages have no graph.

    on_card: advantages as tensors where the logits lie, instead of in NumPy. Logits that are not finite give a loss
    that is not, and samples of no meaning.
    """
    logp = torch.log_softmax(logits.float(), -1)
    chance = logp.detach().exp()
    chance = torch.where(torch.isfinite(chance), chance, 1.0)  # on a card NaN here would end the whole process
    action = torch.multinomial(chance, settings.group_size, replacement=True, generator=generator)
    reward = (action == target[:, None]).double()
    if on_card:
        weight = advantages(reward, settings.baseline, ddof=settings.ddof, eps=settings.eps).to(logp)
    else:
        made = from_group(reward.cpu().numpy(), settings.baseline, ddof=settings.ddof, eps=settings.eps)
        weight = torch.from_numpy(made).to(logp)
    return -(weight * logp.gather(1, action)).mean()


def divergence(logits: Tensor, start: Tensor) -> Float[Tensor, " Q"]:
    """KL(π‖π_start) of each prompt in nats, exact over the vocabulary."""
    logp = torch.log_softmax(logits.float(), -1)
    return (logp.exp() * (logp - torch.log_softmax(start.float(), -1))).sum(-1)


def evaluate(model: Any, batch: PromptBatch, micro_batch: int) -> dict[str, float]:
    """Reward over the full vocabulary, over the labels only, and the labels' mass."""
    with torch.no_grad():
        parts = [
            torch.softmax(answer_logits(model, *on_device(model, batch, rows)[:2]).double(), -1)
            for rows in micro_batches(batch, micro_batch)
        ]
    return reward_summary(torch.cat(parts).cpu().numpy(), batch)


def train(
    checkpoint: Checkpoint, task: LabelCopy, settings: GrpoSettings, *, seed: int, on_card: bool | None = None
) -> dict[str, Any]:
    """Run GRPO from a checkpoint (whose model is changed in place) and record the reward at every budget.

    seed: of the prompts drawn and the answers sampled. on_card: nothing that the host would have to wait for; default
    where the model is not on the CPU. Raises UserError when the loss or the weights become non-finite. Returns plain
    numbers, gain_mean = mean over budgets of R_after − R_before.
    """
    model = checkpoint.model
    on_card = model.device.type != "cpu" if on_card is None else on_card
    with running(model, settings.precision, mask=on_card), recomputing(model, settings.recompute):
        curve = _curve(checkpoint, task, settings, seed, on_card)
    after = [curve[k] for k in settings.budgets]
    before = curve[0]["reward"]
    return {
        "optimizer": settings.optimizer,
        "learning_rate": settings.learning_rate,
        "budgets": list(settings.budgets),
        "reward_before": before,
        "reward_after": [x["reward"] for x in after],
        "reward_restricted_before": curve[0]["reward_restricted"],
        "reward_restricted_after": [x["reward_restricted"] for x in after],
        "label_mass_after": [x["label_mass"] for x in after],
        "gain_mean": float(np.mean([x["reward"] - before for x in after])),
    }


def _curve(
    checkpoint: Checkpoint, task: LabelCopy, settings: GrpoSettings, seed: int, on_card: bool
) -> dict[int, dict[str, float]]:
    """Rewards before the first update and at every budget."""
    model, total = checkpoint.model, settings.budgets[-1]
    evaluation = evaluation_prompts(checkpoint, task, settings.evaluation_prompts)
    check_answer_logits(model, evaluation)
    drawn = draw_prompts(task, total * settings.prompts, rng=np.random.default_rng([seed, 1]))
    batch = encode_prompts(task, checkpoint.tokenizer, drawn)
    generator = torch.Generator(device=model.device).manual_seed(seed)
    optimizer, rates = make_optimizer(model, settings), learning_rates(settings)
    reference = copy.deepcopy(model) if settings.kl > 0 else None
    watch = Watch(model.device) if on_card else None
    prompts = place(model, batch) if on_card else batch
    curve = {0: evaluate(model, evaluation, settings.micro_batch)}
    for update in range(1, total + 1):
        for group in optimizer.param_groups:
            group["lr"] = float(settings.learning_rate * rates[update - 1])
        step(model, optimizer, prompts, update - 1, settings, generator, reference=reference, watch=watch)
        if update in settings.budgets:
            if watch is not None:
                watch.check(update)
            curve[update] = evaluate(model, evaluation, settings.micro_batch)
            if not np.isfinite(curve[update]["reward"]):
                raise UserError(f"the reward is not finite after {update} updates; lower the learning rate")
    return curve


def step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    batch: PromptBatch | Placed,
    index: int,
    settings: GrpoSettings,
    generator: torch.Generator,
    *,
    reference: Any = None,
    watch: Watch | None = None,
) -> None:
    """One update on the index-th block of prompts: forward, sample, backward per micro-batch; then clip and step.

    reference: the starting model, which the KL penalty needs where ``settings.kl`` is above 0. watch: told whether the
    update was finite; without one a UserError is raised at once, for which the host waits.
    """
    finite, stop = torch.ones((), dtype=torch.bool, device=model.device), (index + 1) * settings.prompts
    for start in range(index * settings.prompts, stop, settings.micro_batch):
        rows = slice(start, min(start + settings.micro_batch, stop))
        tokens, last, target = placed_rows(batch, rows) if isinstance(batch, Placed) else on_device(model, batch, rows)
        logits = answer_logits(model, tokens, last)
        finite = finite & torch.isfinite(logits).all()
        loss = grpo_loss(logits, target, settings, generator, on_card=watch is not None)
        if settings.kl > 0:
            with torch.no_grad():
                before = answer_logits(reference, tokens, last)
            loss = loss + settings.kl * divergence(logits, before).mean()
        torch.autograd.backward(loss * (len(target) / settings.prompts))
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip or math.inf)
    finite = finite & torch.isfinite(norm)
    if watch is not None:
        watch.note(finite, index)
    elif not bool(finite):
        raise UserError(not_finite(index + 1))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
