"""The sections of a configuration. Every field carries the sentence that explains it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from nas.search.registry import algorithm_names

Number = TypeVar("Number", int, float)


def _increasing(values: tuple[Number, ...]) -> tuple[Number, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError(f"must be increasing; write {sorted(set(values))}")
    return values


def _fractions(values: tuple[float, float, float]) -> tuple[float, float, float]:
    if abs(sum(values) - 1) > 1e-6:
        raise ValueError(f"must add up to 1, not {sum(values):g}; write [0.6, 0.2, 0.2], say")
    return values


def _with_fp32(names: tuple[str, ...]) -> tuple[str, ...]:
    if names and "fp32" not in names:
        raise ValueError("lacks fp32, which the others are compared with; add it")
    if len(set(names)) < len(names):
        raise ValueError("names a format twice; name each once")
    return () if names == ("fp32",) else names  # no choice is no gene


def _algorithm(value: str) -> str:
    if value not in algorithm_names():
        raise ValueError(f"must be one of {', '.join(algorithm_names())}")
    return value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _path(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a null character, which no path does; remove it")
    return value


def _address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if value in ("local", "auto") or (host and colon and port.isdigit() and int(port) < 2**16):
        return value
    raise ValueError("must be local, auto, or HOST:PORT of a Ray cluster, such as 10.0.0.5:6379")


MOST_WORKERS = 32
"""A search asks for 5 to 30 qualities at a time: more workers would have nothing to do."""
MOST = 2**31 - 1
"""No dimension of a tensor is larger in all that runs them."""
LARGEST = 2**63 - 1
Count = Annotated[int, Field(strict=True, ge=1, le=MOST)]
LongCount = Annotated[int, Field(strict=True, ge=1, le=LARGEST)]
Whole = Annotated[int, Field(strict=True, ge=0, le=LARGEST)]
Depth = Annotated[int, Field(strict=True, ge=1, le=1000)]
Flag = Annotated[bool, Field(strict=True)]
Positive = Annotated[float, Field(strict=True, gt=0)]
NotNegative = Annotated[float, Field(strict=True, ge=0)]
Share = Annotated[float, Field(strict=True, ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1), AfterValidator(_path)]
Choices = Annotated[tuple[Count, ...], Field(min_length=1), AfterValidator(_increasing)]
Depths = Annotated[tuple[Depth, ...], Field(min_length=1), AfterValidator(_increasing)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_listed)]
SchemeName = Literal["fp32", "fp16", "bf16", "w8", "w8a8", "w8a8_dynamic", "w4", "w4_nbits"]
Schemes = Annotated[
    tuple[SchemeName, ...],
    BeforeValidator(_listed),
    AfterValidator(_with_fp32),
    Field(
        description="Number formats that each linear layer may have, fp32 among them; empty for "
        "fp32 alone. See docs/quantization.md."
    ),
]
Ends = Annotated[
    tuple[Literal["stem", "head"], ...],
    BeforeValidator(_listed),
    Field(description="Which of stem and head have a number format too: stem, head, both or none."),
]
Split = Annotated[
    tuple[Positive, Positive, Positive],
    Field(description="Shares of the data for training, validation and test; they add up to 1."),
    AfterValidator(_fractions),
]


class Section(BaseModel):
    """A part of the configuration: frozen, and no key but those named here."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AugmentConfig(Section):
    """Random changes of training images; 0 or false leaves one out."""

    shift: NotNegative | None = Field(
        default=None, description="Largest shift in pixels; null is a sixteenth of image_size."
    )
    rotate_degrees: Annotated[NotNegative, Field(le=180)] = Field(
        default=10.0, description="Largest rotation in degrees."
    )
    scale: Annotated[NotNegative, Field(le=0.9)] = Field(
        default=0.1, description="Largest change of size, as a share of the size."
    )
    flip: Flag = Field(default=False, description="Mirror left and right half of the time.")
    cutout: Whole = Field(default=0, description="Side of a square that is blanked, in pixels.")
    fill: Literal["zero", "edge"] = Field(
        default="zero", description="What comes in at the border: black, or the nearest pixel."
    )


class ImageTaskConfig(Section):
    """Image classification."""

    kind: Literal["image-classification"] = Field(description="The task.")
    data: Text = Field(
        description="digits (built in), or a folder with one folder of images per class; a "
        "relative path starts at the current directory."
    )
    image_size: Count = Field(
        default=8, description="Height and width of the network's input in pixels."
    )
    channels: Literal[1, 3] = Field(default=1, description="1 for grey images, 3 for colour.")
    augment: AugmentConfig = Field(
        default=AugmentConfig(), description="Random changes of training images."
    )
    batch_size: Count = Field(default=64, description="Images in a training step.")
    evaluation_batch_size: Count = Field(
        default=256, description="Images in a batch of an evaluation."
    )
    split: Split = (0.6, 0.2, 0.2)
    split_seed: Whole | None = Field(default=None, description="Seed of the split; null is seed.")


