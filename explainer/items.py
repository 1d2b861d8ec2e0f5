"""The quantities of a detection that can be explained, each one column of the raw predictions.

A raw prediction is a row (x, y, w, h, objectness, p_0, p_1, ...): the box's centre and size in input pixels, then
probabilities in 0..1.
"""

from explainer.errors import unknown


def class_probability(read, class_index):
    """Return p_c: how sure the head is of the class, given that there is an object."""
    return read(5 + class_index)


def confidence(read, class_index):
    """Return the objectness: how sure the head is that there is an object at all."""
    return read(4)


def class_confidence(read, class_index):
    """Return objectness times p_c: the confidence that is printed on the box."""
    return confidence(read, class_index) * class_probability(read, class_index)


def x_center(read, class_index):
    """Return the x coordinate of the box's centre, in input pixels."""
    return read(0)


def y_center(read, class_index):
    """Return the y coordinate of the box's centre, in input pixels."""
    return read(1)


def width(read, class_index):
    """Return the width of the box, in input pixels."""
    return read(2)


def height(read, class_index):
    """Return the height of the box, in input pixels."""
    return read(3)


# Each entry takes `read(column)`, which returns the weighted sum of one column over the matched predictions.
ITEMS = {
    "class": class_probability,
    "confidence": confidence,
    "class_confidence": class_confidence,
    "x_center": x_center,
    "y_center": y_center,
    "width": width,
    "height": height,
}
ITEM_ALIASES = {"x_c": "x_center", "y_c": "y_center", "w": "width", "h": "height"}


def canonical_item(name: str) -> str:
    """Return the full name of an item; UsageError for an unknown one."""
    full = ITEM_ALIASES.get(name, name)
    if full not in ITEMS:
        raise unknown("item", name, [*ITEMS, *ITEM_ALIASES])
    return full
