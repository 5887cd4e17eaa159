"""Every wrong input ends with its exit code and one clear message, never a traceback; every --json answer has its keys."""

import json
import os
import resource
import subprocess
import sys
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


def test_a_spec_that_is_not_there(discovery):
    assert refused(discovery("curate", "no.yaml"), 2, "no.yaml cannot be read")


def test_an_unknown_variable(discovery, monkeypatch):
    monkeypatch.setenv("DISCOVERY_DASK__WROKERS", "2")
    assert refused(discovery("versions"), 2, "DISCOVERY_DASK__WROKERS", 'Did you mean "workers"')


def test_a_catalog_that_does_not_answer(discovery, monkeypatch):
    monkeypatch.setenv("DISCOVERY_CATALOG__URL", "postgresql://u:secret@127.0.0.1:1/x")
    answer = discovery("versions")
    assert refused(answer, 1, "refused", "catalog.url") and "secret" not in answer[2]


def test_an_unknown_asset_and_other_wrong_searches(discovery, indexed, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    assert refused(discovery("search", "--asset", "f" * 64, root=indexed), 2, "No indexed asset has the id")
    assert refused(discovery("search", root=indexed), 2, "Nothing to search for")
    assert refused(discovery("search", "--image", "none.jpg", root=indexed), 2, "none.jpg does not exist")
    assert refused(discovery("search", "--image", "text.jpg", root=indexed), 2, "unsupported_format")
    assert refused(discovery("search", "--image", "none.jpg", "--box", "1,2,3", root=indexed), 2, "A box is x,y,w,h in pixels")
    assert refused(discovery("verify", "ffff", root=indexed), 2, "No record starts with")


def test_a_search_by_a_part_tells_where_and_regions_are_computed_once(discovery, indexed, tiny_pictures):
    picture = sorted(tiny_pictures.iterdir())[3]
    code, out, err = discovery("search", "--image", picture, "--box", "8,6,40,30", "-k", "3", "--json", root=indexed)
    answer = json.loads(out)
    assert code == 0 and "12 of 12 assets are described for the first time, which is kept" in err
    assert [set(row) for row in answer["results"]] == [{"asset_id", "source_uri", "distance", "box"}] * 3
    for x, y, width, height in (row["box"] for row in answer["results"]):
        assert x >= 0 and y >= 0 and x + width <= 64 and y + height <= 48
    code, out, _ = discovery("regions", "--json", root=indexed)
    described = json.loads(out)
    assert (code, described["described"], described["reused"]) == (0, 0, 12) and described["bytes"] > 12 * 432
    assert "@regions-" in described["region_encoder_id"]
    code, out, _ = discovery("search", "--image", picture, "--box", "8,6,40,30", "--whole", "-k", "1", "--json", root=indexed)
    assert code == 0 and set(json.loads(out)["results"][0]) == {"asset_id", "source_uri", "distance"}
    assert discovery("search", "--image", picture, "--region", "--json", root=indexed)[0] == 0


def test_what_a_search_by_a_part_cannot_take_is_said(discovery, indexed, monkeypatch):
    for arguments in (["--region", "--whole"], ["--region", "--unlike", "abcd"], ["--box", "0,0,5,5", "--text", "a dog"], ["--region", "--rerank", "20"]):
        assert refused(discovery("search", "--image", "some.jpg", *arguments, root=indexed), 2, "A search by parts of pictures goes with")
    monkeypatch.setenv("DISCOVERY_REGIONS__AT_SEARCH", "0")
    monkeypatch.setenv("DISCOVERY_REGIONS__CANVAS_PX", "320")
    asset = next(path.name for path in Path(indexed, "assets").rglob("?" * 64))
    assert refused(discovery("search", "--asset", asset, "--region", root=indexed), 2, "11 of 11 assets have no regions yet", "discovery regions")


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
    assert not [path for path in root.rglob("*") if path.is_file() and path.name.startswith(".tmp-")]
    with open_workspace(Config(root=str(root))) as ws:
        assert ws.catalog.records("ingest") == [] and list(ws.store.files.walk("assets")) == []


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
    "regions": "region_encoder_id described reused bytes",
    "versions": "versions",
    "verify": "checked corrupt missing",
    "gc": "removed bytes running",
    "reindex-catalog": "records names heads versions corrupt",
}


def test_readable_output_without_json(discovery, indexed):
    code, out, _ = discovery("verify", root=indexed)
    assert code == 0 and "checked" in out and not out.startswith("{")
