"""Run the peers of benchmarks/duplicates.py on a folder of pictures; in their own environment. Writes JSON: per method seconds and pairs.

    python benchmarks/duplicates_peers.py FOLDER VECTORS.npz OUT.json

imagededup's CNN cannot fetch its own weights where the hub is out of reach; its search then gets the vectors of our default encoder,
which VECTORS.npz holds (names, vectors), with its own default threshold.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path

import numpy as np
import torchvision.models

folder, vectors, out = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
has_weights = True
original = torchvision.models.mobilenet_v3_small


def without_weights(*args: object, **options: object) -> object:
    """The model as it is, untrained, when its weights cannot be fetched: imagededup wants them when it is imported."""
    global has_weights
    try:
        return original(*args, **options)
    except OSError:
        has_weights = False
        return original(weights=None)


torchvision.models.mobilenet_v3_small = without_weights
from cleanvision import Imagelab  # noqa: E402
from imagededup.methods import CNN, DHash, PHash  # noqa: E402

results: dict[str, object] = {}


def keep(name: str, started: float, pairs: set[tuple[str, str]], note: str = "") -> None:
    """One method's result."""
    results[name] = {"seconds": time.perf_counter() - started, "pairs": sorted(pairs), "note": note}
    print(f"{name}: {len(pairs):,} pairs, {time.perf_counter() - started:.0f} s", flush=True)


def as_pairs(found: dict[str, list[str]]) -> set[tuple[str, str]]:
    """Unordered pairs of a dictionary of duplicates."""
    return {tuple(sorted((name, other))) for name, others in found.items() for other in others if name != other}  # type: ignore[misc]


for method in (PHash, DHash):
    started = time.perf_counter()
    hasher = method(verbose=False)
    encodings = hasher.encode_images(image_dir=str(folder), num_enc_workers=0)
    keep(f"imagededup {method.__name__}", started, as_pairs(hasher.find_duplicates(encoding_map=encodings, num_dist_workers=0)))

started = time.perf_counter()
network = CNN(verbose=False)
if has_weights:
    encodings = network.encode_images(image_dir=str(folder), num_enc_workers=0)
    note = "mobilenet_v3_small"
else:
    stored = np.load(vectors)
    encodings = dict(zip(stored["names"].tolist(), stored["vectors"], strict=True))
    note = "its weights were out of reach: our default encoder's vectors, whose computation is not in the seconds"
keep("imagededup CNN", started, as_pairs(network.find_duplicates(encoding_map=encodings, num_enc_workers=0, num_sim_workers=0)), note)

started = time.perf_counter()
lab = Imagelab(data_path=str(folder))
lab.find_issues({"near_duplicates": {}, "exact_duplicates": {}}, n_jobs=1, verbose=False)
sets = [group for kind in ("near_duplicates", "exact_duplicates") for group in lab.info[kind]["sets"]]
keep("cleanvision", started, {tuple(sorted((Path(a).name, Path(b).name))) for group in sets for a, b in itertools.combinations(group, 2)})  # type: ignore[misc]
out.write_text(json.dumps(results))
