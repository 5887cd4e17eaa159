"""The records that stages return: frozen, small, round-trip through JSON, each with the ids of what it was made from."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

from discovery.addressing import canonical_json
from discovery.errors import CorruptArtifact


class Reason(StrEnum):
    """Why a listed row could not become an asset; the closed list."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    TOO_MANY_PIXELS = "too_many_pixels"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    UNREADABLE = "unreadable"
    VANISHED = "vanished"
    TIMEOUT = "timeout"
    CRASHED_DECODER = "crashed_decoder"

    @property
    def is_transient(self) -> bool:
        """Whether reading the same object again may succeed; the next run tries."""
        return self in (Reason.UNREADABLE, Reason.VANISHED)

    @property
    def is_settled(self) -> bool:
        """Whether the object need not be looked at again while it stays the same, whatever the limits of a later run."""
        return self in (Reason.EMPTY, Reason.UNSUPPORTED_FORMAT, Reason.TRUNCATED, Reason.CORRUPT)


@dataclass(frozen=True, slots=True)
class FileRef:
    """One immutable file of a record: its name inside the record's folder, the SHA-256 of its bytes, and its size."""

    role: str
    name: str
    sha256: str
    size_bytes: int
    rows: int = 0


@dataclass(frozen=True, slots=True)
class SetSide:
    """One of two sets that were compared: what it is, and what of it has nothing like it in the other one.

    assets: in the set, one a duplicate group. units: of these, one of each burst and video. asked: of these, looked up in the other set.
    lacking: of these, with nothing like them there, in `themes` groups; by_chance: the share that would be lacking in a draw from that set.
    """

    set_id: str
    label: str
    snapshot_id: str
    assets: int
    units: int
    asked: int
    lacking: int
    themes: int
    by_chance: float
    is_more_than_chance: bool


