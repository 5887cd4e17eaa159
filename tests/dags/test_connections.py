"""S3 credentials from an Airflow connection: they open the bucket, in worker processes too, and show nowhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3fs

from discovery.airflow import tasks
from discovery.airflow.connections import configured, scheduler_address
from discovery.config import Config, load_config
from discovery.errors import ConfigError
from discovery.stages.check import check
from discovery.stages.ingest import ingest
from discovery.stages.verify import verify
from discovery.workspace import open_workspace
from tests.ingest.faulty_s3 import FaultyS3

KEY, SECRET, TOKEN = "PHOTOGRAPHER", "do-not-show-this", "nor-this"


@pytest.fixture
def guarded(moto_endpoint: str, tiny_pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A server that knows one access key, which nothing in the environment holds; a bucket of pictures and one for a root."""
    filesystem = s3fs.S3FileSystem(client_kwargs={"endpoint_url": moto_endpoint})
    for name in ("camera", "team"):
        filesystem.mkdir(name)
    filesystem.pipe({f"camera/{path.name}": path.read_bytes() for path in tiny_pictures.iterdir()})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("DISCOVERY_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("DISCOVERY_DASK__SCHEDULER", "inline")
    monkeypatch.setenv("DISCOVERY_S3__AIRFLOW_CONNECTION", "photos")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    with FaultyS3(moto_endpoint, signed_by=KEY) as server:
        yield server


def connect(monkeypatch: pytest.MonkeyPatch, server: FaultyS3, **changes: object) -> None:
    """The connection as a variable, which Airflow's first secrets backend reads."""
    extra = {"endpoint_url": server.url, "region_name": "eu-central-1"}
    connection = {"conn_type": "aws", "login": KEY, "password": SECRET, "extra": extra} | changes
    monkeypatch.setenv("AIRFLOW_CONN_PHOTOS", json.dumps(connection))


@pytest.mark.live
def test_a_task_reads_a_bucket_with_the_connection_alone(
    guarded: FaultyS3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    connect(monkeypatch, guarded)
    caplog.set_level(logging.DEBUG)
    manifest = tasks.ingest({"source": "s3://camera"})
    assert (manifest["assets"], manifest["rejections"]) == (12, {})
    assert SECRET not in caplog.text + json.dumps(manifest)
    kept = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert kept and not [path for path in kept if SECRET.encode() in path.read_bytes()]


@pytest.mark.live
def test_another_key_is_refused(guarded: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    connect(monkeypatch, guarded, login="SOMEBODY")
    with pytest.raises(AirflowFailException, match="camera"):
        tasks.ingest({"source": "s3://camera"})


@pytest.mark.live
def test_worker_processes_get_them_with_the_work(guarded: FaultyS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("DISCOVERY_ROOT", "s3://team/store")
    connect(monkeypatch, guarded)
    config = configured().replace(dask={"scheduler": "", "workers": 1}, ingest={"store_bytes": False})
    with open_workspace(config) as ws:
        measured = check(ingest(["s3://camera"], ws), ws)
        assert (measured.assets, measured.passed) == (12, True)
        found = verify(ws)
        assert not found.corrupt and not found.missing


def test_a_connection_fills_what_it_holds_and_leaves_the_rest(guarded: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCOVERY_S3__TIMEOUT_S", "5")
    monkeypatch.setenv("DISCOVERY_S3__REGION", "us-west-2")
    extra = {"aws_session_token": TOKEN, "service_config": {"s3": {"endpoint_url": "http://s3.example"}}, "endpoint_url": "http://any.example"}
    connect(monkeypatch, guarded, extra=extra)
    s3 = configured().s3
    assert (s3.access_key_id, s3.secret_access_key.get_secret_value(), s3.session_token.get_secret_value()) == (KEY, SECRET, TOKEN)
    assert (s3.endpoint_url, s3.region, s3.timeout_s) == ("http://s3.example", "us-west-2", 5)
    connect(monkeypatch, guarded, login=None, password=None, extra={})
    assert configured() == load_config()  # the usual chain


@pytest.mark.parametrize("extra", [{"role_arn": "arn:aws:iam::1:role/reader"}, {"profile_name": "reader"}])
def test_a_connection_whose_credentials_would_expire_is_refused(extra: dict[str, str], guarded: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    connect(monkeypatch, guarded, extra=extra)
    with pytest.raises(AirflowFailException, match=f"'photos': {next(iter(extra))} is not used"):
        tasks.ingest({"source": "s3://camera"})


def test_a_connection_that_is_not_there_fails_without_a_retry(guarded: FaultyS3) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"no such connection\. Add it under Admin .* AIRFLOW_CONN_PHOTOS"):
        tasks.ingest({"source": "s3://camera"})


def test_no_text_form_of_the_settings_shows_a_secret() -> None:
    config = Config().replace(s3={"access_key_id": KEY, "secret_access_key": SECRET, "session_token": TOKEN})
    assert config.replace(root="elsewhere").s3.secret_access_key.get_secret_value() == SECRET
    for text in (repr(config), str(config), config.model_dump_json(), str(config.identity()), str(config.model_dump())):
        assert SECRET not in text and TOKEN not in text
    with pytest.raises(ConfigError) as refused:
        Config().replace(s3={"secret_access_key": [SECRET]})
    assert SECRET not in str(refused.value) and refused.value.__cause__ is None


@pytest.mark.parametrize("given", [{"access_key_id": KEY}, {"secret_access_key": SECRET}, {"session_token": TOKEN}])
def test_half_of_a_pair_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"s3\..* (together|needs)"), open_workspace(Config().replace(root="s3://team/store", s3=given)):
        pass


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({"conn_type": "generic", "host": "dask.example"}, "tcp://dask.example:8786"),
        ({"conn_type": "generic", "host": "dask.example", "port": 9000, "schema": "tls"}, "tls://dask.example:9000"),
        ({"conn_type": "generic", "host": "tls://dask.example:8787"}, "tls://dask.example:8787"),
    ],
)
def test_the_dask_scheduler_may_be_a_connections(fields: dict[str, object], address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_WORKERS", json.dumps(fields))
    monkeypatch.setenv("DISCOVERY_DASK__AIRFLOW_CONNECTION", "workers")
    monkeypatch.setenv("DISCOVERY_DASK__SCHEDULER", "inline")
    assert configured().dask.scheduler == address
    assert load_config().dask.scheduler == "inline"  # outside of Airflow


def test_a_scheduler_connection_that_is_missing_or_says_nothing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from airflow.sdk import Connection

    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("DISCOVERY_DASK__AIRFLOW_CONNECTION", "nowhere")
    with pytest.raises(ConfigError, match=r"dask.airflow_connection = 'nowhere': Airflow has no such connection"):
        configured()
    with pytest.raises(ConfigError, match="has no host"):
        scheduler_address(Connection(conn_id="empty", conn_type="generic"), "empty")
