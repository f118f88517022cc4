"""Train the supernet of a run, or open the trained one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from latency.host_facts import available_cpus
from nas.atomic import write_json
from nas.config import Config
from nas.executors.executor import Executor, LocalExecutor
from nas.executors.package import evaluate
from nas.interruption import deferred
from nas.progress import progress
from nas.run import Run
from nas.stages.pretrained import check_unchanged_start, give_start, identity, open_start
from nas.tasks import SplitName, Task, build_task
from nas.tasks.guessing import no_better_than_guessing
from search_spaces import Architecture, TransformerSpace, UserError, space_from_json
from search_spaces.schemes import later_versions
from supernet.checkpoint import load_supernet, load_weights, save_supernet
from supernet.families import Supernet, build_supernet
from supernet.sanity import sanity_table
from supernet.training import Trainer

CALIBRATION_BATCHES = 2
"""Evaluation batches of the training split that the ranges of 8-bit inputs are taken from."""


def build_space(config: Config) -> TransformerSpace:
    """The search space of a configuration; a text task's vocabulary comes from its tokenizer."""
    return _space(config, open_task(config))


def open_task(config: Config) -> Task:
    """The data of a configuration, split."""
    return build_task(config.task.kind, **config.task_parameters)


def _space(config: Config, task: Task, *, policies: bool = True) -> TransformerSpace:
    fields = config.space.model_dump(mode="json")
    if not policies:
        fields = {k: v for k, v in fields.items() if k not in ("precision", "precision_ends")}
    if config.task.kind == "image-classification":
        fields |= {
            "image_size": config.task.image_size,
            "channels": config.task.channels,
            "num_classes": task.num_classes,
        }
    else:
        fields |= {"vocabulary": task.num_classes, "context": config.task.context}
    return space_from_json(fields)


@dataclass(frozen=True, kw_only=True)
class TrainedSupernet:
    """A supernet with its task: what search, export and report need of it."""

    run: Run
    task: Task
    model: Supernet
    hash: str
    """Names the weights."""

    @property
    def space(self) -> TransformerSpace:
        """The search space."""
        return self.model.space

    @property
    def stored_as(self) -> str:
        """Names weights and schemes in the store."""
        versions = later_versions(self.space.precision)
        return ", ".join([self.hash, *(f"{name} {version}" for name, version in versions.items())])

    def metrics(
        self,
        architectures: Sequence[Architecture],
        split: SplitName,
        share: float = 1.0,
        executor: Executor | None = None,
    ) -> list[dict[str, float]]:
        """Metrics of subnets on a split; each is computed once, ever, and kept in the store.

        Each is stored as soon as it is there: a kill loses none that was finished.

        Args:
            architectures: The subnets.
            split: Name of the split.
            share: Share of it to judge them on; the store keeps every share by itself.
            executor: What computes them; by default this process.
        """
        key = stored_split(split, share)
        known = {arch: self.run.store.get(self.stored_as, arch, key) for arch in architectures}
        unknown = [arch for arch, metrics in known.items() if metrics is None]
        for arch, found in (executor or self.local_executor()).evaluate(unknown, split, share):
            self.run.store.add(self.stored_as, key, {arch: found})
            # Read back: the first evaluation of an architecture is the one that counts.
            known[arch] = self.run.store.get(self.stored_as, arch, key)
        return [metrics for arch in architectures if (metrics := known[arch]) is not None]

    def local_executor(self) -> LocalExecutor:
        """Evaluates in this process."""
        return LocalExecutor(
            lambda arch, split, share: evaluate(self.model, self.task, arch, split, share)
        )


def stored_split(split: SplitName, share: float) -> str:
    """What the store calls a share of a split: never what it calls another one."""
    return split if share == 1 else f"{split}:{share!r}"


