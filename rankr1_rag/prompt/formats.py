"""The published input formats of the Rank-R1 models, byte for byte, and two of this project's own.

Source of the first three: github.com/ielab/llm-rankers, folder Rank-R1/prompts, commit b36517b (2025-05-29),
Apache-2.0. They are the input that the models were trained on, quoted as data: a v0.1 model with another prompt works
and is silently worse. v0.1 writes a passage as `[n] text`; the `[{num}]: ` of its published file is not used by the
code that trained or serves it.
"""

from __future__ import annotations

from dataclasses import replace

from rankr1_rag.prompt.authors import AUTHORS
from rankr1_rag.prompt.format import Format

RANK_R1_V01 = Format(
    name="rank-r1-v0.1",
    kind="setwise",
    system=(
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves "
        "it. The assistant first thinks about the reasoning process in the mind and then provides the "
        "user with the answer. The reasoning process and answer are enclosed within <think> </think> and "
        "<answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> <answer> "
        "answer here </answer>."
    ),
    user=(
        'Given the query: "{query}", which of the following documents is most relevant?\n'
        "{docs}\n"
        "After completing the reasoning process, please provide only the label of the most relevant "
        "document to the query, enclosed in square brackets, within the answer tags. For example, if the "
        "third document is the most relevant, the answer should be: <think> reasoning process here "
        "</think> <answer>[3]</answer>."
    ),
    prefix="[{num}] ",
    separator="\n",
    reasoning=True,
    bridge=" ",
)

RANK_R1_V02 = Format(
    name="rank-r1-v0.2",
    kind="setwise",
    system=(
        "You are RankLLM, an intelligent assistant capable of evaluating the relevancy of passages to a given query."
    ),
    user=(
        "You will be presented with a query, and a set of documents.\n\n"
        "Your task consists of the following step:\n\n"
        "1. Analyze the query: Carefully read the query and identify the core problem or question being "
        "asked.\n\n"
        "2. Analyze the documents: Thoroughly examine each document and briefly explain how each "
        "document is relevant or not relevant to the query.\n\n"
        "3. Find the most relevant document: Based on your analysis, select the most relevant document "
        "to the query from the set and briefly explain why.\n\n"
        "Important: Provide your analysis within the <think> </think> tags and answer only the label of "
        "the most relevant document, enclosed in square brackets, within the <answer> </answer> tags. "
        "For example, if the third document is the most relevant, your response should be:\n"
        "<think> Your analysis here </think>\n"
        "<answer>[3]</answer>\n\n"
        "Here is the query: {query}\n\n"
        "Here are the documents:\n"
        "{docs}"
    ),
    prefix="[{num}]: ",
    separator="\n\n",
    reasoning=True,
    bridge="\n",
)

SETWISE_SFT_V01 = Format(
    name="setwise-sft-v0.1",
    kind="setwise",
    system=(
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves "
        "it. The assistant provides the user with the answer enclosed within <answer> </answer> tags, "
        "i.e., <answer> answer here </answer>."
    ),
    user=(
        'Given the query: "{query}", which of the following documents is most relevant?\n'
        "{docs}\n"
        "Please provide only the label of the most relevant document to the query, enclosed in square "
        "brackets, within the answer tags. For example, if the third document is the most relevant, the "
        "answer should be: <answer>[3]</answer>."
    ),
    prefix="[{num}] ",
    separator="\n",
    reasoning=False,
    bridge=" ",
)

LISTWISE_V1 = Format(
    name="listwise-v1",
    kind="listwise",
    system=(
        "A conversation between User and Assistant. The user asks for documents to be ranked. The Assistant first "
        "thinks about their relevance and then answers. The reasoning process and answer are enclosed within <think> "
        "</think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process here </think> "
        "<answer> answer here </answer>."
    ),
    user=(
        'Rank the following documents by their relevance to the query: "{query}"\n'
        "{docs}\n"
        "After completing the reasoning process, please provide the labels of all documents, the most relevant first, "
        "each enclosed in square brackets and separated by >, within the answer tags. For example, if the second of "
        "three documents is the most relevant and the third the least, the answer should be: "
        "<think> reasoning process here </think> <answer>[2] > [1] > [3]</answer>."
    ),
    prefix="[{num}] ",
    separator="\n",
    reasoning=True,
    bridge=" ",
)
"""A listwise format of this project's own: all labels, best first."""

NAMING_V1 = Format(
    name="naming-v1",
    kind="setwise",
    system="Pick the passage that helps most to answer the query.",
    user="Query: {query}\n{known}{docs}\nQuery: {query}",
    prefix="[{num}] ",
    separator="\n",
    reasoning=True,
    bridge=" ",
    known="Known: {line}\n",
)
"""A setwise format of this project's own for small models, which see the query before and after the passages: the
reasoning names the passage that is picked, then comes its label."""

LABEL_V1 = replace(NAMING_V1, name="label-v1", reasoning=False)
"""The same, answered by the label alone: for comparison with training on labels without reasoning."""

LABEL_V2 = replace(LABEL_V1, name="label-v2", suffix=" [{num}]")
"""The label is behind each passage, too: what a decoder computes there has read the passage, and in front of it not. A
small model learns in a third of the steps, and by labels alone, what `naming-v1` teaches it: see docs/training.md."""

NAMING_V2 = replace(LABEL_V2, name="naming-v2", reasoning=True)
"""The same with reasoning: the label that is picked, and what it is picked for in the words of the passage."""

FORMATS = {
    format.name: format
    for format in (
        *(RANK_R1_V01, RANK_R1_V02, SETWISE_SFT_V01, LISTWISE_V1),
        *(NAMING_V1, LABEL_V1, LABEL_V2, NAMING_V2),
        *AUTHORS,
    )
}
"""Every format by its name; those of other models are in `prompt.authors`."""
