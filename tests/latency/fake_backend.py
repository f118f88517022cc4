"""A device whose latencies and mishaps are written in a script: for the protocol's logic only."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from latency.anchor import ANCHOR_LAYERS, build_anchor
from latency.artifact import Artifact
from latency.backend import Block, Samples
from latency.export import write_network
from latency.graphs import GraphLibrary
from latency.onnx_form import ONNX_FACTS
from latency.place import ThisHost
from latency.timing import TimingConfig
from supernet.parts import Network

Mishap = Callable[[int, Sequence[Artifact]], None]


class FakeBackend:
    name = "fake"
    suffix = ".onnx"
    tolerance = 1e-4
    precisions = ("fp32",)
    precision = "fp32"
    place = ThisHost()

    def __init__(
        self,
        latency_ns: Mapping[str, float],
        *,
        anchor_ns: float = 1e6,
        noise: float = 0.001,
        speed: Callable[[int], float] = lambda session: 1.0,
        drift: Callable[[int], float] = lambda session: 0.0,
        throttled: Callable[[int], list[str]] = lambda session: [],
        disturbed: Callable[[int], float] = lambda session: 0.0,
        mishap: Mishap = lambda session, models: None,
    ) -> None:
        self.latency_ns = latency_ns
        self.anchor_ns = anchor_ns
        self.noise = noise
        self.speed = speed
        self.drift = drift
        self.throttled = throttled
        self.disturbed = disturbed
        self.mishap = mishap
        self.sessions: list[list[str]] = []
        self.timings: list[TimingConfig] = []
        self.facts = {"soc": "fake"}

    def missing(self) -> str | None:
        return None

    def fingerprint(self) -> Mapping[str, str]:
        return self.facts

    @staticmethod
    def keys_of(fingerprint: Mapping[str, str]) -> dict[str, Any]:
        return {}

    def build_facts(self) -> Mapping[str, str]:
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
        write_network(network, path, library=library, facts=facts)

    def anchor(self, folder: Path, layers: int = ANCHOR_LAYERS) -> Artifact:
        return build_anchor(folder, layers)

    def close(self) -> None:
        pass

    def run_session(self, models: Sequence[Artifact], timing: TimingConfig) -> list[Samples]:
        number = len(self.sessions)
        self.sessions.append([model.sha256 for model in models[1:]])
        self.timings.append(timing)
        self.mishap(number, models)
        rng = np.random.default_rng(number)
        result, position = [], 0
        for index, model in enumerate(models):
            nominal = self.anchor_ns if index == 0 else self.latency_ns[model.sha256]
            nominal *= float(np.exp(self.noise * rng.standard_normal())) * self.speed(number)
            rounds = list(range(timing.rounds))
            if index == 0:
                rounds = [-1, *rounds, timing.rounds]
            blocks = []
            for round_ in rounds:
                value = nominal * (1 + self.drift(number) * (round_ == timing.rounds))
                blocks.append(
                    Block(
                        round=round_,
                        position=position,
                        count=1,
                        median_ns=value,
                        low_quartile_ns=value,
                        samples_ns=(int(value),),
                    )
                )
                position += 1
            result.append(
                Samples(
                    sha256=model.sha256,
                    blocks=tuple(blocks),
                    max_abs_difference=0.0,
                    session={
                        "throttled": self.throttled(number),
                        "blocks": 100,
                        "disturbed_blocks": round(100 * self.disturbed(number)),
                    },
                )
            )
        return result
