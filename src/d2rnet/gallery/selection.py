"""Which studies a gallery shows, where there are more than it may hold."""

import random
from collections.abc import Sequence

from d2rnet.gallery.marks import ERRORS
from d2rnet.gallery.settings import PageSettings
from d2rnet.gallery.studies import Study


def choose_studies(studies: Sequence[Study], settings: PageSettings) -> tuple[list[Study], str]:
    """Return the studies to show, in their given order, and how they were chosen ("" if all are shown).

    Args:
        studies: all of them.
        settings: ``max_studies``, ``choice`` and ``seed`` decide.
    """
    limit = settings.max_studies
    if len(studies) <= limit:
        return list(studies), ""
    places = list(range(len(studies)))
    if settings.choice == "random":
        chosen = random.Random(settings.seed).sample(places, limit)
        how = f"drawn at random with seed {settings.seed}"
    elif settings.choice == "worst":
        chosen = sorted(places, key=lambda place: _badness(studies[place]))[:limit]
        how = f"those with most {studies[0].modality.finding} errors, of equals those with the lower ROUGE-L"
    else:
        chosen = places[:limit]
        how = "the first ones of the file"
    return [studies[place] for place in sorted(chosen)], how


def _badness(study: Study) -> tuple[int, float]:
    errors = sum(verdict in ERRORS for verdicts in study.verdicts for verdict in verdicts.values())
    return -errors, sum(answer.scores.get("rouge_l", 0.0) for answer in study.answers)
