"""Any discrete space: Law 2, and what a mistake is answered with."""

import copy
import json
import math
import pickle
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import Architecture, SearchSpace, UserError

VALUES = st.one_of(
    st.integers(-5, 5000),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.text(max_size=4),
)


@st.composite
def spaces(draw):
    """Up to five genes; later ones may count under conditions on any earlier ones, nested."""
    choices, active = {}, {}
    for column in range(draw(st.integers(1, 5))):
        name = f"g{draw(st.integers(0, 9))}.{column}"
        choices[name] = draw(st.lists(VALUES, min_size=1, max_size=3, unique_by=_equal_as_key))
        above = list(choices)[:-1]
        controllers = (
            draw(st.lists(st.sampled_from(above), max_size=2, unique=True)) if above else ()
        )
        if controllers:
            active[name] = {
                controller: draw(
                    st.lists(st.sampled_from(choices[controller]), max_size=3, unique=True)
                )
                for controller in controllers
            }
    return SearchSpace(choices, active)


def _equal_as_key(value):
    # 1 and 1.0 are one choice, "1" is another.
    return (isinstance(value, str), value)


@st.composite
def spaces_and_genes(draw):
    space = draw(spaces())
    return space, np.array([draw(st.integers(0, n - 1)) for n in space.cardinalities.tolist()])


def expected(space, genes):
    """The genes that count, by the definition: every controller counts and has such a value."""
    values = {
        name: choices[index]
        for (name, choices), index in zip(space.choices.items(), genes, strict=True)
    }

    def counts(name):
        return all(
            counts(controller) and values[controller] in allowed
            for controller, allowed in space.active.get(name, {}).items()
        )

    return {name: value for name, value in values.items() if counts(name)}


@given(spaces_and_genes())
@settings(deadline=None)
def test_decode_keeps_the_genes_that_count(given_):
    space, genes = given_
    assert dict(space.decode(genes)) == expected(space, genes.tolist())


@given(spaces_and_genes())
@settings(deadline=None)
def test_encode_and_decode_are_inverse(given_):
    space, genes = given_
    arch = space.decode(genes)
    assert arch in space
    encoded = space.encode(arch)
    assert encoded.dtype == np.int64
    assert encoded.shape == (space.dimensions,) == space.cardinalities.shape
    assert space.decode(encoded) == arch
    np.testing.assert_array_equal(encoded, space.canonical(genes))
    np.testing.assert_array_equal(space.canonical(encoded), encoded)
    assert space.architecture(arch) == arch


