"""The search algorithms by name."""

from nas.search.algorithm import AlgorithmFactory
from nas.search.guided import Guided
from nas.search.nsga2 import NSGA2
from nas.search.random_search import RandomSearch
from search_spaces.errors import UserError

ALGORITHMS: dict[str, AlgorithmFactory] = {
    "guided": Guided,
    "nsga2": NSGA2,
    "random": RandomSearch,
}
AUTO = "guided"
"""What `auto` stands for."""


def algorithm_named(name: str) -> AlgorithmFactory:
    """The algorithm of that name, `auto` included.

    Raises:
        UserError: There is none.
    """
    if name == "auto":
        name = AUTO
    if name not in ALGORITHMS:
        raise UserError(
            f"algorithm {name!r} is not known; choose one of auto, {', '.join(sorted(ALGORITHMS))}"
        )
    return ALGORITHMS[name]
