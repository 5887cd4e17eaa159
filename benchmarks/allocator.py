"""What keeping freed memory is worth: forward passes of the default encoder with and without `keep_freed_memory`, in turn.

The figure to read is the ratio of medians. Each pass runs in a process of its own, with Dask's worker environment.
    python benchmarks/allocator.py [--pairs 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

CHILD = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import discovery.adapters.encoders as encoders
from discovery.config import EncoderConfig, S3Config
if sys.argv[1] == "without":
    encoders.keep_freed_memory = lambda: False
def work():
    encoder = encoders.load_encoder(EncoderConfig(), S3Config())
    batch = np.random.default_rng(0).integers(0, 256, (32, 224, 224, 3), np.uint8)
    encoder.encode(batch)
    started = time.perf_counter()
    for _ in range(3):
        encoder.encode(batch)
    return time.perf_counter() - started
with ThreadPoolExecutor(1) as pool:  # Dask runs tasks in a thread
    print(pool.submit(work).result())
"""


def seconds(mode: str) -> float:
    """Seconds for three batches of 32 pictures."""
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    return float(subprocess.check_output([sys.executable, "-W", "ignore", "-c", CHILD, mode], env=environment, text=True))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    times: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(options.pairs):
        for mode, found in times.items():
            found.append(seconds(mode))
    medians = {mode: statistics.median(found) for mode, found in times.items()}
    print(f"with / without: {medians['with'] / medians['without']:.2f}  (medians of {options.pairs}, in turn)")


if __name__ == "__main__":
    main()
