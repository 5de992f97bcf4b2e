"""The files of a Hugging Face checkpoint, in a folder or a repository on the hub, with its context and its digest.

Neither torch nor transformers is imported. Of a repository one commit is read: the one in the hub's cache, or else the
newest.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from rankr1_rag.errors import BackendError, BackendUnavailable

CONFIG, ADAPTER_CONFIG, ADAPTER = "config.json", "adapter_config.json", "adapter_model.safetensors"

BASES = {
    f"ielabgroup/{series}-{size}-v0.1": f"Qwen/Qwen2.5-{size}-Instruct"
    for series in ("Rank-R1", "Setwise-SFT")
    for size in ("3B", "7B", "14B")
}
"""The released adapters with the model that each was trained on (github.com/ielab/llm-rankers, folder Rank-R1)."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_PARTS = {".safetensors", ".json", ".jinja", ".txt", ".model"}


@dataclass(frozen=True)
class CheckpointFiles:
    """The files in `folder`, or in the hub's repository `name` where that is None. `main` must be among them."""

    name: str
    folder: Path | None
    main: str = CONFIG

    def file(self, name: str) -> Path:
        """The path of one file, downloaded if need be. BackendError where there is none, BackendUnavailable offline."""
        if self.folder is None:
            return download(self.name, name, None if name == self.main else self.commit)
        if (self.folder / name).is_file():
            return self.folder / name
        remedy = "a folder that save_pretrained wrote with safe serialization is needed"
        if name == ADAPTER_CONFIG:
            remedy = "an adapter is a folder that peft's save_pretrained wrote"
        elif name == CONFIG and (self.folder / ADAPTER_CONFIG).is_file():
            base = read_json(self.folder / ADAPTER_CONFIG).get("base_model_name_or_path")
            remedy = f"it is an adapter; give its base as the model ({base!r}) and this folder as adapter="
        raise BackendError(f"{self.folder} holds no {name}: {remedy}")

    @cached_property
    def commit(self) -> str | None:
        """The commit of a repository on the hub; None for a folder."""
        return None if self.folder else self.file(self.main).parent.name

    @property
    def place(self) -> str:
        """The name or path for `from_pretrained`."""
        return str(self.folder or self.name)

    @cached_property
    def digest(self) -> str:
        """Name and commit on the hub, or 16 hex digits over the content of a folder: 1 s for a gigabyte."""
        if self.folder is None:
            return f"{self.name}@{self.commit}"
        return digest_of(
            (path for path in self.folder.iterdir() if path.suffix in _PARTS and path.is_file()), named=True
        )


@dataclass(frozen=True)
class Weights:
    """A model by its `name`: the base, and the LoRA adapter on it."""

    name: str
    base: CheckpointFiles
    adapter: CheckpointFiles | None = None

    @property
    def lora(self) -> str:
        """The name of the adapter, "" without one."""
        return "" if self.adapter is None else self.adapter.name

    @cached_property
    def digest(self) -> str:
        """The digests of the base and of the adapter."""
        return "+".join(source.digest for source in (self.base, self.adapter) if source)

    @cached_property
    def rank(self) -> int:
        """The largest rank in the adapter, 0 without one. BackendError where it is no LoRA."""
        if self.adapter is None:
            return 0
        config = read_json(self.adapter.file(ADAPTER_CONFIG))
        if config.get("peft_type") != "LORA":
            raise BackendError(
                f"the adapter {self.adapter.name} is of the kind {config.get('peft_type')!r}: only LORA can be used"
            )
        pattern = config.get("rank_pattern")
        numbers = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
        ranks = [rank for rank in numbers if isinstance(rank, int) and not isinstance(rank, bool)]
        if not ranks:
            raise BackendError(f"the adapter {self.lora} has no rank in its {ADAPTER_CONFIG}: download it again")
        return max(ranks)


