"""A causal language model with its LoRA adapter, and its tokenizer, loaded by transformers and peft.

The adapter stays apart from the weights, it is not merged into them: in 16 bits a merge rounds away part of what
reinforcement learning changed. torch is imported inside functions only.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from rankr1_rag.backends import Request, hub
from rankr1_rag.backends.chat_template import is_raw, render_prompt, utf8
from rankr1_rag.backends.hub import CheckpointFiles
from rankr1_rag.backends.local_model import check_length
from rankr1_rag.errors import BackendError

_PLAIN = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layers whose state is keys and values, one for each token, which can be put side by side and cut."""

_TAIL = 64
"""Characters at the end of the prompt that can change how the text after it is tokenized."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What a model is loaded with; `dtype` "auto" is the checkpoint's own, `device` None the best there is."""

    base: CheckpointFiles
    adapter: CheckpointFiles | None
    dtype: str
    device: str | None
    context: int | None
    max_batch: int


def load(settings: ModelSettings) -> Any:  # noqa: ANN401  # a torch.nn.Module, and torch may not be installed
    """The model, ready to compute. BackendError that says what is wrong with it."""
    base, adapter = settings.base, settings.adapter
    for needed in (hub.ADAPTER_CONFIG, hub.ADAPTER):
        _ = adapter and adapter.file(needed)  # before minutes of loading
    base.file(base.main)
    torch: Any = import_module("torch")
    transformers: Any = import_module("transformers")
    available = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device, logging = settings.device or available, transformers.utils.logging
    bars = base.folder is not None and logging.is_progress_bar_enabled()  # only a download shows one
    if bars:
        logging.disable_progress_bar()
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            base.place,
            revision=base.commit,
            dtype=settings.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        check_weights(base, model, sorted(info["missing_keys"]))
        model = with_adapter(model, base, adapter) if adapter else model
        return model.to(device).eval()
    except BackendError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise BackendError(
                f"{base.name} does not fit the memory of {device}: take a smaller model, a 16-bit dtype or another "
                "device"
            ) from error
        raise BackendError(f"transformers cannot load {base.name} on {device}: {short(error)}") from error
    finally:
        if bars:
            logging.enable_progress_bar()


def check_weights(base: CheckpointFiles, model: Any, missing: list[str]) -> None:  # noqa: ANN401
    """BackendError for weights that are not whole, and for a model that cannot be batched."""
    if missing:
        raise BackendError(
            f"the weights of {base.name} are not whole ({len(missing)} missing: {', '.join(missing[:3])} …): "
            "download it again"
        )
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or _PLAIN)
    if kinds - _PLAIN or getattr(model, "_is_stateful", False):
        raise BackendError(
            f"{base.name} ({model.config.model_type}) keeps another state than keys and values, which this backend "
            "cannot batch: serve it with vLLM"
        )


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, of the machine or of an accelerator; torch has no one class for it."""
    torch: Any = import_module("torch")
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))


def release() -> None:
    """Give memory that is no longer used back to the device."""
    torch: Any = import_module("torch")
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def ends(model: Any, tokenizer: Any) -> tuple[int, ...]:  # noqa: ANN401
    """The tokens that end a turn, the tokenizer's own first."""
    eos = getattr(model.generation_config, "eos_token_id", None)
    tokens = [tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])]
    return tuple(dict.fromkeys(token for token in tokens if token is not None))