class LanguageTaskConfig(Section):
    """Language modelling: the next token of a text."""

    kind: Literal["language-modelling"] = Field(description="The task.")
    data: Text = Field(
        description="stdlib (Python's own source, built in), or a text file, or a folder of them; "
        "a relative path starts at the current directory."
    )
    tokenizer: Text = Field(
        default="bytes",
        description="bytes; or bpe, trained on the training split; or the .json file of a BPE.",
    )
    vocabulary: Count | None = Field(
        default=None, description="Number of tokens; null is 256 for bytes, 4096 for bpe."
    )
    context: Annotated[Count, Field(ge=8)] = Field(
        default=128, description="Longest sequence in tokens."
    )
    batch_size: Count = Field(default=16, description="Sequences in a training step.")
    evaluation_batch_size: Count = Field(
        default=32, description="Sequences in a batch of an evaluation."
    )
    split: Split = (0.9, 0.05, 0.05)
    split_seed: Whole | None = Field(default=None, description="Seed of the split; null is seed.")
    max_bytes: LongCount | None = Field(
        default=None, description="Bytes of text to use; null takes all."
    )
    evaluation_tokens: LongCount = Field(
        default=65536, description="Tokens of a split that a quality is computed on, at most."
    )


class VisionSpaceConfig(Section):
    """What may vary in a vision transformer."""

    family: Literal["vit"] = Field(
        default="vit", description="The network family; follows the task."
    )
    patch_size: Count = Field(
        default=2, description="Height and width of a patch; divides image_size."
    )
    pooling: Literal["cls", "mean"] = Field(
        default="cls",
        description="What the classifier reads: a class token, or the mean of all tokens.",
    )
    head_dim: Count = Field(default=16, description="Width of an attention head.")
    embed: Choices = Field(description="Embedding widths of the whole network, increasing.")
    depth: Depths = Field(description="Numbers of layers, increasing.")
    heads: Choices = Field(description="Attention heads of a layer, increasing.")
    ffn: Choices = Field(description="Hidden widths of a layer's feed-forward part, increasing.")
    drop_order: tuple[Whole, ...] | None = Field(
        default=None,
        description="Layers in the order in which they are dropped; null drops every other.",
    )
    norm_epsilon: Positive = Field(
        default=1e-5,
        description="What LayerNorm adds to the variance; of a pretrained network, its own.",
    )
    precision: Schemes = ()
    precision_ends: Ends = ()


class DecoderSpaceConfig(Section):
    """What may vary in a decoder language model."""

    family: Literal["decoder"] = Field(
        default="decoder", description="The family; follows the task."
    )
    head_dim: Count = Field(default=16, description="Width of an attention head; even.")
    group: Count = Field(default=1, description="Query heads that share one key/value head.")
    embed: Choices = Field(description="Embedding widths of the whole network, increasing.")
    depth: Depths = Field(description="Numbers of layers, increasing.")
    heads: Choices = Field(description="Query heads of a layer, increasing; multiples of group.")
    ffn: Choices = Field(description="Hidden widths of a layer's feed-forward part, increasing.")
    drop_order: tuple[Whole, ...] | None = Field(
        default=None,
        description="Layers in the order in which they are dropped; null drops every other.",
    )
    norm_epsilon: Positive = Field(
        default=1e-6,
        description="What RMSNorm adds to the mean square; of a pretrained network, its own.",
    )
    rotary_base: Positive = Field(
        default=10000.0,
        description="Base of rotary positions; of a pretrained network, its own.",
    )
    precision: Schemes = ()
    precision_ends: Ends = ()


class TrainingConfig(Section):
    """How the supernet is trained."""

    pretrained: Text | None = Field(
        default=None,
        description="A folder that Hugging Face's save_pretrained wrote, whose network becomes the "
        "largest subnet; a relative path starts at the current directory; null starts from random "
        "weights. See docs/pretrained.md.",
    )
    importance_order: Flag = Field(
        default=True,
        description="Put a pretrained network's channels, heads and neurons in the order of their "
        "importance, since smaller subnets keep the first of them.",
    )
    steps: Count = Field(default=2000, description="Optimizer steps.")
    learning_rate: Positive = Field(default=1e-3, description="Highest learning rate of AdamW.")
    weight_decay: NotNegative = Field(default=0.05, description="Weight decay of AdamW.")
    warmup_steps: Whole = Field(
        default=100,
        description="Steps in which the learning rate rises; at most half of all (more is "
        "lowered, and said).",
    )
    clip_norm: Positive = Field(default=1.0, description="Largest norm of the gradients.")
    label_smoothing: Share = Field(
        default=0.1, description="Label smoothing of the subnets that learn from the labels."
    )
    dropout: Share = Field(
        default=0.1, description="Dropout of the largest subnet; others have none."
    )
    distillation: Literal["kl", "alpha", "none"] = Field(
        default="kl",
        description="How smaller subnets follow the largest: kl, or AlphaNet's alpha; none lets "
        "all learn from the labels, which is faster in a short training from scratch.",
    )
    random_subnets: Whole = Field(
        default=2, description="Random subnets a step, beside the two extremes."
    )
    sampling: Literal["genes", "size"] = Field(
        default="genes", description="Random subnets are uniform over genes, or over size."
    )
    ema: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = Field(
        default=None,
        description="Decay of an average of the weights that is kept instead; null for none.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="Arithmetic of training; auto takes bf16 where the hardware has it.",
    )
    compile: Flag = Field(
        default=False,
        description="Compile with torch.compile; measure whether it pays.",
    )
    checkpoint_every_s: Positive = Field(
        default=30.0, description="Seconds between resume checkpoints."
    )
    log_every: Count = Field(default=20, description="Steps between lines of training.jsonl.")
    threads: Annotated[Count, Field(le=1024)] | None = Field(
        default=None, description="CPU threads of training; null takes all."
    )
    policy_steps: Whole = Field(
        default=0,
        description="Further steps in which subnets have policies of space.precision "
        "(quantization-aware training); 0 for none.",
    )


