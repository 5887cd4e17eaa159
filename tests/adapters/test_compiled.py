"""torch.compile: not tried for little work, used where it pays, never where it moves the vectors or cannot be done."""

import numpy as np
import pytest

from discovery.adapters import compiled, torch_device, torch_encoder
from discovery.adapters.compiled import CompileTiming
from discovery.adapters.encoder_spec import EncoderSpec
from discovery.adapters.torch_encoder import PROBE_COSINE_DISTANCE, TorchEncoder
from discovery.config import EncoderConfig
from discovery.core.probe_pictures import probe_pictures
from discovery.errors import ConfigError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Timings are remembered in this test's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "discovery" / "compiled"


def encoder(**settings: object) -> TorchEncoder:
    """A network of one convolution, quick to compile."""
    import torch

    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 5), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    spec = EncoderSpec(
        model="one_convolution", weights_sha256="0" * 64, dim=8, input_px=32, resize_px=32, interpolation="bicubic",
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    )  # fmt: skip
    return TorchEncoder(spec, model, EncoderConfig(device="cpu", precision="float32", batch_size=4, **settings))


def test_a_compiled_model_gives_the_same_vectors_and_says_that_it_is_one(own_cache):
    plain, fast = encoder(compile="off"), encoder(compile="on")
    for each in (plain, fast):
        each.prepare(1)
    assert (plain.runtime, fast.runtime) == ("cpu float32 batch 4", "cpu float32 batch 4 compiled")
    pictures = probe_pictures(32)
    assert 1 - (plain.encode(pictures) * fast.encode(pictures)).sum(axis=1).min() <= PROBE_COSINE_DISTANCE
    assert fast.spec.encoder_id == plain.spec.encoder_id
    assert len(list(own_cache.iterdir())) == 1


def test_little_work_is_not_worth_a_try_and_very_little_not_worth_timing(own_cache, monkeypatch):
    made = encoder()
    made.prepare(1000)  # 250 batches of milliseconds
    assert "compiled" not in made.runtime and not own_cache.exists()
    monkeypatch.setattr(torch_encoder, "seconds_a_batch", lambda encode: pytest.fail("timed"))
    encoder().prepare(796)  # 199 batches: timing four would cost more than 2 %


@pytest.mark.parametrize(
    ("timing", "pays"),
    [
        (CompileTiming(eager_s=0.2, compiled_s=0.1, compile_s=20.0), True),  # 250 batches save 25 s
        (CompileTiming(eager_s=0.2, compiled_s=0.1, compile_s=30.0), False),
        (CompileTiming(eager_s=0.2, compiled_s=0.3, compile_s=1.0), False),
        (CompileTiming(eager_s=0.2, compiled_s=0.0, compile_s=0.0, error="no compiler"), False),
    ],
)
def test_what_this_machine_measured_before_decides(timing, pays, monkeypatch):
    made = encoder()
    tried = []

    def record() -> CompileTiming:
        tried.append(1)
        return timing

    compiled.remember(compiled.timing_key(made.spec.encoder_id, made.runtime, torch_device.torch_threads()), timing)
    monkeypatch.setattr(made, "_try_compiled", record)
    monkeypatch.setattr(torch_encoder, "seconds_a_batch", lambda encode: pytest.fail("measured again"))
    made.prepare(1000)
    made.prepare(999)  # decided for more already
    assert len(tried) == int(pays)


def test_what_cannot_be_compiled_runs_as_it_is_and_is_remembered(own_cache, monkeypatch):
    def broken(forward, device):
        def fail(x):
            raise RuntimeError("backend raised:\nno C++ compiler\nand a long trace")

        return fail

    monkeypatch.setattr(torch_encoder, "compile_forward", broken)
    monkeypatch.setattr(torch_encoder, "TRY_FROM_S", 0.0)
    made = encoder()
    expected = made.encode(probe_pictures(32))
    made.prepare(800)
    assert "compiled" not in made.runtime and (made.encode(probe_pictures(32)) == expected).all()
    (file,) = own_cache.iterdir()
    assert "RuntimeError: backend raised: no C++ compiler" in file.read_text() and "trace" not in file.read_text()
    with pytest.raises(ConfigError, match=r"encoder.compile = 'on', but one_convolution cannot be compiled here: RuntimeError: backend raised: no C\+\+ compiler"):
        encoder(compile="on").prepare(1)


def test_a_compiled_model_that_moves_the_vectors_is_not_used(monkeypatch):
    monkeypatch.setattr(torch_encoder, "compile_forward", lambda forward, device: lambda x: forward(x).flip(1))
    monkeypatch.setattr(torch_encoder, "TRY_FROM_S", 0.0)
    made = encoder()
    made.prepare(800)
    assert "compiled" not in made.runtime
    with pytest.raises(ConfigError, match="its vectors move by a cosine distance of"):
        encoder(compile="on").prepare(1)


def test_less_memory_ends_the_use_of_what_was_compiled_for_the_old_batch(monkeypatch):
    import torch

    made = encoder(compile="on")
    made.prepare(1)
    plain, calls = TorchEncoder._vectors, []

    def out_of_memory_once(self, batch, model, dtype):
        calls.append(len(batch))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("simulated")
        return plain(self, batch, model, dtype)

    monkeypatch.setattr(TorchEncoder, "_vectors", out_of_memory_once)
    assert made.encode(np.zeros((4, 32, 32, 3), np.uint8)).shape == (4, 8)
    assert calls == [4, 2, 2] and made.runtime == "cpu float32 batch 2"
