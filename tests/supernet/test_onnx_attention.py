"""What is exported computes what the plain block computes, under every scheme."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from search_spaces.schemes import SCHEMES
from supernet import decoder, vit
from supernet.onnx_attention import in_onnx_form
from supernet.quantization import quantize_block

torch.set_num_threads(1)

FEW = st.integers(1, 4)
LAYERS = st.sampled_from([name for name in SCHEMES if name != "fp32"])


def spread(block):
    """Random norms and biases too."""
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return block.eval()


@settings(deadline=None)  # the first call defines operators
@given(batch=FEW, tokens=FEW, heads=FEW, head_dim=FEW, seed=st.integers(0, 99))
def test_self_attention(batch, tokens, heads, head_dim, seed):
    torch.manual_seed(seed)
    block = spread(vit.AttentionBlock(embed=6, heads=heads, head_dim=head_dim))
    x = torch.randn(batch, tokens, 6)
    with torch.no_grad():
        torch.testing.assert_close(in_onnx_form(block)(x), block(x))


@given(batch=FEW, new=FEW, past=st.integers(0, 4), kv_heads=FEW, group=FEW, seed=st.integers(0, 99))
def test_grouped_attention(batch, new, past, kv_heads, group, seed):
    torch.manual_seed(seed)
    block = spread(decoder.AttentionBlock(embed=6, kv_heads=kv_heads, group=group, head_dim=4))
    positions = decoder.Rotary(context=8, head_dim=4)((batch, new), past)
    cache = [torch.randn(batch, kv_heads, past, 4) for _ in range(2)]
    x = torch.randn(batch, new, 6)
    with torch.no_grad():
        found = in_onnx_form(block)(x, *positions, *cache)
        torch.testing.assert_close(found, block(x, *positions, *cache))


@given(scheme=LAYERS, seed=st.integers(0, 99))
def test_schemes_give_the_same_numbers_in_another_order(scheme, seed):
    torch.manual_seed(seed)
    block = spread(vit.AttentionBlock(embed=40, heads=3, head_dim=5))
    x = torch.randn(2, 4, 40)
    inputs = block.norm(x).detach().flatten(0, 1)
    quantize_block(
        block,
        (("qkv", scheme), ("attention_out", scheme)),
        {"qkv": (inputs.min().item(), inputs.max().item()), "out": (-9.0, 9.0)},
        {"qkv": inputs.T @ inputs / len(inputs)},
    )
    form = in_onnx_form(block)
    assert form.qkv.scheme == block.qkv.scheme
    assert form.out is block.out
    with torch.no_grad():
        torch.testing.assert_close(form.norm(x), block.norm(x))
        expected = block.qkv(block.norm(x)).unflatten(-1, (3, 3, 5)).transpose(2, 3).flatten(2)
        torch.testing.assert_close(form.qkv(form.norm(x)), expected)


@pytest.mark.parametrize("module", [nn.Linear(2, 2), vit.FfnBlock(embed=4, ffn=4)])
def test_what_is_no_attention_stays_as_it_is(module):
    assert in_onnx_form(module) is module
