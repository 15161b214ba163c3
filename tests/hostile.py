"""Files that want too much, and what has to be said of each: for photos, tables, model folders,
artifacts, settings. Each function writes one kind of file into a folder; `says` is a pattern.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Hostile:
    name: str
    write: Callable[[Path], object]
    says: str

    def __str__(self) -> str:
        return self.name


# --- photos: what is written beside good ones, as evil.png


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, data: bytes, depth: int = 1, more: bytes = b"") -> bytes:
    """A grey PNG, whatever its data says."""
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + more + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _whole_bomb() -> bytes:
    """900 million pixels that are all there, in 110 KB."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(3751 * 1000)) for _ in range(30)) + packer.flush()
    return png(30_000, 30_000, rows)


def _tiff(entries: list[tuple[int, int, int, int]]) -> bytes:
    body = b"".join(struct.pack("<HHII", *e) for e in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + struct.pack("<I", 0)


def _noisy() -> bytes:
    rows = np.random.default_rng(0).integers(0, 255, (40, 41), np.uint8)
    rows[:, 0] = 0  # no filter
    return png(40, 40, zlib.compress(rows.tobytes()), depth=8)


_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 8\n%%EndComments\n(gone) run\n"
_OTHER = "no PNG, JPEG"
_UNKNOWN = "no PNG|truncated|cannot identify|broken"
_LARGE = "are read|Decompressed|no PNG"  # Pillow gives up on some before it tells their size
PHOTOS = [
    Hostile("eps", lambda f: (f / "evil.png").write_bytes(_EPS), _OTHER),
    Hostile("eps named jpg", lambda f: (f / "evil.jpg").write_bytes(_EPS), _OTHER),
    Hostile("pdf", lambda f: (f / "evil.png").write_bytes(b"%PDF-1.4\n"), _OTHER),
    Hostile("psd", lambda f: (f / "evil.tif").write_bytes(b"8BPS\0\1" + bytes(20)), _OTHER),
    Hostile("fits", lambda f: (f / "evil.gif").write_bytes(b"SIMPLE  =".ljust(2880)), _OTHER),
    Hostile("xpm", lambda f: (f / "evil.png").write_bytes(b'/* XPM */\n"9 9 9 9"'), _OTHER),
    Hostile("wmf", lambda f: (f / "evil.bmp").write_bytes(b"\xd7\xcd\xc6\x9a" + bytes(40)), _OTHER),
    Hostile("icns", lambda f: (f / "evil.png").write_bytes(b"icns" + bytes(40)), _OTHER),
    Hostile("text", lambda f: (f / "evil.png").write_text("no image"), _OTHER),
    Hostile("nothing", lambda f: (f / "evil.png").write_bytes(b""), _OTHER),
    Hostile("bomb", lambda f: (f / "evil.png").write_bytes(_whole_bomb()), _LARGE),
    Hostile("claim", lambda f: (f / "evil.png").write_bytes(png(2**31 - 1, 2**31 - 1, b"")), _LARGE),
    Hostile("100 to 178 million", lambda f: (f / "evil.png").write_bytes(png(12_000, 12_000, b"")), _LARGE),
    Hostile(
        "gif", lambda f: (f / "evil.gif").write_bytes(b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(9)), _LARGE
    ),
    Hostile("ppm", lambda f: (f / "evil.ppm").write_bytes(b"P6 1000000 1000000 255\n"), _LARGE),
    Hostile(
        "bmp",
        lambda f: (f / "evil.bmp").write_bytes(
            b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 2**30, 2**30, 1, 24, *[0] * 6)
        ),
        _LARGE,
    ),
    Hostile(
        "tiff",
        lambda f: (f / "evil.tif").write_bytes(_tiff([(256, 4, 1, 10**6), (257, 4, 1, 10**6), (258, 3, 1, 8)])),
        _UNKNOWN,
    ),
    Hostile("tiff of tags", lambda f: (f / "evil.tif").write_bytes(_tiff([(256, 4, 2**31, 0)] * 9)), _UNKNOWN),
    Hostile(
        "text that unfolds",
        lambda f: (f / "evil.png").write_bytes(
            png(8, 6, zlib.compress(bytes(12)), more=_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8))))
        ),
        _LARGE,
    ),
    Hostile("cut", lambda f: (f / "evil.png").write_bytes(png(8, 6, zlib.compress(bytes(12)))[:40]), _UNKNOWN),
    Hostile("half its data", lambda f: (f / "evil.png").write_bytes(_noisy()[:900]), "truncated"),
    Hostile("no numbers", lambda f: (f / "evil.png").write_bytes(png(0, 0, b"")), _UNKNOWN),
]


