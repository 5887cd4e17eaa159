"""WebDataset shards: tar files of .jpg (or another picture), .cls and .json, byte for byte the same every time."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from discovery.adapters.exports.format import Format, Packed
from discovery.addressing import canonical_json, sha256_hex
from discovery.core.export_plan import ExportPlan, extension, folder_name


def shard(split: str, number: int, total: int) -> str:
    """Name of a shard; the count of all is not in it, so that `{000000..000007}` can be written for any of them."""
    return f"{folder_name(split)}-{number:06d}.tar"


def pack(target: Path, examples: Packed, plan: ExportPlan) -> None:
    """One tar, USTAR, of mode 644, owner 0 and time 0; .cls is the number of the class, -1 without a label, as torch's losses may ignore it."""
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for example, data in examples:
            said = {
                "asset_id": example.asset_id, "split": example.split, "label": example.label, "width_px": example.width_px, "height_px": example.height_px,
                "sha256": sha256_hex(data), **({"boxes": [[b.x, b.y, b.width, b.height, b.label] for b in example.boxes]} if example.boxes else {}),
            }  # fmt: skip
            members = (
                (extension(example, plan.options.form), data),
                (".cls", str(plan.class_of(example)).encode()),
                (".json", canonical_json(json.loads(json.dumps(said))).encode(errors="replace")),
            )
            for suffix, content in members:
                entry = tarfile.TarInfo(f"{example.asset_id}{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def unpack(path: Path) -> Iterator[tuple[str, bytes]]:
    """Asset id and bytes of each picture of a shard."""
    with tarfile.open(path) as tar:
        for entry in tar:
            name, _, suffix = entry.name.partition(".")
            if suffix not in ("cls", "json") and (opened := tar.extractfile(entry)) is not None:
                yield name, opened.read()


BYTES = "webdataset's decoders leave them as bytes"
WEBDATASET = Format(
    "webdataset", "SPLIT-000000.tar of ASSET_ID.jpg, .cls and .json", shard=shard, pack=pack, unpack=unpack, has_boxes=True,
    unread=dict.fromkeys(("HEIC", "AVIF", "RAW"), BYTES),
)  # fmt: skip
