"""Writes discovery/adapters/mlflow_schema.sql, the empty tracking database that MLflow's own migrations make.

    python -m tests.adapters.mlflow_schema
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path

from discovery.adapters.mlflow_tracking import SCHEMA, SQLITE


def dump(database: Path) -> list[str]:
    """Every statement that makes the tables and rows of a database again, but for the default experiment, which MLflow adds with its times."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return [line for line in connection.iterdump() if not line.startswith('INSERT INTO "experiments"')]


def migrated() -> list[str]:
    """That of a database made by MLflow alone."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory() as folder:
        SqlAlchemyStore(f"{SQLITE}{folder}/mlflow.db", "file:///unused").engine.dispose()
        return dump(Path(folder, "mlflow.db"))


def main() -> None:
    """Write the file."""
    import mlflow.version

    lines = [line.rstrip() for statement in migrated() for line in statement.splitlines()]  # no space at the ends of lines
    SCHEMA.write_text("\n".join([f"-- MLflow {mlflow.version.VERSION}", *lines, ""]))


if __name__ == "__main__":
    main()
