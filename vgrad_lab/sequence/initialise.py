"""Explicit initial weights: nothing here touches torch's global random state."""

from torch import Generator, device, dtype, nn


def empty_device() -> device:
    """The device on which modules are built before ``materialise``: no memory, no random draw."""
    return device("meta")


def materialise(module: nn.Module, *, seed: int, dtype: dtype) -> None:
    """Give a module built on ``empty_device()`` its weights, in place.

    Matrices are N(0, 1/fan_in), embeddings N(0, 1), norm gains 1 and biases 0.
    """
    module.to_empty(device="cpu").to(dtype)
    generator = Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1:
            nn.init.constant_(parameter, 0.0 if "bias" in name else 1.0)
        else:
            deviation = 1.0 if "embedding" in name else parameter.shape[1] ** -0.5
            nn.init.normal_(parameter, std=deviation, generator=generator)
