"""Runs a timm model: batches that fit, the fastest arithmetic that keeps the vectors, pooling and views; unit vectors out.

A vector does not depend on its batch mates: every forward pass has one shape, and what is missing is padded with zeros. Precision,
batch size and device are no part of the identity; a precision below float32 is used only when the probe pictures' vectors stay
within MAX_COSINE_DISTANCE of float32's.
"""

from __future__ import annotations

import contextlib
import functools
import io
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from discovery.adapters.compiled import (
    TRY_FROM_BATCHES,
    TRY_FROM_S,
    CompileTiming,
    compile_forward,
    remember,
    remembered,
    seconds_a_batch,
    timing_key,
)
from discovery.adapters.decode import decode
from discovery.adapters.device_decode import WHOLE, DeviceDecoder, nvjpeg
from discovery.adapters.encoder_spec import EncoderSpec, crop_views
from discovery.adapters.pooling import pooled
from discovery.adapters.torch_device import device_of, fast_types, torch_threads
from discovery.config import EncoderConfig
from discovery.core.probe_pictures import probe_pictures
from discovery.errors import ConfigError, InvalidInput

if TYPE_CHECKING:
    import torch

MAX_COSINE_DISTANCE = 1e-3  # of any vector from what float32 gives, promised for one encoder_id
PROBE_COSINE_DISTANCE = 5e-4  # on the probe pictures, which were worse than any real one that was tried
CAUSE_LINES, CAUSE_LENGTH = 2, 300  # of why a model cannot be compiled: torch's first line names only its backend, a trace comes later
CPU_BATCH = 16
CUDA_MAX_BATCH = 512
CUDA_MEMORY_SHARE = 0.5  # of the device's memory, for the activations of one batch