class WorkloadConfig(Section):
    """One way to call the network; its latency is an objective, NAME_ms."""

    batch: Count = Field(default=1, description="Inputs in a call.")
    sequence: Count | None = Field(
        default=None,
        description="New tokens in a call (language models only; 1 when past is given).",
    )
    past: Whole = Field(
        default=0, description="Tokens already in the KV cache (language models only)."
    )


class LatencyConfig(Section):
    """How latency is measured."""

    mode: Literal["quick", "standard"] = Field(
        default="quick", description="quick for a first look, standard for figures to rely on."
    )
    predictor: Literal["auto", "table", "learned", "transfer"] = Field(
        default="auto",
        description="table sums blocks; learned and transfer measure whole subnets only, transfer "
        "with another device's table; auto is table unless whole subnets alone tell more.",
    )
    source: str | None = Field(
        default=None, description="Device of this run directory whose table transfer starts from."
    )
    correction_subnets: Whole = Field(
        default=12,
        description="Whole subnets that are measured: to correct the sum of the blocks, or to "
        "learn from (25 are better then, and 10 for transfer).",
    )
    grid: Annotated[int, Field(strict=True, ge=2)] | None = Field(
        default=None,
        description="Widths of each axis that are measured, the others are interpolated; null "
        "measures all where the space has at most 128 blocks, else 8 of each axis.",
    )
    budget_minutes: Positive | None = Field(
        default=None,
        description="Time for measuring blocks, after which the rest is interpolated; the same "
        "command goes on from there. null takes the time it needs.",
    )


class ClusterConfig(Section):
    """Ray workers that evaluate qualities during a search; see docs/cluster.md."""

    address: Annotated[str, AfterValidator(_address)] = Field(
        description="local starts Ray on this host and stops it again; auto joins the cluster that "
        "runs here; HOST:PORT joins that one."
    )
    workers: Annotated[Count, Field(le=MOST_WORKERS)] | None = Field(
        default=None,
        description=f"Workers; null is as many as the cluster has room for, {MOST_WORKERS} at "
        "most.",
    )
    cpus: Count | None = Field(
        default=None,
        description="CPUs that each worker reserves; null is as many as an evaluation has threads.",
    )
    timeout_s: Positive = Field(
        default=60.0, description="Seconds to wait while no worker at all can start."
    )


class SearchConfig(Section):
    """What is searched for, and how long."""

    objectives: Annotated[Names, Field(min_length=1)] = Field(
        description="What is minimised; by default the task's quality and every latency."
    )
    bounds: Names = Field(default=(), description="Bounds, such as latency_ms <= 5.")
    budget: Count = Field(default=400, description="Subnets whose quality is evaluated, at most.")
    algorithm: Annotated[str, AfterValidator(_algorithm)] = Field(
        default="auto", description=f"The search algorithm: {', '.join(algorithm_names())}."
    )
    population: Annotated[int, Field(strict=True, ge=2)] = Field(
        default=30, description="Subnets of a generation."
    )
    min_gain: NotNegative = Field(
        default=0.0,
        description="Stop when an evaluation is expected to raise the hypervolume by less than "
        "this share; 0 uses up the budget.",
    )
    max_seconds: Positive | None = Field(
        default=None,
        description="Begin no evaluations after so many seconds; null sets no limit. A search that "
        "goes on after an interruption has this time again.",
    )
    fidelities: Annotated[
        tuple[Annotated[Positive, Field(lt=1)], ...], AfterValidator(_increasing)
    ] = Field(
        default=(),
        description="Shares of the validation split that a subnet is judged on first, such as "
        "[0.25]; only what may be on the front is then judged on more. The budget counts whole "
        "evaluations: four on a quarter are one.",
    )
    front_size: Count = Field(
        default=16, description="Subnets of the front that are exported, at most."
    )
