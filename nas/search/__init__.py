"""Multi-objective search over any discrete space, with as few evaluations as possible."""

from nas.search.algorithm import Algorithm, AlgorithmFactory
from nas.search.constraints import Constraint, parse_constraint, parse_constraints
from nas.search.engine import search
from nas.search.feasibility import (
    NothingFeasibleError,
    nearest,
    nearest_feasible,
    require_feasible,
)
from nas.search.fidelity import Fidelity
from nas.search.pareto import hypervolume, non_dominated, select_front
from nas.search.registry import ALGORITHMS
from nas.search.result import SearchResult

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "AlgorithmFactory",
    "Constraint",
    "Fidelity",
    "NothingFeasibleError",
    "SearchResult",
    "hypervolume",
    "nearest",
    "nearest_feasible",
    "non_dominated",
    "parse_constraint",
    "parse_constraints",
    "require_feasible",
    "search",
    "select_front",
]
