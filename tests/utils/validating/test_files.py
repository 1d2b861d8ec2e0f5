"""The files that a validation leaves."""

from utils.validating.files import COCO_CATEGORIES


def test_coco_has_eighty_categories_up_to_ninety():
    assert len(COCO_CATEGORIES) == 80
    assert (COCO_CATEGORIES[0], COCO_CATEGORIES[11], COCO_CATEGORIES[-1]) == (1, 13, 90)
