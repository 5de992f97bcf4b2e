"""A study of the selection algorithms under simulated judges, on a real first-stage order. No model is asked.

judges    the queries with the grades of their candidates, and who answers
study     all algorithms against all judges, with means, intervals and paired differences
tables    the result as JSON and as Markdown
picture   the result as one picture
"""

from rankr1_eval.simulation.judges import JUDGES, Judge, JudgedQuery, judged_queries, judges_named
from rankr1_eval.simulation.study import Setting, Study, Way, study, ways_for, ways_named

__all__ = [
    "JUDGES",
    "Judge",
    "JudgedQuery",
    "Setting",
    "Study",
    "Way",
    "judged_queries",
    "judges_named",
    "study",
    "ways_for",
    "ways_named",
]
