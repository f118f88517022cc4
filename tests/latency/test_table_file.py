"""A table is shared as a file: what comes back is what went out, and a bad file changes nothing."""

import csv
import dataclasses
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latency.backends import BACKENDS
from latency.database import connect
from latency.table_file import COLUMNS, read_table, write_table
from latency.table_store import StoredRow, TableIdentity, TableStore
from search_spaces import UserError, Workload
from search_spaces.schemes import SCHEMES, with_version

try:
    import pyarrow
    import pyarrow.parquet
except ImportError:
    pyarrow = None

SUFFIXES = (
    ".csv",
    pytest.param(".parquet", marks=pytest.mark.skipif(pyarrow is None, reason="needs pyarrow")),
)
IDENTITY = TableIdentity(
    device="pi5",
    backend="onnxruntime",
    precision="fp32",
    threads=4,
    mode="standard",
    protocol=1,
    fingerprint={"cpu": "Cortex-A76", "kernel": "6.12"},
    network={"family": "vit", "head_dim": 16},
)
ROW = StoredRow(
    workload=Workload(),
    kind="ffn",
    widths={"embed": 64, "ffn": 128},
    latency_ms=0.1 + 0.2,
    low_ms=0.29,
    high_ms=1 / 3,
    sessions=5,
    status="ok",
    provenance={"models": [{"sha256": "ab", "ratios": [0.1]}], "sessions": [{"seed": 3}]},
)

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = st.text("abc-_019", min_size=1, max_size=8)
sizes = st.integers(1, 2**31 - 1)
latencies = st.floats(0, 1e15, exclude_min=True, exclude_max=True)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
identities = st.builds(
    TableIdentity,
    device=names,
    backend=st.sampled_from(sorted(BACKENDS)),
    precision=st.sampled_from(["fp32", "fp16"]),
    threads=sizes,
    mode=st.sampled_from(["quick", "standard"]),
    protocol=sizes,
    fingerprint=st.dictionaries(texts, texts, max_size=3),
    network=st.dictionaries(texts, values, max_size=3),
)


policies = st.sampled_from(["precision.ffn_in", "precision.ffn_out.3"])


@st.composite
def stored_rows(draw):
    low, middle, high = sorted(draw(st.tuples(latencies, latencies, latencies)))
    return StoredRow(
        workload=Workload(
            batch=draw(sizes), sequence=draw(st.none() | sizes), past=draw(st.integers(0, 999))
        ),
        kind=draw(st.sampled_from(["fixed", "attention", "ffn", "subnet"])),
        widths={
            **draw(st.dictionaries(texts, sizes, max_size=3)),
            **draw(st.dictionaries(policies, st.sampled_from(list(SCHEMES)), max_size=2)),
        },
        latency_ms=middle,
        low_ms=draw(st.sampled_from([None, low])),
        high_ms=draw(st.sampled_from([None, high])),
        energy_mj=draw(st.none() | latencies),
        peak_memory_bytes=draw(st.none() | latencies),
        sessions=draw(st.integers(0, 99)),
        status=draw(st.sampled_from(["ok", "unstable", "lost"])),
        provenance=draw(st.dictionaries(texts, values, max_size=3)),
    )


def key(entry):
    return (entry[0].text(), *entry[1].key)


tables = st.lists(st.tuples(identities, stored_rows()), min_size=1, max_size=4, unique_by=key)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(entries=tables)
@settings(deadline=None, max_examples=25)
def test_what_is_written_is_read_back(tmp_path_factory, suffix, entries):
    """Through a file, and through a store and a file again."""
    folder = tmp_path_factory.mktemp("table")
    path = folder / f"table{suffix}"
    assert write_table(path, entries) == len(entries)
    found = read_table(path)
    assert found == entries
    connection = connect(folder / "run.db")
    store = TableStore(connection)
    assert store.add(found) == len(entries)
    assert store.add(found) == 0
    again = []
    for device in store.devices():
        for identity, _ in store.tables(device):
            again += [(identity, row) for row in store.rows(identity)]
    connection.close()
    assert sorted(again, key=key) == sorted(entries, key=key)
    write_table(path, again)
    assert sorted(read_table(path), key=key) == sorted(entries, key=key)


def test_columns_are_documented():
    text = Path("docs/latency.md").read_text(encoding="utf-8")
    for name in COLUMNS:
        assert f"| `{name}` |" in text, name


def lines(path, change):
    """Rewrite a CSV file by its rows of fields."""
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    change(table)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(table)


