"""Sentence encoders: a directory as sentence-transformers writes it, or a plain encoder.

What its files say of pooling is done, or refused; nothing in it is executed.

Source: Reimers & Gurevych 2019, "Sentence-BERT", section 3 (pooling).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import TaskError
from ...plain import read_text
from ._pretrained import load_model, model_files

if TYPE_CHECKING:
    import torch
    from torch import nn

MODULES, SETTINGS, PROMPTS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
_POOLING = "pooling_mode_"
# by the name that 1_Pooling/config.json has for it, in the order in which several are joined
MODES = {"cls_token": "cls", "max_tokens": "max", "mean_tokens": "mean", "mean_sqrt_len_tokens": "mean_sqrt_len"}


@dataclass(frozen=True)
class Encoder:
    """folder: of the transformer; pooling: one or several of `MODES`, which are joined; normalise:
    to length 1; longest: text in tokens, if the files say so; files: that decide all of this."""

    folder: Path
    pooling: tuple[str, ...]
    normalise: bool
    longest: int | None
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    def said(self) -> str:
        """In words."""
        return f"{' and '.join(self.pooling)} pooling{', put to length 1' if self.normalise else ''}"


def sentence_encoder(folder: Path) -> Encoder:
    """What a directory says of itself; without modules.json mean pooling, put to length 1.
    TaskError for parts that are none of transformer, pooling and normalisation."""
    if not (folder / MODULES).is_file():
        note = f"{folder.name} has no {MODULES}: the mean over tokens is taken, put to length 1"
        return Encoder(folder, ("mean",), True, None, (*model_files(folder),), (note,))
    parts = _json(folder / MODULES)
    if not isinstance(parts, list) or not all(isinstance(p, dict) for p in parts):
        raise TaskError(f"{MODULES} of a sentence encoder is no list of parts", got=str(folder / MODULES))
    kinds = [str(p.get("type", "")).rpartition(".")[2] for p in parts]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise TaskError(
            "this sentence encoder has parts that cannot be loaded",
            got=f"{folder}: {', '.join(kinds)}"[:300],
            allowed="Transformer, Pooling, and Normalize",
            fix="make a torch module of the whole, and give that: fw.optimize(net, texts as token ids)",
        )
    transformer, pooling = (_inside(folder, str(p.get("path", ""))) for p in parts[:2])
    settings = transformer / SETTINGS if (transformer / SETTINGS).is_file() else folder / SETTINGS
    said = _json(settings) if settings.is_file() else {}
    if said.get("do_lower_case"):
        raise TaskError(
            "this sentence encoder puts texts to lower case before its tokenizer",
            got=f"{settings}: do_lower_case",
            fix="let its tokenizer do it (do_lower_case in tokenizer_config.json, saved again)",
        )
    longest = said.get("max_seq_length")
    prompts = _json(folder / PROMPTS) if (folder / PROMPTS).is_file() else {}
    notes: tuple[str, ...] = ()
    if prompts.get("default_prompt_name"):
        notes = (f"texts are taken as they are, without the prompt {str(prompts['default_prompt_name'])[:50]!r}",)
    return Encoder(
        transformer,
        _modes(pooling / "config.json"),
        "Normalize" in kinds,
        longest if isinstance(longest, int) and longest > 0 else None,
        tuple(
            f for f in (*model_files(transformer), folder / MODULES, pooling / "config.json", settings) if f.is_file()
        ),
        notes,
    )


def _json(file: Path) -> Any:
    try:
        return json.loads(read_text(file))
    except (OSError, ValueError) as e:
        raise TaskError("a file of the sentence encoder cannot be read", got=f"{file}: {e}"[:300]) from e


def _inside(folder: Path, name: str) -> Path:
    """A folder in the folder. TaskError if the name leads elsewhere."""
    plain = name == "" or name.isprintable() and not {"/", "\\"} & set(name) and name not in (".", "..")
    if not plain or not (folder / name).is_dir():
        raise TaskError(f"{MODULES} names what is no folder in it", got=f"{folder}: {name[:100]!r}")
    return folder / name


def _modes(file: Path) -> tuple[str, ...]:
    said = _json(file)
    named = said.get("pooling_mode")  # newer files name one, older ones have a switch for each
    wanted = [named] if isinstance(named, str) else named if isinstance(named, list) else None
    if wanted is None:
        on = [k.removeprefix(_POOLING) for k, v in said.items() if k.startswith(_POOLING) and v is True]
        wanted = [MODES.get(k, k) for k in sorted(on, key=list((*MODES, *on)).index)]
    if not wanted or any(w not in MODES.values() for w in wanted):
        raise TaskError(
            "this pooling of a sentence encoder is not known",
            got=f"{file}: {', '.join(map(str, wanted)) or 'none'}"[:300],
            allowed=", ".join(MODES.values()),
        )
    return tuple(wanted)


def embedder(encoder: Encoder) -> nn.Module:
    """forward(input_ids [n, length] int64, attention_mask [n, length] int64) -> embeddings [n,
    width]."""
    from torch import nn
    from transformers import AutoModel

    net = load_model(AutoModel, encoder.folder, pooler=False)
    if getattr(net, "pooler", None) is not None:
        net.pooler = None  # it has no use here

    class SentenceEncoder(nn.Module):
        """Encoder, pooling over the tokens that are not padding, and, maybe, length 1."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = net

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            parts = [_pooled(hidden, mask, mode) for mode in encoder.pooling]
            out = parts[0] if len(parts) == 1 else _joined(parts)
            return out / out.pow(2).sum(dim=1, keepdim=True).clamp(min=1e-24).sqrt() if encoder.normalise else out

    return SentenceEncoder()


def _pooled(hidden: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    """hidden: [n, length, width]; mask: [n, length, 1], 0 at padding -> [n, width]."""
    if mode == "cls":
        return hidden[:, 0]
    if mode == "max":
        return (hidden - (1 - mask) * 1e9).amax(dim=1)
    n = mask.sum(dim=1).clamp(min=1.0)
    return (hidden * mask).sum(dim=1) / (n.sqrt() if mode == "mean_sqrt_len" else n)


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat(parts, dim=1)
