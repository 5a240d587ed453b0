"""config.json of a rung: class, sizes and RoPE base in every spelling, against what a ladder expects."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from vgrad_lab.checkpoints.findings import Finding
from vgrad_lab.checkpoints.inventory import Inventory
from vgrad_lab.checkpoints.specs import LadderSpec

SPELLINGS = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "width": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head"),
    "key-value heads": ("num_key_value_heads",),
    "vocabulary": ("vocab_size",),
    "inner width": ("intermediate_size", "n_inner"),
    "head size": ("head_dim",),
    "tied head": ("tie_word_embeddings",),
}
"""Names of one quantity in the configurations of different families."""


def text_part(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with its `text_config`, where it has one, brought to the top."""
    inner = config.get("text_config")
    return {**inner, **config} if isinstance(inner, dict) else config


def architecture_name(config: dict[str, Any]) -> str | None:
    """Class of the model."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else None


def quantity(config: dict[str, Any], name: str) -> Any:
    """A quantity of SPELLINGS; None if the configuration does not state it."""
    return next((config[key] for key in SPELLINGS[name] if config.get(key) is not None), None)


def rope_bases(config: dict[str, Any]) -> tuple[float, ...]:
    """All bases θ that the configuration states, ascending: at the top, in `rope_parameters`, or per kind of layer."""
    found: set[float] = set()

    def collect(part: object) -> None:
        if isinstance(part, dict):
            for key in ("rope_theta", "rotary_emb_base"):
                value = part.get(key)
                if isinstance(value, int | float) and not isinstance(value, bool):
                    found.add(float(value))

    collect(config)
    parameters = config.get("rope_parameters")
    collect(parameters)
    for part in parameters.values() if isinstance(parameters, dict) else ():
        collect(part)
    return tuple(sorted(found))


def rope_kinds(config: dict[str, Any]) -> tuple[str, ...]:
    """Kinds of rotary embedding (`default`, `yarn`, …) that are stated; `default` where none is."""
    found: set[str] = set()
    for key in ("rope_parameters", "rope_scaling"):
        part = config.get(key)
        parts = [part, *part.values()] if isinstance(part, dict) else []
        for one in parts:
            if isinstance(one, dict) and (kind := one.get("rope_type") or one.get("type")):
                found.add(str(kind))
    return tuple(sorted(found)) or ("default",)


def architecture_findings(spec: LadderSpec, rungs: tuple[Inventory, ...]) -> Iterator[Finding]:
    """Rungs whose configuration is not what the specification says, or not that of most rungs.

    A base that is expected and not stated counts as different: `transformers` would take a default in silence.
    """
    configs: dict[str, dict[str, Any]] = {}
    for one in rungs:
        if one.config is not None:
            configs[one.rung] = text_part(one.config)
        elif one.problem is None:
            yield Finding("architecture", (one.rung,), f"{one.rung} has no config.json to read")
    expected = spec.architecture
    checks: list[tuple[str, str, Any, Callable[[dict[str, Any]], Any]]] = [
        ("architecture", "class", expected.name, architecture_name),
        ("architecture", "layers", expected.layers, lambda c: quantity(c, "layers")),
        ("architecture", "width", expected.width, lambda c: quantity(c, "width")),
        ("rope", "RoPE base", None if expected.rope_base is None else (float(expected.rope_base),), rope_bases),
        ("rope", "kind of RoPE", None, rope_kinds),
    ]
    others = [name for name in SPELLINGS if name not in ("layers", "width")]
    checks += [("architecture", name, None, lambda c, name=name: quantity(c, name)) for name in others]  # type: ignore[misc]
    for kind, what, wanted, read in checks:
        yield from _differing(kind, what, wanted, {rung: read(config) for rung, config in configs.items()})


def _differing(kind: str, what: str, wanted: Any, values: dict[str, Any]) -> Iterator[Finding]:
    """One finding for each value that is not the wanted one (or, with none wanted, that of most rungs)."""
    if not values:
        return
    target = Counter(map(_key, values.values())).most_common(1)[0][0] if wanted is None else _key(wanted)
    odd: dict[str, list[str]] = {}
    for rung, value in values.items():
        if _key(value) != target:
            odd.setdefault(_key(value), []).append(rung)
    source = "the ladder expects" if wanted is not None else "most rungs have"
    for value, names in odd.items():
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        yield Finding(kind, tuple(names), f"{shown}: {what} {value}, {source} {target}")


def _key(value: Any) -> str:
    """A value as text, equal for equal ones."""
    if isinstance(value, tuple):
        return " and ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value) or "not stated"
    return "not stated" if value is None else str(value)
