"""onnxruntime, with any of its execution providers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency.anchor import ANCHOR_LAYERS, build_anchor
from latency.artifact import Artifact
from latency.backend import BackendError, Samples
from latency.onnx_form import FORM, ONNX_FACTS
from latency.place import Place, ThisHost, checked
from latency.timing import TimingConfig
from search_spaces.errors import UserError
from search_spaces.schemes import SCHEMES

if TYPE_CHECKING:
    from torch import Tensor

    from latency.graphs import GraphLibrary
    from supernet.parts import Network

CPU = "CPUExecutionProvider"
LEAST = (1, 23)
"""The first version that runs all of opset 23, in which models are; the anchor asks for less."""
READ: Mapping[str, tuple[str, ...]] = {
    CPU: (),
    "AzureExecutionProvider": (),
    "XnnpackExecutionProvider": ("intra_op_num_threads",),
}
"""Options of providers that ignore all others in silence; the rest refuse an unknown one."""


class OnnxRuntimeBackend:
    """onnxruntime with explicit threads, one provider and bound memory.

    Threads of a profile spin where they wait for others, as onnxruntime's own default is. With
    two on two cores a model of 0.3 ms took a quarter less so; beside other programs that
    want both cores it took 2 to 3 times as long (15 to 24 ms against 7): `spinning: false` is for
    such a machine. The JSON beside an export names the choice for the deployed session
    (`session_config`).
    """

    name = "onnxruntime"
    suffix = ".onnx"
    tolerance = 1e-4
    precisions: tuple[str, ...] = tuple(SCHEMES)[::-1]
    """fp32, and the schemes of precision policies, which are for the CPU provider."""
    precision = "fp32"

    def __init__(
        self,
        *,
        threads: int,
        provider: str = CPU,
        options: Mapping[str, object] | None = None,
        spinning: bool = False,
        place: Place | None = None,
    ) -> None:
        """Describe the runtime; starts nothing.

        Args:
            threads: Intra-op threads, at least 1.
            provider: Execution provider, asserted in every session.
            options: The provider's own options, as onnxruntime names them.
            spinning: Whether threads spin where they wait for others.
            place: Where sessions run; None is this host.

        Raises:
            UserError: The provider would ignore one of its options, or it is no single value.
        """
        read = READ.get(provider)
        for name in options or {}:
            if read is not None and name not in read:
                allowed = f"only {', '.join(read)}" if read else "none"
                raise UserError(
                    f"option {name!r} of {provider}: it takes {allowed}, and ignores others; "
                    "remove it"
                )
        for name, value in (options or {}).items():
            if not isinstance(value, str | int | float):
                raise UserError(
                    f"option {name} {value!r} of {provider}: onnxruntime takes a text, a number, "
                    "true or false"
                )
        self.threads = threads
        self.provider = provider
        self.options = {name: _option(value) for name, value in (options or {}).items()}
        self.spinning = spinning
        self.place = place or ThisHost()

    def fingerprint(self) -> Mapping[str, str]:
        """Processor, system, runtime and its options; see `DeviceBackend`."""
        device = checked(self.place, "onnxruntime", threads=self.threads)
        version = device["packages"]["onnxruntime"]
        if tuple(int(part) for part in version.split(".")[:2]) < LEAST:
            least = ".".join(str(part) for part in LEAST)
            raise UserError(
                f"onnxruntime {version} of {self.place.name} is too old for these models, which "
                f"need {least}; run `python3 -m pip install --upgrade onnxruntime` there, with "
                f"Python 3.10 or newer (it has {device['python']})"
            )
        facts = {
            **device["fingerprint"],
            "runtime": f"onnxruntime {version}",
            "provider": self.provider,
            "threads": str(self.threads),
            "spinning": "on" if self.spinning else "off",
            "export_form": str(FORM),
        }
        if self.options:
            facts["provider_options"] = json.dumps(self.options, sort_keys=True)
        return facts

    @staticmethod
    def keys_of(fingerprint: Mapping[str, str]) -> dict[str, Any]:
        """Its options, as keys of a device profile, from what `fingerprint` once said.

        Raises:
            KeyError, ValueError: It said no such thing.
        """
        provider = fingerprint["provider"]
        options = json.loads(fingerprint.get("provider_options", "{}"))
        if not isinstance(options, dict):
            raise ValueError("a mapping of provider_options")
        read = READ.get(provider)
        return {
            "provider": provider,
            "spinning": fingerprint["spinning"] == "on",
            # Earlier versions let those through that a provider ignores
            "options": {n: v for n, v in options.items() if read is None or n in read},
        }

    def missing(self) -> str | None:
        """Whether onnxruntime is there, with the provider; see `DeviceBackend`."""
        try:
            self.fingerprint()
            if self.provider != CPU:  # which every onnxruntime has
                self.place.run(self._request(), [], TimingConfig.quick())
        except (UserError, BackendError) as error:
            return str(error)
        return None

    def build_facts(self) -> Mapping[str, str]:
        """Opset, form and precision: an ONNX file is the same for every provider."""
        return ONNX_FACTS

    def compile(
        self,
        network: Network,
        feeds: Mapping[str, Tensor],
        path: Path,
        *,
        library: GraphLibrary,
        facts: Mapping[str, object],
    ) -> None:
        """Write the network as ONNX, for any shapes; see `DeviceBackend`."""
        from latency.export import write_network

        write_network(network, path, library=library, facts=facts)

    def anchor(self, folder: Path, layers: int = ANCHOR_LAYERS) -> Artifact:
        """The anchor as ONNX; see `DeviceBackend`."""
        return build_anchor(folder, layers)

    def run_session(self, models: Sequence[Artifact], timing: TimingConfig) -> list[Samples]:
        """Time `models` interleaved in one fresh process; see `DeviceBackend`.

        Raises:
            DeviceLostError: The process died.
            ModelRejectedError: onnxruntime refused a model, ran no node of it on the provider, or
                its outputs are wrong.
            SessionTimeoutError: It ran past the larger of 30 s and 10 times the estimate.
            UserError: The provider is not in this onnxruntime.
        """
        return self.place.run(self._request(), models, timing)

    def close(self) -> None:
        """See `DeviceBackend`."""
        self.place.close()

    def _request(self) -> dict[str, Any]:
        return {
            "runtime": "onnxruntime",
            "threads": self.threads,
            "provider": self.provider,
            "options": self.options,
            "spinning": self.spinning,
        }


def _option(value: object) -> str:
    """A provider's option as onnxruntime takes it: `True` and `true` of YAML are `1`."""
    return str(int(value)) if isinstance(value, bool) else str(value)
