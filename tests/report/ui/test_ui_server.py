"""The server of ``distsim ui``: what it answers to whom, what it refuses, and re-runs from their start to their end."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import struct
import subprocess
import sys
import time

import pytest

from distsim.cli.main import main
from distsim.errors import ConfigError, UnknownNameError
from distsim.report.folder import load
from distsim.report.ui.jobs import Jobs
from distsim.report.ui.server import TOKEN, Server
from distsim.report.ui.shelf import Shelf


@pytest.fixture(scope="module")
def folder(results_folder, tmp_path_factory):
    """A copy, as re-runs write into it; beside it a result that is not to be had."""
    place = tmp_path_factory.mktemp("ui")
    for name in ("run", "run-chunk", "deep", "service-a", "study-a"):
        shutil.copytree(results_folder / name, place / "shelf" / name)
    shutil.copytree(results_folder / "run", place / "secret")
    (place / "shelf" / "link").symlink_to(place / "secret")
    shutil.copytree(results_folder / "run", place / "shelf" / ".hidden")
    (place / "shelf" / "broken").mkdir()
    (place / "shelf" / "broken" / "summary.json").write_text("{")
    return place / "shelf"


def ask(server, path, method="GET", body=None, **headers):
    """(status, headers, text)."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request(method, path, body, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), text


def post(server, path, body, **headers):
    """With the token unless headers say otherwise; (status, document)."""
    headers = {TOKEN: server.token, "Content-Type": "application/json", **headers}
    status, _, text = ask(server, path, "POST", body if isinstance(body, str) else json.dumps(body), **headers)
    return status, json.loads(text)


