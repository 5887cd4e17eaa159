"""Embedding end to end against what bounds it and against a DataLoader loop: one run, the same pictures, the same model.

    forward     the encoder alone on pictures that are ready, on every core, or on the GPU
    decode      read + decode + resize alone, a plain loop on every core
    ours        `discovery` from a manifest to committed Parquet shards, on its workers, which have started before
    zero cost   the same with an encoder that computes nothing: what reading, decoding, batching and writing cost
    DataLoader  torch's, timm's own transform, batches of 64, pinned and autocast on a GPU; the best of three ways to share the cores
                between its workers and torch's threads

On a CPU decoding and the forward pass share the cores: nothing can be faster than 1 / (1/forward + 1/decode), which is the bound
that `ours` is compared with there. On a GPU the bound is the slower of the two.

    python -m benchmarks.embed_throughput                               the packaged encoder; needs `make demo STAY=0` for pictures
    python -m benchmarks.embed_throughput --model vit_small_patch16_224   random weights
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
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
from discovery.adapters.encoder_spec import EncoderSpec, crop_views
from discovery.adapters.torchvision_compat import import_timm
from discovery.config import Config, EncoderConfig, S3Config
from discovery.stages.embed_shard import embed_shard
from discovery.stages.shards import ShardTask, fill_missing
from discovery.types import EmbeddingShard
from discovery.workspace import Workspace, open_workspace

KINDS = {"12 MP JPEG": (4000, 3000, "JPEG"), "500 x 375 JPEG": (500, 375, "JPEG"), "500 x 375 PNG": (500, 375, "PNG")}
PICTURES = {"12 MP JPEG": 400, "500 x 375 JPEG": 2400, "500 x 375 PNG": 1600}
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


def decode_files(config: EncoderConfig, files: list[Path]) -> int:
    """The bare loop."""
    encoder = encoders.load_encoder(config, S3Config())
    for file in files:
        encoder.preprocess(file.read_bytes())
    return len(files)


def forward(config: EncoderConfig, pictures: int) -> int:
    """The encoder on pictures that are ready; how many were done."""
    encoder = encoders.load_encoder(config, S3Config())
    batch = np.random.default_rng(0).integers(0, 256, (encoder.batch_size, *encoder.spec.shape), np.uint8)
    for _ in range(max(1, pictures // encoder.batch_size)):
        encoder.encode(batch)
    return max(1, pictures // encoder.batch_size) * encoder.batch_size


def on_every_core(config: EncoderConfig, function: Callable[..., int], parts: list[Any]) -> float:
    """Items per second of `function(config, part)` in one process a part."""
    with ProcessPoolExecutor(len(parts), multiprocessing.get_context("spawn"), start_worker, (config,)) as pool:
        list(pool.map(time.sleep, [0.5] * len(parts)))  # all have started and loaded the model
        list(pool.map(function, [config] * len(parts), [part[:8] if isinstance(part, list) else 8 for part in parts]))
        started = time.perf_counter()
        done = sum(pool.map(function, [config] * len(parts), parts))
        return done / (time.perf_counter() - started)


def ours(config: Config, warm_up: list[Path], files: list[Path], run: Callable[[ShardTask], EmbeddingShard]) -> tuple[float, dict[str, float]]:
    """Assets per second from the list of files to committed shards, and the workers' seconds by what they did."""
    import hashlib

    def needed(paths: list[Path]) -> dict[str, str]:
        return {hashlib.sha256(path.read_bytes()).hexdigest(): str(path) for path in paths}

    def embed(ws: Workspace, paths: dict[str, str]) -> list[EmbeddingShard]:
        real = config.encoder.model_copy(update={"name": "default"} if config.encoder.name == "zero_cost" else {})
        spec = encoders.load_encoder(real, S3Config()).spec
        producer = (spec if real == config.encoder else zero_spec(spec)).encoder_id
        return fill_missing(EmbeddingShard, producer, paths, run, ws)

    with open_workspace(config) as ws:
        embed(ws, needed(warm_up))
        paths = needed(files)
        started = time.perf_counter()
        shards = embed(ws, paths)
        rate = len(paths) / (time.perf_counter() - started)
    names = ("read_s", "decode_s", "wait_s", "encode_s", "copy_s", "write_s", "total_s")
    return rate, {name: sum(getattr(shard, name) for shard in shards) for name in names}


