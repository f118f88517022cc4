"""The search algorithms by name."""

from functools import partial

from nas.search.age_moea2 import GeometrySelection
from nas.search.algorithm import AlgorithmFactory
from nas.search.boshnas import Boshnas
from nas.search.ctaea import TwoArchiveSelection
from nas.search.evolution import Evolution
from nas.search.guided import Guided
from nas.search.linas import Linas
from nas.search.nsga2 import RankAndCrowdingSelection
from nas.search.nsga3 import ReferenceDirectionSelection
from nas.search.random_search import RandomSearch
from search_spaces.errors import UserError

ALGORITHMS: dict[str, AlgorithmFactory] = {
    "age-moea2": partial(Evolution, selection=GeometrySelection),
    "boshnas": Boshnas,
    "ctaea": partial(Evolution, selection=TwoArchiveSelection),
    "guided": Guided,
    "linas": Linas,
    "nsga2": partial(Evolution, selection=RankAndCrowdingSelection),
    "nsga3": partial(Evolution, selection=partial(ReferenceDirectionSelection, unified=False)),
    "random": RandomSearch,
    "unsga3": partial(Evolution, selection=partial(ReferenceDirectionSelection, unified=True)),
}
AUTO = "guided"
"""What `auto` stands for."""


def algorithm_names() -> tuple[str, ...]:
    """What `search` takes for its algorithm: `auto` first."""
    return ("auto", *sorted(ALGORITHMS))


def algorithm_named(name: str) -> AlgorithmFactory:
    """The algorithm of that name, `auto` included.

    Raises:
        UserError: There is none.
    """
    if name == "auto":
        name = AUTO
    if name not in ALGORITHMS:
        raise UserError(
            f"algorithm {name!r} is not known; choose one of {', '.join(algorithm_names())}"
        )
    return ALGORITHMS[name]
