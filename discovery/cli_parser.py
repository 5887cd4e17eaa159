"""All commands and options of the `discovery` command, in words; what they do is in `cli`."""

from __future__ import annotations

import argparse
from pathlib import Path

from discovery import __version__

REFERENCE_HELP = "what novelty is measured against: name@number, source:URI, manifest:ID, where:SQL, or all; default: what was indexed before"


def build_parser() -> argparse.ArgumentParser:
    """All commands and options."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--root", help="where everything is kept: a folder or an fsspec URI such as s3://bucket/prefix")
    common.add_argument("--config", help="settings file; default discovery.toml")
    common.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser = argparse.ArgumentParser(prog="discovery", description="From folders and buckets of pictures to versioned datasets.")
    parser.add_argument("--version", action="version", version=f"discovery {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[common])

    def computing(command: argparse.ArgumentParser) -> None:
        command.add_argument("--encoder", help="'default', a timm model name, or open_clip:MODEL")
        command.add_argument("--weights", help="file or URI of its weights")
        command.add_argument("--projection", help="id of a projection of its vectors (fit-projection)")
        command.add_argument("--scheduler", help="Dask scheduler tcp://host:port, or 'inline'")
        command.add_argument("--workers", type=int, help="local Dask worker processes")

    run = add("run", "the whole chain over a source, without Airflow")
    run.add_argument("source", nargs="+")
    run.add_argument("--spec", help="collection spec (YAML) to curate and publish; default: a diverse tenth")
    run.add_argument("--no-curate", action="store_true", help="stop after the index")
    run.add_argument("--reference", default="", help=REFERENCE_HELP)
    run.add_argument("--fdr", type=float, help="false-discovery rate of novelty")
    run.add_argument("--max-rejected", type=int)
    computing(run)
    ingest = add("ingest", "list, read, validate and record a source")
    ingest.add_argument("source", nargs="+")
    ingest.add_argument("--max-rejected", type=int)
    for name, text in (
        ("check", "quality measures and expectations, of a batch or of a version"),
        ("embed", "vectors for what has none"),
        ("dedupe", "exact and near-duplicate groups"),
        ("score", "novelty of new assets"),
        ("index", "a new index segment, with measured recall"),
    ):
        command = add(name, text)
        command.add_argument("--manifest", help="id of the ingest to work on; default: every one that lacks the result")
        computing(command)
        if name == "check":
            command.add_argument("--version", default="", metavar="NAME@N", help="check a dataset version instead: leaks, coverage, labels, and a sample read again")
            command.add_argument("--salt", default="", help="with --version: draw other members to read again, now")
        if name == "dedupe":
            command.add_argument("--calibrate", action="store_true", help="first measure, on planted copies of indexed pictures, from which similarity the encoder's vectors propose copies")
            command.add_argument("--label-pairs", type=Path, metavar="FILE", help="only write about 200 pairs, near to far, to be labelled (CSV)")
            command.add_argument("--labelled", type=Path, metavar="FILE", help="only tell what labelled pairs say of the threshold")
        if name == "score":
            command.add_argument("--reference", default="", help=REFERENCE_HELP)
            command.add_argument("--fdr", type=float)
        if name == "index":
            command.add_argument("--audit", action="store_true", help="only measure the recall of the current index again")
    fit = add("fit-projection", "principal axes of the encoder's vectors, to be used as encoder.projection")
    fit.add_argument("--dim", type=int, required=True, help="dimensions to keep")
    fit.add_argument("--whitening", type=float, default=0.0, help="0 (PCA) to 1 (all axes count the same)")
    fit.add_argument("--reference", default="", help="version name@number to fit on; default: all that is indexed")
    computing(fit)
    computing(add("regions", "vectors of parts of all that is indexed, for `search --region` and `search --box`; what has them is left as it is"))
    search = add("search", "nearest assets")
    search.add_argument("--asset", action="append", default=[], help="id (or its first digits) of an example")
    search.add_argument("--like", action="append", default=[], help="another example")
    search.add_argument("--unlike", action="append", default=[], help="an example to stay away from")
    search.add_argument("--image", action="append", default=[], type=Path, help="a picture file as example")
    search.add_argument("--text", action="append", default=[], help="words as example, where the encoder has a text tower")
    search.add_argument("--box", default="", metavar="X,Y,W,H", help="of the one example, this part alone; pixels of the upright picture")
    search.add_argument("--region", action="store_true", help="the examples are parts: nearest are the assets that have the most similar part, told with where it is")
    search.add_argument("--whole", action="store_true", help="with --box: compare the part with whole pictures, not with their parts")
    search.add_argument("--where", default="", help="SQL expression over the asset table")
    search.add_argument("-k", type=int, default=10)
    search.add_argument("--expand", type=int, default=0, metavar="N", help="search again from the query and its N nearest")
    search.add_argument("--augment", type=int, default=0, metavar="N", help="compare with each picture as it lies among its own N nearest")
    search.add_argument("--rerank", type=int, default=0, metavar="N", help="order the N nearest by the neighbours that they share with the query")
    search.add_argument("--diverse", action="store_true", help="pictures that differ from one another, out of three times as many")
    search.add_argument("--queries", type=Path, metavar="FILE", help="many searches at once: a file with an asset id or the path of a picture on each line")
    computing(search)
    mark = add("mark", "say of assets that they are expected, novel or junk; it enters the next reference and the next check")
    mark.add_argument("what", choices=("expected", "novel", "junk", "none"), help="'expected': its like is no news; 'novel': its like goes on being found; 'junk': should not be there; 'none': take back")
    mark.add_argument("asset", nargs="+", help="id, or its first digits")
    mark.add_argument("--by", default="", help="who says so; default: the name of the user of this machine")
    mark.add_argument("--comment", default="")
    add("marks", "what was said of assets, by whom and when").add_argument("asset", nargs="?", help="all that was said of this one")
    drifting = add("drift", "how one set of assets differs from another, with a page")
    drifting.add_argument("a", metavar="A", help="name@3 (a version), source:URI, 'where:SQL expression', manifest:ID, or all")
    drifting.add_argument("b", metavar="B", help="the set that is compared with A")
    drifting.add_argument("--out", type=Path, metavar="FILE", help="where the page is written; default drift-ID.html in this folder")
    drifting.add_argument("--publish", action="store_true", help="show it in MLflow as well")
    maintain = add("maintain", "merge index segments when there are many, and tell what the configured encoder lacks and would cost")
    maintain.add_argument("--compact", action="store_true", help="merge all segments, however few there are")
    maintain.add_argument("--dry-run", action="store_true", help="only tell")
    computing(maintain)
    curate = add("curate", "a dataset version from a spec")
    curate.add_argument("spec", help="a YAML file, or the name of a saved spec")
    curate.add_argument("--dry-run", action="store_true")
    specs = add("specs", "saved specs: list them, save one, show one")
    specs.add_argument("action", nargs="?", choices=("list", "save", "show"), default="list")
    specs.add_argument("what", nargs="?", default="", help="a file to save, or a name to show")
    specs.add_argument("--by", default="", help="who saves it; default: the name of the user of this machine")
    add("versions", "dataset versions with their aliases, and whether MLflow shows them").add_argument("name", nargs="?")
    publishing = add("publish", "deliver to MLflow what it does not show yet: versions, checks, aliases, yanks")
    publishing.add_argument("version", nargs="?", default="", metavar="NAME@N", help="only this one, looked at again whatever was delivered before")
    publishing.add_argument("--pending", action="store_true", help="all that waits; what happens without a version too")
    publishing.add_argument("--all", action="store_true", help="look at every version again, as after MLflow was lost or moved")
    said = argparse.ArgumentParser(add_help=False)
    said.add_argument("--by", default="", help="who says so; default: the name of the user of this machine")

    def moving(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[common, said])

    moving("promote", "make a version its collection's current one").add_argument("version", metavar="NAME@N")
    rollback = moving("rollback", "make an earlier good version current again")
    rollback.add_argument("name")
    rollback.add_argument("--to", type=int, metavar="N", help="which one; default: the previous one")
    alias = moving("alias", "let a name of your own point at a version, or list what a collection's aliases pointed at")
    alias.add_argument("version", metavar="NAME@N", help="or the collection alone, to list")
    alias.add_argument("alias", nargs="?", default="")
    alias.add_argument("--remove", action="store_true", help="take the alias away")
    yank = moving("yank", "say that a version should not be used any more; it stays, aliases move off it")
    yank.add_argument("version", metavar="NAME@N")
    yank.add_argument("--reason", default="", help="why; needed unless it is undone")
    yank.add_argument("--undo", action="store_true")
    lineage = add("lineage", "everything that a record was made from")
    lineage.add_argument("id", metavar="ID|NAME@N")
    lineage.add_argument("--descendants", action="store_true", help="what was made from it instead")
    why = add("why", "why an asset is in a version, or is not")
    why.add_argument("version", metavar="NAME@N")
    why.add_argument("asset", help="id, its first digits, or the URI that a source has it under")
    diff = add("diff", "what one version has other than another: members, reasons, spec and numbers")
    diff.add_argument("a", metavar="A", help="the older version, as name@1")
    diff.add_argument("b", metavar="B", help="the newer one")
    add("card", "the data card of a version: what is in it, how it came about, what was measured; Markdown").add_argument("version", metavar="NAME@N")
    export = add("export", "a dataset version as files for training; run again to go on, or to check what is there")
    export.add_argument("version_name", metavar="VERSION", help="name@number, or the first digits of its id")
    export.add_argument("--format", required=True, help="imagefolder, webdataset, coco, parquet, fiftyone or list")
    export.add_argument("--out", required=True, metavar="URI", help="a folder, or s3://bucket/prefix")
    export.add_argument("--label", default="", metavar="COLUMN", help="column of the asset table that holds the labels; default: collection.label, `label`, or what the spec's quotas are by")
    export.add_argument("--as", dest="form", default="original", choices=("original", "jpeg", "png"), help="what pictures are written as; jpeg and png are upright, on white, and keep what is so already")
    export.add_argument("--shard-mb", type=int, default=256, metavar="MIB", help="of webdataset and parquet: a shard ends before it is larger")
    export.add_argument("--shard-pictures", type=int, default=10_000, metavar="N", help="and before it has more pictures")
    export.add_argument("--license", default="", metavar="URL", help="of the pictures, for the metadata")
    verify = add("verify", "hash and cross-check everything")
    verify.add_argument("id", nargs="?", default="")
    gc = add("gc", "remove files that no record names, and no running job is about to commit")
    gc.add_argument("--assets", action="store_true", help="also assets and thumbnails that no manifest names; reads every manifest")
    gc.add_argument("--dry-run", action="store_true")
    add("reindex-catalog", "the whole catalog again from the store, after it was lost or moved")
    add("doctor", "what is configured, reachable and installed")
    return parser
