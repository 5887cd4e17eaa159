"""Our launcher: MLflow, a Dask cluster and Airflow's four components on 127.0.0.1, started together and stopped without orphans.

`airflow standalone` listens on 0.0.0.0 and leaves its children behind on SIGTERM, and a Dask cluster cannot be a child of a task; so
all are children of this process, found again by their sessions and a mark in their environment even when the launcher was killed.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from discovery.adapters.allocator import ONE_ARENA
from discovery.adapters.cores import available_cores
from discovery.adapters.embedded import made_whole
from discovery.adapters.mlflow_tracking import create_embedded
from discovery.airflow.client import AirflowClient
from discovery.airflow.environment import airflow_environment, discovery_environment, load_secrets
from discovery.airflow.processes import MARKER, Service, claim_port, sweep_marked, tail, wait_until
from discovery.airflow.state import Session, living_sessions, read_state, sessions_left, write_state
from discovery.config import Config, load_config
from discovery.errors import ConfigError, DiscoveryError

CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
READY_S = 180.0
AIRFLOW_STOP_S, OTHERS_STOP_S = 15.0, 8.0  # idle they take 8 and 2; a running task is tried again by the next start
AIRFLOW_PORT, MLFLOW_PORT, DASK_PORT = 8080, 5000, 8786  # their usual ones; the next free one when taken


class Stack:
    """All services of one home. `start` returns when they are healthy; `stop` when none is left. Ports are chosen by `start`."""

    def __init__(self, config: Config, *, home: Path | None = None, report: Callable[[str], None] = print) -> None:
        self.home = (home or config.local_folder / "services").absolute()
        self.report = report
        self.services: list[Service] = []
        self.mark = str(self.home)
        self.starts_mlflow = not config.mlflow.tracking_uri
        self.starts_dask = not config.dask.scheduler
        self.config = config.replace(root=config.root if config.is_remote else str(config.local_folder))
        self.airflow_port = self.mlflow_port = self.dask_port = 0
        self._given = self.config
        self._claims: list[socket.socket] = []
        self._lock: Any = None

    @property
    def airflow_url(self) -> str:
        """Where the Airflow UI is."""
        return f"http://127.0.0.1:{self.airflow_port}"

    @property
    def mlflow_url(self) -> str:
        """Where MLflow is."""
        return self.config.mlflow.public_url or self.config.mlflow.tracking_uri

    def password(self, user: str = "admin") -> str:
        """The generated password of a login."""
        return load_secrets(self.home).passwords[user]

    def client(self) -> AirflowClient:
        """A client that is logged in as admin."""
        return AirflowClient(self.airflow_url, "admin", self.password())

    def start(self) -> None:
        """Start everything and wait until it is healthy. Raises ConfigError when this home runs already, ServiceDied with a log."""
        self._take_lock()
        try:
            if swept := sweep_marked(self.mark, sessions=sessions_left(read_state(self._state_file))):
                self.report(f"ended {swept} processes that an earlier launcher left behind")
            self._choose_ports()  # after the sweep, so that addresses stay
            plain = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
            helper = {**plain, **discovery_environment(self.config), MARKER: self.mark}
            environment = {**airflow_environment(self.home, self.config, self.airflow_port, os.environ), MARKER: self.mark}
            if self.starts_mlflow:
                self._start_mlflow(helper)
            if self.starts_dask:
                self._start_dask(helper)
            self._migrate(environment)
            airflow = [sys.executable, "-m", "airflow"]
            self._start("airflow-api-server", [*airflow, "api-server"], environment)
            # without --skip-serve-logs these two listen on 0.0.0.0
            self._start("airflow-scheduler", [*airflow, "scheduler", "--skip-serve-logs"], environment)
            self._start("airflow-dag-processor", [*airflow, "dag-processor"], environment)
            self._start("airflow-triggerer", [*airflow, "triggerer", "--skip-serve-logs"], environment)
            wait_until(self._is_ready, self.services, READY_S, "The stack")
            self._release_claims()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every service, then whatever of this stack is still there. Ctrl-C waits until that is done: it takes half a minute at most."""
        if self._lock is None:
            return  # not started, or another launcher's: its processes carry the same mark
        with undisturbed():
            airflow = [service for service in self.services if service.name.startswith("airflow-")]
            others = [service for service in self.services if service not in airflow]
            _end(airflow, AIRFLOW_STOP_S)  # first: its tasks use the others until they end
            _end(others, OTHERS_STOP_S)
            sweep_marked(self.mark, sessions=living_sessions(self._sessions()))
            for service in self.services:
                service.wait(5)
            self.services.clear()
            self._release_claims()
            self._state_file.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def restart(self, name: str) -> None:
        """Start a service that ended (or was killed) again, with its command and environment."""
        for place, service in enumerate(self.services):
            if service.name == name:
                service.terminate()
                service.wait(AIRFLOW_STOP_S)
                self.services[place] = service.again()
                self._keep_state()
                return
        raise ConfigError(f"No service {name!r}. Running: {', '.join(service.name for service in self.services)}.")

    def require_alive(self) -> None:
        """Raises ServiceDied when a service ended."""
        for service in self.services:
            service.require_alive()

    def _take_lock(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        lock = open(self.home / "stack.lock", "w")  # noqa: SIM115 - held until stop
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            state = read_state(self._state_file)
            where = f" (process {state.launcher_pid}, Airflow {state.addresses.get('airflow', '?')})" if state else ""
            raise ConfigError(f"A stack runs in {self.home} already{where}. Stop it, or use another root.") from error
        self._lock = lock

    @property
    def _state_file(self) -> Path:
        return self.home / "stack.json"

    def _keep_state(self) -> None:
        addresses = {"airflow": self.airflow_url, "mlflow": self.mlflow_url, "dask": self.config.dask.scheduler}
        write_state(self._state_file, os.getpid(), addresses, self._sessions())

    def _sessions(self) -> list[Session]:
        return [Session(service.name, service.process.pid, service.started) for service in self.services]

    def _choose_ports(self) -> None:
        self._release_claims()
        self.airflow_port = self._claim(_preferred_airflow_port(), "Airflow")
        changes: dict[str, Any] = {}
        if self.starts_mlflow:
            self.mlflow_port = self._claim(MLFLOW_PORT, "MLflow")
            changes["mlflow"] = {"tracking_uri": f"http://127.0.0.1:{self.mlflow_port}"}
        if self.starts_dask:
            self.dask_port = self._claim(DASK_PORT, "Dask")
            changes["dask"] = {"scheduler": f"tcp://127.0.0.1:{self.dask_port}"}
        self.config = self._given.replace(**changes)

    def _claim(self, preferred: int, name: str) -> int:
        port, claim = claim_port(preferred)
        self._claims.append(claim)
        if port != preferred:
            self.report(f"port {preferred} is taken, {name} uses {port}")
        return port

    def _release_claims(self) -> None:
        while self._claims:
            self._claims.pop().close()

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.services.append(Service(name, command, environment, self.home / "logs" / f"{name}.log", self.home))
        self._keep_state()

    def _start_mlflow(self, environment: dict[str, str]) -> None:
        folder = self.config.local_folder
        create_embedded(f"sqlite:///{folder / 'mlflow.db'}", "mlflow-artifacts:/")
        self._start(
            "mlflow",
            [
                sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.mlflow_port), "--workers", "1",
                "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", (folder / "mlartifacts").as_uri(),
            ],
            environment,
        )  # fmt: skip

    def _start_dask(self, environment: dict[str, str]) -> None:
        address = f"127.0.0.1:{self.dask_port}"
        environment = {**environment, "OMP_NUM_THREADS": "1", **ONE_ARENA}
        # without a dashboard both still answer HTTP (metrics, health), and on 0.0.0.0 unless told where
        loopback = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", f"tcp://{address}", *loopback]
        self._start("dask-scheduler", scheduler, environment)
        workers = str(self.config.dask.workers or available_cores())
        scratch = self.home / "dask"
        scratch.mkdir(exist_ok=True)
        worker = [
            sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://{address}", "--nworkers", workers, "--nthreads", "1", "--host",
            "127.0.0.1", *loopback, "--local-directory", str(scratch), "--death-timeout", "60",
        ]  # fmt: skip
        self._start("dask-workers", worker, environment)

    def _migrate(self, environment: dict[str, str]) -> None:
        log = self.home / "logs" / "airflow-db-migrate.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack, open(log, "ab") as output:
            draft = None if CONNECTION in environment else stack.enter_context(made_whole(Path(environment["AIRFLOW_HOME"]) / "airflow.db"))
            if draft is not None:
                environment = {**environment, CONNECTION: f"sqlite:///{draft}"}
            command = [sys.executable, "-m", "airflow", "db", "migrate"]
            code = subprocess.run(
                command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, check=False
            ).returncode
            if code:
                raise DiscoveryError(f"airflow db migrate ended with code {code}. The end of {log}:\n{tail(log)}")

    def _is_ready(self) -> bool:
        try:
            health = httpx.get(f"{self.airflow_url}/api/v2/monitor/health", timeout=5).json()
            healthy = all(
                health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "triggerer", "dag_processor")
            )
            return healthy and (not self.starts_mlflow or httpx.get(f"{self.mlflow_url}/health", timeout=5).is_success)
        except (httpx.HTTPError, KeyError, ValueError):
            return False


