"""The `discovery` command: every stage, search, curation and care of the store; JSON with --json, readable text without."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import getpass
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from discovery.adapters.files import FULL, translate
from discovery.cli_parser import build_parser
from discovery.config import Config, load_config
from discovery.errors import DiscoveryError, InvalidInput
from discovery.version_commands import VERSION_COMMANDS, read_spec
from discovery.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from discovery.stages.search import SearchAnswer, SecondLook
    from discovery.types import Mark

Answer = dict[str, Any]
Command = Callable[[argparse.Namespace, Workspace], Answer]
EXIT_REJECTED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 success, 1 a run failed, 2 bad usage or configuration, 3 too many rejections."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    _quiet_libraries()
    try:
        with ended_in_order():
            return _answer(options)
    except DiscoveryError as error:
        print(f"discovery: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:
        print("discovery: stopped. What was finished is kept; run the same command again to go on.", file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # from a library that writes temporary files, a disk that is full or read-only
        if error.errno not in {*FULL, errno.EROFS}:
            raise
        print(f"discovery: {translate(error, f'Writing {error.filename or tempfile.gettempdir()}')}", file=sys.stderr)
        return 1


class Terminated(KeyboardInterrupt):
    """SIGTERM, which a service manager or a batch system sends: the run ends as with Ctrl-C."""


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Until it is left, SIGTERM ends the run as Ctrl-C does: workers, leases and databases are closed on the way out."""

    def terminate(number: int, frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _answer(options: argparse.Namespace) -> int:
    """Run the command and show its answer; the exit code."""
    config = configured(options)
    if options.command == "doctor":
        from discovery.doctor import diagnose

        checks = diagnose(config)
        show({"checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks]}, options.json)
        return 0 if all(c.ok for c in checks) else 1
    started = time.perf_counter()
    with open_workspace(config, report=Progress(started)) as ws:
        answer = COMMANDS[options.command](options, ws)
    code = int(answer.pop("exit_code", 0))
    show(answer, options.json)
    limit = getattr(options, "max_rejected", None)
    if limit is not None and int(answer.get("rejected", 0)) > limit:
        print(f"discovery: {answer['rejected']} rejections, more than --max-rejected {limit}.", file=sys.stderr)
        return EXIT_REJECTED
    return code


class Progress:
    """One line of progress on stderr, overwritten on a terminal."""

    def __init__(self, started: float) -> None:
        self.started = started

    def __call__(self, message: str) -> None:
        """Show a message with the seconds since the command began."""
        end = "\r\033[K" if sys.stderr.isatty() else ""
        print(f"{end}{time.perf_counter() - self.started:7.1f} s  {message}", file=sys.stderr, flush=True)


def configured(options: argparse.Namespace) -> Config:
    """Settings from file and environment, with the command line's on top. Raises ConfigError."""
    config = load_config(Path(options.config) if options.config else None)
    changes: dict[str, Any] = {}
    if options.root:
        changes["root"] = options.root
    for option, (section, key) in OPTION_SETTINGS.items():
        value = getattr(options, option, None)
        if value is not None:
            changes.setdefault(section, {})[key] = value
    return config.replace(**changes) if changes else config


OPTION_SETTINGS = {
    "encoder": ("encoder", "name"),
    "weights": ("encoder", "weights"),
    "projection": ("encoder", "projection"),
    "scheduler": ("dask", "scheduler"),
    "workers": ("dask", "workers"),
    "fdr": ("novelty", "fdr"),
}


# commands


def _run(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.pipeline import run_pipeline

    spec = None
    if not options.no_curate:
        spec = read_spec(options.spec, ws) if options.spec else None
    result = run_pipeline(options.source, ws, spec=spec, reference=options.reference, curate_default=not options.no_curate)
    records = result.records
    manifest, duplicates, novelty, snapshot = (records[name] for name in ("ingest", "dedupe", "score", "index"))
    return {
        "manifest_id": manifest.id,
        "assets": manifest.assets,  # type: ignore[attr-defined]
        "new_assets": ws.tally["ingest.new_assets"],
        "rejected": manifest.rejected,  # type: ignore[attr-defined]
        "duplicate_groups": duplicates.groups,  # type: ignore[attr-defined]
        "quality_passed": True,
        "novel": novelty.novel,  # type: ignore[attr-defined]
        "note": novelty.note,  # type: ignore[attr-defined]
        "index_id": snapshot.id,
        "recall_at_10": round(snapshot.recall_at_10, 6),  # type: ignore[attr-defined]
        "recall_lower_bound": round(snapshot.recall_lower_bound, 6),  # type: ignore[attr-defined]
        "version": f"{result.published.name}@{result.published.number}" if result.published else None,
        "digest": result.published.digest if result.published else None,
        "mlflow_run_id": result.published.mlflow_run_id if result.published else result.mlflow_run_id,
        "seconds": result.seconds,
    }


def _ingest(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.ingest import ingest

    manifest = ingest(options.source, ws)
    rows = ws.store.read_table(manifest, columns=["source_uri", "reason", "detail"])
    return {
        "manifest_id": manifest.id,
        "assets": manifest.assets,
        "new_assets": ws.tally["ingest.new_assets"],
        "unchanged": ws.tally["ingest.unchanged"],
        "removed": ws.tally["ingest.removed"],
        "moved": ws.tally["ingest.moved"],
        "sidecars": manifest.sidecars,
        "rejected": manifest.rejected,
        "rejections": rows.filter(rows["reason"].is_valid()).to_pylist(),
    }


def _check(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.publish import show_quality
    from discovery.stages.check import check

    if options.version:
        return _check_version(options, ws)
    if options.salt:
        raise InvalidInput("--salt draws other members of a version to look at; it goes with --version.")
    reports = []
    for manifest in _manifests(options, ws):
        reports.append(report := check(manifest, ws))
        run_id = show_quality(manifest, report, ws)
    return {
        "report_id": report.id,
        "passed": all(r.passed for r in reports),
        "failed_expectations": sorted({name for r in reports for name in r.failed_expectations}),
        "warnings": sorted({name for r in reports for name in r.warnings}),
        "assets": report.assets,
        "quarantined": report.quarantined,
        **_report(report, ws),
        "mlflow_run_id": run_id or None,
        "exit_code": 0 if all(r.passed for r in reports) else 1,
    }


def _check_version(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.publish import publish_collection_report
    from discovery.stages.check_collection import check_collection
    from discovery.stages.versions import find_version

    if options.manifest:
        raise InvalidInput("A check is of a batch (--manifest) or of a version (--version), not of both.")
    version = find_version(options.version, ws)
    if options.salt:
        ws = dataclasses.replace(ws, config=ws.config.replace(collection={"salt": options.salt}))
    report = check_collection(version, ws)
    published = publish_collection_report(version, report, ws)
    return {
        "report_id": report.id,
        "version": f"{published.name}@{published.number}",
        "passed": report.passed,
        "failed_expectations": list(report.failed_expectations),
        "warnings": list(report.warnings),
        "assets": report.assets,
        "sampled": report.sampled,
        "defect_rate_bound": report.defect_rate_bound,
        "label": report.label,
        "likely_mislabels": report.likely_mislabels,
        **_report(report, ws),
        "mlflow_run_id": published.mlflow_run_id,
        "exit_code": 0 if report.passed else 1,
    }


def _report(report: Any, ws: Workspace) -> Answer:
    """Where the page of a report is, and what became of each expectation."""
    outcomes = json.loads(ws.store.read_file(report, "expectations"))["outcomes"]
    return {"page": ws.store.file_path(report, "report"), "expectations": outcomes}


def _embed(options: argparse.Namespace, ws: Workspace) -> Answer:
    started = time.perf_counter()
    sets = [_embeddings(manifest, ws) for manifest in _manifests(options, ws)]
    seconds = time.perf_counter() - started
    computed = ws.tally["embed_shard.computed"]
    return {
        "encoder_id": sets[-1].encoder_id,
        "dim": sets[-1].dim,
        "embedded": computed,
        "reused": ws.tally["embed_shard.reused"],
        "projected": ws.tally["embed_shard.projected"],
        "images_per_s": round(computed / seconds, 2) if computed else 0.0,
        "worker_seconds": {
            name: ws.tally[f"embed_shard.{name}_ms"] / 1000 for name in ("read", "decode", "wait", "encode", "copy", "write", "total")
        },
    }


def _fit_projection(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.project import fit

    fitted = fit(ws, options.dim, options.whitening, options.reference)
    names = ("encoder_id", "dim", "whitening", "rows", "explained")
    return {"projection_id": fitted.id, **{name: getattr(fitted, name) for name in names}}


def _dedupe(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.dedupe import dedupe, duplicate_groups

    if options.labelled:
        from discovery.stages.label_pairs import read_labels

        try:
            text = options.labelled.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"The labelled pairs {options.labelled} cannot be read: {error}.") from error
        return dataclasses.asdict(read_labels(text, ws))
    calibration: Answer = {}
    if options.calibrate:
        from discovery.stages.calibrate import calibrate

        record = calibrate(ws)
        names = ("threshold", "recall", "recall_lower_bound", "proposals_per_asset", "bases", "copies")
        calibration = {"calibration": {"id": record.id, **{name: getattr(record, name) for name in names}}}
    manifest = _manifests(options, ws)[-1]
    embeddings = _embeddings(manifest, ws)
    if options.label_pairs:
        from discovery.stages.label_pairs import pairs_to_label

        text = pairs_to_label(manifest, embeddings, ws)
        try:
            options.label_pairs.write_text(text)
        except OSError as error:
            raise translate(error, f"Writing {options.label_pairs}") from error
        return {"file": str(options.label_pairs), "pairs": text.count("\n") - 1, **calibration}
    report = dedupe(manifest, embeddings, ws)
    return {
        "report_id": report.id,
        "exact_groups": report.exact_groups,
        "near_groups": report.near_groups,
        "groups": duplicate_groups(report, ws),
        **calibration,
    }


def _score(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.dedupe import dedupe
    from discovery.stages.score import score, top_novel, top_rare

    manifest = _manifests(options, ws)[-1]
    embeddings = _embeddings(manifest, ws)
    report = score(manifest, embeddings, dedupe(manifest, embeddings, ws), ws, options.reference)
    shown = ("asset_id", "novelty", "percentile", "p_value", "q_value", "is_novel", "theme", "nearest")
    rare = ("asset_id", "density", "rare_q_value", "nearest")
    names = ("candidates", "references", "reference", "calibration_rows", "score", "guarantee", "fdr", "novel", "shifted", "null_fraction", "moved", "rare", "far_out", "hidden", "note")
    return {
        "report_id": report.id,
        **{name: list(value) if isinstance(value := getattr(report, name), tuple) else value for name in names},
        "themes": ws.store.read_table(report, "themes").to_pylist() if any(ref.role == "themes" for ref in report.files) else [],
        "top": [{key: row.get(key) for key in shown} for row in top_novel(report, ws)],
        "top_rare": [{key: row[key] for key in rare} for row in top_rare(report, ws)],
    }


def _mark(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.find_asset import find_asset
    from discovery.stages.marks import mark

    assets = [find_asset(text, ws) for text in options.asset]
    return {"marks": [_said(one) for one in mark(assets, options.what, options.by or getpass.getuser(), ws, comment=options.comment)]}


def _marks(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.find_asset import find_asset
    from discovery.stages.marks import said_of, standing_marks

    marks = said_of(find_asset(options.asset, ws), ws.catalog) if options.asset else list(standing_marks(ws.catalog).values())
    return {"marks": [_said(one) for one in marks]}


def _said(one: Mark) -> Answer:
    return {"asset_id": one.asset_id, "mark": one.mark, "by": one.by, "at": one.created_at, "comment": one.comment, "report_id": one.report_id}


def _index(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.dedupe import dedupe
    from discovery.stages.index import index
    from discovery.stages.maintain import audit_recall

    if options.audit:
        snapshot, measured = audit_recall(ws)
        recall, bound, ef, certified = measured.recall, measured.lower_bound, measured.ef, measured.certified
    else:
        for manifest in _manifests(options, ws):
            embeddings = _embeddings(manifest, ws)
            snapshot = index(manifest, embeddings, dedupe(manifest, embeddings, ws), ws)
        recall, bound, ef, certified = snapshot.recall_at_10, snapshot.recall_lower_bound, snapshot.ef_search, snapshot.is_certified
    return {
        "index_id": snapshot.id,
        "elements": snapshot.elements,
        "segments": len(snapshot.segments),
        "ef_search": ef,
        "recall_at_10": round(recall, 6),
        "recall_lower_bound": round(bound, 6),
        "recall_target": snapshot.recall_target,
        "certified": certified,
        "strata": [dataclasses.asdict(stratum) for stratum in snapshot.strata],
        "removed": snapshot.removed,
        "exit_code": 1 if options.audit and not certified else 0,
    }


def _maintain(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.encoder_change import encoder_change
    from discovery.stages.maintain import maintain

    change = encoder_change(ws)
    snapshot = maintain(ws, compact=options.compact) if change.has_index and not options.dry_run else None
    return {
        "index_id": snapshot.id if snapshot else None,
        "elements": snapshot.elements if snapshot else None,
        "segments": len(snapshot.segments) if snapshot else None,
        "encoder": change.sentence,
        "encoder_change": dataclasses.asdict(change),
    }


def _search(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.adapters.decode import Undecodable
    from discovery.stages.query import Box
    from discovery.stages.region_search import search_by_region
    from discovery.stages.search import SecondLook, search

    look = SecondLook(options.expand, options.augment, options.rerank, options.diverse)
    box = Box.parse(options.box) if options.box else None
    by_region = options.region or (box is not None and not options.whole)
    if by_region and (options.whole or options.unlike or options.text or options.queries or look != SecondLook()):
        raise InvalidInput("A search by parts of pictures goes with --asset, --like, --image, --box, --where and -k alone; --box goes with the others after --whole.")
    like = [*options.asset, *options.like]
    try:
        if options.queries:
            return _search_file(options, look, ws)
        if by_region:
            answer = search_by_region(ws, like=like, images=options.image, box=box, where=options.where, k=options.k)
        else:
            answer = search(
                ws, like=like, unlike=options.unlike, images=options.image, texts=options.text, box=box, where=options.where, k=options.k,
                second_look=look,
            )  # fmt: skip
    except Undecodable as error:
        raise InvalidInput(
            f"The query picture cannot be used: {error.reason} ({error.detail}). Give a readable picture."
        ) from error
    return {"results": _results(answer), "latency_ms": answer.latency_ms}


def _results(answer: SearchAnswer) -> list[dict[str, Any]]:
    return [{name: value for name, value in dataclasses.asdict(result).items() if value is not None} for result in answer.results]


def _search_file(options: argparse.Namespace, look: SecondLook, ws: Workspace) -> Answer:
    """One search for each line of a file; empty lines are passed over."""
    from discovery.stages.search import Query, search_many

    if options.asset or options.like or options.unlike or options.image or options.text or options.box:
        raise InvalidInput("--queries names all examples itself; leave out --asset, --like, --unlike, --image, --text and --box.")
    try:
        lines = [line.strip() for line in options.queries.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{options.queries} cannot be read as text: {error}.") from error
    if not lines:
        raise InvalidInput(f"{options.queries} holds no asset id and no path of a picture.")
    asked = [Query(images=(Path(line),)) if Path(line).is_file() else Query(like=(line,)) for line in lines]
    answers = search_many(ws, asked, where=options.where, k=options.k, second_look=look)
    found = [{"query": line, "results": _results(answer)} for line, answer in zip(lines, answers, strict=True)]
    return {"queries": found, "latency_ms": round(sum(answer.latency_ms for answer in answers), 3)}


def _regions(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.region_search import describe_all

    shards = describe_all(ws)
    return {
        "region_encoder_id": shards[0].producer if shards else "",
        "described": ws.tally["region_shard.computed"],
        "reused": ws.tally["region_shard.reused"],
        "bytes": sum(ref.size_bytes for shard in shards for ref in shard.files),
    }


def _drift(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.publish import publish_drift
    from discovery.stages.asset_sets import find_set
    from discovery.stages.drift import drift, measures_of

    report = drift(find_set(options.a, ws), find_set(options.b, ws), ws)
    page = options.out or Path(f"drift-{report.id[:12]}.html")
    try:
        page.write_bytes(ws.store.read_file(report, "report"))
    except OSError as error:
        raise translate(error, f"Writing {page}") from error
    return {
        "report_id": report.id,
        "p_value": report.p_value,
        "auc": report.auc,
        "auc_interval": [report.auc_low, report.auc_high],
        "is_drifted": report.is_drifted,
        "measures": [dataclasses.asdict(one) for one in measures_of(report, ws)],
        "lacking": {"a_not_in_b": report.a.lacking, "b_not_in_a": report.b.lacking},
        "note": report.note,
        "report": str(page),
        **({"mlflow_run_id": publish_drift(report, ws)} if options.publish else {}),
    }


def _verify(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.verify import verify

    result = verify(ws, options.id)
    wrong = bool(result.corrupt or result.missing)
    return {"checked": result.checked, "corrupt": result.corrupt, "missing": result.missing, "exit_code": int(wrong)}


def _gc(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.sweep import sweep

    result = sweep(ws, assets=options.assets, dry_run=options.dry_run)
    return {"removed": result.removed, "bytes": result.bytes, "running": list(result.running)}


def _reindex(options: argparse.Namespace, ws: Workspace) -> Answer:
    from discovery.stages.reindex import reindex

    result = reindex(ws)
    return {**dataclasses.asdict(result), "exit_code": int(bool(result.corrupt))}


COMMANDS: dict[str, Command] = {
    "run": _run, "ingest": _ingest, "check": _check, "embed": _embed, "dedupe": _dedupe, "fit-projection": _fit_projection, "score": _score, "index": _index,
    "regions": _regions, "search": _search, "drift": _drift, "mark": _mark, "marks": _marks, "maintain": _maintain, **VERSION_COMMANDS, "verify": _verify, "gc": _gc,
    "reindex-catalog": _reindex,
}  # fmt: skip


def _manifests(options: argparse.Namespace, ws: Workspace) -> list[Any]:
    """The manifest that was asked for; else all that no index holds yet, oldest first, or the newest when all are indexed."""
    from discovery.stages.history import get_manifest, latest_manifest, load_snapshot

    if options.manifest:
        return [get_manifest(options.manifest, ws)]
    newest = latest_manifest(ws)
    indexed = {m for head in ws.catalog.heads() for m in load_snapshot(head.snapshot_id, ws).manifests}
    waiting = [manifest for manifest in reversed(ws.catalog.records("ingest")) if manifest.id not in indexed]
    return waiting or [newest]


def _embeddings(manifest: Any, ws: Workspace) -> Any:
    from discovery.pipeline import require_quality
    from discovery.stages.check import check
    from discovery.stages.embed import embed

    report = check(manifest, ws)
    require_quality(manifest, report, ws)
    return embed(manifest, report, ws)


# output


def show(answer: Answer, as_json: bool) -> None:
    """Print an answer: one JSON object, or aligned lines with lists as tables."""
    if as_json:
        print(json.dumps(answer, default=str, allow_nan=False))
        return
    if set(answer) == {"text"}:
        print(answer["text"], end="")
        return
    width = max((len(name) for name in answer), default=0)
    for name, value in answer.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            print(f"{name}:")
            columns = list(value[0])
            rows = [[_text(row.get(column)) for column in columns] for row in value]
            widths = [max(len(column), *(len(row[i]) for row in rows)) for i, column in enumerate(columns)]
            for line in [columns, *rows]:
                print("  " + "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip())
        else:
            print(f"{name.ljust(width)}  {_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "\n" + "\n".join("  " + " ".join(str(item)[:16] for item in group) for group in value)
    if isinstance(value, list):
        return " ".join(str(item)[:16] for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _quiet_libraries() -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::RuntimeWarning:platformdirs")
    for name in ("distributed", "alembic", "mlflow", "great_expectations", "botocore", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
