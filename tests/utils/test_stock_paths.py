"""Code written for YOLOv5 finds every name where it looks for it, and it is the very object that this tree uses."""

from importlib import import_module

import pytest

NAMES = {
    "general": "LOGGER ROOT Profile check_dataset check_file check_img_size check_imshow check_requirements check_suffix "
    "check_yaml clip_boxes colorstr increment_path init_seeds intersect_dicts non_max_suppression print_args scale_boxes "
    "strip_optimizer xywh2xyxy xywhn2xyxy xyxy2xywh xyxy2xywhn",
    "dataloaders": "FrameTransform IMG_FORMATS Item LoadImages LoadImagesAndLabels LoadScreenshots LoadStreams "
    "VID_FORMATS create_dataloader exif_transpose find_media img2label_paths read_image",
    "augmentations": "letterbox",
    "plots": "Annotator Color Colors PALETTE clip_boxes colors feature_visualization increment_path save_one_box "
    "write_image xywh2xyxy xyxy2xywh",
    "metrics": "ConfusionMatrix Curves FITNESS_WEIGHTS ap_per_class bbox_iou box_iou compute_ap compute_curves fitness "
    "smooth",
    "loss": "ComputeLoss FocalLoss Matches NEIGHBOUR_REACH OBJECTNESS_WEIGHTS OTHER_OBJECTNESS_WEIGHTS STEPS bbox_iou",
    "torch_utils": "BORDER_VALUE EarlyStopping LOGGER ModelEMA copy_attr count_gflops de_parallel fuse_conv_and_bn "
    "initialize_weights model_info scale_img select_device smart_inference_mode smart_optimizer time_sync",
    "downloads": "CHUNK_BYTES LOGGER OFFICIAL_WEIGHTS RELEASE_URL TIMEOUT_SECONDS attempt_download safe_download",
    "autoanchor": "GOOD_RECALL LLOYD_ROUNDS LOGGER SMALLEST_SIDE ZOOM check_anchor_order check_anchors colorstr "
    "kmean_anchors",
    "autobatch": "DEFAULT_BATCH LOGGER SHARE TRIED find_batch_size",
    "activations": "AconC FReLU Hardswish MemoryEfficientMish MemoryEfficientSwish MetaAconC Mish SiLU",
}
PAIRS = [(path, name) for path, names in NAMES.items() for name in names.split()]
# Where constants, which do not tell it themselves, are defined.
HOMES = {
    "LOGGER": "base.logger",
    "ROOT": "base.paths",
    "IMG_FORMATS": "base.media",
    "VID_FORMATS": "base.media",
    "Item": "sources.files",
    "FITNESS_WEIGHTS": "validating.metrics",
    "BORDER_VALUE": "base.networks",
    **dict.fromkeys(("CHUNK_BYTES", "OFFICIAL_WEIGHTS", "RELEASE_URL", "TIMEOUT_SECONDS"), "base.downloads"),
}


@pytest.mark.parametrize(("path", "name"), PAIRS, ids=lambda each: each)
def test_a_name_is_found_and_is_the_one_that_the_tree_uses(path, name):
    found = getattr(import_module(f"utils.{path}"), name)
    own = getattr(found, "__module__", "") if callable(found) and name not in HOMES else ""
    home = own if own.startswith("utils.") else f"utils.{HOMES.get(name, path)}"
    assert found is getattr(import_module(home), name)


@pytest.mark.parametrize("name", NAMES["activations"].split())
def test_activations_are_pickled_under_the_path_that_yolov5_has(name):
    assert getattr(import_module("utils.activations"), name).__module__ == "utils.activations"
