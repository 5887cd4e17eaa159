"""Every wrong input ends with its exit code and one clear message, never a traceback; every --json answer has its keys."""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from discovery.cli import main
from discovery.config import Config
from discovery.workspace import open_workspace


@pytest.fixture(autouse=True)
def clean_settings(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("DISCOVERY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DISCOVERY_DASK__SCHEDULER", "inline")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def discovery(tmp_path, capsys):
    """Runs a command on a root of its own: (exit code, stdout, stderr)."""

    def run(*arguments, root=None):
        try:
            code = main([*map(str, arguments), "--root", str(root or tmp_path / "root")])
        except SystemExit as stopped:  # argparse
            code = stopped.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def indexed(tmp_path_factory, tiny_pictures):
    """A root with the tiny pictures indexed, to be copied or only read."""
    root = tmp_path_factory.mktemp("indexed")
    os.environ["DISCOVERY_DASK__SCHEDULER"] = "inline"
    assert main(["run", str(tiny_pictures), "--no-curate", "--root", str(root)]) == 0
    os.environ.pop("DISCOVERY_DASK__SCHEDULER", None)
    return root


def refused(answer, code, *fragments):
    found, out, err = answer
    assert found == code, err
    assert "Traceback" not in err and out == ""
    messages = [line for line in err.splitlines() if line.startswith("discovery: ")]
    assert len(messages) == 1
    for fragment in fragments:
        assert fragment in err
    return True


def test_an_empty_folder(discovery, tmp_path):
    (tmp_path / "empty").mkdir()
    assert refused(discovery("run", tmp_path / "empty"), 2, "is empty", str(tmp_path / "empty"))


def test_a_missing_folder(discovery, tmp_path):
    assert refused(discovery("ingest", tmp_path / "nowhere"), 2, "does not exist", "nowhere")


@pytest.mark.parametrize(("text", "fragments"), [
    ("name: cats\nbugdet: 10\n", (":2:", "bugdet", 'Did you mean "budget"')),
    ("name: cats\n", ("budget is missing",)),
    ("name: cats\nbudget: 10\nselect: {metod: random}\n", (":3:", 'Did you mean "method"')),
    ("name: cats\nbudget: lots\n", (":2:", "'lots'")),
    ("name: [cats\n", ("not valid YAML",)),
    ("- cats\n", ("expected a mapping",)),
])  # fmt: skip
def test_a_spec_with_a_typo(discovery, tmp_path, text, fragments):
    (tmp_path / "spec.yaml").write_text(text)
    assert refused(discovery("curate", "spec.yaml"), 2, "spec.yaml", *fragments)


def test_a_spec_that_is_not_there(discovery):
    assert refused(discovery("curate", "no.yaml"), 2, "no.yaml cannot be read")


def test_an_unknown_encoder(discovery, tiny_pictures):
    assert refused(discovery("run", tiny_pictures, "--encoder", "resnet5O"), 2, "No encoder named 'resnet5O'")


def test_weights_that_are_not_there(discovery, tiny_pictures):
    answer = discovery("run", tiny_pictures, "--encoder", "resnet10t", "--weights", "/nowhere.safetensors")
    assert refused(answer, 2, "/nowhere.safetensors do not exist")


def test_an_unknown_setting(discovery, tmp_path):
    (tmp_path / "discovery.toml").write_text("[encoder]\nnmae = 'default'\n")
    assert refused(discovery("versions"), 2, "discovery.toml", "encoder.nmae", 'Did you mean "name"')


def test_an_unknown_variable(discovery, monkeypatch):
    monkeypatch.setenv("DISCOVERY_DASK__WROKERS", "2")
    assert refused(discovery("versions"), 2, "DISCOVERY_DASK__WROKERS", 'Did you mean "workers"')


def test_a_catalog_url_that_is_nonsense(discovery, monkeypatch):
    monkeypatch.setenv("DISCOVERY_CATALOG__URL", "nonsense")
    assert refused(discovery("versions"), 2, "catalog.url is not usable")


def test_a_catalog_that_does_not_answer(discovery, monkeypatch):
    monkeypatch.setenv("DISCOVERY_CATALOG__URL", "postgresql://u:secret@127.0.0.1:1/x")
    answer = discovery("versions")
    assert refused(answer, 1, "refused", "catalog.url") and "secret" not in answer[2]


def test_a_scheduler_that_does_not_answer(discovery, monkeypatch, tiny_pictures):
    monkeypatch.setenv("DISCOVERY_DASK__TIMEOUT_S", "1")
    answer = discovery("check", "--scheduler", "tcp://127.0.0.1:1", root=None)
    assert refused(answer, 2, "Nothing was ingested")
    assert discovery("ingest", tiny_pictures)[0] == 0
    assert refused(discovery("check", "--scheduler", "tcp://127.0.0.1:1"), 1, "scheduler tcp://127.0.0.1:1 does not answer")


def test_no_index_and_no_manifest_yet(discovery):
    assert refused(discovery("search", "--asset", "abcd"), 2, "There is no index")
    assert refused(discovery("embed"), 2, "Nothing was ingested")


def test_an_unknown_asset_and_other_wrong_searches(discovery, indexed, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    assert refused(discovery("search", "--asset", "f" * 64, root=indexed), 2, "No indexed asset has the id")
    assert refused(discovery("search", root=indexed), 2, "Nothing to search for")
    assert refused(discovery("search", "--image", "none.jpg", root=indexed), 2, "none.jpg does not exist")
    assert refused(discovery("search", "--image", "text.jpg", root=indexed), 2, "unsupported_format")
    assert refused(discovery("verify", "ffff", root=indexed), 2, "No record starts with")


def test_a_corrupt_index_segment_is_noticed_at_search(discovery, indexed, tmp_path):
    from discovery.stages.index import _load_segment

    root = tmp_path / "copy"
    shutil.copytree(indexed, root)
    (file,) = (root / "artifacts" / "segment").glob("*/segment-*.bin")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    _load_segment.cache_clear()
    asset_id = next((root / "assets").glob("*/*/*")).name
    assert refused(discovery("search", "--asset", asset_id, root=root), 1, "expected SHA-256", file.name)
    code, out, _ = discovery("verify", "--json", root=root)
    assert code == 1 and [Path(path).name for path in json.loads(out)["corrupt"]] == [file.name]


def test_wrong_usage_ends_with_2(discovery):
    for arguments in (["nonsense"], ["run"], ["search", "-k", "many"]):
        code, _, err = discovery(*arguments)
        assert code == 2 and "Traceback" not in err


def test_a_disk_that_is_full_leaves_nothing_half_written(tmp_path):
    limit = 300_000  # bytes a file; the picture has 1.4 MB of noise, the catalog about 0.1 MB
    (tmp_path / "big").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)).save(tmp_path / "big" / "noise.png")
    root = tmp_path / "root"
    command = [sys.executable, "-m", "discovery.cli", "ingest", str(tmp_path / "big"), "--root", str(root)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr and "no space left" in done.stderr
    assert not [path for path in root.rglob("*") if path.name.startswith(".tmp-") or path.parent.name == "assets"]
    with open_workspace(Config(root=str(root))) as ws:
        assert ws.catalog.records("ingest") == [] and list(ws.store.files.walk("assets")) == []


@pytest.fixture
def refusing_server(monkeypatch):
    """An S3 server that answers every request with AccessDenied."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>no</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    server = HTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_wrong_credentials(discovery, refusing_server, monkeypatch):
    monkeypatch.setenv("DISCOVERY_S3__ENDPOINT_URL", refusing_server)
    assert refused(discovery("ingest", "s3://private/x"), 2, "access denied", "credentials")
    assert refused(discovery("versions", root="s3://private/x"), 2, "access denied")


@pytest.mark.live
def test_a_missing_bucket(discovery, moto_endpoint, monkeypatch):
    monkeypatch.setenv("DISCOVERY_S3__ENDPOINT_URL", moto_endpoint)
    assert refused(discovery("ingest", "s3://nowhere-at-all/x"), 2, "does not exist", "s3://nowhere-at-all/x")


KEYS = {
    "ingest": "manifest_id assets new_assets rejected rejections",
    "check": "report_id passed failed_expectations",
    "embed": "encoder_id dim embedded reused images_per_s",
    "dedupe": "report_id exact_groups near_groups groups",
    "score": "report_id candidates novel shifted top",
    "index": "index_id elements segments ef_search recall_at_10 recall_lower_bound",
    "versions": "versions",
    "verify": "checked corrupt missing",
    "gc": "removed bytes",
}


@pytest.mark.parametrize("command", KEYS)
def test_an_answer_in_json_has_the_keys_of_the_interface(command, discovery, indexed, tiny_pictures):
    code, out, err = discovery(command, *([tiny_pictures] if command == "ingest" else []), "--json", root=indexed)
    assert code == 0, err
    assert set(KEYS[command].split()) <= set(json.loads(out)) and out.count("\n") == 1


def test_run_and_search_in_json(discovery, indexed, tiny_pictures):
    code, out, _ = discovery("run", tiny_pictures, "--no-curate", "--json", root=indexed)
    run = json.loads(out)
    keys = "manifest_id assets new_assets rejected duplicate_groups quality_passed novel index_id recall_at_10 recall_lower_bound seconds"
    assert code == 0 and set(keys.split()) <= set(run) and (run["assets"], run["new_assets"], run["rejected"]) == (12, 0, 0)
    code, out, _ = discovery("search", "--image", tiny_pictures / "03.png", "-k", 3, "--json", root=indexed)
    results = json.loads(out)["results"]
    assert code == 0 and len(results) == 3 and results[0].keys() == {"asset_id", "source_uri", "distance"}
    assert Path(results[0]["source_uri"]).name == "03.png" and results[0]["distance"] < 1e-5
    code, out, _ = discovery("index", "--audit", "--json", root=indexed)
    assert json.loads(out)["recall_at_10"] == 1.0 and code in (0, 1)  # 12 queries prove little: 1 when the bound is under target


def test_too_many_rejections_end_with_3(discovery, tmp_path, tiny_pictures):
    shutil.copytree(tiny_pictures, tmp_path / "some")
    (tmp_path / "some" / "empty.png").write_bytes(b"")
    assert discovery("ingest", tmp_path / "some", "--max-rejected", 1)[0] == 0
    code, _, err = discovery("ingest", tmp_path / "some", "--max-rejected", 0)
    assert code == 3 and "1 rejections, more than --max-rejected 0" in err


def test_readable_output_without_json(discovery, indexed):
    code, out, _ = discovery("verify", root=indexed)
    assert code == 0 and "checked" in out and not out.startswith("{")
