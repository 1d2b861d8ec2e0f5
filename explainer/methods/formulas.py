"""How a method turns a layer's activations and what speaks for a detection into a map.

Contributions say what each channel adds to each cell; a projection makes one map of them. The contributions are those of
the classes of pytorch_grad_cam where it has one that can be fed from outside.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from explainer.errors import UsageError

# activations A (1, C, h, w) and evidence that broadcasts to them, float32 -> what each channel adds, (C, h, w)
Contributions = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
# (C, h, w) -> map (h, w), float32, which may be negative
Projection = Callable[[np.ndarray], np.ndarray]
# activations and evidence -> map (h, w), float32, which may be negative
Formula = Callable[[np.ndarray, np.ndarray | None], np.ndarray]

# The kernel matrix of KPCA_CAM holds the square of it.
CELLS_IN_KERNEL = 6400

# How far ODAM smooths gradients: the standard deviation of its Gaussian, in cells of the layer.
SMOOTHING_CELLS = 1.0


@dataclass(frozen=True)
class Library:
    """The contributions by a class of pytorch_grad_cam, by its name; the library is imported when they are loaded."""

    name: str

    def loaded(self) -> Contributions:
        """Return the contributions."""
        import pytorch_grad_cam
        from torch import nn

        # The class wants a model to hook. It gets a stand-in: activations and gradients come from outside.
        cam = getattr(pytorch_grad_cam, self.name)(nn.Linear(1, 1), [])

        def contributions(activations: np.ndarray, gradients: np.ndarray | None) -> np.ndarray:
            # As a batch of maps with one channel each, the channels come back before they are added up.
            one_by_one = [None if array is None else array.swapaxes(0, 1) for array in (activations, gradients)]
            return cam.get_cam_image(None, None, None, *one_by_one, False)

        return contributions


def weighted(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return w A for evidence that is a weight w for each channel, (1, C, 1, 1), or a map itself."""
    return (weights * activations)[0]


