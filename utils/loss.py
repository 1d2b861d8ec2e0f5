"""The training loss of a detection head: box, objectness and class, with the assignment of targets to cells."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.base.boxes import bbox_iou

# How much the objectness of each level counts, from fine to coarse: fine levels have many more cells, all but a few empty.
OBJECTNESS_WEIGHTS = {3: (4.0, 1.0, 0.4)}
OTHER_OBJECTNESS_WEIGHTS = (4.0, 1.0, 0.25, 0.06, 0.02)
# A target is also learnt by the neighbour cells whose border is nearer to its centre than this, in cells.
NEIGHBOUR_REACH = 0.5
# Which way to the cells that may share a target: stay, then the ones left, above, right, below, in (x, y).
STEPS = ((0, 0), (1, 0), (0, 1), (-1, 0), (0, -1))


class Matches(NamedTuple):
    """The n assignments of targets to one level's anchors and cells; all tensors have the length n."""

    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    # (n, 4): centre relative to the cell's corner, width, height, in cells
    box: Tensor
    # (n, 2): width, height in cells
    anchor_size: Tensor
    category: Tensor

    @property
    def cells(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where the assigned predictions are in a map (B, na, ny, nx, ...)."""
        return self.image, self.anchor, self.row, self.column


class FocalLoss(nn.Module):
    """Weigh a binary cross entropy so that easy examples count less, https://arxiv.org/abs/1708.02002."""

    def __init__(self, loss_fcn: nn.BCEWithLogitsLoss, gamma: float = 1.5, alpha: float = 0.25) -> None:
        """Wrap `loss_fcn`, keeping its reduction; `gamma` is the focus, `alpha` the weight of positives against 1."""
        super().__init__()
        self.pos_weight, self.reduction = loss_fcn.pos_weight, loss_fcn.reduction
        self.gamma, self.alpha = gamma, alpha

    def forward(self, pred: Tensor, true: Tensor) -> Tensor:
        """Return the loss of logits `pred` against targets `true` in 0..1, of the same shape."""
        loss = F.binary_cross_entropy_with_logits(pred, true, reduction="none", pos_weight=self.pos_weight)
        probability = pred.sigmoid()
        miss = true * (1 - probability) + (1 - true) * probability
        balance = true * self.alpha + (1 - true) * (1 - self.alpha)
        loss = loss * balance * miss**self.gamma
        return {"mean": loss.mean, "sum": loss.sum}.get(self.reduction, lambda: loss)()


class ComputeLoss:
    """The loss of a model's raw maps.

    The model needs `hyp` with the gains box, obj and cls, the positive weights obj_pw and cls_pw, anchor_t (by how many
    times a target's side may differ from its anchor's), fl_gamma (0 for plain cross entropy) and label_smoothing.
    """

    sort_obj_iou = False

    def __init__(self, model: nn.Module, autobalance: bool = False) -> None:
        """Take the head of `model`; with `autobalance` the weights of the levels follow their objectness losses."""
        hyp, head = model.hyp, model.model[-1]
        device = next(model.parameters()).device
        self.hyp, self.device, self.autobalance = hyp, device, autobalance
        self.BCEcls = self._cross_entropy(hyp["cls_pw"])
        self.BCEobj = self._cross_entropy(hyp["obj_pw"])
        smoothing = hyp.get("label_smoothing", 0.0)
        self.cp, self.cn = 1 - smoothing / 2, smoothing / 2
        self.na, self.nc, self.nl, self.anchors = head.na, head.nc, head.nl, head.anchors
        self.balance = list(OBJECTNESS_WEIGHTS.get(head.nl, OTHER_OBJECTNESS_WEIGHTS))
        strides = [int(stride) for stride in head.stride]
        self._reference_level = strides.index(16) if autobalance and 16 in strides else 0

    def _cross_entropy(self, positive_weight: float) -> nn.Module:
        loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([positive_weight], device=self.device))
        gamma = self.hyp.get("fl_gamma", 0.0)
        return FocalLoss(loss, gamma) if gamma > 0 else loss

    def __call__(self, p: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return (loss x images (1,), its parts box, objectness, class (3,), detached).

        Args:
            p: one raw map (B, na, ny, nx, 5 + nc) per level, as the head returns in training.
            targets: (n, 6) rows image, class, x, y, w, h relative to the input.
        """
        parts = torch.zeros(3, device=self.device)
        for level, (raw, matches) in enumerate(zip(p, self.assign(p, targets), strict=True)):
            box, objectness, category = self._level_losses(raw, matches)
            parts = parts + torch.stack((box, objectness * self.balance[level], category))
            if self.autobalance:
                self.balance[level] = self.balance[level] * 0.9999 + 0.0001 / objectness.detach().item()
        if self.autobalance:
            self.balance = [weight / self.balance[self._reference_level] for weight in self.balance]
        parts = parts * parts.new_tensor([self.hyp["box"], self.hyp["obj"], self.hyp["cls"]])
        return parts.sum(0, keepdim=True) * p[0].shape[0], parts.detach()

    def _level_losses(self, raw: Tensor, matches: Matches) -> tuple[Tensor, Tensor, Tensor]:
        """Return the losses of one level: boxes and classes of the assigned cells, objectness of all."""
        confidence = torch.zeros_like(raw[..., 4])
        box = category = torch.zeros((), device=self.device)
        if len(matches.image):
            xy, wh, _, logits = raw[matches.cells].split((2, 2, 1, self.nc), dim=1)
            predicted = torch.cat((2 * xy.sigmoid() - 0.5, (2 * wh.sigmoid()).square() * matches.anchor_size), dim=1)
            iou = bbox_iou(predicted, matches.box, CIoU=True)[:, 0]
            box = (1 - iou).mean()
            confidence[self._ordered(matches.cells, iou)] = self._ordered_iou(iou, confidence.dtype)
            if self.nc > 1:
                category = self.BCEcls(logits, self._wanted_classes(logits, matches.category))
        return box, self.BCEobj(raw[..., 4], confidence), category

    def _ordered(self, cells: tuple[Tensor, ...], iou: Tensor) -> tuple[Tensor, ...]:
        """Return the cells, by IoU where `sort_obj_iou`: of two targets in one cell the later sets its objectness."""
        return tuple(index[iou.detach().argsort()] for index in cells) if self.sort_obj_iou else cells

    def _ordered_iou(self, iou: Tensor, dtype: torch.dtype) -> Tensor:
        iou = iou.detach().clamp(min=0).to(dtype)
        return iou.sort().values if self.sort_obj_iou else iou

    def _wanted_classes(self, logits: Tensor, category: Tensor) -> Tensor:
        wanted = torch.full_like(logits, self.cn)
        wanted[torch.arange(len(category), device=self.device), category] = self.cp
        return wanted

    def assign(self, p: list[Tensor], targets: Tensor) -> list[Matches]:
        """Return for each level which anchors and cells learn which target.

        A target goes to every anchor whose sides differ by less than anchor_t times, in the cell of its centre and in
        the two neighbours that are nearest to it.
        """
        return [self._assign_level(raw, targets.to(self.device), self.anchors[i]) for i, raw in enumerate(p)]

    def _assign_level(self, raw: Tensor, targets: Tensor, anchors: Tensor) -> Matches:
        ny, nx = raw.shape[2:4]
        boxes = targets[:, 2:] * targets.new_tensor([nx, ny, nx, ny])
        anchor, target = self._fitting_pairs(boxes[:, 2:], anchors).nonzero(as_tuple=True)
        step, pair = self._shared_cells(boxes[target, :2], nx, ny).nonzero(as_tuple=True)
        anchor, target = anchor[pair], target[pair]

        xy, wh = boxes[target].split(2, dim=1)
        cell = (xy - NEIGHBOUR_REACH * xy.new_tensor(STEPS)[step]).long()
        column, row = cell[:, 0].clamp(0, nx - 1), cell[:, 1].clamp(0, ny - 1)
        image, category = targets[target, :2].long().unbind(1)
        box = torch.cat((xy - torch.stack((column, row), dim=1), wh), dim=1)
        return Matches(image, anchor, row, column, box, anchors[anchor], category)

    def _fitting_pairs(self, wh: Tensor, anchors: Tensor) -> Tensor:
        """Return (na, n): whether no side of the target (n, 2) is anchor_t times longer or shorter than the anchor's."""
        ratio = wh[None] / anchors[:, None]
        return torch.maximum(ratio, 1 / ratio).amax(2) < self.hyp["anchor_t"]

    @staticmethod
    def _shared_cells(xy: Tensor, nx: int, ny: int) -> Tensor:
        """Return (5, n): for each of `STEPS` whether the cell in that direction of centre (n, 2) learns the target."""
        beyond = xy.new_tensor([nx, ny]) - xy
        low = (xy % 1 < NEIGHBOUR_REACH) & (xy > 1)
        high = (beyond % 1 < NEIGHBOUR_REACH) & (beyond > 1)
        own = torch.ones_like(low[:, :1])
        return torch.cat((own, low, high), dim=1).T

    def build_targets(self, p: list[Tensor], targets: Tensor) -> tuple[list, list, list, list]:
        """Return the assignment as four lists over levels: classes, boxes, (image, anchor, row, column), anchors."""
        levels = self.assign(p, targets)
        return (
            [matches.category for matches in levels],
            [matches.box for matches in levels],
            [matches.cells for matches in levels],
            [matches.anchor_size for matches in levels],
        )
