"""The formats of other authors' models, byte for byte, with their own way to prepare texts and to read answers.

Each is quoted from the code of its authors, whose source, commit and licence are below it. tests/golden/authors.py runs
that code for the recorded prompts and answers. What differs on purpose:

* Texts are sanitised, as in every format: see `prompt.texts`. Passages are clipped by `passage_tokens`.
* Reasoning without an answer names no passage, and neither does a label 0. (Their code reads all numbers in the
  reasoning, or the last passage.)
"""

from __future__ import annotations

import json
import re
import unicodedata
from contextlib import suppress
from dataclasses import replace

from rankr1_rag.prompt.format import Format

_LABEL = re.compile(r"\[(\d+)\]")
_NUMBER = re.compile(r"\d+")
_ANSWER = re.compile(r"</think>\s*+<answer>")
_BRACKET = re.compile(r"(\[\d+\])\]")
_SCORE = re.compile(r'"\s*+\[?([0-9]{1,4})\]{0,2}\s*+"\s*+:\s*+"?([0-9]{1,4}(?:\.[0-9]{1,9})?)\b')
_LONGEST = 20_000
"""Characters of an answer with scores."""


def without_labels(text: str) -> str:
    """The text with `(3)` in place of `[3]`."""
    return _LABEL.sub(r"(\1)", text)


def joined(title: str, text: str) -> str:
    """Title and text with a space between them."""
    return f"{title} {text}" if title else text


def titled(title: str, text: str) -> str:
    """`Title: … Content: …`, or the text if there is no title."""
    return f"Title: {title} Content: {text}" if title else text


def numbers(text: str) -> dict[int, float]:
    """All numbers in the text, in order."""
    return dict.fromkeys([int(number) for number in _NUMBER.findall(text) if len(number) < 5], 0.0)


def behind_reasoning(text: str) -> str:
    """What follows the reasoning; "" for reasoning that does not end, the text if there is none."""
    answer = text.rpartition("</think>")[2]
    return "" if "<think>" in answer else answer


def reasonrank_text(title: str, text: str) -> str:
    """A passage as ReasonRank shows it."""
    from ftfy import fix_text  # here: it takes 68 ms to import

    return without_labels(fix_text(titled(title, text).strip()))


def reasonrank_query(query: str) -> str:
    """A query as ReasonRank shows it: a whole prompt holds a "<", so entities stay."""
    from ftfy import fix_text

    return fix_text(without_labels(query).strip(), unescape_html=False)


def reasonrank_order(text: str, n: int) -> dict[int, float]:
    """The numbers of the first answer behind reasoning or, without it, of what follows the last `<answer>`, or of all.

    {} for reasoning that does not end.
    """
    lower = text.lower()
    begun = _ANSWER.search(lower, max(0, lower.find("<think>")))
    if "<think>" in lower and begun and (end := lower.find("</answer>", begun.end())) >= 0:
        return numbers(lower[begun.end() : end])
    return numbers(text.rpartition("<answer>")[2]) if "<answer>" in text else numbers(behind_reasoning(text))


def rearank_text(title: str, text: str) -> str:
    """A passage as Rearank shows it: 400 characters."""
    return " ".join(titled(title, text).split()).replace("Title: Content: ", "")[:400]


def rearank_order(text: str, n: int) -> dict[int, float]:
    """The numbers of the first answer, or of what follows the reasoning; {} for reasoning that does not end."""
    if "<answer>" in text:
        start = text.index("<answer>") + len("<answer>")
        end = text.find("</answer>", start)
        text = text.strip() if end < 0 else text[start:end]
    return numbers(behind_reasoning(text))


def rank_k_order(text: str, n: int) -> dict[int, float]:
    """The labels of the last line, up to the first that comes again; what is no label between > or = is left out.

    {} for reasoning that does not end.
    """
    found: dict[int, float] = {}
    for part in re.split("[>=]", behind_reasoning(text).strip().rpartition("\n")[2]):
        label = part.replace("[", "").replace("]", "").strip()
        if label.isdecimal() and len(label) < 5 and 1 <= int(label) <= n:
            if int(label) in found:
                break
            found[int(label)] = 0.0
    return found


def rank_zephyr_text(title: str, text: str) -> str:
    """A passage as RankLLM shows it: 300 words."""
    from ftfy import fix_text

    return without_labels(" ".join(fix_text(titled(title, text).strip()).split()[:300]))


