"""From what is to be explained in an image to the questions that are asked about it."""

from dataclasses import dataclass

from explainer.cells import row_ranges
from explainer.explanation import Detection
from explainer.heads import Target
from explainer.kinds import TARGETS
from explainer.looks import Group, Plan, Question, Scale, View
from explainer.methods import Method
from explainer.network import Level, Recording
from explainer.settings import Settings
from explainer.subjects import Subjects
from explainer.targets import classes_target


@dataclass(frozen=True)
class Planner:
    """Turns the subjects of an image into questions.

    chosen  the indices of the classes to explain
    levels  the head inputs
    layers  for each head input, the names of the layers that its detections are read from
    """

    settings: Settings
    method: Method
    chosen: frozenset[int]
    levels: list[Level]
    layers: list[tuple[str, ...]]

    def plan(self, subjects: Subjects) -> Plan:
        """Return what is asked: each subject by its matched raw predictions, or the classes by all raw predictions."""
        if self.settings.use_old_target_method:
            return self._classes(subjects.detections)
        return self._each(subjects)

    def _each(self, subjects: Subjects) -> Plan:
        """Ask for the score of each subject by itself."""
        detections, boxes = subjects.detections, subjects.boxes_xyxy
        questions = [
            Question(index, self.layers[detection.level], self._groups(detection))
            for index, detection in enumerate(detections)
        ]
        classes = [detection.class_index for detection in detections]
        make, items = TARGETS[self.method.target], self.settings.backprop_array

        def target(seen: Recording, view: View) -> Target:
            return make(seen.raw, view.boxes(boxes, seen.image.shape[3]), classes, items)

        return Plan(questions, questions, target)

    def _classes(self, detections: list[Detection]) -> Plan:
        """Ask for the sum of all raw probabilities of the chosen classes, together or class by class, and scale by scale."""
        found = sorted({detection.class_index for detection in detections})
        groups = [[index] for index in found] if self.settings.backward_per_class else [sorted(self.chosen)]
        questions = [
            Question(number, layers, (self._class_group(group[0]),))
            for number, group in enumerate(groups)
            for layers in dict.fromkeys(self.layers)
        ]
        number_of = {index: number for number, group in enumerate(groups) for index in group}
        by_number = {(question.index, question.layers): question for question in questions}
        of_detection = [by_number[number_of[d.class_index], self.layers[d.level]] for d in detections]

        def target(seen: Recording, view: View) -> Target:
            return classes_target(groups, self._rows_of_scales(seen))

        return Plan(questions + self._of_scales(len(groups)), of_detection, target)

    def _of_scales(self, first: int) -> list[Question]:
        """Ask for the sum of each scale by itself; their scores are numbered from `first` on."""
        return [
            Question(number, layers, (Scale(stride),))
            for number, (stride, several) in enumerate(self._by_scale(self.layers).items(), start=first)
            for layers in dict.fromkeys(several)
        ]

    def _rows_of_scales(self, seen: Recording) -> list[list[slice]]:
        """Return which raw predictions come from each scale."""
        rows = [slice(*ends) for ends in zip(*row_ranges(self.levels, seen.head_inputs), strict=True)]
        return list(self._by_scale(rows).values())

    def _by_scale(self, entries: list) -> dict[int, list]:
        """Return what belongs to the head inputs by stride, several where an ensemble has it more than once."""
        found = {}
        if self.settings.scales:
            for level, entry in zip(self.levels, entries, strict=True):
                found.setdefault(level.stride, []).append(entry)
        return found

    def _groups(self, detection: Detection) -> tuple[Group, ...]:
        """Return which maps the evidence for a detection adds to."""
        group = self._class_group(detection.class_index)
        return (group, Scale(detection.stride)) if self.settings.scales else (group,)

    def _class_group(self, class_index: int) -> int | None:
        """Return which map a class adds to."""
        return class_index if self.settings.backward_per_class else None
