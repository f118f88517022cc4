"""What the benchmark of policies computes with: chosen points, twins, tables."""

import math

import numpy as np

from benchmarks.policy_judgement import SAME, Twin, hypervolumes, most_volume
from benchmarks.policy_search import equality_table, twin_lines, volume_table
from search_spaces import Architecture

FRONT = np.array([[0.0, 1.0], [0.1, 0.2], [0.2, 0.19], [1.0, 0.0]])


def test_the_points_of_the_most_volume_are_taken_one_after_the_other():
    fronts = {"a": [FRONT], "b": [FRONT[::-1], FRONT[1:]]}
    chosen = most_volume(fronts, 2)
    # One near the ideal spans nearly all; after it, the other that is nearest to it
    assert chosen == {"a": [[1, 2]], "b": [[2, 1], [0, 1]]}
    assert most_volume(fronts, 9)["b"][1] == [0, 1, 2]
    found = hypervolumes({"a": [FRONT], "b": [FRONT[:2]]})
    assert found["a"][0] > found["b"][0] > 0.7


def twin(**changes):
    fields = {
        "workload": "latency",
        "architecture": Architecture({"embed": 8}),
        "ratio": 1.0,
        "half_width": 0.02,
        "size_bytes": 10,
        "file_bytes": 20,
        "twin_size_bytes": 40,
        "twin_file_bytes": 60,
        "same_graph": False,
    }
    return Twin(**(fields | changes))


def test_slower_is_what_is_slower_beyond_doubt():
    assert not twin(ratio=math.exp(0.019)).slower
    assert twin(ratio=math.exp(0.021)).slower
    assert not twin(ratio=1 + 0.9 * SAME, half_width=0.0).slower
    assert twin(ratio=1 + 1.1 * SAME, half_width=0.0).slower
    assert not twin(ratio=2.0, same_graph=True).slower  # noise: both run the same
    assert not twin().larger
    assert twin(file_bytes=60).larger
    assert not twin(size_bytes=40, file_bytes=60).larger  # claims nothing


def told(one):
    names = ("workload", "ratio", "half_width", "slower", "larger", "same_graph", "again")
    bytes_of = ("file_bytes", "twin_file_bytes")
    return {name: getattr(one, name) for name in (*names, *bytes_of)}


def test_twins_are_told_with_the_noise_beside():
    some = [twin(ratio=0.9), twin(ratio=1.2, again=True), twin(ratio=1.003, same_graph=True)]
    lines = twin_lines([told(one) for one in some]).splitlines()
    assert "2 policies of joint with 8-bit products take 1.050" in lines[0]
    assert "at most 1.200" in lines[0]
    assert lines[0].endswith("1 are slower beyond that and 1%, 1 of all were measured again")
    assert "1 policies of joint with 8-bit weights alone take 1.003" in lines[1]
    assert lines[1].endswith("the graph is the same: noise")
    assert lines[2].startswith("their files have 0.33 to 0.33 of the bytes; 0 that claim")


def test_tables_tell_each_seed():
    front = [{"values": [[0.0, 1.0]]}, {"values": [[0.0, 1.0], [1.0, 0.0]]}]
    found = {
        "hypervolume": {"fp32": [0.1, 0.3], "joint": [0.2, 0.2]},
        "joint_leads": {"fp32": 1},
        "fronts": {"fp32": front, "joint": front},
        "columns": ["loss", "latency_ms"],
        "largest": {"int8": {"loss": 0.5, "latency_ms": 3.0}},
        "equal_quality": [{"latency_ms": {"loss": 0.4, "latency_ms": 2.0}}, {}],
    }
    lines = volume_table(found).splitlines()
    assert lines[1].split() == ["fp32", "0.2000", "0.1000", "0.3000", "1", "of", "2", "1.5"]
    assert lines[2].split()[:2] == ["joint", "0.2000"]
    lines = equality_table(found).splitlines()
    assert lines[0].startswith("against int8 (loss 0.5000)")
    assert lines[1].split() == ["seed", "0", "1.50", "0.4000"]
    assert lines[2].split() == ["seed", "1", "-", "-"]
    assert lines[3].split() == ["median", "1.50"]