def ended(server, number, seconds=60):
    """A job once it has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        job = json.loads(ask(server, f"/job?n={number}")[2])
        if job["state"] not in ("waiting", "running"):
            return job
        time.sleep(0.1)
    raise AssertionError(job)


def test_the_shelf_holds_results_and_nothing_else(folder):
    entries = Shelf(folder).entries()
    assert [entry.name for entry in entries] == ["deep/other", "run", "run-chunk", "service-a", "study-a"]
    assert [entry.kind for entry in entries] == ["run", "run", "run", "service", "sweep"]
    assert all(entry.answer and entry.about for entry in entries)
    assert [entry.knobs for entry in entries] == [True, True, True, False, False]


@pytest.mark.parametrize("name", ["..", "../secret", "/etc", "link", ".hidden", "broken", "run/", "./run", "deep", "", "run\0"])
def test_no_name_leads_elsewhere(folder, name):
    with pytest.raises(UnknownNameError):
        Shelf(folder).find(name)


def test_a_folder_that_is_none_or_a_result_is_refused(folder):
    with pytest.raises(ConfigError, match="is itself one result"):
        Shelf(folder / "run")
    with pytest.raises(ConfigError, match="does not exist"):
        Shelf(folder / "nothing")
    with pytest.raises(ConfigError, match="is a file"):
        Shelf(folder / "run" / "summary.json")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".x", "-x", "x\n", "x.part", "run", "a" * 200])
def test_names_of_new_results_are_checked(folder, name):
    shelf = Shelf(folder)
    with pytest.raises(ConfigError):
        shelf.beside(shelf.find("run"), name)


def test_pages_are_served_and_load_nothing(server):
    for path in ("/", "/report?of=run", "/report?of=deep/other", "/report?of=service-a", "/report?of=study-a",
                 "/report?of=run&with=run-chunk", "/knobs?of=run"):  # fmt: skip
        status, headers, text = ask(server, path)
        assert status == 200, path
        assert text.startswith("<!doctype html>")
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "http://" not in text.split("<script", 1)[0].replace("http://www.w3.org", "")
    assert ask(server, "/", "HEAD")[2] == ""
    assert [one["name"] for one in json.loads(ask(server, "/results")[2])][1:3] == ["run", "run-chunk"]


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/nothing", 404, "there is nothing at /nothing"), ("/report", 400, "?of="), ("/report?of=", 400, "?of="),
        ("/report?of=../secret", 404, "unknown result"), ("/report?of=/etc/passwd", 404, "unknown result"),
        ("/report?of=%2e%2e%2fsecret", 404, "unknown result"), ("/../secret/summary.json", 404, "there is nothing"),
        ("/report?of=rum", 404, "run"), ("/report?of=run&with=service-a", 422, "cannot be compared"),
        ("/knobs?of=service-a", 422, "is a service"), ("/job?n=99", 422, "no run 99"), ("/job?n=x", 400, "number"),
        ("/run", 405, "POST"), ("/report?of=<script>", 404, "&lt;script&gt;"),
    ],
)  # fmt: skip
def test_what_there_is_not_gets_a_clear_page(server, path, status, said):
    found, _, text = ask(server, path)
    assert found == status
    assert said in text
    assert "Traceback" not in text
    assert "<script>" not in text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "127.0.0.1", "", "localhost.evil:{port}"]
)
def test_a_foreign_host_is_refused(server, host):
    assert ask(server, "/", Host=host.format(port=server.server_port))[0] == 403
    assert ask(server, "/", Host=f"localhost:{server.server_port}")[0] == 200


def test_two_hosts_are_one_too_many(server):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as raw:
        mine = f"127.0.0.1:{server.server_port}"
        raw.sendall(f"GET / HTTP/1.1\r\nHost: {mine}\r\nHost: evil.example\r\nConnection: close\r\n\r\n".encode())
        assert raw.recv(64).startswith(b"HTTP/1.1 403")


def test_it_listens_on_this_machine_only(server):
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(ConfigError, match="cannot be had"):
        Server(server.shelf, server.server_port)
    with pytest.raises(ConfigError, match="no port"):
        Server(server.shelf, 70_000)


def test_what_changes_something_needs_the_token_of_this_server(server):
    wish = {"of": "run", "name": "new", "changes": {"gpu.compute": "2x"}}
    for headers in ({TOKEN: ""}, {TOKEN: "wrong"}, {TOKEN: server.token + "x"}, {"Origin": "http://evil.example"}):
        status, answer = post(server, "/run", wish, **headers)
        assert status == 403, headers
        assert answer["error"]
    assert server.jobs.listed() == []
    assert ask(server, "/run", "POST", json.dumps(wish), Content_Type="application/json")[0] == 403


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("{", 400, "JSON"), ("[]", 400, "JSON"), ("[" * 30_000, 400, "JSON"), ({}, 400, "expected"),
        ({"of": "run"}, 400, "expected"),
        ({"of": "run", "name": "x", "changes": {"gpu.compute": 2}}, 400, "expected"),
        ({"of": "run", "name": "x", "changes": {}}, 422, "nothing is changed"),
        ({"of": "run", "name": "x", "changes": {"gpu.compute": "fast"}}, 422, "gpu.compute"),
        ({"of": "run", "name": "x", "changes": {"gpu.computer": "2x"}}, 404, "gpu.compute"),
        ({"of": "run", "name": "../x", "changes": {"gpu.compute": "2x"}}, 422, "no name"),
        ({"of": "run", "name": "run-chunk", "changes": {"gpu.compute": "2x"}}, 422, "is there already"),
        ({"of": "../secret", "name": "x", "changes": {"gpu.compute": "2x"}}, 404, "unknown result"),
        ({"of": "service-a", "name": "x", "changes": {"gpu.compute": "2x"}}, 422, "is a service"),
        ("x" * 100_000, 413, "longer"),
    ],
)  # fmt: skip
def test_bad_wishes_are_refused_with_the_reason(server, body, status, said):
    found, answer = post(server, "/run", body)
    assert found == status
    assert said in answer["error"]
    assert "Traceback" not in answer["error"]
    assert server.jobs.listed() == []


def test_other_bodies_and_methods(server):
    assert post(server, "/run", {}, **{"Content-Type": "text/plain"})[0] == 415
    assert post(server, "/", {})[0] == 405
    assert ask(server, "/", "DELETE")[0] == 501


def test_a_rerun_writes_a_result_beside_and_is_listed(server, folder):
    wish = {"of": "deep/other", "name": "faster", "changes": {"gpu.compute": "2x"}}
    status, job = post(server, "/run", wish)
    assert status == 200
    assert job["name"] == "deep/faster"
    done = ended(server, job["number"])
    assert done["state"] == "done", done
    assert done["message"].startswith("step ")
    before, after = (load(folder / "deep" / name).summary["makespan_ps"] for name in ("other", "faster"))
    assert after < before
    assert ask(server, "/report?of=deep/other&with=deep/faster")[0] == 200
    assert "deep/faster" in [one["name"] for one in json.loads(ask(server, "/results")[2])]
    assert post(server, "/run", wish)[0] == 422  # the name is taken now


def test_a_job_that_cannot_run_says_why_and_one_that_is_cancelled_leaves_nothing(folder):
    jobs = Jobs()
    try:
        bad = jobs.submit("run", "bad", folder / "broken", folder / "bad", {"gpu.compute": "2x"})
        slow = jobs.submit("run", "slow", folder / "run", folder / "slow", {"gpu.compute": "2x"})
        with pytest.raises(ConfigError, match="writes slow"):
            jobs.submit("run", "slow", folder / "run", folder / "slow", {})
        assert jobs.cancel(slow.number)["state"] == "cancelled"
        until = time.monotonic() + 60
        while jobs.get(bad.number)["state"] in ("waiting", "running") and time.monotonic() < until:
            time.sleep(0.05)
        assert jobs.get(bad.number)["state"] == "failed"
        assert "no results folder" in jobs.get(bad.number)["message"]
        running = jobs.submit("run", "third", folder / "run", folder / "third", {"gpu.compute": "2x"})
        while jobs.get(running.number)["state"] == "waiting":
            time.sleep(0.01)
        assert jobs.cancel(running.number)["state"] == "cancelled"
        running.process.join(10)
        assert running.process.exitcode is not None
    finally:
        jobs.close()
    assert not any((folder / name).exists() for name in ("bad", "slow", "third"))
    assert not list(folder.glob(".*.part"))
    with pytest.raises(ConfigError, match="no run 9"):
        jobs.get(9)


def test_the_command_serves_until_it_is_interrupted(folder):
    words = [sys.executable, "-m", "distsim", "ui", str(folder), "--no-open", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        made = json.loads(process.stdout.readline())
        assert made["address"].startswith("http://127.0.0.1:")
        assert len(made["results"]) >= 5
        port = int(made["address"].rstrip("/").rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/results")
        assert connection.getresponse().status == 200
        connection.close()
        process.terminate()
        _, told = process.communicate(timeout=30)
    assert process.returncode == 0
    assert told == "distsim: ended\n"


def test_what_the_command_refuses(folder, capsys):
    for words, said in (
        (["ui", str(folder / "run")], "Name the folder that holds it"), (["ui", str(folder / "absent")], "does not exist"),
        (["ui", str(folder), "--port", "99999"], "no port"),
    ):  # fmt: skip
        assert main(words) == 2
        assert said in capsys.readouterr().err


def test_a_browser_that_hangs_up_is_no_traceback(server, capsys):
    for _ in range(3):
        connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by a reset
        connection.sendall(f"GET /report?of=run HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n".encode())
        connection.close()
    assert ask(server, "/results")[0] == 200
    time.sleep(0.3)
    assert "Traceback" not in capsys.readouterr().err
