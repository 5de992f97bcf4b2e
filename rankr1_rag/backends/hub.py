"""Which weights a name means: a folder, or a repository of the Hugging Face hub, with or without a LoRA adapter.

Knows folders, names and the files of peft; loads no weights and knows no engine. Downloads are the hub's own business:
an adapter is fetched here, because its rank must be known before an engine starts; a base model by whoever loads it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rankr1_rag.errors import BackendError

BASES = {
    f"ielabgroup/{series}-{size}-v0.1": f"Qwen/Qwen2.5-{size}-Instruct"
    for series in ("Rank-R1", "Setwise-SFT")
    for size in ("3B", "7B", "14B")
}
"""The released adapters with the model that each was trained on (github.com/ielab/llm-rankers, folder Rank-R1)."""

_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Weights:
    """A model by its `name`: the `base` to load, a folder or a name of the hub, and the folder of an `adapter`."""

    name: str
    base: str
    adapter: Path | None = None

    @cached_property
    def rank(self) -> int:
        """The largest rank in the adapter; 0 without one."""
        if self.adapter is None:
            return 0
        config = _read(self.adapter)
        ranks = [config.get("r"), *dict(config.get("rank_pattern") or {}).values()]
        return max(int(rank) for rank in ranks if rank is not None)

    @cached_property
    def fingerprint(self) -> str:
        """Tells these weights from all others: a commit of the hub, or a digest over every byte of a folder."""
        adapter = "" if self.adapter is None else f"+{_fingerprint(str(self.adapter))}"
        return f"{_fingerprint(self.base)}{adapter}"


def find(model: str | Path, adapter: str | Path | None = None, name: str | None = None) -> Weights:
    """What these arguments of a backend mean. A released adapter by its name alone knows its base.

    FileNotFoundError for a path that is not there, BackendError for an adapter that is none or cannot be had.
    """
    model = str(model)
    if adapter is None and model in BASES:
        return Weights(name or model, BASES[model], _adapter(model))
    base = _folder(model, "config.json", "a model in the Hugging Face format")
    if adapter is None:
        if Path(base, _CONFIG).exists() and not Path(base, "config.json").exists():
            raise BackendError(f"{model} is a LoRA adapter: give its base as the model, and it as adapter={model!r}")
        return Weights(name or model, base)
    known = str(adapter) if str(adapter) in BASES else model
    return Weights(name or known, base, _adapter(str(adapter)))


def _folder(where: str, file: str, what: str) -> str:
    """The path or name, seen to be a folder if it is a path at all."""
    path = Path(where).expanduser()
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        return str(path)
    if path.is_absolute() or where.startswith((".", "~")) or where.count("/") != 1:
        raise FileNotFoundError(
            f"{where} is no folder: {what} is a folder with a {file}, or a name like 'Qwen/Qwen3-4B'"
        )
    return where


def _adapter(where: str) -> Path:
    """The folder of an adapter, fetched from the hub where it is a name, and seen to be a LoRA."""
    folder = Path(_folder(where, _CONFIG, "a LoRA adapter"))
    if not folder.is_dir():
        folder = _fetched(where)
    kind = _read(folder).get("peft_type")
    if kind != "LORA":
        raise BackendError(f"the adapter {where} is of the kind {kind!r}: only LORA can be used")
    if not (folder / "adapter_model.safetensors").exists():
        raise BackendError(
            f"the adapter {where} has no adapter_model.safetensors: save it with safe_serialization=True"
        )
    return folder


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # offline, no such repository, no access: the hub's exceptions are many
        raise BackendError(
            f"the adapter {name} is no folder here and could not be fetched from the hub ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0]}): check the name, or download it and give its folder"
        ) from error


def _read(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BackendError(f"{folder} is no LoRA adapter: it has no {_CONFIG}") from None
    except ValueError as error:
        raise BackendError(f"{folder / _CONFIG} is no JSON: {error}") from None
    return config if isinstance(config, dict) else {}


def _fingerprint(where: str) -> str:
    if not Path(where).exists():
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(where, "config.json")
        return f"{where}@{Path(found).parent.name}" if isinstance(found, str) else where
    path = Path(where).resolve()
    if path.parent.name == "snapshots":  # of the hub's cache, which names folders by commit
        return f"{path.parent.parent.name}@{path.name}"
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    digest = blake2b(digest_size=16)
    for file in files:
        if file.suffix in (".json", ".jinja", ".safetensors", ".gguf", ".model", ".txt"):
            digest.update(f"{file.name} {file.stat().st_size} ".encode())
            with file.open("rb") as content:
                while block := content.read(1 << 22):
                    digest.update(block)
    return digest.hexdigest()
