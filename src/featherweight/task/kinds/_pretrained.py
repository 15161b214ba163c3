"""Models and tokenizers from a Hugging Face directory. Nothing in it is executed, and what it says
has to be all there: weights that a configuration wants and the files do not have would be made up
at random.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import MissingExtra, TaskError

# what transformers reads from a model directory
_LOADED = (".json", ".txt", ".model", ".safetensors", ".jinja")
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
# for every from_pretrained
_SAFE = {"local_files_only": True, "trust_remote_code": False}
# buffers that files of older versions hold, and the code computes
_COMPUTED = re.compile(r"(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias|attn\.bias)$")
_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "num_decoder_layers")
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "vocab_size",
    "dim",
    "hidden_dim",
    "d_model",
    "d_ff",
    "n_embd",
    "embedding_size",
)


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
        return AutoConfig.from_pretrained(folder, **_SAFE)
    except (OSError, ValueError, KeyError) as e:
        raise TaskError("the model's config.json cannot be used", got=f"{folder}: {e}") from e


def load_model(kind: Any, folder: Path, pooler: bool = True) -> Any:
    """The directory's model in fp32 as one of transformers' Auto classes (`kind`) makes it. Heads
    that this class has no use for are left out; TaskError if any other weight is missing (pooler:
    the pooler's too), left over, of another shape, or no finite number."""
    import torch

    _check_sizes(load_config(folder), folder)
    try:
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
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as e:
        raise TaskError(
            "the model cannot be loaded", got=f"{folder}: {e}", allowed="a model that transformers knows"
        ) from e
    mine, prefix = {name for name, _ in net.named_children()}, f"{net.base_model_prefix}."
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
        raise TaskError(
            "the model's weights are not those that its config.json describes",
            got=f"{folder}: {'; '.join(said)}",
            allowed="a folder whose *.safetensors hold all weights of the model, and no others",
            fix="save it again, whole: model.save_pretrained(DIR)",
        )
    return net


def _check_sizes(config: Any, folder: Path) -> None:
    """TaskError if the configuration asks for more than the weights can fill, before anything of
    that size is made."""
    import safetensors

    tensors, largest = 0, 0
    for file in folder.glob("*.safetensors"):
        try:
            with safetensors.safe_open(str(file), framework="pt") as f:
                for name in f.keys():  # noqa: SIM118 (no mapping)
                    tensors, largest = tensors + 1, max(largest, *f.get_slice(name).get_shape(), 0)
        except (OSError, safetensors.SafetensorError) as e:
            raise TaskError("a file of the model's weights is damaged", got=f"{file}: {e}", fix="copy it again") from e
    said = {**{n: tensors for n in _LAYERS}, **{n: largest for n in _SIZES}}
    odd = [
        f"{name} {value}, of {most}"
        for name, most in said.items()
        if isinstance(value := getattr(config, name, None), int) and value > most
    ]
    if odd:
        raise TaskError(
            "the model's weights are not those that its config.json describes",
            got=f"{folder}: {', '.join(odd)}",
            allowed=f"at most what is in its *.safetensors: {tensors} tensors, none wider than {largest}",
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
    try:
        return quietly(lambda: AutoTokenizer.from_pretrained(folder, **_SAFE))
    except (OSError, ValueError, KeyError) as e:
        raise TaskError(
            "the model directory has a tokenizer that cannot be loaded",
            got=f"{folder}: {e}",
            fix="save_pretrained(DIR)",
        ) from e


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
