"""Every option of a reranker and of its connection to a model, declared once.

`Reranker`, `connect`, the command line, the framework components and docs/options.md are made from this table.
"""

from __future__ import annotations

import difflib
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import cache, wraps
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

from rankr1_rag.backends import Backend
from rankr1_rag.checkpoints import CHECKPOINTS, Checkpoint
from rankr1_rag.prompt import FORMATS, Format
from rankr1_rag.redaction import check_variable, excerpt_of, has_secret, remember_all
from rankr1_rag.selection import ALGORITHMS, LISTWISE, SCORES
from rankr1_rag.types import Clip, Force

Kind = Literal["openvino", "openai", "vllm", "transformers"]
Server = Literal["vllm", "sglang", "llama-server", "tgi"]
OnFailure = Literal["raise", "first_stage"]
Votes = int | Literal["auto"]
Fusion = float | Literal["off"] | None
Text = TypeVar("Text", bound=str)
Owner = TypeVar("Owner")

MODEL, PROMPT, SELECTION = "Model", "Prompt and answer", "Selection"
"""The groups of options, panels of `--help`."""

TOP_N = 5
"""Number of passages that a language model reads next: the default of components, `rankr1 demo` and `rankr1-eval qa`.

A `Reranker` alone selects 10, because the paper and most leaderboards measure nDCG@10.
"""

UNKNOWN = Checkpoint("", "", None, FORMATS["rank-r1-v0.1"], size=20, reasoning_tokens=1024)
"""The settings of a model that is not in the table of checkpoints."""


