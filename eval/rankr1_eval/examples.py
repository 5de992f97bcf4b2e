"""Worked examples that the reader is shown before its question: what a short answer looks like.

A small model answers in sentences however often it is told not to; shown five examples it mostly does not.
The places and people of the examples with passages are invented, so that no data set holds them; those without passages
are common knowledge. Kinds of answers take turns and no yes or no stands last, which small models would copy.
"""

from __future__ import annotations

WITH_PASSAGES: tuple[tuple[str, str, str], ...] = (
    (
        "The Glass Orchard: The Glass Orchard is a 1962 film directed by Paul Renner.\n\n"
        "Night Ferry: Night Ferry is a 1958 film directed by Otto Lang.",
        "Was The Glass Orchard released before Night Ferry?",
        "no",
    ),
    (
        "Tolva: Tolva is a town in Belmara.\n\nQuell: Quell is a village in Belmara.",
        "Are Tolva and Quell in the same country?",
        "yes",
    ),
    (
        "Ada Brandt: Ada Brandt (born 1901) was a Belmaran poet.\n\nJon Sella: Jon Sella (born 1897) was a novelist.",
        "Who was born first, Ada Brandt or Jon Sella?",
        "Jon Sella",
    ),
    (
        "Harrow Bridge: Harrow Bridge is an iron bridge over the River Lenn, designed by Clara Voss.\n\n"
        "Clara Voss: Clara Voss (born 12 May 1831) was a Belmaran engineer.",
        "When was the designer of Harrow Bridge born?",
        "12 May 1831",
    ),
    (
        "Mount Ardel: Mount Ardel is a peak of 2,210 metres in the Corvan range.\n\n"
        "Corvan range: The Corvan range lies in the north of Belmara and was first mapped by Ines Pruett in 1874.",
        "Who first mapped the range in which Mount Ardel lies?",
        "Ines Pruett",
    ),
)
"""Passages, question, answer."""

ALONE: tuple[tuple[str, str, str], ...] = (
    ("", "Is Lyon the capital of France?", "no"),
    ("", "Were Galileo and Raphael both born in Italy?", "yes"),
    ("", "Who was born first, Isaac Newton or Albert Einstein?", "Isaac Newton"),
    ("", "In what year did the Second World War end?", "1945"),
    ("", "Who wrote the play that Verdi's Otello is based on?", "William Shakespeare"),
)
"""The same without passages."""
