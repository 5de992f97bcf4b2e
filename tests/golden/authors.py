"""Prompts and answers of other authors' rerankers, made by their own code: `python -m tests.golden.authors CHECKOUTS`.

CHECKOUTS is a folder with a checkout of each repository of SOURCES, by its name. Nothing of theirs is part of this
project; large libraries that their modules import are replaced by empty ones.
Each prompt is recorded as the text that the model reads, with a chat template like that of Qwen.
"""

import importlib
import importlib.abc
import importlib.machinery
import json
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "authors"
SOURCES = {
    "reasonrank": ("ReasonRank", "06721fd6ef3766c0e00d59a87d2696a0b4b0c17a"),
    "rearank": ("Rearank", "abb4bd024b1ec65567f2a86195a62c3573d90d54"),
    "rank-k": ("rank-k", "ecdf232f239e2d7baa1671aab123abc9c484b7f3"),
    "rank-zephyr": ("rank_llm", "1b3cabbc3564441bdcda6c6a2e92137b9faa0660"),
    "grouprank": ("Diver", "95b111b0adad85bf388e628b9073552055f6f408"),
    "qwen3-reranker": ("Qwen3-Embedding", "f4ad0c434c0e3534494e26a4a6bdfd8ab1431968"),
    "rank1": ("rank1", "30585c2f3166b3df03e3b8f2d496d6dc5db68a9b"),
    "mxbai-rerank-v2": ("mxbai-rerank", "8e709dca09e0fdba6bc7f6d4983940fdd1b783c5"),
}

# Texts without control tokens, and without a label at the beginning of a line: those are neutralised.
TEXTS = [
    ("", "Fleas live on cats."),
    ("On cats", "Cats [3] carry fleas, see [12] and [x]."),
    ("", "{query} and {docs} and {num} {0} {} {{n}} %s"),
    ("Two lines", "First line.\nSecond line: [3] again.\n\nThird line.\r\nFourth."),
    ("", "  spaces   inside\tand around  "),
    (
        "\u201cCurly\u201d title",
        "It\u2019s a \ufb02uffy \ufb01ne text\u2026 caf\u00e9, cafe\u0301, na\u00efve \u2014 \u20ac5",
    ),
    ("", "\uff26\uff55\uff4c\uff4c width \uff3b3\uff3d, \u3000ideographic space, \u4e2d\u6587 \u65e5\u672c\u8a9e"),
    ("", "Tom &amp; Jerry &eacute; &#233; &#x20ac; &nosuch; &amp"),
    ("HTML", "Before &amp; the tag\n<b>bold</b> &amp; after\nand &amp; later"),
    ("", "Emoji \U0001f408 and \u200bzero width, soft\u00adhyphen, \x07bell, \x1b[31mred\x1b[0m"),
    ("", "It\x92s from Windows\x85 and a line\u2028separator"),
    ("Title: Content: ", "Title: Content: twice"),
    ("Long", "word [7] " * 400),
    ("", "letters" * 500),
    (
        "Fran\u00c3\u00a7ois \u00e2\u20ac\u0153quoted\u00e2\u20ac\u009d",
        "It\u00e2\u20ac\u2122s mojibake: caf\u00c3\u00a9 [3]",
    ),
    ("", "\u0915\u094d\u0937 \u0639\u0631\u0628\u064a \u05e2\u05d1\u05e8\u05d9\u05ea"),
    ("A title?", "Does it end?"),
    ("", "$1.50 \\n \\\\ \"quoted\" 'single' `tick`"),
    ("Braces {title}", 'JSON {"[1]": 5} in a text'),
    ("Last", "The twentieth."),
]
QUERIES = [
    "which moth?",
    "  what does [3] say, {query} \u201cquoted\u201d &amp; caf\u00e9, don\u00e2\u20ac\u2122t?  ",
    "two\nlines {docs}",
]
CASES = [(QUERIES[0], TEXTS[:1]), (QUERIES[1], TEXTS[1:3]), (QUERIES[2], TEXTS[3:8]), (QUERIES[1], TEXTS)]
"""A query and its passages, each a title and a text."""

SINGLE = [(query, [passage]) for query in QUERIES for passage in TEXTS]
INSTRUCTION = "Prefer primary sources; a date helps.\nNo {query} or {docs}."

