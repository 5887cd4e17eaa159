"""Formats of exports, one a file; adding one is its file and a line here."""

from __future__ import annotations

from discovery.adapters.exports.coco import COCO
from discovery.adapters.exports.fiftyone import FIFTYONE
from discovery.adapters.exports.format import Format
from discovery.adapters.exports.imagefolder import IMAGEFOLDER
from discovery.adapters.exports.listing import LIST
from discovery.adapters.exports.parquet import PARQUET
from discovery.adapters.exports.webdataset import WEBDATASET

FORMATS: dict[str, Format] = {one.name: one for one in (IMAGEFOLDER, WEBDATASET, COCO, PARQUET, FIFTYONE, LIST)}
