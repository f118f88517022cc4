"""Networks put together from exported parts: Law 1 in the runtime, and nothing exported twice."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import latency.graphs
from latency.chains import chain
from latency.cpu_session import cpu_session
from latency.graphs import DOMAIN, GraphLibrary, export_part, module_key
from search_spaces import (
    Block,
    DecoderSpace,
    VisionTransformerSpace,
    Workload,
    space_from_json,
)
from supernet import decoder, vit
from supernet.families import build_supernet
from supernet.onnx_attention import in_onnx_form
from supernet.parts import Network, Part, Port, example_inputs
from tests.latency.networks import TEXT

torch.set_num_threads(1)

VISION = VisionTransformerSpace(
    image_size=6,
    patch_size=3,
    channels=2,
    num_classes=3,
    head_dim=4,
    embed=(8,),
    depth=(1, 2),
    heads=(1, 2),
    ffn=(8,),
)
FORMS = pytest.mark.parametrize("onnx_attention", [True, False])


def random_supernet(space, seed=0):
    torch.manual_seed(seed)
    model = build_supernet(space).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn_like(parameter))
    return model


def mixed(space):
    """Two layers that differ, and one layer alone."""
    few, many = space.choices["heads.0"]
    deep = space.architecture({**space.largest, "heads.0": few, "heads.1": many})
    return [deep, space.smallest, space.largest]


def session(model):
    return cpu_session(model.SerializeToString(), threads=1)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Parts that the tests of this file share; each takes seconds to export."""
    return GraphLibrary(tmp_path_factory.mktemp("parts"))


@pytest.fixture
def exports(monkeypatch):
    """Names of the parts that were exported."""
    names = []

    def counted(part, examples):
        names.append(part.name)
        return export_part(part, examples)

    monkeypatch.setattr(latency.graphs, "export_part", counted)
    return names


@pytest.mark.slow
@FORMS
def test_a_vision_transformer_in_the_runtime_is_the_subnet(library, onnx_attention):
    model = random_supernet(VISION)
    for arch in mixed(VISION):
        run = session(
            library.assemble(model.extract(arch).network(), onnx_attention=onnx_attention)
        )
        for batch in (1, 2, 7):
            images = torch.randn(batch, 2, 6, 6)
            with torch.no_grad():
                expected = model(images, arch)
            (found,) = run.run(None, {"images": images.numpy()})
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@FORMS
@pytest.mark.parametrize(
    ("batch", "sequence", "past"),
    [(1, 16, 0), (2, 5, 0), (3, 1, 0), (1, 1, 9), (2, 1, 15), (3, 4, 6)],
)
def test_a_decoder_in_the_runtime_is_the_subnet(library, batch, sequence, past, onnx_attention):
    model = random_supernet(TEXT)
    for arch in mixed(TEXT):
        network = model.extract(arch).network()
        run = session(library.assemble(network, onnx_attention=onnx_attention))
        tokens = torch.randint(11, (batch, sequence))
        cache = [
            torch.randn(batch, layer.kv_heads, past, 4)
            for layer in TEXT.subnet(arch).layers
            for _ in range(2)
        ]
        with torch.no_grad():
            expected = model.decode(tokens, arch, cache)
        feeds = dict(zip([port.name for port in network.inputs], [tokens, *cache], strict=True))
        found = run.run(
            [port.name for port in network.outputs],
            {name: tensor.numpy() for name, tensor in feeds.items()},
        )
        assert len(found) == len(expected) == 1 + 2 * arch["depth"]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("space", [VISION, TEXT], ids=["vit", "decoder"])
def test_nothing_moves_data_about_between_a_projection_and_attention(library, space):
    model = library.assemble(random_supernet(space).extract(space.largest).network())
    makers = {name: node for node in model.graph.node for name in node.output}
    found = [node for node in model.graph.node if node.op_type == "Attention"]
    assert len(found) == space.largest["depth"]
    for node in found:
        between = [makers[name] for name in node.input[:3]]
        between = [
            makers[one.input[0]] if one.op_type == "RotaryEmbedding" else one for one in between
        ]
        assert [one.op_type for one in between] == ["Split"] * 3
        assert makers[between[0].input[0]].op_type in ("Add", "MatMul")


