"""What a GRPO update does on an accelerator so that the host never waits for it: advantages, prompts and checks there.

The CPU path makes advantages in NumPy; here they are tensors without a graph, equal to those bit for bit or nearly so.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from vgrad_lab.advantage import Baseline
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.probe import on_device
from vgrad_lab.checkpoints.tasks import PromptBatch


@torch.no_grad()
def advantages(
    reward: Float[Tensor, "Q G"], baseline: Baseline, *, ddof: int = 1, eps: float = 1e-4
) -> Float[Tensor, "Q G"]:
    """`advantage.from_group` where the reward lies, in its precision. Ledger: S10."""
    centred = reward - reward.mean(1, keepdim=True)
    if baseline == "standardised":
        spread = reward.std(1, correction=ddof, keepdim=True) + eps
        centred = centred / torch.where(spread > 0, spread, 1.0)
    elif baseline == "leave_one_out":
        centred = centred * (reward.shape[1] / (reward.shape[1] - 1))
    same = reward.amax(1, keepdim=True) == reward.amin(1, keepdim=True)
    return torch.where(same, 0.0, centred)


@dataclass(frozen=True)
class Placed:
    """Prompts on a device: tokens, last positions and targets there, last positions on the host too."""

    tokens: Int[Tensor, "Q T"]
    last: Int[Tensor, " Q"]
    target: Int[Tensor, " Q"]
    ends: Int[ndarray, " Q"]


def place(model: Any, batch: PromptBatch) -> Placed:
    """All prompts of a run moved to the model at once, so that no update waits for a transfer."""
    return Placed(*on_device(model, batch, slice(None)), ends=batch.last)


def placed_rows(placed: Placed, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, last positions and targets of some prompts, cut to their longest, as `on_device` gives them."""
    longest = int(placed.ends[rows].max()) + 1
    return placed.tokens[rows, :longest], placed.last[rows], placed.target[rows]


class Watch:
    """Counts on the device how many updates in a row were finite; asking it is the only time the host waits."""

    def __init__(self, device: torch.device) -> None:
        self._good = torch.zeros((), dtype=torch.int64, device=device)

    def note(self, finite: Tensor, index: int) -> None:
        """Take in whether the update of this index was finite; nothing after a failure counts."""
        self._good.add_(finite & (self._good == index))

    def check(self, updates: int) -> None:
        """Raises UserError when one of so many updates was not finite, and says which."""
        good = int(self._good)
        if good < updates:
            raise UserError(not_finite(good + 1))


def not_finite(update: int) -> str:
    """What is said of an update whose logits or gradient are not finite."""
    return f"logits or gradient are not finite at update {update}; lower the learning rate"