@dataclass(frozen=True, slots=True)
class SegmentRef:
    """One segment of an index: the record that holds it, and how many vectors it has."""

    id: str
    elements: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a stage made. `id` is its key; `inputs` are the ids of the records it was made from."""

    stage: ClassVar[str] = ""
    version: ClassVar[int] = 1
    id: str
    inputs: tuple[str, ...]
    created_at: str
    files: tuple[FileRef, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the stage's name; safe for XCom."""
        data: dict[str, Any] = json.loads(self.to_json())
        return data

    def to_json(self) -> str:
        """Canonical JSON."""
        return canonical_json({"stage": self.stage, **dataclasses.asdict(self)})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; CorruptArtifact when a field is missing, unknown or of another stage."""
        if data.get("stage") != cls.stage:
            raise CorruptArtifact(f"Expected a record of stage {cls.stage!r}, found {data.get('stage')!r}.")
        hints = get_type_hints(cls)
        fields = {field.name for field in dataclasses.fields(cls)}
        given = {name: value for name, value in data.items() if name != "stage"}
        if unknown := set(given) - fields:
            raise CorruptArtifact(f"Record of stage {cls.stage!r} has unknown fields {sorted(unknown)}.")
        try:
            return cls(**{name: _revive(hints[name], value) for name, value in given.items()})
        except TypeError as error:
            raise CorruptArtifact(f"Record of stage {cls.stage!r} is incomplete: {error}.") from error

    def file(self, role: str) -> FileRef:
        """The file with that role; CorruptArtifact when the record has none."""
        for ref in self.files:
            if ref.role == role:
                return ref
        raise CorruptArtifact(f"Record {self.id} of stage {self.stage} has no file {role!r}.")


def _revive(hint: Any, value: Any) -> Any:
    """Tuples and nested records back from JSON lists and objects."""
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        inner = get_args(hint)[0]
        return tuple(_revive(inner, item) for item in value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return hint(**value)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(Record):
    """What the sources held at one time. rows = rows of assets + rejected + sidecars; `assets` are distinct.

    previous: the manifest of the same sources before this one; `removed` rows of it are gone, and of their assets `moved` came up under
    another name. sidecars: rows that are no pictures, but say something of one; part of `rows`. unchanged: objects that were not read again, those that could not be looked at among them. new_assets: of what was read, not in the store before. settings: id of
    the ingest settings; rules: id of those that decide what an accepted row says, which is taken over only under the same rules;
    video_rules: of those that decide which frames are taken.
    """

    stage: ClassVar[str] = "ingest"
    version: ClassVar[int] = 4
    sources: tuple[str, ...]
    listing: str
    settings: str
    rules: str
    previous: str
    rows: int
    assets: int
    new_assets: int
    unchanged: int
    removed: int
    moved: int
    rejected: int
    rejections: dict[str, int]
    video_rules: str = ""
    sidecars: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestPart(Record):
    """Rows of an ingest that is under way, kept so that a killed one goes on; no reader but ingest itself."""

    stage: ClassVar[str] = "ingest_part"
    sources: tuple[str, ...]
    rules: str
    previous: str
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureShard(Record):
    """Measures of a few assets, one row each."""

    stage: ClassVar[str] = "measure"
    producer: str
    assets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingShard(Record):
    """Vectors of a few assets by one encoder (`producer` is its encoder_id), one row each.

    runtime: how they were computed (device, precision, batch size). The seconds say where the worker's time went: read_s and
    decode_s of all its threads together; wait_s for pictures that were not decoded yet; encode_s for the encoder; copy_s of the copies to
    a GPU, which run beside the encoding of other batches; write_s of the shard's file; total_s from the first to the last of it, about
    wait_s + encode_s + write_s.
    """

    stage: ClassVar[str] = "embed_shard"
    producer: str
    dim: int
    assets: int
    runtime: str = ""
    read_s: float = 0.0
    decode_s: float = 0.0
    wait_s: float = 0.0
    encode_s: float = 0.0
    copy_s: float = 0.0
    write_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionShard(Record):
    """Vectors of the regions of a few assets, one row an asset; `producer` is the region encoder's id."""

    stage: ClassVar[str] = "region_shard"
    producer: str
    dim: int
    assets: int
    regions: int
    runtime: str = ""
    wait_s: float = 0.0
    encode_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedProjection(Record):
    """Axes that the vectors of one encoder are projected on, fitted on the `rows` vectors of a reference (a version or an index).

    whitening: 0 none to 1 full. explained: share of the reference's variance that the axes hold.
    """

    stage: ClassVar[str] = "projection"
    encoder_id: str
    dim: int
    whitening: float
    rows: int
    explained: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport(Record):
    """The expectations of one manifest. A failed report is a value: the caller decides to stop.

    failed_expectations: those by which it failed. warnings: those that were missed, and no more.
    """

    stage: ClassVar[str] = "check"
    version: ClassVar[int] = 2
    manifest_id: str
    assets: int
    quarantined: int
    passed: bool
    failed_expectations: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSet(Record):
    """The vectors of every asset of one manifest that passed its report, as the shards that hold them."""

    stage: ClassVar[str] = "embed"
    manifest_id: str
    report_id: str
    encoder_id: str
    dim: int
    assets: int
    shards: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateReport(Record):
    """Groups over everything known up to one manifest. Exact: same bytes or pixels. Near: verified copies.

    method: id of all that decides whether two assets are copies; verified pairs of an earlier report with the same method were taken
    over. calibration: id of the calibration that proposed pairs by their vectors; empty when the encoder has none.
    """

    stage: ClassVar[str] = "dedupe"
    version: ClassVar[int] = 4
    manifest_id: str
    encoder_id: str
    method: str
    calibration: str
    assets: int
    pairs: int
    exact_groups: int
    near_groups: int
    groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateCalibration(Record):
    """From which similarity on the vectors of an encoder propose a copy, measured on planted copies of `bases` pictures.

    Vectors are whitened before (file "table": mean and axes as of a projection). recall: share of the planted copies that are proposed
    at `threshold`; it is over `recall_lower_bound` with a confidence of 95 %. proposals_per_asset: pairs at or above it in the library.
    """

    stage: ClassVar[str] = "calibrate_dedupe"
    encoder_id: str
    dim: int
    bases: int
    copies: int
    threshold: float
    recall: float
    recall_lower_bound: float
    proposals_per_asset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoveltyReport(Record):
    """Novelty of one manifest's new assets against a reference, by the view `score`; `reference_id` is empty on the first run.

    reference: it in words. guarantee: `batch` or `set`, for whom the share of errors holds. known: assets of the batch that are in the reference,
    and so are no candidates. least_p: the least p-value there is; least_discoveries: how many must have it at once before one is called.
    rare: not novel, but lonelier than their neighbours. themes: groups among the novel. null_fraction: share of the batch that looks like the
    reference, estimated. bulk_p_value: of its ordinary part being as the reference is. moved: what the batch's pictures are other in, in words,
    when it is shifted. far_out: calibration rows that may not belong there; hidden: candidates that would be called without them.
    """

    stage: ClassVar[str] = "score"
    version: ClassVar[int] = 3
    manifest_id: str
    encoder_id: str
    reference_id: str
    reference: str = ""
    score: str = "knn"  # what reports had before they said so
    guarantee: str = "batch"
    candidates: int
    known: int = 0
    references: int
    calibration_rows: int
    fdr: float
    least_p: float = 1.0
    least_discoveries: int = 0
    novel: int
    rare: int = 0
    themes: int = 0
    shifted: bool
    null_fraction: float = 1.0
    bulk_p_value: float = 1.0
    moved: tuple[str, ...] = ()
    far_out: int = 0
    hidden: int = 0
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark(Record):
    """What a person says of an asset: `expected`, `novel`, `junk`, or `none` to take back what was said before.

    by: who; `created_at`: when. report_id: the novelty report it was seen in, empty for none.
    """

    stage: ClassVar[str] = "mark"
    asset_id: str
    mark: str
    by: str
    comment: str = ""
    report_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedSpec(Record):
    """A collection spec that was saved under its name, as it was written; the newest of a name stands. by: who saved it."""

    stage: ClassVar[str] = "spec"
    name: str
    text: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment(Record):
    """Ids and vectors of some assets, and their HNSW graph of `m` links a node; m = 0: there is none, they are searched exactly."""

    stage: ClassVar[str] = "segment"
    version: ClassVar[int] = 4
    encoder_id: str
    dim: int
    space: str
    m: int
    elements: int


