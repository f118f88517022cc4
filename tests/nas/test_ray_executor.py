"""Workers of Ray: the same bits, whatever dies. Real clusters on this host.

`benchmarks/cluster.py` says when they pay.
"""

import gc
import os
import re
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from latency.database import connect
from nas.executors.package import evaluate
from nas.executors.ray_cluster import RayCluster, require_ray
from nas.executors.ray_executor import RayExecutor
from nas.store import EvaluationStore
from search_spaces import UserError
from tests.nas.executor_contract import ExecutorContract
from tests.nas.executor_subject import DEADLY_SHARE, DeadlyImages, HangingImages, vision

pytestmark = [
    pytest.mark.slow,
    # Ray leaves it to the garbage to close its sockets and logs.
    pytest.mark.filterwarnings("ignore:subprocess \\d+ is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _garbage():
    """Ray's garbage is collected here, and not in the tests of others."""
    yield
    gc.collect()


def new_executor(subject, address, told, **changes):
    settings = {"workers": None, "cpus": None, "timeout_s": 60.0, "local_cpus": 2, "most": 2}
    return RayExecutor(
        address,
        subject.package,
        subject.introduction,
        told=lambda event, fields: told.append((event, dict(fields))),
        **{**settings, **changes},
    )


@pytest.fixture
def store(tmp_path):
    connection = connect(tmp_path / "run.db")
    yield EvaluationStore(connection)
    connection.close()


@pytest.fixture(scope="class")
def local():
    """Two workers of a cluster that was started here, their supernet, and what was told of them."""
    told = []
    subject = vision(diverged=True, task=DeadlyImages())
    executor = new_executor(subject, "local", told)
    yield executor, subject, told
    executor.close()
    executor.close()


class TestRay(ExecutorContract):
    workers = 2

    @pytest.fixture
    def executor(self, local):
        return local[0]

    @pytest.fixture
    def subject(self, local):
        return local[1]

    def test_it_listens_on_the_loopback_alone(self, executor, subject):
        list(executor.evaluate([subject.model.space.smallest], "validation"))
        import ray

        addresses = listening(node_processes())
        assert len(addresses) >= 4
        assert {address.rpartition(":")[0] for address in addresses} <= {
            "127.0.0.1",
            "[::ffff:127.0.0.1]",
        }
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
        assert ray.get_runtime_context().get_job_id()

    def test_a_subnet_that_costs_every_worker_its_life(self, executor, subject, local, capfd):
        told = local[2]
        told.clear()
        arch = subject.some(1, seed=5)[0]
        with pytest.raises(UserError) as error:
            list(executor.evaluate([arch], "validation", DEADLY_SHARE))
        assert str(error.value).startswith(
            f"architecture {arch.to_json()} was given to 3 workers, and all were lost, the last on "
        )
        assert str(error.value).endswith("or leave cluster out")
        lost = [fields for event, fields in told if event == "worker_lost"]
        assert [fields["attempt"] for fields in lost] == [1, 2, 3]
        assert {tuple(fields["architecture"].items()) for fields in lost} == {tuple(arch.items())}
        # And there are workers for the next one
        ((_, found),) = executor.evaluate([arch], "validation")
        assert capfd.readouterr() == ("", "")
        assert found == evaluate(subject.model, subject.task, arch, "validation")


def test_sockets_lie_where_nobody_else_may_write(monkeypatch):
    """Who could would put sockets of their own in their place; and their paths may not be long."""
    usual = Path(tempfile.mkdtemp(prefix="a-folder-for-temporary-", dir="/tmp"))
    monkeypatch.setattr("tempfile.tempdir", str(usual))
    try:
        cluster = RayCluster("local", cpus=1, store_bytes=0)
        try:
            folder = cluster._folder
            sockets = [path for path in folder.rglob("*") if path.is_socket()]
            assert len(sockets) >= 2
            assert folder.stat().st_mode & 0o777 == 0o700
            assert folder.parent == Path("/tmp")
        finally:
            cluster.close()
        assert not folder.exists()
    finally:
        usual.rmdir()


def node_processes():
    """Process ids of our cluster: the children of this process that are Ray's, and theirs."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    parents = {int(p): int(q) for p, q in (line.split() for line in listed if line.strip())}
    found = {os.getpid()}
    while more := {p for p, q in parents.items() if q in found} - found:
        found |= more
    return found


def listening(processes):
    """Addresses on which these processes listen, from /proc."""
    inodes = set()
    for process in processes:
        with suppress(OSError):  # it has ended
            for handle in Path(f"/proc/{process}/fd").iterdir():
                with suppress(OSError):
                    target = str(handle.readlink())
                    if target.startswith("socket:["):
                        inodes.add(target[8:-1])
    found = []
    for name, width in (("tcp", 8), ("tcp6", 32)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                host, port = fields[1].split(":")
                text = ".".join(map(str, bytes.fromhex(host[-8:])[::-1]))
                if width == 32:
                    mapped = host.startswith("0" * 16 + "FFFF0000")
                    text = f"[::ffff:{text}]" if mapped else f"[{host}]"
                found.append(f"{text}:{int(port, 16)}")
    return found


@contextmanager
def two_nodes():
    """A cluster whose head computes nothing, with two nodes of one CPU."""
    import ray
    from ray.cluster_utils import Cluster

    quick = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 500,
        "health_check_timeout_ms": 1000,
        "health_check_failure_threshold": 3,
    }
    small = {"object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": quick, **small}
    )
    try:
        yield cluster, [cluster.add_node(num_cpus=1, **small) for _ in range(2)]
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_two_nodes_of_which_one_is_lost(store, tmp_path):
    told, task = [], HangingImages()
    task.armed = tmp_path / "armed"
    subject = vision(task=task)
    archs = subject.some(6)
    with two_nodes() as (cluster, nodes):
        address = cluster.address
        wants_too_much = new_executor(subject, address, told, cpus=5, timeout_s=2.0)
        began_s = time.monotonic()
        with pytest.raises(UserError) as error:
            list(wants_too_much.evaluate(archs, "validation"))
        wants_too_much.close()
        assert time.monotonic() - began_s < 30
        assert re.fullmatch(
            f"cluster.address {address}: no worker was ready within 2 s; 1 worker of CPU 5 asked "
            r"for, the cluster has 3 nodes with CPU 1 and 1 and 0 \(2 free\); lower "
            "cluster.cpus, wait until it is free, or leave cluster out",
            str(error.value),
        )

        other = {**subject.introduction(), "probe": "other", "instructions": "ABACUS"}
        differs = new_executor(subject, address, told)
        differs._probe = lambda: other
        with pytest.raises(
            UserError, match=r"gives other last bits than this host \(instr.* there, "
        ):
            list(differs.evaluate(archs, "validation"))
        differs.close()

        told.clear()
        executor = new_executor(subject, address, told)
        for _ in range(200):  # until both are there
            list(executor.evaluate(archs[1:2], "validation"))
            if executor.workers == 2:
                break
            time.sleep(0.1)
        task.armed.touch()
        killed = False
        for arch, metrics in executor.evaluate(archs, "validation"):
            store.add("hash", "validation", {arch: metrics})
            if not killed:  # one is done, the other hangs
                (busy,) = {member.node for member in executor._members if member.busy}
                (node,) = (node for node in nodes if node.node_id == busy)
                cluster.remove_node(node, allow_graceful=False)
                killed = True
        executor.close()
    (lost,) = (fields for event, fields in told if event == "worker_lost")
    assert lost["node"] == busy
    assert lost["architecture"] in [dict(arch) for arch in archs[:2]]
    rows = store.rows()
    assert sorted(map(str, (row.architecture for row in rows))) == sorted(map(str, archs))
    for row in rows:
        assert row.metrics == evaluate(subject.model, subject.task, row.architecture, "validation")


def test_nothing_is_started_for_what_is_known():
    told = []
    executor = new_executor(vision(), "local", told)
    assert list(executor.evaluate([], "validation")) == []
    assert (executor.workers, told) == (0, [])
    executor.close()


def test_nobody_listens():
    with pytest.raises(UserError, match=r"^cluster.address 127.0.0.1:1: connection refused; give"):
        RayCluster("127.0.0.1:1", cpus=1, store_bytes=0)


def test_ray_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        require_ray("auto")
    assert str(error.value) == (
        "cluster.address is auto, but Ray is not installed; pip install 'elastic-nas[ray]', or "
        "leave cluster out"
    )
