"""Weekly care of the index: merge segments, measure recall again, sweep; and deliver what MLflow did not take."""

from __future__ import annotations

from airflow.sdk import CronTriggerTimetable, Param, dag, task

from discovery.airflow import tasks
from discovery.airflow.defaults import TAGS, TASK_DEFAULTS
from discovery.config import load_config

PARAMS = {"compact": Param(False, type="boolean", title="Compact now", description="Merge all segments, however few there are")}


@dag(
    dag_id="maintain_index",
    schedule=CronTriggerTimetable(load_config().schedule.maintain, timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    default_args=TASK_DEFAULTS,
    tags=TAGS,
    doc_md="Merges the segments of the index when there are many, measures recall against exact search and fails under the target, and removes files that no record names. Delivers to MLflow what it did not take before.",
)
def maintain_index() -> None:
    """Maintain → audit → sweep, and beside them what waits to be published."""

    @task
    def maintain(params=None):
        return tasks.maintain(params["compact"])

    @task
    def audit():
        return tasks.audit()

    @task
    def sweep():
        return tasks.sweep()

    @task
    def publish_pending():
        return tasks.publish_pending()

    maintain() >> audit() >> sweep()
    publish_pending()


maintain_index()
