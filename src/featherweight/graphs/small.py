"""Weights stored small, arithmetic in floating point: an ONNX graph is edited by hand,
one node at a time.

Two dialects. `ort`: com.microsoft operators of ONNX Runtime, which keep the weight small in memory
too (MatMulNBits, GatherBlockQuantized); `onnx`: the standard's own DequantizeLinear, which OpenVINO
keeps compressed. In `ort`, what MatMulNBits cannot take (convolutions, odd groups) or would slow
down (8 bits in layers of less than LARGE weights) is stored small and unpacked by plain arithmetic
on constants, which ONNX Runtime folds when it loads: small file, float memory and speed. It does
not fold a DequantizeLinear (1.31.1): behind one, a CNN ran 2.3 times slower.

On one thread of an AVX2 processor, [128, 384] x [384, 1536] takes 1.9 ms in fp32; MatMulNBits with
4 bits takes 2.1 ms in fp32 arithmetic (accuracy_level 0) and 2.5-3.3 ms in int8 (level 4); with
8 bits 3.0-3.8 and 2.6-4.5 ms; a single row with 8 bits 0.8-1.7 ms against 0.07 ms (0.07 in fp32):
level 0 unpacks all 8-bit weights at every call. So 4 bits run at level 0 and 8 bits at level 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TargetError
from ..plan import LayerPlan, nothing_quantized, required
from .codes import Coded, coded, pack4
from .export import skipped
from .recurrent import shrink_recurrent
from .sites import WEIGHT_INPUT, Site, drop_unused, resolve_identities, sites, unshare

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.package import Package

MS = "com.microsoft"
BLOCK = (16, 256)  # MatMulNBits takes powers of two in this range
HALF = ".half"  # ends the names of tensors whose values are half precision
# weights of a layer, from which 8 bits stay packed in memory:
# reading them, not computing, takes the time then
LARGE = 2**22
# accuracy_level: 0 computes in fp32, 4 rounds the activations to int8 a block at a time
LEVEL = {4: 0, 8: 4}


def shrink(model: Any, sites: list[Site], scales: dict[str, Tensor], dialect: str) -> dict[str, str]:
    """Store the weight of every site with 16, 8 or 4 bits. In place. Returns
    {node name: how its weight is held now}.

    In dialect `onnx` the model must be `raised`; in `ort` it is here, where 4-bit codes need it.
    TargetError for a table in groups that no operator reads.
    """
    if dialect == "ort":
        model.CopyFrom(raised(model, [s.setting for s in sites if s.setting.bits == 4 and s.op != "Gather"]))
    editor = _Editor(model, scales, dialect)
    done = {site.node: editor.edit(site) for site in sites if site.setting.bits < 32}
    editor.finish()
    return done


def raised(model: Any, wanted: list[LayerPlan]) -> Any:
    """The model at the first standard operator set with 4-bit and grouped codes, 21, if these
    settings need it; else as it is."""
    from onnx import version_converter

    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset >= 21 or not any(s.bits == 4 or (s.bits == 8 and s.granularity == "group") for s in wanted):
        return model
    return version_converter.convert_version(model, 21)


def shrink_graph(model: Any, package: Package, dialect: str) -> tuple[list[Site], dict[str, str]]:
    """A whole weight-only plan, in place: (the sites, how each weight is held, by node).
    TargetError if there is nothing to store small."""
    plan = required(package.plan)
    resolve_identities(model.graph)
    skipped(model.graph, list(plan.skipped))  # names those that match nothing
    every = sites(model.graph, package)
    found = unshare(
        model, every, {s.node: (s.setting, s.path if f"{s.path}.weight.scale" in package.scales else "") for s in every}
    )
    held = shrink(model, found, package.scales, dialect)
    if dialect == "ort":
        held |= shrink_recurrent(model, package)
    if not held:
        raise nothing_quantized(plan.scheme, sorted({n.op_type for n in model.graph.node}))
    return found, held


class _Editor:
    def __init__(self, model: Any, scales: dict[str, Tensor], dialect: str) -> None:
        self.model, self.scales, self.dialect = model, scales, dialect
        self.tensors = {w.name: w for w in model.graph.initializer}
        self.nodes = {n.name: n for n in model.graph.node}
        # (initializer, form) -> the tensor that stands for it
        self.made: dict[tuple[str, str], str] = {}
        # node name -> nodes put before it, after it
        self.new: dict[str, tuple[list[Any], list[Any]]] = {}

    def edit(self, site: Site) -> str:
        from onnx import numpy_helper

        node = self.nodes[site.node]
        v = site.oriented(numpy_helper.to_array(self.tensors[site.weight]))
        before, after = self.new.setdefault(site.node, ([], []))
        if site.setting.bits == 16:
            return self._half(site, node, before, after)
        codes = coded(v, site, self.scales)
        if site.op == "Gather" and self.dialect == "ort":
            return self._table(site, node, codes, before, after)
        block = _block(codes)
        large = codes.setting.bits == 4 or codes.q.size >= LARGE
        if self.dialect == "ort" and site.op in ("MatMul", "Gemm") and block and large:
            return self._nbits(site, node, codes, block, after)
        node.input[WEIGHT_INPUT[site.op]] = self._dequantized(site, codes, before)
        return f"int{codes.setting.bits}, stored" + (" (unpacked when loaded)" if self.dialect == "ort" else "")

    def _half(self, site: Site, node: Any, before: list[Any], after: list[Any]) -> str:
        """Half precision values; a Cast back. Values beyond float16's range become its largest."""
        from onnx import helper, numpy_helper

        w = numpy_helper.to_array(self.tensors[site.weight])
        rounded = np.clip(w, -65504, 65504).astype(np.float16)
        # OpenVINO would fold a Cast when it converts: it gets the rounded values,
        # and stores them itself
        if self.dialect == "onnx":
            node.input[WEIGHT_INPUT[site.op]] = self._add(f"{site.weight}{HALF}", rounded.astype(np.float32))
            return "float16, stored"
        half = self._add(f"{site.weight}{HALF}", rounded)
        if site.op == "Gather":
            out, node.input[0] = node.output[0], half
            node.output[0] = f"{out}.half"
            after.append(helper.make_node("Cast", [node.output[0]], [out], f"{site.node}/half", to=1))
            return "float16, stored"
        key = (site.weight, "half")
        if key not in self.made:
            self.made[key] = f"{site.weight}.float"
            before.append(helper.make_node("Cast", [half], [self.made[key]], f"{site.node}/half", to=1))
        node.input[WEIGHT_INPUT[site.op]] = self.made[key]
        return "float16, stored (unpacked when loaded)"

    def _nbits(self, site: Site, node: Any, codes: Coded, block: int, after: list[Any]) -> str:
        """x [.., I] times w' [O, I] as MatMulNBits; a Gemm's bias becomes an Add."""
        from onnx import helper

        bits = codes.setting.bits
        q, s, z = codes.rows(block)
        shift = 2 ** (bits - 1) if codes.setting.symmetric else 0
        base = f"{site.weight}.{bits}x{block}"
        names = [
            node.input[0],
            self._add(f"{base}.codes", _bytes(q + shift, bits)),
            self._add(f"{base}.scale", s.reshape(-1)),
        ]
        if not codes.setting.symmetric:
            names.append(self._add(f"{base}.zero", _bytes(z, bits)))
        bias, out = (node.input[2] if len(node.input) > 2 else ""), node.output[0]
        product = f"{out}.product" if bias else out
        made = helper.make_node(
            "MatMulNBits",
            names,
            [product],
            site.node,
            domain=MS,
            K=codes.q.shape[1],
            N=len(q),
            bits=bits,
            block_size=block,
            accuracy_level=LEVEL[bits],
        )
        node.CopyFrom(made)
        if bias:
            after.append(helper.make_node("Add", [product, bias], [out], f"{site.node}/bias"))
        return (
            f"int{bits} (activations rounded to int8 in blocks)"
            if LEVEL[bits] == 4
            else f"int{bits}, stored (float arithmetic)"
        )

    def _dequantized(self, site: Site, codes: Coded, before: list[Any]) -> str:
        """The name of w' in the initializer's own layout, from codes: through constants (ort) or a
        DequantizeLinear (onnx)."""
        key = (site.weight, f"{codes.setting}")
        if key in self.made:
            return self.made[key]
        from onnx import helper

        base, setting = f"{site.weight}.{codes.setting.bits}", codes.setting
        out = self.made[key] = f"{base}.float"
        width = int(np.prod(codes.q.shape[1:]))
        if self.dialect == "ort":
            self.made[key] = self._unpacked(base, site, codes, width, before)
            return self.made[key]
        if setting.granularity != "group":
            axis = 1 if site.transposed else 0
            kept = site.oriented(codes.q)
            per = setting.granularity == "channel"
            attributes: dict[str, Any] = {"axis": axis} if per else {}
            names = [
                self._integers(f"{base}.codes", kept, setting),
                self._add(f"{base}.scale", codes.s if per else codes.s.reshape(())),
            ]
            if not setting.symmetric:
                names.append(self._integers(f"{base}.zero", codes.z if per else codes.z.reshape(()), setting))
            before.append(helper.make_node("DequantizeLinear", names, [out], f"{base}/DequantizeLinear", **attributes))
            return out
        if width % setting.group == 0:
            names = [
                self._integers(f"{base}.codes", codes.q.reshape(len(codes.q), -1), setting),
                self._add(f"{base}.scale", codes.s),
            ]
            if not setting.symmetric:
                names.append(self._integers(f"{base}.zero", codes.z, setting))
            before.append(
                helper.make_node(
                    "DequantizeLinear",
                    names,
                    [f"{out}.flat"],
                    f"{base}/DequantizeLinear",
                    axis=1,
                    block_size=setting.group,
                )
            )
        else:
            self._by_rows(base, codes, width, f"{out}.flat", before)
        return self._shaped(base, f"{out}.flat", out, codes.q.shape, site.transposed, before)

    def _unpacked(self, base: str, site: Site, codes: Coded, width: int, before: list[Any]) -> str:
        """w' = (q - z) s by operators that ONNX Runtime evaluates once, when it loads."""
        from onnx import helper

        setting, grouped = codes.setting, codes.setting.granularity == "group"

        def step(op: str, inputs: list[str], name: str, **attributes: Any) -> str:
            before.append(helper.make_node(op, inputs, [f"{base}.{name}"], f"{base}/{name}", **attributes))
            return f"{base}.{name}"

        if grouped:
            q, s, z = codes.rows(setting.group)  # [O, G, g], [O, G], [O, G]
            s, z = s[..., None], z[..., None]
        else:  # in the initializer's own layout
            q = site.oriented(codes.q)
            shape = [1] * q.ndim
            shape[1 if site.transposed else 0] = len(codes.s)
            s, z = codes.s.reshape(shape), codes.z.reshape(shape)
        got = step("Cast", [self._integers(f"{base}.codes", q, setting)], "numbers", to=1)
        if not setting.symmetric:
            got = step("Sub", [got, self._add(f"{base}.zero", z.astype(np.float32))], "shifted")
        got = step("Mul", [got, self._add(f"{base}.scale", s.astype(np.float32))], "float")
        if not grouped:
            return got
        if q.shape[1] * q.shape[2] != width:
            got = step("Reshape", [got, self._add(f"{base}.long", np.array([len(q), -1]))], "filled")
            got = step(
                "Slice",
                [got, *(self._add(f"{base}.{k}", np.array([n])) for k, n in (("from", 0), ("to", width), ("axis", 1)))],
                "cut",
            )
        if site.transposed:
            return step(
                "Transpose",
                [step("Reshape", [got, self._add(f"{base}.rows", np.array([len(q), width]))], "matrix")],
                "turned",
                perm=[1, 0],
            )
        return step("Reshape", [got, self._add(f"{base}.shape", np.array(codes.q.shape))], "shaped")

    def _by_rows(self, base: str, codes: Coded, width: int, out: str, before: list[Any]) -> None:
        """Groups as rows of their own [O G, g], each with its scale;
        then [O, I] without what filled the last group."""
        from onnx import helper

        q, s, z = codes.rows(codes.setting.group)
        names = [
            self._integers(f"{base}.codes", q.reshape(-1, q.shape[-1]), codes.setting),
            self._add(f"{base}.scale", s.reshape(-1)),
        ]
        if not codes.setting.symmetric:
            names.append(self._integers(f"{base}.zero", z.reshape(-1), codes.setting))
        before.append(helper.make_node("DequantizeLinear", names, [f"{out}.rows"], f"{base}/DequantizeLinear", axis=0))
        shape = self._add(f"{base}.rows", np.array([len(q), -1]))
        before.append(helper.make_node("Reshape", [f"{out}.rows", shape], [f"{out}.filled"], f"{base}/Rows"))
        cut = [self._add(f"{base}.{k}", np.array([n])) for k, n in (("from", 0), ("to", width), ("axis", 1))]
        before.append(helper.make_node("Slice", [f"{out}.filled", *cut], [out], f"{base}/Slice"))

    def _shaped(
        self, base: str, flat: str, out: str, shape: tuple[int, ...], transposed: bool, before: list[Any]
    ) -> str:
        from onnx import helper

        if transposed:
            before.append(helper.make_node("Transpose", [flat], [out], f"{base}/Transpose", perm=[1, 0]))
        else:
            before.append(
                helper.make_node(
                    "Reshape", [flat, self._add(f"{base}.shape", np.array(shape))], [out], f"{base}/Reshape"
                )
            )
        return out

    def _table(self, site: Site, node: Any, codes: Coded, before: list[Any], after: list[Any]) -> str:
        """Rows of a table [V, D], unpacked after the look-up: by hand for one scale a row in
        8 bits, else GatherBlockQuantized."""
        from onnx import helper

        setting, base, ids, out = codes.setting, f"{site.weight}.{codes.setting.bits}", node.input[1], node.output[0]
        if setting.bits == 8 and setting.granularity != "group":
            _, s, z = codes.rows(codes.q.shape[1])
            parts = [
                ("codes", self._integers(f"{base}.codes", codes.q, setting)),
                ("scale", self._add(f"{base}.scale", s)),
            ]
            if not setting.symmetric:
                parts.append(("zero", self._add(f"{base}.zero", z.astype(np.float32))))
            before.extend(
                helper.make_node("Gather", [name, ids], [f"{out}.{k}"], f"{site.node}/{k}", axis=0) for k, name in parts
            )
            before.append(helper.make_node("Cast", [f"{out}.codes"], [f"{out}.float"], f"{site.node}/Cast", to=1))
            if not setting.symmetric:
                before.append(
                    helper.make_node("Sub", [f"{out}.float", f"{out}.zero"], [f"{out}.shifted"], f"{site.node}/Sub")
                )
            last = f"{out}.float" if setting.symmetric else f"{out}.shifted"
            node.CopyFrom(helper.make_node("Mul", [last, f"{out}.scale"], [out], site.node))
            return "int8, stored (a row is unpacked when it is read)"
        block = _block(codes, top=2**20)
        if not block or setting.granularity == "group" and block != setting.group:
            raise TargetError(
                "ONNX Runtime reads no table in such groups",
                got=(site.path, setting.group),
                allowed="a power of two, at least 16",
            )
        if setting.bits == 4 and codes.q.shape[1] % 2:
            raise TargetError(
                "a table of 4-bit codes needs an even number of columns",
                got=(site.path, codes.q.shape),
                fix="use 8 bits for it",
            )
        q, s, z = codes.rows(block)
        shift = 2 ** (setting.bits - 1) if setting.symmetric else 0
        stored = (q.reshape(len(q), -1)[:, : codes.q.shape[1]] + shift).astype(np.uint8)
        names = [
            self._add(f"{base}.codes", pack4(stored) if setting.bits == 4 else stored),
            ids,
            self._add(f"{base}.scale", s),
        ]
        if not setting.symmetric:
            names.append(self._add(f"{base}.zero", _bytes(z, setting.bits)))
        how: dict[str, Any] = {"block_size": block, "gather_axis": 0, "quantize_axis": 1, "bits": setting.bits}
        node.CopyFrom(helper.make_node("GatherBlockQuantized", names, [out], site.node, domain=MS, **how))
        return f"int{setting.bits}, stored (a row is unpacked when it is read)"

    def _integers(self, name: str, codes: np.ndarray, setting: LayerPlan) -> str:
        """Codes as (u)int8, or packed (u)int4."""
        if setting.bits == 8:
            return self._add(name, codes.astype(np.int8 if setting.symmetric else np.uint8))
        from onnx import TensorProto, helper

        kind = TensorProto.INT4 if setting.symmetric else TensorProto.UINT4
        raw = pack4(codes.reshape(-1)).tobytes()
        return self._put(helper.make_tensor(name, kind, codes.shape, raw, raw=True))

    def _add(self, name: str, array: np.ndarray) -> str:
        from onnx import numpy_helper

        return self._put(numpy_helper.from_array(np.ascontiguousarray(array), name))

    def _put(self, tensor: Any) -> str:
        if tensor.name not in self.tensors:
            self.tensors[tensor.name] = tensor
            self.model.graph.initializer.append(tensor)
        return str(tensor.name)

    def finish(self) -> None:
        """Put the new nodes beside those that they belong to, name the operator sets,
        and drop what nothing reads any more."""
        from onnx import helper

        nodes = []
        for node in self.model.graph.node:
            before, after = self.new.get(node.name, ([], []))
            nodes += [*before, node, *after]
        kept = []
        for node in nodes:
            copy = type(node)()
            copy.CopyFrom(node)
            kept.append(copy)
        del self.model.graph.node[:]
        self.model.graph.node.extend(kept)
        if all(o.domain != MS for o in self.model.opset_import):
            self.model.opset_import.append(helper.make_opsetid(MS, 1))
        self.model.ir_version = max(self.model.ir_version, 10)  # the first with 4-bit tensors
        drop_unused(self.model.graph)


def _block(codes: Coded, top: int = BLOCK[1]) -> int:
    """The block size for an operator that takes powers of two: the largest that divides the group,
    or that covers the row; 0 if there is none."""
    setting = codes.setting
    if setting.granularity == "group":
        largest = min(setting.group & -setting.group, top)
    else:
        largest = min(1 << (codes.q.shape[1] - 1).bit_length(), top)
        largest = max(largest, BLOCK[0])
    return largest if largest >= BLOCK[0] else 0


def _bytes(codes: np.ndarray, bits: int) -> np.ndarray:
    return pack4(codes) if bits == 4 else codes.astype(np.uint8)
