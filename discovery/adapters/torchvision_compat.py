"""Makes `import torchvision` (hence timm) work beside a torch build without torchvision's C++ operators.

torchvision's wheel is linked against CUDA torch. With CPU torch its operators are not registered, and importing it dies with
"operator torchvision::nms does not exist". Only their schemas are needed at import; the operators themselves are never called here.
Every module that needs timm imports it through `import_timm`.
"""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType


@cache
def import_timm() -> ModuleType:
    """The timm module. Raises ImportError when it is not installed."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    torch.ops.discovery_keep_torchvision = library  # a Library unregisters its schemas when it is collected
    return importlib.import_module("timm")
