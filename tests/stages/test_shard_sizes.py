"""How work is cut: every asset once, whole batches, the same number of shards for each worker."""

from hypothesis import given
from hypothesis import strategies as st

from discovery.stages.shards import LARGEST_SHARD, SMALLEST_SHARD, WHOLE, shard_sizes


@given(st.integers(1, 2_000_000), st.integers(1, 300))
def test_shards_hold_all_and_are_whole_batches_of_like_size(assets, workers):
    width = min(workers, max(1, assets // SMALLEST_SHARD))  # as fill_missing asks
    sizes = shard_sizes(assets, width)
    assert sum(sizes) == assets and all(size % WHOLE == 0 for size in sizes[:-1])
    assert len(sizes) % width == 0 or assets < WHOLE * width
    assert max(sizes) - min(sizes) < 2 * WHOLE
    assert max(sizes) <= LARGEST_SHARD + WHOLE


def test_few_pictures_are_one_shard_and_many_are_spread():
    assert shard_sizes(100, 1) == [100]
    assert shard_sizes(400, 2) == [64, 64, 64, 64, 64, 80]
    assert len(shard_sizes(1_000_000, 4)) == 124  # of 8,192 at most
    assert shard_sizes(10, 2, 4) == [4, 4, 2]


@given(st.integers(1, 200_000), st.integers(1, 30), st.sampled_from([256, 2048]))
def test_no_shard_is_larger_than_is_asked_for(assets, workers, largest):
    sizes = shard_sizes(assets, workers, largest=largest)
    assert sum(sizes) == assets and max(sizes) <= largest + WHOLE
