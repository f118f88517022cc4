"""A model file that can be timed: what is measured is what ships.

An artifact is a model file (`.onnx`, `.pt2`, `.engine`, `.mlpackage`; which one is the backend's
choice) and, beside it, an .npz file with example inputs as `input:<name>`
and the reference outputs as `output:<name>`. A session compares before it times: the latency
of a wrong model is no latency.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latency.digest import model_sha256
from latency.files import replacing
from search_spaces.errors import UserError

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One model, its example inputs and the outputs it must give."""

    path: Path
    """The model file; a folder for CoreML."""
    sha256: str
    """SHA-256 of the model file, 64 hex digits; see `latency.digest`."""
    feeds: Path
    """The .npz file with `input:<name>` and `output:<name>` arrays."""
    signature: str
    """Names, types and shapes of the inputs: one file with another shape is another latency."""
    tolerance: float = 1e-4
    """Allowed |output - reference|, in units of 1 + |reference|."""
    provenance: Mapping[str, object] = field(default_factory=dict, hash=False)
    """JSON-able facts to store with each sample: architecture or block, opset, precision, ..."""

    def __post_init__(self) -> None:
        """Check the hash and the tolerance.

        Raises:
            ValueError: One of them is malformed.
        """
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(f"sha256 {self.sha256!r} is not 64 lower-case hex digits")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance {self.tolerance} must be above 0")

    @property
    def key(self) -> tuple[str, str]:
        """What its measurements are stored under: the file and the shapes it is fed with."""
        return (self.sha256, self.signature)


def build_artifact(
    path: Path,
    *,
    inputs: Arrays,
    outputs: Arrays,
    tolerance: float = 1e-4,
    provenance: Mapping[str, object] | None = None,
    feeds: Path | None = None,
) -> Artifact:
    """Make an artifact of a model file: write its .npz (atomically) and hash the file.

    Args:
        path: An existing model file.
        inputs: Example input per input name.
        outputs: Reference output per output name, from the model this file was exported from.
        tolerance: See `Artifact`.
        provenance: See `Artifact`.
        feeds: Where the arrays go; by default beside the file, with the suffix .npz.

    Raises:
        ValueError: No inputs or no outputs.
        UserError: The disk is full.
    """
    if not inputs or not outputs:
        raise ValueError(f"{path}: an artifact needs example inputs and reference outputs")
    feeds = path.with_suffix(".npz") if feeds is None else feeds
    arrays = {f"input:{name}": np.asarray(value) for name, value in inputs.items()}
    arrays |= {f"output:{name}": np.asarray(value) for name, value in outputs.items()}
    with replacing(feeds) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return load_artifact(path, tolerance=tolerance, provenance=provenance, feeds=feeds)


def load_artifact(
    path: Path,
    *,
    tolerance: float = 1e-4,
    provenance: Mapping[str, object] | None = None,
    feeds: Path | None = None,
) -> Artifact:
    """The artifact of a model file whose .npz is there already, beside it unless `feeds` says.

    Raises:
        UserError: A file is missing, or the .npz is unreadable or lacks inputs or outputs.
    """
    feeds = path.with_suffix(".npz") if feeds is None else feeds
    try:
        digest = model_sha256(path)
        with np.load(feeds, allow_pickle=False) as arrays:
            inputs = {name: arrays[name] for name in arrays.files if name.startswith("input:")}
            outputs = [name for name in arrays.files if name.startswith("output:")]
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read the model {path} with {feeds.name}: {error}") from None
    if not inputs or not outputs:
        raise UserError(f"{feeds} holds no input:<name> or no output:<name> arrays; export again")
    return Artifact(
        path=path,
        sha256=digest,
        feeds=feeds,
        signature=_signature(inputs),
        tolerance=tolerance,
        provenance=dict(provenance or {}),
    )


def _signature(inputs: Arrays) -> str:
    parts = []
    for name in sorted(inputs):
        shape = ",".join(str(size) for size in inputs[name].shape)
        parts.append(f"{name.removeprefix('input:')} {inputs[name].dtype}[{shape}]")
    return "; ".join(parts)