def weights(model: str | Path, adapter: str | Path | None = None, name: str | None = None) -> Weights:
    """The checkpoint of these arguments of a backend. A released adapter needs no base: it is known.

    FileNotFoundError for a path that is not there, BackendError for a folder without what must be in it.
    """
    if adapter is None and str(model) in BASES:
        base, adapter = find(BASES[str(model)]), str(model)
    else:
        base = find(model)
    lora = None if adapter is None else find(adapter, ADAPTER_CONFIG)
    for source, needed in ((base, CONFIG), (lora, ADAPTER_CONFIG), (lora, ADAPTER)):
        if source is not None and source.folder is not None:
            source.file(needed)
    known = str(adapter) if str(adapter) in BASES else str(model)
    return Weights(name or known, base, lora)


def digest_of(files: Iterable[Path], begin: str = "", named: bool = False) -> str:
    """16 hex digits over the content of these files, by name, and with their names if `named`. 0.1 s for 100 MB."""
    whole = hashlib.sha256(begin.encode())
    for file in sorted(files):
        whole.update(file.name.encode() if named else b"")
        with file.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()[:16]


def find(name: str | Path, main: str = CONFIG) -> CheckpointFiles:
    """A folder, or else a name on the hub, which is not looked up yet. FileNotFoundError for anything else."""
    path = Path(name).expanduser()
    if path.is_dir():
        return CheckpointFiles(str(name), path, main)
    if path.exists() or not _HUB_NAME.fullmatch(str(name)):
        problem = "this is a file" if path.exists() else "there is nothing"
        what = "adapter" if main == ADAPTER_CONFIG else "model"
        gguf = " (a .gguf file runs with the backend 'openvino')" if path.suffix == ".gguf" else ""
        raise FileNotFoundError(
            f"no {what} folder at {str(name)!r}, {problem}: give a folder with {main} and .safetensors files, or a "
            f"name on the Hugging Face hub{gguf}"
        )
    return CheckpointFiles(str(name), None, main)


def context(source: CheckpointFiles, limit: int | None) -> int | None:
    """Longest prompt and completion that the model was made for, in tokens, or the limit if that is less."""
    config = read_json(source.file(CONFIG))
    inner = config.get("text_config")
    config = inner if isinstance(inner, dict) else config
    own = (config.get(name) for name in ("max_position_embeddings", "n_positions", "max_seq_len"))
    longest = next((length for length in own if isinstance(length, int) and length > 0), None)
    return min((length for length in (longest, limit) if length), default=None)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. BackendError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BackendError(f"{path} is no JSON ({error}): it is damaged; download it again") from error
    if not isinstance(content, dict):
        raise BackendError(f"{path} is no configuration: it holds a {type(content).__name__}")
    return content


def download(repository: str, name: str, revision: str | None) -> Path:
    """The path of a file of a repository in the hub's cache. BackendError, BackendUnavailable."""
    near = [name for name in difflib.get_close_matches(repository, BASES, n=1, cutoff=0.5) if name != repository]
    suggestion = f"; did you mean {near[0]!r}?" if near else ""
    hub: Any = import_module("huggingface_hub")
    errors: Any = import_module("huggingface_hub.errors")
    try:
        with suppress(errors.LocalEntryNotFoundError):
            return Path(hub.hf_hub_download(repository, name, revision=revision, local_files_only=True))
        logging.getLogger("rankr1_rag").info("downloading %s of %s from the Hugging Face hub", name, repository)
        return Path(hub.hf_hub_download(repository, name, revision=revision))
    except errors.GatedRepoError as error:
        raise BackendError(
            f"{repository} needs your consent: accept its licence at https://huggingface.co/{repository} and log in "
            "with `hf auth login`"
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise BackendError(
            f"{repository!r} is neither a folder here nor, for you, a repository on the Hugging Face hub: correct the "
            f"name, or log in with `hf auth login` if it is private{suggestion}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise BackendError(
            f"{repository!r} is no folder here and not in the hub's cache, and the Hugging Face hub cannot be reached: "
            f"download it where it can (`hf download {repository}`) and give the folder{suggestion}"
        ) from error
    except errors.EntryNotFoundError as error:
        raise BackendError(f"{repository} on the Hugging Face hub holds no {name}") from error
    except Exception as error:  # of the hub, the network or the disk, which differ from version to version
        raise BackendUnavailable(f"the Hugging Face hub did not give {repository}: {type(error).__name__}") from error
