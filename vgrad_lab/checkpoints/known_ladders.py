"""Ladders that are known by name. Sizes and patterns are those of the published repositories; none is taken on trust:
names are matched against the repository's own branches, and config.json against what is expected here."""

from dataclasses import replace
from pathlib import Path

from vgrad_lab.checkpoints.errors import UserError
from vgrad_lab.checkpoints.findings import nearest
from vgrad_lab.checkpoints.specs import Architecture, LadderSpec, folder_spec, read_spec

_OLMO2 = r"stage1-step(?P<step>\d+)-tokens(?P<tokens>\d+)B"
_PYTHIA = {
    "14m": (6, 128), "31m": (6, 256), "70m": (6, 512), "160m": (12, 768), "410m": (24, 1024), "1b": (16, 2048),
    "1.4b": (24, 2048), "2.8b": (32, 2560), "6.9b": (32, 4096), "12b": (36, 5120),
}  # fmt: skip
_PYTHIA_NOTES = {
    "1b": "step1 repeats step0",
    "2.8b": "many step branches carry main's model.safetensors beside their own shards, and some repeat others",
    "6.9b": "steps are .bin shards only",
    "12b": "steps are .bin shards only; step58000 repeats the final model",
}


def _olmo2(size: str, repository: str, tokens: int, layers: int, width: int, note: str = "") -> LadderSpec:
    return LadderSpec(
        name=f"olmo2-{size}",
        pattern=_OLMO2,
        repository=f"allenai/{repository}",
        tokens_per_step=tokens,
        architecture=Architecture("Olmo2ForCausalLM", layers, width, 500_000.0),
        note=note or "stage 1; main is the model after stage 2",
    )


def _olmo3(size: str, repository: str, tokens: int, layers: int, width: int) -> LadderSpec:
    return LadderSpec(
        name=f"olmo3-{size}",
        pattern=r"stage1-step(?P<step>\d+)",
        repository=f"allenai/{repository}",
        tokens_per_step=tokens,
        architecture=Architecture("Olmo3ForCausalLM", layers, width, 500_000.0),
        note="stage 1, before the context is lengthened",
    )


def _pythia(size: str, suffix: str = "") -> LadderSpec:
    layers, width = _PYTHIA[size]
    return LadderSpec(
        name=f"pythia-{size}{suffix}",
        pattern=r"step(?P<step>\d+)",
        repository=f"EleutherAI/pythia-{size}{suffix}",
        tokens_per_step=2_097_152,
        architecture=Architecture("GPTNeoXForCausalLM", layers, width, 10_000.0),
        main_step=143_000,
        note="" if suffix else _PYTHIA_NOTES.get(size, ""),
    )


def _smollm2(size: str, layers: int, width: int, tokens: int | None = None) -> LadderSpec:
    return LadderSpec(
        name=f"smollm2-{size.lower()}",
        pattern=r"step-(?P<step>\d+)",
        repository=f"HuggingFaceTB/SmolLM2-{size}-intermediate-checkpoints",
        tokens_per_step=tokens,
        architecture=Architecture("LlamaForCausalLM", layers, width),
    )


_OLMO2_1B = _olmo2("1b", "OLMo-2-0425-1B", 2_097_152, 16, 2048)
_ALL = (
    _OLMO2_1B,
    replace(
        _OLMO2_1B,
        name="olmo2-1b-paper",
        steps=tuple(range(50_000, 1_000_001, 50_000)),
        note="the paper's 20 checkpoints: every 50 000 steps to 1 000 000",
    ),
    replace(
        _OLMO2_1B,
        name="olmo2-1b-early",
        repository="allenai/OLMo-2-0425-1B-early-training",
        pattern=r"(?:stage1-)?step(?P<step>\d+)(?:-tokens(?P<tokens>\d+)B)?",
        note="every 1 000 steps at the start of stage 1",
    ),
    _olmo2("7b", "OLMo-2-1124-7B", 4_194_304, 32, 4096, "stage 1; some steps were published with equal weights"),
    _olmo2("13b", "OLMo-2-1124-13B", 8_388_608, 40, 5120),
    _olmo2("32b", "OLMo-2-0325-32B", 8_388_608, 64, 5120),
    _olmo3("7b", "Olmo-3-1025-7B", 4_194_304, 32, 4096),
    _olmo3("32b", "Olmo-3-1125-32B", 8_388_608, 64, 5120),
    *(_pythia(size) for size in _PYTHIA),
    *(_pythia(size, "-deduped") for size in tuple(_PYTHIA)[2:]),
    _smollm2("135M", 30, 576),
    _smollm2("360M", 32, 960),
    _smollm2("1.7B", 24, 2048, 2_097_152),
    LadderSpec(
        name="smollm3-3b",
        pattern=r"stage1-step-(?P<step>\d+)",
        repository="HuggingFaceTB/SmolLM3-3B-checkpoints",
        tokens_per_step=2_359_296,
        architecture=Architecture("SmolLM3ForCausalLM", 36, 2048),
        note="stage 1; main holds no model",
    ),
    LadderSpec(
        name="amber",
        pattern=r"ckpt_(?P<step>\d+)",
        repository="LLM360/Amber",
        architecture=Architecture("LlamaForCausalLM", 32, 4096),
        main_step=359,
        note="the number is that of the checkpoint; main is 359",
    ),
)
KNOWN: dict[str, LadderSpec] = {spec.name: spec for spec in _ALL}
"""Built-in ladders by name."""


def find_spec(name: str) -> LadderSpec:
    """The ladder that a user means: a built-in name or repository, a YAML file, or a folder of checkpoints.

    Raises UserError with the nearest names when it is none of them.
    """
    if name in KNOWN:
        return KNOWN[name]
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return read_spec(path)
    if path.is_dir():
        return folder_spec(path)
    repositories = {spec.repository: spec for spec in reversed(_ALL) if spec.repository}
    if name in repositories:
        return repositories[name]
    names = [*KNOWN, *(known for known in repositories if "/" in name)]
    raise UserError(f"no ladder named {name!r}: {nearest(name, names)}; or give a YAML file or a folder of checkpoints")
