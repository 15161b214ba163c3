"""Sounds as a task: what is read of WAV files, features inside the model against a computation of
their own, and what int8 leaves alone."""

from __future__ import annotations

import dataclasses
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile
import scipy.signal
import torch

from featherweight import recipes
from featherweight.deploy.predict import heading, resampled, sound, waveform
from featherweight.errors import TaskError
from featherweight.graphs.export import export_onnx
from featherweight.models.package import Package
from featherweight.nets.conv_net import ConvNet
from featherweight.nets.log_mel import LogMel
from featherweight.plan import Plan
from featherweight.task.fronts.log_mel import LogMel as Features
from featherweight.task.fronts.spectrum import FLOOR, Spectrum
from featherweight.task.kinds import make_task
from featherweight.task.load import load_task
from featherweight.transforms.quantize import Quantize
from tests import toy

NET = """
from torch import nn
def net(num_classes):
    end = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), *end)
def flat(num_classes):
    end = nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, num_classes)
    return nn.Sequential(nn.Conv1d(40, 4, 3), nn.ReLU(), *end)
def raw():
    return nn.Sequential(nn.Linear(4000, 2))
"""


def write(path: Path, x: np.ndarray, rate: int = 8000) -> Path:
    """x [n] or [n, channels] in [-1, 1], as 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1 if x.ndim == 1 else x.shape[1])
        f.setsampwidth(2)
        f.setframerate(rate)
        f.writeframes((x * 32767).round().astype("<i2").tobytes())
    return path


def tone(hertz: float, n: int = 4000, rate: int = 8000, loud: float = 0.5) -> np.ndarray:
    return loud * np.sin(2 * np.pi * hertz * np.arange(n) / rate)


def tones(folder: Path, many: int = 10) -> Path:
    rng = np.random.default_rng(0)
    for i in range(many):
        noise = 0.01 * rng.normal(size=(2, 4000))
        write(folder / "low" / f"{i}.wav", tone(300 + 10 * i) + noise[0])
        write(folder / "high" / f"{i}.wav", tone(2000 + 50 * i) + noise[1])
    return folder


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NET)
    return tmp_path / "nets.py"


@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_are_read_as_scipy_reads_them(tmp_path: Path, kind: str, channels: int) -> None:
    rng = np.random.default_rng(0)
    whole = np.dtype(kind).kind in "iu"
    x = rng.uniform(-1, 1, (101, channels))
    info = np.iinfo(kind) if whole else None
    given = (
        (x * (info.max if kind != "uint8" else 127) + (128 if kind == "uint8" else 0)).astype(kind)
        if info
        else x.astype(kind)
    )
    scipy.io.wavfile.write(tmp_path / "a.wav", 8000, given)
    read = scipy.io.wavfile.read(tmp_path / "a.wav")[1].reshape(101, channels).astype(np.float64)
    expected = (read - 128) / 128 if kind == "uint8" else read / (info.max + 1.0) if info else read
    found, rate = sound(tmp_path / "a.wav")
    assert rate == 8000 and np.array_equal(found, expected.mean(1))


def test_24_bits_and_files_of_unknown_length_are_read(tmp_path: Path) -> None:
    values = np.array([0, 1, -1, 2**23 - 1, -(2**23), 12345], dtype="<i4")
    body = values.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    extensible = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 24000, 3, 24, 22, 24, 0) + struct.pack("<H", 1) + bytes(14)
    for size in (len(body), 0, 0xFFFFFFFF, 0x7FFFF000):
        data = b"RIFF\0\0\0\0WAVELIST" + struct.pack("<I", 3) + b"abc\0fmt " + struct.pack("<I", len(extensible))
        (tmp_path / "a.wav").write_bytes(data + extensible + b"data" + struct.pack("<I", size) + body)
        assert np.array_equal(sound(tmp_path / "a.wav")[0], values / 2**23)


@pytest.mark.parametrize(
    "own, rate", [(44_100, 16_000), (8_000, 16_000), (22_050, 16_000), (16_000, 11_025), (1_000, 16_000)]
)
def test_resampling_is_that_of_scipy(own: int, rate: int) -> None:
    x = np.random.default_rng(0).normal(size=own // 7)
    g = int(np.gcd(own, rate))
    expected = scipy.signal.resample_poly(x, rate // g, own // g)
    assert np.allclose(resampled(x, own, rate), expected, atol=1e-12)
    assert resampled(x, own, own) is x and len(resampled(x[:1], own, rate)) == -(-rate // own)


def test_a_sound_that_is_cut_is_the_beginning_of_the_whole(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, 30_000)
    for own, rate in ((44_100, 16_000), (1_000, 16_000), (8_000, 8_000)):
        path = write(tmp_path / "a.wav", x, own)
        whole = waveform(path, rate, len(resampled(x, own, rate)) + 100)
        assert np.array_equal(waveform(path, rate, 1000), whole[:1000]) and not whole[-100:].any()


@pytest.mark.parametrize(
    "rate, samples, mels, window_ms, hop_ms",
    [
        (16_000, 16_000, 40, 25, 10),
        (8_000, 3_999, 20, 32, 16),
        (11_025, 5_000, 13, 20, 7),
        (16_000, 401, 8, 25, 10),
        (22_050, 9_000, 40, 30, 60),
    ],
)
@pytest.mark.parametrize("centred", [False, True])
def test_features_are_those_of_a_fourier_transform(
    rate: int, samples: int, mels: int, window_ms: float, hop_ms: float, centred: bool
) -> None:
    s = Spectrum.of(rate, samples, mels, window_ms, hop_ms)
    x = np.random.default_rng(0).normal(0, 0.1, (2, samples)).astype(np.float32)
    x[1] = 0
    frames = np.stack([x[:, i * s.hop : i * s.hop + s.window] for i in range(s.frames)], axis=1).astype(np.float64)
    assert frames.shape[2] == s.window and (s.frames * s.hop + s.window) > samples
    w = scipy.signal.get_window("hann", s.window)
    power = np.abs(np.fft.rfft(frames * w / w.sum())) ** 2
    expected = np.log(power @ s.filters() + FLOOR).transpose(0, 2, 1)
    expected = expected - expected.mean((1, 2), keepdims=True) if centred else expected
    found = Features(s, planes=False, centred=centred)(torch.from_numpy(x)).numpy()
    assert found.shape == (2, mels, s.frames) and np.abs(found - expected).max() < 1e-4
    assert Features(s)(torch.from_numpy(x)).shape == (2, 1, mels, s.frames)


def test_the_filters_stand_where_mels_are() -> None:
    s = Spectrum.of(16_000, 16_000, 40, 64, 10)
    # 1000 Hz are 1000 mels (O'Shaughnessy 1987), and the bands are even in mels
    corners = np.linspace(2595 * np.log10(1 + 20 / 700), 2595 * np.log10(1 + 8000 / 700), 42)
    peak = int(np.argmax(s.filters()[round(1000 * s.window / 16_000)]))
    assert abs(corners[peak + 1] - 1000) < corners[1] - corners[0] and s.filters().max() <= 1
    x = torch.from_numpy(tone(1000, 16_000, 16_000).astype(np.float32))[None]
    assert int(Features(s)(x)[0, 0].mean(1).argmax()) == peak


def test_loudness_does_not_matter_and_silence_is_finite() -> None:
    s = Spectrum.of(8000, 4000, 20, 25, 10)
    x = np.random.default_rng(0).normal(0, 0.1, (1, 4000)).astype(np.float32)
    loud, soft = (Features(s)(torch.from_numpy(x * g)) for g in (1.0, 0.2))
    assert float((loud - soft).abs().max()) < 0.05
    assert float(Features(s)(torch.zeros(1, 4000)).abs().max()) < 1e-4


def test_the_constants_in_the_file_are_small(tmp_path: Path) -> None:
    s = Spectrum.of(16_000, 16_000, 40, 25, 10)
    direct = 4 * (2 * s.window * (s.window // 2 + 1) + (s.window // 2 + 1) * s.mels)
    export_onnx(Features(s), {"waveform": torch.randn(1, 16_000)}, None, tmp_path / "f.onnx")
    assert (tmp_path / "f.onnx").stat().st_size < direct / 10


@pytest.mark.parametrize("features, name", [("log-mel", "net"), ("log-mel-1d", "flat"), ("waveform", "raw")])
def test_a_folder_of_sounds_is_a_task(tmp_path: Path, net: Path, features: str, name: str) -> None:
    task = make_task("audio-classification", model=f"{net}:{name}", data=tones(tmp_path / "tones"), features=features)
    splits = task.splits()
    assert splits.report["class_names"] == ["high", "low"] and splits.report["samples"] == 20
    x, y = splits.valid.batch(np.arange(2))
    assert x["waveform"].shape == (2, 4000) and x["waveform"].dtype == np.float32
    assert task.build()(torch.from_numpy(x["waveform"])).shape == (2, 2)
    again = load_task(task.ref)
    assert again.fingerprint == task.fingerprint and again.ref == task.ref
    other = make_task("audio-classification", model=f"{net}:net", data=tmp_path / "tones", mels=20)
    assert other.fingerprint != task.fingerprint


def test_a_table_of_paths_is_the_same_task_and_keeps_groups_whole(tmp_path: Path, net: Path) -> None:
    folder = tones(tmp_path / "tones")
    rows = [f"tones/{c}/{i}.wav,{c},speaker {i % 5}" for c in ("low", "high") for i in range(10)]
    (tmp_path / "list.csv").write_text("path,label,who\n" + "\n".join(rows))
    whole = make_task("audio-classification", model=f"{net}:net", data=folder)
    task = make_task("audio-classification", model=f"{net}:net", data=tmp_path / "list.csv")
    assert task.splits().fingerprint == whole.splits().fingerprint
    task = make_task("audio-classification", model=f"{net}:net", data=tmp_path / "list.csv", group_column="who")
    heard = []
    for part in (task.splits().train, task.splits().valid, task.splits().test):
        found = {int(i) % 10 % 5 for i in part.index}  # type: ignore[attr-defined]
        heard.append(found)
    assert not heard[0] & heard[1] and not heard[0] & heard[2] and not heard[1] & heard[2]
    assert load_task(task.ref).splits().fingerprint == task.splits().fingerprint
    (tmp_path / "list.csv").write_text("path,label\ngone.wav,a\n" + "\n".join(r.rpartition(",")[0] for r in rows))
    with pytest.raises(TaskError, match="not there"):
        make_task("audio-classification", data=tmp_path / "list.csv")


def test_rates_and_lengths_that_differ_are_brought_together_and_said(tmp_path: Path, net: Path) -> None:
    folder = tones(tmp_path / "tones")
    write(folder / "low" / "fast.wav", tone(300, 24_000, 16_000), 16_000)
    write(folder / "low" / "two.wav", np.stack([tone(300), tone(310)], 1))
    task = make_task("audio-classification", model=f"{net}:net", data=folder)
    assert task.example()["waveform"].shape == (1, 12_000)
    assert "8,000, 16,000 samples a second are resampled to 8,000" in " ".join(task.notes)
    assert "longest" in " ".join(task.notes)
    task = make_task("audio-classification", model=f"{net}:net", data=folder, seconds=0.25, rate=4000)
    assert task.example()["waveform"].shape == (1, 1000) and "22 of 22 sounds are cut" in " ".join(task.notes)


@pytest.mark.parametrize(
    "content, said",
    [
        (b"no sound at all", "no WAV"),
        (b"RIFF\0\0\0\0WAVE", "no sound in it"),
        (
            b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 6, 1, 8000, 8000, 1, 8) + b"data\2\0\0\0ab",
            "format 6",
        ),
        (
            b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 0, 8000, 8000, 0, 8) + b"data\2\0\0\0ab",
            "format 1",
        ),
        (
            b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 1, 3, 8000, 1, 8) + b"data\2\0\0\0ab",
            "3 samples a second",
        ),
        (
            b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8) + b"data\\9\0\0\0ab",
            "ends before",
        ),
    ],
)
def test_what_is_no_sound_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    folder = tones(tmp_path / "tones", 2)
    (folder / "low" / "bad.wav").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        heading(folder / "low" / "bad.wav")
    with pytest.raises(TaskError, match=r"bad\.wav"):
        make_task("audio-classification", data=folder)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"features": "mfcc"}, "no such features"),
        ({"mels": 500}, "so many mels"),
        ({"window_ms": 5000}, "shorter than a window"),
        ({"hop_ms": 0}, "make no spectrum"),
        ({"rate": 10}, "no sample rate"),
        ({"seconds": -1}, "no length"),
        ({"seconds": 1e9}, "too long"),
        ({"path_column": "path"}, "no columns"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, object], said: str) -> None:
    with pytest.raises(TaskError, match=said):
        make_task("audio-classification", data=tones(tmp_path / "tones", 3), **options)


def test_a_search_stands_behind_the_features(tmp_path: Path) -> None:
    task = make_task("audio-classification", data=tones(tmp_path / "tones"))
    assert task.model is None and task.baseline is None
    recipe = recipes.search(task)
    net = recipe.steps[0].net
    assert isinstance(net, LogMel) and isinstance(net.net, ConvNet) and net.samples == 4000
    fixed = recipes.fixed(task, recipe).steps[0].net
    assert fixed.cost((4000,)).macs > 0
    x = torch.from_numpy(task.example()["waveform"])
    assert fixed.build()(x).shape == (1, 2)


def test_int8_leaves_the_features_alone(tmp_path: Path, net: Path) -> None:
    """The grids that a spectrum would need are no grids of 8 bits: with them all is lost."""
    onnx = pytest.importorskip("onnx")
    from featherweight.targets.base import Target

    task = make_task("audio-classification", model=f"{net}:net", data=tones(tmp_path / "tones"), epochs=0)
    context, target = toy.context(task), Target.parse("onnxruntime")
    made = Quantize(samples=8).apply(Package(task.build()), context)
    assert isinstance(made.plan, Plan) and made.plan.skip == ("front",)
    example = {"waveform": torch.from_numpy(task.example()["waveform"])}
    x = context.calibration(8)

    def noise(package: object) -> float:
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        target.load_runtime().export(package, example, x, target, folder)
        graph = onnx.load(folder / "model.onnx").graph
        inside = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.name.startswith("/front")]
        # what the net is given is its first layer's input, and has a grid
        assert package is not made or [n.input[0] for n in inside] == ["/front/Unsqueeze_output_0"]
        session = target.load_runtime().load(folder, target, 1)
        out = np.concatenate([session.run({"waveform": v[None]}) for v in x["waveform"].numpy()])
        with torch.no_grad():
            want = Package(task.build()).module(x["waveform"]).numpy()
        return float(((out - want) ** 2).mean() / want.var(0).mean())

    left = noise(made)
    assert left < 0.05 and noise(dataclasses.replace(made, plan=dataclasses.replace(made.plan, skip=()))) > 5 * left
