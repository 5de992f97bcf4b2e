"""The table of options: each is checked, explained and taken everywhere in the same way.

`python -m tests.test_settings` writes docs/options.md again.
"""

import inspect
import json
import math
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rankr1_rag import Reranker
from rankr1_rag.backends.scripted import Scripted
from rankr1_rag.checkpoints import CHECKPOINTS
from rankr1_rag.cli.options import CommandSettings, UsageError, with_settings
from rankr1_rag.connect import connect
from rankr1_rag.cross_encoder import RankR1CrossEncoder
from rankr1_rag.frameworks.component import Component
from rankr1_rag.frameworks.llm import FrameworkLLM
from rankr1_rag.prompt import FORMATS
from rankr1_rag.server.config import ADDRESS, LOAD, ServerConfig
from rankr1_rag.settings import (
    CONNECTION_RULES,
    MODEL,
    PROMPT,
    RULES,
    SELECTION,
    TOP_N,
    Connection,
    Option,
    Settings,
    options,
)

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "options.md"
PAGES = {
    PAGE: ((Reranker, SELECTION), (Reranker, PROMPT), (Connection, MODEL)),
    DOCS / "server.md": ((ServerConfig, ADDRESS), (ServerConfig, LOAD)),
}
"""The pages with tables of options, one for each group."""
SERVER: dict[str, Any] = {"model": "m", "base_url": "http://127.0.0.1:9/v1"}
TABLE = options(Reranker) | {f"connect {name}": option for name, option in options(Connection).items()}
TYPED = [pytest.param(name, option, id=name) for name, option in TABLE.items() if not option.live]


class Mine(Component):
    """A component of no framework."""

    _wrap_llm = FrameworkLLM


def first(messages: object) -> str:
    return "<answer>[1]</answer>"


def reranker(**settings: Any) -> Reranker:
    return Reranker(settings.pop("backend", None) or Scripted(first), **settings)


def wrong(option: Option) -> list[Any]:
    """Values that are wrong for any option of its types."""
    if bool in option.kinds:
        return [0, 1, "yes", 1.0]
    if {int, float} & {*option.kinds}:
        values = [True, False, "x", math.nan, math.inf, [1], *([1.5] if int in option.kinds else [])]
        values += [option.least - 1] if option.least is not None else []
        return values + ([option.most + 1] if option.most is not None else []) + [-1]
    return [] if str in option.kinds and not option.choices else ["no such word", 5, True]


@pytest.mark.parametrize(("name", "option"), TYPED)
def test_a_wrong_value_is_refused_by_all_that_take_the_option_and_none_of_the_model(name: str, option: Option) -> None:
    own: Any = connect if name.startswith("connect ") else lambda model, base_url, **one: reranker(**one)
    for value in wrong(option):
        for take in (own, Mine) if name != "k" else (own,):
            shown = option.name if option.secret else f"{option.name}={value!r}"
            with pytest.raises(ValueError, match=re.escape(shown) + ".*needed"):
                take(**{**SERVER, option.name: value})


def test_a_connection_with_a_key_is_not_pickled_and_connect_is() -> None:
    assert pickle.loads(pickle.dumps(connect)) is connect
    with pytest.raises(TypeError, match=r"a Connection with api_key= is not pickled, .*: use api_key_env="):
        pickle.dumps(Connection("openai", "m", api_key="sk-secret"))


def test_headers_are_secret_unless_they_name_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    secret, named = {"api-key": "not-to-be-seen"}, {"api-key": "$MY_KEY", "X-Team": "${TEAM}"}
    monkeypatch.setenv("MY_KEY", "not-to-be-seen")
    for make, state in ((Connection, pickle.dumps), (connect, pickle.dumps), (Mine, Mine.__getstate__)):
        one = make(**SERVER, headers=secret)
        assert "not-to-be-seen" not in f"{one!r} {one}"
        with pytest.raises(TypeError, match=r"headers= .*pickled.*: use .*\$"):
            state(one)
        assert "not-to-be-seen" not in str(state(make(**SERVER, headers=named)))
        with pytest.raises(ValueError, match="headers") as caught:
            make(**SERVER, headers="not-to-be-seen")
        assert "not-to-be-seen" not in str(caught.value)
    assert Mine(**SERVER, headers=secret | named).model_dump()["headers"] == named
    assert "not-to-be-seen" not in Mine(**SERVER, headers=secret).model_dump_json()
    assert Mine(**SERVER).model_dump()["headers"] is None


