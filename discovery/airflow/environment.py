"""The environment our Airflow runs in: local settings, generated secrets, nothing that leaves 127.0.0.1."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from discovery.config import Config

USERS = {"admin": "admin", "viewer": "viewer"}  # login to role


@dataclass(frozen=True, slots=True)
class Secrets:
    """Made once, kept with mode 600 in the home of the stack."""

    jwt: str
    api: str
    fernet: str
    passwords: dict[str, str]


def load_secrets(home: Path) -> Secrets:
    """The secrets of a home, made on the first call."""
    file = home / "secrets.json"
    if not file.is_file():
        home.mkdir(parents=True, exist_ok=True)
        made = {
            "jwt": secrets.token_urlsafe(96),  # PyJWT warns under 64 bytes for HS512
            "api": secrets.token_urlsafe(32),
            "fernet": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "passwords": {user: secrets.token_urlsafe(9) for user in USERS},
        }
        write_private(file, json.dumps(made))
    data = json.loads(file.read_text())
    return Secrets(data["jwt"], data["api"], data["fernet"], data["passwords"])


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
    temporary.replace(file)


def project_folder(name: str) -> Path:
    """dags/ or plugins/ of the checkout this package is in."""
    return Path(__file__).parents[2] / name


def airflow_environment(home: Path, config: Config, port: int, base: Mapping[str, str]) -> dict[str, str]:
    """Variables for every Airflow component. What `base` sets already wins, so that a deployment can differ.

    Source: shared knowledge of Airflow 3.3.2; each line was run.
    """
    made = load_secrets(home)
    password_file = home / "airflow" / "passwords.json"
    password_file.parent.mkdir(parents=True, exist_ok=True)
    write_private(password_file, json.dumps(made.passwords))
    settings = {
        "AIRFLOW_HOME": str(home / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(project_folder("dags")),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(project_folder("plugins")),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",  # the default of 32 forks 32 idle workers
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__FERNET_KEY": made.fernet,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(password_file),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}/",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": made.api,
        "AIRFLOW__API_AUTH__JWT_SECRET": made.jwt,
        "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME": "86400",  # long tasks on a loaded machine outlive the default of 600 s
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",  # how soon a killed task is noticed
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "20",  # tasks of a killed scheduler: with the default they hang for 300 s
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "NO_COLOR": "1",
        "PYTHONWARNINGS": "ignore",
    }
    kept = {name: value for name, value in base.items() if name in settings and name.startswith("AIRFLOW__")}
    kept.pop("AIRFLOW__API__PORT", None)  # a preference that `port` has heeded already, as far as it was free
    return {**base, **settings, **kept, **discovery_environment(config)}


def discovery_environment(config: Config) -> dict[str, str]:
    """Our own settings as variables, so that every process works in the same place."""
    root = config.root if config.is_remote else str(config.local_folder)
    file = Path(os.environ.get("DISCOVERY_CONFIG") or "discovery.toml").absolute()  # services work in another folder
    settings = {
        "DISCOVERY_CONFIG": str(file) if file.is_file() else "",
        "DISCOVERY_ROOT": root,
        "DISCOVERY_DASK__SCHEDULER": config.dask.scheduler,
        "DISCOVERY_MLFLOW__TRACKING_URI": config.mlflow.tracking_uri,
        "DISCOVERY_MLFLOW__PUBLIC_URL": config.mlflow.public_url,
        "DISCOVERY_CATALOG__URL": config.catalog.url,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONUNBUFFERED": "1",
    }
    return {name: value for name, value in settings.items() if value}
