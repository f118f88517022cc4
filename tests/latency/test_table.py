"""A latency table is the truth of the device, and is measured once."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from latency.artifact import build_artifact
from latency.backend import DeviceLostError, ModelRejectedError
from latency.chains import chain
from latency.database import connect
from latency.overhead import FEW, MANY, references
from latency.store import LatencyStore
from latency.table import LatencyTable, TableRow
from latency.table_measurement import measure_table
from latency.timing import TimingConfig
from search_spaces import Block, DecoderSpace, UserError, VisionTransformerSpace, Workload
from supernet import decoder, vit
from tests.latency.fake_backend import FakeBackend

torch.set_num_threads(1)

VISION = VisionTransformerSpace(
    image_size=6,
    patch_size=3,
    channels=2,
    num_classes=3,
    head_dim=4,
    embed=(8, 12),
    depth=(1, 2),
    heads=(1, 2),
    ffn=(8, 16),
)
TEXT = DecoderSpace(
    vocabulary=11,
    context=16,
    head_dim=4,
    group=2,
    embed=(8, 12),
    depth=(1, 2),
    heads=(2, 4),
    ffn=(8,),
)
TIMING = TimingConfig(
    mode="quick",
    min_sessions=2,
    max_sessions=4,
    rounds=3,
    block_ms=1.0,
    warmup_s=0.0,
    interval_target=10.0,
    drift_limit=0.5,
    cooldown_s=0.0,
    backoff_s=0.0,
)
LOADS = {"prefill": Workload(sequence=8), "decode": Workload(sequence=1, past=7)}


def truth_ms(block, workload):
    """A made-up law: what a block costs on the fake device."""
    tokens = workload.batch * (workload.sequence or 4)
    widths = dict(block.widths)
    embed = widths.pop("embed")
    if block.kind == "fixed":
        return 0.4 + 0.01 * embed
    return 0.001 * embed * sum(widths.values()) * (1 + 0.1 * tokens + 0.01 * workload.past)


class KnownDevice(FakeBackend):
    """A chain takes `copies` times the truth of its block, and what a table leaves out."""

    def __init__(self, space, workloads, **keywords):
        super().__init__({}, **keywords)
        self.truth = {
            (str(block), str(workload)): truth_ms(block, workload)
            for block in space.all_blocks()
            for workload in workloads.values()
        }

    def run_session(self, models, timing):
        for model in models[1:]:
            facts = model.provenance
            cost_ms = self.truth[facts["block"], facts["workload"]]
            ms = 0.3 + facts["copies"] * cost_ms if facts["copies"] else cost_ms
            self.latency_ns[model.sha256] = 1e6 * ms
        return super().run_session(models, timing)


class StubLibrary:
    """Files that differ as their facts do, without the seconds that a real export takes."""

    def assemble(self, network, metadata=None):
        value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
        graph = helper.make_graph([], "stub", [value], [value])
        model = helper.make_model(graph)
        helper.set_model_props(model, dict(metadata or {}))
        return model


@pytest.fixture(autouse=True)
def own_lease(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def store(tmp_path):
    connection = connect(tmp_path / "run.db")
    yield LatencyStore(connection)
    connection.close()


@pytest.fixture
def lab(store, tmp_path):
    """Measures a table, each time as a new process would."""

    def measure(space, workloads, backend, folder="chains", timing=TIMING, progress=None):
        table, _ = measure_table(
            space,
            workloads,
            backend=backend,
            timing=timing,
            store=store,
            library=StubLibrary(),
            folder=tmp_path / folder,
            progress=progress,
        )
        return table

    return measure


@pytest.mark.parametrize(
    ("space", "workloads"),
    [(VISION, {"latency": Workload(), "four": Workload(batch=4)}), (TEXT, LOADS)],
    ids=["vit", "decoder"],
)
def test_rows_are_the_truth(lab, space, workloads):
    table = lab(space, workloads, KnownDevice(space, workloads, noise=1e-6))
    assert [(row.workload, row.block) for row in table.rows] == [
        (name, block) for name in workloads for block in space.all_blocks()
    ]
    for row in table.rows:
        expected = truth_ms(row.block, workloads[row.workload])
        assert row.latency_ms == pytest.approx(expected, rel=1e-3)
        assert row.low_ms <= row.latency_ms <= row.high_ms
        assert (row.status, row.sessions) == ("ok", 2)
        assert table.latency_ms(row.workload, row.block) == row.latency_ms


def test_intervals_hold_the_truth(lab):
    """Noise is drawn per session: 95 % of the intervals of five sessions hold the truth."""
    timing = dataclasses.replace(TIMING, min_sessions=5, max_sessions=8)
    workloads = {"latency": Workload()}
    table = lab(VISION, workloads, KnownDevice(VISION, workloads, noise=0.01), timing=timing)
    held = [
        row.low_ms <= truth_ms(row.block, Workload()) <= row.high_ms
        for row in table.rows
        if row.block.kind != "fixed"  # whose baseline is noisy too
    ]
    assert np.mean(held) >= 0.7
    assert all(row.high_ms > row.low_ms for row in table.rows)


def test_what_is_known_is_not_measured_again(lab):
    workloads = dict(LOADS)
    backend = KnownDevice(TEXT, workloads)
    first = lab(TEXT, workloads, backend)
    sessions = len(backend.sessions)
    assert sessions > 0
    again = KnownDevice(TEXT, workloads)
    assert lab(TEXT, workloads, again).rows == first.rows
    # Chains that were lost are made again, and are the same files.
    assert lab(TEXT, workloads, again, folder="elsewhere").rows == first.rows
    assert again.sessions == []


def test_a_larger_space_asks_only_for_its_new_blocks(lab):
    workloads = {"latency": Workload()}
    small = VisionTransformerSpace(
        **{key: value for key, value in VISION.to_json().items() if key not in ("family", "ffn")},
        ffn=(8,),
    )
    first = lab(small, workloads, KnownDevice(small, workloads))
    backend = KnownDevice(VISION, workloads)
    table = lab(VISION, workloads, backend)
    new = set(VISION.all_blocks()) - set(small.all_blocks())
    assert {row.block for row in table.rows if row not in first.rows} == new
    assert len({sha for models in backend.sessions for sha in models}) == len(new)


def test_interrupted_and_started_again(lab):
    """A session that is stored is not run again, and rows come from all of them."""
    workloads = {"latency": Workload()}

    def interrupt(session, models):
        if session == 2:
            raise KeyboardInterrupt

    backend = KnownDevice(VISION, workloads, mishap=interrupt)
    with pytest.raises(KeyboardInterrupt):
        lab(VISION, workloads, backend)
    again = KnownDevice(VISION, workloads)
    table = lab(VISION, workloads, again)
    alone = 2 * -(-2 * len(VISION.all_blocks()) // 8)
    assert len(again.sessions) <= alone
    timed = [sha for models in backend.sessions[:2] + again.sessions for sha in models]
    assert max(timed.count(sha) for sha in timed) == 2
    for row in table.rows:
        assert row.latency_ms == pytest.approx(truth_ms(row.block, Workload()), rel=0.05)


def test_the_two_chains_of_an_overhead_share_their_sessions(lab):
    workloads = {"latency": Workload()}
    backend = KnownDevice(VISION, workloads)
    chains = {}  # copies by block, and in which sessions each was
    backend.mishap = lambda session, models: [
        chains.setdefault(one.provenance["block"], {})
        .setdefault(one.provenance["copies"], [])
        .append(session)
        for one in models[1:]
    ]
    lab(VISION, workloads, backend)
    smallest = {str(block) for block in references(VISION.all_blocks())}
    assert len(smallest) == 4
    for block, copies in chains.items():
        if block in smallest:
            assert copies[FEW] == copies[MANY]
        else:
            assert list(copies) == [0 if block.startswith("fixed") else MANY]


def test_a_whole_model_shares_the_sessions_of_the_blocks(store, tmp_path):
    workloads = {"latency": Workload()}
    backend = KnownDevice(VISION, workloads)
    block = VISION.all_blocks()[-1]
    backend.truth["whole", str(Workload())] = 3.0
    path = tmp_path / "whole.onnx"
    facts = {"block": "whole", "copies": 0, "workload": str(Workload())}
    onnx.save(StubLibrary().assemble(None, {"name": "whole"}), path)
    x = np.zeros(1, np.float32)
    whole = build_artifact(path, inputs={"x": x}, outputs={"x": x}, provenance=facts)
    table, found = measure_table(
        VISION,
        workloads,
        backend=backend,
        timing=TIMING,
        store=store,
        library=StubLibrary(),
        folder=tmp_path / "chains",
        company={"latency": [whole]},
    )
    assert found["latency"][0].median_ns == pytest.approx(3e6, rel=0.05)
    assert table.latency_ms("latency", block) == pytest.approx(
        truth_ms(block, Workload()), rel=0.05
    )
    with_whole = [models for models in backend.sessions if whole.sha256 in models]
    assert with_whole
    assert all(len(models) > 1 for models in with_whole)


def test_a_block_that_is_refused_is_named(lab):
    workloads = {"latency": Workload()}

    def refuse(session, models):
        refused = [model for model in models if "ffn=16" in str(model.provenance.get("block"))]
        if refused:
            raise ModelRejectedError({refused[0].sha256: "no such operator"})

    with pytest.raises(
        UserError,
        match=r"ffn\(embed=8, ffn=16\) could not be measured: rejected, .*no such operator.*; "
        "run `nas doctor` for this device, then the same command again",
    ):
        lab(VISION, workloads, KnownDevice(VISION, workloads, mishap=refuse))


def test_an_overhead_that_cannot_be_measured_is_told(lab):
    workloads = {"latency": Workload()}

    def refuse(session, models):
        refused = [model for model in models if model.provenance.get("copies") == FEW]
        if refused:
            raise ModelRejectedError({refused[0].sha256: "no such operator"})

    with pytest.raises(UserError, match=r"short chain .* could not be measured: .*no such"):
        lab(VISION, workloads, KnownDevice(VISION, workloads, mishap=refuse))


def test_blocks_of_an_uncertain_overhead_are_unstable(lab):
    workloads = {"latency": Workload()}
    backend = KnownDevice(VISION, workloads)
    short, run_session = iter((1.0, 3.0) * 20), backend.run_session

    def restless(models, timing):
        factor = next(short)
        samples = run_session(models, timing)
        return [
            dataclasses.replace(
                one,
                blocks=tuple(
                    dataclasses.replace(block, low_quartile_ns=factor * block.low_quartile_ns)
                    for block in one.blocks
                ),
            )
            if model.provenance.get("copies") == FEW
            else one
            for model, one in zip(models, samples, strict=True)
        ]

    backend.run_session = restless
    timing = dataclasses.replace(TIMING, interval_target=0.05)
    status = {
        row.block.kind: row.status for row in lab(VISION, workloads, backend, timing=timing).rows
    }
    assert status == {"fixed": "ok", "attention": "unstable", "ffn": "unstable"}


def test_a_device_that_is_gone_is_told(lab):
    workloads = {"latency": Workload()}

    def lose(session, models):
        raise DeviceLostError("unplugged")

    with pytest.raises(UserError, match="could not be measured: lost, unplugged"):
        lab(VISION, workloads, KnownDevice(VISION, workloads, mishap=lose))


def test_one_session_is_not_enough(lab):
    """Nothing is known of its error; and a row without an interval cannot be written as JSON."""
    workloads = {"latency": Workload()}

    def lose(session, models):
        if session >= 3:
            raise DeviceLostError("unplugged")

    with pytest.raises(UserError, match=r"could not be measured: lost, .*; run `nas doctor`"):
        lab(VISION, workloads, KnownDevice(VISION, workloads, mishap=lose))


def test_a_block_that_costs_less_than_nothing_is_unstable(lab):
    workloads = {"latency": Workload()}
    backend = KnownDevice(VISION, workloads, noise=1e-6)
    backend.truth["ffn(embed=8, ffn=8)", "batch=1,past=0"] = -0.01
    for row in lab(VISION, workloads, backend).rows:
        if str(row.block) == "ffn(embed=8, ffn=8)":
            assert (row.status, row.latency_ms, row.low_ms) == ("unstable", 0.0, 0.0)
        else:
            assert row.status == "ok"


def test_a_workload_that_does_not_fit_is_told_before_anything_is_run(lab):
    backend = KnownDevice(VISION, {})
    with pytest.raises(UserError, match="is for a language model"):
        lab(VISION, {"latency": Workload(sequence=3)}, backend)
    assert backend.sessions == []


def test_progress_reaches_the_end(lab):
    told = []
    workloads = {"latency": Workload()}
    lab(
        VISION,
        workloads,
        KnownDevice(VISION, workloads),
        progress=lambda done, total, line: told.append((done, total)),
    )
    chains = len(VISION.all_blocks()) + len(references(VISION.all_blocks()))
    assert told[-1] == (chains, chains)
    assert told == sorted(told)


# The table itself.

FFN = Block(kind="ffn", widths=(("embed", 8), ("ffn", 16)))


def row(block=FFN, workload="latency", latency_ms=1.0):
    return TableRow(
        block=block,
        workload=workload,
        latency_ms=latency_ms,
        low_ms=0.9,
        high_ms=1.1,
        sessions=2,
        status="ok",
    )


def test_two_rows_for_one_block_are_refused():
    LatencyTable([row(), row(workload="decode")])
    with pytest.raises(
        UserError,
        match=r"the latency table has two rows for ffn\(embed=8, ffn=16\); measure again",
    ):
        LatencyTable([row(), row(latency_ms=2.0)])


def test_a_block_that_was_not_measured_is_of_another_space():
    table = LatencyTable([row()])
    for workload, block in (
        ("latency", Block(kind="ffn", widths=(("embed", 8), ("ffn", 8)))),
        ("decode", FFN),
    ):
        with pytest.raises(
            UserError,
            match=r"no row for ffn\(embed=8, ffn=\d+\) with workload '\w+': it is of another "
            "space; run `nas measure` again",
        ):
            table.latency_ms(workload, block)


def test_rows_as_json():
    assert json.loads(json.dumps(row().to_json())) == {
        "workload": "latency",
        "kind": "ffn",
        "widths": {"embed": 8, "ffn": 16},
        "latency_ms": 1.0,
        "low_ms": 0.9,
        "high_ms": 1.1,
        "sessions": 2,
        "status": "ok",
        "mode": None,
        "std_ms": None,
        "energy_mj": None,
        "energy_mj_interval": None,
        "peak_memory_bytes": None,
        "peak_memory_bytes_interval": None,
    }


# Chains.

BLOCKS = {"vit": vit.AttentionBlock, "decoder": decoder.AttentionBlock}
FFNS = {"vit": vit.FfnBlock, "decoder": decoder.FfnBlock}


@pytest.mark.parametrize("space", [VISION, TEXT], ids=["vit", "decoder"])
@pytest.mark.parametrize("copies", [1, 2, 8])
def test_a_chain_is_so_many_copies_of_the_block(space, copies):
    for workload in LOADS.values() if space is TEXT else (Workload(batch=3),):
        for block in space.all_blocks():
            network, feeds = chain(space, block, copies, workload)
            assert [port.name for port in network.inputs] == list(feeds)
            values = network.run(feeds)
            tokens = workload.sequence or VISION.tokens
            weights = sum(p.numel() for part in network.parts for p in part.module.parameters())
            cost = space.block_cost(block, workload)
            if block.kind == "fixed":
                assert [part.name for part in network.parts] == ["stem", "head"]
                assert weights == cost.parameters
                continue
            kind = (BLOCKS if block.kind == "attention" else FFNS)[space.family]
            blocks = [part for part in network.parts if part.name != "positions"]
            assert len(blocks) == copies
            assert all(type(part.module) is kind for part in blocks)
            assert not any(part.module.training for part in blocks)
            assert weights == copies * cost.parameters
            out, *present = (values[port.name] for port in network.outputs)
            assert out.shape == (workload.batch, tokens, block.width("embed"))
            assert sum(tensor.nbytes for tensor in present) == copies * cost.kv_cache_bytes
            # One after the other: each takes what the one before it gave, and changes it.
            assert all(
                a.inputs[0] == b.outputs[0] for a, b in zip(blocks[1:], blocks, strict=False)
            )
            first = values[network.inputs[0].name]
            assert not torch.allclose(out, first)


def test_blocks_of_a_chain_have_weights_of_their_own():
    network, _ = chain(VISION, FFN, 3, Workload())
    weights = [part.module.up.weight for part in network.parts]
    assert not torch.equal(weights[0], weights[1])


def test_a_chain_of_an_unknown_family():
    with pytest.raises(TypeError, match="no chains for int"):
        chain(3, FFN, 2, Workload())
