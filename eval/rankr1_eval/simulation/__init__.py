"""Which selection algorithm to use under which judge: a study with simulated judges on a real first-stage order.

    cases     the queries of a run with the grades of their candidates
    judges    who answers: perfect, noisy, minding places, going round in circles
    ways      what asks: the algorithms by name, with votes or as ballots
    names     lists of names as they are given
    playing   one selection played through, and what it cost
    study     all of them against all of them, with means, intervals and paired differences
    tables    the result as JSON and as Markdown
    picture   the result as one picture
    panels    one panel of it
    labels    where to write a name beside a point

No model is asked: an answer costs microseconds. Importing this loads nothing heavy.
"""

from rankr1_eval.simulation.judges import JUDGES, Case, Judge, cases, judges_named
from rankr1_eval.simulation.study import Study, study
from rankr1_eval.simulation.ways import Way, ways_for, ways_named

__all__ = ["JUDGES", "Case", "Judge", "Study", "Way", "cases", "judges_named", "study", "ways_for", "ways_named"]
