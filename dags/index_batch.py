"""Deduplicate, score and index one batch, one batch at a time, when its embeddings came."""

from __future__ import annotations

from airflow.sdk import PartitionedAssetTimetable, dag, task

from discovery.airflow import tasks
from discovery.airflow.assets import EMBEDDINGS, INDEX
from discovery.airflow.defaults import TAGS, TASK_DEFAULTS


@dag(
    dag_id="index_batch",
    schedule=PartitionedAssetTimetable(assets=EMBEDDINGS),
    catchup=False,
    max_active_runs=1,
    default_args=TASK_DEFAULTS,
    tags=TAGS,
    doc_md="Consumes `embeddings`, emits `index`. One at a time, since novelty is scored against what was indexed before. Last, indexes whatever earlier batches left behind.",
)
def index_batch() -> None:
    """Dedupe → score → index → the asset `index`; then catch up."""

    @task(inlets=[EMBEDDINGS])
    def dedupe(dag_run=None):
        manifest = tasks.batch_manifest(dag_run.partition_key)
        embeddings = tasks.batch_embeddings(dag_run.partition_key)
        return {"manifest": manifest, "embeddings": embeddings, "duplicates": tasks.dedupe({}, manifest, embeddings)}

    @task
    def score(found):
        return tasks.score({}, found["manifest"], found["embeddings"], found["duplicates"])

    @task(outlets=[INDEX])
    def index(found, novelty, dag_run=None, outlet_events=None):
        snapshot = tasks.index({}, found["manifest"], found["embeddings"], found["duplicates"])
        outlet_events[INDEX].extra = {
            "batch": dag_run.partition_key,
            "index_id": snapshot["id"],
            "elements": snapshot["elements"],
            "novel": novelty["novel"],
            "recall_lower_bound": snapshot["recall_lower_bound"],
        }
        return snapshot

    @task
    def catch_up(found):
        return tasks.catch_up(found["embeddings"])

    found = dedupe()
    index(found, score(found)) >> catch_up(found)


index_batch()
