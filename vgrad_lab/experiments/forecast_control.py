"""Control of the forecast: GRPO with a reward that ignores the answer, on the rungs of real ladders.

    python -m vgrad_lab.experiments.forecast_control runs/seed4/ladder [more] --out docs/results/forecast-control.json

The expected update is E[Â]·E[∇ log π] = 0, so the forecast is R_before at every update. Real runs show what noise alone
does beyond first order.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor
from tqdm.auto import tqdm

from vgrad_lab.advantage import from_group
from vgrad_lab.checkpoints.atomic import write_file
from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.grpo import GrpoSettings, default_settings, evaluate, make_optimizer
from vgrad_lab.checkpoints.ladders import list_rungs
from vgrad_lab.checkpoints.loading import Checkpoint, load_checkpoint
from vgrad_lab.checkpoints.probe import answer_logits, evaluation_prompts, on_device
from vgrad_lab.checkpoints.tasks import LabelCopy, draw_prompts, encode_prompts
from vgrad_lab.experiments.forecast_records import ladder_name
from vgrad_lab.provenance import versions

CHANCE = 0.5


def random_reward_loss(
    logits: Tensor, rl: GrpoSettings, rng: np.random.Generator, generator: torch.Generator
) -> Tensor:
    """−mean(Â log π(a)) with rewards of a coin that does not look at the answer."""
    logp = torch.log_softmax(logits.float(), -1)
    action = torch.multinomial(logp.detach().exp(), rl.group_size, replacement=True, generator=generator)
    reward = (rng.random(tuple(action.shape)) < CHANCE).astype(float)
    weight = torch.from_numpy(from_group(reward, rl.baseline, ddof=rl.ddof, eps=rl.eps)).to(logp)
    return -(weight * logp.gather(1, action)).mean()


def train_random(checkpoint: Checkpoint, task: LabelCopy, rl: GrpoSettings, *, seed: int) -> Float[ndarray, " K"]:
    """Success rate at 0 and every budget of a run whose reward is random; the model is changed in place."""
    model, total, rng = checkpoint.model, rl.budgets[-1], np.random.default_rng([seed, 3])
    evaluation = evaluation_prompts(checkpoint, task, rl.evaluation_prompts)
    batch = encode_prompts(task, checkpoint.tokenizer, draw_prompts(task, total * rl.prompts, rng=rng))
    generator = torch.Generator(device=model.device).manual_seed(seed)
    optimizer, curve = make_optimizer(model, rl), [evaluate(model, evaluation, rl.micro_batch)["reward"]]
    for update in range(total):
        tokens, last, _ = on_device(model, batch, slice(update * rl.prompts, (update + 1) * rl.prompts))
        random_reward_loss(answer_logits(model, tokens, last), rl, rng, generator).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), rl.clip or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if update + 1 in rl.budgets:
            curve.append(evaluate(model, evaluation, rl.micro_batch)["reward"])
    return np.array(curve)


def run(ladders: Iterable[Path], *, every: int = 1, seeds: Sequence[int] = (0, 1)) -> dict[str, Any]:
    """Both default settings on every n-th rung, from the last one back; gains per run.

    Raises UserError where there is no rung.
    """
    todo = [(path, r) for path in ladders for r in list_rungs(path)[::-1][::every]]
    if not todo:
        raise UserError("no rung to run the control on; give folders of checkpoints")
    rows = []
    for path, rung in tqdm(todo, unit="rung"):
        for name in ("adamw", "sgd"):
            rl = default_settings(name)
            curves = [train_random(load_checkpoint(rung.path), LabelCopy(), rl, seed=s).tolist() for s in seeds]
            rows.append({"ladder": ladder_name(path), "rung": rung.name, "setting": name, "curves": curves})
    head = {"device": "cpu", "versions": versions(), "seeds": list(seeds), "chance": CHANCE}
    protocols = {name: asdict(default_settings(name)) for name in ("adamw", "sgd")}
    return {**head, "settings": protocols, "summary": {n: summary(rows, n) for n in protocols}, "rows": rows}


def summary(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Forecast gain (0) and the real ones: mean over rungs with its standard error (None for one), largest |gain|."""
    gain = [float(np.mean([np.mean(c[1:]) - c[0] for c in r["curves"]])) for r in rows if r["setting"] == name]
    error = float(np.std(gain, ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else None
    largest = float(np.abs(gain).max())
    return {"rungs": len(gain), "forecast": 0.0, "gain": float(np.mean(gain)), "error": error, "largest": largest}


def main(arguments: list[str] | None = None) -> None:
    """Run the control from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ladders", type=Path, nargs="+", help="folders of checkpoints")
    parser.add_argument("--every", type=int, default=1, help="every n-th rung, from the last one back")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of the real runs")
    parser.add_argument("--out", type=Path, default=Path("docs/results/forecast-control.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    result = run(options.ladders, every=options.every, seeds=options.seeds)
    names = " ".join(f"<runs>/{ladder_name(path)}/ladder" for path in options.ladders)
    command = f"python -m vgrad_lab.experiments.forecast_control {names} --every {options.every}"
    text = json.dumps({"command": command, **result}, sort_keys=True, allow_nan=False) + "\n"
    write_file(options.out, text)
    sys.stdout.write(f"{options.out}: {json.dumps(result['summary'])}\n")


if __name__ == "__main__":
    main()
