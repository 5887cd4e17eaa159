"""Settings: typed sections with defaults, read from discovery.toml and the environment; unknown keys are refused.

Order, later wins: defaults, `discovery.toml` (or the file that DISCOVERY_CONFIG names), DISCOVERY_<SECTION>__<KEY> variables,
options of the command line. Each section says in `speed_only` which of its fields cannot change a result; all others are part of
the identity of what a stage makes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from discovery.errors import ConfigError, nearest

ENV_PREFIX = "DISCOVERY_"
SECRETS = frozenset({"secret_access_key", "session_token"})  # settings whose value no message repeats


class Section(BaseModel):
    """A group of settings; `identity()` is what decides results."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    speed_only: ClassVar[frozenset[str]] = frozenset()

    def identity(self) -> dict[str, Any]:
        """The fields that decide a result, as plain JSON values."""
        return self.model_dump(mode="json", exclude=set(self.speed_only))


class S3Config(Section):
    """How to reach S3; empty values leave the usual chain (environment, profile, instance role) to decide.

    Credentials show as asterisks wherever settings are printed, logged or turned into JSON.
    """

    endpoint_url: str = Field("", description="http://host:port of a server other than AWS; empty: AWS")
    region: str = Field("", description="region of the buckets; empty: from the environment or the profile")
    timeout_s: float = Field(30.0, gt=0, description="seconds without a connection or a byte, after which a request is tried again")
    airflow_connection: str = Field("", description="id of the Airflow connection that Airflow's tasks and pages take credentials, region and endpoint from")
    access_key_id: str = Field("", description="better left to the usual chain or to `airflow_connection`; needs `secret_access_key`")
    secret_access_key: SecretStr = Field(SecretStr(""), description="the other half of `access_key_id`")
    session_token: SecretStr = Field(SecretStr(""), description="for temporary credentials")


class IngestConfig(Section):
    """What is read from a source and what is refused."""

    speed_only: ClassVar[frozenset[str]] = frozenset({"read_threads", "decoders", "listing_memory_bytes", "store_bytes"})
    store_bytes: bool = Field(True, description="copy the bytes into the root; false keeps a pointer to the source")
    max_bytes: int = Field(512 * 2**20, gt=0, description="larger objects are rejected as too_large")
    max_archive_bytes: int = Field(64 * 2**30, gt=0, description="larger tar and zip archives are rejected as too_large")
    max_pixels: int = Field(200_000_000, gt=0, description="more declared pixels are rejected as too_many_pixels")
    thumbnail_px: int = Field(256, ge=32, le=1024, description="longer side of the thumbnails")
    decode_seconds: float = Field(60.0, gt=0, description="a picture, or one packet of a video, that takes longer to decode is rejected as timeout")
    decode_memory_bytes: int = Field(8 * 2**30, ge=2**29, description="address space of a decoder process")
    decoders: int = Field(0, ge=0, description="decoder processes; 0: one per core")
    burst_gap_s: float = Field(1.0, ge=0, description="pictures of one camera and folder at most this far apart are a burst; 0: none are")
    read_threads: int = Field(8, ge=1, description="objects read at once")
    listing_memory_bytes: int = Field(512 * 2**20, ge=256 * 2**20, description="memory for sorting and comparing listings, of which DuckDB is given half; the rest goes to disk")


class VideoConfig(Section):
    """Which frames of a video become assets."""

    sampling: Literal["interval", "scenes"] = Field("interval", description="'interval' or 'scenes': the first frame of each scene")
    interval_s: float = Field(1.0, gt=0, description="seconds from one frame to the next, for 'interval'")
    scene_threshold: float = Field(10.0, gt=0, le=100, description="how unlike a frame must be to begin a scene, 0 to 100 (FFmpeg's scdet)")
    max_frames: int = Field(10_000, ge=1, description="frames taken of one video; the rest is named in a rejection")
    max_bytes: int = Field(64 * 2**30, gt=0, description="larger videos are rejected as too_large")
    max_seconds: float = Field(21_600.0, gt=0, description="decoding of one video; frames after that are named in a rejection, as timeout")


