"""Bad input at the command line: one clear message with the next step, the exit code of the interface, nothing half-written."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from discovery.cli import main

KEYS = {
    "run": {
        "manifest_id", "assets", "new_assets", "rejected", "duplicate_groups", "quality_passed", "novel", "index_id", "recall_at_10",
        "recall_lower_bound", "seconds",
    },
    "ingest": {"manifest_id", "assets", "new_assets", "rejected", "rejections"},
    "check": {"report_id", "passed", "failed_expectations"},
    "embed": {"encoder_id", "dim", "embedded", "reused", "images_per_s"},
    "dedupe": {"report_id", "exact_groups", "near_groups", "groups"},
    "score": {"report_id", "candidates", "novel", "shifted", "top"},
    "index": {"index_id", "elements", "segments", "ef_search", "recall_at_10", "recall_lower_bound"},
    "regions": {"region_encoder_id", "described", "reused", "bytes"},
    "search": {"results", "latency_ms"},
    "curate": {"version_id", "name", "number", "digest", "assets", "splits", "optimality_bound", "leaked", "mlflow_run_id"},
    "versions": {"versions"},
    "verify": {"checked", "corrupt", "missing"},
    "gc": {"removed", "bytes", "running"},
    "reindex-catalog": {"records", "names", "heads", "versions", "corrupt"},
    "doctor": {"checks"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("DISCOVERY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DISCOVERY_DASK__SCHEDULER", "inline")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(5)
    for number in range(24):
        coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


@pytest.fixture(scope="module")
def root(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("root") / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISCOVERY_DASK__SCHEDULER", "inline")
        assert main(["run", str(photos), "--root", root]) == 0
    return root


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and message of a command that must fail, without a traceback and with nothing on stdout."""
    code = main(list(arguments))
    output = capsys.readouterr()
    assert output.out == "" and "Traceback" not in output.err
    lines = [line for line in output.err.splitlines() if line.startswith("discovery: ")]
    assert len(lines) == 1
    return code, lines[0]


def nothing_written(root: Path) -> bool:
    return not (root / "artifacts").exists() and not (root / "assets").exists()


def test_a_missing_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, message = failure(capsys, "run", str(tmp_path / "nowhere"), "--root", str(tmp_path / "r"))
    assert code == 2 and "nowhere does not exist. Check the spelling" in message and nothing_written(tmp_path / "r")