def test_a_value_in_bounds_and_the_defaults_of_the_signature_are_taken() -> None:
    both = {"k": 1, "size": 2, "votes": "auto", "fusion": "off", "temperature": 1, "force": "never", "strict": True}
    assert reranker(**both).plan.votes == "auto"
    assert reranker(fusion=0, k=None, size=20).plan.fusion == 0
    assert reranker(format="rank-r1-v0.2").plan.format.name == "rank-r1-v0.2"
    bound = inspect.signature(Reranker).bind(Scripted(str))
    bound.apply_defaults()
    assert Reranker(*bound.args, **bound.kwargs).plan.size == 20


@pytest.mark.parametrize("value", [True, 0, -1, 1.5, "3"])
def test_how_many_to_select_is_checked_wherever_it_is_passed(value: Any) -> None:
    for rank in (reranker().rank, lambda *one, k: RankR1CrossEncoder(reranker()).rank(*one, top_k=k)):
        with pytest.raises(ValueError, match="k="):
            rank("which?", ["a", "b"], k=value)  # type: ignore[operator]
    with pytest.raises(ValueError, match=re.escape(f"top_n={value!r}: a whole number ≥ 1 is needed")):
        Mine(**SERVER, top_n=value)
    with pytest.raises(ValueError, match="include_reasoning"):
        Mine(**SERVER, include_reasoning=1)


@pytest.mark.parametrize(
    ("backend", "arguments", "problem"),
    [
        ("openvino", {"max_batch": True}, "max_batch=True: a whole number is needed"),
        ("openvino", {"threads": 1.5}, "threads=1.5: a whole number is needed"),
        ("openvino", {"threds": 1}, "OpenVINO: there is no option 'threds': did you mean 'threads'"),
        ("openai", {"revision": 7, "count": 7}, "OpenAI: there is no option 'count'"),
        ("openai", {"timeout": 7}, "options= repeats timeout: use the option of this name instead"),
    ],
)
def test_further_arguments_of_a_backend_are_checked_too(backend: Any, arguments: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        connect(backend, "m", options=arguments)


PLAN_CASES = {
    "nothing to ask": ({"reasoning_tokens": 0, "force": "never"}, "leaves nothing to ask"),
    "listwise": ({"algorithm": "window"}, "needs a listwise format .*format='rank-r1-v0.1'"),
    "passes": ({"passes": 2}, r"step= and passes= need algorithm='window' \(got algorithm='tournament'\)"),
    "step": ({"format": "rank-k", "size": 5, "step": 5}, "step=5 leaves no overlap of sets of 5"),
    "scored": ({"algorithm": "scores"}, "needs a scored format .*format='rank-r1-v0.1'"),
    "scores alone": ({"format": "grouprank", "algorithm": "heapsort"}, "gives scores .*algorithm='heapsort'"),
    "never": ({"format": "rank1", "force": "never"}, "after the reasoning, which force='never' forbids: use"),
    "same words": ({"format": "rank1", "votes": 2}, r"in the same words \(got size=1, temperature=0\): use votes=1"),
    "most": ({"format": "rank1", "size": 2}, r"shows 1 passage\(s\) in a prompt \(got size=2\)"),
    "single": ({"size": 1}, r"algorithm='tournament' needs sets of 2 or more \(got size=1\)"),
    "begun": ({"format": "rank1", "backend": Scripted(str, can_continue=False)}, "needs a backend that continues"),
    "auto": ({"votes": "auto", "format": "listwise-v1"}, "votes='auto' needs a setwise format"),
    "probabilities": ({"probabilities": True, "format": "listwise-v1"}, "probabilities=True needs a setwise format"),
}
CONNECTION_CASES = {
    "server": ({"server": "vllm", "api_key": "sk-secret"}, "^server='vllm' needs a server: add base_url= "),
    "local": ({**SERVER, "backend": "vllm"}, "^base_url needs a server: add base_url= without another"),
    "adapter": ({**SERVER, "adapter": "lora"}, "adapter='lora' with a server"),
    "name": ({"backend": "openai"}, "backend='openai' needs model="),
    "checkpoint": ({"backend": "transformers"}, "backend='transformers' needs model="),
    "empty": ({**SERVER, "base_url": ["http://a/v1", ""]}, "no address, or an empty one"),
    "none": ({**SERVER, "base_url": []}, "base_url= lists no address"),
    "headers": ({"headers": {"api-key": "sk-secret"}}, "^headers needs a server: add base_url="),
    "twice": ({"options": {"context": 9}}, "options= repeats context"),
    "exposed": ({"base_url": "http://a/v1?api_key=sk-secret", "model": "m"}, r"value of a secret \(api_key\): use "),
}


@pytest.mark.parametrize("case", [*PLAN_CASES, *CONNECTION_CASES])
def test_options_that_do_not_go_together_are_refused_with_a_remedy(case: str) -> None:
    settings, problem = (PLAN_CASES | CONNECTION_CASES)[case]
    with pytest.raises(ValueError, match=problem) as caught:
        (reranker if case in PLAN_CASES else connect)(**settings)  # type: ignore[operator]
    assert "sk-secret" not in str(caught.value)
    assert ": " in str(caught.value)


def test_every_rule_has_a_case() -> None:
    assert len(RULES) == len(PLAN_CASES)
    assert len(CONNECTION_RULES) == len(CONNECTION_CASES) - 3


@pytest.mark.parametrize(("wanted", "meant"), [("top_n", "k"), ("votse", "votes"), ("window_size", "size")])
def test_an_unknown_option_is_a_type_error_that_says_what_was_meant(wanted: str, meant: str) -> None:
    with pytest.raises(TypeError, match=rf"Reranker\(\): there is no option '{wanted}': did you mean '{meant}'\?"):
        reranker(**{wanted: 3})
    with pytest.raises(TypeError, match=r"connect\(\): there is no option 'basis_url': did you mean 'base_url'\?"):
        connect(model="m", basis_url="http://a/v1")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^Reranker\(\) takes only backend without a name \(got 5 as well\)"):
        Reranker(Scripted(first), 5)  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"^connect\(\) takes only backend and model without a name \(got 'http://a'"):
        connect("openai", "m", "http://a")  # type: ignore[misc]
    with pytest.raises(TypeError, match=r"there is no option 'zzz' \(all options: docs/options.md\)$"):
        reranker(zzz=1)


