"""A subnet of a run as a PyTorch module of its own: to fine-tune, look into, or export again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latency.export import write_network
from latency.graphs import GraphLibrary
from nas.atomic import read_json, write_json
from nas.run_directory import short
from search_spaces import UserError, space_from_json
from search_spaces.blocks import PRECISION
from supernet.checkpoint import load_supernet, load_weights
from supernet.decoder import Decoder
from supernet.families import build_supernet
from supernet.vit import VisionTransformer

Subnet = VisionTransformer | Decoder


def load_subnet(directory: str | Path, name: str | Mapping[str, Any]) -> Subnet:
    """Cut a subnet out of the trained supernet.

    Args:
        directory: The run directory.
        name: A subnet of `front.json`, such as `s03`; of another device's front `DEVICE/s03`; or
            an architecture as those files hold it.

    Returns:
        A module with weights of its own, in fp32 (precision policies belong to exports), in
        evaluation mode. Images `(batch, channels, size, size)` to logits; or tokens `(batch,
        sequence)` to a tuple of logits and the key/value cache.

    Raises:
        UserError: There is no such subnet, or no trained supernet, or a file is damaged.
    """
    directory = Path(directory)
    tensors, info = load_supernet(directory / "supernet.safetensors")
    model = build_supernet(space_from_json(info["space"]))
    load_weights(model, tensors, source=directory / "supernet.safetensors")
    genes = _genes(directory, name) if isinstance(name, str) else name
    widths = {gene: value for gene, value in genes.items() if not gene.startswith(PRECISION)}
    subnet: Subnet = model.extract(model.space.architecture(widths))
    return subnet.eval()


def write_onnx(subnet: Subnet, path: str | Path, like: str | Path) -> None:
    """Export a subnet, fine-tuned say, in fp32, with a JSON beside it that says how to feed it.

    Args:
        subnet: From `load_subnet`.
        path: The ONNX file.
        like: The JSON of the export that the subnet was. What was measured of it is left out.

    Raises:
        UserError: `like` is no such file, or the disk is full.
    """
    path, how = Path(path), read_json(Path(like))
    missing = [key for key in ("runtime", "inputs", "outputs", "task") if key not in how]
    if missing:
        raise UserError(f"{like} lacks {missing[0]}; name the JSON beside an exported model")
    write_network(subnet.eval().network(), path, library=GraphLibrary(), facts={})
    kept = {key: value for key, value in how.items() if key not in ("sha256", "subnet", "note")}
    write_json(path.with_suffix(".json"), {**kept, "model": path.name})


def _genes(directory: Path, name: str) -> Mapping[str, Any]:
    device, _, subnet = name.rpartition("/")
    file = directory / (f"front.{device}.json" if device else "front.json")
    known: dict[str, Any] = {}
    for entry in read_json(file).get("subnets", []):
        known[str(entry["name"])] = entry["architecture"]
    if subnet not in known:
        raise UserError(
            f"{subnet} is not a subnet of {short(file)}; name one of {', '.join(known)}"
        )
    genes: Mapping[str, Any] = known[subnet]
    return genes