class TorchEncoder:
    """A timm model with its classifier removed. `encode` may be called from several threads; on CUDA each has a stream of its own."""

    def __init__(self, spec: EncoderSpec, model: Any, config: EncoderConfig) -> None:
        import torch

        self.spec = spec
        self.device = torch.device(device_of(config))
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)
        self.dtype = torch.float32
        self.batch_size = config.batch_size or CPU_BATCH
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(spec.mean, device=self.device).view(shape) * 255.0
        self._std = torch.tensor(spec.std, device=self.device).view(shape) * 255.0
        self._local, self._lock, self._copy_lock = threading.local(), threading.Lock(), threading.Lock()
        self.copy_s = 0.0  # of all copies to the device so far
        self._compile, self._prepared_for = config.compile, 0
        self._compiled: Callable[[torch.Tensor], torch.Tensor] | None = None
        self._float32_model = self.model
        self._choose_precision(config.precision)
        self._decoder = DeviceDecoder(spec) if spec.decoder == WHOLE else None
        self._try_nvjpeg()
        if self.device.type == "cuda" and not config.batch_size:
            self.batch_size = self._fitting_batch()

    @property
    def runtime(self) -> str:
        """How vectors are computed here, for the record: device, precision, batch size, and whether the model is compiled and nvJPEG decodes."""
        extras = [" compiled"] * (self._compiled is not None) + [" nvjpeg"] * (self._decoder is not None and self._decoder.uses_nvjpeg)
        return f"{self.device.type} {str(self.dtype).removeprefix('torch.')} batch {self.batch_size}{''.join(extras)}"

    def preprocess(self, data: bytes) -> NDArray[np.uint8]:
        """Decode, at the smallest scale that is enough or whole on the device, fit as the model was trained, crop the views."""
        if self._decoder is not None:
            return self._decoder.views(data)
        return crop_views(decode(data, max_pixels=2**62, at_least_px=self.spec.resize_px).image, self.spec)

    def empty_batch(self) -> NDArray[np.uint8]:
        """(batch_size, *spec.shape) uint8 to write pictures into; in pinned memory for CUDA, which copies it without a detour."""
        import torch

        shape = (self.batch_size, *self.spec.shape)
        return np.asarray(torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda").numpy())

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, dim) float32 unit vectors of (n, *spec.shape) uint8, any n. Out of memory: the batch is halved, for good.

        Raises InvalidInput: another shape, or NaN or infinite features in float32 too.
        """
        import torch

        if batch.dtype != np.uint8 or batch.shape[1:] != self.spec.shape:
            raise InvalidInput(f"Expected uint8 pictures of shape {self.spec.shape}, found {batch.dtype} {batch.shape[1:]}.")
        vectors = np.empty((len(batch), self.spec.dim), np.float32)
        start = 0
        while start < len(batch):
            size = self.batch_size
            try:
                vectors[start : start + size] = self._encode_one(batch[start : start + size], size)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise InvalidInput(
                        f"One picture does not fit the memory of {self.device}. Use a smaller encoder or encoder.device = 'cpu'."
                    ) from None
                torch.cuda.empty_cache()
                self._compiled = None  # it is for batches of the old size
                self.batch_size = min(self.batch_size, size // 2)  # another thread may have halved it
                continue
            start += size
        return vectors

    @property
    def float32_model(self) -> Any:
        """The model as it was loaded, whatever precision vectors are computed in."""
        return self._float32_model

    def normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) float32 as the model was trained to see them, of (n, h, w, 3) uint8 on its device."""
        return pixels.permute(0, 3, 1, 2).float().sub_(self._mean).div_(self._std)  # channels_last as it lies

    def _encode_one(self, batch: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
        """One forward pass of `size` pictures, `batch` and zeros."""
        n = len(batch)
        if n < size:
            batch = np.concatenate([batch, np.zeros((size - n, *batch.shape[1:]), np.uint8)])
        vectors = self._vectors(batch, self.model, self.dtype)[:n]
        if not np.isfinite(vectors).all() and self._float32_model is not self.model:
            import torch

            vectors = self._vectors(batch, self._float32_model, torch.float32)[:n]  # too large for the short type
        if not np.isfinite(vectors).all():
            raise InvalidInput(f"Encoder {self.spec.encoder_id} gave NaN or infinite features. Check its weights.")
        return vectors

    def _vectors(self, batch: NDArray[np.uint8], model: Any, dtype: torch.dtype) -> NDArray[np.float32]:
        import torch
        from torch.nn.functional import normalize

        views = len(batch) * self.spec.view_count
        with torch.inference_mode(), self._stream():
            with self._timed_copy():
                on_device = torch.from_numpy(batch).to(self.device, non_blocking=True)
            x = self.normalised(on_device.view(views // self.spec.flips, *self.spec.shape[-3:])).to(dtype)
            if self.spec.flips == 2:
                x = torch.stack([x, x.flip(3)], dim=1).flatten(0, 1).contiguous(memory_format=torch.channels_last)
            forward = self._compiled if self._compiled is not None and model is self.model else functools.partial(pooled, model, self.spec.pooling)
            features = normalize(forward(x).float(), dim=1)
            if self.spec.view_count > 1:
                features = normalize(features.view(len(batch), self.spec.view_count, -1).mean(dim=1), dim=1)
            vectors = np.ascontiguousarray(features.cpu().numpy(), dtype=np.float32)
            self._count_copy()
            return vectors

    @contextlib.contextmanager
    def _stream(self) -> Iterator[None]:
        """On CUDA, a stream of the calling thread: the copy of one batch then overlaps the forward pass of another's."""
        if self.device.type != "cuda":
            yield
            return
        import torch

        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(self._local.stream):
            yield

    @contextlib.contextmanager
    def _timed_copy(self) -> Iterator[None]:
        """On CUDA, marks in the stream around the copy of a batch; a CPU copies nothing."""
        if self.device.type != "cuda":
            yield
            return
        import torch

        self._local.marks = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        self._local.marks[0].record()
        yield
        self._local.marks[1].record()

    def _count_copy(self) -> None:
        """Add what the marks say, once the stream has passed them."""
        if self.device.type == "cuda":
            began, ended = self._local.marks
            with self._copy_lock:
                self.copy_s += began.elapsed_time(ended) / 1000

    def _choose_precision(self, wanted: str) -> None:
        """The first of the device's fast types whose vectors of the probe pictures stay with float32's; or the one that is asked for."""
        import copy

        import torch

        if wanted == "float32":
            return
        candidates = [getattr(torch, wanted)] if wanted != "auto" else fast_types(self.device.type)
        if not candidates:
            return
        pictures = [np.broadcast_to(picture, (1, *self.spec.shape)).copy() for picture in probe_pictures(self.spec.input_px)]
        for dtype in candidates:
            model = copy.deepcopy(self._float32_model).to(dtype)
            for picture in pictures:
                exact = self._vectors(picture, self._float32_model, torch.float32)
                distance = 1.0 - float((self._vectors(picture, model, dtype) * exact).sum())
                if not distance <= PROBE_COSINE_DISTANCE:  # so for NaN too
                    break
            else:
                self.model, self.dtype = model, dtype
                return
            if wanted != "auto":
                raise ConfigError(
                    f"encoder.precision = '{wanted}' moves a vector of {self.spec.model} by a cosine distance of {distance:.2g} on a probe "
                    f"picture; {PROBE_COSINE_DISTANCE:g} is allowed. Use 'auto' or 'float32'."
                )

    def _try_nvjpeg(self) -> None:
        """Let the device decode JPEGs when the probes' vectors stay with those of Pillow's decoding."""
        decode_jpegs = nvjpeg(self.device) if self._decoder is not None else None
        if self._decoder is None or decode_jpegs is None:
            return
        files = [as_jpeg(picture) for picture in probe_pictures(2 * self.spec.resize_px)]
        expected = self.encode(np.stack([self._decoder.views(data) for data in files]))
        self._decoder.use_nvjpeg(decode_jpegs)
        distance = 1.0 - (self.encode(np.stack([self._decoder.views(data) for data in files])) * expected).sum(axis=1).min()
        if not distance <= PROBE_COSINE_DISTANCE:
            self._decoder.use_nvjpeg(None)

    def prepare(self, pictures: int) -> None:
        """Get ready for that many pictures: the model is compiled when that saves time, which is found once a machine.

        Raises ConfigError: encoder.compile = 'on', and it cannot be compiled here.
        """
        with self._lock:
            if self._compile == "off" or self._compiled is not None or pictures <= self._prepared_for:
                return
            self._prepared_for = pictures
            batches = pictures / self.batch_size
            key = timing_key(self.spec.encoder_id, self.runtime, torch_threads())
            if self._compile == "auto":
                timing = remembered(key)
                if timing is None and batches < TRY_FROM_BATCHES:
                    return
                if timing is None and seconds_a_batch(self._any_batch) * batches < TRY_FROM_S:
                    return
                if timing is not None and timing.saves_s(batches) <= 0:
                    return
            tried = self._try_compiled()
            remember(key, tried)
            if self._compile == "on" and tried.error:
                raise ConfigError(f"encoder.compile = 'on', but {self.spec.model} cannot be compiled here: {tried.error}. Use 'auto' or 'off'.")

    def _any_batch(self) -> None:
        self.encode(np.zeros((self.batch_size, *self.spec.shape), np.uint8))

    def _try_compiled(self) -> CompileTiming:
        """Compile and time it; the model stays compiled when that made it faster (or was asked for) and kept the probes' vectors."""
        eager_s = seconds_a_batch(self._any_batch)
        pictures = np.stack([np.broadcast_to(picture, self.spec.shape) for picture in probe_pictures(self.spec.input_px)])
        exact = self.encode(pictures)
        started = time.perf_counter()
        self._compiled = compile_forward(functools.partial(pooled, self.model, self.spec.pooling), self.device.type)
        try:
            distance = 1.0 - float((self.encode(pictures) * exact).sum(axis=1).min())
            compile_s = time.perf_counter() - started
            compiled_s = seconds_a_batch(self._any_batch)
        except Exception as error:  # compilers fail in many ways: none installed, no memory, a model they do not understand
            self._compiled = None
            cause = " ".join(str(error).split("\n")[:CAUSE_LINES])[:CAUSE_LENGTH].strip()
            return CompileTiming(eager_s, 0.0, 0.0, f"{type(error).__name__}: {cause}")
        if not distance <= PROBE_COSINE_DISTANCE:
            self._compiled = None
            return CompileTiming(eager_s, compiled_s, compile_s, f"its vectors move by a cosine distance of {distance:.2g}")
        if compiled_s >= eager_s and self._compile == "auto":
            self._compiled = None
        return CompileTiming(eager_s, compiled_s, compile_s)

    def _fitting_batch(self) -> int:
        """The largest power of two up to CUDA_MAX_BATCH whose activations take at most CUDA_MEMORY_SHARE of the device, measured."""
        import torch

        peaks = []
        for size in (1, 8):
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            self._vectors(np.zeros((size, *self.spec.shape), np.uint8), self.model, self.dtype)
            peaks.append(torch.cuda.max_memory_allocated(self.device) - before)
        per_picture = max(1, (peaks[1] - peaks[0]) / 7)
        room = torch.cuda.get_device_properties(self.device).total_memory * CUDA_MEMORY_SHARE
        return int(2 ** np.floor(np.log2(min(CUDA_MAX_BATCH, max(1, room / per_picture)))))


def as_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG of quality 95 of (h, w, 3) uint8."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=95)
    return sink.getvalue()
