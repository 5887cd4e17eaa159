"""Curate one collection from a spec, on demand."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param, TriggerRule, dag, get_current_context, task

from discovery.airflow import tasks
from discovery.airflow.assets import DATASET_VERSION
from discovery.airflow.defaults import TAGS, TASK_DEFAULTS
from discovery.config import load_config
from discovery.saved_names import known_names

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
    "saved": Param(
        "",
        type=["null", "string"],
        examples=["", *known_names(load_config())],
        title="Saved spec",
        description="Name of a saved spec, used instead of the one above; this machine knows of those that are offered",
    ),
    "save": Param(False, type="boolean", title="Save the spec", description="Keep the spec above under its name, to be offered here"),
    "budget_override": Param(
        None, type=["null", "integer"], minimum=1, title="Budget", description="Replaces the budget of the spec"
    ),
    "dry_run": Param(False, type="boolean", title="Preview only", description="Show what the spec would give; number and publish nothing"),
    "approval": Param(
        False, type="boolean", title="Ask first", description="Wait until somebody approves the preview; no answer in a week rejects it"
    ),
}
COUNTS = "{{ ti.xcom_pull(task_ids='preview').body }}"


@dag(
    dag_id="curate_collection",
    schedule=None,
    catchup=False,
    max_active_runs=16,  # a run that waits for approval keeps no other from running; what is equal gets one number, whoever asks
    params=PARAMS,
    default_args=TASK_DEFAULTS,
    tags=TAGS,
    doc_md="Makes and publishes a dataset version from a collection spec over the current index; a preview comes first, with its pictures on its page, can be all, and can wait for approval.",
)
def curate_collection() -> None:
    """Preview → (approve) → curate → check the collection → publish."""

    @task
    def preview(params=None):
        return tasks.preview(params, get_current_context())

    @task.branch
    def decide(params=None):
        return tasks.after_preview(params)

    approve = ApprovalOperator(
        task_id="approve",
        subject="Publish {{ ti.xcom_pull(task_ids='preview').name }}?",
        body=COUNTS,
        response_timeout=timedelta(days=7),
        defaults=ApprovalOperator.REJECT,  # what no answer means; without it the task fails, and its retries ask for two more weeks
        execution_timeout=None,  # would replace response_timeout, and the task takes no slot while it waits
    )

    @task(trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)  # one of its two ways is skipped
    def curate(previewed, params=None):
        return tasks.number_previewed(params, previewed)

    @task
    def check_collection(version, params=None):
        return tasks.check_collection(params, version, get_current_context())

    @task(outlets=[DATASET_VERSION])
    def publish(version, params=None, outlet_events=None):
        published = tasks.publish(params, version, context=get_current_context())
        outlet_events[DATASET_VERSION].extra = tasks.dataset_event(published)
        return published

    previewed = preview()
    decision = decide()
    version = curate(previewed)
    previewed >> decision >> approve >> version
    decision >> version
    check_collection(version) >> publish(version)  # a version that fails its check is in MLflow, and emits no event


curate_collection()
