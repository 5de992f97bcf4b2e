"""The evaluation as a library: HotpotQA questions of a file, reranked, read and scored, with a report.

python examples/evaluation/evaluate.py hotpot_dev_distractor_v1.json runs/mine
"""

import sys
from pathlib import Path

from rankr1_eval.baselines import FirstStage
from rankr1_eval.data import load
from rankr1_eval.data.loading import corpus, sample
from rankr1_eval.evaluation import Evaluation
from rankr1_eval.pipeline import finish
from rankr1_eval.run_folder import RunFolder
from rankr1_eval.systems import parse
from rankr1_rag import Reranker
from rankr1_rag.connect import connect
from rankr1_rag.reader import Reader

if __name__ == "__main__":
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    questions = load("hotpotqa", data)
    asked = sample(questions, 2, seed=0)
    with RunFolder(out) as folder, Reranker(connect(store=folder.store), k=5, reasoning_tokens=16) as reranker:
        evaluation = Evaluation(
            dataset="hotpotqa",
            questions=asked,
            corpus=corpus(questions, asked, None, seed=0),
            source={"data": str(data)},
            first_stage=FirstStage("bm25", n=10),
            systems=parse(["none", "rank-r1", "gold"]),
            ks=(5,),
            reranker=reranker,
            reader=Reader(reranker.plan.backend),
        )
        run = evaluation.run(folder)
        scores, _ = finish(run, out)
    for name, system in scores.systems.items():
        print(name, {measure: round(found.mean, 3) for measure, found in system.estimates.items()})
