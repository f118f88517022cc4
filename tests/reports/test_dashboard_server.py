"""The dashboard over HTTP: pages, the API, ETags, and what it refuses."""

import http.client
import json
import re
import shutil
import socket
import subprocess
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

import reports.page
from reports.dashboard import Catalogue, DashboardServer
from reports.dashboard.server import _Handler
from reports.page import asset
from tests.reports.fixture_run import HOSTILE, build_vit_run, poison, read, write

TEMPLATES = Path(reports.page.__file__).parent / "templates"
MODULES = sorted((TEMPLATES / "dashboard").glob("*.js"))
RUN = "/api/runs/runs%2Fdigits%40cpu"


@contextmanager
def serving(folder, host="127.0.0.1"):
    server = DashboardServer(Catalogue([folder]), host, 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    digits = build_vit_run(folder / "runs" / "digits", evaluated=40, size=4)
    exports = digits / "exports"
    exports.mkdir()
    for name in ("s00.onnx", "s00.json", "classify.py", "s01.onnx"):
        (exports / name).write_text(f"content of {name}")
    write(digits, "front", {**read(digits, "front"), "script": "exports/classify.py"})
    (digits / "run.db").write_text("secret")
    (folder / "runs" / "secret.json").write_text("secret")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with serving(folder / "runs") as server:
            yield server


def ask(server, path, method="GET", headers=None, body=None):
    """Status, headers and body of an answer."""
    host, port = server.server_address[:2]
    with closing(http.client.HTTPConnection(host, port, timeout=20)) as connection:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def test_the_page_and_everything_that_it_loads(server):
    status, headers, html = ask(server, "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    loaded = re.findall(r'(?:src|href)="([^"]+)"', html.decode())
    assert len(loaded) == 6
    loaded += [f"/assets/dashboard/{path.name}" for path in MODULES]
    for path in loaded:  # of this server, as the policy allows no other
        status, headers, body = ask(server, path)
        assert (status, headers["X-Content-Type-Options"]) == (200, "nosniff")
        assert body
    assert not re.search(rb"<script(?! (?:type=\"module\" )?src=)|\son\w+=|style=", html)


def test_every_answer_has_a_policy_and_lets_no_other_page_read_it(server):
    for path in (
        "/",
        "/api/runs",
        "/nothing",
        "/assets/dashboard/main.js",
        "/report/runs%2Fdigits%40cpu",
    ):
        _, headers, _ = ask(server, path, headers={"Origin": "http://elsewhere.example"})
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src '")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not [name for name in headers if name.lower().startswith("access-control")]
        assert len(headers.get_all("Content-Security-Policy")) == 1


def test_the_api(server):
    status, headers, body = ask(server, "/api/runs")
    (one,) = json.loads(body)["runs"]
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert one["id"] == "runs/digits@cpu"
    found = json.loads(ask(server, RUN)[2])
    assert found["id"] == one["id"]
    assert found["version"] == one["version"]
    files = {point["name"]: point["files"] for point in found["points"] if point.get("files")}
    assert files == {
        "s00": ["exports/s00.onnx", "exports/s00.json", "exports/classify.py"],
        "s01": ["exports/s01.onnx", "exports/classify.py"],
    }
    status, _, body = ask(server, f"/api/compare?run={quote(one['id'], safe='')}")
    assert (status, json.loads(body)["error"][:14]) == (422, "name two runs ")


def test_polling_is_cheap_while_nothing_changes(server, folder):
    tags = {}
    for path in ("/api/runs", RUN):
        _, headers, body = ask(server, path)
        tags[path] = headers["ETag"]
        status, headers, again = ask(server, path, headers={"If-None-Match": tags[path]})
        assert (status, again) == (304, b"")
        assert headers["ETag"] == tags[path]
        assert body
    (folder / "runs" / "digits" / "splits.json").write_text('{"kind": "image-classification"}')
    for path, tag in tags.items():
        assert ask(server, path, headers={"If-None-Match": tag})[0] == 200


def test_files_are_downloaded_whole(server):
    path = "/files/runs%2Fdigits%40cpu/exports/s00.onnx"
    status, headers, body = ask(server, path)
    assert (status, body) == (200, b"content of s00.onnx")
    assert headers["Content-Disposition"] == 'attachment; filename="s00.onnx"'
    assert headers["Content-Type"] == "application/octet-stream"
    status, headers, body = ask(server, path, "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "19", b"")


@pytest.mark.parametrize(
    "path",
    [
        *("run.db", "../secret.json", "..%2Fsecret.json", "exports/..%2f..%2f..%2fsecret.json"),
        *(
            "%2e%2e/secret.json",
            "exports/%00",
            "exports",
            "",
            "/etc/passwd",
            "exports%2Fs00.onnx%0a",
        ),
    ],
)
def test_nothing_else_is_handed_out(server, path):
    status, _, body = ask(server, f"/files/runs%2Fdigits%40cpu/{path}")
    assert status in (404, 422)
    assert body.count(b"\n") == 0
    assert b"secret" not in body.replace(b"secret.json", b"")


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/api/runs/none",
            "/api",
            "/api/",
            "/report/none",
            "/files/none/front.json",
            "//etc/passwd",
        ),
        *(
            "/assets/report.html.j2",
            "/assets/../page.py",
            "/assets/..%2f..%2fpage.py",
            "/%ff",
            "/x?run=",
        ),
        "/files/runs%2Fdigits%40gpu/front.json",
    ],
)
def test_what_is_not_there_is_404_in_one_line(server, path):
    status, headers, body = ask(server, path)
    assert (status, headers["Content-Type"]) == (404, "application/json")
    assert json.loads(body)["error"] == "there is no such run or page; see /"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
def test_only_get_and_head(server, method):
    status, headers, body = ask(server, "/api/runs", method, body=b"GET / HTTP/1.1\r\n\r\n")
    assert (status, headers["Allow"], headers["Connection"]) == (405, "GET, HEAD", "close")
    assert json.loads(body)["error"] == "GET and HEAD only: nothing is changed here"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("localhost", 200), ("LOCALHOST:8265", 200), ("127.0.0.1", 200), ("[::1]:9", 200)),
        *(("elsewhere.example", 403), ("127.0.0.1.elsewhere.example", 403), ("", 403)),
        *(("localhost@elsewhere.example", 403), ("192.168.1.7", 403), ("[::1", 403)),
    ],
)
def test_names_that_are_not_this_server_are_refused(server, host, status):
    assert ask(server, "/api/runs", headers={"Host": host})[0] == status


