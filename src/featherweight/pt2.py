"""What a model.pt2 may say, checked before PyTorch reads it.

The format is a zip with the graph as JSON and the weights as bytes. Much of the JSON becomes code
when it is loaded: expressions of shapes are evaluated (sympy), operators are looked up by any path
below `torch`, names stand in generated source, types of containers are imported; other members are
pickled. So each string is held to what exporting writes, by the key under which it stands; what is
not known is refused.
"""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import TargetError

# members of the archive, below its one folder
_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)|models/model\.json|extra/[\w.]+"
    r"|data/sample_inputs/model\.pt|data/(weights/weight|constants/tensor)_\d+"
    r"|data/(weights/model_weights|constants/model_constants)_config\.json",
    re.ASCII,
)
_FOLDER = "model"  # of a copy
_NAME = re.compile(r"[A-Za-z_]\w*")
_WORD = re.compile(r"[\w.:<>+-]*")  # what stands under a key that is not known
# a module's path, which its owner named: it stands between quotes in generated source
_PATH = re.compile(r"[^\"'\\()\x00-\x1f]*")
_SYMBOL = re.compile(r"[A-Za-z_]\w{0,40}")
_DIGITS = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf|nan", re.IGNORECASE)

_NAMES = frozenset({"name", "as_name", "forward_arg_names"})
_PATHS = frozenset({"parameter_name", "buffer_name", "tensor_constant_name", "target_name", "fqn", "tensor_name"})
# never evaluated: they are compared, printed, or passed on as strings
_WORDS = frozenset({"as_string", "as_strings", "stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack"})

_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchvision)\.[A-Za-z]\w*\.\w+"
    r"|torch\.ops\.aten\.(_[a-z]\w*|__(and|or|xor)__)\.\w+"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond|while_loop|scan|map_impl)"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(trunc|ceil|floor|sqrt|pow|log|log2|exp)"
    r"|torch\.(_sym_sqrt|sym_(int|float|max|min|not|ite|sum|sqrt|fresh_size))"
)
_FILES = frozenset({"from_file", "save"})  # operators that read or write files

_FUNCTIONS = frozenset(
    "Add Mul Pow Mod Min Max Abs Integer Rational Float Symbol Not And Or Equality Unequality LessThan StrictLessThan "
    "GreaterThan StrictGreaterThan FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv "
    "PowByNatural FloatPow FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt "
    "RoundToInt RoundDecimal ToFloat Identity floor ceiling".split()
)
_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow"})
_LARGEST, _STEEPEST = 2**63, 16  # a number; an exponent, all that are nested multiplied
_LENGTH, _PARTS = 10_000, 500  # characters and parts of one expression

_CONTAINERS = ("builtins.tuple", "builtins.list", "builtins.dict")


@contextmanager
def checked(file: Path) -> Iterator[Path]:
    """A copy of a .pt2 file, written anew of the members that were checked. TargetError unless
    everything in it is what `torch.export.save` writes of a graph of PyTorch's own operators: no
    pickle, no code.

    PyTorch reads zip files by other rules than Python: of one with two directories each would see
    another archive. In what is written here there is one.
    """
    with tempfile.TemporaryDirectory(prefix="featherweight-") as folder:
        copy = Path(folder) / "model.pt2"
        try:
            odd = list(_written_anew(file, copy)) or list(_odd(copy))
        except Exception as e:  # a file from a stranger fails in any way it likes
            raise TargetError(
                "this is no exported program that can be trusted", got=f"{file}: {type(e).__name__}: {str(e)[:200]}"
            ) from e
        if odd:
            raise TargetError(
                "this exported program contains what could run code when loaded",
                got=f"{file}: {'; '.join(odd[:5])}"[:2000],
                allowed="a graph of PyTorch's own operators, with weights as plain bytes",
                fix="export the model anew",
            )
        yield copy


def _written_anew(file: Path, copy: Path) -> Iterator[str]:
    """Write the archive's members into a new one, in one folder; or what is wrong with them, in
    words."""
    with zipfile.ZipFile(file) as z:
        members = {info: info.filename.partition("/")[2] for info in z.infolist()}
        names = [name.lower() for name in members.values()]  # PyTorch takes either case for the other
        for info, name in members.items():
            if not _MEMBERS.fullmatch(name):
                yield f"the member {info.filename!r:.100}"
            if info.compress_type != zipfile.ZIP_STORED:
                yield f"{name!r:.100} is compressed"
        if len({info.filename.partition("/")[0] for info in members}) != 1 or len(set(names)) != len(names):
            yield "two folders, or a name that occurs twice"
            return
        if not {"archive_format", "models/model.json"} <= set(names):  # without them PyTorch reads an older format
            yield "no models/model.json of this format"
            return
        if sum(info.file_size for info in members) > file.stat().st_size:
            yield "members that lie in each other"
            return
        with zipfile.ZipFile(copy, "w") as new:
            for info, name in members.items():
                own = zipfile.ZipInfo(f"{_FOLDER}/{name}")
                own.file_size = info.file_size  # says whether it needs a header for large files
                if name == "models/model.json":
                    new.writestr(own, _plain(z.read(info)))
                    continue
                with z.open(info) as old, new.open(own, "w") as to:
                    shutil.copyfileobj(old, to, 1 << 20)