ORDERS = [
    "[2] > [1] > [3]",
    "[3] > [2]",
    "[2] > [2] > [1]",
    "[9] > [3] > [99] > [1]",
    "[2]>[3]>[1]",
    "2 > 3 > 1",
    "2, 3, 1",
    "[3] > [1] = [2]",
    "[3] = [2] > [1]",
    "[02] > [3]",
    "passages 3 and 1",
    "none of them",
    "",
    "[2] > [3] > [1]\n",
    "I think so:\n[3] > [2] > [1]",
    "[3] > [2] > [1]\nbecause 1 is worse",
    "**[3] > [2] > [1]**",
    "[3] > two > [1]",
    "[5] > [4] > [5] > [3]",
    "[99] > [3] > [99] > [2]",
    "[ 3 ] > [2] ]",
]
WRAPPED = [
    "{}",
    "<think>passage 2 says 4 things</think>\n<answer>{}</answer>",
    "<think>one\n2</think><answer>\n{}\n</answer>",
    "<think>so</think>\n\n{}",
    "<THINK>2</THINK> <ANSWER>{}</ANSWER>",
    "reasons 4 and 2</think> <answer>{}</answer>",
    "<answer>{}</answer> and 4",
    "<answer>{}</answer> <answer>[1] > [2]</answer>",
    "<think>x <answer>[1]</answer> y</think> <answer>{}</answer>",
    "<think>a</think> b <answer>{}</answer>",
    "<think>a</think><answer>{}",
]
ANSWERS = [(5, outer.replace("{}", order)) for outer in WRAPPED for order in ORDERS]
ANSWERS += [(20, " > ".join(f"[{label}]" for label in range(20, 0, -1))), (1, "[1]"), (3, "\uff13 > \u2460 > \u00b2")]

SCORES = [
    '{"[1]": 5, "[2]": 3, "[3]": 8}',
    '{"[1]": 5, "[3]": 8}',
    '{"1": 10, "2": 1, "3": 7}',
    '{"[1]]": 5, "[2]": 3, "[3]": 8}',
    '{"[1]": 5, "[2]": 3, "[3]": 8',
    '{"[1]": 5.5,\n "[2]": 3,\n  "[3]": 8.0}',
    '{"[2]": 3, "[2]": 9, "[1]": 1}',
]
GRADED = [
    "<reason>\n[1] is fine\n</reason>\n<answer>\n```json\n{}\n```\n</answer>",
    "<reason>{[2]: 7}</reason><answer>{}</answer>",
    "```json\n{}\n```",
    "so: {}",
    '<answer>```json\n{"[1]": 1}\n```\n```json\n{}\n```</answer>',
]
GRADES = [(3, outer.replace("{}", scores)) for outer in GRADED for scores in SCORES]

CUT = ["It is about fleas. So the pas", "Yes", "Really? Yes!  ", "a.b", " 1.5 is a number", "First.\nSecond\n"]
"""Reasoning that was cut off."""


def template(messages: Iterable[Any], tokenize: bool = False, add_generation_prompt: bool = True, **_: Any) -> str:
    """A chat template like that of Qwen; a last turn of the assistant is its beginning, a raw turn is the prompt."""
    turns = [(one["role"], one["content"]) for one in messages]
    begun = turns.pop()[1] if len(turns) > 1 and turns[-1][0] == "assistant" else ""
    if turns[0][0] == "raw":
        return turns[0][1] + begun
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    return f"{text}<|im_start|>assistant\n{begun}"


# The authors' code