def train(run: Run) -> dict[str, Any]:
    """Train the supernet, or go on where a training was cut; nothing if it is done.

    A pretrained checkpoint gives the weights at the beginning alone; until the end it must stay as
    it is.

    Leaves `supernet.safetensors`, `supernet.json`, `splits.json` and `training.jsonl`.
    """
    directory, config = run.directory, run.config
    if directory.supernet.exists() and directory.supernet_json.exists():
        _, info = load_supernet(directory.supernet)
        _check_space(run, info)
        check_unchanged_start(config, info.get("pretrained"))
        directory.checkpoint.unlink(missing_ok=True)
        return _summary(info, trained=False)
    _set_threads(config)
    task = open_task(config)
    write_json(directory.splits, {"schema": 1, **task.record})
    torch.manual_seed(config.seed)
    # Weights know of no policies: they serve every one, and are the same without any
    model = build_supernet(_space(config, task, policies=False))
    start = open_start(config)
    if start is not None and not directory.checkpoint.exists():
        notes = give_start(config, task, model, start)
        run.console.print(
            f"Started from {config.training.pretrained}: {'; '.join(notes)}",
            highlight=False,
            soft_wrap=True,
        )
    trained_from = None if start is None else identity(config, start)
    steps = config.training.steps + config.training.policy_steps
    if config.training.warmup_steps > (most := _warmup_steps(config)):
        run.console.print(
            f"training.warmup_steps is {config.training.warmup_steps}, over half of training.steps "
            f"{config.training.steps}: the learning rate rises in {most} steps",
            highlight=False,
            soft_wrap=True,
        )
    with progress(run.console, "Training", steps) as update, deferred() as interrupted:

        def log(entry: dict[str, Any]) -> None:
            del entry["remaining_s"]  # told by the progress
            with directory.training_log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            update(
                entry["step"],
                f"loss largest {entry['loss_largest']:.3f} smallest {entry['loss_smallest']:.3f} "
                f"random {entry['loss_random'] or 0:.3f}, {entry['samples_per_s']:.0f} samples/s",
            )

        trainer = new_trainer(
            config,
            task,
            model,
            checkpoint_path=directory.checkpoint,
            on_log=log,
            interrupted=interrupted,
            trained_from=trained_from,
        )
        update(trainer.restore(), f"of {steps} steps")
        result = trainer.run()
    model.eval()
    rows, warnings = sanity_table(
        model.space,
        lambda arch: evaluate(model, task, arch, "validation"),
        quality=task.quality,
    )
    largest = rows[-1]
    if (warning := no_better_than_guessing(task, largest["name"], largest["metrics"])) is not None:
        warnings.append(warning)
    for warning in warnings:
        run.console.print(warning, style="bold red")
    info = {
        "sanity": rows,
        "warnings": warnings,
        "training": {
            "steps": result.steps,
            "seconds": result.seconds,
            "precision": result.precision,
        },
        **({} if trained_from is None else {"pretrained": trained_from}),
    }
    digest = save_supernet(directory.supernet, model, info)
    space = model.space
    known = {space.architecture(row["architecture"]): row["metrics"] for row in rows}
    run.store.add(digest, "validation", known)
    directory.checkpoint.unlink(missing_ok=True)
    return _summary({**info, "hash": digest}, trained=True)


def new_trainer(
    config: Config,
    task: Task,
    model: Supernet,
    *,
    trained_from: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Trainer:
    """A trainer of a supernet with the settings of a configuration.

    Args:
        config: Its settings.
        task: Gives the batches.
        model: The supernet, of the space without policies.
        trained_from: What weights it starts from (`nas.stages.pretrained.identity`); None for
            random ones.
        changes: Arguments of `Trainer` that are to be others, or that no configuration has.
    """
    settings = config.training
    arguments: dict[str, Any] = {
        "batch": task.batch,
        "steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "warmup_steps": _warmup_steps(config),
        "clip_norm": settings.clip_norm,
        "label_smoothing": settings.label_smoothing,
        "dropout": settings.dropout,
        "distillation": settings.distillation,
        "random_subnets": settings.random_subnets,
        "random_cost": _parameters(model.space) if settings.sampling == "size" else None,
        "ema": settings.ema,
        "precision": settings.precision,
        "compile": settings.compile,
        "seed": config.seed,
        "checkpoint_every_s": settings.checkpoint_every_s,
        "log_every": settings.log_every,
        "identity": {
            "data": task.record,
            "threads": torch.get_num_threads(),
            # Not there without any: checkpoints from before there were some are as they were
            **({} if trained_from is None else {"pretrained": dict(trained_from)}),
        },
        "policies": _space(config, task) if settings.policy_steps else None,
        "policy_steps": settings.policy_steps,
    }
    return Trainer(model, **{**arguments, **changes})


def _warmup_steps(config: Config) -> int:
    """Half of the steps at most, so that a short trial of a long training still learns."""
    return min(config.training.warmup_steps, config.training.steps // 2)


def _parameters(space: TransformerSpace) -> Callable[[Architecture], float]:
    return lambda arch: space.cost(arch).parameters


def open_supernet(run: Run) -> TrainedSupernet:
    """Open the trained supernet of a run with its data.

    Raises:
        UserError: There is none yet, a file is damaged, or the data or the space changed.
    """
    if not run.directory.supernet_json.exists():
        raise UserError(
            f"{run.config.output} has no trained supernet; run `nas train` or `nas run` first"
        )
    _set_threads(run.config)
    tensors, info = load_supernet(run.directory.supernet)
    task = open_task(run.config)
    space = _check_space(run, info, task)
    model = build_supernet(space)
    load_weights(model, tensors, source=run.directory.supernet)
    if space.precision:
        batches = islice(task.split("train"), CALIBRATION_BATCHES)
        model.calibrate([inputs for inputs, _ in batches])
    return TrainedSupernet(run=run, task=task, model=model.eval(), hash=info["hash"])


def _check_space(run: Run, info: Mapping[str, Any], task: Task | None = None) -> TransformerSpace:
    """The configuration's space, which must be the one that was trained but for its policies."""
    task = task or open_task(run.config)
    if _space(run.config, task, policies=False).to_json() != info["space"]:
        raise UserError(
            f"{run.directory.supernet_json} is of another search space than the configuration; "
            "name another directory with output=DIRECTORY"
        )
    return _space(run.config, task)


def _set_threads(config: Config) -> None:
    torch.set_num_threads(config.training.threads or len(available_cpus()))


def _summary(info: Mapping[str, Any], *, trained: bool) -> dict[str, Any]:
    return {
        "hash": info["hash"],
        "trained_now": trained,
        "seconds": info["training"]["seconds"],
        "warnings": info["warnings"],
    }
