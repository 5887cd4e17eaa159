"""Croissant 1.0 metadata (MLCommons) of a dataset version: what it is, its files with their hashes, and what a row says. For an export or without one."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column", "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/", "data": {"@id": "cr:data", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/", "equivalentProperty": "cr:equivalentProperty", "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract", "field": "cr:field", "fileObject": "cr:fileObject", "fileProperty": "cr:fileProperty", "fileSet": "cr:fileSet",
    "format": "cr:format", "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key", "md5": "cr:md5",
    "parentField": "cr:parentField", "path": "cr:path", "rai": "http://mlcommons.org/croissant/RAI/", "recordSet": "cr:recordSet",
    "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace", "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/", "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
TYPES = {"text": "sc:Text", "whole": "sc:Integer", "number": "sc:Float", "truth": "sc:Boolean"}
DESCRIPTIONS = {
    "asset_id": "SHA-256 of the original's bytes; of a video frame, of its video's hash and its time",
    "split": "the split the member is in; copies are never in two",
    "label": "the label; empty when there is none",
    "file": "file of the export that holds the picture",
    "sha256": "SHA-256 of the picture's bytes as exported",
    "size_bytes": "of the picture as exported",
    "width_px": "of the upright picture",
    "height_px": "of the upright picture",
    "source_uri": "where the original was found",
    "reason": "why it is a member",
}


@dataclass(frozen=True, slots=True)
class Described:
    """A file of a dataset: its path or URI, its hash, its size and its media type."""

    path: str
    sha256: str
    size_bytes: int
    media_type: str


def croissant(
    *, name: str, number: int, digest: str, description: str, created_at: str, table: Described, columns: Mapping[str, str], files: Sequence[Described] = (),
    pictures: Sequence[str] = (), splits: Sequence[str] = (), classes: Sequence[str] = (), license_url: str = "", cite_as: str = "", url: str = "",
) -> dict[str, Any]:  # fmt: skip
    """The JSON-LD, which `mlcroissant.Dataset` reads and validates.

    table: the file with a row a member, CSV or Parquet, and `columns` of it, each `text`, `whole`, `number` or `truth`. files: other files. pictures: patterns of
    paths, where pictures are files of their own; their hashes are in the table. The version is NUMBER.0.0+DIGEST, since Croissant wants
    semantic versions.
    """
    distribution: list[dict[str, Any]] = [_file(table, "members")]
    distribution += [_file(one, _identifier(one.path)) for one in files]
    if pictures:
        distribution.append(
            {
                "@type": "cr:FileSet", "@id": "pictures", "name": "pictures", "description": "The pictures, one file each; their SHA-256 are in the members.",
                "encodingFormat": "image/*", "includes": list(pictures),
            }
        )  # fmt: skip
    sets: list[dict[str, Any]] = []
    if splits and "split" in columns:
        sets.append(_values("splits", "cr:Split", splits))
    if classes and "label" in columns:
        sets.append(_values("labels", "sc:Enumeration", classes))
    known = {one["@id"] for one in sets}
    fields = []
    for column, kind in columns.items():
        one: dict[str, Any] = {
            "@type": "cr:Field", "@id": f"members/{column}", "name": column, "description": DESCRIPTIONS.get(column, column), "dataType": TYPES[kind],
            "source": {"fileObject": {"@id": "members"}, "extract": {"column": column}},
        }  # fmt: skip
        if column == "split" and "splits" in known:
            one["references"] = {"field": {"@id": "splits/name"}}
        fields.append(one)
    sets.append({"@type": "cr:RecordSet", "@id": "members-table", "name": "members-table", "description": "A row a member.", "field": fields})
    told = {
        "@context": copy.deepcopy(CONTEXT), "@type": "sc:Dataset", "name": name, "description": description, "conformsTo": "http://mlcommons.org/croissant/1.0",
        "version": f"{number}.0.0+{digest}", "datePublished": created_at, "license": license_url, "citeAs": cite_as, "url": url,
        "distribution": distribution, "recordSet": sets,
    }  # fmt: skip
    return {key: value for key, value in told.items() if value != ""}


def _file(one: Described, identifier: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject", "@id": identifier, "name": identifier, "description": one.path, "contentUrl": one.path,
        "contentSize": f"{one.size_bytes} B", "encodingFormat": one.media_type, "sha256": one.sha256,
    }  # fmt: skip


def _values(name: str, kind: str, values: Sequence[str]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet", "@id": name, "name": name, "dataType": kind, "key": {"@id": f"{name}/name"},
        "field": [{"@type": "cr:Field", "@id": f"{name}/name", "name": f"{name}/name", "dataType": "sc:Text"}],
        "data": [{f"{name}/name": value} for value in values],
    }  # fmt: skip


def _identifier(path: str) -> str:
    """A path as an @id, another one for every other path; not percent-encoded, since mlcroissant takes %20 for a space, which it refuses."""
    return re.sub(r"[^A-Za-z0-9._/-]", lambda found: "".join(f"~{byte:02X}" for byte in found[0].encode(errors="surrogatepass")), path)
