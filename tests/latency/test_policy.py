"""Policies in the runtime: Law 1 for every scheme, the kernels that really run, bytes on disk."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch

from latency.chains import chain, whole_inputs
from latency.cpu_session import cpu_session
from latency.export import schemes_of
from latency.onnxruntime_session import local_config
from latency.policy import CONTRIB, TOLERANCES, tolerance, write_policy
from search_spaces import Workload
from search_spaces.schemes import FULL, SCHEMES
from supernet.quantization import QuantizedLinear
from tests.latency.test_graphs import random_supernet
from tests.search_spaces.policy_spaces import ALL, policy_space

torch.set_num_threads(1)

# 40 inputs are a group of 32 and one that is filled up
VISION = policy_space("vit", embed=(40,), depth=(1, 2), ffn=(40,))
TEXT = policy_space("decoder", embed=(40,), depth=(1, 2), heads=(2, 4), ffn=(40,))
KERNELS = {
    "fp32": "MatMul",
    "fp16": "MatMul",
    "bf16": "MatMul",
    "w8": "MatMul",
    "w8a8": "MatMulIntegerToFloat",
    "w4_nbits": "MatMulNBits",
}
FAMILIES = {
    "vit": (VISION, Workload(batch=3)),
    "prefill": (TEXT, Workload(batch=2, sequence=9)),
    "decode": (TEXT, Workload(batch=2, sequence=1, past=7)),
}


@pytest.fixture(scope="module")
def supernets():
    torch.manual_seed(1)
    vit, text = random_supernet(VISION), random_supernet(TEXT)
    vit.calibrate([torch.randn(16, 1, 8, 8)])
    text.calibrate([torch.randint(32, (8, 16))])
    return {"vit": vit, "prefill": text, "decode": text}


def run(model, feeds, folder):
    """Outputs by name, and the optimized graph."""
    session = cpu_session(model.SerializeToString(), 1, optimized=folder / "optimized.onnx")
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {name: tensor.numpy() for name, tensor in feeds.items()})
    optimized = onnx.load(folder / "optimized.onnx")
    return dict(zip(names, values, strict=True)), optimized


def assert_close(found, network, feeds):
    expected = network.run(feeds)
    allowed = max(1e-5, tolerance(schemes_of(network)))
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=allowed, atol=allowed)


@pytest.mark.slow
@pytest.mark.parametrize("case", FAMILIES)
def test_the_runtime_gives_what_the_simulation_gives(case, supernets, library, tmp_path):
    """Law 1 for each scheme everywhere, and for random policies."""
    (space, load), model = FAMILIES[case], supernets[case]
    rng = np.random.default_rng(0)
    uniform = [space.with_scheme(space.largest, name) for name in ALL]
    for arch in [*uniform, *(space.sample(rng) for _ in range(8))]:
        network = model.extract(arch).network()
        feeds = whole_inputs(network, load)
        found, _ = run(library.assemble(network), feeds, tmp_path)
        assert_close(found, network, feeds)


def test_sums_of_integers_are_exact_on_every_processor():
    """The largest sums: without VNNI a kernel of x86 processors clips them at 16 bits."""
    weight = np.full((64, 16), 127, np.int8)
    weight[:, ::2] = -127
    values = {"w": weight, "s": np.float32(1), "ws": np.ones(16, np.float32), "z": np.uint8(0)}
    node = onnx.helper.make_node(
        "MatMulIntegerToFloat", ["x", "w", "s", "ws", "z"], ["y"], domain=CONTRIB
    )
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "product",
        [value("x", onnx.TensorProto.UINT8, ["rows", 64])],
        [value("y", onnx.TensorProto.FLOAT, ["rows", 16])],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in values.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 23), onnx.helper.make_opsetid(CONTRIB, 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    x = np.full((4, 64), 255, np.uint8)
    (sums,) = cpu_session(model.SerializeToString(), threads=1).run(["y"], {"x": x})
    np.testing.assert_array_equal(sums, x.astype(np.int64) @ weight.astype(np.int64))


@pytest.mark.parametrize(
    ("processor", "slower"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx2", True),
        ("flags\t\t: fpu avx2 avx512_vnni", False),
        ("flags\t\t: fpu avx2 avx_vnni", False),
        ("", True),
    ],
)
def test_only_a_processor_without_vnni_pays_for_exact_sums(processor, slower, monkeypatch):
    monkeypatch.setattr("latency.host_facts.cpuinfo", lambda: processor)
    assert ("session.x64quantprecision" in local_config(spinning=False)) == slower


@pytest.mark.slow
def test_layers_of_one_number(library, tmp_path):
    """Nothing tells whether a 1 x 1 weight of an exported part is transposed."""
    torch.manual_seed(1)
    space = policy_space("decoder", embed=(1,), depth=(1,), heads=(2,), ffn=(1,))
    model = random_supernet(space)
    model.calibrate([torch.randint(32, (8, 16))])
    products = {}
    for name in ALL:
        network = model.extract(space.with_scheme(space.largest, name)).network()
        feeds = whole_inputs(network, Workload(batch=2, sequence=9))
        found, optimized = run(library.assemble(network), feeds, tmp_path)
        assert_close(found, network, feeds)
        assert np.abs(found["logits"]).max() > 0.01
        products[name] = sum(node.op_type == "MatMul" for node in optimized.graph.node)
    for name in ALL:
        linears = 0 if SCHEMES[name].runs_as == FULL else 5
        assert products[name] == products[FULL] - linears


@pytest.mark.slow
@pytest.mark.parametrize("case", FAMILIES)
def test_each_scheme_runs_in_the_kernels_it_is_there_for(case, supernets, library, tmp_path):
    (space, load), model = FAMILIES[case], supernets[case]
    plain = model.extract(space.largest).network()
    _, full = run(library.assemble(plain), whole_inputs(plain, load), tmp_path)
    usual = Counter(node.op_type for node in full.graph.node)
    linears = 4 * 2 if case == "vit" else 5 * 2
    for name in ALL:
        network = model.extract(space.with_scheme(space.largest, name)).network()
        _, optimized = run(library.assemble(network), whole_inputs(network, load), tmp_path)
        kinds = Counter(node.op_type for node in optimized.graph.node)
        if SCHEMES[name].runs_as == FULL:
            assert kinds == usual  # nothing is left of the format but the file
            continue
        assert kinds["MatMul"] == usual["MatMul"] - linears
        assert not kinds["DequantizeLinear"]
        assert not kinds["MatMulInteger"]
        if name == "w8a8_dynamic":
            # Two products of one input share its integers
            shared = 0 if case == "vit" else 4
            assert kinds["DynamicQuantizeMatMul"] == linears - shared
            assert kinds["MatMulIntegerToFloat"] == shared
        else:
            assert kinds[KERNELS[name]] == linears
        if name == "w8a8":
            assert kinds["QuantizeLinear"] == 4 * 2
            # Biases are added by the kernel
            assert kinds["Add"] <= usual["Add"]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["vit", "prefill"])
def test_bytes_are_those_of_the_file(case, supernets, library):
    """Law 3: weights, scales and ranges of the exported file."""
    space, model = FAMILIES[case][0], supernets[case]
    rng = np.random.default_rng(1)
    full = library.assemble(model.extract(space.largest).network())
    other = _bytes(full) - space.cost(space.largest).size_bytes
    assert other == 0
    for arch in (space.with_scheme(space.largest, name) for name in ALL):
        assert _bytes(library.assemble(model.extract(arch).network())) == pytest.approx(
            space.cost(arch).size_bytes, abs=SHARED_RANGE * len(space.subnet(arch).layers)
        )
    for _ in range(6):
        arch = space.sample(rng)
        found = _bytes(library.assemble(model.extract(arch).network()))
        gap = space.cost(arch).size_bytes - found
        assert 0 <= gap <= SHARED_RANGE * len(space.subnet(arch).layers)


SHARED_RANGE = 5
"""Gate and values of a SwiGLU have one input, whose range is counted for each."""


def _bytes(model):
    # Two integers of 4 bits are one byte in the file, and two in numpy
    return sum(
        len(one.raw_data) or onnx.numpy_helper.to_array(one).nbytes
        for one in model.graph.initializer
    )


@pytest.mark.slow
def test_nothing_is_exported_for_a_policy(supernets, library, monkeypatch):
    library.assemble(supernets["vit"].extract(VISION.largest).network())
    monkeypatch.setattr("latency.graphs.export_part", None)
    for name in ALL:
        arch = VISION.with_scheme(VISION.largest, name)
        library.assemble(supernets["vit"].extract(arch).network())


@pytest.mark.slow
@pytest.mark.parametrize("space", [VISION, TEXT], ids=["vit", "decoder"])
@pytest.mark.parametrize("kind", ["attention", "ffn"])
def test_chains_of_a_table_have_the_schemes_of_their_block(space, kind, library, tmp_path):
    load = Workload() if space is VISION else Workload(sequence=5)
    blocks = [block for block in space.timed_blocks() if block.kind == kind and block.precision]
    for block in blocks[::7]:
        torch.manual_seed(0)
        network, feeds = chain(space, block, 2, load)
        found, optimized = run(library.assemble(network), feeds, tmp_path)
        assert_close(found, network, feeds)
        kinds = Counter(node.op_type for node in optimized.graph.node)
        assert schemes_of(network) == {name for _, name in block.precision}
        for name in {"w8a8", "w4_nbits"} & schemes_of(network):
            assert kinds[KERNELS[name]]


def test_a_weight_that_is_no_factor_is_told():
    layer = QuantizedLinear(torch.nn.Linear(4, 4), SCHEMES["w8a8_dynamic"])
    node = onnx.helper.make_node("Add", ["x", "weight"], ["y"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))
    with pytest.raises(RuntimeError, match="weight is a factor of Add, not of a MatMul"):
        write_policy(model, {"weight": layer})
    with pytest.raises(RuntimeError, match="no node of the graph has the weights"):
        write_policy(model, {"other": layer})


def test_what_is_exact_is_allowed_nothing_more():
    assert tolerance([]) == tolerance(["w8", "fp16", "w4"]) == 0
    assert tolerance(["w8", "w8a8"]) == TOLERANCES["w8a8"]