# --- tables: evil.csv, .tsv, .jsonl or .parquet


def _lines(rows: list[object]) -> str:
    return "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n"


def _jsonl(rows: list[object]) -> Callable[[Path], object]:
    return lambda f: (f / "evil.jsonl").write_text(_lines(rows))


def _csv(text: str) -> Callable[[Path], object]:
    return lambda f: (f / "evil.csv").write_text(text)


def _equal_rows(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ten = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000_000, np.int8)), pa.array(["a" * 500]))
    table = pa.table({"text": ten, "label": ten})
    with pq.ParquetWriter(folder / "evil.parquet", table.schema) as out:
        for _ in range(10):
            out.write_table(table)


def _equal_texts(folder: Path) -> None:
    """8 TB in 110 KB."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    codes = pa.array(np.zeros(9_000_000, "int32"))
    table = pa.table({"text": pa.DictionaryArray.from_arrays(codes, ["x" * 900_000]), "label": codes})
    pq.write_table(table, folder / "evil.parquet", compression="zstd")


def _arrow(**columns: object) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), folder / "evil.parquet")

    return write


_FINE = [{"text": f"w{i}", "label": i % 2} for i in range(8)]
_TOO_LARGE, _NO_TEXT, _NO_LABEL, _UNREAD = "too large", "no text", "no usable label", "cannot be read"
TABLES = [
    Hostile("csv of columns", _csv(",".join(map(str, range(200_000))) + "\n" + "," * 199_999 + "\n"), _TOO_LARGE),
    Hostile(
        "csv of one text", _csv("text,label\n" + "a" * 100_000_000 + ",1\nb,0\n"), "more than 1,000,000 characters"
    ),
    Hostile("csv of one word", _csv("a" * 10_000_000), "no column that is surely the text"),
    Hostile("csv of marks", _csv('text,label\n"' + "a\n" * 100_000), _UNREAD),
    Hostile(
        "csv of zeros", lambda f: (f / "evil.csv").write_bytes(b"text,label\n" + bytes(1000)), "does not fit|cannot be"
    ),
    Hostile("csv in UTF-16", lambda f: (f / "evil.csv").write_bytes("text,label\na,1\n".encode("utf-16")), _UNREAD),
    Hostile("csv of noise", lambda f: (f / "evil.csv").write_bytes(np.random.default_rng(0).bytes(10_000)), _UNREAD),
    Hostile("tsv of noise", lambda f: (f / "evil.tsv").write_bytes(np.random.default_rng(0).bytes(10_000)), _UNREAD),
    Hostile("csv of one name", _csv(",".join(["text"] * 50_000) + "\n"), "the same name"),
    Hostile("jsonl, deep", _jsonl(["[" * 100_000]), _UNREAD),
    Hostile("jsonl, deep and closed", _jsonl(['{"text":' * 50_000 + "1" + "}" * 50_000]), _UNREAD),
    Hostile("jsonl of digits", _jsonl(['{"text": "a", "label": ' + "9" * 10_000 + "}"]), _UNREAD),
    Hostile("jsonl of names", _jsonl([{f"k{i}": 1} for i in range(100_000)]), _TOO_LARGE),
    Hostile("jsonl of lists", _jsonl([{"text": ["a"], "label": 1}] * 4), _NO_TEXT),
    Hostile("jsonl of no numbers", _jsonl([{"text": "a", "label": float("nan")}] * 4), _NO_LABEL),
    Hostile("jsonl without end", _jsonl([{"text": "a", "label": float("inf")}] * 4), _NO_LABEL),
    Hostile("half a pair", _jsonl([*_FINE, {"text": "\ud800", "label": 1}]), "no Unicode"),
    Hostile("half a pair in a label", _jsonl([*_FINE, {"text": "a", "label": "\ud800"}]), "no Unicode"),
    Hostile("parquet of equal rows", _equal_rows, _TOO_LARGE),
    Hostile("parquet of one text", _equal_texts, "too large"),
    Hostile("parquet of columns", _arrow(**{f"c{i}": [1] for i in range(10_001)}), _TOO_LARGE),
    Hostile("parquet of lists", _arrow(text=[["a"] * 1000] * 1000, label=[1] * 1000), "neither text nor a number"),
    Hostile("parquet of bytes", _arrow(text=[b"\xff"] * 4, label=[1] * 4), "holds bytes"),
    Hostile("parquet, cut", lambda f: (_arrow(text=["a"], label=[1])(f), _cut(f / "evil.parquet")), _UNREAD),
    Hostile("parquet of noise", lambda f: (f / "evil.parquet").write_bytes(b"PAR1" + bytes(99) + b"PAR1"), _UNREAD),
]


# which can be read: what is said of it commands nothing
COLOURS = Hostile(
    "a word in colours", _csv("text,label\n\x1b]0;evil\x07,1\n\x1b[2J,\x1b[31mred\n"), "label|few distinct"
)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


# --- model folders


def tiny_model(folder: Path) -> Path:
    """A BERT of two layers with its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocab = {w: i for i, w in enumerate(["[PAD]", "[UNK]", *(f"w{k}" for k in range(30))])}
    words = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=32, max_position_embeddings=128, **sizes)).save_pretrained(folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=128)
    fast.save_pretrained(folder)
    return folder


