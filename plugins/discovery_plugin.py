"""Registers the discovery pages and the MLflow link in Airflow, and nothing else.

Airflow imports this file in every process (scheduler, triggerer, tasks, command line), so it imports nothing heavy; the app is
made when the API server asks for it.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseOperatorLink


def _web_address(url: object) -> str:
    """The URL without credentials when a browser may open it, else nothing."""
    try:
        parts = urlsplit(str(url or "").strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return ""
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    except ValueError:
        return ""


class MlflowRunLink(BaseOperatorLink):
    """A button on every task that pushed XCom `mlflow_run_url`; empty, so not shown, for all others."""

    name = "MLflow"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The page of the version in the registry. Never raises: one link that raises makes Airflow lose all links of the task."""
        try:
            from airflow.models.xcom import XComModel
            from airflow.utils.session import create_session

            query = XComModel.get_many(
                key="mlflow_run_url", run_id=ti_key.run_id, dag_ids=ti_key.dag_id, task_ids=ti_key.task_id,
                map_indexes=ti_key.map_index,
            )  # fmt: skip
            with create_session() as session:
                row = session.execute(query.with_only_columns(XComModel.value)).first()
            return _web_address(_unquoted(row.value)) if row else ""
        except Exception:
            return ""


def _unquoted(value: object) -> str:
    """An XCom string; depending on the version it is stored plain or as JSON."""
    text = str(value)
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


class DiscoveryPlugin(AirflowPlugin):
    """The pages, a tab on each run, and a way to MLflow."""

    name = "discovery"
    global_operator_extra_links = [MlflowRunLink()]  # noqa: RUF012  (Airflow's interface)

    @cached_property
    def external_views(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Hrefs are relative and end in a slash, so that they hold behind a path prefix."""
        icons = {"icon": "discovery/static/icon.svg", "icon_dark_mode": "discovery/static/icon_dark.svg"}
        views: list[dict[str, Any]] = [
            {
                "name": "Discovery", "href": "discovery/", "destination": "nav", "url_route": "discovery", "nav_top_level": True,
                **icons,
            },
            {
                "name": "Dataset", "href": "discovery/?dag={DAG_ID}&run={RUN_ID}", "destination": "dag_run",
                "url_route": "dataset", **icons,
            },
        ]  # fmt: skip
        settings = (os.environ.get(f"DISCOVERY_MLFLOW__{key}") for key in ("PUBLIC_URL", "TRACKING_URI"))
        if mlflow := next(filter(None, map(_web_address, settings)), ""):
            views.append({"name": "MLflow", "href": mlflow, "destination": "nav", "category": "browse"})
        return views

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Evaluated by the API server alone, and once."""
        from discovery.airflow.connections import configured
        from discovery.web.airflow_auth import airflow_marker, airflow_user
        from discovery.web.app import create_app

        return [{"app": create_app(airflow_user(), configured, airflow_marker()), "url_prefix": "/discovery", "name": "Discovery API"}]
