"""The backends by name, and the one of a device profile."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from latency.backend import DeviceBackend
from latency.coreml_backend import CoreMLBackend
from latency.onnxruntime_backend import OnnxRuntimeBackend
from latency.remote_profile import open_place
from latency.tensorrt_backend import TensorRTBackend
from latency.torch_backend import TorchBackend
from search_spaces.errors import UserError

if TYPE_CHECKING:
    from latency.device_profile import DeviceProfile

Backend = type[OnnxRuntimeBackend | TorchBackend | TensorRTBackend | CoreMLBackend]

BACKENDS: Mapping[str, Backend] = {
    "onnxruntime": OnnxRuntimeBackend,
    "torch": TorchBackend,
    "tensorrt": TensorRTBackend,
    "tensorrt_rtx": TensorRTBackend,
    "coreml": CoreMLBackend,
}


def open_backend(profile: DeviceProfile) -> DeviceBackend:
    """The backend of a profile; starts nothing and connects to nothing.

    Raises:
        UserError: The profile cannot be right on any machine, or lacks its host.
    """
    try:
        backend = _open(profile)
        if backend.precision not in profile.offered:
            raise UserError(
                f"models in {backend.precision} are asked for, but it offers "
                f"{', '.join(profile.offered)}; change `precision` below options, or precisions"
            )
    except UserError as error:
        raise UserError(f"device {profile.name}: {error}") from None
    return backend


def _open(profile: DeviceProfile) -> DeviceBackend:
    backend, place = BACKENDS[profile.backend], open_place(profile)
    if backend is OnnxRuntimeBackend:
        return OnnxRuntimeBackend(
            threads=profile.threads,
            provider=profile.provider,
            options=profile.options,
            spinning=profile.spins,
            place=place,
        )
    options = _options(profile, backend)
    if backend is TorchBackend:
        return TorchBackend(threads=profile.threads, place=place, **options)
    if backend is TensorRTBackend:
        return TensorRTBackend(library=profile.backend, place=place, **options)
    return CoreMLBackend(place=place, **options)


def _options(profile: DeviceProfile, backend: Backend) -> dict[str, Any]:
    known = sorted(set(inspect.signature(backend).parameters) - {"threads", "library", "place"})
    for name in profile.options:
        if name not in known:
            raise UserError(
                f"option {name!r} of backend {profile.backend} is not one of {', '.join(known)}; "
                "remove it"
            )
    return dict(profile.options)
