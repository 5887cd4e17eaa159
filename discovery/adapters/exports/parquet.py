"""Parquet as Hugging Face `datasets` and its hub lay it out: data/SPLIT-00000-of-0000N.parquet, with pictures and labels typed, and a card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from discovery.adapters.exports.format import Descriptions, Format, Packed
from discovery.addressing import sha256_hex
from discovery.core.export_plan import ExportPlan, Made, extension, split_word

GROUP_ROWS, GROUP_BYTES = 100, 64 * 2**20  # of a row group, which a reader holds whole: 100 is what `datasets` writes for pictures


def shard(split: str, number: int, total: int) -> str:
    """Name of a shard."""
    return f"data/{split_word(split)}-{number:05d}-of-{total:05d}.parquet"


def features(plan: ExportPlan) -> dict[str, dict[str, Any]]:
    """What `datasets` makes of each column."""
    text, whole = {"dtype": "string", "_type": "Value"}, {"dtype": "int32", "_type": "Value"}
    label = {"label": {"names": list(plan.classes), "_type": "ClassLabel"}} if plan.classes else {}
    return {"image": {"_type": "Image"}, **label, "asset_id": text, "width_px": whole, "height_px": whole, "sha256": text}


def schema(plan: ExportPlan) -> pa.Schema:
    """The columns of a shard, with their features as `datasets` reads them."""
    fields = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("asset_id", pa.string()), ("width_px", pa.int32()), ("height_px", pa.int32()),
              ("sha256", pa.string())]  # fmt: skip
    if plan.classes:
        fields.insert(1, ("label", pa.int64()))
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features(plan)}})})


def pack(target: Path, examples: Packed, plan: ExportPlan) -> None:
    """One file, a row group of pictures in memory at a time. Pictures are not compressed again."""
    columns = schema(plan)
    plain = [name for name in columns.names if name != "image"]
    compression = {**dict.fromkeys(plain, "zstd"), "image.bytes": "none", "image.path": "zstd"}
    rows: list[dict[str, Any]] = []
    held = 0
    with pq.ParquetWriter(target, columns, compression=compression, use_dictionary=False, write_statistics=plain) as writer:
        for example, data in examples:
            row = {
                "image": {"bytes": data, "path": f"{example.asset_id}{extension(example, plan.options.form)}"}, "asset_id": example.asset_id,
                "width_px": example.width_px, "height_px": example.height_px, "sha256": sha256_hex(data),
                "label": None if example.label is None else plan.index[example.label],
            }  # fmt: skip
            rows.append({name: row[name] for name in columns.names})
            held += len(data)
            if len(rows) == GROUP_ROWS or held >= GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(rows, schema=columns))
                rows, held = [], 0
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=columns))


def unpack(path: Path) -> Iterator[tuple[str, bytes]]:
    """Asset id and bytes of each picture of a shard."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(GROUP_ROWS, columns=["asset_id", "image"]):
            for row in batch.to_pylist():
                yield row["asset_id"], row["image"]["bytes"]


def describe(plan: ExportPlan, made: Sequence[Made]) -> Descriptions:
    """README.md, whose head tells the splits and the features."""
    sizes = {split: [found.size_bytes for example, found in zip(plan.examples, made, strict=True) if example.split == split] for split in plan.splits}
    present = [split for split in plan.splits if sizes[split]]
    head = {
        "configs": [{"config_name": "default", "data_files": [{"split": split_word(split), "path": f"data/{split_word(split)}-*"} for split in present]}],
        "dataset_info": {
            "features": [_card_feature(name, told) for name, told in features(plan).items()],
            "splits": [{"name": split_word(split), "num_bytes": sum(sizes[split]), "num_examples": len(sizes[split])} for split in present],
        },
    }
    rows = "\n".join(f"| {split} | {len(sizes[split]):,} | {sum(sizes[split]):,} |" for split in present)
    yield "README.md", (
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n# {plan.version}\n\nDigest `{plan.digest}`. {len(plan.classes)} labels"
        f"{f' of the column `{plan.label_column}`' if plan.label_column else ''}; `label` is null where there is none.\n\n"
        f"| split | pictures | bytes |\n|---|---|---|\n{rows}\n\n"
        "`members.csv` says where each came from and why it is in; `croissant.json` describes the whole; `sha256sum -c SHA256SUMS` checks it.\n"
    ).encode()


def _card_feature(name: str, told: dict[str, Any]) -> dict[str, Any]:
    if told["_type"] == "Image":
        return {"name": name, "dtype": "image"}
    if told["_type"] == "ClassLabel":
        return {"name": name, "dtype": {"class_label": {"names": {str(number): label for number, label in enumerate(told["names"])}}}}
    return {"name": name, "dtype": told["dtype"]}


CANNOT = "Pillow, by which datasets decodes, does not open them without a plug-in"
PARQUET = Format(
    "parquet", "data/SPLIT-00000-of-00001.parquet and README.md", describe, lambda plan: ("README.md",), shard=shard, pack=pack, unpack=unpack,
    split_name=split_word, unread=dict.fromkeys(("HEIC", "RAW"), CANNOT),
)  # fmt: skip
