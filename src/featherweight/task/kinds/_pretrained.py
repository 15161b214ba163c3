"""Models and tokenizers from a Hugging Face directory. Nothing in it is executed, and what it says
has to be all there: weights that a configuration wants and the files do not have would be made up
at random.
"""

from __future__ import annotations

import json
import math
import queue
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...errors import MissingExtra, TaskError
from ...plain import read_text
from ._weights import tensors

# what transformers reads from a model directory
_LOADED = (".json", ".txt", ".model", ".safetensors", ".jinja")
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
# for every from_pretrained
_SAFE = {"local_files_only": True, "trust_remote_code": False}
# buffers that files of older versions hold, and the code computes
_COMPUTED = re.compile(r"(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias|attn\.bias)$")
# numbers in a config.json: of what is made one by one and has weights, of what else is counted, and
# widths
_LAYERS = re.compile(r"(^|_)(n|num)_(\w+_)?(layer|block|expert|stage)s?$|^(en|de)coder_layers$|^(layers?|depths?)$")
_COUNTS = re.compile(r"(^|_)(n|num)_\w+|^n_?class(es)?$")
_SIZES = re.compile(
    r"(^|_)(hidden|intermediate|vocab|embedding|head|ffn|inner|projection)_(size|dim)s?$|^d_|^dim$|^n_embd$"
)
_OWN_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
_FEW = 1000  # that may be counted in any model
# of a tokenizer: seconds for any texts and characters a second, slower than which none is
_SLOWEST_S, _SLOWEST = 20.0, 10_000
_MOST_TOKENIZER = 200_000_000  # bytes of one of its files
_MORE = 1.5  # times the numbers that a folder's files hold, a model may have, and a head


def model_files(folder: Path) -> tuple[Path, ...]:
    """The files of a model directory that decide what is loaded from it."""
    return tuple(sorted(p for p in folder.iterdir() if p.suffix in _LOADED and p.is_file()))


def load_config(folder: Path) -> Any:
    """The directory's transformers config. TaskError if it is no model directory with
    safetensors weights."""
    try:
        from transformers import AutoConfig
    except ImportError as e:
        raise MissingExtra("transformers", "llm") from e
    if not (folder / "config.json").is_file():
        raise TaskError(
            "this is no Hugging Face model directory",
            got=str(folder),
            allowed="a folder with config.json, tokenizer files and *.safetensors",
            fix="model.save_pretrained(DIR); tokenizer.save_pretrained(DIR)",
        )
    if not any(folder.glob("*.safetensors")):
        raise TaskError(
            "the model directory has no safetensors weights",
            got=", ".join(sorted(p.name for p in folder.iterdir()))[:300],
            fix=(
                "save the model again with save_pretrained(DIR, safe_serialization=True): "
                "pickled weights are never loaded"
            ),
        )
    try:
        said = json.loads(read_text(folder / "config.json"))
        _check_loaders(said, folder)
        _check_sizes(said, folder)
        return AutoConfig.from_pretrained(folder, **_SAFE)
    except TaskError:
        raise
    except Exception as e:  # each kind of model checks its configuration with its own code
        raise TaskError("the model's config.json cannot be used", got=f"{folder}: {e}"[:500]) from e


def load_model(kind: Any, folder: Path, pooler: bool = True) -> Any:
    """The directory's model in fp32 as one of transformers' Auto classes (`kind`) makes it. Heads
    that this class has no use for are left out; TaskError if any other weight is missing (pooler:
    the pooler's too), left over, of another shape, or no finite number."""
    import torch

    config = load_config(folder)
    try:
        _check_numbers(kind, config, folder)
        net, told = quietly(
            lambda: kind.from_pretrained(
                folder,
                **_SAFE,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are named below
            )
        )
    except TaskError:
        raise
    except Exception as e:
        raise TaskError(
            "the model cannot be loaded", got=f"{folder}: {e}"[:500], allowed="a model that transformers knows"
        ) from e
    prefix = f"{net.base_model_prefix}."
    mine = {name for part in (net, net.base_model) for name, _ in part.named_children()}
    parts = {k: k.removeprefix(prefix).partition(".")[0] for k in (*told["missing_keys"], *told["unexpected_keys"])}
    missing = [k for k in told["missing_keys"] if pooler or parts[k] != "pooler"]
    left = [k for k in told["unexpected_keys"] if not _COMPUTED.search(k) and parts[k] in mine - {"pooler"}]
    shapes = [f"{key} {list(has)}, wanted {list(wants)}" for key, has, wants in told["mismatched_keys"]]
    odd = [name for name, p in net.named_parameters() if not bool(torch.isfinite(p).all())]
    said = [
        f"{len(names)} {what}: {', '.join(sorted(names)[:4])}{', ..' * (len(names) > 4)}"
        for what, names in (
            ("missing", missing),
            ("left over", left),
            ("of another shape", shapes),
            ("not finite", odd),
        )
        if names
    ]
    if said:
        allowed = "a folder whose *.safetensors hold all weights of the model, and no others"
        raise _not_described(folder, "; ".join(said), allowed)
    return net


def _check_sizes(config: Any, folder: Path) -> None:
    """TaskError if a config.json asks for more, or for wider, layers than the weights can fill,
    before any of them is made."""
    shapes = [shape for _, shape in tensors(folder)]
    largest = max((d for shape in shapes for d in shape), default=0)
    odd = [
        f"{name} {value}, of {most}"
        for name, value in _whole_numbers(config)
        # layers may share their weights
        if not 0 <= value <= (most := max(len(shapes), 100) if _LAYERS.search(name) else max(largest, _FEW))
        and any(kind.search(name) for kind in (_LAYERS, _COUNTS, _SIZES))
    ]
    if odd:
        raise _not_described(
            folder,
            ", ".join(odd[:4]),
            f"at most what is in its *.safetensors: {len(shapes)} tensors, none wider than {largest}",
        )