@dataclass(frozen=True, slots=True)
class StratumRecall:
    """Recall@10 of the members whose neighbourhoods hold `smallest` to `largest` others, about: a `share` of all, of which `queries` were asked."""

    name: str
    share: float
    queries: int
    smallest: int
    largest: int
    recall: float
    lower_bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSnapshot(Record):
    """Segments that together answer a query, without the `removed` of their rows, the manifests they cover, and the recall that was measured.

    elements: rows that can be found. recall_at_10: the mean over all members; recall_lower_bound: of that of every stratum, wrong with
    probability recall_delta at most; is_certified: it reaches recall_target.
    """

    stage: ClassVar[str] = "index"
    version: ClassVar[int] = 2
    encoder_id: str
    dim: int
    parent_id: str
    generation: int
    manifests: tuple[str, ...]
    embeddings: tuple[str, ...]
    duplicates_id: str
    segments: tuple[SegmentRef, ...]
    elements: int
    removed: int
    ef_search: int
    recall_at_10: float
    recall_lower_bound: float
    recall_target: float
    recall_delta: float
    strata: tuple[StratumRecall, ...]
    is_certified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport(Record):
    """How set b differs from set a, by vectors, by measures, and by what each has that the other lacks.

    shared: units that both have. p_value: that the vectors are of one distribution, null where there were too few to tell; is_drifted: it is
    at most `level`. auc: how often a classifier tells which of two assets is b's, .5 is guessing; low and high end of its interval at 95 %.
    compared_a, compared_b: rows of these tests. moved: columns that moved, the most moved first. note: what the reader must know; often empty.
    """

    stage: ClassVar[str] = "drift"
    encoder_id: str
    a: SetSide
    b: SetSide
    shared: int
    level: float
    compared_a: int
    compared_b: int
    p_value: float | None
    auc: float | None
    auc_low: float | None
    auc_high: float | None
    is_drifted: bool
    moved: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion(Record):
    """An immutable collection. `digest` is its content id: same spec over the same assets, same digest.

    optimality_bound: of the objective to the best there is; None for a mix of several parts, whose bounds are in its facts. leaked: members with a copy in another split.
    size_bytes: of all members. coverage_radius: cosine distance within which candidates have a member; with a confidence of 95 % at most the
    share `coverage_beyond` of them has none. split_similarity: of the two members most alike in different splits.
    """

    stage: ClassVar[str] = "curate"
    version: ClassVar[int] = 3
    name: str
    digest: str
    spec: str
    snapshot_id: str
    encoder_id: str
    assets: int
    candidates: int
    splits: dict[str, int]
    optimality_bound: float | None
    leaked: int
    removed_for_leakage: int
    size_bytes: int = 0
    coverage_radius: float | None = None
    coverage_beyond: float | None = None
    split_similarity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionReport(Record):
    """What is expected of one dataset version. A failed report is a value: the caller decides to stop.

    label: column that holds the labels; empty when there are none. sampled: members whose bytes were read again. defect_rate_bound: share of
    defective members that is not exceeded, with the confidence of the settings, for the worst of the sampled checks.
    """

    stage: ClassVar[str] = "check_collection"
    version: ClassVar[int] = 2
    version_id: str
    name: str
    digest: str
    assets: int
    passed: bool
    failed_expectations: tuple[str, ...]
    warnings: tuple[str, ...]
    label: str
    likely_mislabels: int
    sampled: int
    defect_rate_bound: float


RECORDS: dict[str, type[Record]] = {
    kind.stage: kind
    for kind in (
        Manifest, IngestPart, MeasureShard, EmbeddingShard, RegionShard, FittedProjection, QualityReport, EmbeddingSet, DuplicateReport,
        DuplicateCalibration, NoveltyReport, Mark, SavedSpec, Segment, IndexSnapshot, DriftReport, DatasetVersion, CollectionReport,
    )
}  # fmt: skip


def record_from_json(text: str | bytes) -> Record:
    """Any record back from its JSON; CorruptArtifact when it is not one."""
    try:
        data = json.loads(text)
        kind = RECORDS[data["stage"]]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptArtifact(f"Not a record: {text[:80]!r}. Run `discovery verify`.") from error
    return kind.from_dict(data)
