"""Training of a supernet: the loop, its log, and going on after a stop.

All that is random is a function of (seed, step): the subnets, the batch, the dropout. So a training
that was killed and resumed on a CPU ends with the same weights, bit for bit, as one that was left
alone with the same number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces.errors import UserError
from search_spaces.space import Architecture, SearchSpace
from search_spaces.transformer import TransformerSpace
from supernet.checkpoint import load_training, load_weights, named_tensors, save_training
from supernet.compilation import CompiledEnds
from supernet.distillation import LOSSES, DistillationLoss, kl_divergence
from supernet.gradients import SharedGradients
from supernet.identity import check_identity
from supernet.log_window import LogWindow
from supernet.optimizer import WeightAverage, build_adamw
from supernet.precision import autocast_context, resolve_precision
from supernet.sandwich import (
    ElasticForward,
    NonFiniteError,
    StepResult,
    sandwich,
    sandwich_step,
    with_policies,
)
from supernet.schedule import warmup_cosine

POLICY_RATE = 0.3
"""Peak of the learning rate in steps with policies, as a share of the peak before."""
POLICY_WARMUP = 0.1
"""Share of the steps with policies in which it rises."""

Log = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """What a finished training says of itself."""

    steps: int
    """Optimizer steps, over all starts."""
    seconds: float
    """Time in the training loop, over all starts; what was done again after a kill counts once."""
    precision: str
    """`fp32` or `bf16`."""


class Trainer:
    """Trains a supernet by the sandwich rule with in-place distillation.

    With `policy_steps`, these follow as quantization-aware training: all but the largest subnet,
    which teaches them, run with a random policy each, rounding straight through.

    Args:
        model: Called as `model(inputs, arch, dropout=p)`, with the search space as `.space`.
            Trained in place, on `device`.
        batch: Step index to `(inputs, targets)`: a function of the step alone, so that the position
            in the data is the step. Targets have shape `(*batch,)`, int64.
        steps: Optimizer steps in fp32; those with policies follow.
        learning_rate: Peak of the schedule.
        weight_decay: AdamW's, on the weights of linear and convolution layers.
        warmup_steps: Steps of linear warm-up before the cosine.
        clip_norm: Largest norm of the gradient of a step; None does not clip.
        label_smoothing: Of the subnets that learn from the labels.
        dropout: Of the largest subnet.
        distillation: `kl` or `alpha`: what the other subnets follow the largest by; or `none`: all
            learn from the labels. With policies, `none` is `kl`.
        random_subnets: Subnets a step beside the largest and the smallest.
        random_cost: Draw these uniformly over this cost; None is uniform over genes.
        ema: Decay of the running average of the weights, which the model ends with; None is off.
        precision: `auto`, `fp32` or `bf16`.
        compile: Compile the largest and the smallest subnet (`supernet.compilation`): a minute or
            more at every start. Off unless measured to pay: in fp32 on a CPU it did not.
        seed: Of subnets and dropout.
        device: Where to train.
        checkpoint_path: File to resume from and to write to; None keeps nothing.
        checkpoint_every_s: Seconds between checkpoints.
        log_every: Steps between two entries of the log; the last step is always logged.
        on_log: Gets each entry: the keys of `training.jsonl` and `remaining_s`. Losses are means
            over the steps since the last entry, in nats; `loss_random` is None without random
            subnets; `samples_per_s` counts a sample once, though several subnets see it.
        interrupted: Asked after each step: true saves the step and ends the training.
        identity: Further JSON values that a checkpoint must agree with, such as a hash of the data.
        policies: The model's space with precision policies, for `policy_steps`.
        policy_steps: Steps with policies; with some, `steps` may be 0 for a model that is trained.

    Raises:
        UserError: A value is outside its limits.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Callable[[int], tuple[Tensor, Tensor]],
        *,
        steps: int,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        warmup_steps: int = 0,
        clip_norm: float | None = 1.0,
        label_smoothing: float = 0.1,
        dropout: float = 0.1,
        distillation: str = "kl",
        random_subnets: int = 2,
        random_cost: Callable[[Architecture], float] | None = None,
        ema: float | None = None,
        precision: str = "auto",
        compile: bool = False,
        seed: int = 0,
        device: str | torch.device = "cpu",
        checkpoint_path: Path | None = None,
        checkpoint_every_s: float = 30.0,
        log_every: int = 20,
        on_log: Log | None = None,
        interrupted: Callable[[], bool] | None = None,
        identity: Mapping[str, Any] | None = None,
        policies: TransformerSpace | None = None,
        policy_steps: int = 0,
    ) -> None:
        _check("policy_steps", policy_steps, policy_steps >= 0, "at least 0")
        possible = policies is not None or not policy_steps
        _check("policy_steps", policy_steps, possible, "0 without policies")
        least = 0 if policy_steps else 1
        _check("steps", steps, steps >= least, f"at least {least}")
        _check("learning_rate", learning_rate, 0 < learning_rate < float("inf"), "above 0")
        _check("weight_decay", weight_decay, weight_decay >= 0, "at least 0")
        most = max(steps - 1, 0)
        _check("warmup_steps", warmup_steps, 0 <= warmup_steps <= most, f"0 to {most}")
        _check("clip_norm", clip_norm, clip_norm is None or clip_norm > 0, "above 0, or null")
        _check("label_smoothing", label_smoothing, 0 <= label_smoothing < 1, "in [0, 1)")
        _check("dropout", dropout, 0 <= dropout < 1, "in [0, 1)")
        _check("distillation", distillation, distillation in LOSSES, f"one of {tuple(LOSSES)}")
        _check("random_subnets", random_subnets, random_subnets >= 0, "at least 0")
        _check("ema", ema, ema is None or 0 <= ema < 1, "in [0, 1), or null")
        _check("seed", seed, seed >= 0, "at least 0")
        _check("checkpoint_every_s", checkpoint_every_s, checkpoint_every_s >= 0, "at least 0")
        _check("log_every", log_every, log_every >= 1, "at least 1")
        if getattr(model.space, "precision", ()):
            raise ValueError("the model's space has policies; give it one without, and `policies`")
        self.device = torch.device(device)
        self.precision = resolve_precision(precision, self.device)
        self.model = model.to(self.device)
        self.space = cast(SearchSpace, model.space)
        self.batch = batch
        self.steps = steps
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.clip_norm = clip_norm
        self.label_smoothing = label_smoothing
        self.dropout = dropout
        self.distillation = LOSSES[distillation]
        self.policy_distillation: DistillationLoss | None = self.distillation or kl_divergence
        self.random_subnets = random_subnets
        self.random_cost = random_cost
        self.seed = seed
        self.checkpoint_path = checkpoint_path
        self.checkpoint_every_s = checkpoint_every_s
        self.log_every = log_every
        self.on_log = on_log
        self.interrupted = interrupted or (lambda: False)
        self.policies = policies
        self.policy_steps = policy_steps
        self.forward: ElasticForward = CompiledEnds(model, self.space) if compile else model
        self.autocast = autocast_context(self.precision, self.device)
        self.parameters = list(model.parameters())
        self.gradients = SharedGradients(self.parameters)
        self.optimizer = build_adamw(model, learning_rate=learning_rate, weight_decay=weight_decay)
        self.average = None if ema is None else WeightAverage(self.parameters, ema)
        self.identity: dict[str, Any] = {
            "space": model.space.to_json(),  # type: ignore[operator, union-attr]
            "steps": steps,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "clip_norm": clip_norm,
            "label_smoothing": label_smoothing,
            "dropout": dropout,
            "distillation": distillation,
            "random_subnets": random_subnets,
            "random_by_cost": random_cost is not None,
            "ema": ema,
            "precision": self.precision,
            "compile": compile,
            "seed": seed,
            # Not there without any: checkpoints from before there were some are as they were
            **(_identity_of(policies, policy_steps) if policies and policy_steps else {}),
            **(identity or {}),
        }
        self.step = 0
        """Steps done so far, which is also the index of the next one."""
        self.elapsed_s = 0.0
        self._window = LogWindow()

    def run(self) -> TrainingResult:
        """Train to the end, from the checkpoint if there is one.

        The model ends with the trained weights (their running average, with `ema`). The checkpoint
        stays, at the last step; the caller deletes it when the supernet is safe.

        Raises:
            UserError: The checkpoint is damaged or of another training, a loss is not finite
                (`NonFiniteError`), or the checkpoint cannot be written. What was saved last stays.
            KeyboardInterrupt: It was interrupted.
        """
        self.restore()
        self.model.train()
        started_s = time.monotonic() - self.elapsed_s
        saved_s = time.monotonic()
        while self.step < self.all_steps:
            result, samples = self._train_step(self.step)
            self.step += 1
            self.elapsed_s = time.monotonic() - started_s
            self._window.add(result, samples)
            done = self.step == self.all_steps
            if done or self.step % self.log_every == 0:
                self._write_log()
            ends = not done and self.interrupted()
            if done or ends or time.monotonic() - saved_s >= self.checkpoint_every_s:
                self._save()
                saved_s = time.monotonic()
            if ends:
                raise KeyboardInterrupt
        if self.average is not None:
            self.average.apply()
        return TrainingResult(
            steps=self.all_steps, seconds=self.elapsed_s, precision=self.precision
        )

    def restore(self) -> int:
        """Go to the checkpoint if there is one, and give the step; `run` begins with it.

        Raises:
            UserError: It is damaged or of another training.
        """
        if not self.step and self.checkpoint_path is not None and self.checkpoint_path.exists():
            self._load(self.checkpoint_path)
        return self.step

    @property
    def all_steps(self) -> int:
        """Steps of the whole training."""
        return self.steps + self.policy_steps

    def _train_step(self, step: int) -> tuple[StepResult, int]:
        """One step, and how many samples its batch had."""
        inputs, targets = (tensor.to(self.device) for tensor in self.batch(step))
        architectures = sandwich(
            self.space,
            seed=self.seed,
            step=step,
            random_subnets=self.random_subnets,
            cost=self.random_cost,
        )
        distillation = self.distillation
        if self.policies is not None and step >= self.steps:
            architectures = with_policies(architectures, self.policies, seed=self.seed, step=step)
            distillation = self.policy_distillation
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        torch.manual_seed(_dropout_seed(self.seed, step))
        try:
            result = sandwich_step(
                self.forward,
                self.gradients,
                self.optimizer,
                inputs,
                targets,
                architectures,
                distillation=distillation,
                label_smoothing=self.label_smoothing,
                dropout=self.dropout,
                clip_norm=self.clip_norm,
                autocast=self.autocast,
            )
        except NonFiniteError as error:
            raise NonFiniteError(
                f"training stopped at step {step}: {error}; {self._hint()}"
            ) from None
        if self.average is not None:
            self.average.update(step)
        return result, inputs.shape[0]

    def _hint(self) -> str:
        """What to do about a training that diverged."""
        hint = f"lower learning_rate (now {self.learning_rate:g}) or lengthen warmup_steps"
        if self.checkpoint_path is None or not self.checkpoint_path.exists():
            return hint
        return f"{hint}, and delete {self.checkpoint_path} (kept as it was) to start again"

    def _learning_rate(self, step: int) -> float:
        if step >= self.steps:
            return warmup_cosine(
                step - self.steps,
                steps=self.policy_steps,
                warmup_steps=int(POLICY_WARMUP * self.policy_steps),
                learning_rate=POLICY_RATE * self.learning_rate,
            )
        return warmup_cosine(
            step,
            steps=self.steps,
            warmup_steps=self.warmup_steps,
            learning_rate=self.learning_rate,
        )

    def _write_log(self) -> None:
        """Give the means since the last entry to `on_log`, and begin the next window."""
        window, self._window = self._window, LogWindow(started_s=self.elapsed_s)
        if self.on_log is not None:
            rate = self._learning_rate(self.step - 1)
            self.on_log(window.entry(self.step, self.all_steps, self.elapsed_s, rate))

    def _save(self) -> None:
        if self.checkpoint_path is None:
            return
        tensors = {f"model.{name}": tensor for name, tensor in named_tensors(self.model).items()}
        for index, parameter in enumerate(self.parameters):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{index}.{key}"] = value
            if self.average is not None:
                tensors[f"ema.{index}"] = self.average.averages[index]
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        info = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "window": asdict(self._window),
            "identity": self.identity,
        }
        save_training(self.checkpoint_path, tensors, info)

    def _load(self, path: Path) -> None:
        tensors, info = load_training(path)
        check_identity(path, info.get("identity", {}), self.identity)
        try:
            step, elapsed_s = info["step"], info["elapsed_s"]
            others = info["window"]["steps"] * self.random_subnets  # as it was before it was kept
            window = LogWindow(**{"others": others, **info["window"]})
            weights = _with_prefix(tensors, "model.")
            load_weights(self.model, weights, source=path)
            if self.average is not None:
                for index, average in enumerate(self.average.averages):
                    average.copy_(tensors[f"ema.{index}"])
            for index, parameter in enumerate(self.parameters):
                state = _with_prefix(tensors, f"optimizer.{index}.")
                if state:
                    self.optimizer.state[parameter] = {
                        key: value.to(parameter.device) for key, value in state.items()
                    }
            torch.set_rng_state(tensors["rng.cpu"])
            if self.device.type == "cuda" and "rng.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{path} lacks a part of the training ({error}); delete it to start again"
            ) from error
        self.step, self.elapsed_s, self._window = step, elapsed_s, window


def _identity_of(policies: TransformerSpace, steps: int) -> dict[str, Any]:
    return {"policies": list(policies.precision), "policy_steps": steps}


def _dropout_seed(seed: int, step: int) -> int:
    """Another stream than that of the subnets, which is seeded with (seed, step)."""
    return int(np.random.SeedSequence((seed, step), spawn_key=(1,)).generate_state(1, np.uint64)[0])


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _check(name: str, value: object, valid: bool, limit: str) -> None:
    if not valid:
        raise UserError(f"training.{name} {value!r} must be {limit}")
