"""EfficientNet-Lite0 (Tan and Le 2019, arXiv 1905.11946; the Lite variant of 2020): ReLU6, no squeeze-and-excitation.

Shape suffixes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 1280
_STAGES = (  # expansion, kernel, stride of the first block, width, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_BLOCK_NAMES = {
    "_expand_conv": "expand.0",
    "_bn0": "expand.1",
    "_depthwise_conv": "depthwise.0",
    "_bn1": "depthwise.1",
    "_project_conv": "project.0",
    "_bn2": "project.1",
}
_NAMES = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "head.0", "_bn1": "head.1", "_fc": "classifier"}


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 with the classifier of 1,000 ImageNet classes.

    A forward pass:

    1. a strided 3 × 3 convolution (the stem);
    2. 16 inverted bottlenecks in seven stages;
    3. a 1 × 1 convolution to 1,280 channels, averaged over positions: the features;
    4. a linear classifier.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _layer(3, 32, kernel=3, stride=2)
        blocks, width = [], 32
        for expansion, kernel, first_stride, stage_width, count in _STAGES:
            for number in range(count):
                stride = first_stride if number == 0 else 1
                blocks.append(_Block(width, stage_width, expansion, kernel, stride))
                width = stage_width
        self.blocks = nn.Sequential(*blocks)
        self.head = _layer(width, WIDTH)
        self.classifier = nn.Linear(WIDTH, 1000)

    def features(self, x_B3HW: Tensor) -> Tensor:
        """Return the inputs of the classifier, ``(batch, 1280)``."""
        return self.head(self.blocks(self.stem(x_B3HW))).mean(dim=(2, 3))

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Return logits ``(batch, 1000)`` of images that are normalised as in training."""
        return self.classifier(self.features(x_B3HW))


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the published weights, whose names follow TensorFlow, under the names of `EfficientNetLite0`."""
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            renamed[".".join(["blocks", parts[1], _BLOCK_NAMES[parts[2]], *parts[3:]])] = value
        else:
            renamed[".".join([_NAMES[parts[0]], *parts[1:]])] = value
    return renamed


class _SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding: if the padding is odd, right and bottom get one more."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x_BCHW.shape[2:])
        return super().forward(F.pad(x_BCHW, (width // 2, width - width // 2, height // 2, height - height // 2)))


class _Block(nn.Module):
    """An inverted bottleneck: expansion, depthwise convolution, projection; with a shortcut if shapes agree."""

    def __init__(self, width: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = _layer(width, inner) if expansion > 1 else nn.Identity()
        self.depthwise = _layer(inner, inner, kernel=kernel, stride=stride, groups=inner)
        self.project = _layer(inner, out)[:2]
        self.shortcut = stride == 1 and width == out

    def forward(self, x_BCHW: Tensor) -> Tensor:
        out_BCHW = self.project(self.depthwise(self.expand(x_BCHW)))
        return x_BCHW + out_BCHW if self.shortcut else out_BCHW


def _layer(width: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = _SameConv(width, out, kernel, stride, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out, eps=1e-3), nn.ReLU6())
