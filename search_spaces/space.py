"""Any discrete search space, and the immutable architectures that lie in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import (
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    ValuesView,
)
from functools import cached_property
from itertools import compress, product
from math import prod
from operator import itemgetter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search_spaces.errors import UserError

Choice = int | float | str | bool
Active = Mapping[str, Mapping[str, Sequence[Choice]]]


class Architecture(Mapping[str, Choice]):
    """One point of a search space: the genes that count, by name.

    Immutable and hashable. Genes of layers that are not there are absent, so that two encodings
    of one subnet are equal. Build one with `SearchSpace.architecture`, which checks it.
    """

    __slots__ = ("_hash", "_json", "_values")
    _hash: int
    _json: str
    _values: dict[str, Choice]

    def __init__(self, values: Mapping[str, Choice]) -> None:
        self._values = {name: values[name] for name in sorted(values)}

    @classmethod
    def _of(cls, values: dict[str, Choice]) -> Architecture:
        """One of genes whose names are in order, which it keeps."""
        self = cls.__new__(cls)
        self._values = values
        return self

    def __getitem__(self, name: str) -> Choice:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    # Those of `Mapping` ask for one gene after another; a search asks for all of thousands.
    def keys(self) -> KeysView[str]:
        """Names of the genes, sorted."""
        return self._values.keys()

    def values(self) -> ValuesView[Choice]:
        """Choices in the order of the names."""
        return self._values.values()

    def items(self) -> ItemsView[str, Choice]:
        """Names and choices."""
        return self._values.items()

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            self._hash = hash(self.to_json())
            return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Architecture):
            return self.to_json() == other.to_json()
        return NotImplemented

    def __repr__(self) -> str:
        return f"Architecture({self.to_json()})"

    def __reduce__(self) -> tuple[type[Architecture], tuple[dict[str, Choice]]]:
        return Architecture, (self._values,)

    def to_json(self) -> str:
        """The genes as compact JSON with sorted names."""
        # Most of the architectures that a search looks at are never compared.
        try:
            return self._json
        except AttributeError:
            self._json = json.dumps(self._values, separators=(",", ":"))
            return self._json

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Read what `to_json` wrote.

        Raises:
            UserError: The text is not a JSON object.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"architecture {text[:80]!r} is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise UserError(f"architecture {text[:80]!r} is not a JSON object of genes")
        return cls(values)

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that name the architecture."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


class SearchSpace:
    """A product of ordered choices, some of which count only together with others.

    Args:
        choices: Gene name to its choices, in order from small to large.
        active: Gene name to the condition under which it counts: controlling gene to the values
            of that gene. Genes that are not named always count. A controller comes before what it
            controls.
        minor: Genes that are expected to change little, such as number formats beside widths: a
            predictor gives a change of one a tenth of the weight, and says a network's size without
            them; a guided search evaluates little that is new in these alone.

    Raises:
        UserError: No genes, a gene without choices or with equal ones, an unknown controller, a
            minor gene that is not there.
    """

    def __init__(
        self,
        choices: Mapping[str, Sequence[Choice]],
        active: Active | None = None,
        *,
        minor: Iterable[str] = (),
    ) -> None:
        if not choices:
            raise UserError("a search space needs at least one gene; it has none")
        self.choices: dict[str, tuple[Choice, ...]] = {
            name: tuple(_plain(value) for value in values) for name, values in choices.items()
        }
        self.active = {name: dict(condition) for name, condition in (active or {}).items()}
        self.names: tuple[str, ...] = tuple(self.choices)
        self.cardinalities: NDArray[np.int64] = np.array(
            [len(values) for values in self.choices.values()], dtype=np.int64
        )
        self._position = {name: column for column, name in enumerate(self.names)}
        # Of all genes one after the other, those of each from its first on.
        self._values = np.array([v for values in self.choices.values() for v in values], object)
        self._first = np.cumsum(self.cardinalities) - self.cardinalities
        self._index = [
            {value: index for index, value in enumerate(values)} for values in self.choices.values()
        ]
        for name, index, values in zip(self.names, self._index, self.choices.values(), strict=True):
            if not values:
                raise UserError(f"gene {name!r} has no choices; give it at least one")
            for value in values:
                if not isinstance(value, bool | int | float | str):
                    raise UserError(
                        f"gene {name!r} has the choice {value!r}, which is no number, text or "
                        "truth value; give one of these"
                    )
            if len(index) != len(values):
                raise UserError(f"gene {name!r} has equal choices: {values}; name each once")
        self._controllers = self._tables()
        self.minor = frozenset(minor)
        for name in sorted(self.minor - set(self.names)):
            raise UserError(f"minor names {name!r}, which is no gene of {self.names}")

    def _column(self, name: str) -> int:
        if name not in self._position:
            raise UserError(f"active names {name!r}, which is no gene of {self.names}")
        return self._position[name]

    def _tables(self) -> list[tuple[int, NDArray[np.bool_], NDArray[np.bool_]]]:
        """Per controlling column: which genes may count, by its index, and without it."""
        tables: dict[int, NDArray[np.bool_]] = {}
        for name, condition in self.active.items():
            column = self._column(name)
            for controller, values in condition.items():
                above = self._column(controller)
                if above >= column:
                    raise UserError(
                        f"gene {name!r} must come after {controller!r}, which controls it"
                    )
                shape = (len(self._index[above]) + 1, self.dimensions)
                table = tables.setdefault(above, np.ones(shape, dtype=np.bool_))
                table[:, column] = False
                for value in values:
                    if value not in self._index[above]:
                        raise UserError(
                            f"gene {name!r} counts when {controller!r} is {value!r}, "
                            f"which is not one of {self.choices[controller]}"
                        )
                    table[self._index[above][value], column] = True
        return [(column, table[:-1], table[-1]) for column, table in sorted(tables.items())]

    @property
    def dimensions(self) -> int:
        """Number of genes."""
        return len(self.names)

    @cached_property
    def size(self) -> int:
        """Number of architectures: encodings that differ in a gene that counts."""
        return prod(self._component_size(component) for component in self._components())

    def _components(self) -> list[list[int]]:
        """Columns in groups that do not control one another: their sizes multiply."""
        group = list(range(self.dimensions))
        for column, by_index, without in self._controllers:
            controlled = np.flatnonzero(~(by_index.all(axis=0) & without))
            members = {group[column], *(group[int(below)] for below in controlled)}
            group = [min(members) if g in members else g for g in group]
        return [[c for c in range(self.dimensions) if group[c] == g] for g in sorted(set(group))]

    def _component_size(self, component: list[int]) -> int:
        """Goes through the controllers of the component; all its other genes multiply."""
        controllers = [column for column, _, _ in self._controllers if column in component]
        free = [column for column in component if column not in controllers]
        seen: set[tuple[int, ...]] = set()
        total = 0
        for indices in product(*(range(int(self.cardinalities[c])) for c in controllers)):
            genes = np.zeros(self.dimensions, dtype=np.int64)
            genes[controllers] = indices
            mask = self.active_mask(genes)
            state = tuple(
                int(i) if mask[c] else 0 for c, i in zip(controllers, indices, strict=True)
            )
            if state not in seen:
                seen.add(state)
                total += prod(int(self.cardinalities[c]) for c in free if mask[c])
        return total

    def active_mask(self, genes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the genes count, shape `(*batch, d)`, for choice indices of the same shape."""
        mask = np.ones(genes.shape, dtype=np.bool_)
        for column, by_index, without in self._controllers:
            mask &= np.where(mask[..., column, None], by_index[genes[..., column]], without)
        return mask

    def canonical(self, genes: ArrayLike) -> NDArray[np.int64]:
        """The genes, shape `(d,)` int64, with 0 for those that do not count.

        Raises:
            UserError: Another shape, or an index that its gene does not have.
        """
        array = self._checked(genes)
        return np.where(self.active_mask(array), array, 0)

    def _checked(self, genes: ArrayLike) -> NDArray[np.int64]:
        array = np.asarray(genes, dtype=np.int64)
        if array.shape != (self.dimensions,):
            raise UserError(f"genes have shape {array.shape}; the space has {self.dimensions}")
        wrong = np.flatnonzero((array < 0) | (array >= self.cardinalities))
        if wrong.size:
            column = int(wrong[0])
            raise UserError(
                f"gene {self.names[column]!r} has no choice {array[column]}; "
                f"it has 0 to {self.cardinalities[column] - 1}"
            )
        return array

    def decode(self, genes: ArrayLike) -> Architecture:
        """The architecture of choice indices, shape `(d,)`."""
        array = self._checked(genes)
        mask = self.active_mask(array).tolist()
        return Architecture(
            {
                name: values[index]
                for (name, values), index, counts in zip(
                    self.choices.items(), array.tolist(), mask, strict=True
                )
                if counts
            }
        )

    def decode_all(self, genes: ArrayLike) -> list[Architecture]:
        """The architectures of choice indices, shape `(n, d)`: those of `decode`, fast.

        Raises:
            UserError: As in `decode`.
        """
        array = np.asarray(genes, dtype=np.int64)
        if array.ndim and len(array) == 0:
            return []
        if array.ndim != 2 or array.shape[1] != self.dimensions:
            raise UserError(
                f"genes have shape {array.shape}; the space has {self.dimensions}, a row each"
            )
        wrong = ((array < 0) | (array >= self.cardinalities)).any(axis=1)
        if wrong.any():
            self._checked(array[int(np.argmax(wrong))])
        order = sorted(range(self.dimensions), key=self.names.__getitem__)
        names = [self.names[column] for column in order]
        values = self._values[(array + self._first)[:, order]].tolist()
        mask = self.active_mask(array)[:, order]
        return [
            Architecture._of(
                dict(zip(names, row, strict=True))
                if all(counts)
                else dict(zip(compress(names, counts), compress(row, counts), strict=True))
            )
            for row, counts in zip(values, mask.tolist(), strict=True)
        ]

    def encode(self, arch: Architecture) -> NDArray[np.int64]:
        """Choice indices of an architecture, shape `(d,)` int64; 0 for genes that do not count.

        Raises:
            UserError: A gene is missing, unknown, or has a value that is no choice.
        """
        genes = np.zeros(self.dimensions, dtype=np.int64)
        for name, value in arch.items():
            index = self._choice_index(name, value)
            choice = self.choices[name][index]
            if type(choice) is not type(value):
                # 1.0 finds the choice 1, but an architecture that holds it is not equal to ours.
                raise UserError(
                    f"{name} {value!r} is {choice!r} in this space; build the architecture with "
                    "SearchSpace.architecture"
                )
            genes[self._position[name]] = index
        mask = self.active_mask(genes)
        for column, name in enumerate(self.names):
            if mask[column] != (name in arch):
                state = "is missing" if mask[column] else "does not count here; leave it out"
                raise UserError(f"gene {name!r} {state} in architecture {arch.to_json()}")
        return genes

    def encode_all(self, architectures: Sequence[Architecture]) -> NDArray[np.int64]:
        """Choice indices of many architectures, shape `(n, d)` int64: the rows of `encode`, fast.

        Raises:
            UserError: As in `encode`.
        """
        genes = np.zeros((len(architectures), self.dimensions), dtype=np.int64)
        alike: dict[tuple[str, ...], list[int]] = {}
        for row, arch in enumerate(architectures):
            alike.setdefault(tuple(arch._values), []).append(row)
        controls = [column for column, _, _ in self._controllers]
        for names, rows in alike.items():
            values = [architectures[row]._values for row in rows]
            try:
                columns = [self._position[name] for name in names]
                found = [list(map(itemgetter(name), values)) for name in names]
                for column, choices in zip(columns, found, strict=True):
                    if not set(map(type, choices)) <= self._types[column]:
                        raise TypeError
                genes[np.ix_(rows, columns)] = np.array(
                    [
                        list(map(self._index[column].__getitem__, choices))
                        for column, choices in zip(columns, found, strict=True)
                    ]
                ).T
            except (KeyError, TypeError):
                columns = []
            wanted = np.isin(np.arange(self.dimensions), columns)
            cases = dict(zip(map(tuple, genes[np.ix_(rows, controls)].tolist()), rows, strict=True))
            if any((self.active_mask(genes[row]) != wanted).any() for row in cases.values()):
                # Some of these are not of this space: the slow way finds out which, and why.
                genes[rows] = [self.encode(architectures[row]) for row in rows]
        return genes

    @cached_property
    def _types(self) -> list[set[type]]:
        """The type of each gene's choices; none where they are of several."""
        types = [{type(value) for value in values} for values in self.choices.values()]
        return [one if len(one) == 1 else set() for one in types]

    def _choice_index(self, name: str, value: Choice) -> int:
        if name not in self._position:
            raise UserError(f"{name!r} is no gene; the genes are {self.names}")
        index = self._index[self._position[name]]
        # What comes from a file may be anything, a list too.
        if not isinstance(value, Choice) or value not in index:
            raise UserError(f"{name} {value!r} is not one of {self.choices[name]}")
        return index[value]

    def architecture(self, values: Mapping[str, Choice]) -> Architecture:
        """A checked, canonical architecture; genes that do not count may be given or left out.

        Raises:
            UserError: A gene that counts is missing, a name or a value is unknown.
        """
        genes = np.zeros(self.dimensions, dtype=np.int64)
        for name, value in values.items():
            index = self._choice_index(name, _plain(value))
            genes[self._position[name]] = index
        arch = self.decode(genes)
        for name in arch:
            if name not in values:
                raise UserError(f"gene {name!r} is missing; choose one of {self.choices[name]}")
        return arch

    def __contains__(self, arch: object) -> bool:
        if not isinstance(arch, Architecture):
            return False
        try:
            self.encode(arch)
        except UserError:
            return False
        return True

    def sample(self, rng: np.random.Generator) -> Architecture:
        """A random architecture, uniform over genes."""
        return self.decode(rng.integers(0, self.cardinalities))

    @cached_property
    def smallest(self) -> Architecture:
        """The first choice of every gene."""
        return self.decode(np.zeros(self.dimensions, dtype=np.int64))

    @cached_property
    def largest(self) -> Architecture:
        """The last choice of every gene."""
        return self.decode(self.cardinalities - 1)

    def __iter__(self) -> Iterator[Architecture]:
        """Every architecture once; for small spaces only."""
        seen = set()
        for genes in product(*(range(int(n)) for n in self.cardinalities)):
            arch = self.decode(np.array(genes, dtype=np.int64))
            if arch not in seen:
                seen.add(arch)
                yield arch


def _plain(value: Choice | np.generic) -> Choice:
    """Numpy scalars as Python's own, so that they are equal and go to JSON."""
    plain: Choice = value.item() if isinstance(value, np.generic) else value
    return plain