def _config(**fields: object) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return write


def _tokenizer(**fields: object) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        file = folder / "tokenizer.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return write


def _sparse(file: Path, size: int) -> None:
    with file.open("r+b") as opened:
        opened.truncate(size)


_LIST = "model.safetensors.index.json"


def _listed(name: str) -> Callable[[Path], object]:
    """The weights in another place, which the folder's list of them names."""

    def write(folder: Path) -> None:
        import safetensors

        weights = folder / "model.safetensors"
        with safetensors.safe_open(str(weights), framework="pt") as f:
            names = list(f.keys())
        to = folder / name.format(folder.parent)
        to.parent.mkdir(exist_ok=True)
        shutil.copy(weights, folder / "decoy.safetensors")
        weights.rename(to)
        said = {"metadata": {}, "weight_map": dict.fromkeys(names, name.format(folder.parent))}
        (folder / _LIST).write_text(json.dumps(said))

    return write


def _decoy(folder: Path) -> None:
    """A file that is not loaded, and has what the configuration asks for."""
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"a": np.zeros((1, 10**6), np.float32)}, folder / "decoy.safetensors")
    _config(vocab_size=10**6)(folder)


_ENDLESS = {"type": "Split", "pattern": {"Regex": "(w+)+$|(w|w|w)*[^w]$"}, "behavior": "Isolated", "invert": False}
_SIZES, _CONFIG, _TOKENS = "config.json describes", "config.json cannot be used", "tokenizer that cannot be loaded"
MODELS = [
    Hostile("layers", _config(num_hidden_layers=1_000_000), _SIZES),
    Hostile("words", _config(vocab_size=10**9), _SIZES),
    Hostile("width", _config(hidden_size=10**9), _SIZES),
    Hostile("inner width", _config(intermediate_size=10**9), _SIZES),
    Hostile("labels", _config(num_labels=10**9), _SIZES),
    Hostile("heads", _config(num_attention_heads=10**9), _SIZES),
    Hostile("heads that do not divide", _config(num_attention_heads=3), "cannot be loaded|cannot be used"),
    Hostile("positions", _config(max_position_embeddings=10**12), _SIZES),
    Hostile("below nothing", _config(hidden_size=-5), "cannot be loaded|cannot be used|config.json"),
    Hostile("a word for a number", _config(hidden_size="16"), "cannot be loaded|cannot be used"),
    Hostile("another kind", _config(model_type="evil"), _CONFIG),
    Hostile("code", _config(auto_map={"AutoConfig": "evil.Config"}, model_type="evil"), _CONFIG),
    Hostile("a kernel from elsewhere", _config(_attn_implementation="evil/kernel"), "code from elsewhere"),
    Hostile("quantized already", _config(quantization_config={"quant_method": "bitsandbytes"}), "quantized already"),
    Hostile("fewer layers than there are", _config(num_hidden_layers=1), "left over"),
    Hostile("layers below nothing", _config(num_hidden_layers=-1), _SIZES),
    Hostile("no mapping", lambda f: (f / "config.json").write_text("[]"), _CONFIG),
    Hostile("deep", lambda f: (f / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000), _CONFIG),
    Hostile("long", lambda f: _sparse(f / "config.json", 50_000_000), _CONFIG),
    Hostile("no weights", lambda f: (f / "model.safetensors").unlink(), "no safetensors"),
    Hostile("weights, cut", lambda f: _cut(f / "model.safetensors"), "damaged"),
    Hostile(
        "weights of a long header", lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**60)), "damaged"
    ),
    Hostile("weights from above", _listed("../outside.safetensors"), "no file in it"),
    Hostile("weights from the root", _listed("{}/outside.safetensors"), "no file in it"),
    Hostile("weights from below", _listed("deep/outside.safetensors"), "no file in it"),
    Hostile("weights from a pickle", _listed("model.bin"), "no file in it"),
    Hostile(
        "weights from above by the configuration",
        _config(transformers_weights="../outside.safetensors"),
        "no file in it",
    ),
    Hostile(
        "a list of weights that is none", lambda f: (_listed("x")(f), (f / _LIST).write_text("[]")), "cannot be read"
    ),
    Hostile("small weights beside larger ones", _decoy, "none wider than 128"),
    Hostile("tokenizer, cut", lambda f: _cut(f / "tokenizer.json"), _TOKENS),
    Hostile("tokenizer, long", lambda f: _sparse(f / "tokenizer.json", 10**9), "too large"),
    Hostile("tokenizer, another", _tokenizer(model={"type": "Evil"}), _TOKENS),
    Hostile(
        "tokenizer without end",
        _tokenizer(pre_tokenizer=_ENDLESS),
        "(?s)tokenizer (failed.*Regex|does not)",
    ),
]


