"""What may vary: choices, architectures, their encoding and sampling, and their analytic cost."""

from search_spaces.blocks import Block, Cost, Workload
from search_spaces.decoder import DecoderSpace
from search_spaces.errors import InfeasibleError, UserError
from search_spaces.families import space_from_json
from search_spaces.sampling import sample_by_cost, sample_widely
from search_spaces.space import Architecture, Choice, SearchSpace
from search_spaces.transformer import Layer, Subnet, TransformerSpace
from search_spaces.vit import VisionTransformerSpace

__all__ = [
    "Architecture",
    "Block",
    "Choice",
    "Cost",
    "DecoderSpace",
    "InfeasibleError",
    "Layer",
    "SearchSpace",
    "Subnet",
    "TransformerSpace",
    "UserError",
    "VisionTransformerSpace",
    "Workload",
    "sample_by_cost",
    "sample_widely",
    "space_from_json",
]
