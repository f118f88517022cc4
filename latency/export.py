"""From a network to an artifact on disk: one path for table entries, whole models, deployment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from latency.artifact import Artifact, build_artifact, load_artifact
from latency.backend import DeviceBackend
from latency.files import write_bytes
from latency.graphs import GraphLibrary
from latency.policy import tolerance
from supernet.parts import Network
from supernet.quantization import QuantizedLinear
from supernet.stored import StoredLayer


def write_network(
    network: Network, path: Path, *, library: GraphLibrary, facts: Mapping[str, object]
) -> None:
    """Write a network as ONNX, whole or not at all.

    Args:
        network: What to write; the weights of its modules go into the file.
        path: The file; its folder is made.
        library: Exported parts.
        facts: Kept in the file.

    Raises:
        UserError: The disk is full.
    """
    model = library.assemble(network, {name: str(fact) for name, fact in facts.items()})
    write_bytes(path, model.SerializeToString())


def export_network(
    network: Network,
    feeds: Mapping[str, Tensor],
    path: Path,
    *,
    backend: DeviceBackend,
    library: GraphLibrary,
    provenance: Mapping[str, object],
) -> Artifact:
    """Compile a network for a device, with example inputs and its outputs beside it, as .npz.

    Args:
        network: What to write; the weights of its modules go into the file.
        feeds: Example inputs.
        path: The file; its folder is made.
        backend: Makes the file.
        library: Exported parts.
        provenance: Facts that are kept in the file and with every measurement of it.

    Raises:
        UserError: The compiler is missing or refuses the network, or the disk is full.
    """
    values = network.run(feeds)
    facts = {**provenance, **backend.build_facts()}
    backend.compile(network, feeds, path, library=library, facts=facts)
    return build_artifact(
        path,
        inputs={name: value.numpy() for name, value in feeds.items()},
        outputs={port.name: values[port.name].detach().numpy() for port in network.outputs},
        tolerance=max(backend.tolerance, tolerance(schemes_of(network))),
        provenance=facts,
    )


def known_artifact(
    path: Path,
    *,
    backend: DeviceBackend,
    provenance: Mapping[str, object],
    schemes: Collection[str] = (),
) -> Artifact | None:
    """The artifact of an earlier `export_network`, or None if it is not (wholly) there.

    Args:
        path: The file.
        backend: Made it.
        provenance: As it was given then.
        schemes: Of the network's linear layers that are not in fp32.
    """
    if not (path.exists() and path.with_suffix(".npz").exists()):
        return None
    facts = {**provenance, **backend.build_facts()}
    allowed = max(backend.tolerance, tolerance(schemes))
    return load_artifact(path, tolerance=allowed, provenance=facts)


def schemes_of(network: Network) -> set[str]:
    """Schemes of a network's linear layers that are not in fp32."""
    layers = (layer for part in network.parts for layer in part.module.modules())
    return {
        layer.scheme.name for layer in layers if isinstance(layer, QuantizedLinear | StoredLayer)
    }


def build_key(backend: DeviceBackend) -> str:
    """Eight hexadecimal digits that tell files apart that a backend makes in different ways."""
    text = json.dumps(dict(backend.build_facts()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
