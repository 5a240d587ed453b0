"""A callback for TRL's GRPOTrainer: costates, dead groups, signal and outlook of a run, in its trackers and a log.

TRL does not hand the batch to callbacks, so three methods of the trainer object are wrapped while it trains:
``compute_loss`` and, private to TRL, ``_generate_and_score_completions`` and ``_calculate_rewards``. Whatever goes
wrong in here is logged once and ends the callback, not the run.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from vgrad_lab.integrations import credit_log
from vgrad_lab.integrations.groups import LEVELS
from vgrad_lab.integrations.outlook import Progress, remaining_curve
from vgrad_lab.integrations.trainer import flat, owner, progress, start_record, unwrap, wrap
from vgrad_lab.integrations.watch import Watch, clear, release, watch
from vgrad_lab.integrations.window import (
    MicroBatch,
    Window,
    add_micro_batch,
    describe_costates,
    describe_generations,
    describe_one_token,
    generation,
    micro_batch,
    total_rewards,
)

logger = logging.getLogger(__name__)
BORROWED = ("entropy", "kl", "clip_ratio/region_mean", "completions/mean_length", "completions/clipped_ratio")
"""TRL's own metrics that the log repeats, so that ``vgrad doctor`` reads one file."""
TRACKED = ("reward", "learning_rate")
"""Numbers of the log that trackers have from TRL already."""
WRAPPED = ("compute_loss", "_generate_and_score_completions", "_calculate_rewards")
CONTRADICTED = 5.0
"""Standard errors of surplus successes from which prompts have more than one right token, and no Σ."""
Forecast = Callable[[Progress], "np.ndarray | None"]


