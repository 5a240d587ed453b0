"""TRL's own losses against the exact directions of the token tree, at the pinned version of TRL.

A tiny language model over three tokens answers one prompt; a batch holds every answer of the tree once. That is the
mean over answers of the policy under which all answers are equally likely, so TRL's gradient in the weights equals the
tree's exact direction in the logits, pulled back through the model (in float64) to the weights.

Opt-in tier; left out where TRL has another version than the one in constraints.txt (tests/integrations/conftest.py).
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy import ndarray

from tests import tiny_models
from vgrad_lab.advantage import from_group
from vgrad_lab.discrete.float_groups import naive_advantage
from vgrad_lab.discrete.kl import kl_term_gradient
from vgrad_lab.discrete.off_policy import Clip, off_policy_gradient, truncated_gradient
from vgrad_lab.discrete.token_tree import TokenTree, token_logprob, token_tree, weighted_score
from vgrad_lab.tolerances import PLANTED_FAULT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.pinned_trl,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]
SINGLE = PLANTED_FAULT / 1000
"""Relative; TRL's log-probabilities are in float32 whatever the weights are."""
PROMPT = (1, 2)
LONGEST = 5
TREES = {"variable": token_tree(3, 3), "fixed": token_tree(3, 2, end=None)}


def tiny(seed: int) -> Any:
    """A Llama over three tokens with two layers of width 16."""
    return tiny_models.causal("Llama", seed=seed, vocab_size=3, pad_token_id=None, eos_token_id=None, bos_token_id=None)


def trainer_of(kind: str, folder: Path, model: Any) -> Any:
    """A trainer of TRL that never generates."""
    import trl
    from datasets import Dataset

    config, trainer = getattr(trl, f"{kind}Config"), getattr(trl, f"{kind}Trainer")
    settings = config(
        output_dir=str(folder), per_device_train_batch_size=4, num_generations=4, max_completion_length=LONGEST,
        beta=0.0, bf16=False, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        gradient_checkpointing=False,
    )  # fmt: skip
    made = trainer(
        model=model, reward_funcs=lambda completion_ids, **_: [0.0] * len(completion_ids), args=settings,
        train_dataset=Dataset.from_dict({"prompt": ["a"] * 4}), processing_class=tiny_models.tokenizer(),
    )  # fmt: skip
    made.current_gradient_accumulation_steps = 1
    return made


PRECISIONS = pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=["float32", "float64"])
"""Of the weights."""


@pytest.fixture(scope="module")
def grpo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return trainer_of("GRPO", tmp_path_factory.mktemp("grpo"), tiny(1).train())


@pytest.fixture(scope="module")
def rloo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return trainer_of("RLOO", tmp_path_factory.mktemp("rloo"), tiny(1).train())