class AnyType(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything


class Anything(metaclass=AnyType):
    """In place of what a missing library would have: a base class, a decorator, a model."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __call__(self, *arguments: Any, **_: Any) -> Any:
        return arguments[0] if len(arguments) == 1 and callable(arguments[0]) else Anything()

    def __iter__(self) -> Any:
        return iter(())

    def __index__(self) -> int:
        return 1


REPLACED = ("torch", "transformers", "vllm", "openai", "datasets", "sentence_transformers", "mteb", "pandas", "numpy")
REPLACED += ("toml", "dacite", "pyserini", "faiss", "pytrec_eval", "ir_datasets", "batched", "flash_attn", "tqdm")
"""Libraries that the authors' modules import, and do not need for prompts and answers."""


class Replaced(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty module for each of them."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        is_one = name.partition(".")[0] in REPLACED
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_one else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        module.__getattr__ = lambda name: getattr(Anything, name)  # type: ignore[method-assign]
        module.tqdm = lambda one, **_: one  # type: ignore[attr-defined]
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


def load(folder: Path, name: str) -> Any:
    """A module of a checkout; its modules and the empty ones are forgotten, as others have the same names."""
    before, finder = set(sys.modules), Replaced()
    sys.meta_path.insert(0, finder)
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
        sys.meta_path.remove(finder)
        for added in set(sys.modules) - before:
            if added.partition(".")[0] in REPLACED or str(folder) in str(getattr(sys.modules[added], "__file__", "")):
                del sys.modules[added]


class Tokenizer:
    """Characters for tokens."""

    apply_chat_template = staticmethod(template)

    def __call__(self, text: str, **_: Any) -> dict[str, list[str]]:
        return {"input_ids": list(text)}

    def tokenize(self, text: str) -> list[str]:
        return list(text)

    def encode(self, text: str, **_: Any) -> list[str]:
        return list(text)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)

    def prepare_for_model(self, first: list[str], second: list[str], **_: Any) -> dict[str, list[str]]:
        return {"input_ids": first + second}

    def pad(self, inputs: list[dict[str, list[str]]], **_: Any) -> dict[str, list[list[str]]]:
        return {"input_ids": [one["input_ids"] for one in inputs]}


def new(kind: Any, **attributes: Any) -> Any:
    made = kind.__new__(kind)
    vars(made).update(attributes)
    return made


def reasonrank(folder: Path) -> dict[str, Any]:
    module = load(folder, "rerank.rank_listwise_os_llm")
    mode = "rank_GPT_reasoning"
    ranker = new(
        type("Ranker", (module.RankListwiseOSLLM,), {"__abstractmethods__": frozenset()}),
        args=SimpleNamespace(prompt_mode=mode),
        prompt_mode=mode,
        prompt_info=tomllib.loads((folder / "listwise_prompt_r1.toml").read_text()),
        _tokenizer=Tokenizer(),
        max_passage_length=100_000,
    )

    def result(query: str, passages: list[tuple[str, str]]) -> Any:
        docs = [SimpleNamespace(docid=n, score=0, doc={"title": a, "text": b}) for n, (a, b) in enumerate(passages)]
        return SimpleNamespace(query=SimpleNamespace(text=query, qid="q"), candidates=docs)

    def order(n: int, text: str) -> list[int]:
        found = ranker.receive_permutation(result("q", [("", "x")] * n), text, 0, n)
        return [one.docid for one in found.candidates]

    prompts = [ranker.create_prompt(result(query, texts), 0, len(texts))[0] for query, texts in CASES]
    return {"prompts": prompts, "orders": [order(n, text) for n, text in ANSWERS]}


def rearank(folder: Path) -> dict[str, Any]:
    module = load(folder, "rank_gpt")

    def item(query: str, passages: list[tuple[str, str]]) -> Any:
        docs = [{"title": title, "text": text} if title else {"contents": text} for title, text in passages]
        hits = [SimpleNamespace(docid=n, score=0) for n in range(len(docs))]
        document = lambda n: SimpleNamespace(raw=lambda: json.dumps(docs[n]))  # noqa: E731
        return module.run_retriever(query, SimpleNamespace(search=lambda *_, **__: hits, doc=document))

    def order(n: int, text: str) -> list[int]:
        return [hit["docid"] for hit in module.receive_permutation(item("q", [("", "x")] * n), text, 0, n)["hits"]]

    asked = module.create_permutation_instruction_rearank
    prompts = [template(asked(item(query, texts), 0, len(texts))) for query, texts in CASES]
    return {"prompts": prompts, "orders": [order(n, text) for n, text in ANSWERS]}


def rank_k(folder: Path) -> dict[str, Any]:
    module, asked, answer = load(folder, "rerank"), [], ""

    def create(messages: Any, **_: Any) -> Any:
        asked.append(template(messages))
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=answer))])

    client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))
    args, orders = SimpleNamespace(model="m", temperature=0, max_tokens=1), []
    for query, texts in CASES:
        docs = [f"{title} {text}" if title else text for title, text in texts]
        module.rerank(query, list(range(len(docs))), docs, client, args)
    prompts = list(asked)
    for n, text in ANSWERS:
        answer = text
        orders.append(module.rerank("q", list(range(n)), ["x"] * n, client, args))
    return {"prompts": prompts, "orders": orders}


def rank_zephyr(folder: Path) -> dict[str, Any]:
    module = load(folder / "src", "rank_llm.rerank.listwise.rank_listwise_os_llm")
    handler = load(folder / "src", "rank_llm.rerank.listwise.singleturn_listwise_inference_handler")
    texts = (folder / "src/rank_llm/rerank/prompt_templates/rank_zephyr_template.yaml").read_text()
    ranker = new(
        type("Ranker", (module.RankListwiseOSLLM,), {"__abstractmethods__": frozenset()}),
        _inference_handler=handler.SingleTurnListwiseInferenceHandler(yaml.safe_load(texts)),
        _max_passage_words=300,
        _use_alpha=False,
        _num_few_shot_examples=0,
        _examples=[],
        _base_url=None,
        _is_thinking=False,
        _context_size=10**9,
        _window_size=20,
        _output_token_estimate=None,
        _tokenizer=Tokenizer(),
    )

    def result(query: str, passages: list[tuple[str, str]]) -> Any:
        docs = [SimpleNamespace(docid=n, score=0.0, doc={"title": a, "text": b}) for n, (a, b) in enumerate(passages)]
        return SimpleNamespace(query=SimpleNamespace(text=query, qid="q"), candidates=docs)

    def order(n: int, text: str) -> list[int]:
        found = ranker.receive_permutation(result("q", [("", "x")] * n), text, 0, n)
        return [one.docid for one in found.candidates]

    prompts = [ranker.create_prompt(result(query, texts), 0, len(texts))[0] for query, texts in CASES]
    return {"prompts": prompts, "orders": [order(n, text) for n, text in ANSWERS]}


