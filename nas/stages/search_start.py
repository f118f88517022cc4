"""What a search knew when it began: so that one that goes on knows the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.atomic import read_json, write_json
from nas.run import Run
from search_spaces import Architecture, SearchSpace, UserError


class SearchStart:
    """Evaluations that the store held when a search was first started.

    They come from other devices, other settings, or the training. A search that goes on finds its
    own evaluations in the store too, and must not take them for known ones, since it would ask
    something else. The store only grows, so a number for each search is enough.

    Args:
        run: The run, seen from the device that is searched for.
        supernet: Names its weights and schemes in the store.
        settings: All that tells one search of this device from another.

    Raises:
        UserError: The file is damaged.
    """

    def __init__(self, run: Run, supernet: str, settings: Mapping[str, Any]) -> None:
        self._path = run.directory.search_start
        self._search = {"supernet": supernet, **settings}
        self._every = run.store.all(supernet, "validation")
        self._starts: list[dict[str, Any]] = []
        if self._path.exists():
            self._starts = _starts(self._path)
        found = [one["known"] for one in self._starts if one["search"] == self._search]
        self._kept = bool(found)
        self._count: int = found[0] if found else len(self._every)

    def known(self, names: Sequence[str], space: SearchSpace) -> dict[Architecture, list[float]]:
        """Metrics of those names, by architecture of the space, in the order of their JSON.

        Of one supernet there are several spaces: with and without precision policies. Workers of a
        cluster end in any order, which no later search may depend on.
        """
        known = list(self._every.items())[: self._count]
        return {
            arch: [metrics[name] for name in names]
            for arch, metrics in sorted(known, key=lambda one: one[0].to_json())
            if arch in space and all(name in metrics for name in names)
        }

    def keep(self) -> None:
        """Write the number down, before the first evaluation; a second call does nothing."""
        if not self._kept:
            self._starts.append({"search": self._search, "known": self._count})
            write_json(self._path, {"schema": 1, "starts": self._starts})
            self._kept = True


def _starts(path: Path) -> list[dict[str, Any]]:
    starts = read_json(path).get("starts")
    for one in starts if isinstance(starts, list) else [None]:
        known = one.get("known") if isinstance(one, dict) and "search" in one else None
        if not isinstance(known, int) or known < 0:
            raise UserError(
                f"{path} is damaged: it does not say how many evaluations a search began with; "
                "restore it from a copy, or delete it: the search then begins anew and takes all "
                "that is stored for known"
            )
    return list(starts or [])
