"""Passes of the network find the memory of those before."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PASSES = 20

EXPLANATIONS = f"""
from resource import RUSAGE_SELF, getrusage

import numpy as np
import torch

from explainer.explain import Explainer
from models.yolo import DetectionModel

torch.manual_seed(0)
explain = Explainer(DetectionModel("yolov5n.yaml").eval(), method="DRISE", masks={PASSES})
for _ in range(2):
    before = getrusage(RUSAGE_SELF).ru_minflt
    explain(np.full((640, 640, 3), 114, np.uint8), boxes=[(50, 50, 300, 300, 0)])
print("pages:", getrusage(RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep freed memory as they like")
def test_passes_over_and_over_ask_the_system_for_little_memory():
    done = subprocess.run([sys.executable, "-c", EXPLANATIONS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout.split("pages:")[1]) < 1000 * PASSES, "each pass took more than 4 MB of memory anew"
