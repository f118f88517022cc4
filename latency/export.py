"""From a network to an artifact on disk: one path for table entries, whole models, deployment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from latency.artifact import Artifact, build_artifact, load_artifact
from latency.files import replacing
from latency.graphs import OPSET, GraphLibrary
from supernet.parts import Network


def write_network(
    network: Network,
    path: Path,
    *,
    library: GraphLibrary,
    provenance: Mapping[str, object],
) -> dict[str, object]:
    """Write a network as ONNX, whole or not at all.

    Args:
        network: What to write; the weights of its modules go into the file.
        path: The file; its folder is made.
        library: Exported parts.
        provenance: Facts that are kept in the file.

    Returns:
        The provenance, and how the file was made.

    Raises:
        UserError: The disk is full.
    """
    facts = {**provenance, "opset": OPSET, "precision": "fp32"}
    model = library.assemble(network, {name: str(fact) for name, fact in facts.items()})
    with replacing(path) as file:
        file.write(model.SerializeToString())
    return facts


def export_network(
    network: Network,
    feeds: Mapping[str, Tensor],
    path: Path,
    *,
    library: GraphLibrary,
    provenance: Mapping[str, object],
) -> Artifact:
    """Write a network as ONNX, with example inputs and its outputs beside it, as .npz.

    Args:
        network: What to write; the weights of its modules go into the file.
        feeds: Example inputs.
        path: The file; its folder is made.
        library: Exported parts.
        provenance: Facts that are kept in the file and with every measurement of it.

    Raises:
        UserError: The disk is full.
    """
    values = network.run(feeds)
    facts = write_network(network, path, library=library, provenance=provenance)
    return build_artifact(
        path,
        inputs={name: value.numpy() for name, value in feeds.items()},
        outputs={port.name: values[port.name].detach().numpy() for port in network.outputs},
        provenance=facts,
    )


def known_artifact(path: Path, provenance: Mapping[str, object]) -> Artifact | None:
    """The artifact of an earlier `export_network`, or None if it is not (wholly) there."""
    if not (path.exists() and path.with_suffix(".npz").exists()):
        return None
    return load_artifact(path, provenance={**provenance, "opset": OPSET, "precision": "fp32"})
