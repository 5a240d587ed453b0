"""AdamW with its weights and moments in host memory, for a model whose optimiser does not fit on the card."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class HostAdamW(torch.optim.AdamW):
    """AdamW over copies of the weights on the host: gradients go down, changed weights come back up.

    The law is the same and so, up to rounding, are the numbers; each update moves 2·4 bytes per parameter between card
    and host and runs on the host's cores. Read `param_groups` for the rate; weights changed elsewhere are not seen.

    Args:
        parameters: of the model, on its device.
        lr, betas, weight_decay, fused: as in `torch.optim.AdamW`.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        fused: bool,
    ) -> None:
        self._far = [p for p in parameters if p.requires_grad]
        near = [torch.empty(p.shape, dtype=p.dtype, pin_memory=p.is_cuda).copy_(p.detach()) for p in self._far]
        super().__init__(near, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused)
        self._near = near

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One update, of the host's weights first; the gradient on the card is left as it is."""
        for near, far in zip(self._near, self._far, strict=True):
            near.grad = None if far.grad is None else far.grad.cpu()
        super().step(closure)
        for near, far in zip(self._near, self._far, strict=True):
            near.grad = None
            far.copy_(near)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients on the card."""
        for far in self._far:
            if set_to_none or far.grad is None:
                far.grad = None
            else:
                far.grad.zero_()
