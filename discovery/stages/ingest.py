"""Ingest: list the sources, read only what is new or changed, and account for every row as an asset or a rejection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pyarrow as pa

from discovery import schemas
from discovery.adapters.decode import Undecodable, decode, thumbnail_webp
from discovery.adapters.sources import Listed, folder_of, list_sources, listing_digest, read_object
from discovery.adapters.storage import Store, table_to_parquet
from discovery.addressing import sha256_hex
from discovery.config import Config
from discovery.errors import DiscoveryError, SourceNotFound, StorageFull
from discovery.types import Manifest, Reason
from discovery.workspace import Workspace

Row = dict[str, Any]
WINDOW = 64  # objects in flight: bounds memory, keeps the reading threads busy


def ingest(sources: Sequence[str], ws: Workspace) -> Manifest:
    """Make the manifest of what the sources list now.

    An unchanged listing returns the manifest it already has, unless rows in it failed for a reason that may pass (`unreadable`,
    `vanished`), which are then tried again. Unchanged objects are taken over from earlier manifests without reading a byte.
    Raises SourceNotFound, AccessDenied, StorageFull. Tally: ingest.objects_read, ingest.bytes_read, ingest.new_assets.
    """
    config = ws.config
    excluded = None if config.is_remote else config.local_folder
    listed = list_sources(sources, config.s3, excluded)
    listing = listing_digest(listed)
    earlier = [manifest for manifest in ws.catalog.records(Manifest.stage) if isinstance(manifest, Manifest)]
    previous = next((manifest for manifest in earlier if manifest.listing == listing), None)
    retried = previous is not None and any(Reason(name).is_transient for name in previous.rejections)
    key = ws.key(Manifest, [config.ingest], [], listing=listing, retry_of=previous.id if previous and retried else "")
    if (found := ws.find(Manifest, key)) is not None:
        return found

    known, known_assets = _known_rows(earlier, ws)
    reused = [known[item.fingerprint] for item in listed if item.fingerprint in known]
    unread = [item for item in listed if item.fingerprint not in known]
    ws.report(f"ingest: {len(listed):,} listed, {len(reused):,} unchanged, {len(unread):,} to read")
    rows = sorted([*reused, *_read_all(unread, ws)], key=lambda row: str(row["source_uri"]))
    if previous is not None and retried and rows == ws.store.read_table(previous).to_pylist():
        return previous

    assets = {row["asset_id"] for row in rows if row["asset_id"]}
    rejections = Counter(str(row["reason"]) for row in rows if row["reason"])
    if len(rows) != len(listed):  # a law of the chain, so not an assert that -O removes
        raise DiscoveryError(f"{len(listed):,} files were listed and {len(rows):,} accounted for; nothing was recorded. Please report this.")
    new_assets = len(assets - known_assets)
    ws.tally["ingest.new_assets"] += new_assets
    table = pa.Table.from_pylist(rows, schema=schemas.MANIFEST)
    file = ws.put_file(Manifest, key, "table", table_to_parquet(table), ".parquet", len(rows))
    return ws.commit(
        Manifest(
            id=key, inputs=(), created_at=ws.clock(), files=(file,), sources=tuple(sources), listing=listing, rows=len(rows),
            assets=len(assets), new_assets=new_assets, rejected=rejections.total(), rejections=dict(sorted(rejections.items())),
        )
    )  # fmt: skip


def _known_rows(manifests: Iterable[Manifest], ws: Workspace) -> tuple[dict[tuple[str, int, str, str], Row], set[str]]:
    """Settled rows by fingerprint, and every asset id, of manifests made under the same rules, newest first."""
    rows: dict[tuple[str, int, str, str], Row] = {}
    assets: set[str] = set()
    for manifest in manifests:
        for row in ws.store.read_table(manifest).to_pylist():
            if row["asset_id"]:
                assets.add(row["asset_id"])
            elif Reason(row["reason"]).is_transient or Reason(row["reason"]) in LIMIT_REASONS:
                continue
            rows.setdefault((row["source_uri"], row["size_bytes"], row["modified_at"], row["etag"]), row)
    return rows, assets


LIMIT_REASONS = frozenset({Reason.TOO_LARGE, Reason.TOO_MANY_PIXELS})  # another run may have other limits; refused before decoding


def _read_all(listed: Sequence[Listed], ws: Workspace) -> Iterable[Row]:
    """Rows of objects read and decoded by a few threads, a bounded window at a time."""
    remaining = iter(listed)
    done = 0
    with ThreadPoolExecutor(ws.config.ingest.read_threads) as pool:
        while window := list(islice(remaining, WINDOW)):
            for row, read_bytes in pool.map(lambda item: _ingest_one(item, ws.store, ws.config), window):
                ws.tally["ingest.objects_read"] += 1
                ws.tally["ingest.bytes_read"] += read_bytes
                yield row
            done += len(window)
            ws.report(f"ingest: {done:,} of {len(listed):,} read")


def _ingest_one(item: Listed, store: Store, config: Config) -> tuple[Row, int]:
    """The row of one object, and how many bytes were read for it."""
    row: Row = dict.fromkeys(schemas.MANIFEST.names)
    row |= {"source_uri": item.uri, "size_bytes": item.size_bytes, "modified_at": item.modified_at, "etag": item.etag}
    row["folder"] = folder_of(item.uri)
    limits = config.ingest
    if item.size_bytes > limits.max_bytes:
        return row | {"reason": Reason.TOO_LARGE, "detail": f"{item.size_bytes} bytes; the limit is {limits.max_bytes}"}, 0
    try:
        data = read_object(item.uri, config.s3)
    except StorageFull:
        raise
    except SourceNotFound as error:
        return row | {"reason": Reason.VANISHED, "detail": str(error)[:300]}, 0
    except Exception as error:  # one object that cannot be read must not end the run; it is tried again next time
        return row | {"reason": Reason.UNREADABLE, "detail": f"{type(error).__name__}: {error}"[:300]}, 0
    try:
        decoded = decode(data, limits.max_pixels)
    except Undecodable as error:
        return row | {"reason": error.reason, "detail": error.detail}, len(data)
    asset_id = sha256_hex(data)
    if limits.store_bytes:
        store.put_asset(asset_id, data)
    store.put_thumbnail(asset_id, limits.thumbnail_px, thumbnail_webp(decoded.image, limits.thumbnail_px))
    size = f"{decoded.image.width}x{decoded.image.height}:".encode()
    return row | {
        "asset_id": asset_id,
        "format": decoded.format,
        "width_px": decoded.width_px,
        "height_px": decoded.height_px,
        "orientation": decoded.orientation,
        "pixel_sha256": sha256_hex(size + decoded.image.tobytes()),
    }, len(data)