def rank_zephyr_query(query: str) -> str:
    """A query as RankLLM shows it."""
    from ftfy import fix_text

    return fix_text(without_labels(query), unescape_html=False)


def rank_zephyr_order(text: str, n: int) -> dict[int, float]:
    """The numbers in what follows the reasoning, in any kind of digit; {} for reasoning that does not end."""
    return numbers("".join([str(unicodedata.digit(one, one)) for one in behind_reasoning(text)]))


def grouprank_text(title: str, text: str) -> str:
    """A passage as GroupRank shows it: 3,000 characters on one line."""
    return re.sub("\n+", " ", joined(title, text))[:3000]


def grouprank_scores(text: str, n: int) -> dict[int, float]:
    """The scores of the first answer, 0 to 10 as 0 to 1, from its last block of JSON; {} if there is none.

    None is read in reasoning that does not end. A label in one bracket too many and JSON without its end are read, too.
    """
    _, begun, answer = text.partition("<answer>")
    answer = answer.partition("</answer>")[0] if begun else text.rpartition("</reason>")[2]
    if len(answer) > _LONGEST or (not begun and "<reason>" in answer):
        return {}
    blocks = [part.partition("```")[0] for part in answer.split("```json")[1:] if "```" in part]
    blocks = blocks or [part[part.index("{") :] + "}" for part in answer.split("}")[:-1] if "{" in part]
    if not (blocks or "</answer>" in text):
        return {}
    block = _BRACKET.sub(r"\1", blocks[-1] if blocks else "{" + answer.rpartition("{")[2])
    with suppress(ValueError, AttributeError, TypeError, ArithmeticError, RecursionError):
        read = json.loads(block + "}" * (block.count("{") > block.count("}"))).items()
        return {int(label.strip().strip("[]")): min(1.0, max(0.0, score / 10)) for label, score in read}
    return {int(label): min(1.0, float(score) / 10) for label, score in _SCORE.findall(block)}


REASONRANK = Format(
    name="reasonrank",
    kind="listwise",
    system=(
        "You are RankLLM, an intelligent assistant that can rank passages based on their relevance to the query. Given "
        "a query and a passage list, you first thinks about the reasoning process in the mind and then provides the "
        "answer (i.e., the reranked passage list). The reasoning process and answer are enclosed within <think> "
        "</think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> "
        "answer here </answer>."
    ),
    user=(
        "I will provide you with {n} passages, each indicated by a numerical identifier []. Rank the passages based on "
        "their relevance to the search query: {query}.\n\n"
        "{docs}\n"
        "Search Query: {query}.\n"
        "Rank the {n} passages above based on their relevance to the search query. All the passages should be included "
        "and listed using identifiers, in descending order of relevance. The format of the answer should be [] > [], "
        "e.g., [2] > [1]."
    ),
    prefix="[{num}] ",
    separator="\n",
    reasoning=True,
    bridge="\n",
    passage_text=reasonrank_text,
    query_text=reasonrank_query,
    read_labels=reasonrank_order,
)
"""github.com/8421BCD/ReasonRank (listwise_prompt_r1.toml, utils.py, rerank/rankllm.py), commit 06721fd, MIT."""


REARANK = Format(
    name="rearank",
    kind="listwise",
    system=(
        "You are DeepRerank, an intelligent assistant that can rank passages based on their relevancy to the search "
        "query. You first thinks about the reasoning process in the mind and then provides the user with the answer."
    ),
    opening=(
        (
            "user",
            "I will provide you with passages, each indicated by number identifier []. Rank the passages based on "
            "their relevance to the search query.Search Query: {query}. \nRank the {n} passages above based on their "
            "relevance to the search query.The passages should be listed in descending order using identifiers. The "
            "most relevant passages should be listed first. The output format should be <answer> [] > [] </answer>, "
            "e.g., <answer> [1] > [2] </answer>.",
        ),
        ("assistant", "Okay, please provide the passages."),
    ),
    reply="Received passage [{num}].",
    user=(
        'Please rank these passages according to their relevance to the search query: "{query}"\n'
        "            Follow these steps exactly:\n"
        "            1. First, within <think> tags, analyze EACH passage individually:\n"
        "            - Evaluate how well it addresses the query\n"
        "            - Note specific relevant information or keywords\n\n"
        "            2. Then, within <answer> tags, provide ONLY the final ranking in descending order of relevance "
        "using the format: [X] > [Y] > [Z]"
    ),
    prefix="[{num}] ",
    separator="\n",
    reasoning=True,
    bridge="\n",
    forced_prefix="<answer> [",
    passage_text=rearank_text,
    read_labels=rearank_order,
)
"""github.com/lezhang7/Rearank (rank_gpt.py), commit abb4bd0, Apache-2.0."""