@given(spaces_and_genes(), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_many_are_encoded_as_each_alone(given_, seed):
    space, genes = given_
    rng = np.random.default_rng(seed)
    architectures = [space.decode(genes), *(space.sample(rng) for _ in range(9))]
    many = space.encode_all(architectures)
    assert many.dtype == np.int64
    np.testing.assert_array_equal(many, [space.encode(arch) for arch in architectures])
    assert space.encode_all([]).shape == (0, space.dimensions)
    back = space.decode_all(many)
    assert back == architectures
    assert [list(arch) for arch in back] == [list(arch) for arch in architectures]
    assert space.decode_all([]) == []


@given(spaces_and_genes(), st.data())
@settings(deadline=None)
def test_two_encodings_of_one_architecture_are_equal(given_, data):
    space, genes = given_
    arch = space.decode(genes)
    other = np.array([data.draw(st.integers(0, n - 1)) for n in space.cardinalities.tolist()])
    # Whatever stands in genes that do not count, the architecture is the same.
    other = np.where(space.active_mask(genes), genes, other)
    again = space.decode(other)
    assert again == arch
    assert hash(again) == hash(arch)
    assert again.to_json() == arch.to_json()
    assert again.key == arch.key
    assert len({arch, again}) == 1


@given(spaces())
@settings(max_examples=60, deadline=None)
def test_size_is_the_number_of_architectures(space):
    every = {space.decode(genes) for genes in product(*map(range, space.cardinalities.tolist()))}
    assert space.size == len(every)
    listed = list(space)
    assert len(listed) == space.size
    assert set(listed) == every
    assert len({arch.key for arch in every}) == len(every)


@given(spaces_and_genes())
@settings(deadline=None)
def test_json_and_copies(given_):
    space, genes = given_
    arch = space.decode(genes)
    text = arch.to_json()
    assert Architecture.from_json(text) == arch
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    for other in (pickle.loads(pickle.dumps(arch)), copy.deepcopy(arch), copy.copy(arch)):
        assert other == arch
        assert hash(other) == hash(arch)
    assert space.architecture(json.loads(text)) == arch


@given(spaces(), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_sample_is_in_the_space_and_a_function_of_the_seed(space, seed):
    arch = space.sample(np.random.default_rng(seed))
    assert arch in space
    assert arch == space.sample(np.random.default_rng(seed))


def test_size_of_nested_conditions_by_hand():
    space = SearchSpace(
        {"a": (0, 1), "b": (0, 1, 2), "c": (0, 1), "d": (0, 1, 2, 3, 4)},
        {"b": {"a": (1,)}, "c": {"b": (2,)}, "d": {"a": (1,), "c": (0,)}},
    )
    # a=0; a=1 with b in {0, 1}; a=1, b=2, c=1; a=1, b=2, c=0 with five values of d
    assert space.size == 1 + 2 + 1 + 5
    assert space.smallest == space.architecture({"a": 0})
    assert dict(space.largest) == {"a": 1, "b": 2, "c": 1}


def test_size_of_a_space_that_cannot_be_gone_through():
    space = SearchSpace({f"gene.{index}": tuple(range(10)) for index in range(40)})
    assert space.size == 10**40


def test_a_gene_whose_controllers_never_agree_adds_nothing():
    space = SearchSpace({"a": (0, 1), "b": (0, 1, 2)}, {"b": {"a": ()}})
    assert space.size == 2
    assert all("b" not in arch for arch in space)


def test_sampling_reaches_all_choices():
    space = SearchSpace({"a": (1, 2), "b": (1, 2, 3)}, {"b": {"a": (2,)}})
    rng = np.random.default_rng(0)
    assert {space.sample(rng) for _ in range(200)} == set(space)


def test_choices_of_all_kinds():
    space = SearchSpace({"i": (1, 2), "f": (0.5, 1.5), "s": ("a", "ä"), "b": (False, True)})
    arch = space.largest
    assert dict(arch) == {"i": 2, "f": 1.5, "s": "ä", "b": True}
    assert Architecture.from_json(arch.to_json()) == arch
    assert [type(value) for value in arch.values()] == [bool, float, int, str]


def test_numpy_scalars_are_plain_values():
    space = SearchSpace(
        {"width": np.array([16, 32]), "rate": np.array([0.25, 0.5]), "on": np.array([False, True])},
        {"rate": {"width": np.array([32])}},
    )
    plain = SearchSpace(
        {"width": (16, 32), "rate": (0.25, 0.5), "on": (False, True)}, {"rate": {"width": (32,)}}
    )
    given_ = {"width": np.int64(32), "rate": np.float64(0.5), "on": np.bool_(True)}
    arch = space.architecture(given_)
    assert arch == plain.architecture({"width": 32, "rate": 0.5, "on": True})
    assert hash(arch) == hash(plain.largest)
    assert type(arch["width"]) is int
    assert json.loads(arch.to_json()) == {"width": 32, "rate": 0.5, "on": True}
    assert space.decode([np.int32(0), 0, 0]) == plain.smallest


def test_an_equal_number_of_another_type_is_the_choice_itself():
    space = SearchSpace({"width": (16, 32), "rate": (0.0, 1.0)})
    arch = space.architecture({"width": 32.0, "rate": 1})
    assert arch == space.largest
    assert arch.to_json() == '{"rate":1.0,"width":32}'


def test_genes_that_do_not_count_may_be_given():
    space = SearchSpace({"depth": (1, 2), "ffn.1": (8, 16)}, {"ffn.1": {"depth": (2,)}})
    assert space.architecture({"depth": 1, "ffn.1": 16}) == space.architecture({"depth": 1})


def test_architectures_are_immutable():
    arch = SearchSpace({"a": (1, 2)}).smallest
    with pytest.raises(TypeError):
        arch["a"] = 2
    with pytest.raises(AttributeError):
        arch.other = 2


def test_an_architecture_is_not_a_dict_nor_of_another_type():
    arch = SearchSpace({"a": (1, 2)}).smallest
    assert arch != {"a": 1}
    assert arch != Architecture({"a": 1.0})
    assert arch != Architecture({"a": True})


def test_order_of_names_is_no_part_of_an_architecture():
    assert Architecture({"b": 1, "a": 2}) == Architecture({"a": 2, "b": 1})
    assert Architecture({"b": 1, "a": 2}).to_json() == '{"a":2,"b":1}'


def test_key_is_stable():
    """Other files refer to it; a change would orphan them."""
    assert Architecture({"b": "x", "a": 1}).key == "ecf9e98ec0641e23"


@pytest.mark.parametrize(
    ("choices", "active", "message"),
    [
        ({}, None, "needs at least one gene; it has none"),
        ({"a": ()}, None, "gene 'a' has no choices; give it at least one"),
        ({"a": (1, 2, 1)}, None, r"gene 'a' has equal choices: \(1, 2, 1\); name each once"),
        ({"a": (1, 1.0)}, None, r"gene 'a' has equal choices"),
        ({"a": (1,)}, {"b": {"a": (1,)}}, r"active names 'b', which is no gene of \('a',\)"),
        ({"a": (1,)}, {"a": {"b": (1,)}}, r"active names 'b', which is no gene of \('a',\)"),
        (
            {"a": (1,), "b": (1,)},
            {"a": {"b": (1,)}},
            "gene 'a' must come after 'b', which controls it",
        ),
        ({"a": (1,)}, {"a": {"a": (1,)}}, "gene 'a' must come after 'a'"),
        (
            {"a": (1, 2), "b": (1,)},
            {"b": {"a": (3,)}},
            r"gene 'b' counts when 'a' is 3, which is not one of \(1, 2\)",
        ),
    ],
)
def test_spaces_that_are_refused(choices, active, message):
    with pytest.raises(UserError, match=message):
        SearchSpace(choices, active)


def test_a_minor_gene_is_a_gene():
    assert SearchSpace({"width": (1, 2), "format": (4, 8)}, minor=["format"]).minor == {"format"}
    with pytest.raises(UserError, match=r"minor names 'bits', which is no gene of \('format',\)"):
        SearchSpace({"format": (4, 8)}, minor=["bits"])


SPACE = SearchSpace({"depth": (1, 2), "ffn.1": (8, 16)}, {"ffn.1": {"depth": (2,)}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 3}, r"depth 3 is not one of \(1, 2\)"),
        ({"depth": "2"}, r"depth '2' is not one of \(1, 2\)"),
        ({"depth": None}, r"depth None is not one of \(1, 2\)"),
        ({"depth": [2]}, r"depth \[2\] is not one of \(1, 2\)"),
        ({"depth": math.nan}, r"depth nan is not one of \(1, 2\)"),
        ({"depth": 1, "ffn.1": 7}, r"ffn.1 7 is not one of \(8, 16\)"),
        ({"depth": 2}, r"gene 'ffn.1' is missing; choose one of \(8, 16\)"),
        ({"ffn.1": 8}, r"gene 'depth' is missing; choose one of \(1, 2\)"),
        ({"depht": 1}, r"^'depht' is no gene; the genes are \('depth', 'ffn.1'\)"),
    ],
)
def test_architectures_that_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        SPACE.architecture(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"depth":2}', r'gene .ffn.1. is missing in architecture {"depth":2}'),
        ('{"depth":1,"ffn.1":8}', "gene 'ffn.1' does not count here; leave it out in"),
        ('{"depth":2,"ffn.1":[8]}', r"ffn.1 \[8\] is not one of"),
        ('{"depth":1,"heads":8}', "^'heads' is no gene; the genes are"),
        ("{}", "gene 'depth' is missing"),
    ],
)
def test_architectures_of_another_space_have_no_encoding(text, message):
    arch = Architecture.from_json(text)
    assert arch not in SPACE
    with pytest.raises(UserError, match=message):
        SPACE.encode(arch)
    with pytest.raises(UserError, match=message):
        SPACE.encode_all([SPACE.largest, arch])