def put(column, value):
    def change(table):
        table[1][table[0].index(column)] = value

    return change


def zero_of_a_subnet(table):
    for column, value in (("kind", "subnet"), ("latency_ms", "0"), ("low_ms", "0")):
        put(column, value)(table)


def rename(old, new):
    def change(table):
        table[0][table[0].index(old)] = new

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename("latency_ms", "latency_us"), "lacks the column latency_ms; a table file has"),
        (lambda t: [row.append("x") for row in t], "has the unknown column x"),
        (lambda t: [row.append(row[0]) for row in t], "has twice the column schema"),
        (lambda t: t[1].pop(), "line 2: 21 fields under 22 columns"),
        (lambda t: t.pop(), "holds no rows; export the table again"),
        (lambda t: t.append(t[1]), "line 3: a second row for ffn"),
        (put("schema", "2"), "has schema 2, this version reads 1; upgrade elastic-nas"),
        (put("latency_ms", "fast"), "line 2: latency_ms 'fast' is not a finite number"),
        (put("latency_ms", "nan"), "latency_ms 'nan' is not a finite number"),
        (put("latency_ms", "-1"), r"latency_ms -1.0 is not in 0..1e\+15"),
        (put("high_ms", "1e300"), r"high_ms 1e\+300 is not in 0..1e\+15"),
        (zero_of_a_subnet, "latency_ms 0 of a whole subnet is not above 0"),
        (lambda t: t.append(["2", *t[1][1:]]), "has schema 2, this version reads 1"),
        (put("backend", "abacus"), "backend 'abacus' is not one of coreml, onnxruntime, tensor"),
        (put("precision", "fp7"), "precision 'fp7' is not one of fp32, .*which backend onnxrun"),
        (put("latency_ms", ""), "latency_ms is empty"),
        (put("latency_ms", "300000"), "latency_ms 300000.0 is not between low_ms 0.29 and high_ms"),
        (put("threads", "1.5"), "threads '1.5' is not a whole number"),
        (put("threads", "0"), "threads 0 is below 1"),
        (put("sessions", str(2**63)), "sessions '9223372036854775808' is not a whole number"),
        (put("batch", "0"), "workload batch 0 is below 1"),
        (put("device", "../x"), "device '../x': only letters, digits, - and _ are a name"),
        (put("mode", "slow"), "mode 'slow' is not one of quick, standard"),
        (put("kind", "conv"), "kind 'conv' is not one of fixed, attention, ffn, subnet"),
        (put("status", "interpolated"), "status 'interpolated' is not one of ok, unstable"),
        (put("widths", "[64]"), "widths '\\[64\\]' is not a JSON object"),
        (put("widths", '{"embed": 1.5}'), "widths: embed 1.5 is not a whole number"),
        (
            put("widths", '{"precision.qkv": "int8"}'),
            "widths: precision.qkv 'int8' is not one of w4_nbits, w4, w8a8_dynamic, w8a8, w8, bf16",
        ),
        (
            put("widths", '{"precision.qkv": "w8a8 2"}'),
            "widths: precision.qkv 'w8a8 2' is of a later version than this one's w8a8 1; upgrade",
        ),
        (
            put("widths", '{"precision.qkv": "w8a8 02"}'),
            "precision.qkv 'w8a8 02' is not w8a8 with a version, such as 'w8a8 2'",
        ),
        (
            put("widths", '{"precision.qkv": "w8a8 "}'),
            "precision.qkv 'w8a8 ' is not w8a8 with a version, such as 'w8a8 2'",
        ),
        (put("fingerprint", '{"cpu": 1}'), "fingerprint: cpu 1 is not a text"),
        (put("provenance", '{"models":'), "provenance '.*' is not a JSON object"),
        (put("network", '{"scale": NaN}'), "network '.*' is not a JSON object"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, change, message):
    path = tmp_path / "table.csv"
    write_table(path, [(IDENTITY, ROW)])
    lines(path, change)
    with pytest.raises(UserError, match=message) as error:
        read_table(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; export the table again"),
        (b"PAR1\xff\xfe", "is not UTF-8 text"),
        (b'schema,device\n"1,pi', "is not a whole CSV file"),
    ],
)
def test_what_is_no_csv_is_told(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_table(path)


def test_a_file_of_an_earlier_version_of_a_scheme_is_read(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    rows = [
        dataclasses.replace(ROW, widths={**ROW.widths, "precision.ffn_in": text})
        for text in ("w8a8", "w8a8 2")
    ]
    monkeypatch.setitem(SCHEMES, "w8a8", dataclasses.replace(SCHEMES["w8a8"], version=2))
    assert with_version("w8a8") == "w8a8 2"
    write_table(path, [(IDENTITY, row) for row in rows])
    assert [row for _, row in read_table(path)] == rows


@pytest.mark.skipif(pyarrow is None, reason="needs pyarrow")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_parquet_file_is_told(tmp_path, share):
    path = tmp_path / "table.parquet"
    write_table(path, [(IDENTITY, ROW)])
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"is not a whole Parquet file \(.*\); copy it again"):
        read_table(path)


@pytest.mark.skipif(pyarrow is None, reason="needs pyarrow")
def test_parquet_has_types(tmp_path):
    path = tmp_path / "table.parquet"
    write_table(path, [(IDENTITY, ROW)])
    schema = pyarrow.parquet.read_schema(path)
    assert schema.names == list(COLUMNS)
    assert str(schema.field("latency_ms").type) == "double"
    assert str(schema.field("sessions").type) == "int64"
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), path)
    with pytest.raises(UserError, match="lacks the column schema"):
        read_table(path)


