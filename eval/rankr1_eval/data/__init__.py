"""Questions of multi-hop data sets, and retrieval collections with judgements. Importing this loads nothing heavy."""

from rankr1_eval.data.fields import Dataset
from rankr1_eval.data.loading import DATASETS, load

__all__ = ["DATASETS", "Dataset", "load"]