def short(error: Exception) -> str:
    """Class and first line: what follows is for whoever debugs the library."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:500]}"


def with_adapter(model: Any, base: CheckpointFiles, adapter: CheckpointFiles) -> Any:  # noqa: ANN401
    """The same model with the layers of the adapter put into it. BackendError where they do not fit."""
    peft: Any = import_module("peft")
    folder = adapter.file(hub.ADAPTER).parent
    made_for = hub.read_json(adapter.file(hub.ADAPTER_CONFIG)).get("base_model_name_or_path")
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
        if config.is_prompt_learning:
            raise ValueError(f"{config.peft_type} is no adapter of weights")
        config.inference_mode = True
        wrapped = peft.PeftModel(model, config, autocast_adapter_dtype=False)
        found = wrapped.load_adapter(str(folder), "default", autocast_adapter_dtype=False)
        if wrong := [*found.missing_keys, *found.unexpected_keys]:
            raise ValueError(f"{len(wrong)} weights are missing or have no place, {wrong[0]} for one")
    except Exception as error:
        if out_of_memory(error):
            raise
        raise BackendError(
            f"the adapter {adapter.name} (made for {made_for!r}) does not fit the model {base.name}: give the base "
            f"that it was trained on. {short(error)}"
        ) from error
    return wrapped.get_base_model()


@dataclass(slots=True)
class ChoiceTree:
    """The choices that are left: the tokens that may come next, and a choice that is whole already."""

    next: dict[int, ChoiceTree] = field(default_factory=dict)
    whole: str | None = None

    def add(self, tokens: Sequence[int], choice: str) -> None:
        """Add a choice; of two with the same tokens the first counts."""
        node = self
        for token in tokens:
            node = node.next.setdefault(token, ChoiceTree())
        node.whole = choice if node.whole is None else node.whole

    def only_rest(self) -> list[int] | None:
        """The tokens up to the end of the only choice that is left; None where there are more."""
        node, tokens = self, []
        while node.whole is None and len(node.next) == 1:
            ((token, node),) = node.next.items()
            tokens.append(token)
        return None if node.next else tokens


@dataclass(frozen=True, slots=True)
class TokenizedRequest:
    """A request ready to be computed: the tokens of its prompt, the most that may follow, what begins the text."""

    request: Request
    prompt: list[int]
    most: int
    choices: ChoiceTree | None
    opened: str


class ModelTokenizer:
    """The tokenizer of one model, loaded at first use (some seconds, with the library), safe to use from any thread.

    Control tokens such as `<|im_end|>` inside a message become real ones, as with most runtimes: neutralise them
    before, see `special_tokens`.
    """

    def __init__(self, source: CheckpointFiles) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._loaded: Any = None

    def load(self) -> Any:  # noqa: ANN401  # transformers is not there to import its types from
        """The tokenizer of transformers. BackendError."""
        source = self._source
        with self._lock:
            if self._loaded is not None:
                return self._loaded
            auto: Any = import_module("transformers").AutoTokenizer
            source.file(source.main)  # its error is clearer than that of transformers
            try:
                tokenizer = auto.from_pretrained(source.place, revision=source.commit, trust_remote_code=False)
            except Exception as error:
                raise BackendError(f"transformers cannot load the tokenizer of {source.name}: {error}") from error
            rust = getattr(tokenizer, "backend_tokenizer", None)
            if rust is None:
                raise BackendError(f"{source.name} has no tokenizer.json: a model with a fast tokenizer is needed")
            rust.no_truncation()
            rust.no_padding()
            self._loaded = tokenizer
            return tokenizer

    def count(self, text: str) -> int:
        """Tokens, exactly."""
        return len(self.encode(text))

    def encode(self, text: str, *, is_whole: bool = False) -> list[int]:
        """BOS is added to a whole prompt: chat templates write their own.

        Straight to the Rust tokenizer, which keeps no state.
        """
        ids: list[int] = self.load().backend_tokenizer.encode(utf8(text), add_special_tokens=is_whole).ids
        return ids

    def decode(self, tokens: list[int]) -> str:
        """The text of these tokens, without control tokens."""
        return str(self.load().decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def token(self, token: int) -> str:
        """One token as text, control tokens too."""
        return str(self.load().decode([token]))

    def prepare(self, request: Request, context: int | None) -> TokenizedRequest:
        """Render, tokenize and check the length: PromptTooLong."""
        text, opened = render_prompt(self.load(), request.messages, self._source.name)
        prompt, most, choices = self.encode(text, is_whole=is_raw(request.messages)), request.max_tokens, None
        if request.choices:
            choices = ChoiceTree()
            before = text[-_TAIL:]
            alone = self.encode(before)
            for choice in request.choices:
                together = self.encode(before + choice)
                # Its first token may reach into the text before it; then it is tokenized by itself.
                fits = together[: len(alone)] == alone
                tokens = together[len(alone) :] if fits else self.encode(choice)
                choices.add(tokens, choice)
                most = max(most, len(tokens) + 1)
        check_length(len(prompt), most, context)
        return TokenizedRequest(request, prompt, most, choices, "" if choices else opened)

    def has_stopped(self, tokens: list[int], stops: tuple[str, ...]) -> bool:
        """Whether the text holds a stop string; called for every token, so its end is looked at first."""
        if not stops:
            return False
        end = self.decode(tokens[-max(map(len, stops)) - 8 :])
        return any(stop in end for stop in stops) and any(stop in self.decode(tokens) for stop in stops)
