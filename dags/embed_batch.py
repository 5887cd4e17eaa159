"""Check and embed one batch, when its manifest came."""

from __future__ import annotations

from airflow.sdk import PartitionedAssetTimetable, dag, get_current_context, task

from discovery.airflow import tasks
from discovery.airflow.assets import EMBEDDINGS, MANIFEST
from discovery.airflow.defaults import TAGS, TASK_DEFAULTS


@dag(
    dag_id="embed_batch",
    schedule=PartitionedAssetTimetable(assets=MANIFEST),
    catchup=False,
    max_active_runs=4,
    default_args=TASK_DEFAULTS,
    tags=TAGS,
    doc_md="Consumes `manifest`, emits `embeddings`, one run a batch. Trigger it with a partition key to do one batch again.",
)
def embed_batch() -> None:
    """Check → embed → the asset `embeddings`."""

    @task(inlets=[MANIFEST])
    def check(dag_run=None):
        manifest = tasks.batch_manifest(dag_run.partition_key)
        return {"manifest": manifest, "report": tasks.check({}, manifest, get_current_context())}

    @task(outlets=[EMBEDDINGS])
    def embed(checked, dag_run=None, outlet_events=None):
        embeddings = tasks.embed({}, checked["manifest"], checked["report"])
        outlet_events[EMBEDDINGS].extra = {
            "batch": dag_run.partition_key,
            "embeddings_id": embeddings["id"],
            "assets": embeddings["assets"],
            "encoder_id": embeddings["encoder_id"],
        }
        return embeddings

    embed(check())


embed_batch()