# The effective values


@pytest.mark.parametrize("model", [*CHECKPOINTS, "ielabgroup/Rank-R1-7B-v0.1-GGUF"])
def test_open_options_come_from_the_table_of_checkpoints_by_exact_name(model: str) -> None:
    names = ("format", "size", "reasoning_tokens", "force", "query_tokens", "passage_tokens", "fusion")
    plan, known = Settings().resolved(Scripted(first, model=model)), CHECKPOINTS.get(model)
    unknown = (FORMATS["rank-r1-v0.1"], 20, 1024, "truncated", None, None, None)
    expected = tuple(getattr(known, name) for name in names) if known else unknown
    assert tuple(getattr(plan, name) for name in names) == expected


def test_an_option_that_is_set_wins_and_the_rest_follows_the_format() -> None:
    embedded, sft = Scripted(first, model="SmolLM2-135M-Rank-R1"), "ielabgroup/Setwise-SFT-7B-v0.1"
    assert Settings(fusion="off").resolved(embedded).fusion is None
    assert Settings(fusion=7, size=3, passage_tokens=9).resolved(embedded).fusion == 7
    assert Settings(format="listwise-v1").resolved(embedded).algorithm == "window"
    assert Settings(format="rank-r1-v0.1").resolved(Scripted(first, model=sft)).reasoning_tokens == 1024


# Help


def test_every_option_has_a_help_and_a_default_that_can_be_read() -> None:
    for name, option in TABLE.items():
        assert option.help, name
        assert not option.help.endswith("."), name
        assert option.default_text not in ("", "None"), name


@pytest.mark.parametrize(
    ("owner", "table"),
    [
        (Reranker, options(Reranker)),
        (Connection, options(Connection)),
        (connect, options(Connection)),
        (Mine, options(Settings) | options(Connection) | Mine.model_fields),
    ],
)
def test_help_lists_every_option_with_its_effective_default(owner: Any, table: dict[str, Any]) -> None:
    text = inspect.getdoc(owner) or ""
    assert "None)" not in text
    for name, option in table.items():
        assert f"    {name}: {getattr(option, 'help', '')}" in text or (owner, name) == (Mine, "k"), name
    if "size" in table:
        assert "size: int | None = <the checkpoint's, else 20>" in str(inspect.signature(owner))


# The command line


def run(*arguments: str) -> CommandSettings:
    found: list[CommandSettings] = []

    def command(*, settings: CommandSettings) -> None:
        """Keep them."""
        found.append(settings)

    app = typer.Typer(rich_markup_mode=None)
    app.command()(with_settings(command, k=7))
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None:
        raise result.exception
    if result.exit_code or not found:
        raise UsageError(result.output)
    return found[0]