@dataclass(frozen=True)
class Option:
    """What a declaration says beyond name, type and default value.

    `help` is a noun phrase, `default` the effective default where the value is None. `live` is an object that only
    Python code can pass. `name`, `type` and `value` (the default) are filled in by `options`.
    """

    help: str
    group: str
    default: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False
    live: bool = False
    name: str = ""
    type: Any = None
    value: Any = None

    @property
    def default_text(self) -> str:
        """The effective default: never a bare None."""
        if isinstance(self.value, bool):
            return "on" if self.value else "off"
        shown = f"{self.value:g}" if isinstance(self.value, float) else str(self.value)
        return self.default if self.value in (None, ()) else shown

    @property
    def full_help(self) -> str:
        """The help with the default."""
        return f"{self.help} (default: {self.default_text})."

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types of a value, without None."""
        members = get_args(self.type) if get_origin(self.type) in (Union, UnionType) else (self.type,)
        return tuple(kind for kind in members if kind is not NoneType)

    def check(self, value: Any) -> None:  # noqa: ANN401
        """ValueError for a value of another type or out of bounds. A bool is no number, and a number no bool."""
        if value is None and (self.type is None or NoneType in get_args(self.type)):
            return
        within = not self.choices or value in self.choices if isinstance(value, str) else True
        if isinstance(value, (int, float)):
            within = (self.least is None or value >= self.least) and (self.most is None or value <= self.most)
            within = within and (self.above is None or value > self.above)
        if not within or not any(_fits(value, kind) for kind in self.kinds):
            got = self.name if self.secret else f"{self.name}={excerpt_of(value)}"
            raise ValueError(f"{got}: {self.wanted} is needed")
        if self.name == "api_key_env":
            check_variable(f"{self.name}=", value)

    @property
    def wanted(self) -> str:
        """The values that it takes, in words."""
        bounds = f" in {self.least}..{self.most}" if self.most is not None else ""
        bounds = bounds or (f" ≥ {self.least}" if self.least is not None else "")
        bounds = bounds or (f" above {self.above}" if self.above is not None else "")
        nouns: dict[Any, str] = {int: f"a whole number{bounds}", float: f"a number{bounds}", bool: "True or False"}
        nouns |= {str: "a text", os.PathLike: "a path", Sequence: "a list of texts", Mapping: "a mapping"}
        wanted = []
        for kind in self.kinds:
            words = get_args(kind) if get_origin(kind) is Literal else self.choices if kind is str else ()
            if len(words) > 1:
                wanted.append(f"one of {', '.join(map(repr, words))}")
            else:
                plain = get_origin(kind) or kind
                wanted.append(repr(words[0]) if words else nouns.get(plain) or f"a {plain.__name__}")
        return " or ".join(wanted)


def _fits(value: object, kind: Any) -> bool:  # noqa: ANN401
    origin = get_origin(kind) or kind
    if origin is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if isinstance(value, bool):
        return origin in (bool, Any)
    if origin is float:
        return isinstance(value, (int, float)) and -math.inf < value < math.inf
    if origin is Sequence:
        return isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            return False
        return all(isinstance(one, str) for one in (*value, *(value.values() if get_args(kind)[1] is str else ())))
    return origin is Any or isinstance(value, origin)


def declare(value: object, help: str, group: str, default: str = "", **more: Any) -> Any:  # noqa: ANN401
    """A field of a dataclass that is an option with this default value; `more` are attributes of `Option`."""
    further = {name: more.pop(name) for name in ("kw_only",) if name in more}
    option = Option(help, group, default, **more)
    return field(default=value, metadata={"option": option}, repr=not option.secret, **further)


@cache
def options(owner: Any) -> dict[str, Option]:  # noqa: ANN401
    """The options that a class declares, by name."""
    hints = get_type_hints(owner)
    return {
        one.name: replace(one.metadata["option"], name=one.name, type=hints[one.name], value=one.default)
        for one in fields(owner)
        if "option" in one.metadata
    }


def check_options(settings: Any) -> None:  # noqa: ANN401
    """ValueError for the first option of these settings whose value is wrong."""
    for name, option in options(settings.__class__).items():
        if not option.live:
            option.check(getattr(settings, name))


SYNONYMS = {
    **{"top_n": ("k", "top_k"), "top_k": ("k", "top_n"), "k": ("top_n", "top_k"), "kind": ("backend",)},
    **{name: ("size",) for name in ("batch_size", "choice_batch_size", "window_size", "set_size")},
    **{"stride": ("step",), "window_step": ("step",), "num_passes": ("passes",)},
    **{"think_tokens": ("reasoning_tokens",), "max_tokens": ("reasoning_tokens",), "url": ("base_url",)},
}
"""Names of options elsewhere, and in earlier versions."""


def no_such_option(name: str, known: Iterable[str], listed: str = "all options: docs/options.md") -> str:
    """The error text for an unknown option, with the one that was meant, or else where all are listed."""
    known = sorted(known)
    near = [one for one in SYNONYMS.get(name, ()) if one in known]
    near = near or difflib.get_close_matches(name, known, n=1, cutoff=0.65)
    return f"there is no option {name!r}" + (f": did you mean {near[0]!r}?" if near else f" ({listed})")


@dataclass(frozen=True)
class EffectiveDefault:
    """The default in a signature that `help` prints; the value itself may be None."""

    text: str

    def __repr__(self) -> str:
        return f"<{self.text}>"


def readable(signature: inspect.Signature, table: Mapping[str, Option]) -> inspect.Signature:
    """The signature with the plain type and the effective default of each option, for `help`."""
    parameters = []
    for one in signature.parameters.values():
        if (option := table.get(one.name)) is not None:
            default = EffectiveDefault(option.default) if option.value is None else option.value
            one = one.replace(annotation=option.type, default=default)
        elif one.default is None:
            one = one.replace(default=EffectiveDefault("none"))
        parameters.append(one)
    return signature.replace(parameters=parameters)


def with_options(owner: type[Owner]) -> type[Owner]:
    """A dataclass whose docstring lists its options and whose constructor says what an unknown option may mean."""
    declared: Any = owner
    lines = [f"    {name}: {option.full_help}" for name, option in options(declared).items()]
    declared.__doc__ = "\n".join([inspect.cleandoc(owner.__doc__ or ""), "", "Options:", *lines])
    construct, known = declared.__init__, [one.name for one in fields(declared)]
    placed = [one.name for one in fields(declared) if not one.kw_only]
    example = next(one.name for one in fields(declared) if one.kw_only)
    called = {"Connection": "connect"}.get(declared.__name__, declared.__name__)

    @wraps(construct)
    def __init__(self: object, *args: Any, **arguments: Any) -> None:  # noqa: ANN401
        for name in arguments:
            if name not in known:
                raise TypeError(f"{called}(): {no_such_option(name, known)}")
        if len(args) > len(placed):
            only = f"{called}() takes only {' and '.join(placed)} without a name"
            problem = f"{only} (got {excerpt_of(args[len(placed)], 80)} as well)"
            raise TypeError(f"{problem}: write the name of the option, {example}= for example")
        args = tuple(None if isinstance(one, EffectiveDefault) else one for one in args)  # from the signature
        arguments = {name: None if isinstance(one, EffectiveDefault) else one for name, one in arguments.items()}
        construct(self, *args, **arguments)

    __init__.__signature__ = readable(inspect.signature(construct), options(declared))  # type: ignore[attr-defined]
    declared.__init__ = __init__
    return owner


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """How a model is asked and how its answers become a ranking. A None is filled in by `resolved`."""

    k: int | None = declare(
        10, "Number of passages to select; the others follow in first-stage order", SELECTION, least=1
    )
    size: int | None = declare(
        None,
        "Set size: passages in one prompt, 2 to 20, or 1 for a model that scores single passages",
        SELECTION,
        "the checkpoint's, else 20",
        least=1,
        most=20,
    )
    algorithm: str | None = declare(
        None,
        f"Selection algorithm: {', '.join(ALGORITHMS)}, or scores (one round, for a scored format)",
        SELECTION,
        "window for a listwise format, scores for a scored one, else tournament",
        choices=(*ALGORITHMS, SCORES),
    )
    step: int | None = declare(
        None,
        "Distance of consecutive windows of a listwise format, below the set size; often 10",
        SELECTION,
        "the checkpoint's, else half a set, or more for a small k",
        least=1,
        most=19,
    )
    passes: int | None = declare(
        None,
        "Passes of windows, each over all candidates, for a listwise format",
        SELECTION,
        "as many as k needs",
        least=1,
        most=100,
    )
    votes: Votes = declare(
        1,
        "Votes per set, or scores per passage, each with a new passage order; auto: votes if confidence is low",
        SELECTION,
        least=1,
        most=100,
    )
    probabilities: bool = declare(
        False, "Request the probability of every label and compute the scores from it", SELECTION
    )
    strict_format: bool = declare(
        False, "Answers in the form of the format only; else one clear label in another form counts too", SELECTION
    )
    hops: int = declare(
        1, "Number of hops; after the first, the model sees the passages selected before", SELECTION, least=1
    )
    distances: bool = declare(
        False, "First-stage scores, where there are some, are distances: the least is the best", SELECTION
    )
    deadline: float | None = declare(
        None,
        "Seconds from the start of a query to its ranking, which is the best order so far if they are too few",
        SELECTION,
        "no limit",
        above=0,
    )
    budget_tokens: int | None = declare(
        None,
        "Tokens of a query, of prompts and completions; after them its ranking is the best order so far",
        SELECTION,
        "no limit",
        least=1,
    )
    seed: int = declare(0, "Random seed of passage orders and samples", SELECTION, least=0)
    fusion: Fusion = declare(
        None,
        "Constant of the reciprocal-rank fusion with the first-stage order, often 60; off: no fusion",
        SELECTION,
        "the checkpoint's, else off",
        least=0,
    )
    ordered: bool = declare(
        True, "Candidates are in first-stage order; off: any order, with which nothing is fused", SELECTION
    )
    in_flight: int | None = declare(
        None, "Maximum number of open queries", SELECTION, "what the backend computes at once, else 64", least=1
    )
    format: Format | str | None = declare(
        None,
        f"Prompt format: {', '.join(FORMATS)}",
        PROMPT,
        f"the checkpoint's, else {UNKNOWN.format.name}",
        choices=tuple(FORMATS),
    )
    instruction: str | None = declare(
        None, "What is wanted beyond the query, such as: prefer primary sources", PROMPT, "none"
    )
    reasoning_tokens: int | None = declare(
        None,
        "Maximum reasoning length in tokens, after which the answer is forced",
        PROMPT,
        f"the checkpoint's, else {UNKNOWN.reasoning_tokens}",
        least=0,
    )
    force: Force | None = declare(
        None,
        "Answer forcing: after truncated text, after all text without a valid answer (unparsed), or never",
        PROMPT,
        f"the checkpoint's, else {UNKNOWN.force}",
    )
    temperature: float = declare(0.0, "Sampling temperature; 0 is greedy", PROMPT, least=0)
    query_tokens: int | None = declare(
        None, "Maximum query length in tokens", PROMPT, "the checkpoint's, else no limit", least=1
    )
    passage_tokens: int | None = declare(
        None, "Maximum passage length in tokens", PROMPT, "the checkpoint's, else no limit", least=1
    )
    clip: Clip | None = declare(
        None,
        "Part shown of a passage that does not fit: the window that shares most with the query, or the head",
        PROMPT,
        "the checkpoint's, else window",
    )
    strict: bool = declare(False, "Error (UnparsedError) if an answer names no passage", PROMPT)
    on_failure: OnFailure = declare(
        "raise", "If the model fails: raise the error, or keep the first-stage order", PROMPT
    )

    def __post_init__(self) -> None:
        check_options(self)

    def resolved(self, backend: Backend) -> Plan:
        """The plan for this backend: a None is filled in from the table of checkpoints. ValueError by `RULES`."""
        known = CHECKPOINTS.get(backend.model, UNKNOWN)
        decided: dict[str, Any] = {"backend": backend}
        for name in (one.name for one in fields(Plan) if one.name != "backend"):
            value = getattr(self, name)
            decided[name] = getattr(known, name, None) if value is None else value
        format = decided["format"]
        decided["format"] = format = FORMATS[format] if isinstance(format, str) else format
        decided["algorithm"] = self.algorithm or {"listwise": "window", "scored": SCORES}.get(format.kind, "tournament")
        if self.size is None:
            wanted = decided["size"] if decided["size"] > 1 else UNKNOWN.size
            decided["size"] = min(wanted, format.max_passages)
        if self.step is None and known.step is not None:  # of the checkpoint's windows, or the same part of others
            part = max(1, known.step * decided["size"] // known.size)
            decided["step"] = part if decided["algorithm"] in LISTWISE else None
        if self.reasoning_tokens is None and format.reasoning and not known.format.reasoning:
            decided["reasoning_tokens"] = UNKNOWN.reasoning_tokens
        decided["in_flight"] = self.in_flight or getattr(backend, "capacity", None) or 64
        if decided["fusion"] == "off":
            decided["fusion"] = None
        plan = Plan(**decided)
        check_rules(plan, RULES)
        return plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The options of a `Reranker` with nothing left open. `fusion` None is no fusion, a limit None no limit."""

    backend: Backend
    in_flight: int
    format: Format
    algorithm: str
    size: int
    step: int | None
    passes: int | None
    reasoning_tokens: int
    force: Force
    query_tokens: int | None
    passage_tokens: int | None
    clip: Clip
    votes: Votes
    seed: int
    probabilities: bool
    hops: int
    fusion: float | None
    temperature: float
    strict_format: bool
    strict: bool


