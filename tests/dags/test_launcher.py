"""The launcher's parts: ports, secrets, processes that are found again."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from discovery.airflow.environment import airflow_environment, load_secrets
from discovery.airflow.launcher import Stack
from discovery.airflow.processes import MARKER, Service, ServiceDied, free_port, sweep_marked
from discovery.airflow.tasks import settings_of, slug, sources_of_form, spec_of_form
from discovery.config import Config
from discovery.errors import ConfigError, SpecError


def test_an_occupied_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < free_port(port) <= port + 199


def test_secrets_are_made_once_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    first, second = load_secrets(tmp_path), load_secrets(tmp_path)
    assert first == second
    assert len(first.jwt) >= 64  # under 64 bytes PyJWT warns for HS512
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_airflow_listens_on_loopback_and_a_deployment_can_override(tmp_path: Path) -> None:
    given = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://x", "AIRFLOW__CORE__PARALLELISM": "9"}
    made = airflow_environment(tmp_path, Config(root=str(tmp_path)), 8099, given)
    assert made["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert made["AIRFLOW__CORE__PARALLELISM"] == "9"
    assert made["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == "postgresql://x"
    passwords = Path(made["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    assert stat.S_IMODE(passwords.stat().st_mode) == 0o600
    assert set(json.loads(passwords.read_text())) == {"admin", "viewer"}


def test_a_sweep_ends_a_process_and_its_grandchild(tmp_path: Path) -> None:
    code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True); time.sleep(60)"
    mark = str(tmp_path)
    service = Service("sleeper", [sys.executable, "-c", code], {**os.environ, MARKER: mark}, tmp_path / "log", tmp_path)
    deadline = time.monotonic() + 20
    while len(_marked(mark)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sweep_marked(mark) == 2
    service.wait(5)
    assert _marked(mark) == []


def _marked(mark: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_a_dead_component_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    service = Service(
        "broken",
        [sys.executable, "-c", "print('the reason', flush=True); raise SystemExit(3)"],
        os.environ,
        tmp_path / "l",
        tmp_path,
    )
    service.wait(20)
    with pytest.raises(ServiceDied, match=r"(?s)code 3.*the reason"):
        service.require_alive()


def test_two_stacks_of_one_home_are_refused(tmp_path: Path) -> None:
    first, second = Stack(Config(root=str(tmp_path))), Stack(Config(root=str(tmp_path)))
    first._take_lock()
    with pytest.raises(ConfigError, match="already"):
        second._take_lock()
    first.stop()


def test_the_launcher_module_imports_nothing_that_computes() -> None:
    code = "import sys, discovery.airflow.launcher; print(sorted({'torch', 'mlflow', 'dask', 'great_expectations'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-W", "ignore", "-c", code], text=True).strip() == "[]"


def test_the_form_overrides_only_what_is_filled_in() -> None:
    assert settings_of({"fdr": 0.2, "encoder": "", "weights": None}) == {"novelty": {"fdr": 0.2}}
    assert sources_of_form("/a\ns3://b/c, /d") == ["/a", "s3://b/c", "/d"]
    assert slug("manual__2026-01-01T00:00:00+00:00") == "manual-2026-01-01T00-00-00-00-00"


def test_a_spec_in_the_form_replaces_name_and_budget() -> None:
    spec = spec_of_form({"collection": "x", "budget": 3, "spec": "name: y\nbudget: 5", "budget_override": 7})
    assert (spec.name, spec.budget) == ("y", 7)
    with pytest.raises(SpecError, match=r'form: spec:2: unknown key bugdet\. Did you mean "budget"'):
        spec_of_form({"spec": "name: y\nbugdet: 5"})