RANK_K = Format(
    name="rank-k",
    kind="listwise",
    system="",
    user=(
        "\nDetermine a ranking of the passages based on how relevant they are to the query. \n"
        "If the query is a question, how relevant a passage is depends on how well it answers the question. \n"
        "If not, try analyze the intent of the query and assess how well each passage satisfy the intent. \n"
        "The query may have typos and passages may contain contradicting information. \n"
        "However, we do not get into fact-checking. We just rank the passages based on they relevancy to the query. \n"
        "\nSort them from the most relevant to the least. \n"
        "Answer with the passage number using a format of `[3] > [2] > [4] = [1] > [5]`. \n"
        "Ties are acceptable if they are equally relevant. \n"
        "I need you to be accurate but overthinking it is unnecessary.\n"
        "Output only the ordering without any other text.\n\n"
        "Query: {query}\n\n"
        "{docs}\n"
    ),
    prefix="[{num}] ",
    separator="\n\n",
    reasoning=True,
    bridge="\n\n",
    forced_prefix="[",
    passage_text=joined,
    read_labels=rank_k_order,
)
"""github.com/hltcoe/rank-k (rerank.py, utils.py), commit ecdf232, MIT."""


RANK_ZEPHYR = Format(
    name="rank-zephyr",
    kind="listwise",
    system=("You are RankLLM, an intelligent assistant that can rank passages based on their relevancy to the query"),
    user=(
        "I will provide you with {n} passages, each indicated by a numerical identifier []. Rank the passages based on "
        "their relevance to the search query: {query}.\n"
        "{docs}\n"
        "Search Query: {query}.\n"
        "Rank the {n} passages above based on their relevance to the search query. All the passages should be included "
        "and listed using identifiers, in descending order of relevance. The output format should be [] > [], e.g., "
        "[2] > [1], Answer concisely and directly and only respond with the ranking results, do not say any word or "
        "explain."
    ),
    prefix="[{num}] ",
    separator="\n",
    reasoning=False,
    bridge="\n",
    forced_prefix="[",
    passage_text=rank_zephyr_text,
    query_text=rank_zephyr_query,
    read_labels=rank_zephyr_order,
)
"""RankZephyr and RankVicuna, and other chat models without training.

github.com/castorini/rank_llm (rerank/prompt_templates/rank_zephyr_template.yaml, rerank/inference_handler.py,
rerank/listwise/response_utils.py), commit 1b3cabb, Apache-2.0.
"""

QWEN3_LISTWISE = replace(RANK_ZEPHYR, name="qwen3-listwise", prefill="<think>\n\n</think>\n\n")
"""The same for Qwen3 without reasoning: `prefill` is what its template writes with enable_thinking=False."""

QWEN3_LISTWISE_REASONING = replace(RANK_ZEPHYR, name="qwen3-listwise-reasoning", reasoning=True, bridge="\n\n")
"""The same for Qwen3 with reasoning."""


