"""Two runs at once on one root: both end well, what they make fits together, and nothing is wrong afterwards."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from benchmarks.kill_chain import PICTURES, differences, finish, start
from discovery.config import Config
from discovery.stages.verify import verify
from discovery.types import EmbeddingShard, IndexSnapshot
from discovery.workspace import open_workspace
from tests.contracts.postgres import postgres
from tests.contracts.s3_server import CREDENTIALS
from tests.contracts.seaweedfs import SeaweedFS

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]
ROOT = "s3://team/root"


def answers(both: list[subprocess.Popen[str]]) -> list[dict[str, str]]:
    """What the runs printed, once they have ended well."""
    ended = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(err for _, err in ended)
    return [json.loads(out) for out, _ in ended]


def test_two_runs_at_once_on_one_root_agree(chain_pictures: Path, undisturbed: dict[str, object], tmp_path: Path) -> None:
    one, other = answers([start(chain_pictures, tmp_path / "root") for _ in range(2)])
    assert [one[name] for name in ("digest", "version", "mlflow_run_id")] == [other[name] for name in ("digest", "version", "mlflow_run_id")]
    assert differences(Config(root=str(tmp_path / "root")), one, undisturbed) == []


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What two hosts have in common: a bucket of SeaweedFS for the root, and PostgreSQL over TCP for the catalog."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "weed").mkdir()
    with SeaweedFS(tmp_path / "weed") as server, postgres() as catalog:
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem(client_kwargs={"endpoint_url": server.url}).mkdir("team")
        yield {"DISCOVERY_S3__ENDPOINT_URL": server.url, "DISCOVERY_CATALOG__URL": catalog, **CREDENTIALS}


def host(name: str, shared: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The variables of a host: nothing that lies in a home, a state folder or a temporary folder is the other's."""
    own = {variable: tmp_path / name / variable for variable in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "TMPDIR")}
    for folder in own.values():
        folder.mkdir(parents=True)
    return shared | {variable: str(folder) for variable, folder in own.items()}


def test_two_hosts_at_once_on_sources_that_overlap(chain_pictures: Path, shared: dict[str, str], tmp_path: Path) -> None:
    """Host a has pictures 0 to 31, host b 16 to 47. The 16 that both have may be computed on both, but count once everywhere."""
    for name, numbers in (("a", range(32)), ("b", range(16, PICTURES))):
        (tmp_path / f"photos {name}").mkdir()
        for number in numbers:
            shutil.copy(chain_pictures / f"{number:02}.png", tmp_path / f"photos {name}")
    hosts = {name: host(name, shared, tmp_path) for name in "ab"}
    both = answers([start(tmp_path / f"photos {name}", ROOT, environ) for name, environ in hosts.items()])
    config = Config(root=ROOT).replace(
        catalog={"url": shared["DISCOVERY_CATALOG__URL"]}, s3={"endpoint_url": shared["DISCOVERY_S3__ENDPOINT_URL"]}
    )
    with open_workspace(config, map_shards=map) as ws:
        found = verify(ws)
        assert (found.corrupt, found.missing) == ([], [])
        versions = {f"{row.name}@{row.number}": row.digest for row in ws.catalog.versions()}
        assert versions == {answer["version"]: answer["digest"] for answer in both} and sorted(versions) == ["discovered@1", "discovered@2"]
        (head,) = ws.catalog.heads()
        snapshot = ws.store.load_record(IndexSnapshot, head.snapshot_id)
        assert (snapshot.elements, head.generation) == (PICTURES, 2)  # each asset is indexed once
        vectors = defaultdict(list)
        for shard in ws.store.records([EmbeddingShard.stage]):
            for row in ws.store.read_table(shard).to_pylist():
                vectors[row["asset_id"]].append(row["vector"])
        assert len(vectors) == PICTURES and sum(map(len, vectors.values())) <= PICTURES + 16
        assert all(one == vector for one, *others in vectors.values() for vector in others)
        shards = ws.store.committed_keys(EmbeddingShard.stage)
        finish(tmp_path / "photos a", ROOT, hosts["a"])
        assert ws.store.committed_keys(EmbeddingShard.stage) == shards  # whoever runs again embeds nothing