class PrivacyConfig(Section):
    """What of a picture's metadata is kept."""

    keep_gps: bool = Field(False, description="keep where a picture was taken; copied originals keep their EXIF in any case")


class ExpectationConfig(Section):
    """One expectation of the user's: bounds on a column, or an SQL condition over the columns."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,59}$", description="small letters, digits and _; no two alike")
    column: str = Field("", description="a number: a measure, a column of the manifest, of a list or of a sidecar")
    min: float | None = Field(None, allow_inf_nan=False, description="smallest value that meets it")
    max: float | None = Field(None, allow_inf_nan=False, description="largest value that meets it")
    where: str = Field("", description="instead of a column and its bounds: an SQL expression that is true for a picture that meets it")
    mostly: float = Field(1.0, gt=0, le=1, description="share of the pictures that must meet it")
    severity: Literal["info", "warning", "critical"] = Field("warning", description="how bad a miss is")
    action: Literal["report", "quarantine", "fail"] = Field("report", description="'report': a miss is told; 'quarantine': pictures that miss it take no further part, and a critical one fails when too many do; 'fail': the run stops when too many do")
    why: str = Field("", description="what a miss most often is; shown in the report")

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if bool(self.column) == bool(self.where.strip()):
            raise ValueError("an expectation has either a column with min or max, or a where")
        if self.where and not (self.min is None and self.max is None):
            raise ValueError("min and max go with a column, not with where")
        if self.column and self.min is None and self.max is None:
            raise ValueError("a column needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self


def _unique_names(expectations: tuple[ExpectationConfig, ...]) -> tuple[ExpectationConfig, ...]:
    names = [one.name for one in expectations]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two expectations are named {twice[0]}; give each a name of its own")
    return expectations


def _from_json(value: object) -> object:
    """An environment variable gives the list as JSON."""
    return json.loads(value) if isinstance(value, str) else value


Expectations = Annotated[tuple[ExpectationConfig, ...], BeforeValidator(_from_json), AfterValidator(_unique_names)]


class CheckConfig(Section):
    """When a picture is quarantined and when a whole batch fails its quality report."""

    min_side_px: int = Field(16, ge=1, description="a shorter side under this is quarantined")
    max_aspect: float = Field(10.0, gt=1, description="longer side / shorter side above this is quarantined")
    min_contrast: float = Field(0.01, ge=0, description="standard deviation of luma in [0, 1]; under it a picture is blank")
    max_quarantined: float = Field(0.2, ge=0, le=1, description="share of a batch that may fail a row expectation")
    max_rejected: float = Field(0.5, ge=0, le=1, description="share of listed rows that may be rejected")
    expectations: Expectations = Field((), description="expectations of your own, each a `[[check.expectations]]`")


class CollectionConfig(Section):
    """What is checked of a dataset version after it was curated."""

    label: str = Field("", description="column of the asset table that holds the labels; empty: `label` when lists or sidecars bring one, else the column that the spec's quotas are by, else there are none")
    sample_rows: int = Field(1000, ge=1, description="members whose bytes and thumbnails are read again")
    measure_rows: int = Field(200, ge=0, description="of these, members that are decoded and measured again")
    embed_rows: int = Field(0, ge=0, description="members that are embedded again, and compared with their vectors; needs the encoder")
    neighbour_rows: int = Field(20_000, ge=2, description="members, and candidates, whose neighbours are looked up: for labels, between splits, for coverage")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of all sampled checks together")
    salt: str = Field("collection-check-1", description="of the draws: another salt looks at other rows, now")
    close_cosine: float = Field(0.95, gt=0, le=1, description="similarity from which two pictures in different splits are told as close")
    label_neighbours: int = Field(10, ge=1, le=100, description="neighbours that vote on a label")
    min_class: int = Field(5, ge=1, description="members that a class should have")
    expectations: Expectations = Field((), description="expectations of your own on the version's numbers or its members, each a `[[collection.expectations]]`; actions `report` and `fail`")

    @field_validator("expectations", mode="after")
    @classmethod
    def _quarantine_nothing(cls, value: tuple[ExpectationConfig, ...]) -> tuple[ExpectationConfig, ...]:
        for one in value:
            if one.action == "quarantine":
                raise ValueError(f"{one.name}: a version's members stay; the action is report or fail (quarantine belongs to [[check.expectations]])")
        return value


class EncoderConfig(Section):
    """Which model turns a picture into a vector."""

    speed_only: ClassVar[frozenset[str]] = frozenset({"batch_size", "precision", "device", "threads", "stored", "compile"})
    name: str = Field("default", description="'default' (packaged lite0), any timm model name, or open_clip:MODEL")
    weights: str = Field("", description="file or URI of a safetensors or state-dict file; empty: timm's own for the name")
    pooling: Literal["model", "cls", "mean", "gem"] = Field("model", description="how the features of places become one: 'model' (its own), 'cls', 'mean' or 'gem'")
    views: Literal["centre", "flip", "three_crops", "three_crops_flip"] = Field("centre", description="what of a picture is looked at; each view is a forward pass, the vector is their mean")
    decoder: Literal["pillow", "nvjpeg"] = Field("pillow", description="'nvjpeg': pictures are decoded whole, JPEGs by the GPU where it can, and resized by torch; other vectors than 'pillow', so another encoder")
    projection: str = Field("", description="id of a projection that `discovery fit-projection` made; empty: the model's own vectors")
    batch_size: int = Field(0, ge=0, description="pictures in a forward pass; 0: 16 on a CPU, what fits on a GPU")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="'auto': the fastest that keeps the vectors of the probe pictures")
    device: str = Field("auto", description="'auto', 'cpu' or 'cuda'")
    compile: Literal["auto", "on", "off"] = Field("auto", description="torch.compile: 'auto' where there is so much to do that it pays, as measured on this machine")
    threads: int = Field(0, ge=0, description="torch threads in each worker; 0: its share of the cores")
    stored: Literal["float32", "float16"] = Field("float32", description="how vectors are kept; float16 takes half the space")


class DaskConfig(Section):
    """Where shards of work run."""

    speed_only: ClassVar[frozenset[str]] = frozenset({"scheduler", "workers", "shard_assets", "timeout_s", "reconnect_s", "read_threads", "decode_threads", "airflow_connection"})
    scheduler: str = Field("", description="tcp://host:port; empty starts a local cluster; 'inline' uses this process")
    airflow_connection: str = Field("", description="Airflow connection that holds the scheduler's host and port; for tasks, instead of `scheduler`")
    workers: int = Field(0, ge=0, description="local worker processes; 0: one a GPU, or one a core where there is none")
    shard_assets: int = Field(0, ge=0, description="assets in one unit of work; 0: eight units a worker, of 64 to 8,192")
    timeout_s: float = Field(20.0, gt=0, description="seconds to wait for a scheduler and its first worker")
    read_threads: int = Field(8, ge=1, description="objects that a worker reads at once")
    decode_threads: int = Field(0, ge=0, description="pictures that a worker decodes at once; 0: its share of the cores")
    reconnect_s: float = Field(120.0, ge=0, description="seconds to wait for a scheduler that was lost to come back")


class DedupeConfig(Section):
    """When two assets are the same picture."""

    pdq_max_distance: int = Field(31, ge=0, le=255, description="bits of 256 that propose a pair; Facebook's PDQ recommends 31")
    pdq_min_quality: int = Field(50, ge=0, le=100, description="PDQ of flat pictures is noise; its authors keep quality > 49")
    min_luma_correlation: float = Field(0.94, ge=-1, le=1, description="correlation of 16 x 16 luma, in the best of eight turns, that proposes a pair")
    min_cosine: float = Field(0.88, ge=-1, le=1, description="embedding similarity that proposes a pair, for encoders without a calibration (`discovery dedupe --calibrate`)")
    max_difference: float = Field(0.04, ge=0, le=1, description="share of what there is to see that may differ when one is laid on the other; `discovery dedupe --labelled` tells what it is worth")
    min_rich: float = Field(0.04, ge=0, le=1, description="share of the picture that must show detail and agree, twice that for a part: two black pictures are no evidence")


class NoveltyConfig(Section):
    """How novelty is scored and called."""

    score: Literal["auto", "adaptive", "knn", "mahalanobis", "density", "combined"] = Field("auto", description="'knn': far from its nearest references; 'adaptive': so, and so are its like in the batch, which finds much more of what comes in several, and holds for the batch alone; 'auto': 'adaptive', or 'knn' where guarantee is 'set' or the batch comes in bursts; 'mahalanobis': unlike all references together; 'density': lonelier than its neighbours, for what is rare among the known; 'combined': the mean of the ranks by knn, mahalanobis and density")
    reference: str = Field("", description="what is new is measured against, where a command or form names nothing: name@number, source:URI, where:SQL, all; empty: what was indexed before")
    k: int = Field(5, ge=1, le=10, description="nearest references in the mean; above 10 rare known modes look novel")
    fdr: float = Field(0.1, gt=0, lt=1, description="share of false discoveries allowed among the discoveries")
    calibration_rows: int = Field(10_000, ge=20, description="reference rows held out at most: half of a reference of up to 4,000, a tenth of one over 20,000")
    min_calibration_rows: int = Field(40, ge=10, description="fewer than this gives scores without p-values")
    guarantee: Literal["auto", "batch", "set"] = Field("auto", description="for whom the share of errors holds: 'batch' on average over calibration sets, 'set' for the one that is used (fewer are called), however often it is used; 'auto': 'set' for a reference that was named, which others will use again, 'batch' for the index before")
    guarantee_delta: float = Field(0.1, gt=0, lt=1, description="chance that a calibration set is one for which 'set' does not hold")
    search: Literal["auto", "exact", "index"] = Field("auto", description="'exact' reads every reference, 'index' walks the graphs of the index; 'auto': exact up to 1e9 pairs of vectors")
    rare: bool = Field(True, description="also list what is not novel, but lonelier than its neighbours are: rare cases among the known; takes about twice the time")
    salt: str = Field("novelty-calibration-1", description="salt of the hash that picks the calibration rows")

    @model_validator(mode="after")
    def _one_set_has_one_score(self) -> NoveltyConfig:
        if self.score == "adaptive" and self.guarantee == "set":
            raise ValueError(
                "novelty.score 'adaptive' looks at the calibration rows together with each batch, so that it cannot hold for one set of them: "
                "use novelty.guarantee 'batch', or novelty.score 'knn'"
            )
        return self


class IndexConfig(Section):
    """The segments of an index, their HNSW graphs, and the recall that search must show."""

    speed_only: ClassVar[frozenset[str]] = frozenset({"cache_bytes", "exact_queries"})
    m: int = Field(32, ge=4, le=96, description="links of a node in the graph; more finds more and takes more memory")
    ef_construction: int = Field(200, ge=16, description="candidates looked at when a node is linked; more builds slower")
    seed: int = Field(7, ge=0, description="of the levels of nodes and of the order in which rows are added")
    recall_target: float = Field(0.99, gt=0, le=1, description="lower bound on recall@10, of rare pictures too, that ef is chosen for")
    recall_delta: float = Field(0.05, gt=0, lt=1, description="chance that the bound is wrong")
    audit_queries: int = Field(2000, ge=50, description="queries of each stratum (rare, middle, common) compared with exact search")
    exact_rows: int = Field(50_000, ge=0, description="up to so many new rows are searched exactly; more get a graph")
    segment_rows: int = Field(2_000_000, ge=1, description="a graph has at most so many rows")
    max_segments: int = Field(8, ge=1, description="maintain_index merges the graphs of like size above this")
    max_removed: float = Field(0.2, ge=0, lt=1, description="maintain_index builds a segment anew when a larger share of it is removed")
    exact_queries: int = Field(32, ge=0, description="queries that a process answers by reading all vectors before it loads a graph")
    cache_bytes: int = Field(64 * 2**30, ge=0, description="disk of this machine for copies of the index of a remote root; 0: no limit")


class RegionsConfig(Section):
    """What is kept of parts of pictures, for searches by a part."""

    speed_only: ClassVar[frozenset[str]] = frozenset({"at_embed", "at_search"})
    canvas_px: int = Field(448, ge=64, le=2048, multiple_of=32, description="longer side at which a picture is looked at, a multiple of 32; a larger one finds smaller parts, at a cost that grows with its square")
    at_embed: bool = Field(False, description="compute the regions of every asset when it is embedded; else when they are first searched")
    at_search: int = Field(20_000, ge=0, description="assets whose regions a search computes by itself; where more are lacking it says how to have them computed first")


class DriftConfig(Section):
    """How two sets are compared."""

    rows: int = Field(2000, ge=10, description="assets of each set that the two-sample tests compare, drawn by the salt; memory grows with their square")
    permutations: int = Field(999, ge=99, description="of which set a row is of; the lowest p-value is 2 / (1 + permutations)")
    level: float = Field(0.05, gt=0, lt=1, description="at most this p-value is called drift, and so for the measures together")
    usual: float = Field(0.99, gt=0, lt=1, description="share of a set whose nearest other member is not called far; what is farther from that set has nothing like it there")
    coverage_rows: int = Field(20_000, ge=20, description="assets of each set that are looked up in the other one, drawn by the salt")
    salt: str = Field("drift-1", description="salt of the hash that draws, and of the permutations")


class CatalogConfig(Section):
    """The SQL database of records, names and lineage."""

    url: str = Field("", description="SQLAlchemy URL; empty: a SQLite file under the root, or under ~ for a remote root")


class MlflowConfig(Section):
    """Where versions are published."""

    tracking_uri: str = Field("", description="empty: a SQLite file beside the catalog")
    public_url: str = Field("", description="what a browser opens, when it differs from tracking_uri")
    experiment: str = Field("discovery", description="experiment of the discovery runs")


class ScheduleConfig(Section):
    """What the scheduled DAGs take up; the request form needs none of it."""

    speed_only: ClassVar[frozenset[str]] = frozenset({"sources", "ingest", "maintain", "collections", "least_change"})
    sources: tuple[str, ...] = Field((), description="sources that ingest_batch reads")
    ingest: str = Field("0 * * * *", description="cron of ingest_batch; used when there are sources")
    maintain: str = Field("0 3 * * 0", description="cron of maintain_index")
    collections: tuple[str, ...] = Field((), description="spec files that refresh_collections keeps up to date")

    least_change: float = Field(0.0, ge=0, description="share of a collection's candidates that must have come or gone since its newest version before it is made anew; 0: at any change")

    @field_validator("sources", "collections", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """An environment variable lists several with commas."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class Config(Section):
    """Everything that is configured. `root` is where all is kept: a folder or an fsspec URI."""

    root: str = ".discovery"
    s3: S3Config = S3Config()
    ingest: IngestConfig = IngestConfig()
    video: VideoConfig = VideoConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    check: CheckConfig = CheckConfig()
    encoder: EncoderConfig = EncoderConfig()
    dask: DaskConfig = DaskConfig()
    dedupe: DedupeConfig = DedupeConfig()
    novelty: NoveltyConfig = NoveltyConfig()
    index: IndexConfig = IndexConfig()
    regions: RegionsConfig = RegionsConfig()
    drift: DriftConfig = DriftConfig()
    collection: CollectionConfig = CollectionConfig()
    catalog: CatalogConfig = CatalogConfig()
    mlflow: MlflowConfig = MlflowConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    @property
    def is_remote(self) -> bool:
        """Whether the root is not a folder of this machine."""
        return is_remote(self.root)

    @property
    def local_folder(self) -> Path:
        """A folder of this machine for what must be a local file: caches, and embedded databases of a remote root."""
        return local_folder(self.root)

    @property
    def catalog_url(self) -> str:
        """The configured catalog, or the embedded SQLite file."""
        return self.catalog.url or f"sqlite:///{self.local_folder / 'catalog.db'}"

    @property
    def tracking_uri(self) -> str:
        """The configured MLflow, or the embedded SQLite file."""
        return self.mlflow.tracking_uri or f"sqlite:///{self.local_folder / 'mlflow.db'}"

    def replace(self, **sections: Mapping[str, Any] | str) -> Config:
        """A copy with some settings changed and everything checked again: `config.replace(dask={"workers": 2})`.

        Raises ConfigError for unknown keys and wrong types.
        """
        data = self.model_dump()
        for name, value in sections.items():
            data[name] = {**data.get(name, {}), **value} if isinstance(value, Mapping) else value
        return parse_config(data, origin="option")


