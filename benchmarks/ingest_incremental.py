"""What a second look at an unchanged source costs, what 1 % of new files cost, and how memory grows with the listing.

Each pass is a process of its own; the seconds are those of the ingest stage. Ratios are to the first pass of the same source.
    python -m benchmarks.ingest_incremental local --files 100000  real pictures, each file different by a comment
    python -m benchmarks.ingest_incremental s3 --files 20000      the same on a local S3 server (SeaweedFS)
    python -m benchmarks.ingest_incremental memory                10k, 100k and 1M entries, which are empty files; the last in one flat folder too
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.contracts.s3_server import CREDENTIALS
from tests.contracts.seaweedfs import SeaweedFS

PASS = """
import json, resource, sys, time
from discovery.config import load_config
from discovery.stages.ingest import ingest
from discovery.workspace import open_workspace
source, root = sys.argv[1:]
config = load_config().replace(root=root, dask={"scheduler": "inline"})
with open_workspace(config) as ws:
    started = time.perf_counter()
    manifest = ingest([source], ws)
    seconds = time.perf_counter() - started
    print(json.dumps({
        "seconds": seconds, "rows": manifest.rows, "objects_read": ws.tally["ingest.objects_read"],
        "bytes_read": ws.tally["ingest.bytes_read"], "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }))
"""


def one_pass(source: str, root: Path) -> dict[str, float]:
    """Ingest once, in a process of its own."""
    out = subprocess.check_output([sys.executable, "-W", "ignore", "-c", PASS, source, str(root)], text=True)
    return dict(json.loads(out.splitlines()[-1]))


def pictures(px: int) -> list[bytes]:
    """JPEG bytes of the demo's pictures, `px` at their longer side (some of the originals are smaller and are enlarged)."""
    import io

    from PIL import Image

    found = []
    for path in sorted(Path(".demo/corpus/batch-1").glob("[a-z]*/*.png"))[:500]:
        try:
            with Image.open(path) as image:
                small = image.convert("RGB")
        except (OSError, SyntaxError, Image.DecompressionBombError):
            continue  # planted: the demo's broken files
        scale = px / max(small.size)
        small = small.resize((max(1, round(small.width * scale)), max(1, round(small.height * scale))), Image.Resampling.LANCZOS)
        sink = io.BytesIO()
        small.save(sink, "JPEG", quality=85)
        found.append(sink.getvalue())
    if not found:
        sys.exit("Run `make demo STAY=0` first: the pictures come from its corpus.")
    return found


def numbered(picture: bytes, number: int) -> bytes:
    """The same picture as another file: a comment segment after the start of the image."""
    comment = str(number).encode()
    return picture[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + picture[2:]


def write(folder: Path, originals: list[bytes], start: int, count: int) -> None:
    """Files number `start` to `start + count`, a thousand a folder."""
    for number in range(start, start + count):
        path = folder / f"{number // 1000:04d}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(numbered(originals[number % len(originals)], number))


def report(name: str, result: dict[str, float], first: dict[str, float]) -> None:
    """A line of the table."""
    print(
        f"{name:28} {result['seconds'] / first['seconds']:8.4f} of the first   objects read {result['objects_read']:>8,.0f}   "
        f"bytes read {result['bytes_read']:>13,.0f}   peak {result['peak_mib']:,.0f} MiB",
        flush=True,
    )


def passes(source: str, root: Path, files: int, add: object) -> None:
    """First, unchanged, one percent more."""
    assert callable(add)
    first = one_pass(source, root)
    report(f"first ({files:,} objects)", first, first)
    for _ in range(3):
        report("again, unchanged", one_pass(source, root), first)
    add(files, files // 100)
    report("1 % new", one_pass(source, root), first)


def local(files: int, px: int, work: Path) -> None:
    """A folder of this machine."""
    originals = pictures(px)
    write(work / "photos", originals, 0, files)
    passes(str(work / "photos"), work / "root", files, lambda start, count: write(work / "photos", originals, start, count))


def s3(files: int, px: int, work: Path) -> None:
    """A bucket."""
    import s3fs

    originals = pictures(px)
    os.environ |= CREDENTIALS
    (work / "weed").mkdir()
    with SeaweedFS(work / "weed") as server:
        os.environ["DISCOVERY_S3__ENDPOINT_URL"] = server.url
        filesystem = s3fs.S3FileSystem(client_kwargs={"endpoint_url": server.url})
        filesystem.mkdir("photos")

        def add(start: int, count: int) -> None:
            for begin in range(start, start + count, 200):
                filesystem.pipe({f"photos/{n:07d}.jpg": numbered(originals[n % len(originals)], n) for n in range(begin, min(begin + 200, start + count))})

        add(0, files)
        passes("s3://photos", work / "root", files, add)


def memory(counts: list[int], work: Path) -> None:
    """Peak memory of passes over empty files: listing, comparing and writing, without a decoder. A thousand a folder, then all in one."""
    base = one_pass_of_empty(work / "base", 10, 1000)
    for count, a_folder in [*((count, 1000) for count in counts), (counts[-1], counts[-1] * 2)]:
        place = work / f"{count}-{a_folder}"
        first = one_pass_of_empty(place, count, a_folder)
        again = one_pass(str(place / "empty"), place / "root")
        more = one_pass_of_empty(place, count + count // 100, a_folder)
        print(
            f"{count:>9,} entries, {'a thousand a folder' if a_folder == 1000 else 'in one folder':19}   peak {first['peak_mib']:,.0f} MiB, "
            f"again {again['peak_mib']:,.0f} MiB, 1 % new {more['peak_mib']:,.0f} MiB   (10 entries: {base['peak_mib']:,.0f})",
            flush=True,
        )
        shutil.rmtree(place)


def one_pass_of_empty(place: Path, count: int, a_folder: int) -> dict[str, float]:
    """A pass over so many empty files, `a_folder` of them in each folder."""
    for number in range(count):
        path = place / "empty" / f"{number // a_folder:04d}" / f"{number:07d}.jpg"
        if number % a_folder == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.touch()
    return one_pass(str(place / "empty"), place / "root")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["local", "s3", "memory"])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--px", type=int, default=640, help="longer side of a picture: small ones make the first pass cheap, and the ratios large")
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="of memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ingest-benchmark-", dir=os.environ.get("BENCHMARK_DIR")) as folder:
        work = Path(folder)
        {"local": lambda: local(options.files, options.px, work), "s3": lambda: s3(options.files, options.px, work), "memory": lambda: memory(options.entries, work)}[options.what]()


if __name__ == "__main__":
    main()
