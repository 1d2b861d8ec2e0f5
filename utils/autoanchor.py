"""Anchor boxes: whether they fit the strides of the head that uses them."""

from torch import nn

from utils.logger import LOGGER


def check_anchor_order(m: nn.Module) -> None:
    """Turn the anchors of head `m` round where they run from large to small while its strides grow.

    `m` has `anchors` (levels, anchors, 2) and `stride` (levels,). Anchors without values (on the meta device) stay.
    """
    if m.anchors.is_meta:
        return
    areas = m.anchors.prod(-1).mean(-1)
    growth = (areas[-1] - areas[0]).item()
    stride_growth = (m.stride[-1] - m.stride[0]).item()
    if growth * stride_growth < 0:
        LOGGER.info("Anchors run against the strides of the head: turning their order round")
        m.anchors[:] = m.anchors.flip(0)