def is_remote(root: str) -> bool:
    """Whether a root is not a folder of this machine."""
    return "://" in root and not root.startswith("file://")


def local_folder(root: str) -> Path:
    """The folder that a root is; for a remote one a folder of this machine that belongs to it alone."""
    if not is_remote(root):
        return Path(root.removeprefix("file://")).expanduser().absolute()
    name = hashlib.sha256(root.encode()).hexdigest()[:16]
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "discovery" / name


def load_config(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read discovery.toml and the environment.

    path: the file; None takes DISCOVERY_CONFIG, else ./discovery.toml when it is there. Raises ConfigError naming the key, the
    file or variable it came from and the nearest known key.
    """
    environ = os.environ if environ is None else environ
    named = path or (Path(environ["DISCOVERY_CONFIG"]) if environ.get("DISCOVERY_CONFIG") else None)
    if named is not None and not named.is_file():
        raise ConfigError(f"Configuration file {named} does not exist. Create it, or unset DISCOVERY_CONFIG.")
    file = named or Path("discovery.toml")
    data: dict[str, Any] = {}
    if file.is_file():
        try:
            data = tomllib.loads(file.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} is not valid TOML: {error}. Correct that line.") from error
        parse_config(data, origin=str(file))
    for variable, value in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX) or variable == "DISCOVERY_CONFIG":
            continue
        keys = variable.removeprefix(ENV_PREFIX).lower().split("__")
        if keys == ["root"]:
            data["root"] = value
        elif len(keys) == 2:
            data.setdefault(keys[0], {})[keys[1]] = value
            parse_config(data, origin=f"variable {variable}")
    return parse_config(data, origin="configuration")


def parse_config(data: Mapping[str, Any], origin: str) -> Config:
    """Validate a nested mapping; ConfigError says the key, what was expected, what was found and the nearest known key."""
    try:
        return Config.model_validate(dict(data))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            section = Config.model_fields.get(str(first["loc"][0]))
            inner = getattr(section.annotation, "model_fields", None) if section and len(first["loc"]) > 1 else None
            if "expectations" in first["loc"][:-1]:
                inner = ExpectationConfig.model_fields
            known = list(inner or Config.model_fields)
            raise ConfigError(f"{origin}: unknown setting {place}. {nearest(str(first['loc'][-1]), known)}") from error
        message = first["msg"].removeprefix("Value error, ")
        found = "…" if first["loc"][-1] in SECRETS else repr(first["input"])
        raise ConfigError(f"{origin}: {place} = {found}: {message}.") from (None if found == "…" else error)
