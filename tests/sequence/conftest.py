"""A tiny real OLMo-2 in true double precision."""

import pytest
import torch
from transformers import Olmo2Config, Olmo2ForCausalLM
from transformers.models.olmo2 import modeling_olmo2

from vgrad_lab.sequence.hooked import HookedDecoder


def rms_norm(self: modeling_olmo2.Olmo2RMSNorm, hidden_states: torch.Tensor) -> torch.Tensor:
    """The library's norm without its cast to float32."""
    return self.weight * hidden_states * (hidden_states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()


def attention(  # type: ignore[no-untyped-def]
    module, query, key, value, attention_mask, scaling, dropout=0.0, **_kwargs
) -> tuple[torch.Tensor, torch.Tensor]:
    """The library's eager attention without its softmax in float32."""
    key, value = (modeling_olmo2.repeat_kv(x, module.num_key_value_groups) for x in (key, value))
    weight = (query @ key.transpose(2, 3) * scaling + attention_mask).softmax(-1)
    return (weight @ value).transpose(1, 2).contiguous(), weight


@pytest.fixture
def olmo2(monkeypatch: pytest.MonkeyPatch) -> HookedDecoder:
    """Three layers, grouped key-value heads, vocabulary 3, random weights of unit gain."""
    monkeypatch.setattr(modeling_olmo2.Olmo2RMSNorm, "forward", rms_norm)
    monkeypatch.setattr(modeling_olmo2, "eager_attention_forward", attention)
    config = Olmo2Config(
        vocab_size=3,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        attn_implementation="eager",
        pad_token_id=None,
        eos_token_id=None,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = Olmo2ForCausalLM(config).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in decoder.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5, generator=generator)
    return HookedDecoder(decoder)