def test_without_pyarrow_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'elastic-nas\[parquet\]', or use a \.csv"):
        write_table(tmp_path / "table.parquet", [(IDENTITY, ROW)])
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"ends in neither \.csv nor \.parquet"):
        write_table(tmp_path / "table.xlsx", [(IDENTITY, ROW)])
    with pytest.raises(UserError, match="does not exist; check the path"):
        read_table(tmp_path / "table.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*folder\.csv"):
        read_table(tmp_path / "folder.csv")


@pytest.fixture
def store(tmp_path):
    connection = connect(tmp_path / "run.db")
    yield TableStore(connection)
    connection.close()


def test_what_was_measured_here_does_not_give_way_to_an_import(store):
    other = dataclasses.replace(ROW, latency_ms=0.3)
    imported = dataclasses.replace(other, imported=True)
    assert store.add([(IDENTITY, imported)]) == 1
    assert store.add([(IDENTITY, ROW)]) == 1
    assert store.add([(IDENTITY, imported)]) == 0
    assert store.rows(IDENTITY) == [ROW]
    assert store.add([(IDENTITY, other)]) == 1
    assert store.rows(IDENTITY) == [other]


def test_rows_of_another_fingerprint_stay(store):
    changed = dataclasses.replace(IDENTITY, fingerprint={**IDENTITY.fingerprint, "kernel": "6.13"})
    store.add([(IDENTITY, ROW)])
    store.add([(changed, ROW)])
    assert [identity for identity, _ in store.tables("pi5")] == [changed, IDENTITY]
    assert store.rows(IDENTITY) == store.rows(changed) == [ROW]
    assert IDENTITY.changes(changed) == ["kernel 6.12 -> 6.13"]
    more = dataclasses.replace(IDENTITY, threads=1, fingerprint={"cpu": "Cortex-A76"})
    assert IDENTITY.changes(more) == ["threads 4 -> 1", "kernel 6.12 -> none"]
    assert IDENTITY.changes(IDENTITY) == []
    store.add([(IDENTITY, ROW)])
    assert [identity for identity, _ in store.tables("pi5")] == [IDENTITY, changed]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE tables SET identity = '{}'",
        "UPDATE tables SET identity = 'x'",
        "UPDATE table_rows SET provenance = '{'",
        "UPDATE table_rows SET workload = '{\"bach\": 1}'",
    ],
)
def test_a_damaged_row_of_the_store_is_told(store, damage):
    store.add([(IDENTITY, ROW)])
    store._connection.execute(damage)
    with pytest.raises(UserError, match=r"not a readable store \(a row of it is damaged: "):
        [store.rows(identity) for identity, _ in store.tables("pi5")]


def test_all_rows_or_none(store):
    def entries():
        yield (IDENTITY, ROW)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add(entries())
    assert store.rows(IDENTITY) == []
    assert store.devices() == []


def test_the_json_of_a_row_is_plain(tmp_path):
    """Other programs read it: no NaN, and a JSON object where the columns say so."""
    path = tmp_path / "table.csv"
    write_table(path, [(IDENTITY, ROW)])
    with path.open(encoding="utf-8", newline="") as file:
        (record,) = csv.DictReader(file)
    assert json.loads(record["widths"]) == {"embed": 64, "ffn": 128}
    assert float(record["latency_ms"]) == ROW.latency_ms
    assert record["sequence"] == ""
