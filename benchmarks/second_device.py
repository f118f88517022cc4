"""A second device evaluates nothing again: quality does not depend on the device.

One run directory, two searches: for the first device, then for the second. Every computation of a
quality is counted where it happens, and compared with the rows of the store. The supernet and the
measurements of an earlier call of this benchmark are used again; its evaluations are forgotten.

The second search knows from the beginning what the first one evaluated. The hypervolume that it has
after 25 evaluations of its own is given as a share of what it has in the end.

The exit code is 1 if an architecture was computed twice, or if that share is below 99 %.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

import nas.stages.supernet as supernet_stage
from benchmarks.results import FOLDER, table, write_results
from latency.database import transaction
from nas.atomic import read_json
from nas.config import Config, load_config
from nas.run import Run
from nas.search import hypervolume
from nas.stages.measure import measure_device
from nas.stages.search import search_front
from nas.stages.supernet import open_supernet, train
from nas.tasks import SplitName, Task
from search_spaces import Architecture
from supernet.families import Supernet

FEW, FEW_BAR = 25, 0.99
"""Evaluations after which the second search should have nearly all of its final hypervolume."""
SHARES = {0: "share_known", FEW: "share_after_few"}
SMOKE = (
    "training.steps=5",
    "training.warmup_steps=1",
    "space.embed=[32]",
    "space.depth=[1, 2]",
    "space.heads=[1, 2]",
    "space.ffn=[32]",
    "latency.correction_subnets=0",
    "search.budget=4",
)

Computed = Counter[tuple[str, Architecture]]
"""How often each (split, architecture) was computed."""


@contextmanager
def counted() -> Iterator[Computed]:
    """Count the computations of a quality in this process."""
    computed: Computed = Counter()
    original = supernet_stage.evaluate

    def evaluate(
        model: Supernet, task: Task, arch: Architecture, split: SplitName, share: float = 1.0
    ) -> dict[str, float]:
        computed[supernet_stage.stored_split(split, share), arch] += 1
        return original(model, task, arch, split, share)

    supernet_stage.evaluate = evaluate
    try:
        yield computed
    finally:
        supernet_stage.evaluate = original


def forget_evaluations(run: Run) -> None:
    """Begin as if nothing had been searched; weights and measurements stay."""
    with transaction(run.connection):
        run.connection.execute("DELETE FROM evaluations")
    for path in run.directory.path.glob("search*.json"):
        path.unlink()


def search_device(config: Config, device: str, *, first: bool) -> dict[str, Any]:
    """Measure and search for one device, and say where the qualities came from."""
    with Run.open(config, device) as run:
        train(run)
        supernet = open_supernet(run)
        if first:
            forget_evaluations(run)
        measured = measure_device(run, supernet.space)
        known = {(row.split, row.architecture) for row in run.store.rows()}
        with counted() as computed:
            search_front(run, supernet)
        rows = [(row.split, row.architecture) for row in run.store.rows()]
        found = read_json(run.directory.search)
    space = supernet.space
    asked = [space.architecture(point["architecture"]) for point in found["evaluated"]]
    asked += [space.architecture(point["architecture"]) for point in found["references"]]
    wanted = {("validation", arch) for arch in asked}
    new = set(rows) - known
    return {
        "device": device,
        "unstable_rows": measured["unstable_rows"],
        "asked": len(wanted),
        "known_before": len(known),
        "found_in_store": len(wanted & known),
        "new_in_store": len(new),
        "computed": sum(computed.values()),
        "front": len(found["front"]),
        "known_to_the_search": found["known"],
        **{key: share_of_final(found, count) for count, key in SHARES.items()},
        "front_architectures": [asked[index].to_json() for index in found["front"]],
        # What must hold: nothing that was known was computed, nothing twice, all of it was kept.
        "known_and_computed": len(set(computed) & known),
        "computed_twice": sum(count > 1 for count in computed.values()),
        "rows_twice": len(rows) - len(set(rows)),
        "not_kept": len(set(computed) ^ new),
    }


def share_of_final(found: dict[str, Any], count: int) -> float:
    """Hypervolume after what was known and `count` evaluations, as a share of that in the end."""
    values = np.array([point["values"] for point in found["evaluated"]])
    best, worst = values.min(axis=0), values.max(axis=0)

    def reached(points: np.ndarray) -> float:
        return hypervolume(points, ideal=best, reference=worst)

    return reached(values[: found["known"] + count]) / reached(values)


def correct(result: dict[str, Any]) -> bool:
    """Whether a search computed only what it had to."""
    wrong = ("known_and_computed", "computed_twice", "rows_twice", "not_kept")
    return not any(result[name] for name in wrong) and (
        result["found_in_store"] + result["new_in_store"] == result["asked"]
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row per device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="examples/digits.yaml")
    parser.add_argument("--first", default="cpu-1t", help="device profile that is searched first")
    parser.add_argument("--second", default="cpu", help="device profile that is searched then")
    parser.add_argument("--smoke", action="store_true", help="a tiny run, to see that it runs")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="as for `nas run`")
    options = parser.parse_args(argv)
    name = "second_device-smoke" if options.smoke else "second_device"
    shrunk = SMOKE if options.smoke else ()
    config = load_config(options.config, [*shrunk, f"output={FOLDER / name}", *options.overrides])
    results = [
        search_device(config, options.first, first=True),
        search_device(config, options.second, first=False),
    ]
    fronts = [set(result["front_architectures"]) for result in results]
    passed = all(correct(result) for result in results)
    soon = results[1]["share_after_few"] >= FEW_BAR
    written = write_results(
        name,
        {
            "passed": passed and soon,
            "in_both_fronts": len(fronts[0] & fronts[1]),
            "searches": results,
        },
    )
    header = ["device", "asked", "found in the store", "new", "computed", "known and computed"]
    header += ["computed twice", "front"]
    keys = ["asked", "found_in_store", "new_in_store", "computed", "known_and_computed"]
    keys += ["computed_twice", "front"]
    print(table(header, [[r["device"], *(str(r[key]) for key in keys)] for r in results]))
    print(f"\nin both fronts: {len(fronts[0] & fronts[1])}")
    share = {count: f"{100 * results[1][key]:.2f} %" for count, key in SHARES.items()}
    print(
        f"hypervolume of the second search, of its final: {share[0]} with what was known, "
        f"{share[FEW]} after {FEW} evaluations ({'met' if soon else 'MISSED'}: {FEW_BAR:.0%})"
    )
    print("passed" if passed else "FAILED: something was computed again")
    print(written)
    sys.exit(0 if passed and (soon or options.smoke) else 1)


if __name__ == "__main__":
    main()
