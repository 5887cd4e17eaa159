"""Airflow's REST API, as far as a person at a terminal needs it: log in, trigger, wait, read logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from discovery.errors import DiscoveryError

READ_ATTEMPTS = 4  # of a request that changes nothing; a loaded server may take its time


class RunFailed(DiscoveryError):
    """A DAG run did not succeed."""


@dataclass(frozen=True, slots=True)
class RunState:
    """A run and its tasks: task id to state, in the order Airflow lists them, and seconds for those that ended."""

    state: str
    tasks: dict[str, str]
    seconds: dict[str, float]


class AirflowClient:
    """Logs in with name and password, again when the token has run out."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=30)
        self.user, self.password = user, password

    def close(self) -> None:
        """Close the connection."""
        self.http.close()

    def call(self, method: str, path: str, json: Any = None) -> Any:
        """The JSON answer of one request. Raises DiscoveryError with the server's words when it refuses."""
        for attempt in range(2):
            if "Authorization" not in self.http.headers:
                answer = self._send("POST", "/auth/token", {"username": self.user, "password": self.password})
                _require_ok(answer)
                self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
            answer = self._send(method, path, json)
            if answer.status_code not in (401, 403) or attempt:
                break
            del self.http.headers["Authorization"]
        _require_ok(answer)
        return answer.json() if answer.content else None

    def _send(self, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
        # a login may be repeated, a trigger may not: it could have arrived
        attempts = READ_ATTEMPTS if method == "GET" or path == "/auth/token" else 1
        for attempt in range(attempts):
            try:
                return self.http.request(method, path, json=json, **options)
            except httpx.TransportError as error:
                if attempt == attempts - 1:
                    raise DiscoveryError(
                        f"Airflow at {self.http.base_url} does not answer {method} {path}: {type(error).__name__} {error}. "
                        "Is it running? Its log is services/logs/airflow-api-server.log under the root."
                    ) from error
            time.sleep(2**attempt / 2)
        raise AssertionError("unreachable")

    def trigger(self, dag_id: str, conf: Mapping[str, Any], partition_key: str = "") -> str:
        """Start a run; its id. partition_key: the batch that a scheduled DAG does again, alone."""
        request: dict[str, Any] = {"logical_date": None, "conf": dict(conf)}
        if partition_key:
            request["partition_key"] = partition_key
        return str(self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", request)["dag_run_id"])

    def wait_for_dag(self, dag_id: str, timeout_s: float = 120) -> None:
        """Until the DAG was parsed and can be triggered."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.call("GET", f"/api/v2/dags/{dag_id}")
                return
            except DiscoveryError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def state(self, dag_id: str, run_id: str) -> RunState:
        """Where a run stands."""
        run = self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")
        tasks = self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return RunState(
            str(run["state"]),
            {task["task_id"]: str(task["state"]) for task in tasks},
            {task["task_id"]: float(task["duration"]) for task in tasks if task["duration"] is not None},
        )

    def wait(self, dag_id: str, run_id: str, timeout_s: float, report: Callable[[RunState], None] | None = None) -> RunState:
        """Until the run ended. Raises RunFailed with the end of the failed tasks' logs, DiscoveryError after the time."""
        deadline = time.monotonic() + timeout_s
        while True:
            state = self.state(dag_id, run_id)
            if report:
                report(state)
            if state.state == "success":
                return state
            if state.state == "failed":
                failed = [task for task, value in state.tasks.items() if value == "failed"]
                logs = "\n".join(f"--- {task}\n{self.log_end(dag_id, run_id, task)}" for task in failed)
                raise RunFailed(f"Run {run_id} of {dag_id} failed in {', '.join(failed)}.\n{logs}")
            if time.monotonic() > deadline:
                raise DiscoveryError(f"Run {run_id} of {dag_id} has not ended after {timeout_s:g} s: {state.tasks}")
            time.sleep(1)

    def log_end(self, dag_id: str, run_id: str, task_id: str, lines: int = 12) -> str:
        """The last lines of a task's newest log."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        tries = int(self.call("GET", path)["try_number"])
        options = {"params": {"full_content": "true"}, "headers": {"Accept": "application/json"}}
        answer = self._send("GET", f"{path}/logs/{max(tries, 1)}", **options)
        events = answer.json().get("content", []) if answer.is_success else []
        return "\n".join(line for event in events[-lines:] for line in _readable(event))

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """What a task returned."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}?deserialize=true"
        return self.call("GET", path)["value"]


def _readable(event: Any) -> list[str]:
    """The text of one log event, with the message of each error it carries; markers of folded sections are left out."""
    if not isinstance(event, dict):
        return [str(event)]
    text = str(event.get("event", ""))
    errors = [f"{error.get('exc_type')}: {error.get('exc_value')}" for error in event.get("error_detail") or []]
    return [line for line in [text, *errors] if line and not line.startswith("::")]


def _require_ok(answer: httpx.Response) -> None:
    if not answer.is_success:
        raise DiscoveryError(
            f"Airflow answered {answer.status_code} to {answer.request.method} {answer.request.url.path}: {answer.text[:500]}"
        )