@pytest.mark.slow
def test_decoding_in_the_runtime_token_by_token(library):
    model, arch = random_supernet(TEXT), mixed(TEXT)[0]
    network = model.extract(arch).network()
    run = session(library.assemble(network))
    tokens = torch.randint(11, (2, 16))
    with torch.no_grad():
        expected = model(tokens, arch).numpy()
    cache = {
        port.name: np.zeros((2, port.shape[1], 0, 4), np.float32) for port in network.inputs[1:]
    }
    for place in range(16):
        logits, *present = run.run(None, {"tokens": tokens[:, [place]].numpy(), **cache})
        np.testing.assert_allclose(logits[:, 0], expected[:, place], rtol=1e-5, atol=1e-5)
        cache = dict(zip(cache, present, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("space", [VISION, TEXT], ids=["vit", "decoder"])
def test_parts_are_exported_once_and_models_are_the_same_byte_for_byte(
    library, exports, space, tmp_path
):
    model = random_supernet(space)
    architectures = mixed(space)
    first = [library.assemble(model.extract(arch).network()) for arch in architectures]
    known = {path: path.read_bytes() for path in library.folder.iterdir()}
    assert not [path for path in known if path.suffix != ".part"]
    exports.clear()
    for again in (library, GraphLibrary(library.folder)):
        for arch, before in zip(architectures, first, strict=True):
            found = again.assemble(model.extract(arch).network())
            assert found.SerializeToString() == before.SerializeToString()
    assert exports == []
    assert {path: path.read_bytes() for path in library.folder.iterdir()} == known


@pytest.mark.slow
@pytest.mark.parametrize("space", [VISION, TEXT], ids=["vit", "decoder"])
def test_other_weights_are_other_numbers_in_the_same_graph(library, exports, space):
    arch = mixed(space)[0]
    library.assemble(random_supernet(space).extract(arch).network())
    exports.clear()
    model = random_supernet(space, seed=1)
    with torch.no_grad():
        # Equal weights everywhere must not be taken for one another.
        model.ffn[0].up.weight.copy_(model.ffn[1].up.weight)
        model.attention[0].out.weight.zero_()
        model.attention[1].out.weight.zero_()
    network = model.extract(arch).network()
    run = session(library.assemble(network))
    assert exports == []
    if space is VISION:
        x = torch.randn(2, 2, 6, 6)
        feeds = {"images": x.numpy()}
    else:
        x = torch.randint(11, (2, 5))
        feeds = {
            port.name: np.zeros((2, port.shape[1], 0, 4), np.float32) for port in network.inputs[1:]
        }
        feeds["tokens"] = x.numpy()
    with torch.no_grad():
        expected = model(x, arch).numpy()
    np.testing.assert_allclose(run.run(None, feeds)[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("space", [VISION, TEXT], ids=["vit", "decoder"])
def test_what_ships_is_plain_onnx(library, space):
    arch = mixed(space)[0]
    network = random_supernet(space).extract(arch).network()
    model = library.assemble(network, {"architecture": arch.to_json(), "name": "ä"})
    assert not model.functions
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 23)]
    assert {node.domain for node in model.graph.node} == {""}
    assert DOMAIN.encode() not in model.SerializeToString()
    props = {prop.key: prop.value for prop in model.metadata_props}
    assert props == {"architecture": arch.to_json(), "name": "ä"}
    assert [value.name for value in model.graph.input] == [port.name for port in network.inputs]
    assert [value.name for value in model.graph.output] == [port.name for port in network.outputs]
    weights = sum(
        int(np.prod(initializer.dims))
        for initializer in model.graph.initializer
        if initializer.name.split(".")[0] in ("stem", "head", "attention", "ffn")
    )
    assert (
        weights == VISION.cost(arch).parameters if space is VISION else TEXT.cost(arch).parameters
    )
    for value, port in zip(model.graph.input, network.inputs, strict=True):
        dims = value.type.tensor_type.shape.dim
        assert tuple(dim.dim_param or dim.dim_value for dim in dims) == port.shape


@pytest.mark.slow
def test_chains_of_a_decoder_run_and_share_their_parts(library, exports):
    block = Block(kind="attention", widths=(("embed", 8), ("heads", 4), ("kv_heads", 2)))
    library.assemble(random_supernet(TEXT).extract(TEXT.largest).network())
    exports.clear()
    for workload in (Workload(sequence=7), Workload(batch=2, sequence=1, past=8)):
        for copies in (2, 8):
            network, feeds = chain(TEXT, block, copies, workload)
            run = session(library.assemble(network))
            values = network.run(feeds)
            names = [port.name for port in network.outputs]
            found = run.run(names, {name: value.numpy() for name, value in feeds.items()})
            for name, array in zip(names, found, strict=True):
                np.testing.assert_allclose(array, values[name].numpy(), rtol=1e-4, atol=1e-5)
    # The attention itself is the subnet's; only the positions without a stem are new.
    assert exports == ["positions"]


class Forgetful(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(3, 3)
        self.unused = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return self.used(x)


def small_network(module):
    port = {"shape": ("batch", 3)}
    return Network(
        parts=(Part(name="part", module=module, inputs=("x",), outputs=("y",)),),
        inputs=(Port(name="x", **port),),
        outputs=(Port(name="y", **port),),
    )


@pytest.mark.slow
def test_a_weight_that_the_graph_lacks_is_told(tmp_path):
    library = GraphLibrary(tmp_path / "parts")
    with pytest.raises(RuntimeError, match=r"part part: the exported graph lacks \['unused'\]"):
        library.assemble(small_network(Forgetful()))
    assert not (tmp_path / "parts").exists()


def test_parts_serve_later_runs_and_hold_no_weights(tmp_path, exports, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = GraphLibrary().assemble(small_network(nn.Linear(3, 3)))
    (kept,) = (tmp_path / "elastic-nas" / "parts").iterdir()
    model = onnx.ModelProto.FromString(kept.read_bytes()[32:])
    assert not any(weight.raw_data for weight in model.graph.initializer)
    other = nn.Linear(3, 3)
    found = GraphLibrary().assemble(small_network(other))
    assert exports == ["part"]
    assert found != first
    (y,) = session(found).run(None, {"x": np.eye(2, 3, dtype=np.float32)})
    np.testing.assert_allclose(y, other(torch.eye(2, 3)).detach(), rtol=1e-6)


def test_a_damaged_part_is_exported_again(tmp_path, exports):
    before = GraphLibrary(tmp_path).assemble(small_network(nn.Linear(3, 3)))
    (kept,) = tmp_path.iterdir()
    data = bytearray(kept.read_bytes())
    for damaged in (data[:-1], data[:40] + bytes([data[40] ^ 1]) + data[41:], b""):
        kept.write_bytes(damaged)
        found = GraphLibrary(tmp_path).assemble(small_network(nn.Linear(3, 3)))
        assert [node.op_type for node in found.graph.node] == [n.op_type for n in before.graph.node]
        assert kept.read_bytes() == data
    assert len(exports) == 4


@pytest.mark.slow
@FORMS
def test_images_of_two_sizes_share_a_folder(tmp_path, onnx_attention):
    """Their blocks have the same widths and other numbers of tokens."""
    for size in (6, 8):
        space = VisionTransformerSpace(
            embed=[8], depth=[1], heads=[2], ffn=[8], head_dim=4, patch_size=2, image_size=size,
            channels=2, num_classes=3,
        )  # fmt: skip
        model = random_supernet(space)
        library = GraphLibrary(tmp_path)
        network = model.extract(space.largest).network()
        run = session(library.assemble(network, onnx_attention=onnx_attention))
        images = torch.randn(2, 2, size, size)
        with torch.no_grad():
            expected = model(images, space.largest)
        (found,) = run.run(None, {"images": images.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cache", ["relative", ""])
def test_the_cache_of_a_user_without_a_home(cache, tmp_path, exports, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setattr(Path, "home", homeless)
    GraphLibrary().assemble(small_network(nn.Linear(3, 3)))
    assert exports == ["part"]
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, exports):
    (tmp_path / "file").write_text("")
    for _ in range(2):
        GraphLibrary(tmp_path / "file").assemble(small_network(nn.Linear(3, 3)))
    assert exports == ["part", "part"]


def test_weights_are_as_before_when_the_exporter_fails(tmp_path, monkeypatch):
    """The exporter sees random numbers in place of the weights; nobody else may."""
    module = nn.Linear(3, 3)
    before = copy.deepcopy(module.state_dict())
    seen = []

    def fails(program, *arguments, **keywords):
        seen.append(copy.deepcopy(program.module.state_dict()))
        raise ValueError("no")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(ValueError, match="no"):
        GraphLibrary(tmp_path).assemble(small_network(module))
    assert not torch.equal(seen[0]["weight"], before["weight"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert list(tmp_path.iterdir()) == []


# What names a part.


def attention(**changes):
    widths = {"embed": 8, "heads": 2, "head_dim": 4, **changes}
    return vit.AttentionBlock(**widths)


def stem(**changes):
    return vit.Stem(
        **{"channels": 1, "patch_size": 2, "tokens": 5, "pooling": "cls", "embed": 8, **changes}
    )


def text_attention(**changes):
    widths = {"embed": 8, "kv_heads": 2, "group": 2, "head_dim": 4, **changes}
    return decoder.AttentionBlock(**widths)


def text_stem(**changes):
    fields = {"vocabulary": 11, "context": 16, "head_dim": 4, "group": 2, **changes}
    space = DecoderSpace(embed=(8,), depth=(1,), heads=(4,), ffn=(8,), **fields)
    return decoder.Stem(space, embed=8)


def with_eps(module):
    module.norm.eps = 1e-3
    return module


DIFFERENT = [
    attention(),
    attention(embed=12),
    attention(heads=4),
    attention(heads=1, head_dim=8),  # the same parameters as two heads of 4
    with_eps(attention()),
    vit.FfnBlock(embed=8, ffn=8),
    vit.FfnBlock(embed=8, ffn=16),
    decoder.FfnBlock(embed=8, ffn=8),
    vit.Head(pooling="cls", num_classes=3, embed=8),
    vit.Head(pooling="mean", num_classes=3, embed=8),
    vit.Head(pooling="mean", num_classes=4, embed=8),
    stem(),
    stem(pooling="mean"),
    stem(tokens=6),
    stem(channels=4, patch_size=1),
    text_attention(),
    text_attention(kv_heads=1, group=6),  # the same parameters
    text_attention(kv_heads=1, head_dim=8),
    with_eps(text_attention()),
    text_stem(),
    text_stem(context=12),
    text_stem(head_dim=8),
    in_onnx_form(attention()),
    in_onnx_form(attention(heads=1, head_dim=8)),
    in_onnx_form(text_attention()),
    in_onnx_form(text_attention(kv_heads=1, group=6)),
]


def test_parts_that_compute_something_else_have_other_keys():
    keys = [module_key(module) for module in DIFFERENT]
    assert len(set(keys)) == len(DIFFERENT)
    assert all(len(key) == 20 and int(key, 16) for key in keys)


def test_the_key_is_not_of_the_weights_nor_of_the_mode():
    module = attention()
    key = module_key(module)
    assert module_key(attention()) == key
    assert module_key(module.eval()) == key
    with torch.no_grad():
        module.qkv.weight.zero_()
    assert module_key(module) == key
    assert module_key(copy.deepcopy(module)) == key


def test_the_key_is_of_the_versions_that_write_the_graph(monkeypatch):
    key = module_key(attention())
    for module, name in ((torch, "__version__"), (onnx, "__version__")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, "0.0.1")
            assert module_key(attention()) != key
    monkeypatch.setattr(latency.graphs, "OPSET", 22)
    assert module_key(attention()) != key


# Spaces with constants of their own: large ones, so that what has not heard of them shows.
CONSTANTS = {
    "vit": (VISION, {"norm_epsilon": 2.0}),
    "decoder": (TEXT, {"norm_epsilon": 2.0, "rotary_base": 7.0}),
}


def feeds_of(network):
    sizes = {"batch": 2, "sequence": 5, "past": 3, "total": 8}
    return example_inputs(network.inputs, sizes)


@pytest.mark.slow
@FORMS
@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_of_a_space_are_in_the_runtime(library, name, onnx_attention):
    usual, constants = CONSTANTS[name]
    space = space_from_json(usual.to_json() | constants)
    network = random_supernet(space).extract(space.largest).network()
    feeds = feeds_of(network)
    run = session(library.assemble(network, onnx_attention=onnx_attention))
    (found,) = run.run(["logits"], {key: value.numpy() for key, value in feeds.items()})
    expected = network.run(feeds)["logits"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    # The same weights give something else with the usual constants.
    other = random_supernet(usual).extract(usual.largest).network()
    assert not np.allclose(other.run(feeds)["logits"].numpy(), expected, atol=1e-2)


@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize("kind", ["fixed", "attention", "ffn"])
def test_constants_of_a_space_are_in_its_chains(name, kind):
    usual, constants = CONSTANTS[name]
    space = space_from_json(usual.to_json() | constants)
    block = next(block for block in space.all_blocks() if block.kind == kind)
    network, _ = chain(space, block, 2, space.default_workload)
    modules = torch.nn.ModuleList(part.module for part in network.parts)
    norms = [part for part in modules.modules() if hasattr(part, "eps")]
    assert norms
    assert {norm.eps for norm in norms} == {2.0}
    for rotary in (part for part in modules.modules() if isinstance(part, decoder.Rotary)):
        expected = decoder.Rotary(context=space.context, head_dim=space.head_dim, base=7.0)
        assert torch.equal(rotary.sin, expected.sin)
