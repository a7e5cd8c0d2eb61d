import torch
from torch import nn

from lit_core.lightning.exact_buffers import ExactBuffers


class Exact(ExactBuffers):
    exact_buffers = ("layer.exact",)

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.layer.register_buffer("exact", torch.tensor([1 / 3]))
        self.layer.register_buffer("rounded", torch.tensor([1 / 3]))


def test_named_buffers_keep_their_values_and_all_else_is_converted():
    module = Exact()
    before = module.layer.exact.tolist()
    module.to(torch.bfloat16)
    assert module.layer.exact.dtype == torch.float32 and module.layer.exact.tolist() == before
    assert module.layer.rounded.dtype == module.layer.weight.dtype == torch.bfloat16
    assert set(module.state_dict()) == {"layer.weight", "layer.bias", "layer.exact", "layer.rounded"}


def test_named_buffers_move_to_another_device():
    assert Exact().to("meta", torch.bfloat16).layer.exact.is_meta
