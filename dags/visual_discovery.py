"""The whole chain for one request: a form, then ingest to publish."""

from __future__ import annotations

from airflow.sdk import Param, dag, get_current_context, task

from discovery.airflow import tasks
from discovery.airflow.assets import DATASET_VERSION
from discovery.airflow.defaults import TAGS, TASK_DEFAULTS

PARAMS = {
    "source": Param(
        type="string",
        minLength=1,
        title="Source",
        description_md="A folder, file, glob or `s3://bucket/prefix`; several, one a line.",
        format="multiline",
    ),
    "collection": Param(
        "discovered",
        type="string",
        pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$",
        title="Collection",
        description="Name of the dataset that is published",
    ),
    "budget": Param(200, type="integer", minimum=1, title="Budget", description="How many assets the collection has at most"),
    "fdr": Param(
        0.1,
        type="number",
        exclusiveMinimum=0,
        exclusiveMaximum=1,
        title="FDR level",
        description="Share of false discoveries allowed among the novel assets",
    ),
    "encoder": Param(
        "default", type="string", title="Encoder", description="'default' or any timm model name", section="Encoder and reference"
    ),
    "weights": Param(
        "",
        type=["null", "string"],
        title="Weights",
        description="File or URI of the encoder's weights",
        section="Encoder and reference",
    ),
    "reference": Param(
        "",
        type=["null", "string"],
        title="Reference",
        description="name@number, source:URI, manifest:ID, where:SQL or all; empty: everything indexed before",
        section="Encoder and reference",
    ),
    "spec": Param(
        "",
        type=["null", "string"],
        format="multiline",
        title="Collection spec (YAML)",
        description="Replaces name and budget",
        section="Collection spec",
    ),
    "min_side_px": Param(16, type="integer", minimum=1, title="Smallest side, px", section="Limits"),
    "max_quarantined": Param(0.2, type="number", minimum=0, maximum=1, title="Quarantined at most (share)", section="Limits"),
    "max_rejected": Param(0.5, type="number", minimum=0, maximum=1, title="Rejected at most (share)", section="Limits"),
}


@dag(
    dag_id="visual_discovery",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    default_args=TASK_DEFAULTS,
    tags=TAGS,
    doc_md="""Ingest a source, check it, embed what is new, find duplicates and novel pictures, index, curate and publish a dataset
version. Running it again on the same source computes nothing and gives the same version.""",
)
def visual_discovery() -> None:
    """Ingest → check → embed → dedupe → score → index → curate → check the collection → publish."""

    @task
    def ingest(params=None):
        return tasks.ingest(params)

    @task
    def check(manifest, params=None):
        return tasks.check(params, manifest, get_current_context())

    @task
    def embed(manifest, report, params=None):
        return tasks.embed(params, manifest, report)

    @task
    def dedupe(manifest, embeddings, params=None):
        return tasks.dedupe(params, manifest, embeddings)

    @task
    def score(manifest, embeddings, duplicates, params=None):
        return tasks.score(params, manifest, embeddings, duplicates)

    @task
    def index(manifest, embeddings, duplicates, params=None):
        return tasks.index(params, manifest, embeddings, duplicates)

    @task
    def curate(snapshot, params=None):
        return tasks.curate(params, snapshot)

    @task
    def check_collection(version, params=None):
        return tasks.check_collection(params, version, get_current_context())

    @task(outlets=[DATASET_VERSION])
    def publish(version, records, params=None, outlet_events=None):
        published = tasks.publish(params, version, records, get_current_context())
        outlet_events[DATASET_VERSION].extra = tasks.dataset_event(published)
        return published

    manifest = ingest()
    report = check(manifest)
    embeddings = embed(manifest, report)
    duplicates = dedupe(manifest, embeddings)
    novelty = score(manifest, embeddings, duplicates)
    snapshot = index(manifest, embeddings, duplicates)
    novelty >> snapshot  # scored before it is indexed
    version = curate(snapshot)
    records = {
        "ingest": manifest,
        "check": report,
        "embed": embeddings,
        "dedupe": duplicates,
        "score": novelty,
        "index": snapshot,
        "curate": version,
    }
    check_collection(version) >> publish(version, records)  # a version that fails its check is in MLflow, and emits no event


visual_discovery()
