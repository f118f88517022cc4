"""Tiny networks of Hugging Face's transformers, every weight a random number."""

import json
from pathlib import Path

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)
from transformers.utils import logging

logging.disable_progress_bar()

VISION = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 3,
    "num_labels": 5,
}
TEXT = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "intermediate_size": 40,
    "vocab_size": 29,
    "max_position_embeddings": 32,
}


def vit(**changes: object) -> ViTForImageClassification:
    settings = {**VISION, **changes}
    if "id2label" in settings:
        del settings["num_labels"]
    return _filled(ViTForImageClassification(ViTConfig(**settings)))


def bare_vit(**changes: object) -> ViTModel:
    return _filled(ViTModel(ViTConfig(**{**VISION, **changes}), use_mask_token=True))


def llama(**changes: object) -> LlamaForCausalLM:
    return _filled(LlamaForCausalLM(LlamaConfig(**{**TEXT, **changes})))


def mistral(**changes: object) -> MistralForCausalLM:
    settings = {**TEXT, "sliding_window": None, **changes}
    return _filled(MistralForCausalLM(MistralConfig(**settings)))


def _filled(model: PreTrainedModel) -> PreTrainedModel:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def edit(folder: Path, **changes: object) -> None:
    """Change keys of `config.json`; ... removes one."""
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
