"""A run in the forms that other programs read: TREC runs and qrels, and answer strings as `rankr1-eval score` has them.

    supports.qrels          the supports of each question, relevance 1
    runs/ROW.trec           the order of a row; scores are 1 / rank
    predictions/ROW@K.json  {question id: answer string}

Knows values and formats.
"""

from __future__ import annotations

import json
from pathlib import Path

from rankr1_eval.results import Run
from rankr1_eval.rows import file_name
from rankr1_rag.files import writing
from rankr1_rag.trec import write_qrels, write_run


def export(run: Run, folder: Path) -> str:
    """Write them, each whole or not at all. What is left out, and why: "" where nothing is.

    TREC files part their fields by white space: a question whose id holds some can be in none.
    """
    _remove_stale(folder)
    for row in run.rows:
        for k, reads in row.reads.items():
            with writing(folder / "predictions" / f"{file_name(row.name)}@{k}.json") as out:
                json.dump({id: read.answer for id, read in reads.items()}, out)
    try:
        _as_trec(run, folder)
    except ValueError as error:
        return f"no TREC files were written: {error}"
    return ""


def _remove_stale(folder: Path) -> None:
    """What an earlier command wrote of the folder's rows, perhaps over other questions; no file of anybody else's."""
    for name in ("predictions", "runs"):
        (folder / name).mkdir(exist_ok=True)
    for row in {
        path.stem.partition("@")[0] for stage in ("rerank", "read") for path in (folder / stage).glob("*.jsonl")
    }:
        for stale in [folder / "runs" / f"{row}.trec", *(folder / "predictions").glob(f"{row}@*.json")]:
            stale.unlink(missing_ok=True)


def _as_trec(run: Run, folder: Path) -> None:
    write_qrels(folder / "supports.qrels", {one.query.id: dict.fromkeys(one.supports, 1) for one in run.questions})
    for row in run.rows:
        if row.orders:
            ranked = ((id, [(one, 1 / rank) for rank, one in enumerate(order, 1)]) for id, order in row.orders.items())
            write_run(folder / "runs" / f"{file_name(row.name)}.trec", ranked, tag=file_name(row.name))