def test_the_command_line_has_every_option_with_its_default() -> None:
    settings = run()
    assert settings.k == settings.top == 7
    for name, option in (options(Settings) | options(Connection)).items():
        if name not in ("k", "options"):
            assert getattr(settings, name) == option.value, name
    with pytest.raises(UsageError) as help:
        run("--help")
    text = " ".join(str(help.value).split())
    for name in options(CommandSettings).keys() - {"api_key"}:
        assert f"--{name.removesuffix('s') if name == 'options' else name.replace('_', '-')} " in text, name
    assert "(default: 7)" in text
    assert "None" not in text
    assert "api-key " not in text


def test_the_command_line_makes_python_values() -> None:
    settings = run(
        *("--votes", "auto", "--fusion", "60", "--on-failure", "first_stage", "--backend", "openai", "--model", "m"),
        *("--base-url", "http://a/v1", "--base-url", "http://b/v1", "--option", "max-batch=2", "--option", "x=a=b"),
        *("--strict", "--server", "llama-server", "--temperature", "0.5", "--query", "api-version=2024-10-21"),
        *("--header", "api-key=$KEY", "--header", "a=b=c", "--extra-body", "seed=null", "--extra-body", 'x={"y": 1}'),
    )
    found = (settings.votes, settings.fusion, settings.on_failure, settings.backend, settings.server, settings.strict)
    assert found == ("auto", 60, "first_stage", "openai", "llama-server", True)
    assert settings.urls == ("http://a/v1", "http://b/v1")
    assert settings.options == {"max_batch": 2, "x": "a=b"}
    assert (settings.headers, settings.query) == ({"api-key": "$KEY", "a": "b=c"}, {"api-version": "2024-10-21"})
    assert settings.extra_body == {"seed": None, "x": {"y": 1}}
    assert not {"headers", "query"} & settings.fingerprint().keys()
    assert json.dumps(settings.fingerprint())
    newer = {"deadline": 2.0, "budget_tokens": 9, "step": 4, "passes": 2, "instruction": "Prefer primary sources."}
    assert not newer.keys() & settings.fingerprint().keys()  # so that a job begun before them can be resumed
    assert replace(settings, **newer).fingerprint().items() >= newer.items()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--votes", "true"], "^--votes 'true': a whole number in 1..100 or 'auto' is needed"),
        (["--votes", "0"], "^--votes 0: "),
        (["--format", "x"], "^--format 'x': one of 'rank-r1-v0.1'"),
        (["--server", "vllm"], "^--server 'vllm' needs a server: add --base-url without another --backend, or use"),
        (["--fusion", "true"], "^--fusion 'true': a number ≥ 0 or 'off' is needed"),
        (["--timeout", "nan"], "^--timeout nan: a number above 0 is needed"),
        (["--option", "nonsense"], "^--option: NAME=VALUE is needed"),
        (["--option", "=1"], "^--option: NAME=VALUE is needed"),
        (["--header", "api-key: secret"], "^--header: NAME=VALUE is needed, api-key=.AZURE_OPENAI_API_KEY for exa"),
        (["--query", "x"], "^--query: NAME=VALUE is needed"),
        (["--extra-body", "x"], "^--extra-body: NAME=VALUE is needed"),
        (["--backend", "vllm"], "^--backend 'vllm' needs --model: 'ielabgroup/"),
    ],
)
def test_a_wrong_option_of_the_command_line_is_a_usage_error(arguments: list[str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        run(*arguments)


# The page


def page(path: Path) -> str:
    """A page with its tables as they are to be: one a group of options, after the heading of the group."""
    written = path.read_text(encoding="utf-8")
    for owner, group in PAGES[path]:
        lines = ["| option | meaning | value | default |", "|---|---|---|---|"]
        for one in (one for one in options(owner).values() if one.group == group):
            value = "a name" if one.choices else "a function" if one.live else one.wanted
            lines.append(f"| `{one.name}` | {one.help} | {value} | {one.default_text} |")
        head, rest = re.split(rf"(?<=\n)(?=##+ {group}\n)", written)
        written = head + re.sub(r"(\|.*\n)+", lambda _, lines=lines: "\n".join([*lines, ""]), rest, count=1)
    return written


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_pages_of_options_are_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == page(path), "run python -m tests.test_settings"


def test_the_page_of_options_names_the_default_of_components() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert f"select {TOP_N}, because a language model reads the result" in written


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(page(path), encoding="utf-8")