def _plain(text: bytes) -> bytes:
    """The program's JSON, in which outputs that a class of somebody's holds by name (a ModelOutput
    of transformers) are held by a dictionary: the class would have to be imported. Of what nodes
    were made (`from_node`, free text of strict=True) is left out: nothing that runs needs it."""
    program = json.loads(text)
    left = [program]
    while left:
        value = left.pop()
        left += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        if isinstance(value, dict) and isinstance(value.get("metadata"), dict):
            value["metadata"].pop("from_node", None)
        if isinstance(value, dict) and isinstance(value.get("out_spec"), str):
            spec = json.loads(value["out_spec"])
            nodes = [spec[1]]
            while nodes:
                node = nodes.pop()
                nodes += node["children_spec"]
                if node["type"] is not None and node["type"] not in _CONTAINERS and _names_children(node):
                    node["type"] = "builtins.dict"
            value["out_spec"] = json.dumps(spec)
    return json.dumps(program).encode()


def _names_children(node: Any) -> bool:
    """Is a container's context a list with one string for each child?"""
    names = json.loads(node["context"]) if isinstance(node["context"], str) else None
    return isinstance(names, list) and list(map(type, names)) == [str] * len(node["children_spec"])


def _odd(file: Path) -> Iterator[str]:
    """What there is in the members of the file that must not be, in words."""
    import torch

    with zipfile.ZipFile(file) as z:
        for name in z.namelist():
            if name.endswith("_config.json"):
                entries = json.loads(z.read(name))["config"]
                yield from (f"{k!r:.100} is pickled" for k, v in entries.items() if v.get("use_pickle") is not False)
            elif name.startswith(f"{_FOLDER}/data/sample_inputs/"):
                torch.load(io.BytesIO(z.read(name)), weights_only=True)
        program = json.loads(z.read(f"{_FOLDER}/models/model.json"))
        # they would be compiled by `.module()`, which is told not to
        program.pop("guards_code", None)
        yield from _odd_strings(program)


def _odd_strings(program: Any) -> Iterator[str]:
    """The strings of a program's JSON that are not what stands there by right."""
    left: list[tuple[str, Any]] = [("", program)]
    while left:
        key, value = left.pop()
        if isinstance(value, dict):
            yield from (f"the name {k!r:.100}" for k in value if not _WORD.fullmatch(k))
            left += value.items()
        elif isinstance(value, list):
            left += [(key, v) for v in value]
        elif isinstance(value, str) and not _may_stand(key, value):
            yield f"{key} {value!r:.100}"


def _may_stand(key: str, value: str) -> bool:
    if key in _WORDS:
        return True
    if key == "expr_str":
        return may_evaluate(value)
    if key == "target":
        return _OPERATORS.fullmatch(value) is not None and _FILES.isdisjoint(value.split("."))
    if key in _NAMES:
        return value == "" or _NAME.fullmatch(value) is not None
    if key in _PATHS:
        return _PATH.fullmatch(value) is not None
    if key in ("in_spec", "out_spec"):
        return _plain_containers(json.loads(value))
    return _WORD.fullmatch(value) is not None


def _plain_containers(spec: Any) -> bool:
    """Does the description of a pytree ([version, node]) name nothing but tuples, lists and
    dicts?"""
    nodes = [spec[1]]
    while nodes:
        node = nodes.pop()
        kind, context = node["type"], node["context"]
        if kind is None:
            if context is not None:
                return False
        elif kind not in _CONTAINERS or not isinstance(context, str) or "__enum__" in context:
            return False
        nodes += node["children_spec"]
    return True


def may_evaluate(text: str) -> bool:
    """Is it an expression of sizes: known functions of symbols and of numbers, of a size that can
    be evaluated?"""
    if len(text) > _LENGTH:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if sum(1 for _ in ast.walk(tree)) > _PARTS:
        return False
    return _term(tree.body, 1.0)


def _term(node: ast.expr, steep: float) -> bool:
    """steep: the product of the exponents of all powers that it is the base of."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _term(node.operand, steep)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (bool, int, float)) and abs(node.value) <= _LARGEST
    if isinstance(node, ast.Name):
        return node.id in ("true", "false", "oo", "int_oo")
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
        return False
    name = node.func.id
    if name in ("Symbol", "Float", "Integer", "Rational"):
        return _leaf(name, node)
    if node.keywords and not all(k.arg == "evaluate" and _flag(k.value) for k in node.keywords):
        return False
    if name in _POWERS:
        if len(node.args) != 2 or (exponent := _number(node.args[1])) is None:
            return False
        steep *= max(1.0, abs(exponent))
        return steep <= _STEEPEST and _term(node.args[0], steep)
    return all(_term(a, steep) for a in node.args)


def _leaf(name: str, node: ast.Call) -> bool:
    """Symbol('s0', integer=True), Integer(3), Rational(1, 2), Float('0.5', precision=53)."""
    values = [a.value if isinstance(a, ast.Constant) else _number(a) for a in node.args]
    if name == "Symbol":
        return (
            len(values) == 1
            and isinstance(values[0], str)
            and _SYMBOL.fullmatch(values[0]) is not None
            and all(_flag(k.value) for k in node.keywords)
        )
    if name == "Float":
        able = all(isinstance(v, float | int) or isinstance(v, str) and _DIGITS.fullmatch(v) for v in values)
        return able and all(0 < (_number(k.value) or 0) <= 1000 for k in node.keywords)
    return not node.keywords and all(isinstance(v, int | float) and abs(v) <= _LARGEST for v in values)


def _number(node: ast.expr) -> float | None:
    """The value of 3, -3, Integer(3) or Rational(1, 2); None if it is something else."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.Constant):
        return float(node.value) if isinstance(node.value, (int, float)) else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        values = [_number(a) for a in node.args]
        if node.func.id == "Integer" and len(values) == 1:
            return values[0]
        if node.func.id == "Rational" and len(values) == 2 and None not in values and values[1]:
            return values[0] / values[1]  # type: ignore[operator]
    return None


def _flag(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)
