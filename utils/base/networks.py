"""Networks: folding BatchNorm into convolutions, resizing what goes in, counting operations, a summary."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.base.logger import LOGGER

# grey of the letterbox border, 114/255 up to rounding
BORDER_VALUE = 0.447


def copy_attr(a, b, include: tuple = (), exclude: tuple = ()) -> None:
    """Copy the public attributes of `b` onto `a`: those in `include` (all where it is empty), none of `exclude`."""
    for name, value in vars(b).items():
        wanted = not include or name in include
        if wanted and not name.startswith("_") and name not in exclude:
            setattr(a, name, value)


def initialize_weights(model: nn.Module) -> None:
    """Set BatchNorm's eps 1e-3 and momentum 0.03, and let activations write in place; weights stay as built."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.03
        elif isinstance(module, (nn.Hardswish, nn.LeakyReLU, nn.ReLU, nn.ReLU6, nn.SiLU)):
            module.inplace = True


def fuse_conv_and_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d) -> nn.Conv2d:
    """Return one convolution that equals `conv` followed by `bn` in eval mode; both stay untouched.

    BatchNorm is y = gain·(x - mean) + bn.bias with gain = bn.weight / sqrt(var + eps), so it scales the kernel of
    each output channel and shifts the bias.
    """
    fused = copy.deepcopy(conv)
    needs_grad = conv.weight.requires_grad
    with torch.no_grad():
        gain = bn.weight / torch.sqrt(bn.running_var + bn.eps)
        offset = -bn.running_mean if conv.bias is None else conv.bias - bn.running_mean
        fused.weight = nn.Parameter(conv.weight * gain[:, None, None, None], requires_grad=needs_grad)
        fused.bias = nn.Parameter(offset * gain + bn.bias, requires_grad=needs_grad)
    return fused


def scale_img(img: Tensor, ratio: float = 1.0, same_shape: bool = False, gs: int = 32) -> Tensor:
    """Resize a batch (B, 3, H, W) in 0..1 by `ratio`, padded with grey on the right and below to multiples of `gs`.

    With `same_shape` the border reaches up to the size before.
    """
    if ratio == 1.0:
        return img
    size = img.shape[2:]
    scaled = [int(side * ratio) for side in size]
    goal = size if same_shape else [math.ceil(side * ratio / gs) * gs for side in size]
    img = F.interpolate(img, size=scaled, mode="bilinear", align_corners=False)
    return F.pad(img, (0, goal[1] - scaled[1], 0, goal[0] - scaled[0]), value=BORDER_VALUE)


def count_gflops(model: nn.Module, imgsz: int | tuple[int, int] = 640) -> float:
    """Return 1e9 floating-point operations (two per multiply-add) of the convolutions and linear layers.

    Counted in one forward pass on the smallest image the strides allow, then scaled to `imgsz` (height, width).
    """
    height, width = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    weight = next(model.parameters())
    stride = getattr(model, "stride", None)
    side = max(int(stride.max()), 32) if isinstance(stride, Tensor) else 32
    channels = (getattr(model, "yaml", None) or {}).get("ch", 3)
    image = torch.zeros(1, channels, side, side, device=weight.device, dtype=weight.dtype)
    return 2e-9 * _multiply_adds(model, image) * (height / side) * (width / side)


def _multiply_adds(model: nn.Module, image: Tensor) -> int:
    """Count multiply-adds of convolutions and linear layers in one eval pass; the mode is restored after."""
    total = 0

    def add(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        nonlocal total
        # a transposed convolution uses its kernel once per input cell, the others once per output cell
        transposed = isinstance(module, nn.ConvTranspose2d)
        cells = (inputs[0] if transposed else output).numel() // module.weight.shape[0]
        total += cells * module.weight.numel()

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    handles = [module.register_forward_hook(add) for module in model.modules() if isinstance(module, kinds)]
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad():
            model.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return total


def model_info(model: nn.Module, verbose: bool = False, imgsz: int | tuple[int, int] = 640) -> None:
    """Log one line of layers, parameters, gradients and GFLOPs; `verbose` adds a line per parameter before it."""
    parameters = dict(model.named_parameters())
    if verbose:
        LOGGER.info("%5s %-40s %9s %12s %-20s", "layer", "name", "gradient", "parameters", "shape")
        for i, (name, p) in enumerate(parameters.items()):
            LOGGER.info("%5d %-40s %9s %12d %-20s", i, name, p.requires_grad, p.numel(), list(p.shape))
    total = sum(p.numel() for p in parameters.values())
    trained = sum(p.numel() for p in parameters.values() if p.requires_grad)
    layers = sum(1 for _ in model.modules())
    gflops = count_gflops(model, imgsz)
    source = getattr(model, "yaml_file", "") or (getattr(model, "yaml", None) or {}).get("yaml_file", "")
    name = str(source).removesuffix(".yaml").replace("yolov5", "YOLOv5") or "Model"
    LOGGER.info(f"{name} summary: {layers} layers, {total} parameters, {trained} gradients, {gflops:.1f} GFLOPs")
