"""Questions of multi-hop data sets, and retrieval collections with judgements.

`load("hotpotqa", path)` gives questions, `sample.sample` and `sample.corpus` choose among them and pool their
paragraphs, `collections.judged("dl19")` gives a collection. Importing this loads nothing heavy.
"""

from rankr1_eval.data.fields import Dataset
from rankr1_eval.data.loading import DATASETS, load

__all__ = ["DATASETS", "Dataset", "load"]
