"""Who may look and who may mark, as Airflow decides: those whom its auth manager lets see the website, or start runs. Nobody, when it cannot be asked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import Depends, HTTPException

log = logging.getLogger(__name__)


def refuse_everyone() -> None:
    """The check that is used when Airflow's own cannot be."""
    raise HTTPException(403, "Airflow's caller check could not be loaded, so nobody is let in. The API server's log says why.")


def airflow_user() -> Callable[..., Any]:
    """A FastAPI dependency: 401 for anonymous callers, 403 for those who may not see the website."""
    try:
        from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
        from airflow.api_fastapi.core_api.security import requires_access_view

        check: Callable[..., Any] = requires_access_view(AccessView.WEBSITE)
    except Exception:  # whatever the reason, a page without its check must not open
        log.exception("Airflow's caller check could not be loaded; the discovery pages refuse everyone")
        return refuse_everyone
    return check


def airflow_marker() -> Callable[..., Any]:
    """A FastAPI dependency: the name of a caller who may start `visual_discovery`; 401 or 403 for all others."""
    try:
        from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
        from airflow.api_fastapi.core_api.security import get_user, requires_access_dag

        may_run = requires_access_dag("POST", DagAccessEntity.RUN, "visual_discovery")
    except Exception:  # as above
        log.exception("Airflow's caller check could not be loaded; nobody may mark")
        return refuse_everyone

    the_user, may = Depends(get_user), Depends(may_run)

    def who(user: Any = the_user, allowed: None = may) -> str:
        return str(user.get_name())

    return who