def data_loader(config: EncoderConfig, files: list[Path], out: Path, workers: int, threads: int) -> float:
    """Pictures per second of the loop that a good engineer writes: DataLoader, timm's transform, channels_last, Parquet at the end."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from PIL import Image

    timm = import_timm()
    encoder: Any = encoders.load_encoder(config.model_copy(update={"precision": "float32"}), S3Config())
    model, device = encoder._float32_model, encoder.device
    torch.set_num_threads(threads)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))

    class Files(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, row: int) -> Any:
            with Image.open(files[row]) as image:
                return transform(image.convert("RGB"))

    loader = torch.utils.data.DataLoader(
        Files(), batch_size=PEER_BATCH, num_workers=workers, pin_memory=device.type == "cuda", prefetch_factor=4 if workers else None
    )
    started = time.perf_counter()
    vectors = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        for batch in loader:
            x = batch.to(device, non_blocking=True, memory_format=torch.channels_last)
            vectors.append(torch.nn.functional.normalize(model(x).float(), dim=1).cpu())
    stacked = torch.cat(vectors).numpy()
    flat = pa.FixedSizeListArray.from_arrays(pa.array(stacked.reshape(-1)), stacked.shape[1])
    pq.write_table(pa.table({"path": [str(file) for file in files], "vector": flat}), out)
    return len(files) / (time.perf_counter() - started)


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
    parser.add_argument("--share", type=float, default=1.0, help="of the number of pictures")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--decoder", default="pillow", choices=("pillow", "nvjpeg"), help="'nvjpeg' for a GPU that decodes too")
    options = parser.parse_args()
    cores = available_cores()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        weights = "" if options.model == "default" else random_weights(options.model, folder)
        encoder = EncoderConfig(name=options.model, weights=weights, decoder=options.decoder)
        loaded = encoders.load_encoder(encoder, S3Config())
        on_gpu = loaded.runtime.startswith("cuda")
        print(f"{loaded.spec.model}, {loaded.runtime}, {cores} cores", flush=True)
        processes = 1 if on_gpu else cores
        pictures = int((4000 if on_gpu else 600) * options.share)
        forward_rate = on_every_core(encoder, forward, [pictures] * processes)
        print(f"forward {forward_rate:,.1f} images/s", flush=True)
        for kind in options.kinds.split(","):
            (folder / kind).mkdir()
            files = make_pictures(folder / kind, kind, int(PICTURES[kind] * options.share) + 16 * cores)
            warm_up, files = files[: 16 * cores], files[16 * cores :]
            for file in files:  # all passes find them in the page cache
                file.read_bytes()
            decode_rate = on_every_core(encoder, decode_files, [files[part::cores] for part in range(cores)])
            shards = {"shard_assets": 8} if len(files) < 128 * cores else {"shard_assets": 0}
            root = Config(root=str(folder / f"{kind} root")).replace(encoder=encoder.model_dump(), dask={"workers": 0, **shards})
            rate, seconds = ours(root, warm_up, files, embed_shard)
            nothing = root.replace(root=str(folder / f"{kind} zero"), encoder={"name": "zero_cost", "weights": ""})
            ceiling, _ = ours(nothing, warm_up, files, embed_for_nothing)
            ways = {(max(1, cores - 1), cores), (cores, cores), (cores, 1)}
            peer = max(data_loader(encoder, files, folder / "peer.parquet", workers, threads) for workers, threads in sorted(ways))
            bound = min(forward_rate, decode_rate) if on_gpu else 1 / (1 / forward_rate + 1 / decode_rate)
            print(
                f"{kind}: {len(files)} pictures of {np.mean([file.stat().st_size for file in files]) / 1e6:.2f} MB\n"
                f"  decode {decode_rate:,.1f}  ours {rate:,.1f}  zero cost {ceiling:,.1f}  DataLoader {peer:,.1f} images/s\n"
                f"  ours / bound {rate / bound:.3f}   ours / min(forward, decode) {rate / min(forward_rate, decode_rate):.3f}   "
                f"zero cost / decode {ceiling / decode_rate:.3f}   ours / DataLoader {rate / peer:.2f}\n"
                f"  seconds of the workers: {json.dumps({name: round(value, 1) for name, value in seconds.items()})}",
                flush=True,
            )


if __name__ == "__main__":
    main()
