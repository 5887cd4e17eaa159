"""One contract for every place the store can be: a folder, and S3 (moto's server)."""

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from discovery.adapters.files import LocalFiles, translate
from discovery.adapters.storage import Store, asset_path
from discovery.addressing import sha256_hex
from discovery.config import S3Config
from discovery.errors import AccessDenied, CorruptArtifact, InvalidInput, SourceNotFound, StorageFull
from discovery.types import MeasureShard

KEY = "a" * 64


def shard(store: Store, created_at: str = "2026-01-01T00:00:00+00:00", data: bytes = b"rows") -> MeasureShard:
    file = store.put_file("measure", KEY, "table", data, ".parquet", 1)
    return MeasureShard(id=KEY, inputs=(), created_at=created_at, files=(file,), producer="p", assets=1)


class StorageContract:
    """What a root must do, whatever it is made of."""

    def test_the_second_creation_is_refused_and_changes_nothing(self, store):
        assert store.files.create("x/y", b"one") is True
        assert store.files.create("x/y", b"two") is False
        assert store.files.read("x/y") == b"one"

    def test_of_two_writers_at_once_one_wins(self, store):
        with ThreadPoolExecutor(2) as pool:
            for number in range(5):
                made = list(pool.map(lambda data, n=number: store.files.create(f"race/{n}", data), [b"one", b"two"]))
                assert sorted(made) == [False, True]
                assert store.files.read(f"race/{number}") == [b"one", b"two"][made.index(True)]

    def test_a_committed_record_comes_back_equal(self, store):
        record = store.commit(shard(store))
        assert store.load_record(MeasureShard, KEY) == record
        assert store.read_file(record, "table") == b"rows"
        assert store.committed_keys("measure") == [KEY] and list(store.records(["measure"])) == [record]

    def test_before_the_commit_nothing_is_visible(self, store):
        shard(store)
        assert store.load_record(MeasureShard, KEY) is None and store.committed_keys("measure") == []

    def test_the_loser_of_a_commit_gets_the_winners_record(self, store):
        first = store.commit(shard(store))
        second = store.commit(shard(store, created_at="2027-01-01T00:00:00+00:00"))
        assert second == first

    def test_changed_bytes_are_corrupt(self, store):
        record = store.commit(shard(store))
        path = store.file_path(record, "table")
        store.files.remove(path)
        store.files.create(path, b"rowz")
        with pytest.raises(CorruptArtifact, match="expected SHA-256"):
            store.read_file(record, "table")

    def test_a_file_that_vanished_is_corrupt_and_an_unknown_record_is_none(self, store):
        record = store.commit(shard(store))
        store.files.remove(store.file_path(record, "table"))
        with pytest.raises(CorruptArtifact, match="missing though its record names it"):
            store.read_file(record, "table")
        assert store.load_record(MeasureShard, "b" * 64) is None

    def test_an_asset_is_kept_once_under_its_hash(self, store):
        asset_id = sha256_hex(b"picture")
        assert store.put_asset(asset_id, b"picture") is True and store.put_asset(asset_id, b"picture") is False
        assert store.get_asset(asset_id) == b"picture" and store.has_asset(asset_id)
        assert not store.has_asset("b" * 64)
        with pytest.raises(InvalidInput):
            store.put_asset(asset_id, b"another")

    def test_sizes_and_absent_objects(self, store):
        store.files.create("x", b"12345")
        assert store.files.size("x") == 5 and store.files.size("y") is None
        with pytest.raises(FileNotFoundError):
            store.files.read("y")
        store.files.remove("y")

    def test_walk_lists_all_below_a_prefix_with_sizes(self, store):
        for path in ("w/a/1", "w/b/2", "v/3"):
            store.files.create(path, b"123")
        assert sorted((path, size) for path, size, _ in store.files.walk("w")) == [("w/a/1", 3), ("w/b/2", 3)]
        assert list(store.files.walk("none")) == []


class TestLocal(StorageContract):
    @pytest.fixture
    def store(self, tmp_path):
        return Store(str(tmp_path / "a root"))

    def test_a_failed_write_leaves_nothing(self, store, tmp_path, monkeypatch):
        def full(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("discovery.adapters.files.os.fsync", full)
        with pytest.raises(StorageFull, match="no space left"):
            store.files.create("x/y", b"one")
        assert list(store.files.walk("x")) == [] and isinstance(store.files, LocalFiles)


@pytest.mark.live
class TestS3(StorageContract):
    @pytest.fixture
    def store(self, moto_endpoint, tmp_path):
        import s3fs

        bucket = f"bucket-{sha256_hex(str(tmp_path).encode())[:12]}"
        s3fs.S3FileSystem(client_kwargs={"endpoint_url": moto_endpoint}).mkdir(bucket)
        return Store(f"s3://{bucket}/a prefix", S3Config(endpoint_url=moto_endpoint, region="us-east-1"))

    def test_a_missing_bucket_is_named(self, moto_endpoint):
        with pytest.raises(SourceNotFound, match="s3://nowhere-at-all"):
            Store("s3://nowhere-at-all/x", S3Config(endpoint_url=moto_endpoint))


@pytest.mark.parametrize("text", ["../../etc/passwd", "A" * 64, "a" * 63, "", "a" * 63 + "/"])
def test_no_path_is_made_of_what_is_not_an_id(text):
    with pytest.raises(InvalidInput, match="not an id"):
        asset_path(text)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EFBIG, StorageFull), (errno.EACCES, AccessDenied), (errno.ENOENT, SourceNotFound)],
)
def test_errors_of_the_operating_system_become_ours(number, kind):
    error = translate(OSError(number, "text"), "Writing x")
    assert type(error) is kind and str(error).startswith("Writing x: ")


def test_a_root_that_is_a_file_is_refused(tmp_path):
    Path(tmp_path, "file").write_text("")
    with pytest.raises(Exception, match="Opening root"):
        Store(str(tmp_path / "file"))