def weighted_by_mean(activations: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """Return mean(G) A: each channel weighted by the mean of its evidence G."""
    return (evidence.mean(axis=(2, 3), keepdims=True) * activations)[0]


def weighted_by_guided_mean(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return mean(max(G, 0) [A > 0]) A: of the gradients the positive ones where the channel is active itself."""
    guided = np.where(activations > 0, np.maximum(gradients, 0), 0)
    return (guided.mean(axis=(2, 3), keepdims=True) * activations)[0]


def activations_alone(activations: np.ndarray, _: None) -> np.ndarray:
    """Return A as it is."""
    return activations[0]


def gradient_times_activation(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return G A, cell by cell."""
    return (gradients * activations)[0]


def absolute_gradient_times_activation(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return |G| A, cell by cell."""
    return (np.abs(gradients) * activations)[0]


def absolute_product(factors: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return |F G|, cell by cell, for a factor F that is an image or a bias."""
    return np.abs(factors * gradients)[0]


def smoothed_gradient_times_activation(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return the locally smoothed gradients (I, C, h, w) times the activation, cell by cell: (I, C, h, w)."""
    return smoothed(gradients) * activations


def weighted_by_mean_where_it_matters(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return mean(G) A S: the channels weighted by their mean gradient, and each cell by the size of its own.

    SSGrad-CAM, where S = |G| / max |G| is the space map of the channel.
    """
    return (gradients.mean(axis=(2, 3), keepdims=True) * activations * space_map(gradients))[0]


def weighted_by_region_where_it_matters(activations: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """Return the channels weighted as in Grad-CAM++ with the object's region, each cell by the size of its own gradient.

    SSGrad-CAM++: w A S with the space map S of SSGrad-CAM, w = sum(a max(G, 0)) and a = G^2 / (2 G^2 M + sum(A M) G^3),
    where M is 1 in the region and 0 elsewhere. The evidence (2, C, h, w) is G and M.
    """
    gradients, region = evidence[:1], evidence[1:] > 0
    in_region = (activations * region).sum(axis=(2, 3), keepdims=True)
    squared = gradients**2
    # The constant of pytorch_grad_cam's Grad-CAM++.
    alpha = squared / (2 * squared * region + in_region * gradients**3 + 1e-6)
    weights = (alpha * np.maximum(gradients, 0)).sum(axis=(2, 3), keepdims=True)
    return (weights * activations * space_map(gradients))[0]


def space_map(gradients: np.ndarray) -> np.ndarray:
    """Return the size of gradients (1, C, h, w) as a share of the largest of their channel, 0..1."""
    sizes = np.abs(gradients)
    return sizes / np.maximum(sizes.max(axis=(2, 3), keepdims=True), np.finfo(np.float32).tiny)


def smoothed(gradients: np.ndarray) -> np.ndarray:
    """Return gradients (I, C, h, w) under a Gaussian of one cell's standard deviation; beyond the edge they are zero."""
    import cv2

    flat = gradients.reshape(-1, *gradients.shape[2:])
    soft = [cv2.GaussianBlur(gradient, (0, 0), SMOOTHING_CELLS, borderType=cv2.BORDER_CONSTANT) for gradient in flat]
    return np.stack(soft).reshape(gradients.shape)


def largest_of_items(contributions: np.ndarray) -> np.ndarray:
    """Return the largest value at each cell of the maps of several items (I, C, h, w), each scaled to at most 1."""
    maps = contributions.sum(axis=1)
    if len(maps) > 1:
        maps = np.maximum(maps, 0)
        maps /= np.maximum(maps.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)
    return maps.max(axis=0)


def sum_of_channels(contributions: np.ndarray) -> np.ndarray:
    """Return the sum over the channels."""
    return contributions.sum(axis=0)


def sum_of_scaled_channels(contributions: np.ndarray) -> np.ndarray:
    """Return the sum over the channels, each scaled to 0..1 before."""
    low = contributions.min(axis=(1, 2), keepdims=True)
    span = contributions.max(axis=(1, 2), keepdims=True) - low
    return np.float32(((contributions - low) / (span + 1e-7)).sum(axis=0))


def principal_projection(contributions: np.ndarray) -> np.ndarray:
    """Return the projection of (C, h, w) on its first principal component.

    The library's function computes a full basis of the h*w pixels for it; the first right singular vector needs only the
    economy-size decomposition, which is 100 times cheaper on an 80x80 map and gives the same vector, sign included.
    """
    pixels = centred_pixels(contributions)
    _, _, components = np.linalg.svd(pixels, full_matrices=False)
    return np.float32(pixels @ components[0]).reshape(contributions.shape[1:])


def principal_projection_with_positive_peak(contributions: np.ndarray) -> np.ndarray:
    """Return the projection on the first principal component, turned so that its largest value is positive."""
    projection = principal_projection(contributions)
    return -projection if abs(projection.min()) > abs(projection.max()) else projection


def kernel_projection(contributions: np.ndarray) -> np.ndarray:
    """Return the projection on the first principal component under a sigmoid kernel between the cells."""
    from sklearn.decomposition import KernelPCA

    # The kernel of small activations is nearly flat: in single precision rounding shows in the map.
    pixels = centred_pixels(contributions.astype(np.float64))
    if len(pixels) > CELLS_IN_KERNEL:
        height, width = contributions.shape[1:]
        raise UsageError(
            f"KPCA_CAM compares all cells with each other, and a layer of {width}x{height} has too many "
            f"(at most {CELLS_IN_KERNEL}); give a smaller --imgsz or a coarser --layer"
        )
    # Seeded: the iteration that finds the component would start anywhere.
    projection = KernelPCA(n_components=1, kernel="sigmoid", random_state=0).fit_transform(pixels)
    if not projection.shape[1]:
        return np.zeros(contributions.shape[1:], dtype=np.float32)
    return np.float32(projection).reshape(contributions.shape[1:])


def centred_pixels(contributions: np.ndarray) -> np.ndarray:
    """Return (C, h, w) as one row for each cell, (h*w, C), with the mean of each column subtracted."""
    pixels = np.nan_to_num(contributions, nan=0.0).reshape(len(contributions), -1).T
    return pixels - pixels.mean(axis=0)


def formula_of(contributions: Contributions | Library, project: Projection) -> Formula:
    """Return the way from activations and evidence to a map; what the contributions come from is imported now."""
    made = contributions.loaded() if isinstance(contributions, Library) else contributions
    return lambda activations, evidence: project(made(activations, evidence))