def _end(services: Sequence[Service], timeout_s: float) -> None:
    for service in services:
        service.terminate()
    deadline = time.monotonic() + timeout_s
    for service in services:
        service.wait(max(0.1, deadline - time.monotonic()))


def _preferred_airflow_port() -> int:
    text = os.environ.get("AIRFLOW__API__PORT") or str(AIRFLOW_PORT)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ConfigError(f"variable AIRFLOW__API__PORT = {text!r}: expected a port number, 1 to 65535.")
    return int(text)


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Signals that would end this process are ignored meanwhile, so that a second Ctrl-C leaves no orphans."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets them, and may not be asked for handlers here
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt(number: int, frame: object) -> None:
    """SIGTERM ends the stack as Ctrl-C does."""
    raise KeyboardInterrupt


def end_on_signals() -> None:
    """SIGTERM, a closed terminal and Ctrl-C (also where a shell had it ignored) all become KeyboardInterrupt in the main thread."""
    for number in ENDING:
        signal.signal(number, interrupt)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stack in the foreground until Ctrl-C or SIGTERM. 0 then; 1 when a component died, 2 for a bad configuration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", help="where everything is kept")
    parser.add_argument("--home", type=Path, help="folder of the services' logs, secrets and databases; <root>/services by default")
    options = parser.parse_args(arguments)
    end_on_signals()
    try:
        config = load_config()
        stack = Stack(config.replace(root=options.root) if options.root else config, home=options.home)
        print(f"Starting Airflow, MLflow and Dask (logs in {stack.home / 'logs'}) …", flush=True)
        try:
            stack.start()
            print_addresses(stack)
            while True:
                time.sleep(1)
                stack.require_alive()
        finally:
            if stack.services:
                print("Stopping …", flush=True)
            stack.stop()
    except DiscoveryError as error:
        print(f"discovery: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0


def print_addresses(stack: Stack) -> None:
    """Where things are, and the login."""
    print(f"Airflow    {stack.airflow_url}    login admin, password {stack.password()}")
    print(f"Discovery  {stack.airflow_url}/plugin/discovery")
    print(f"MLflow     {stack.mlflow_url}/?workflowType=machine_learning", flush=True)


if __name__ == "__main__":
    sys.exit(main())