def _check_loaders(config: Any, folder: Path) -> None:
    """TaskError if a config.json names code that transformers would fetch, or weights in a form
    that other packages have to read."""
    for name, value in _settings(config):
        if name.endswith("_implementation") and value not in (None, *_OWN_ATTENTION):
            raise TaskError(
                "the model's config.json asks for code from elsewhere",
                got=f"{folder}: {name} {value!r}"[:300],
                allowed=", ".join(_OWN_ATTENTION),
                fix="remove this line",
            )
        if name == "quantization_config" and value is not None:
            raise TaskError(
                "the model is quantized already",
                got=f"{folder}: quantization_config {value!r}"[:300],
                allowed="a model in fp32, bf16 or fp16",
                fix="give the model that it was made of",
            )


def _check_numbers(kind: Any, config: Any, folder: Path) -> None:
    """TaskError if the model has far more numbers than the weights, before memory is taken."""
    import torch

    with torch.device("meta"):
        net = kind.from_config(config, trust_remote_code=False)
    wanted = sum(t.numel() for t in (*net.parameters(), *net.buffers()))
    found = sum(math.prod(shape) for _, shape in tensors(folder))
    if wanted > _MORE * found + 1e7:
        raise _not_described(folder, f"{wanted:,} numbers, of {found:,}", "a model whose weights are all in the folder")


def _settings(value: Any) -> Iterator[tuple[str, Any]]:
    """All that plain data name, however deep, with the value that each name has."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _settings(inner)
    if isinstance(value, dict):
        yield from ((str(name), inner) for name, inner in value.items())


def _whole_numbers(config: Any) -> Iterator[tuple[str, int]]:
    """All whole numbers in plain data, with the name that they, or their list, have there."""
    for name, value in _settings(config):
        yield from ((name, v) for v in (value if isinstance(value, list) else [value]) if isinstance(v, int))


def _not_described(folder: Path, got: str, allowed: str) -> TaskError:
    return TaskError(
        "the model's weights are not those that its config.json describes",
        got=f"{folder}: {got}",
        allowed=allowed,
        fix="save it again, whole: model.save_pretrained(DIR)",
    )


def load_tokenizer(folder: Path) -> Any:
    """The directory's tokenizer. TaskError if there is none, or none that can be loaded."""
    from transformers import AutoTokenizer

    found = sorted(p.name for p in folder.iterdir())
    # transformers would make an empty one up
    if not any(name in _TOKENIZERS or name.endswith(".model") for name in found):
        raise TaskError(
            "the model directory has no tokenizer",
            got=", ".join(found)[:300],
            allowed=f"one of {', '.join(_TOKENIZERS)}, *.model",
            fix="tokenizer.save_pretrained(DIR)",
        )
    if large := [p for p in model_files(folder) if p.suffix != ".safetensors" and p.stat().st_size > _MOST_TOKENIZER]:
        raise TaskError(
            "a file of the model directory is too large to be read",
            got=f"{large[0]}: {large[0].stat().st_size:,} bytes",
            allowed=f"{_MOST_TOKENIZER:,} bytes",
        )
    try:
        return quietly(lambda: AutoTokenizer.from_pretrained(folder, **_SAFE))
    except Exception as e:  # some of it says no more than that
        raise TaskError(
            "the model directory has a tokenizer that cannot be loaded",
            got=f"{folder}: {e}"[:500],
            fix="save_pretrained(DIR)",
        ) from e


def pad_token(tokenizer: Any) -> int:
    """The token that fills up short texts."""
    found = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return int(found or 0)


def _position_limit(folder: Path) -> int:
    """The number of positions that the model has; RoBERTa's family counts them from
    pad_token_id + 1."""
    config = load_config(folder)
    n = int(getattr(config, "max_position_embeddings", 0) or 2**30)
    shifted = config.model_type in (
        "roberta",
        "xlm-roberta",
        "camembert",
        "mpnet",
        "longformer",
        "data2vec-text",
        "xmod",
    )
    return n - int(config.pad_token_id or 0) - 1 if shifted else n


def token_limit(folder: Path, tokenizer: Any) -> int:
    """The longest text that model and tokenizer take, in tokens."""
    return int(min(tokenizer.model_max_length, _position_limit(folder)))


def in_time(tokenize: Callable[[list[str]], Any], texts: list[str]) -> Any:
    """What `tokenize` makes of the texts. TaskError if that takes far longer than it can: a
    tokenizer is a file, and a regular expression in it may take for ever on some texts."""
    out: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            out.put((tokenize(texts), None))
        except BaseException as e:
            out.put((None, e))

    # no program waits for such a thread at its end; a tokenizer of Rust holds up no other meanwhile
    threading.Thread(target=run, daemon=True).start()
    limit_s = _SLOWEST_S + sum(map(len, texts)) / _SLOWEST
    try:
        found, error = out.get(timeout=limit_s)
    except queue.Empty:
        raise TaskError(
            "the tokenizer does not come to an end",
            got=f"over {limit_s:.0f} s for {len(texts)} texts, of which the first is {texts[0][:60]!r}",
            fix="give a model directory whose tokenizer.json comes from a source you know",
        ) from None
    if error is not None:  # a panic in Rust is no Exception
        raise TaskError(
            "the tokenizer failed", got=f"{type(error).__name__}: {error}"[:500], fix="is its tokenizer.json whole?"
        ) from error
    return found


def quietly(load: Callable[[], Any]) -> Any:
    """Run `load` without transformers' progress bars and reports on stderr;
    its settings are put back."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return load()
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
