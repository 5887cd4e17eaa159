"""Curate one collection from a spec, on demand."""

from __future__ import annotations

from airflow.sdk import Param, dag, get_current_context, task

from discovery.airflow import tasks
from discovery.airflow.assets import DATASET_VERSION
from discovery.airflow.defaults import TAGS, TASK_DEFAULTS

EXAMPLE = "name: dark-pictures\nbudget: 100\nwhere: brightness < 0.4\n"
PARAMS = {
    "spec": Param(
        EXAMPLE,
        type="string",
        minLength=1,
        format="multiline",
        title="Collection spec",
        description="YAML, or the path or URI of a .yaml file",
    ),
    "budget_override": Param(
        None, type=["null", "integer"], minimum=1, title="Budget", description="Replaces the budget of the spec"
    ),
    "dry_run": Param(False, type="boolean", title="Preview only", description="Count what the spec would give; publish nothing"),
}


@dag(
    dag_id="curate_collection",
    schedule=None,
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    default_args=TASK_DEFAULTS,
    tags=TAGS,
    doc_md="Makes and publishes a dataset version from a collection spec over the current index; a preview counts first, and can be all.",
)
def curate_collection() -> None:
    """Preview → curate → publish."""

    @task
    def preview(params=None):
        return tasks.preview(params)

    @task.short_circuit
    def wants_version(counted, params=None):
        return not params["dry_run"]

    @task
    def curate(params=None):
        return tasks.curate(params)

    @task(outlets=[DATASET_VERSION])
    def publish(version, params=None, outlet_events=None):
        published = tasks.publish(params, version, context=get_current_context())
        outlet_events[DATASET_VERSION].extra = tasks.dataset_event(published)
        return published

    version = curate()
    wants_version(preview()) >> version
    publish(version)


curate_collection()