GROUPRANK = Format(
    name="grouprank",
    kind="scored",
    system=(
        "Your task is to evaluate and rank documents based on how well they help answer the given query. Follow this "
        "evaluation priority:\n"
        "1. PRIMARY: Usefulness & Helpfulness - Does the document provide actionable information, solutions, or direct "
        "answers that help address the user's needs?\n"
        "2. SECONDARY: Relevance - Does the document contain information related to the query topic?\n\n"
        "Evaluation Process:\n"
        "1. First, identify the user's core intent and what kind of help they need from the query\n"
        "2. For each document, assess:\n"
        "   - How directly it addresses the user's intent\n"
        "   - What actionable information or answers it provides\n"
        "   - How much it helps solve the user's problem or need\n"
        "3. Compare documents against each other to ensure proper ranking\n"
        "4. Assign scores that reflect the relative usefulness ranking\n\n"
        "Scoring Scale (0-10):\n"
        "- 9-10: Extremely helpful, directly answers the query with actionable information\n"
        "- 7-8: Very helpful, provides substantial useful information for the query\n"
        "- 5-6: Moderately helpful, contains some useful information but incomplete\n"
        "- 3-4: Minimally helpful, limited useful information despite topic relevance\n"
        "- 1-2: Barely helpful, mentions related topics but provides little useful information\n"
        "- 0: Not helpful at all, cannot assist with answering the query\n"
    ),
    user=(
        "I will provide you {n} documents, each indicated by a numerical identifier []. Score these documents based on "
        "their Usefulness and Relevance to the query.\n"
        "Query:\n"
        "{query}\n\n"
        "Documents:\n"
        "{docs}\n\n\n\n"
        "## Final Output Format\n"
        "You must structure your response in exactly two parts: provide your brief reasoning process first, then "
        "output final scores in JSON format like below, with document IDs as string keys and integer scores as values "
        "for all {n} documents. \n"
        "The reasoning process and answer are enclosed within <reason> </reason> and <answer> </answer> tags, "
        "respectively. Do NOT output anything outside the specified tags. Follow this exact format:\n"
        "<reason> \n"
        "[Analyze each document's usefulness and relevance to the query, explaining your scoring rationale]\n"
        "</reason>\n"
        "<answer> \n"
        "```json\n"
        '{"[1]": 5, "[2]": 3, "[3]": 8}\n'
        "``` \n"
        "</answer>\n"
    ),
    prefix="[{num}]. ",
    separator="\n\n",
    reasoning=True,
    bridge="\n",
    tag="reason",
    forced_prefix='<answer>\n```json\n{"[1]": ',
    passage_text=grouprank_text,
    read_labels=grouprank_scores,
)
"""github.com/AQ-MedAI/Diver (Reranker/rerank_groupwise.py), commit 95b111b, Apache-2.0."""


QWEN3_RERANKER = Format(
    name="qwen3-reranker",
    kind="scored",
    system=(
        "Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the "
        'answer can only be "yes" or "no".'
    ),
    user=("<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {docs}"),
    instruction="{line}",
    no_instruction="Given a web search query, retrieve relevant passages that answer the query",
    prefix="",
    separator="",
    reasoning=False,
    bridge="",
    max_passages=1,
    prefill="<think>\n\n</think>\n\n",
    passage_text=joined,
    choices=("yes", "no"),
)
"""github.com/QwenLM/Qwen3-Embedding (README.md, examples/qwen3_reranker_transformers.py), commit f4ad0c4; the models
are Apache-2.0, the repository has no licence file. The example for vLLM there parts the lines by two newlines and ends
the user's turn twice.
"""

RANK1 = Format(
    name="rank1",
    kind="scored",
    system="",
    user=(
        "Determine if the following passage is relevant to the query. Answer only with 'true' or 'false'.\n"
        "Query: {query}\n"
        "Passage: {docs}\n"
        "<think>"
    ),
    prefix="",
    separator="",
    reasoning=True,
    bridge="",
    max_passages=1,
    raw=True,
    passage_text=joined,
    choices=(" true", " false"),
)
"""Rank1, and LimRank with the same prompt.

github.com/orionw/rank1 (rank1.py), commit 30585c2, MIT; github.com/SighingSnow/limrank (rerank-exps/rank1.py), commit
92843f0, MIT by its README.
"""

MXBAI_RERANK_V2 = Format(
    name="mxbai-rerank-v2",
    kind="scored",
    system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    user=(
        "{instruction}query: {query}\n"
        "document: {docs}\n"
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\n"
        "Relevance:"
    ),
    prefix="",
    separator="",
    reasoning=False,
    bridge="",
    max_passages=1,
    instruction="instruction: {line}\n",
    passage_text=joined,
    choices=("1", "0"),
)
"""github.com/mixedbread-ai/mxbai-rerank (mxbai_rerank/mxbai_rerank_v2.py), commit 8e709dc, Apache-2.0.

Their score is the logit of this probability. They join the tokens of the parts, not the texts: where a query or a
document ends in punctuation, a tokenizer may spell the end of its line in another way here.
"""

AUTHORS = (
    *(REASONRANK, REARANK, RANK_K, RANK_ZEPHYR, QWEN3_LISTWISE, QWEN3_LISTWISE_REASONING),
    *(GROUPRANK, QWEN3_RERANKER, RANK1, MXBAI_RERANK_V2),
)
"""All of them, listwise before scored."""
