"""Keep the configured collections up to date with the index."""

from __future__ import annotations

from airflow.sdk import FixedKeyMapper, Metadata, PartitionedAssetTimetable, dag, get_current_context, task

from discovery.airflow import tasks
from discovery.airflow.assets import DATASET_VERSION, INDEX
from discovery.airflow.defaults import TAGS, TASK_DEFAULTS


@dag(
    dag_id="refresh_collections",
    catchup=False,
    max_active_runs=1,
    default_args=TASK_DEFAULTS,
    tags=TAGS,
    schedule=PartitionedAssetTimetable(assets=INDEX, default_partition_mapper=FixedKeyMapper("catalogue")),
    doc_md="Consumes `index`, emits `dataset_version`: curates every spec of `[schedule] collections`. The same content keeps its version.",
)
def refresh_collections() -> None:
    """Curate and publish → the asset `dataset_version`."""

    @task(inlets=[INDEX], outlets=[DATASET_VERSION])
    def refresh():
        for published in tasks.refresh(get_current_context()):
            yield Metadata(DATASET_VERSION, tasks.dataset_event(published))

    refresh()


refresh_collections()