def grouprank(folder: Path) -> dict[str, Any]:
    module = load(folder, "Reranker.rerank_groupwise")
    module.random = SimpleNamespace(shuffle=lambda _: None)
    ranker = module.GroupReranker("")
    ranker.tokenizer = Tokenizer()

    def asked(query: str, passages: list[tuple[str, str]]) -> str:
        docs = [{"id": n, "text": f"{a} {b}" if a else b} for n, (a, b) in enumerate(passages)]
        [prompt], _ = ranker.prepare_groups_one_epoch([{"qid": 0, "query": query}], {0: docs}, 20, 20, 20)
        return prompt

    def scores(n: int, text: str) -> list[float | None]:
        output = SimpleNamespace(outputs=[SimpleNamespace(text=text)])
        ranker.llm = SimpleNamespace(generate=lambda *_, **__: [output])
        docs = [{"id": place, "text": "x"} for place in range(n)]
        found = ranker.rerank_by_group([{"qid": 0, "query": "q"}], {0: docs}, n, num_epoch=1)[0]
        return [found.get(place) for place in range(n)]

    prompts = [asked(query, texts) for query, texts in CASES]
    return {"prompts": prompts, "scores": [scores(n, text) for n, text in GRADES]}


def qwen3_reranker(folder: Path) -> dict[str, Any]:
    ranker = load(folder, "examples.qwen3_reranker_transformers").Qwen3Reranker("")
    [task] = set(re.findall(r"^task = '(.*)'$", (folder / "README.md").read_text(), re.MULTILINE))
    docs = [(query, f"{title} {text}" if title else text) for query, [(title, text)] in SINGLE]
    prompts, instructed = (
        [ranker.prefix + ranker.format_instruction(wish, *pair) + ranker.suffix for pair in docs]
        for wish in (task, INSTRUCTION)
    )
    return {"prompts": prompts, "instructed": instructed[:4]}


def rank1(folder: Path) -> dict[str, Any]:
    module, asked = load(folder, "rank1"), []
    ranker = new(module.rank1, dataset_prompt=None, force_rethink=0, true_token=1, false_token=0)
    ranker._process_with_vllm = lambda prompts: asked.extend(prompts) or ([], [], [])
    for query, [(title, text)] in SINGLE:
        ranker.predict([(query, {"title": title, "text": text} if title else {"text": text})])
    forced: list[str] = []
    ranker.model = SimpleNamespace(generate=lambda prompts, _: forced.extend(prompts) or [])
    ranker._fix_incomplete_responses(["<think>"] * len(CUT), CUT)
    return {"prompts": asked, "forced": forced}


def mxbai_rerank_v2(folder: Path) -> dict[str, Any]:
    kind = load(folder, "mxbai_rerank.mxbai_rerank_v2").MxbaiRerankV2
    ranker = new(kind, tokenizer=Tokenizer(), max_length=10**6, model_max_length=10**7)
    kind.tokenizer, kind.device = Tokenizer(), "cpu"
    ranker.prepare_predefined_inputs()
    docs = [(query, f"{title} {text}" if title else text) for query, [(title, text)] in SINGLE]
    prompts, instructed = (
        ["".join(one) for one in ranker.prepare_inputs(*map(list, zip(*docs, strict=True)), **given)["input_ids"]]
        for given in ({}, {"instruction": INSTRUCTION})
    )
    return {"prompts": prompts, "instructed": instructed[:4]}


AUTHORS = {
    "reasonrank": reasonrank,
    "rearank": rearank,
    "rank-k": rank_k,
    "rank-zephyr": rank_zephyr,
    "grouprank": grouprank,
    "qwen3-reranker": qwen3_reranker,
    "rank1": rank1,
    "mxbai-rerank-v2": mxbai_rerank_v2,
}


def by_line(value: Any) -> str:
    """JSON, a list with a line for each entry."""
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join(f"  {json.dumps(one)}" for one in value) + "\n ]"


if __name__ == "__main__":
    checkouts = Path(sys.argv[1]).resolve()
    for name, make in AUTHORS.items():
        if name in sys.argv[2:] or not sys.argv[2:]:
            repository, commit = SOURCES[name]
            record = {"source": repository, "commit": commit, **make(checkouts / repository)}
            lines = [f" {json.dumps(key)}: {by_line(value)}" for key, value in record.items()]
            (FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
