"""Embedding end to end against what bounds it and against a DataLoader loop: one run, the same pictures, the same model.

    forward     the encoder alone on pictures that are ready, on every core, or on the GPU
    decode      read + decode + resize alone, a bare loop of the encoder's own preprocessing on every core
    Pillow      the same as one writes it with Pillow alone: open, draft, resize, crop
    ours        `discovery` from a manifest to committed Parquet shards, on its workers, which have started before
    zero cost   the same with an encoder that computes nothing: what reading, decoding, batching and writing cost
    DataLoader  torch's, with workers that stay, timm's own transform, batches of 64, pinned and autocast on a GPU; the best of three
                ways to share the cores between its workers and torch's threads

On a CPU decoding and the forward pass share the cores: nothing can be faster than 1 / (1/forward + 1/decode), which is the bound
that `ours` is compared with there. On a GPU the bound is the slower of the two.

Each round measures all of them in turn, the bounds before and after, in processes that have started; the ratios to read are the medians.

    python -m benchmarks.embed_throughput                               the packaged encoder; needs `make demo STAY=0` for pictures
    python -m benchmarks.embed_throughput --model vit_small_patch16_224   random weights
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from discovery.adapters import encoders
from discovery.adapters.cores import available_cores
from discovery.adapters.dask_map import LazyDaskMap
from discovery.adapters.encoder_spec import EncoderSpec, crop_views, fitted_size
from discovery.adapters.torchvision_compat import import_timm
from discovery.config import Config, DaskConfig, EncoderConfig, S3Config
from discovery.stages.embed_shard import embed_shard
from discovery.stages.shards import ShardTask, fill_missing
from discovery.types import EmbeddingShard
from discovery.workspace import open_workspace

KINDS = {"12 MP JPEG": (4000, 3000, "JPEG"), "500 x 375 JPEG": (500, 375, "JPEG"), "500 x 375 PNG": (500, 375, "PNG")}
PICTURES = {"12 MP JPEG": 320, "500 x 375 JPEG": 960, "500 x 375 PNG": 640}  # of one slice of a round
PEER_BATCH = 64


class ZeroCost:
    """The default's preprocessing and size of vectors, and no network."""

    batch_size = 64
    runtime = "nothing"

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        self.vector = np.full(spec.dim, 1 / np.sqrt(spec.dim), np.float32)

    def preprocess(self, data: bytes) -> np.ndarray:
        """As the default does."""
        return crop_views(encoders.decode(data, max_pixels=2**62, at_least_px=self.spec.resize_px).image, self.spec)

    def encode(self, batch: np.ndarray) -> np.ndarray:
        """One vector for all."""
        return np.broadcast_to(self.vector, (len(batch), self.spec.dim))


def embed_for_nothing(task: ShardTask) -> EmbeddingShard:
    """`embed_shard` with the encoder of zero cost, on a worker; its name is not that of a real one."""
    real = encoders.load_encoder(task.config.encoder.model_copy(update={"name": "default"}), S3Config()).spec
    encoders.BUILDERS.setdefault("zero_cost", lambda config, s3: ZeroCost(zero_spec(real)))
    return embed_shard(task)


def zero_spec(real: EncoderSpec) -> EncoderSpec:
    """The real one's under another name."""
    return EncoderSpec.from_dict({**real.to_dict(), "model": "zero_cost"})


def make_pictures(folder: Path, kind: str, count: int) -> list[Path]:
    """Real pictures at that size, with a camera's noise, each file different."""
    from PIL import Image

    width, height, form = KINDS[kind]
    sources = sorted(Path(".demo/corpus/batch-1").glob("[a-z]*/*.png"))[:200]
    if not sources:
        sys.exit("Run `make demo STAY=0` first: the pictures come from its corpus.")
    rng = np.random.default_rng(9)
    originals = []
    for path in sources:
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC), np.int16)
        except (OSError, SyntaxError, Image.DecompressionBombError):
            continue  # planted: the demo's broken files
        noisy = pixels + rng.normal(0, 3, (height, width, 1)).astype(np.int16)
        sink = io.BytesIO()
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(sink, form, **({"quality": 90} if form == "JPEG" else {}))
        originals.append(sink.getvalue())
        if len(originals) == 40:
            break
    files = []
    for number in range(count):
        data = originals[number % len(originals)] + str(number).encode()  # behind the picture's end: another file, the same pixels
        files.append(folder / f"{number:06d}.{form.lower()}")
        files[-1].write_bytes(data)
    return files


def start_worker(config: EncoderConfig) -> None:
    """One core and the model."""
    os.environ["OMP_NUM_THREADS"] = "1"
    warnings.simplefilter("ignore")
    encoders.load_encoder(config, S3Config())


def load_encoder(config: EncoderConfig) -> None:
    """The model, in a worker, one batch, and what a first table imports."""
    import pandas  # noqa: F401  (by pyarrow)

    encoder = encoders.load_encoder(config, S3Config())
    encoder.encode(np.zeros((encoder.batch_size, *encoder.spec.shape), np.uint8))


