"""Finding a GRPO trainer, wrapping its methods on the object, and the form in which its trackers take numbers."""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from vgrad_lab.integrations.credit_log import FORMAT
from vgrad_lab.integrations.outlook import Progress, steps_ahead
from vgrad_lab.provenance import versions

SETTINGS = (
    "loss_type", "num_generations", "scale_rewards", "beta", "learning_rate", "max_grad_norm", "max_steps", "epsilon",
    "epsilon_high", "max_completion_length", "num_iterations", "gradient_accumulation_steps", "temperature",
)  # fmt: skip


def owner(state: Any) -> Any:
    """The trainer whose state this is; callbacks are not told. Raises RuntimeError when there is none."""
    from transformers import Trainer

    for candidate in gc.get_objects():
        # not isinstance, which asks an object for its class and so wakes lazy modules and dead proxies
        if issubclass(type(candidate), Trainer) and candidate.__dict__.get("state") is state:
            return candidate
    raise RuntimeError("no transformers Trainer holds this state; call VGradCallback().attach(trainer)")


def wrap(trainer: Any, made: dict[str, Callable[..., Any]]) -> dict[str, tuple[Any, Any, Any]]:
    """Put functions in place of methods of one object; returns what ``unwrap`` needs and, second, the originals."""
    saved = {}
    for name, function in made.items():
        saved[name] = (trainer.__dict__.get(name), getattr(trainer, name), function)
        setattr(trainer, name, function)
    return saved


def unwrap(trainer: Any, saved: dict[str, tuple[Any, Any, Any]]) -> None:
    """Undo ``wrap``, except where someone else has wrapped the method since."""
    for name, (own, _, made) in saved.items():
        if trainer.__dict__.get(name) is made:
            if own is None:
                delattr(trainer, name)
            else:
                setattr(trainer, name, own)


def start_record(trainer: Any, *, every: int, alpha: float, layers: int) -> dict[str, Any]:
    """First line of a run's log: what the numbers were made with."""
    settings = {name: getattr(trainer.args, name, None) for name in SETTINGS}
    plain = {k: v if isinstance(v, int | float | str) else None for k, v in settings.items()}
    processes = int(trainer.accelerator.num_processes)
    made = {"every": every, "alpha": alpha, "layers": layers, "processes": processes, "versions": versions()}
    return {"kind": "start", "format": FORMAT, **made, "settings": plain}


def progress(
    trainer: Any, history: list[tuple[int, float, float, float, int]], group_size: int, remaining: int
) -> Progress:
    """A run so far from its (step, success, learning rate, gradient norm, answers)."""
    step, success, rate, norm, samples = (np.array(column) for column in zip(*history, strict=True))
    return Progress(
        step=step,
        success=success,
        learning_rate=rate,
        gradient_norm=norm,
        samples=int(samples[-1]),
        group_size=group_size,
        remaining=remaining,
        optimizer="sgd" if "sgd" in str(getattr(trainer.args, "optim", "")).lower() else "adamw",
        scale=trainer.scale_rewards,
        rate_ahead=rate_ahead(trainer, int(step[-1]), remaining),
    )


def rate_ahead(trainer: Any, step: int, remaining: int) -> Float[ndarray, " N"] | None:
    """Learning rate of the step just taken and of those to come, at ``steps_ahead``; None where it cannot be known.

    Known of a scheduler that is a function of the step (torch's LambdaLR, all but one of transformers').
    """
    scheduler = getattr(trainer, "lr_scheduler", None)
    shape, base = getattr(scheduler, "lr_lambdas", None), getattr(scheduler, "base_lrs", None)
    if not shape or not base or getattr(scheduler, "last_epoch", None) != step:
        return None
    return np.array([float(base[0]) * float(shape[0](step - 1 + int(k))) for k in steps_ahead(remaining)])


def flat(record: dict[str, Any], skip: tuple[str, ...] = ()) -> dict[str, float]:
    """A step's numbers under the names that trackers get; what is undefined, or in ``skip``, is left out."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if name == "costate_norm":
            found |= {f"costate_norm/layer_{i:02d}": v for i, v in enumerate(value) if v is not None}
        elif name == "costate_norm_head":
            found["costate_norm/head"] = value
        elif isinstance(value, float) and name not in skip:
            found[name] = value
    return found