def test_other_things_are_not_in_a_space():
    assert {"depth": 1} not in SPACE
    assert None not in SPACE


def test_what_encode_takes_comes_back():
    """Law 2 for whatever is read from a file: an architecture of the space, or none."""
    arch = Architecture.from_json('{"depth":1.0}')
    assert arch not in SPACE
    for call in (SPACE.encode, lambda arch: SPACE.encode_all([SPACE.smallest, arch])):
        with pytest.raises(UserError, match=r"depth 1\.0 is 1 in this space; build"):
            call(arch)
    assert SPACE.architecture(arch) in SPACE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "architecture '{' is not JSON: "),
        ("", "architecture '' is not JSON: "),
        ("[1]", r"architecture '\[1\]' is not a JSON object of genes"),
        ("3", "architecture '3' is not a JSON object of genes"),
        ("x" * 500, "architecture 'x{80}' is not JSON"),
    ],
)
def test_text_that_is_no_architecture(text, message):
    with pytest.raises(UserError, match=message):
        Architecture.from_json(text)


@pytest.mark.parametrize("call", [SPACE.decode, SPACE.canonical])
@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ([0], r"genes have shape \(1,\); the space has 2"),
        ([[0, 0]], r"genes have shape \(1, 2\); the space has 2"),
        ([2, 0], "gene 'depth' has no choice 2; it has 0 to 1"),
        ([0, -1], "gene 'ffn.1' has no choice -1; it has 0 to 1"),
    ],
)
def test_genes_that_are_refused(call, genes, message):
    with pytest.raises(UserError, match=message):
        call(genes)


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        (3, r"genes have shape \(\); the space has 2, a row each"),
        ([0, 0], r"genes have shape \(2,\); the space has 2, a row each"),
        ([[0, 0], [2, 0]], "gene 'depth' has no choice 2; it has 0 to 1"),
        ([[0, -1]], "gene 'ffn.1' has no choice -1; it has 0 to 1"),
    ],
)
def test_rows_that_are_refused(genes, message):
    with pytest.raises(UserError, match=message):
        SPACE.decode_all(genes)


def test_many_independent_switches_are_counted_at_once():
    choices, active = {}, {}
    for index in range(40):
        choices[f"on.{index}"] = (False, True)
        choices[f"width.{index}"] = (1, 2, 3)
        active[f"width.{index}"] = {f"on.{index}": [True]}
    assert SearchSpace(choices, active).size == 4**40


def test_choices_that_are_no_plain_values_are_refused():
    with pytest.raises(UserError, match=r"gene 'k' has the choice \(1, 1\)"):
        SearchSpace({"k": ((1, 1), (3, 3))})