# --- artifacts


def artifact(
    folder: Path, nodes: list, *, outputs: str = "output", start: list | None = None, **manifest: object
) -> Path:
    """model.onnx of these nodes from x [n, 4] to the output, and a manifest that fits it."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        nodes,
        "evil",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info(outputs, TensorProto.FLOAT, None)],
        start or [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return described(folder, **manifest)


def described(folder: Path, **changes: object) -> Path:
    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    said = {
        "target": "onnxruntime",
        "inputs": {"x": {"shape": ["batch", 4], "dtype": "float32"}},
        "files": {"model.onnx": digest},
        **changes,
    }
    (folder / "manifest.json").write_text(json.dumps(said))
    return folder


def _filled(folder: Path) -> None:
    """12 GB in 300 bytes."""
    from onnx import helper, numpy_helper

    shape = numpy_helper.from_array(np.array([3, 10**9]), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["s"], keepdims=0),
        helper.make_node("Add", ["x", "s"], ["output"]),
    ]
    artifact(folder, nodes, start=[shape])


def _repeated(folder: Path) -> None:
    """Unfolded by the input, which no constant folding sees."""
    from onnx import helper, numpy_helper

    times = numpy_helper.from_array(np.array([1, 10**9]), "times")
    nodes = [
        helper.make_node("Tile", ["x", "times"], ["t"]),
        helper.make_node("ReduceSum", ["t"], ["output"], keepdims=0),
    ]
    artifact(folder, nodes, start=[times])


def _endless(folder: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["v", "v"], ["w"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, None)],
        [value("go_on", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, None)],
    )
    start = [numpy_helper.from_array(np.array(2**62), "many"), numpy_helper.from_array(np.array(True), "yes")]
    artifact(folder, [helper.make_node("Loop", ["many", "yes", "x"], ["output"], body=body)], start=start)


def _outside(folder: Path) -> None:
    from onnx import TensorProto, helper

    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "../../../../../../etc/passwd"), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    artifact(folder, [helper.make_node("Add", ["x", "w"], ["output"])], start=[tensor])


def sound_artifact(folder: Path, **changes: object) -> Path:
    from onnx import helper

    return artifact(folder, [helper.make_node("Identity", ["x"], ["output"])], **changes)


def _input(**spec: object) -> Callable[[Path], object]:
    return lambda f: sound_artifact(f, inputs={"x": {"shape": ["batch", 4], "dtype": "float32", **spec}})


_MEMORY, _INPUTS = (
    "too much memory|require more|too large|killed its process|bad_alloc|Failed to allocate",
    "what the inputs are",
)
ARTIFACTS = [
    Hostile("12 GB", _filled, _MEMORY),
    Hostile("12 GB of its input", _repeated, _MEMORY),
    Hostile("no end", _endless, "too long"),
    Hostile("weights from outside", _outside, "failed|ended"),
    Hostile("no model", lambda f: ((f / "model.onnx").write_bytes(b"\0" * 99), described(f)), "failed|ended"),
    Hostile("nothing", lambda f: ((f / "model.onnx").write_bytes(b""), described(f)), "failed|ended"),
    Hostile("an input of 4 GB", _input(shape=["batch", 10**9]), _INPUTS),
    Hostile("an input of less than nothing", _input(shape=["batch", -4]), _INPUTS),
    Hostile("an input of objects", _input(dtype="O"), _INPUTS),
    Hostile("an input of structures", _input(dtype=[["a", "f4"]]), _INPUTS),
    Hostile("an input of digits", _input(shape=["batch", "9" * 5000]), _INPUTS),
    Hostile("an input of axes", _input(shape=[1] * 500), _INPUTS),
    Hostile(
        "a batch of 65536 times 16 KB",
        lambda f: sound_artifact(
            f, target="onnxruntime:batch=65536", inputs={"x": {"shape": ["batch", 4096], "dtype": "float32"}}
        ),
        _INPUTS,
    ),
    Hostile(
        "a batch of digits", lambda f: sound_artifact(f, target="onnxruntime:batch=" + "9" * 5000), "not understood"
    ),
    Hostile("threads", lambda f: sound_artifact(f, target="onnxruntime:threads=999999"), "threads"),
    Hostile("a target in colours", lambda f: sound_artifact(f, target="\x1b[2J\x1b]0;evil\x07"), "[?]"),
    Hostile(
        "an input that is a path",
        lambda f: sound_artifact(f, inputs={"../../x": {"shape": ["batch", 4], "dtype": "float32"}}),
        "files of their names",
    ),
    Hostile("no files", lambda f: sound_artifact(f, files={}), "not complete"),
    Hostile("files that are not there", lambda f: sound_artifact(f, files={"evil": "0" * 64}), "not in its manifest"),
    Hostile("deep", lambda f: (f / "manifest.json").write_text("[" * 100_000), "manifest"),
    Hostile("long", lambda f: (sound_artifact(f), _sparse(f / "manifest.json", 10**9)), "manifest"),
    Hostile("digits", lambda f: (f / "manifest.json").write_text('{"a": ' + "9" * 10_000 + "}"), "manifest"),
]


# --- settings: run.yaml


def _yaml(text: str) -> Callable[[Path], object]:
    return lambda f: (f / "run.yaml").write_text(text)


def _run(**fields: object) -> Callable[[Path], object]:
    """Settings as a run writes them, but for these."""

    def write(folder: Path) -> None:
        import yaml

        from tests.report import fake_study

        (config,) = (e["config"] for e in fake_study.events(1) if e["kind"] == "study")
        (folder / "run.yaml").write_text(yaml.safe_dump({**config, **fields}))

    return write


_ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
_SETTINGS = "YAML|settings|run.yaml|tags"
SETTINGS = [
    Hostile("aliases", _yaml(_ALIASES), _SETTINGS),
    Hostile("an alias of itself", _yaml("a: &a [*a]\n"), _SETTINGS),
    Hostile("depth", _yaml("[" * 10_000), _SETTINGS),
    Hostile("length", _yaml("a: 1\n" * 3_000_000), _SETTINGS),
    Hostile("code", _yaml("!!python/object/apply:os.system ['touch evil']\n"), _SETTINGS),
    Hostile("twice", _yaml("task: a\ntask: b\n"), _SETTINGS),
    Hostile("digits", _yaml("seed: " + "9" * 10_000 + "\n"), _SETTINGS),
    Hostile("a task of bytes", _run(task={"file": b"evil.py"}), _SETTINGS),
    Hostile("a task of zeros", _run(task={"file": "evil\0.py"}), _SETTINGS),
    Hostile("a task of options", _run(task={"kind": "text-classification", "options": {1: 2}}), _SETTINGS),
    Hostile("a task that is long", _run(task={"file": "a" * 5000 + ".py"}), _SETTINGS),
    Hostile("a crowd", _run(workers=10**9), _SETTINGS),
    Hostile("a seed of digits", _run(seed=10**400), _SETTINGS),
    Hostile("colours", _yaml('"\\e[2J": 1\n'), _SETTINGS),
    Hostile("noise", lambda f: (f / "run.yaml").write_bytes(bytes(range(256))), _SETTINGS),
]
