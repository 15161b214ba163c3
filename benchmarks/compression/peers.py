"""What a user would pick instead, each used as its own documentation shows:
model in, deployable file out.

Every function takes a `Case` and an empty folder, writes the file there,
and returns the target that it runs on.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from featherweight.task.data import Splits
from featherweight.task.task import Task
from featherweight.train.loop import Settings, fit

CALIBRATION = 256  # samples, for every peer and for ours


@dataclass(frozen=True)
class Case:
    """module: the trained baseline; settings: of fine-tuning after a cut; example:
    one sample an input, batch 1."""

    task: Task
    splits: Splits
    module: nn.Module
    settings: Settings
    example: dict[str, torch.Tensor]
    seed: int = 0

    def rows(self, n: int = CALIBRATION) -> dict[str, np.ndarray]:
        pick = np.sort(np.random.default_rng(self.seed).permutation(len(self.splits.train))[:n])
        return {k: np.ascontiguousarray(v) for k, v in self.splits.train.batch(pick)[0].items()}


def onnx_file(module: nn.Module, case: Case, file: Path) -> Path:
    """Plain ONNX, dynamic batch, by PyTorch's exporter."""
    names = list(case.example)
    two = tuple(torch.cat([v, v]) for v in case.example.values())
    logging.disable(logging.WARNING)
    torch.onnx.export(
        module.eval(),
        two,
        str(file),
        dynamo=False,
        input_names=names,
        output_names=["output"],
        dynamic_axes={n: {0: "batch"} for n in [*names, "output"]},
        opset_version=17,
    )
    logging.disable(logging.NOTSET)
    return file


class _Reader:
    def __init__(self, rows: dict[str, np.ndarray], size: int = 8) -> None:
        self._rows, self._size = rows, size
        self.rewind()

    def _parts(self) -> Iterator[dict[str, np.ndarray]]:
        n = len(next(iter(self._rows.values())))
        for i in range(0, n, self._size):
            yield {k: v[i : i + self._size] for k, v in self._rows.items()}

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)

    def rewind(self) -> None:
        self._left = self._parts()


def _saturates() -> bool:
    from featherweight.machine import saturates

    return saturates()


def ort_static(case: Case, folder: Path, module: nn.Module | None = None) -> str:
    """onnxruntime.quantization.quantize_static: QDQ, per channel, u8 activations, min-max."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(_Reader, CalibrationDataReader):  # type: ignore[misc]
        pass

    plain = onnx_file(module or case.module, case, folder / "float.onnx")
    prepared = folder / "prepared.onnx"
    try:
        quant_pre_process(str(plain), str(prepared))
    except Exception:
        # symbolic shape inference fails on some attention graphs; its own advice is to skip it
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        prepared,
        folder / "model.onnx",
        Reader(case.rows()),
        per_channel=True,
        reduce_range=_saturates(),
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
    )
    plain.unlink()
    prepared.unlink()
    return "onnxruntime"


def ort_dynamic(case: Case, folder: Path) -> str:
    """onnxruntime.quantization.quantize_dynamic with its defaults."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain = onnx_file(case.module, case, folder / "float.onnx")
    quantize_dynamic(
        plain, folder / "model.onnx", weight_type=QuantType.QInt8, per_channel=True, reduce_range=_saturates()
    )
    plain.unlink()
    return "onnxruntime"


def nncf_ptq(case: Case, folder: Path) -> str:
    """nncf.quantize on an OpenVINO model, model_type TRANSFORMER for encoders."""
    from featherweight.targets.openvino.session import nncf_module, openvino_module

    ov, nncf = openvino_module(), nncf_module()
    plain = onnx_file(case.module, case, folder / "float.onnx")
    model = ov.convert_model(str(plain))
    plain.unlink()
    rows = case.rows()
    data = nncf.Dataset(range(len(next(iter(rows.values())))), lambda i: {k: v[i : i + 1] for k, v in rows.items()})
    encoder = any(isinstance(m, nn.Embedding) for m in case.module.modules())
    model = nncf.quantize(
        model, data, subset_size=CALIBRATION, model_type=nncf.ModelType.TRANSFORMER if encoder else None
    )
    ov.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)
    return "openvino"


def neural_compressor(case: Case, folder: Path) -> str:
    """Neural Compressor for ONNX: static for convolutional nets,
    dynamic for encoders (its own advice)."""
    from onnx_neural_compressor.data_reader import CalibrationDataReader
    from onnx_neural_compressor.quantization import CalibrationMethod, QuantType, config, quantize

    class Reader(_Reader, CalibrationDataReader):  # type: ignore[misc]
        pass

    plain = onnx_file(case.module, case, folder / "float.onnx")
    if any(isinstance(m, nn.Conv2d) for m in case.module.modules()):
        how: Any = config.StaticQuantConfig(
            calibration_data_reader=Reader(case.rows()),
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            calibrate_method=CalibrationMethod.MinMax,
            per_channel=True,
            reduce_range=_saturates(),
        )
    else:
        how = config.DynamicQuantConfig(weight_type=QuantType.QInt8, per_channel=True, reduce_range=_saturates())
    quantize(str(plain), str(folder / "model.onnx"), how)
    plain.unlink()
    return "onnxruntime"


def pruned(case: Case, ratio: float) -> nn.Module:
    """Torch-Pruning's magnitude pruner (group L2 importance, the same ratio in every layer), then
    fine-tuning on the labels."""
    import torch_pruning as tp

    module = copy.deepcopy(case.module)
    for p in module.parameters():
        p.requires_grad_(True)
    last = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
    inputs = tuple(torch.cat([v, v]) for v in case.example.values())
    pruner = tp.pruner.MagnitudePruner(
        module,
        inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[last],
        round_to=8,
    )
    pruner.step()
    loss = case.task.loss_fn
    fit(module, case.splits.train, lambda out, y, _: loss(out, y), case.settings, seed=case.seed)
    return module.eval()


def torch_pruning(ratio: float, int8: bool) -> Callable[[Case, Path], str]:
    def peer(case: Case, folder: Path) -> str:
        module = _kept(case, ratio)
        if int8:
            return ort_static(case, folder, module)
        onnx_file(module, case, folder / "model.onnx")
        return "onnxruntime"

    return peer


_PRUNED: dict[tuple[str, float], nn.Module] = {}


def _kept(case: Case, ratio: float) -> nn.Module:
    """The same pruned model for fp32 and int8."""
    key = (case.task.name, ratio)
    if key not in _PRUNED:
        _PRUNED[key] = pruned(case, ratio)
    return _PRUNED[key]


CNN: dict[str, Callable[[Case, Path], str]] = {
    "ONNX Runtime static int8": ort_static,
    "NNCF PTQ (OpenVINO)": nncf_ptq,
    "Neural Compressor (ONNX) static int8": neural_compressor,
    **{
        f"Torch-Pruning {r}{' + ORT int8' if q else ''}": torch_pruning(r, q)
        for r in (0.3, 0.5, 0.7)
        for q in (False, True)
    },
}
ENCODER: dict[str, Callable[[Case, Path], str]] = {
    "ONNX Runtime dynamic int8": ort_dynamic,
    "ONNX Runtime static int8": ort_static,
    "NNCF PTQ (OpenVINO)": nncf_ptq,
    "Neural Compressor (ONNX) dynamic int8": neural_compressor,
}