class VGradCallback(TrainerCallback):  # type: ignore[misc]
    """Log costate norms, dead groups, success, H_α, κ, and where defined Σ, Λ and alignment, from inside a GRPO run.

    λ̂_i = ∂(Â_i Σ_t ℓ_{i,t})/∂h, scaled per loss type (``scale.loss_weight``). Pass it as
    ``GRPOTrainer(…, callbacks=[VGradCallback()])``; ``attach`` names the trainer by hand.

    every: steps between two measurements of costates and signal; groups are read every step. alpha: of H_α, per unit of
    reward. forecast: success from now to the end from a ``Progress``, or None. log: file in output_dir, None for none.
    Raises ValueError for every < 1 or alpha ≤ 0; nothing is raised during training. Ledger: S21.exact, S22.alignment.
    """

    def __init__(
        self,
        *,
        every: int = 1,
        alpha: float = 1.0,
        forecast: Forecast | None = remaining_curve,
        log: str | None = credit_log.NAME,
    ) -> None:
        if every < 1:
            raise ValueError(f"every is {every}; give the steps between two measurements, at least 1")
        if not alpha > 0:
            raise ValueError(f"alpha is {alpha}; give a positive number per unit of reward")
        self.every, self.alpha, self.forecast, self.log = every, alpha, forecast, log
        self.problem: str | None = None
        self._trainer: Any = None
        self._watch: Watch | None = None
        self._reset()

    def _reset(self) -> None:
        self._saved: dict[str, Any] = {}
        self._window, self._batch = Window(), None
        self._by_function: torch.Tensor | None = None
        self._rewards: set[float] | None = set()
        self._single, self._excess, self._variance = True, 0.0, 0.0
        self._rows, self._counts = 0, dict.fromkeys(BORROWED, 0)
        self._path: Path | None = None
        self._pending: dict[str, Any] | None = None
        self._history: list[tuple[int, float, float, float, int]] = []

    _batch: MicroBatch | None

    def attach(self, trainer: Any) -> "VGradCallback":
        """Name the trainer and join its callbacks; returns the callback."""
        self._trainer = trainer
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        return self

    # --- what the trainer calls -------------------------------------------------------------------------------------
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find the trainer, hook the model, open the log."""
        self._guarded(self._begin, args, state)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the last step's line and start a new one."""
        if self._watch is not None:
            self._guarded(self._begin_step)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add a micro-batch."""
        if self._watch is not None:
            self._guarded(self._end_micro_batch)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the last micro-batch and read the signal before the weights move."""
        if self._watch is not None:
            self._guarded(self._before_update, kwargs.get("optimizer"))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hand the step's numbers to TRL's metrics."""
        if self._watch is not None:
            self._guarded(self._end_step, state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Take the gradient's norm from the trainer's own log."""
        if self._pending is not None and logs and self._pending["step"] == state.global_step:
            self._guarded(self._take_gradient_norm, logs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the last line and leave the model as it was."""
        if self._watch is not None:
            self._guarded(self._end, state)
            self._detach()

    # --- steps ------------------------------------------------------------------------------------------------------
    def _begin(self, args: Any, state: Any) -> None:
        self._detach()
        self._reset()
        self.problem = None
        known = self._trainer is not None and self._trainer.state is state
        trainer = self._trainer if known else owner(state)
        missing = [name for name in (*WRAPPED, "_metrics", "loss_type") if not hasattr(trainer, name)]
        if missing:
            raise RuntimeError(
                f"{type(trainer).__name__} lacks {', '.join(missing)}; a GRPOTrainer of TRL ≥ 1.16 has them"
            )
        self._trainer, self._watch = trainer, watch(trainer.model, failed=self._fail)
        self._saved = wrap(trainer, dict(zip(WRAPPED, (self._loss, self._generate, self._score), strict=True)))
        if self.log is not None and state.is_world_process_zero:
            self._path = Path(args.output_dir) / self.log
        self._write(start_record(trainer, every=self.every, alpha=self.alpha, layers=self._watch.layers))

    def _begin_step(self) -> None:
        self._flush()
        self._window = Window()
        seen, trainer = self._watch, self._trainer
        assert seen is not None
        clear(seen)
        seen.armed = trainer.state.global_step % self.every == 0
        self._counts = {name: len(trainer._metrics["train"].get(name, ())) for name in BORROWED}

    def _end_micro_batch(self) -> None:
        seen, batch = self._watch, self._batch
        assert seen is not None
        if batch is not None:
            add_micro_batch(self._window, seen, batch)
        armed = seen.armed
        clear(seen)
        seen.armed, self._batch = armed, None

    def _before_update(self, optimizer: Any) -> None:
        self._end_micro_batch()
        rate = optimizer.param_groups[0]["lr"] if optimizer is not None else float("nan")
        found, (excess, variance) = describe_one_token(self._trainer, self._window)
        self._excess, self._variance = self._excess + excess, self._variance + variance
        self._single &= self._excess <= CONTRADICTED * self._variance**0.5 + 1e-9
        self._window.found = {"learning_rate": float(rate), **(found if self._single else {})}

    def _end_step(self, state: Any) -> None:
        seen, trainer, window = self._watch, self._trainer, self._window
        assert seen is not None
        record: dict[str, Any] = {"kind": "step", "step": int(state.global_step), **window.found}
        record |= describe_costates(window, seen.layers)
        record |= describe_generations(trainer, window, self.alpha, self._rewards)
        for name, before in self._counts.items():
            values = [v for v in trainer._metrics["train"].get(name, [])[before:] if v == v]
            if values:
                record[name] = sum(values) / len(values)
        record |= self._outlook(record, state)
        for name, value in flat(record, skip=(*BORROWED, *TRACKED)).items():
            trainer._metrics["train"][f"vgrad/{name}"].append(value)
        self._pending = record

    def _outlook(self, record: dict[str, Any], state: Any) -> dict[str, Any]:
        if "success" not in record:
            return {}
        samples = record["groups"] * record["group_size"]
        rate = record.get("learning_rate", float("nan"))
        self._history.append((record["step"], record["success"], rate, float("nan"), samples))
        if self.forecast is None:
            return {}
        made = progress(self._trainer, self._history, record["group_size"], int(state.max_steps - state.global_step))
        curve = self.forecast(made)
        if curve is None or not len(curve):
            return {}
        points = np.unique(np.linspace(0, len(curve) - 1, 11).round().astype(int))
        kind = "trend" if self.forecast is remaining_curve else "given"
        found = {"forecast_final": float(curve[-1]), "forecast": [float(curve[i]) for i in points]}
        return {**found, "forecast_kind": kind}

    def _take_gradient_norm(self, logs: dict[str, Any]) -> None:
        norm = logs.get("grad_norm")
        if self._pending is not None and norm is not None:
            self._pending["grad_norm"] = float(norm)
            if self._history and self._history[-1][0] == self._pending["step"]:
                step, success, rate, _, samples = self._history[-1]
                self._history[-1] = (step, success, rate, float(norm), samples)

    def _end(self, state: Any) -> None:
        self._flush()
        self._write({"kind": "end", "step": int(state.global_step)})

    # --- what wraps the trainer's methods; arguments pass as they come, so that no change of TRL's stops a run ------
    def _loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self._watch is not None and self._watch.armed and self._trainer.model.training:
            self._guarded(self._prepare, inputs)
        return self._saved["compute_loss"][1](model, inputs, *args, **kwargs)

    def _prepare(self, inputs: Any) -> None:
        seen = self._watch
        assert seen is not None
        self._batch = micro_batch(self._trainer, inputs)
        fresh = [g for g in self._window.generations if g.one_token is not None]
        seen.keep_state = (
            self._single and bool(fresh) and self._batch.rows is not None and inputs["completion_ids"].shape[1] == 1
        )

    def _score(self, *args: Any, **kwargs: Any) -> Any:
        self._by_function = self._saved["_calculate_rewards"][1](*args, **kwargs)
        return self._by_function

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        output = self._saved["_generate_and_score_completions"][1](*args, **kwargs)
        if self._watch is not None and self._trainer.model.training:
            self._guarded(self._take_generation, output)
        return output

    def _take_generation(self, output: dict[str, Any]) -> None:
        if self._by_function is None:
            return
        if self._rewards is not None:
            values = set(total_rewards(self._trainer, self._by_function).tolist())
            self._rewards |= {v for v in values if v == v}
            if not any(self._rewards <= set(pair) for pair in LEVELS):
                self._rewards = None
        made = generation(self._trainer, output, self._by_function, self._rewards, self._rows)
        self._window.generations.append(made)
        self._single &= not made.contradicted
        device = output["completion_ids"].device
        output["vgrad_row"] = torch.arange(made.first_row, made.first_row + made.rows, device=device)
        self._rows += made.rows
        self._by_function = None

    # --- safety -----------------------------------------------------------------------------------------------------
    def _guarded(self, action: Callable[..., None], *values: Any) -> None:
        if self.problem is None:
            try:
                action(*values)
            except Exception as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Say once what went wrong and stop measuring; the run goes on."""
        if self.problem is not None:
            return
        self.problem = f"{type(error).__name__}: {error}"
        logger.warning("VGradCallback stops measuring, the run goes on: %s", self.problem)
        try:
            self._flush()
            self._write({"kind": "disabled", "reason": self.problem})
        except Exception:
            logger.debug("the log cannot be written either", exc_info=True)
        self._detach()

    def _detach(self) -> None:
        if self._watch is not None:
            release(self._watch)
        self._watch, self._batch = None, None
        if self._trainer is not None:
            unwrap(self._trainer, self._saved)

    def _flush(self) -> None:
        if self._pending is not None:
            record, self._pending = self._pending, None
            self._write(record)

    def _write(self, record: dict[str, Any]) -> None:
        if self._path is not None:
            credit_log.append(self._path, record)
