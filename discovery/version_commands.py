"""The commands about dataset versions: curate them, name them, publish them, ask what is in them and why, and write them out for training."""

from __future__ import annotations

import argparse
import dataclasses
import getpass
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from discovery.errors import ConfigError, InvalidInput
from discovery.workspace import Workspace

Answer = dict[str, Any]


def _curate(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.pipeline import QualityFailed, require_collection
    from discovery.publish import publish_collection_report
    from discovery.stages.check_collection import check_collection
    from discovery.stages.curate import curate, preview

    spec = read_spec(options.spec, ws)
    if options.dry_run:
        version, removed = preview(spec, ws)
        number, run_id = None, None
        checked: Answer = {}
    else:
        version, removed = curate(spec, ws), {}
        report = check_collection(version, ws)
        published = publish_collection_report(version, report, ws)
        number, run_id = published.number, published.mlflow_run_id
        checked = {"collection_report_id": report.id, "collection_passed": report.passed, "warnings": list(report.warnings)}
        try:
            require_collection(published, report)
        except QualityFailed as error:
            print(f"discovery: {error}", file=sys.stderr)
            checked["exit_code"] = error.exit_code
    return {
        "version_id": version.id,
        "name": version.name,
        "number": number,
        "digest": version.digest,
        "assets": version.assets,
        "splits": version.splits,
        "optimality_bound": version.optimality_bound,
        "leaked": version.leaked,
        "mlflow_run_id": run_id,
        **({"candidates": version.candidates, "removed": removed} if options.dry_run else {}),
        **checked,
    }


def _versions(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.publish import pending_versions
    from discovery.stages.versions import standing_of

    rows = ws.catalog.versions(options.name)
    names = ("name", "number", "version_id", "digest", "mlflow_run_id", "mlflow_url", "created_at")
    verdicts: dict[str, str] = {}
    for report in ws.catalog.records("check_collection"):  # newest first
        verdicts.setdefault(report.version_id, "passed" if report.passed else "failed")  # type: ignore[attr-defined]
    waiting = {(row.name, row.number) for row in pending_versions(ws, options.name)}
    standings = {name: standing_of(name, ws) for name in {row.name for row in rows}}
    shown = []
    for row in rows:
        state = standings[row.name]
        yank = state.yanked.get(row.number)
        said = {
            "aliases": list(state.of(row.number)), "published": "pending" if (row.name, row.number) in waiting else "yes",
            "yanked": f"{yank.reason} ({yank.by}, {yank.at})" if yank else None,
        }  # fmt: skip
        shown.append({**{name: getattr(row, name) for name in names}, "check": verdicts.get(row.version_id), **said})
    return {"versions": shown}


def _publish(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.publish import publish_pending, publish_version
    from discovery.stages.versions import find_version

    if options.version and (options.pending or options.all):
        raise InvalidInput("Name one version, or ask for --pending or for --all.")
    done, failed = publish_pending(ws, look_again=options.all) if not options.version else ([publish_version(find_version(options.version, ws), ws)], [])
    return {
        "published": [{"version": f"{one.name}@{one.number}", "mlflow_run_id": one.mlflow_run_id, "mlflow_version": one.mlflow_version, "url": one.url} for one in done],
        "failed": [{"version": f"{one.name}@{one.number}", "error": one.error} for one in failed],
        "exit_code": int(bool(failed)),
    }


def _moved(name: str, ws: Workspace) -> Answer:
    """Where a collection's aliases point now, in MLflow too where that answers; a message and exit code 1 where it does not."""
    from discovery.errors import TrackingError
    from discovery.publish import publish_pending
    from discovery.stages.versions import standing_of

    code = 0
    try:
        publish_pending(ws, name)
    except TrackingError as error:
        print(f"discovery: {error}", file=sys.stderr)
        code = error.exit_code
    state = standing_of(name, ws)
    return {"name": name, "aliases": state.aliases, "yanked": sorted(state.yanked), "published": "pending" if code else "yes", "exit_code": code}


def _promote(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.core.standing import promoted
    from discovery.stages.versions import find_row, move

    row = find_row(options.version, ws)
    move(row.name, lambda state: promoted(state, row.number), f"promote {row.number}", _who(options), ws)
    return _moved(row.name, ws)


def _rollback(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.core.standing import rolled_back
    from discovery.stages.versions import move

    what = f"rollback to {options.to}" if options.to else "rollback to the previous one"
    move(options.name, lambda state: rolled_back(state, options.to), what, _who(options), ws)
    return _moved(options.name, ws)


def _alias(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.core.standing import with_alias
    from discovery.errors import UnknownRecord
    from discovery.stages.versions import find_row, move, standing_of

    name = options.version.partition("@")[0]
    if not options.alias:
        if not ws.catalog.versions(name):
            raise UnknownRecord(f"No collection {name!r} has a version. `discovery versions` lists what there is.")
        steps = [{"when": row.said_at, "by": row.said_by, "what": row.what} for row in ws.catalog.standings(name)]
        return {"name": name, "aliases": standing_of(name, ws).aliases, "history": steps}
    number = 0 if options.remove else find_row(options.version, ws).number
    what = f"remove alias {options.alias}" if options.remove else f"alias {options.alias} to {number}"
    move(name, lambda state: with_alias(state, options.alias, number), what, _who(options), ws)
    return _moved(name, ws)


def _yank(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.core.standing import Yank, with_yank
    from discovery.stages.versions import find_row, move

    row = find_row(options.version, ws)
    yank = None if options.undo else Yank(options.reason, _who(options), ws.clock())
    what = f"take back the yank of {row.number}" if options.undo else f"yank {row.number}: {options.reason}"
    move(row.name, lambda state: with_yank(state, row.number, yank), what, _who(options), ws)
    return _moved(row.name, ws)


def _who(options: argparse.Namespace) -> str:
    return options.by or getpass.getuser()


def _lineage(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.lineage import lineage, tree_lines

    found = lineage(options.id, ws, descendants=options.descendants)
    if not options.json:
        return {"text": "\n".join(tree_lines(found, descendants=options.descendants)) + "\n"}
    return {
        "id": found.root,
        "nodes": [dataclasses.asdict(node) for node in found.nodes],
        "edges": [{"child": child, "parent": parent} for child, parent in found.edges],
        "missing": list(found.missing),
    }


def _specs(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.saved_specs import save_spec, saved_spec, saved_specs

    if options.action == "save":
        try:
            text = Path(options.what).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"Spec {options.what} cannot be read: {error}.") from error
        made = save_spec(text, options.by or getpass.getuser(), ws, options.what)
        return {"name": made.name, "spec_id": made.id, "saved_at": made.created_at, "by": made.by}
    if options.action == "show":
        saved_spec(options.what, ws)
        text = next(one.text for one in saved_specs(ws) if one.name == options.what)
        return {"name": options.what, "text": text} if options.json else {"text": text.rstrip("\n") + "\n"}
    return {"specs": [{"name": one.name, "saved_at": one.created_at, "by": one.by} for one in saved_specs(ws)]}


def _why(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.versions import find_version
    from discovery.stages.why import why

    answer = dataclasses.asdict(why(find_version(options.version, ws), options.asset, ws))
    answer["steps"] = list(answer["steps"])
    return answer if options.json else {name: value for name, value in answer.items() if value not in ("", None)}


def _diff(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.version_diff import diff_versions
    from discovery.stages.versions import find_version

    return diff_versions(find_version(options.a, ws), find_version(options.b, ws), ws).to_dict()


def _card(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.data_card import card_markdown, data_card
    from discovery.stages.versions import find_version

    card = data_card(find_version(options.version, ws), ws)
    return card if options.json else {"text": card_markdown(card)}


def _export(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.core.export_plan import ExportOptions
    from discovery.stages.export import export

    shape = ExportOptions(options.label, options.form, options.shard_mb * 2**20, options.shard_pictures, options.license)
    return dataclasses.asdict(export(options.version_name, options.format, options.out, ws, shape))


def read_spec(path: str, ws: Workspace) -> Any:
    """The spec of a file, or the saved one of that name where there is no such file."""
    from discovery.spec import parse_spec
    from discovery.stages.saved_specs import KIND, saved_spec

    if not Path(path).exists() and ws.catalog.get_name(KIND, path):
        return saved_spec(path, ws)
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Spec {path} cannot be read: {error}.") from error
    return parse_spec(text, path)


VERSION_COMMANDS: dict[str, Callable[[argparse.Namespace, Workspace], Answer]] = {
    "curate": _curate, "specs": _specs, "versions": _versions, "publish": _publish, "promote": _promote, "rollback": _rollback, "alias": _alias, "yank": _yank,
    "lineage": _lineage, "export": _export, "why": _why, "diff": _diff, "card": _card,
}  # fmt: skip