def test_an_empty_source(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, message = failure(capsys, "ingest", str(tmp_path / "empty"), "--root", str(tmp_path / "r"))
    assert code == 2 and "is empty: nothing to ingest" in message and nothing_written(tmp_path / "r")


class _S3(BaseHTTPRequestHandler):
    code, error = 403, "AccessDenied"

    def do_GET(self) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{self.error}</Code><Message>no</Message></Error>".encode()
        self.send_response(self.code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_HEAD = do_PUT = do_GET  # noqa: N815 - names that http.server asks for

    def log_message(self, format: str, *arguments: object) -> None:
        return


@pytest.fixture(params=[("403", "AccessDenied", "access denied"), ("404", "NoSuchBucket", "does not exist")], ids=lambda p: p[1])
def refusing_s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server of the outside world that refuses everything; the words that the message must have."""
    code, error, words = request.param
    handler = type("Handler", (_S3,), {"code": int(code), "error": error})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("DISCOVERY_S3__ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    yield words
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_bucket_that_is_missing_or_refuses_the_credentials(
    refusing_s3: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, message = failure(capsys, "run", "s3://photos/2026", "--root", str(tmp_path / "r"))
    assert code == 2 and refusing_s3 in message and nothing_written(tmp_path / "r")
    assert "wrong" not in message


def test_a_spec_with_a_typo_is_refused_before_any_work(root: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: cats\nbugdet: 10\n")
    code, message = failure(capsys, "curate", str(spec), "--root", root)
    assert code == 2 and message == f'discovery: {spec}:2: unknown key bugdet. Did you mean "budget"?'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: cats\nbudget: -1\n", ":2: budget: expected a number above 0, found -1"),
        ("name: cats\nbudget: 5\nselect:\n  methd: random\n", ':4: unknown key select.methd. Did you mean "method"?'),
        ("name: cats\nbudget: 5\nsplits: {train: 0.5}\n", "sum to 1"),
        ("name: [\n", "not valid YAML"),
        ("budget: 5\n", "name is missing"),
    ],
)
def test_a_bad_spec_names_line_and_expectation(
    root: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, words: str
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    code, message = failure(capsys, "curate", str(spec), "--root", root)
    assert code == 2 and words in message


def test_an_encoder_that_does_not_exist(photos: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, message = failure(capsys, "run", str(photos), "--encoder", "resnet5", "--root", str(tmp_path / "r"))
    assert code == 2 and "No encoder named 'resnet5'" in message and "cspresnet50" in message
    assert not (tmp_path / "r" / "artifacts" / "embed_shard").exists()


def test_weights_that_do_not_exist(photos: Path, root: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = failure(capsys, "embed", "--encoder", "resnet18", "--weights", "/nowhere.safetensors", "--root", root)
    assert code == 2 and "/nowhere.safetensors do not exist" in message


def test_a_corrupt_index_file(root: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    segment = next(Path(root, "artifacts", "segment").rglob("vectors-*.arrow"))
    good = segment.read_bytes()
    capsys.readouterr()
    assert main(["versions", "--root", root, "--json"]) == 0
    assert main(["score", "--root", root, "--json"]) == 0
    some = next(iter(Path(root, "assets").rglob("?" * 64))).name
    capsys.readouterr()
    segment.write_bytes(good[:200] + b"\xff" + good[201:])
    try:
        code, message = failure(capsys, "search", "--asset", some, "--root", root)
        assert code == 1 and "expected SHA-256" in message and "discovery verify" in message
        assert main(["verify", "--root", root, "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["corrupt"] == [segment.relative_to(root).as_posix()]
    finally:
        segment.write_bytes(good)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["search", "--asset", "ffffffff"], 2, "No indexed asset has the id"),
        (["search"], 2, "Nothing to search for"),
        (["search", "--image", "/nowhere.jpg"], 2, "does not exist"),
        (["check", "--manifest", "zzzz"], 2, "is not an id"),
        (["score", "--reference", "nobody@1"], 2, "No version nobody@1"),
        (["score", "--fdr", "3"], 2, "novelty.fdr = 3.0: Input should be less than 1"),
    ],
)
def test_names_that_are_not_there(
    root: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    found, message = failure(capsys, *arguments, "--root", root)
    assert found == code and words in message


def test_a_picture_that_is_none_as_query(root: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    code, message = failure(capsys, "search", "--image", str(tmp_path / "text.jpg"), "--root", root)
    assert code == 2 and "unsupported_format" in message


def test_a_root_without_an_index(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, message = failure(capsys, "search", "--asset", "abcd", "--root", str(tmp_path / "new"))
    assert code == 2 and "Run `discovery run SOURCE` first" in message


def test_an_unknown_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path("discovery.toml").write_text("[novelty]\nfdr_level = 0.2\n")
    code, message = failure(capsys, "versions", "--root", str(tmp_path / "r"))
    assert code == 2 and "discovery.toml: unknown setting novelty.fdr_level" in message
    Path("discovery.toml").unlink()
    monkeypatch.setenv("DISCOVERY_CATALOG__URL", "mysql://x/y")
    code, message = failure(capsys, "versions", "--root", str(tmp_path / "r"))
    assert code == 2 and "catalog.url" in message


def test_a_scheduler_that_does_not_answer(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DISCOVERY_DASK__TIMEOUT_S", "2")
    code, message = failure(capsys, "run", str(photos), "--scheduler", "tcp://127.0.0.1:9", "--root", str(tmp_path / "r"))
    assert code == 1 and "does not answer" in message and "leave dask.scheduler empty" in message


def test_mlflow_that_does_not_answer_loses_nothing(
    root: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text("name: later\nbudget: 3\n")
    with monkeypatch.context() as patch:
        patch.setenv("DISCOVERY_MLFLOW__TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        code, message = failure(capsys, "curate", str(spec), "--root", root)
        assert code == 1 and "nothing is lost" in message
    assert main(["curate", str(spec), "--root", root, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["number"] == 1


def test_more_rejections_than_allowed_is_exit_code_3(photos: Path, root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", str(photos), "--max-rejected", "0", "--root", root, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["rejections"][0]["reason"] == "corrupt"
    assert main(["ingest", str(photos), "--max-rejected", "1", "--root", root]) == 0


@pytest.mark.parametrize("command", sorted(KEYS))
def test_json_has_the_keys_of_the_interface(
    command: str, photos: Path, root: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text("name: three\nbudget: 3\n")
    some = next(iter(Path(root, "assets").rglob("?" * 64))).name
    arguments = {"run": [str(photos)], "ingest": [str(photos)], "search": ["--asset", some, "-k", "3"], "curate": [str(spec)]}
    capsys.readouterr()
    assert main([command, *arguments.get(command, []), "--root", root, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert KEYS[command] <= set(answer)
    if command == "search":
        assert [set(row) for row in answer["results"]] == [{"asset_id", "source_uri", "distance"}] * 3


def test_a_run_names_the_mlflow_run_of_its_version(photos: Path, root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(photos), "--root", root, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert main(["versions", "--root", root, "--json"]) == 0
    versions = json.loads(capsys.readouterr().out)["versions"]
    assert answer["mlflow_run_id"] in [row["mlflow_run_id"] for row in versions if f"{row['name']}@{row['number']}" == answer["version"]]