@pytest.fixture(autouse=True)
def restored(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test sets on a shared trainer is set back."""
    kept = [(t, dict(vars(t)), dict(vars(t.args))) for n in ("grpo", "rloo") if n in request.fixturenames
            for t in [request.getfixturevalue(n)]]  # fmt: skip
    yield
    for trainer, own, settings in kept:
        vars(trainer).update({k: v for k, v in own.items() if not k.startswith("_")})
        vars(trainer.args).update(settings)


def logits_of(model: Any, tree: TokenTree) -> torch.Tensor:
    """The model's logits at every open prefix, (N,V)."""
    rows = [model(input_ids=torch.tensor([[*PROMPT, *p]]), use_cache=False).logits[0, -1] for p in tree.prefixes]
    return torch.stack(rows)


def flat(gradients: Any) -> ndarray:
    return torch.cat([g.flatten() for g in gradients]).double().numpy()


def all_equal(tree: TokenTree) -> ndarray:
    """Logits of the policy that draws every answer of the tree with the same probability."""
    below = np.zeros(tree.logits_shape)
    np.add.at(below, (tree.node[tree.scored], tree.tokens[tree.scored]), 1.0)
    return np.log(below)


class Case:
    """A tree, a trainer's model as a policy on it, and a batch that holds every answer once."""

    def __init__(self, trainer: Any, tree: TokenTree, seed: int, precision: torch.dtype = torch.float64) -> None:
        self.trainer, self.tree, self.size, self.precision = trainer, tree, tree.size, precision
        self.model = trainer.model.to(precision)
        self.twin = copy.deepcopy(tiny(1)).double()
        self.twin.load_state_dict({k: v.double() for k, v in self.model.state_dict().items()})
        self.logits = logits_of(self.twin, tree).detach().numpy()
        self.uniform = all_equal(tree)
        rng = np.random.default_rng(seed)
        self.reference = self.logits + 1.5 * rng.standard_normal(self.logits.shape)
        self.advantage = rng.standard_normal(self.size).astype(np.float32).astype(float)

    def inputs(self, **changes: Any) -> dict[str, Any]:
        """What TRL's loss reads, with tokens after the end masked."""
        size, tokens = self.size, torch.tensor(self.tree.tokens)
        return {
            "prompt_ids": torch.tensor([PROMPT] * size),
            "prompt_mask": torch.ones(size, len(PROMPT), dtype=torch.int),
            "completion_ids": tokens,
            "completion_mask": torch.tensor(self.tree.scored).int(),
            "advantages": torch.tensor(self.advantage, dtype=self.precision),
            "num_items_in_batch": torch.tensor(int(self.tree.length.sum())),
            **changes,
        }

    def single(self, logits: ndarray) -> torch.Tensor:
        """Log-probabilities of the answers' tokens under other logits, as TRL stores them."""
        return torch.tensor(token_logprob(self.tree, logits), dtype=self.precision)

    def trl(self, **changes: Any) -> ndarray:
        """Gradient of TRL's loss in the weights."""
        self.model.zero_grad()
        loss = self.trainer._compute_loss(self.model, self.inputs(**changes))
        return flat(torch.autograd.grad(loss, list(self.model.parameters())))

    def pulled_back(self, direction: ndarray) -> ndarray:
        """A direction in the logits of the prefixes, through the model to its weights; minus, as of a loss."""
        logits = logits_of(self.twin, self.tree)
        cotangent = torch.tensor(-direction.reshape(self.logits.shape))
        return flat(torch.autograd.grad(logits, list(self.twin.parameters()), cotangent))

    def spread(self, weight: ndarray) -> float:
        """Mean norm of the answers' own gradients: rounding is relative to them where they cancel in the sum."""
        share = np.abs(weight) / self.size
        rows = [np.where(np.arange(self.size)[:, None] == b, 1.0, 0.0) * self.tree.scored for b in range(self.size)]
        own = [np.linalg.norm(self.pulled_back(weighted_score(self.tree, self.logits, row))) for row in rows]
        return float(share @ np.array(own))


def agree(found: ndarray, expected: ndarray, size: float = 0.0) -> None:
    """Equal to 1e-6 relative to the larger of ``size`` and the gradient's norm; a fault of 0.1 % would be seen."""
    assert np.linalg.norm(expected) > 1e-3
    size = max(size, float(np.linalg.norm(expected)))
    assert np.linalg.norm(found - expected) <= SINGLE * size
    assert np.linalg.norm(found - (1 + PLANTED_FAULT) * expected) > SINGLE * size


def weight_of(loss: str, tree: TokenTree) -> ndarray:
    """What a library's loss divides each answer's sum over tokens by, times the number of answers."""
    return {
        "grpo": 1 / tree.length,
        "dr_grpo": np.full(tree.size, 1 / LONGEST),
        "dapo": np.full(tree.size, tree.size / tree.length.sum()),
        "bnpo": np.full(tree.size, tree.size / tree.length.sum()),
        "luspo": np.ones(tree.size),
    }[loss]


@PRECISIONS
@pytest.mark.parametrize("shape", TREES)
@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "bnpo", "luspo"])
def test_at_ratio_one(grpo: Any, loss: str, shape: str, precision: torch.dtype) -> None:
    """The score-function sums of the estimator table: Σ_i A_i w_i Σ_t g_t, w = 1/|o|, 1/L_max, 1/Σ|o|."""
    case = Case(grpo, TREES[shape], seed=0, precision=precision)
    grpo.loss_type = loss
    advantage = case.advantage * weight_of(loss, case.tree)
    exact = off_policy_gradient(case.tree, case.logits, case.uniform, advantage, ratio="none")
    agree(case.trl(), case.pulled_back(exact), case.spread(advantage) if precision is torch.float32 else 0.0)


def test_dapo_counts_the_tokens_of_one_update(grpo: Any) -> None:
    """Four micro-batches a generation, two an update: of the generation's 3 Σ|o| tokens half are counted."""
    case = Case(grpo, TREES["variable"], seed=7)
    grpo.loss_type, grpo.current_gradient_accumulation_steps, grpo.args.steps_per_generation = "dapo", 2, 4
    tokens = 3 * int(case.tree.length.sum())
    advantage = case.advantage * case.size / (tokens / 2)
    exact = off_policy_gradient(case.tree, case.logits, case.uniform, advantage, ratio="none")
    agree(case.trl(num_items_in_batch=torch.tensor(tokens)), case.pulled_back(exact))


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "bnpo"])
def test_off_policy_and_clipped(grpo: Any, loss: str, level: str) -> None:
    """Answers of another policy; symmetric bounds, clip-higher and the cap on ρ where A < 0; GSPO at sequence level."""
    case = Case(grpo, TREES["variable"], seed=1)
    grpo.loss_type, grpo.importance_sampling_level = loss, level
    old = case.single(case.uniform)
    weight = weight_of(loss, case.tree) * (case.tree.length if level == "sequence" else 1)
    ratio = "token" if level == "token" else "geometric"
    seen = []
    for clip in (Clip(0.2, 0.2), Clip(0.2, 0.28), Clip(0.05, 0.05, cap=1.2)):
        grpo.epsilon_low, grpo.epsilon_high, grpo.args.delta = clip.low, clip.high, clip.cap
        settings = {"ratio": ratio, "clip": clip}
        exact = off_policy_gradient(case.tree, case.logits, case.uniform, case.advantage * weight, **settings)
        agree(case.trl(old_per_token_logps=old), case.pulled_back(exact))
        seen.append(exact)
    assert np.abs(seen[0] - seen[2]).max() > 1e-3


