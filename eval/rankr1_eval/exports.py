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


def export(run: Run, folder: Path) -> None:
    """Write them, each whole or not at all. ValueError where an id is not one word, which TREC files cannot hold."""
    write_qrels(folder / "supports.qrels", {one.query.id: dict.fromkeys(one.supports, 1) for one in run.questions})
    for name in ("runs", "predictions"):
        (folder / name).mkdir(exist_ok=True)
    for row in run.rows:
        if row.orders:
            ranked = {
                id: [(passage, 1 / rank) for rank, passage in enumerate(order, 1)] for id, order in row.orders.items()
            }
            write_run(folder / "runs" / f"{file_name(row.name)}.trec", ranked.items(), tag=file_name(row.name))
        for k, reads in row.reads.items():
            with writing(folder / "predictions" / f"{file_name(row.name)}@{k}.json") as out:
                json.dump({id: read.answer for id, read in reads.items()}, out)
