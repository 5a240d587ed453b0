"""A GRPO trainer in the shape of TRL's, small enough to run without TRL: the same names, order and loss (dapo)."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests import tiny_models

PROMPT = 5


class FakeGRPO:
    """One-token (or longer) answers to random prompts, a group each, several micro-batches a step, AdamW."""

    def __init__(
        self, folder: Path, reward: Callable[[Tensor], Tensor], *, steps: int = 3, prompts: int = 4, group: int = 8,
        accumulation: int = 2, length: int = 1, temperature: float = 1.0, model: Any = None, generate_every: int = 1,
    ) -> None:  # fmt: skip
        self.model = (tiny_models.causal("Olmo2", seed=4) if model is None else model).double().train()
        self.reward, self.prompts, self.length, self.generate_every = reward, prompts, length, generate_every
        self.num_generations, self.current_gradient_accumulation_steps = group, accumulation
        self.loss_type, self.scale_rewards, self.temperature = "dapo", "group", temperature
        self.max_completion_length, self.multi_objective_aggregation = length, "sum_then_normalize"
        self.reward_weights, self.reward_funcs = torch.ones(1), [reward]
        self.accelerator = SimpleNamespace(num_processes=1, process_index=0, scaler=None)
        self.args = SimpleNamespace(
            output_dir=str(folder), steps_per_generation=accumulation * generate_every, optim="adamw_torch",
            top_p=1.0, top_k=0, min_p=None, repetition_penalty=1.0, generation_kwargs=None, max_grad_norm=1.0,
        )  # fmt: skip
        self.state = SimpleNamespace(global_step=0, max_steps=steps, is_world_process_zero=True)
        self._metrics: dict[str, Any] = {"train": defaultdict(list)}
        self.callback_handler = SimpleNamespace(callbacks=[])
        self.seen: list[tuple[int, list[Tensor], dict[str, Tensor]]] = []
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)

    def add_callback(self, callback: Any) -> None:
        """As the Trainer's."""
        self.callback_handler.callbacks.append(callback)

    def logp(self, inputs: dict[str, Tensor]) -> Tensor:
        """Log-probabilities of the answer's tokens."""
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        hidden = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        logits = hidden[:, PROMPT - 1 : -1] @ self.model.get_output_embeddings().weight.T / self.temperature
        return torch.log_softmax(logits, -1).gather(2, inputs["completion_ids"][..., None])[..., 0]

    def _calculate_rewards(self, completion_ids: Tensor) -> Tensor:
        return self.reward(completion_ids)[:, None]

    def _generate_and_score_completions(self, step: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(step)
        prompts = torch.randint(2, 11, (self.prompts, PROMPT), generator=g).repeat_interleave(self.num_generations, 0)
        ids = prompts
        with torch.no_grad():
            for _ in range(self.length):
                logits = self.model(input_ids=ids, use_cache=False).logits[:, -1] / self.temperature
                ids = torch.cat([ids, torch.multinomial(torch.softmax(logits, -1), 1, generator=g)], 1)
        answer = ids[:, PROMPT:]
        reward = self._calculate_rewards(answer)[:, 0].double().view(-1, self.num_generations)
        advantage = (reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-4)
        return {
            "prompt_ids": prompts, "completion_ids": answer, "completion_mask": torch.ones_like(answer),
            "advantages": advantage.flatten(), "num_items_in_batch": torch.tensor(answer.numel()),
        }  # fmt: skip

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False) -> Tensor:
        """Dapo, as TRL divides it."""
        logp = self.logp(inputs)
        ratio = torch.exp(logp - logp.detach())
        normaliser = inputs["num_items_in_batch"] * self.current_gradient_accumulation_steps
        loss = -(ratio * inputs["advantages"][:, None] * inputs["completion_mask"]).sum()
        return loss / (normaliser / self.args.steps_per_generation)

    def train(self) -> None:
        """The Trainer's loop, as far as callbacks see it."""
        self.state.global_step = 0
        callbacks, k = list(self.callback_handler.callbacks), self.current_gradient_accumulation_steps

        def call(event: str) -> None:
            for callback in callbacks:
                getattr(callback, event)(self.args, self.state, None, optimizer=self.optimizer)

        call("on_train_begin")
        chunks: list[dict[str, Tensor]] = []
        while self.state.global_step < self.state.max_steps:
            call("on_step_begin")
            for micro in range(k):
                if not chunks:
                    whole = self._generate_and_score_completions(self.state.global_step)
                    order = torch.randperm(len(whole["advantages"]), generator=torch.Generator().manual_seed(1))
                    parts = [order[i :: k * self.generate_every] for i in range(k * self.generate_every)]
                    chunks = [{n: v[p] if v.ndim else v for n, v in whole.items()} for p in parts]
                inputs = chunks.pop(0)
                self.seen.append((self.state.global_step + 1, [], inputs))
                torch.autograd.backward(self.compute_loss(self.model, inputs))
                call("on_pre_optimizer_step" if micro == k - 1 else "on_substep_end")
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.state.global_step += 1
            call("on_step_end")
            for callback in callbacks:
                callback.on_log(self.args, self.state, None, logs={"grad_norm": 0.5 + self.state.global_step})
        call("on_train_end")
