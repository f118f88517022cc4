"""Supernets that start from the weights of a network that was trained before.

A folder that Hugging Face's transformers wrote becomes the largest subnet, which gives the outputs
of the library that it came from; then it is made elastic while it is tuned (InstaTune,
arXiv:2308.15609). Only JSON and safetensors are read, and transformers is not needed.
"""

from supernet.pretrained.decoder import DecoderCheckpoint
from supernet.pretrained.families import Pretrained, open_pretrained
from supernet.pretrained.importance import Importance, measure_importance
from supernet.pretrained.loading import load_pretrained
from supernet.pretrained.normalisation import Normalisation
from supernet.pretrained.order import reorder
from supernet.pretrained.vit import VisionCheckpoint

__all__ = [
    "DecoderCheckpoint",
    "Importance",
    "Normalisation",
    "Pretrained",
    "VisionCheckpoint",
    "load_pretrained",
    "measure_importance",
    "open_pretrained",
    "reorder",
]