def test_cispo_is_a_truncated_weight(grpo: Any) -> None:
    case = Case(grpo, TREES["variable"], seed=2)
    grpo.loss_type, grpo.epsilon_high = "cispo", 1.2
    weight = weight_of("dapo", case.tree)
    exact = truncated_gradient(case.tree, case.logits, case.uniform, case.advantage * weight, most=1.2)
    agree(case.trl(old_per_token_logps=case.single(case.uniform)), case.pulled_back(exact))


@pytest.mark.parametrize(
    ("corrected", "level", "place"),
    [(False, "token", "loss"), (True, "token", "token_ratio"), (True, "sequence", "geometric_ratio")],
)
def test_kl_term(grpo: Any, corrected: bool, level: str, place: Any) -> None:
    """k3 in the loss, with use_bias_correction_kl times ρ: at either level of the ratio."""
    case = Case(grpo, TREES["variable"], seed=3)
    grpo.loss_type, grpo.importance_sampling_level, grpo.beta = "luspo", level, 0.7
    grpo.args.use_bias_correction_kl = corrected
    found = case.trl(
        old_per_token_logps=case.single(case.uniform),
        ref_per_token_logps=case.single(case.reference),
        advantages=torch.zeros(case.size, dtype=case.precision),
    )
    settings = {"term": "k3", "place": place, "behaviour": case.uniform}
    exact = kl_term_gradient(case.tree, case.logits, case.reference, **settings)
    agree(found, case.pulled_back(-0.7 * exact))


@PRECISIONS
@pytest.mark.parametrize("shape", TREES)
def test_rloo(rloo: Any, shape: str, precision: torch.dtype) -> None:
    """The whole answer's ratio, at ratio 1 and off-policy, clipped: its mean without a clip is ∇J itself."""
    case = Case(rloo, TREES[shape], seed=4, precision=precision)
    size = case.spread(case.advantage) if precision is torch.float32 else 0.0
    settings = {"ratio": "sequence", "clip": Clip(0.2, 0.2)}
    on = case.single(case.logits).sum(1)
    fixed = off_policy_gradient(case.tree, case.logits, case.uniform, case.advantage, ratio="none")
    agree(case.trl(old_logps=on), case.pulled_back(fixed), size)
    old = case.single(case.uniform).sum(1)
    exact = off_policy_gradient(case.tree, case.logits, case.uniform, case.advantage, **settings)
    agree(case.trl(old_logps=old), case.pulled_back(exact), size)


def computed_advantages(trainer: Any, reward: ndarray, monkeypatch: pytest.MonkeyPatch) -> ndarray:
    """TRL's advantages of one group with given rewards: what follows its generation, answers drawn by us."""
    count = len(reward)
    single = torch.tensor(reward, dtype=torch.float32)
    ids = [[1, 2, 0][: 1 + i % 3] for i in range(count)]
    answers = ids if hasattr(trainer, "normalize_advantages") else (ids, None)  # RLOO's, GRPO's with log-probabilities
    monkeypatch.setattr(trainer, "num_generations", count)
    monkeypatch.setattr(trainer, "_tokenize_prompts", lambda prompts: ([list(PROMPT)] * count, None, {}))
    monkeypatch.setattr(trainer, "_generate_single_turn", lambda *_: answers)
    monkeypatch.setattr(trainer, "_calculate_rewards", lambda *_: single[:, None])
    return np.array(trainer._generate_and_score_completions([{"prompt": "a"}] * count)["advantages"])


def test_advantages_from_rewards(grpo: Any, rloo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """group_standardised with ddof 1 and ε 1e-4, group_mean, leave_one_out."""
    reward = np.random.default_rng(5).standard_normal(4)
    for trainer, scale, baseline in (
        (grpo, "group", "standardised"), (grpo, "none", "group_mean"), (rloo, "", "leave_one_out"),
    ):  # fmt: skip
        trainer.scale_rewards = scale
        found = computed_advantages(trainer, reward, monkeypatch)
        agree(found, from_group(reward[None], baseline, ddof=1, eps=1e-4)[0])


def test_equal_rewards_are_not_zero_in_trl(grpo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight rewards of 0.7 and five of 123.456: 6e-4 and 0.07, as without TRL; zeros and ones are exact."""
    grpo.scale_rewards = "group"
    for value, count, least in ((0.7, 8, 5e-4), (0.1, 8, 5e-5), (123.456, 5, 0.05)):
        found = computed_advantages(grpo, np.full(count, value), monkeypatch)
        assert np.abs(found).max() > least
        np.testing.assert_allclose(found, naive_advantage(np.full(count, value, np.float32), "trl"), rtol=1e-4)
    assert not np.any(computed_advantages(grpo, np.ones(8), monkeypatch))
