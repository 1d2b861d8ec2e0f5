"""The figures of an evaluation by name: one table that drives its columns, tables and plots, and what they mean."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One figure of a detection's heatmap.

    group   which of `GROUPS` it belongs to
    title   how tables and plots call it
    better  "higher", "lower", or "" where neither is better
    about   what it says
    digits  after the point
    """

    group: str
    title: str
    better: str
    about: str
    digits: int = 3


FAITH, PLACE, SANITY, COST = GROUPS = (
    "Does the score follow the heatmap?",
    "Where does it lie?",
    "Does it depend on what was learnt?",
    "What does it cost?",
)
RANDOMISED = ("head", "neck", "all")

FIGURES = {
    "overall": Figure(FAITH, "overall", "higher", "insertion less deletion"),
    "deletion": Figure(
        FAITH, "deletion", "lower", "score left while the hottest pixels are taken away first, on average"
    ),
    "insertion": Figure(
        FAITH, "insertion", "higher", "score reached while the hottest pixels are put back first, on average"
    ),
    "drop": Figure(FAITH, "drop", "lower", "score lost when only what the heatmap shows is left"),
    "increase": Figure(FAITH, "increase", "higher", "share of detections whose score rises when only that is left"),
    "road": Figure(
        FAITH, "ROAD", "higher", "score without the coldest less score without the hottest pixels, halved; imputed"
    ),
    "energy_in_box": Figure(PLACE, "EBPG", "higher", "share of the heatmap inside the detected box"),
    "peak_in_box": Figure(PLACE, "PG", "higher", "share of detections whose peak lies inside the detected box"),
    "enrichment": Figure(PLACE, "enrichment", "higher", "energy in the box over the box's share of the image", 1),
    "energy_in_label": Figure(
        PLACE, "EBPG label", "higher", "share of the heatmap on the labelled object: outline, or box"
    ),
    "peak_in_label": Figure(PLACE, "PG label", "higher", "share of detections whose peak lies on the labelled object"),
    "on_others": Figure(PLACE, "ODI", "lower", "of what lies on labelled objects, the share that lies on other ones"),
    "compactness": Figure(PLACE, "compactness", "lower", "spread around the peak, in half diagonals of the box"),
    "sparseness": Figure(PLACE, "sparseness", "", "Gini index: 0 for an even spread, 1 for a dot"),
    "blank": Figure(PLACE, "blank", "lower", "share of detections whose heatmap is empty"),
    **{
        f"{kind}_{stage}": Figure(
            SANITY,
            f"{title} {stage}",
            "lower",
            f"{title} of the heatmaps before and after the weights are shuffled: {stage}",
        )
        for kind, title in (("spearman", "Spearman"), ("ssim", "SSIM"))
        for stage in RANDOMISED
    },
    "spearman_class": Figure(
        SANITY, "Spearman class", "lower", "of the heatmaps for the first and the second class of a box"
    ),
    "ssim_class": Figure(SANITY, "SSIM class", "lower", "of the heatmaps for the first and the second class of a box"),
    "milliseconds": Figure(COST, "ms", "lower", "for the explanation, per detection", 1),
    "passes": Figure(COST, "passes", "lower", "forward passes for the explanation, by multiply-adds, per detection", 2),
    "passes_per_image": Figure(COST, "passes per image", "lower", "the same for all detections of an image", 2),
    "memory": Figure(COST, "MiB", "lower", "at the explanation's peak, above what was in use before", 1),
}
# The one in which a method must not lose to a baseline.
DECISIVE = "overall"
