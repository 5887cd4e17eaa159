"""Keep the configured collections up to date with the index."""

from __future__ import annotations

from airflow.sdk import FixedKeyMapper, Metadata, PartitionedAssetTimetable, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

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
    doc_md="Consumes `index`, emits `dataset_version`: curates every spec of `[schedule] collections`, each in a task of its own, when at least `least_change` of its candidates came or went. The same content keeps its version.",
)
def refresh_collections() -> None:
    """Curate and publish → the asset `dataset_version`."""

    @task(inlets=[INDEX])
    def collections():
        return tasks.collections_to_refresh()

    @task(outlets=[DATASET_VERSION], map_index_template="{{ uri }}")
    def refresh(uri):
        published = tasks.refresh(uri, get_current_context())
        if published is None:
            raise AirflowSkipException(f"{uri}: too little changed since its newest version.")
        yield Metadata(DATASET_VERSION, tasks.dataset_event(published))

    refresh.expand(uri=collections())  # one task a collection: one that fails its check keeps no other from its event


refresh_collections()
