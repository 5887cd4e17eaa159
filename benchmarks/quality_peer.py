"""Run cleanvision on a folder of pictures for benchmarks/quality_issues.py, in its own environment. Writes JSON: CPU seconds, scores, flags, sets of copies.

    python benchmarks/quality_peer.py FOLDER OUT.json [HASH_TYPE HASH_SIZE]

With a hash named it only looks for near and exact duplicates, by that hash; else it runs its default list of issues with its defaults. One process.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from cleanvision import Imagelab

folder, out = sys.argv[1], Path(sys.argv[2])
OF_PICTURES = ("dark", "light", "odd_aspect_ratio", "low_information", "blurry", "grayscale", "odd_size")
hashed = {"hash_type": sys.argv[3], "hash_size": int(sys.argv[4])} if len(sys.argv) > 3 else {}
seconds = {"issues": 0.0, "copies": 0.0}
lab = Imagelab(data_path=folder, verbose=False)
for name, asked in (("issues", {} if hashed else {kind: {} for kind in OF_PICTURES}), ("copies", {"near_duplicates": hashed, "exact_duplicates": {}})):
    started = time.process_time()
    if asked:
        lab.find_issues(asked, n_jobs=1, verbose=False)
    seconds[name] = time.process_time() - started
table = lab.issues
kinds = [name.removeprefix("is_").removesuffix("_issue") for name in table.columns if name.startswith("is_")]
out.write_text(
    json.dumps(
        {
            "seconds": seconds,
            "files": [Path(path).name for path in table.index],
            "scores": {kind: [float(value) for value in table[f"{kind}_score"]] for kind in kinds},
            "flags": {kind: [bool(value) for value in table[f"is_{kind}_issue"]] for kind in kinds},
            "sets": [sorted(Path(path).name for path in group) for kind in ("near_duplicates", "exact_duplicates") for group in lab.info[kind]["sets"]],
        }
    )
)
