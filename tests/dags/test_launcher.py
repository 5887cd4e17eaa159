"""The launcher's parts: ports, secrets, processes that are found again."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from discovery.airflow.environment import airflow_environment, load_secrets
from discovery.airflow.launcher import Stack, main, undisturbed
from discovery.airflow.processes import MARKER, Service, ServiceDied, claim_port, find_processes, free_port, sweep_marked
from discovery.airflow.state import Session, read_state, sessions_left, write_state
from discovery.airflow.tasks import settings_of, slug, sources_of_form, spec_of_form
from discovery.config import Config
from discovery.errors import ConfigError, DiscoveryError, SpecError
from discovery.workspace import Workspace

SLEEP = "import time; time.sleep(60)"
RENAMED = f"import setproctitle; setproctitle.setproctitle('another name'); {SLEEP}"  # as Airflow's and Dask's processes do


def test_an_occupied_port_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < free_port(port) <= port + 199


def test_two_launchers_that_start_at_once_get_different_ports() -> None:
    start = free_port(20000)
    first, held = claim_port(start)
    second, other = claim_port(start)
    assert first == start < second  # although nobody listens on it yet
    held.close()
    third, again = claim_port(start)
    assert third == start
    other.close()
    again.close()


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
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True); {SLEEP}"
    mark = str(tmp_path)
    service = start(code, tmp_path)
    wait_for(lambda: len(find_processes(mark)) == 2)
    assert sweep_marked(mark) == 2
    service.wait(5)
    assert find_processes(mark) == []


def test_a_process_that_erased_its_environment_is_found_by_its_session(tmp_path: Path) -> None:
    mark = str(tmp_path)
    service = start(RENAMED, tmp_path)
    wait_for(lambda: find_processes(mark) == [])  # the mark is gone, the process is not
    assert service.process.poll() is None
    assert sweep_marked(mark, sessions=[service.process.pid]) == 1
    assert service.wait(5)


def test_what_a_killed_launcher_left_is_found_through_the_state_file(tmp_path: Path) -> None:
    service = start(RENAMED, tmp_path)
    session = Session(service.name, service.process.pid, service.started)
    write_state(tmp_path / "stack.json", 1, {"airflow": "http://127.0.0.1:1"}, [session])
    state = read_state(tmp_path / "stack.json")
    assert state is not None and state.addresses == {"airflow": "http://127.0.0.1:1"}
    wait_for(lambda: find_processes(str(tmp_path)) == [])
    assert sweep_marked(str(tmp_path), sessions=sessions_left(state)) == 1
    assert service.wait(5)


def test_a_number_that_went_to_another_process_is_left_alone(tmp_path: Path) -> None:
    service = start(SLEEP, tmp_path)
    earlier = Session("gone", service.process.pid, service.started - 3600)  # the same pid, an hour before
    write_state(tmp_path / "stack.json", 1, {}, [earlier])
    assert sessions_left(read_state(tmp_path / "stack.json")) == set()
    text = (tmp_path / "stack.json").read_text()
    (tmp_path / "stack.json").write_text(text.replace('"boot_id": "', '"boot_id": "another '))
    assert sessions_left(read_state(tmp_path / "stack.json")) == set()
    (tmp_path / "stack.json").write_text("{")
    assert sessions_left(read_state(tmp_path / "stack.json")) == set()
    service.process.kill()
    service.wait(5)


def start(code: str, home: Path) -> Service:
    return Service("sleeper", [sys.executable, "-c", code], {**os.environ, MARKER: str(home)}, home / "log", home)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the awaited state did not come"
        time.sleep(0.05)


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
    service = start(SLEEP, first.home)
    wait_for(lambda: find_processes(first.mark) != [])  # for a moment after its start a process shows no environment
    with pytest.raises(ConfigError, match="already"):
        second.start()
    second.stop()
    assert service.process.poll() is None  # the refused one touches nothing of the first
    first.stop()
    assert service.wait(5)


@pytest.mark.live
def test_a_failed_start_leaves_no_process_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "a home"
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{tmp_path}/no/such/folder.db")
    stack = Stack(Config(root=str(home)).replace(mlflow={"tracking_uri": "http://127.0.0.1:9"}, dask={"workers": 1}))
    begun: list[int] = []
    keep, stack._keep_state = stack._keep_state, lambda: (keep(), begun.extend(s.pid for s in stack._sessions()))  # type: ignore[method-assign]
    with pytest.raises(DiscoveryError, match=r"(?s)db migrate ended with code.*unable to open database file"):
        stack.start()
    assert len(set(begun)) == 2  # Dask's two services
    assert find_processes(stack.mark, begun) == []
    assert not (stack.home / "stack.json").exists()


def test_signals_wait_while_the_stack_stops() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with undisturbed():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_preferred_port_is_a_preference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = airflow_environment(tmp_path, Config(root=str(tmp_path)), 8099, {"AIRFLOW__API__PORT": "8080"})
    assert made["AIRFLOW__API__PORT"] == "8099"  # 8080 was taken; all components must agree on the other
    monkeypatch.setenv("AIRFLOW__API__PORT", "http")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    try:
        assert main(["--root", str(tmp_path / "root"), "--home", str(tmp_path / "home")]) == 2
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), before, strict=True):
            signal.signal(number, handler)
    assert "expected a port number" in capsys.readouterr().err


def test_the_launcher_module_imports_nothing_that_computes() -> None:
    code = "import sys, discovery.airflow.launcher; print(sorted({'torch', 'mlflow', 'dask', 'great_expectations'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-W", "ignore", "-c", code], text=True).strip() == "[]"


def test_the_form_overrides_only_what_is_filled_in() -> None:
    assert settings_of({"fdr": 0.2, "encoder": "", "weights": None}) == {"novelty": {"fdr": 0.2}}
    assert sources_of_form("/a\ns3://b/c, /d") == ["/a", "s3://b/c", "/d"]
    assert slug("manual__2026-01-01T00:00:00+00:00") == "manual-2026-01-01T00-00-00-00-00"


def test_a_spec_in_the_form_replaces_name_and_budget() -> None:
    ws = cast(Workspace, None)  # asked only for saved specs
    spec = spec_of_form({"collection": "x", "budget": 3, "spec": "name: y\nbudget: 5", "budget_override": 7}, ws)
    assert (spec.name, spec.budget) == ("y", 7)
    with pytest.raises(SpecError, match=r'form: spec:2: unknown key bugdet\. Did you mean "budget"'):
        spec_of_form({"spec": "name: y\nbugdet: 5"}, ws)
