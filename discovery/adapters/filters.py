"""Filters over the asset table: one SQL expression, evaluated by DuckDB with files, network and other statements out of reach."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pyarrow as pa

from discovery.errors import SpecError, nearest

FORBIDDEN_CLASSES = frozenset({"SUBQUERY", "WINDOW", "STAR", "PARAMETER", "LAMBDA"})


def filter_assets(assets: pa.Table, where: str) -> pa.Table:
    """The rows for which the expression is true, in their order.

    where: one SQL expression over the columns, such as "width_px >= 640 AND brightness < 0.3"; empty keeps all. Raises SpecError
    when it is not one expression, names a column that does not exist, or does not evaluate to true or false.
    """
    return assets.take(pa.array(rows_where(assets, where), pa.int64())) if where.strip() else assets


def rows_where(assets: pa.Table, where: str) -> list[int]:
    """Numbers, ascending, of the rows for which the expression is true (not false, not null). Raises as `filter_assets`."""
    connection = duckdb.connect(config={"enable_external_access": "false", "autoinstall_known_extensions": "false"})
    try:
        connection.execute("SET lock_configuration = true")
        _validate(connection, where)
        row = "discovery_row"
        while row in assets.column_names:  # a sidecar may have any key
            row += "_"
        numbered = assets.append_column(row, pa.array(range(len(assets)), pa.int64()))
        connection.register("assets", numbered)
        try:
            kept = connection.execute(f"SELECT {row} FROM assets WHERE ({where}\n) ORDER BY {row}").fetchall()
        except duckdb.Error as error:
            raise SpecError(f"Filter {where!r}: {_explain(error, assets)}") from error
    finally:
        connection.close()
    return [row for (row,) in kept]


def _validate(connection: duckdb.DuckDBPyConnection, where: str) -> None:
    """Exactly one SELECT over `assets` with a plain expression: nothing may close the bracket or bring a query of its own."""
    sql = f"SELECT 1 FROM assets WHERE ({where}\n)"
    ((serialized,),) = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()  # an open result blocks the connection
    parsed: dict[str, Any] = json.loads(serialized)
    if parsed.get("error"):
        raise SpecError(f"Filter {where!r} is not one SQL expression: {parsed.get('error_message', 'syntax error')}.")
    statements = parsed["statements"]
    node = statements[0]["node"]
    plain = len(statements) == 1 and node["type"] == "SELECT_NODE" and not node.get("modifiers") and not node["group_expressions"]
    bare = plain and node["from_table"].get("table_name") == "assets" and not node.get("having") and not node.get("qualify")
    if not bare or node["cte_map"]["map"] or _forbidden(node["where_clause"]):
        raise SpecError(f"Filter {where!r} must be one expression over the columns, without queries inside.")


def _forbidden(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("class") in FORBIDDEN_CLASSES or any(_forbidden(item) for item in value.values())
    return isinstance(value, list) and any(_forbidden(item) for item in value)


def _explain(error: duckdb.Error, assets: pa.Table) -> str:
    text = str(error).splitlines()[0]
    if "Referenced column" in text:
        column = text.split('"')[1]
        return f'there is no column "{column}". {nearest(column, assets.column_names)}'
    return text