Rule = tuple[Callable[[Any], object], str]
"""When options do not go together, and the error; its fields are attributes of the value that is checked."""

RULES: tuple[Rule, ...] = (
    (
        lambda plan: plan.format.reasoning and plan.force == "never" and not plan.reasoning_tokens,
        "reasoning_tokens=0 with force='never' leaves nothing to ask: allow reasoning, or force the answer",
    ),
    (
        lambda plan: plan.algorithm in LISTWISE and plan.format.kind != "listwise",
        "algorithm={0.algorithm!r} needs a listwise format (got format={0.format.name!r}): use 'listwise-v1'",
    ),
    (
        lambda plan: (plan.step is not None or plan.passes is not None) and plan.algorithm not in LISTWISE,
        "step= and passes= need algorithm='window' (got algorithm={0.algorithm!r}): use a listwise format",
    ),
    (
        lambda plan: plan.step is not None and plan.step >= plan.size,
        "step={0.step} leaves no overlap of sets of {0.size}: use a smaller step, half the set size for example",
    ),
    (
        lambda plan: plan.algorithm == SCORES and plan.format.kind != "scored",
        "algorithm={0.algorithm!r} needs a scored format (got format={0.format.name!r}): use 'grouprank' for example",
    ),
    (
        lambda plan: plan.algorithm != SCORES and plan.format.kind == "scored",
        "format={0.format.name!r} gives scores (got algorithm={0.algorithm!r}): use algorithm='scores', its default",
    ),
    (
        lambda plan: plan.format.choices and plan.format.reasoning and plan.force == "never",
        "format={0.format.name!r} asks for its score after the reasoning, which force='never' forbids: use "
        "force='truncated'",
    ),
    (
        lambda plan: (
            plan.size == 1
            and plan.votes not in (1, "auto")
            and (
                not plan.temperature or (plan.format.choices and not (plan.format.reasoning and plan.reasoning_tokens))
            )
        ),
        "votes={0.votes} would ask about each passage in the same words (got size=1, temperature={0.temperature:g}): "
        "use votes=1, or a temperature with a format that reasons",
    ),
    (
        lambda plan: plan.size > plan.format.max_passages,
        "format={0.format.name!r} shows {0.format.max_passages} passage(s) in a prompt (got size={0.size}): use a "
        "smaller size",
    ),
    (
        lambda plan: plan.size == 1 and plan.algorithm != SCORES,
        "algorithm={0.algorithm!r} needs sets of 2 or more (got size=1): use algorithm='scores' or a larger size",
    ),
    (
        lambda plan: (plan.format.choices or plan.format.prefill or plan.format.raw) and not plan.backend.can_continue,
        "format={0.format.name!r} needs a backend that continues a begun answer (got model={0.backend.model!r}): use "
        "server= if it is a server, or vllm or transformers",
    ),
    *(
        (
            lambda plan, wanted=wanted: (
                wanted(plan) and not (plan.format.kind == "setwise" and plan.backend.can_continue)
            ),
            f"{option} needs a setwise format and a backend that continues a begun answer (got format="
            "{0.format.name!r}, model={0.backend.model!r}): use such a format, and server= if it is a server",
        )
        for option, wanted in (
            ("votes='auto'", lambda plan: plan.votes == "auto"),
            ("probabilities=True", lambda plan: plan.probabilities),
        )
    ),
)