def decode_files(config: EncoderConfig, files: list[Path]) -> int:
    """The bare loop."""
    encoder = encoders.load_encoder(config, S3Config())
    for file in files:
        encoder.preprocess(file.read_bytes())
    return len(files)


def decode_with_pillow(config: EncoderConfig, files: list[Path]) -> int:
    """The bare loop with Pillow alone, at the smallest DCT scale that serves."""
    from PIL import Image

    spec = encoders.load_encoder(config, S3Config()).spec
    for file in files:
        with Image.open(file) as image:
            image.draft("RGB", (spec.resize_px, spec.resize_px))
            width, height = fitted_size(*image.size, spec)
            resized = image.convert("RGB").resize((width, height), Image.Resampling[spec.interpolation.upper()])
            left, top = (width - spec.input_px) // 2, (height - spec.input_px) // 2
            np.asarray(resized.crop((left, top, left + spec.input_px, top + spec.input_px)))
    return len(files)


def forward(config: EncoderConfig, pictures: int) -> int:
    """The encoder on pictures that are ready; how many were done."""
    encoder = encoders.load_encoder(config, S3Config())
    batch = np.random.default_rng(0).integers(0, 256, (encoder.batch_size, *encoder.spec.shape), np.uint8)
    for _ in range(max(1, pictures // encoder.batch_size)):
        encoder.encode(batch)
    return max(1, pictures // encoder.batch_size) * encoder.batch_size


class Bare:
    """The bare loops in processes that have started, one a core; for a GPU the forward pass in one."""

    def __init__(self, config: EncoderConfig, *, on_gpu: bool) -> None:
        self.config, self.cores = config, available_cores()
        self.forward_processes = 1 if on_gpu else self.cores
        decoding = config if config.decoder == "nvjpeg" else config.model_copy(update={"device": "cpu"})
        self.decoding = decoding  # many processes, which must not fill the GPU's memory
        self.pool, self.gpu_pool = _started(self.cores, decoding), _started(1, config) if on_gpu else None
        self.forward(self.forward_processes)  # one batch each, which does not count
        self.decode([])

    def forward(self, pictures: int) -> float:
        """Pictures per second."""
        return self._rate(self.gpu_pool or self.pool, forward, self.config if self.gpu_pool else self.decoding, [pictures // self.forward_processes] * self.forward_processes)

    def decode(self, files: list[Path], loop: Callable[..., int] = decode_files) -> float:
        """Pictures per second."""
        return self._rate(self.pool, loop, self.decoding, [files[part :: self.cores] for part in range(self.cores)])

    def close(self) -> None:
        """End the processes."""
        self.pool.shutdown()
        if self.gpu_pool:
            self.gpu_pool.shutdown()

    @staticmethod
    def _rate(pool: ProcessPoolExecutor, function: Callable[..., int], config: EncoderConfig, parts: list[Any]) -> float:
        started = time.perf_counter()
        return float(sum(pool.map(function, [config] * len(parts), parts)) / (time.perf_counter() - started))


def _started(processes: int, config: EncoderConfig) -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), start_worker, (config,))
    list(pool.map(time.sleep, [0.5] * processes))
    return pool


class Ours:
    """`discovery`'s own embedding in its local workers, which have started; each run in a root of its own."""

    def __init__(self, config: EncoderConfig, folder: Path) -> None:
        self.config, self.folder, self.runs = config, folder, 0
        self.spread = LazyDaskMap(DaskConfig(), lambda line: None)
        client = self.spread._connect()
        client.wait_for_workers(self.spread._local_workers())
        client.run(load_encoder, config)

    def embed(self, paths: dict[str, str], *, for_nothing: bool = False) -> tuple[float, dict[str, float]]:
        """Assets per second from asset ids and files to committed shards, and the workers' seconds by what they did."""
        self.runs += 1
        config = Config(root=str(self.folder / f"root {self.runs}")).replace(encoder=self.config.model_dump())
        spec = encoders.load_encoder(self.config, S3Config()).spec
        if for_nothing:
            spec, config = zero_spec(spec), config.replace(encoder={"name": "zero_cost"})
        with open_workspace(config, map_shards=self.spread) as ws:
            started = time.perf_counter()
            shards = fill_missing(EmbeddingShard, spec.encoder_id, paths, embed_for_nothing if for_nothing else embed_shard, ws)
            rate = len(paths) / (time.perf_counter() - started)
        names = ("read_s", "decode_s", "wait_s", "encode_s", "copy_s", "write_s", "total_s")
        return rate, {name: sum(getattr(shard, name) for shard in shards) for name in names}


class Loop:
    """The loop that a good engineer writes: DataLoader with workers that stay, timm's transform, channels_last, Parquet at the end."""

    def __init__(self, config: EncoderConfig, files: list[Path], workers: int, threads: int) -> None:
        import torch
        from PIL import Image

        timm = import_timm()
        encoder: Any = encoders.load_encoder(config.model_copy(update={"precision": "float32"}), S3Config())
        self.model, self.device, self.threads, self.files = encoder._float32_model, encoder.device, threads, files
        transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=self.model))

        class Files(torch.utils.data.Dataset):  # type: ignore
            def __len__(self) -> int:
                return len(files)

            def __getitem__(self, row: int) -> Any:
                with Image.open(files[row]) as image:
                    return transform(image.convert("RGB"))

        self.loader = torch.utils.data.DataLoader(
            Files(), batch_size=PEER_BATCH, num_workers=workers, pin_memory=self.device.type == "cuda",
            prefetch_factor=4, persistent_workers=True,
        )  # fmt: skip
        iter(self.loader)  # the workers start

    def embed(self, out: Path) -> float:
        """Pictures per second."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        import torch

        torch.set_num_threads(self.threads)
        started = time.perf_counter()
        vectors = []
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            for batch in self.loader:
                x = batch.to(self.device, non_blocking=True, memory_format=torch.channels_last)
                vectors.append(torch.nn.functional.normalize(self.model(x).float(), dim=1).cpu())
        stacked = torch.cat(vectors).numpy()
        flat = pa.FixedSizeListArray.from_arrays(pa.array(stacked.reshape(-1)), stacked.shape[1])
        pq.write_table(pa.table({"path": [str(file) for file in self.files], "vector": flat}), out)
        return len(self.files) / (time.perf_counter() - started)


def best_loop(config: EncoderConfig, files: list[Path], out: Path) -> Loop:
    """Of three ways to share the cores between the DataLoader's workers and torch's threads, the fastest; each has one run before."""
    cores = available_cores()
    loops = [Loop(config, files, workers, threads) for workers, threads in sorted({(max(1, cores - 1), cores), (cores, cores), (cores, 1)})]
    rates = [max(loop.embed(out) for _ in range(2)) for loop in loops]
    return loops[rates.index(max(rates))]


def random_weights(name: str, folder: Path) -> str:
    """A weights file: what the values are does not matter to the speed."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = folder / f"{name}.safetensors"
    save_file(import_timm().create_model(name, pretrained=False).state_dict(), path)
    return str(path)


def main() -> None:
    """Every kind of picture, one after the other."""
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--share", type=float, default=1.0, help="of the number of pictures of a slice")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--decoder", default="pillow", choices=("pillow", "nvjpeg"), help="'nvjpeg' for a GPU that decodes too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        weights = "" if options.model == "default" else random_weights(options.model, folder)
        config = EncoderConfig(name=options.model, weights=weights, decoder=options.decoder)
        loaded = encoders.load_encoder(config, S3Config())
        on_gpu = loaded.runtime.startswith("cuda")
        print(f"{loaded.spec.model}, {loaded.runtime}, {available_cores()} cores", flush=True)
        share = options.share * (8 if on_gpu else 1)
        bare, own = Bare(config, on_gpu=on_gpu), Ours(config, folder)
        for kind in options.kinds.split(","):
            (folder / kind).mkdir()
            files = make_pictures(folder / kind, kind, int(PICTURES[kind] * share))
            paths = {hashlib.sha256(file.read_bytes()).hexdigest(): str(file) for file in files}  # now they are in the page cache
            loop = best_loop(config, files, folder / "peer.parquet")
            size = np.mean([file.stat().st_size for file in files]) / 1e6
            print(f"{kind}: {options.rounds} rounds of {len(files)} pictures of {size:.2f} MB", flush=True)
            ratios: dict[str, list[float]] = {}
            spent: dict[str, float] = {}
            for _ in range(options.rounds):
                forward_rate, decode_rate = bare.forward(int(256 * share)), bare.decode(files)
                rate, seconds = own.embed(paths)
                peer, (ceiling, _) = loop.embed(folder / "peer.parquet"), own.embed(paths, for_nothing=True)
                pillow = bare.decode(files, decode_with_pillow)
                decode_rate = (decode_rate + bare.decode(files)) / 2
                forward_rate = (forward_rate + bare.forward(int(256 * share))) / 2
                shared = 1 / (1 / forward_rate + 1 / decode_rate)
                for name, ratio in {
                    "ours / bound": rate / (min(forward_rate, decode_rate) if on_gpu else shared),
                    "ours / min(forward, decode)": rate / min(forward_rate, decode_rate),
                    "zero cost / decode": ceiling / decode_rate,
                    "zero cost / Pillow": ceiling / pillow,
                    "ours / DataLoader": rate / peer,
                }.items():
                    ratios.setdefault(name, []).append(ratio)
                spent = {name: spent.get(name, 0.0) + value for name, value in seconds.items()}
                print(
                    f"  forward {forward_rate:,.1f}  decode {decode_rate:,.1f}  Pillow {pillow:,.1f}  ours {rate:,.1f}  zero cost {ceiling:,.1f}  "
                    f"DataLoader {peer:,.1f} images/s",
                    flush=True,
                )
            for name, found in ratios.items():
                print(f"  {name}: median {statistics.median(found):.3f}, from {min(found):.3f} to {max(found):.3f}")
            print(f"  seconds of our workers: {json.dumps({name: round(value, 1) for name, value in spent.items()})}", flush=True)
        own.spread.close()
        bare.close()


if __name__ == "__main__":
    main()