def test_a_request_without_a_host_or_that_is_no_http(server):
    for words in (b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01nonsense\r\n\r\n"):
        with closing(socket.create_connection(server.server_address[:2], timeout=20)) as connection:
            connection.sendall(words)
            answer = connection.makefile("rb").read()
        head, _, body = answer.rpartition(b"\r\n")
        assert json.loads(body)["error"].startswith(("Host None is not", "Bad request"))
        assert not head or b" 403 " in head


def test_the_address_that_it_listens_at_is_a_name_of_the_server(folder):
    with serving(folder / "runs", "0.0.0.0") as server:
        port = server.server_address[1]
        for host, expected in (("127.0.0.1", 200), ("0.0.0.0", 200), ("10.0.0.1", 403)):
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
                connection.request("GET", "/api/runs", headers={"Host": host})
                assert connection.getresponse().status == expected


def test_the_report_is_made_from_the_files_and_none_of_the_disk_is_served(server, folder):
    (folder / "runs" / "digits" / "report.html").write_text("<script>alert(1)</script>")
    status, headers, page = ask(server, "/report/runs%2Fdigits%40cpu")
    assert status == 200
    assert b"alert(1)" not in page
    assert b"What each subnet looks like" in page
    assert "script-src 'sha256-" in headers["Content-Security-Policy"]


def test_a_hostile_run_stays_text(tmp_path, monkeypatch):
    """A name of a run, of a device or of anything else never becomes HTML."""
    monkeypatch.chdir(tmp_path)
    build_vit_run(tmp_path / "<script>alert(1)<", name="<script>alert(1)</script>", size=3)
    bad = build_vit_run(tmp_path / "bad", evaluated=20, size=3)
    poison(bad)
    with serving(tmp_path) as server:
        status, headers, body = ask(server, "/api/runs")
        assert (status, headers["Content-Type"]) == (200, "application/json")
        names = [one["name"] for one in json.loads(body)["runs"]]
        assert "<script>alert(1)</script>" in names
        for one in json.loads(body)["runs"]:
            status, headers, body = ask(server, f"/api/runs/{quote(one['id'], safe='')}")
            assert (status, headers["Content-Type"]) == (200, "application/json")
            status, headers, page = ask(server, f"/report/{quote(one['id'], safe='')}")
            assert status == 200
            assert b"<script>alert(1)" not in page
            assert HOSTILE.encode() not in page
    # What the page makes of these texts is text: nothing is read as HTML anywhere.
    script = "".join(path.read_text() for path in MODULES)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
def test_an_ipv4_address_of_a_server_at_all_ipv6_addresses_is_its_name(folder):
    with serving(folder / "runs", host="::") as server:
        for host, status in (("127.0.0.2", 200), ("127.0.0.3", 403)):
            with closing(
                http.client.HTTPConnection("127.0.0.2", server.server_address[1], timeout=20)
            ) as connection:
                connection.request("GET", "/", headers={"Host": host})
                assert connection.getresponse().status == status


def test_a_log_that_grows_while_it_is_sent_is_no_second_answer(server, folder, monkeypatch):
    log = folder / "runs" / "digits" / "training.jsonl"
    before = log.read_bytes()
    start = _Handler._start

    def grow(handler, status, headers):
        start(handler, status, headers)
        log.write_bytes(before + b"more\n")

    monkeypatch.setattr(_Handler, "_start", grow)
    with socket.create_connection(server.server_address[:2], timeout=20) as connection:
        connection.sendall(
            b"GET /files/runs%2Fdigits%40cpu/training.jsonl HTTP/1.1\r\n"
            b"Host: 127.0.0.1\r\nConnection: close\r\n\r\n"
        )
        with connection.makefile("rb") as answer:
            head, _, body = answer.read().partition(b"\r\n\r\n")
    assert f"Content-Length: {len(before)}".encode() in head
    assert body == before
    monkeypatch.undo()
    log.write_bytes(before)


def test_a_number_that_json_does_not_know_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    front = build_vit_run(tmp_path / "odd", evaluated=20, size=3) / "front.json"
    found = json.loads(front.read_text())
    found["subnets"][0]["architecture"]["embed"] = "INFINITE"
    front.write_text(json.dumps(found).replace('"INFINITE"', "1e999"))
    with serving(tmp_path) as server:
        assert json.loads(ask(server, "/api/runs")[2])["runs"][0]["stage"] == "done"
        status, _, body = ask(server, "/api/runs/odd%40cpu")
    assert (status, json.loads(body)["error"][:24]) == (422, "the files of this run: O")


def test_no_run_at_all(tmp_path):
    with serving(tmp_path / "not there yet") as server:
        assert json.loads(ask(server, "/api/runs")[2])["runs"] == []
        build_vit_run(tmp_path / "not there yet" / "new", evaluated=20, size=3)
        assert len(json.loads(ask(server, "/api/runs")[2])["runs"]) == 1


def test_a_reader_that_goes_away_leaves_no_trace(server, capfd):
    with closing(socket.create_connection(server.server_address[:2], timeout=20)) as connection:
        connection.sendall(b"GET /assets/plotly.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.recv(100)
    assert ask(server, "/api/runs")[0] == 200
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to read JavaScript with")
@pytest.mark.parametrize(
    "path", [*MODULES, TEMPLATES / "plot.js", TEMPLATES / "report.js"], ids=str
)
def test_the_scripts_are_javascript(tmp_path, path):
    copy = tmp_path / f"script{'.mjs' if path in MODULES else '.js'}"
    copy.write_text(path.read_text())
    subprocess.run(["node", "--check", copy], check=True)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no chromium")
def test_the_page_in_a_browser(server, tmp_path):
    """The list, the choice within a bound and its command, as a browser makes them of the API."""
    flags = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--dump-dom"),
    )
    points = json.loads(ask(server, RUN)[2])["points"]
    front = sorted(
        (point["values"]["latency_ms"][1], point)
        for point in points
        if point["kind"] == "front"
    )  # fmt: skip
    bound = front[1][0] * 1.0001
    within = [
        point
        for point in points
        if point["kind"] in ("front", "spare")
        and (point["values"]["latency_ms"][1] or point["values"]["latency_ms"][0]) <= bound
    ]
    best = min(within, key=lambda point: point["values"]["error"][0])
    page = subprocess.run(
        [CHROMIUM, *flags, f"{server.url}?bound=latency_ms<={bound}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    text = re.sub(r"<[^>]+>", " ", page)
    assert re.search(rf"Best of {len(within)} within latency \(ms\) .*:\s+{best['name']}\s", text)
    assert best["command"].partition('"')[0].strip() in text
    assert 'class="main-svg"' in page
    assert "Download" in text or best["kind"] == "spare"


def test_the_page_names_every_place_that_the_script_looks_for():
    page, script = asset("dashboard/index.html"), "".join(map(Path.read_text, MODULES))
    wanted = set(re.findall(r'byId\("([\w-]+)"\)', script)) - {"log-"}
    there = set(re.findall(r'id="([\w-]+)"', page))
    assert wanted <= there