def check_rules(value: object, rules: Iterable[Rule]) -> None:
    """ValueError for the first rule that is broken."""
    for broken, problem in rules:
        if broken(value):
            raise ValueError(problem.format(value))


@with_options
@dataclass(frozen=True, eq=False)
class Connection:
    """Which model is asked, and how it is reached. ValueError for options that do not go together."""

    backend: Kind | None = declare(
        None,
        "Model runtime: openvino (this machine's CPU), vllm or transformers (its GPUs), openai (a server)",
        MODEL,
        "openai with a base_url, else openvino",
    )
    model: str | os.PathLike[str] | None = declare(
        None,
        "Model: a GGUF file or OpenVINO folder (openvino), a name on the Hub or a folder (vllm, transformers), or "
        "its name on the server (openai)",
        MODEL,
        "the embedded model",
    )
    _: KW_ONLY
    adapter: str | os.PathLike[str] | None = declare(
        None, "LoRA adapter of the model: a folder; for vllm and transformers also a name on the Hub", MODEL, "none"
    )
    base_url: str | Sequence[str] | None = declare(
        None,
        "Server address ending in /v1; several servers share the load",
        MODEL,
        "OPENAI_BASE_URL, else api.openai.com, for openai",
    )
    server: Server | None = declare(
        None, "Server software; decides how label constraints are sent", MODEL, "other, without constraints"
    )
    api_key: str | None = declare(
        None,
        "API key of the server; never printed, pickled or serialised",
        MODEL,
        "the variable api_key_env",
        secret=True,
    )
    api_key_env: str | None = declare(
        None,
        "Environment variable that holds the API key",
        MODEL,
        "OPENAI_API_KEY for api.openai.com, else RANKR1_API_KEY",
    )
    headers: Mapping[str, str] | None = declare(
        None,
        'HTTP headers of a server; a value "$NAME" is read from that environment variable, any other is kept secret',
        MODEL,
        "none",
        secret=True,
    )
    query: Mapping[str, str] | None = declare(
        None, 'Query parameters of a server, api-version for example; "$NAME" as in headers', MODEL, "none", secret=True
    )
    extra_body: Mapping[str, Any] | None = declare(
        None,
        'Fields added to each request body of a server; null leaves a field out; "$NAME" in secret fields as in '
        "headers",
        MODEL,
        "none",
        secret=True,
    )
    context: int | None = declare(
        None, "Context length in tokens, prompt and completion together", MODEL, "the model's, if known", least=1
    )
    timeout: float = declare(600.0, "Time limit of one completion of a server, in seconds", MODEL, above=0)
    attempts: int = declare(6, "Number of attempts at a request to a server or GPU", MODEL, least=1)
    requests: int | None = declare(None, "Maximum number of simultaneous requests", MODEL, "no limit", least=1)
    options: Mapping[str, Any] | None = declare(
        None, "Further arguments of the backend's class, tensor_parallel=2 for example", MODEL, "none", secret=True
    )
    store: str | os.PathLike[str] | None = declare(
        None, "SQLite file that keeps completions; those in it are not requested again", MODEL, "none"
    )

    def __post_init__(self) -> None:
        remember_all({name: getattr(self, name) for name in ("api_key", "headers", "query", "extra_body", "options")})
        check_options(self)
        check_rules(self, CONNECTION_RULES)

    def __getstate__(self) -> dict[str, Any]:
        """TypeError with a key, which must not be in a pickle."""
        check_no_secret(self, "a Connection")
        return vars(self)

    @property
    def kind(self) -> Kind:
        """The runtime that is meant."""
        return self.backend or ("openvino" if self.base_url is None else "openai")

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses of all servers; empty for the default."""
        urls = self.base_url
        return () if urls is None else (urls,) if isinstance(urls, str) else (*urls,)

    @property
    def access(self) -> str:
        """The first option in use that needs a server; without the value if that may be a key."""
        names = ("base_url", "server", "api_key", "api_key_env", "headers", "query", "extra_body")
        used = next((name for name in names if getattr(self, name) is not None), "")
        return f"{used}={self.server!r}" if used == "server" else used

    @property
    def exposed(self) -> str:
        """The part of an address that shows a secret, the name of a parameter for example."""
        split = [re.split("[?#]", url, maxsplit=1) for url in self.urls]
        query = [pair for _, *rest in split for pair in parse_qsl("&".join(rest).replace("#", "&"))]
        names = [name for name, one in [*query, *(self.query or {}).items()] if has_secret({name: one})]
        return "user name or password" if any("@" in one[0] for one in split) else ", ".join(names[:1])

    @property
    def twice(self) -> str:
        """The further arguments that are options already."""
        return ", ".join(sorted((self.options or {}).keys() & options(Connection).keys()))


CONNECTION_RULES: tuple[Rule, ...] = (
    (
        lambda one: one.kind != "openai" and one.access,
        "{0.access} needs a server: add base_url= without another backend=, or use backend='openai'",
    ),
    (
        lambda one: one.kind == "openai" and one.adapter is not None,
        "adapter={0.adapter!r} with a server: use the name under which the server loaded the adapter as model=",
    ),
    (
        lambda one: one.kind == "openai" and one.model is None,
        "backend='openai' needs model=: the name of the model on the server",
    ),
    (
        lambda one: one.kind in ("vllm", "transformers") and one.model is None,
        "backend={0.kind!r} needs model=: 'ielabgroup/Rank-R1-7B-v0.1' for example, or a folder",
    ),
    (
        lambda one: one.base_url is not None and not (one.urls and all(one.urls)),
        "base_url= lists no address, or an empty one: use http://localhost:8000/v1 for example",
    ),
    (lambda one: one.twice, "options= repeats {0.twice}: use the option of this name instead"),
    (
        lambda one: one.exposed,
        'an address shows the value of a secret ({0.exposed}): use api_key_env=, or "$NAME", a variable of the '
        "environment, as a value in query=",
    ),
)


def check_no_secret(one: Any, what: str) -> None:  # noqa: ANN401
    """TypeError for a connection or component that holds a secret itself, not the name of its environment variable."""
    if one.api_key is not None:
        raise TypeError(f"{what} with api_key= is not pickled, as the key would be: use api_key_env=")
    for name in ("headers", "extra_body", "options"):
        value = getattr(one, name)
        if has_secret({name: value}):
            remedy = f'{name}={{"NAME": "$VARIABLE"}}' if name != "options" else "a variable of the environment"
            raise TypeError(f"{what} with {name}= is not pickled, as its secret would be: use {remedy}")


def check_within(name: str, value: int, least: int, most: int | None = None) -> int:
    """The value, if it is a whole number in least..most; else a ValueError."""
    Option("", "", least=least, most=most, name=name, type=int).check(value)
    return value


def one_of(name: str, value: Text, values: tuple[Text, ...]) -> Text:
    """The value, if it is one of these; else a ValueError that lists them."""
    Option("", "", choices=values, name=name, type=str).check(value)
    return value
