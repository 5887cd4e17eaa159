"""apricot or submodlib on the graph of benchmarks/selection_scale.py, in a Python that has them: prints JSON with picks, seconds, peak memory.

    python benchmarks/selection_peer.py apricot|submodlib GRAPH.npz

Picked twice; the seconds are of the second time.
"""

import json
import resource
import sys
import time
import warnings

import numpy as np
import scipy.sparse

warnings.simplefilter("ignore")


def with_apricot(graph, budget):
    """By lazy greedy; a row is who covers, a column who is covered."""
    from apricot import FacilityLocationSelection

    return FacilityLocationSelection(budget, metric="precomputed", optimizer="lazy").fit(graph).ranking


def with_submodlib(graph, budget):
    """By LazyGreedy in sparse mode; a row is who is covered, a column who covers."""
    from submodlib import FacilityLocationFunction

    graph = graph.T.tocsr()
    function = FacilityLocationFunction(n=graph.shape[0], mode="sparse", sijs=graph, num_neighbors=int(np.diff(graph.indptr).max()))
    return [row for row, _ in function.maximize(budget, optimizer="LazyGreedy", show_progress=False)]


if __name__ == "__main__":
    data = np.load(sys.argv[2])
    n = len(data["starts"]) - 1
    graph = scipy.sparse.csr_matrix((data["values"] / (16e6 * 256), data["columns"].astype(np.int32), data["starts"].astype(np.int32)), shape=(n, n))
    graph.sort_indices()
    for _ in range(2):
        started = time.perf_counter()
        picks = {"apricot": with_apricot, "submodlib": with_submodlib}[sys.argv[1]](graph, int(data["budget"]))
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print("\n" + json.dumps({"picks": [int(row) for row in picks], "seconds": seconds, "peak_gib": peak}))
