"""The whole configuration, and the checks that span its sections."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from latency.resources import RESOURCES
from latency.yaml_source import dump_yaml
from nas.config.sections import (
    ClusterConfig,
    DecoderSpaceConfig,
    ImageTaskConfig,
    LanguageTaskConfig,
    LatencyConfig,
    SearchConfig,
    Section,
    Text,
    TrainingConfig,
    VisionSpaceConfig,
    Whole,
    WorkloadConfig,
)
from nas.search.constraints import parse_constraints
from search_spaces import Workload
from search_spaces.schemes import FULL

QUALITIES: Mapping[str, tuple[str, ...]] = {
    "image-classification": ("error", "cross_entropy"),
    "language-modelling": ("bits_per_byte", "perplexity", "cross_entropy"),
}
"""Quality objectives of each kind of task; the first is the default."""

COSTS = ("macs", "parameters", "size_bytes", "kv_cache_bytes")
"""Objectives that follow from the architecture alone."""

FAMILIES: Mapping[str, str] = {"image-classification": "vit", "language-modelling": "decoder"}
"""The network family of each kind of task."""

WorkloadName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Config(Section):
    """One run: data, network, training, measuring and search."""

    name: Text = Field(default="run", description="Title of the run, for the report.")
    seed: Whole = Field(default=0, description="Seed of everything random.")
    output: Text = Field(
        description="The run directory; a relative path starts at the current directory."
    )
    device: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = Field(
        default="cpu", description="Device profile that is measured; `nas devices` lists them."
    )
    task: Annotated[ImageTaskConfig | LanguageTaskConfig, Field(discriminator="kind")] = Field(
        description="The data, and what is learned from it."
    )
    space: Annotated[VisionSpaceConfig | DecoderSpaceConfig, Field(discriminator="family")] = Field(
        description="What may vary in the network."
    )
    training: TrainingConfig = Field(
        default=TrainingConfig(), description="How the supernet is trained."
    )
    workloads: Annotated[dict[WorkloadName, WorkloadConfig], Field(min_length=1)] = Field(
        description="The ways to call the network that are measured, by name; by default those of "
        "the device's profile, else one image, or a full context and a decoding step."
    )
    latency: LatencyConfig = Field(default=LatencyConfig(), description="How latency is measured.")
    search: SearchConfig = Field(description="What is searched for, and how long.")
    cluster: ClusterConfig | None = Field(
        default=None,
        description="Ray workers that evaluate qualities during a search; null is this process "
        "alone.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        """Fill in what follows from the task: family, workloads, objectives."""
        if not isinstance(data, Mapping) or not isinstance(data.get("task"), Mapping):
            return data
        task, filled = data["task"], dict(data)
        kind = task.get("kind")
        if not isinstance(kind, str) or kind not in FAMILIES:
            return data
        if isinstance(data.get("space"), Mapping):
            filled["space"] = {"family": FAMILIES[kind], **data["space"]}
        filled["workloads"] = _workloads(task, data.get("workloads"))
        search = data.get("search")
        if search is None:
            search = {}
        if isinstance(search, Mapping) and search.get("objectives") is None:
            names = filled["workloads"] if isinstance(filled["workloads"], Mapping) else ()
            objectives = [QUALITIES[kind][0], *(f"{name}_ms" for name in names)]
            search = {**search, "objectives": objectives}
        filled["search"] = search
        return filled

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check what spans sections; a message names its keys in full."""
        task, space = self.task, self.space
        if space.family != FAMILIES[task.kind]:
            raise ValueError(
                f"space.family is {space.family}, but task.kind {task.kind} needs "
                f"{FAMILIES[task.kind]}; leave space.family out"
            )
        if isinstance(task, ImageTaskConfig) and isinstance(space, VisionSpaceConfig):
            self._check_vision(task, space)
        if isinstance(task, LanguageTaskConfig) and isinstance(space, DecoderSpaceConfig):
            self._check_language(task, space)
        if self.training.policy_steps and not set(space.precision) - {FULL}:
            raise ValueError(
                f"training.policy_steps is {self.training.policy_steps}, but space.precision has "
                "no scheme beside fp32; name some, such as [fp32, w4], or leave policy_steps out"
            )
        if space.precision_ends and not set(space.precision) - {FULL}:
            raise ValueError(
                f"space.precision_ends is {list(space.precision_ends)}, but space.precision has no "
                "scheme beside fp32; name some, such as [fp32, w8], or leave precision_ends out"
            )
        known = self.objectives
        for name in self.search.objectives:
            if name not in known:
                raise ValueError(f"search.objectives: {_unknown(name, known)}")
        if len(set(self.search.objectives)) < len(self.search.objectives):
            raise ValueError(
                f"search.objectives is {list(self.search.objectives)}: a name occurs twice; name "
                "each once"
            )
        try:
            parse_constraints(self.search.bounds, known)
        except ValueError as error:
            raise ValueError(f"search.bounds: {error}") from None
        return self

    def _check_vision(self, task: ImageTaskConfig, space: VisionSpaceConfig) -> None:
        if task.image_size % space.patch_size:
            raise ValueError(
                f"space.patch_size is {space.patch_size}, which does not divide task.image_size "
                f"{task.image_size}; change one of them"
            )
        for name, pixels in (("shift", task.augment.shift), ("cutout", task.augment.cutout)):
            if pixels is not None and pixels >= task.image_size:
                raise ValueError(
                    f"task.augment.{name} is {pixels:g} pixels, but task.image_size is "
                    f"{task.image_size}, so that nothing of an image is left; lower it"
                )
        for name, workload in self.workloads.items():
            if workload.sequence is not None or workload.past:
                raise ValueError(
                    f"workloads.{name} has sequence or past, which are for language models; give "
                    "an image workload batch alone"
                )

    def _check_language(self, task: LanguageTaskConfig, space: DecoderSpaceConfig) -> None:
        if task.tokenizer not in ("bytes", "bpe") and not task.tokenizer.endswith(".json"):
            raise ValueError(
                f"task.tokenizer is {task.tokenizer}; it must be bytes, bpe, or the .json file of "
                "a BPE"
            )
        if task.tokenizer == "bytes" and task.vocabulary not in (None, 256):
            raise ValueError(
                f"task.vocabulary is {task.vocabulary}, but the tokenizer bytes has 256 tokens; "
                "leave it out, or write task.tokenizer: bpe"
            )
        if space.head_dim % 2:
            raise ValueError(
                f"space.head_dim is {space.head_dim}, but rotary positions need an even number; "
                f"write {space.head_dim + 1}"
            )
        for heads in space.heads:
            if heads % space.group:
                raise ValueError(
                    f"space.heads has {heads}, which is not a multiple of space.group "
                    f"{space.group}; change one of them"
                )
        for name, workload in self.workloads.items():
            if workload.sequence is None:
                raise ValueError(
                    f"workloads.{name} has neither sequence nor past; give sequence for prefill, "
                    "past for a decoding step"
                )
            tokens = workload.sequence + workload.past
            if tokens > task.context:
                raise ValueError(
                    f"workloads.{name} is {tokens} tokens long, but task.context is "
                    f"{task.context}; shorten the one or raise the other"
                )

    @property
    def objectives(self) -> tuple[str, ...]:
        """All objectives that may be searched for or bounded."""
        latencies = (f"{name}_ms" for name in self.workloads)
        resources = (f"{name}_{resource}" for name in self.workloads for resource in RESOURCES)
        return (*QUALITIES[self.task.kind], *latencies, *COSTS, *resources)

    @property
    def calls(self) -> dict[str, Workload]:
        """The workloads by name, in the order of the file; the first is the one of the front."""
        return {name: Workload(**dict(call)) for name, call in self.workloads.items()}

    @property
    def task_parameters(self) -> dict[str, Any]:
        """What `nas.tasks.build_task` takes beside the kind."""
        return {**self.task.model_dump(exclude={"kind"}), "seed": self.seed}

    @property
    def output_path(self) -> Path:
        """The run directory, absolute."""
        return Path(self.output).expanduser().absolute()

    def to_yaml(self) -> str:
        """Return the resolved configuration; `load_config` reads it back equal."""
        return dump_yaml(self.model_dump(mode="json"))


def _workloads(task: Mapping[str, Any], given: Any) -> Any:
    """Fill in workloads: a decoding step is one token; by default an image, or a full context."""
    if given is None and task["kind"] == "image-classification":
        return {"latency": {"batch": 1}}
    if given is None:
        context = task.get("context", LanguageTaskConfig.model_fields["context"].default)
        context = max(2, context) if isinstance(context, int) else 2
        given = {"prefill": {"sequence": context}, "decode": {"past": context - 1}}
    if not isinstance(given, Mapping) or task["kind"] == "image-classification":
        return given
    return {
        name: {"sequence": 1, **call} if isinstance(call, Mapping) and call.get("past") else call
        for name, call in given.items()
    }


def _unknown(name: str, known: Collection[str]) -> str:
    if name == "accuracy":
        return "accuracy is not an objective, since all are minimised; use error, which is 1 - it"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if near:
        return f"{name} is not a known objective; did you mean {near[0]}?"
    return f"{name} is not a known objective; known: {', '.join(known)}"
