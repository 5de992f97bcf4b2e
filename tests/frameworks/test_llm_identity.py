"""A store never mixes two models: what tells them apart, what must not count, what cannot be told."""

import json
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.frameworks.llm import describe


class Kind(Enum):
    CHAT = "chat"


def to_prompt(text: str) -> str:
    return text


def to_other_prompt(text: str) -> str:
    return text.upper()


class Model(BaseModel):
    model_config = {"arbitrary_types_allowed": True, "extra": "allow"}
    model: str = "m"
    api_base: str = "http://localhost/v1"
    temperature: float | None = None
    api_key: str = "sk-secret-0"
    secret: SecretStr = SecretStr("sk-secret-1")
    default_headers: dict[str, str] = Field(default_factory=lambda: {"Authorization": "sk-secret-2", "x-team": "a"})
    path: Path = Path("model.gguf")
    kind: Kind = Kind.CHAT
    stop: tuple[str, ...] = ()
    client: Any = Field(default=None, exclude=True)
    to_prompt: Any = Field(default=to_prompt, exclude=True)
    eos_token: str = "<eos>"
    words: frozenset[str] = frozenset({"one", "two", "three"})
    metadata: dict[str, str] = Field(default_factory=dict)
    inner: Any = None


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"api_base": "http://elsewhere/v1"},
        {"temperature": 1.0},
        {"path": Path("other.gguf")},
        {"stop": ("x",)},
        {"default_headers": {"x-team": "b"}},
        {"inner": Model(model="n")},
        {"inner": [Model(), {"deeper": Model(model="n")}]},
        {"inner": Scripted(lambda messages: "", identity="one")},
        {"to_prompt": to_other_prompt},
        {"eos_token": "</s>"},
        {"not_a_field": 3},
    ],
)
def test_whatever_decides_a_completion_tells_models_apart(change: dict[str, Any]) -> None:
    assert describe(Model(**change)) != describe(Model())


@pytest.mark.parametrize(
    "change",
    [
        {"api_key": "sk-other"},
        {"secret": SecretStr("x")},
        {"client": object()},
        {"metadata": {"run": "7"}},
        {"token": "sk-8"},
    ],
)
def test_keys_connections_and_notes_do_not(change: dict[str, Any]) -> None:
    assert describe(Model(**change)) == describe(Model())


def test_it_is_plain_data_without_secrets() -> None:
    assert "sk-secret" not in json.dumps(describe(Model(inner=Model())))


def test_two_classes_with_the_same_fields_are_two_models() -> None:
    class Other(Model):
        pass

    assert describe(Other()) != describe(Model())


@pytest.mark.parametrize("untold", [lambda messages: "", object(), print], ids=["lambda", "object", "function"])
def test_what_has_no_settings_is_refused_by_the_name_of_its_field(untold: object) -> None:
    with pytest.raises(ValueError, match="cannot identify the model for the store: inner is a"):
        describe(Model(inner=untold))
    with pytest.raises(ValueError, match="cannot identify the model for the store: llm is a"):
        describe(untold)


def test_what_says_who_it_is_is_taken_at_its_word() -> None:
    assert describe(Scripted(lambda messages: "", identity="one")) == "one"


def test_the_order_of_a_set_does_not_count() -> None:
    assert describe(Model())["words"] == sorted(f'"{word}"' for word in ("one", "two", "three"))  # type: ignore[index]
