"""The quantities of a detection that can be explained, each a column of the raw predictions or a product of columns.

A raw prediction is a row (x, y, w, h, objectness, p_0, p_1, ...): the box's centre and size in input pixels, then
probabilities in 0..1.
"""

from explainer.errors import unknown

COLUMNS = {"x": 0, "y": 1, "w": 2, "h": 3, "objectness": 4}
# The probability of the detection's own class c, which stands in column 5 + c.
OWN_CLASS = "p_c"

# class             how sure the head is of the class, given that there is an object
# confidence        how sure it is that there is an object at all
# class_confidence  the confidence that is printed on the box
# the other four    where the box is and how large, in input pixels
ITEMS = {
    "class": (OWN_CLASS,),
    "confidence": ("objectness",),
    "class_confidence": ("objectness", OWN_CLASS),
    "x_center": ("x",),
    "y_center": ("y",),
    "width": ("w",),
    "height": ("h",),
}
ITEM_ALIASES = {"x_c": "x_center", "y_c": "y_center", "w": "width", "h": "height"}


def canonical_item(name: str) -> str:
    """Return the full name of an item; UsageError for an unknown one."""
    full = ITEM_ALIASES.get(name, name)
    if full not in ITEMS:
        raise unknown("item", name, [*ITEMS, *ITEM_ALIASES])
    return full


def columns_of(items: tuple[str, ...], class_index: int) -> list[int]:
    """Return the columns whose product the items are, for a detection of one class; twice what two items share."""
    factors = [factor for item in items for factor in ITEMS[item]]
    return [5 + class_index if factor == OWN_CLASS else COLUMNS[factor] for factor in factors]
