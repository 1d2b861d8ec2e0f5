"""The best and the worst explanations of an evaluation, as pictures."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from explainer.evaluation.contenders import Contender
from explainer.evaluation.evaluator import Evaluator
from explainer.evaluation.figures import DECISIVE
from explainer.evaluation.image_sets import read_image
from explainer.pictures.overlays import detection_tile, tile_sheet
from explainer.pictures.sheets import Tile

OF_EACH = 4


def extremes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of one contender with the highest figure, then those with the lowest, the most extreme first."""
    count = min(OF_EACH, len(rows) // 2)
    ordered = rows.sort_values(DECISIVE, ascending=False, kind="stable")
    return pd.concat([ordered.head(count), ordered.iloc[::-1].head(count)])


def example_sheets(rows: pd.DataFrame, evaluator: Evaluator) -> Iterator[tuple[str, np.ndarray]]:
    """Yield for each contender its name and one picture: the best of its explanations in the first line, then the worst."""
    for contender in evaluator.contenders:
        mine = rows[(rows.method == contender.method) & (rows.layer == contender.layer)]
        tiles = [tile_of(row, evaluator, contender) for row in extremes(mine).itertuples()]
        if tiles:
            name = f"{contender.method} {contender.layer}".strip().replace(" ", "_")
            yield name, tile_sheet(tiles, columns=len(tiles) // 2)


def tile_of(row, evaluator: Evaluator, contender: Contender) -> Tile:
    """Return the picture of one row of the table, and its figures."""
    image_rgb = read_image(row.image)
    detection, heatmap = evaluator.explain(image_rgb, row.row, contender)
    figures = f"deletion {row.deletion:.2f}, insertion {row.insertion:.2f}, in box {row.energy_in_box:.2f}"
    title = f"{getattr(row, DECISIVE):.2f}  {row.name} {row.confidence:.2f}: {figures}"
    return detection_tile(image_rgb, heatmap, detection, title)
