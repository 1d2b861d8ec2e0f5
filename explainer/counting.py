"""How many of what, in the words of the log."""

from collections import Counter
from collections.abc import Iterable, Mapping

from explainer.explanation import FALSE_ALARM, GIVEN, HIT, MISS, Detection

PLURALS = {HIT: "hits", FALSE_ALARM: "false alarms", MISS: "misses", GIVEN: "given boxes"}


def found_in_words(detections: Iterable[Detection]) -> str:
    """Return what was found in an image and, where its labels are known, what became of it: '2 dogs (1 hit, ...)'."""
    detections = list(detections)
    counts = Counter(found.name for found in detections if found.was_found)
    names = ", ".join(several(count, name) for name, count in counts.items()) or "(no detections)"
    outcomes = Counter(found.outcome for found in detections if found.outcome)
    if outcomes[GIVEN]:
        return counted(outcomes[GIVEN], GIVEN)
    return f"{names} ({judged_in_words(outcomes)})" if outcomes else names


def several(count: int, name: str) -> str:
    """Return so many of a class in words."""
    return f"{count} {name}" if count == 1 or name.endswith("s") else f"{count} {name}s"


def judged_in_words(outcomes: Mapping[str, int]) -> str:
    """Return how many detections and labels came to what, such as '3 hits, 0 false alarms, 1 miss'."""
    return ", ".join(counted(outcomes.get(outcome, 0), outcome) for outcome in (HIT, FALSE_ALARM, MISS))


def counted(count: int, outcome: str) -> str:
    """Return so many of an outcome in words."""
    word = {GIVEN: "given box"}.get(outcome, outcome) if count == 1 else PLURALS[outcome]
    return f"{count} {word}"
