"""Scheduled ingest: one batch a run; its manifest starts the chain."""

from __future__ import annotations

from airflow.sdk import CronPartitionTimetable, Param, PartitionedAtRuntime, dag, task

from discovery.airflow import tasks
from discovery.airflow.assets import MANIFEST
from discovery.airflow.defaults import TAGS, TASK_DEFAULTS
from discovery.config import load_config

SCHEDULE = load_config().schedule
PARAMS = {
    "source": Param(
        "",
        type=["null", "string"],
        format="multiline",
        title="Source",
        description="Empty: the sources of [schedule] in discovery.toml",
    ),
    "batch": Param("", type=["null", "string"], title="Batch id", description="Empty: made from the run"),
}


@dag(
    dag_id="ingest_batch",
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    default_args=TASK_DEFAULTS,
    tags=TAGS,
    schedule=CronPartitionTimetable(SCHEDULE.ingest, timezone="UTC") if SCHEDULE.sources else PartitionedAtRuntime(),
    doc_md="Reads what is new in the scheduled sources and emits `manifest`, partitioned by batch id. Without `[schedule] sources` it runs when triggered.",
)
def ingest_batch() -> None:
    """Ingest → the asset `manifest`."""

    @task(outlets=[MANIFEST])
    def ingest(params=None, dag_run=None, outlet_events=None):
        inherited = getattr(dag_run, "partition_key", None)
        batch = tasks.slug(params.get("batch") or inherited or dag_run.run_id)
        manifest = tasks.ingest(params, batch)
        event = outlet_events[MANIFEST]
        event.extra = {
            "batch": batch,
            "manifest_id": manifest["id"],
            "assets": manifest["assets"],
            "rejected": manifest["rejected"],
        }
        if batch != inherited:
            event.add_partitions([batch])
        return manifest

    ingest()


ingest_batch()
