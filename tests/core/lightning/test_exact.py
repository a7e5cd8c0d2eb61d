import torch
from torch import nn

from lit_core.lightning.exact_buffers import keep_exact


def test_buffers_get_their_values_back_and_weights_do_not():
    module = nn.Sequential(nn.Linear(2, 2))
    module[0].register_buffer("kept", torch.tensor([1 / 3]))
    module[0].register_buffer("rounded", torch.tensor([1 / 3]))
    before = {"0.kept": module[0].kept}
    module.to(torch.bfloat16)
    keep_exact(module, before)
    assert module[0].kept.dtype == torch.float32 and module[0].kept.tolist() == before["0.kept"].tolist()
    assert module[0].rounded.dtype == module[0].weight.dtype == torch.bfloat16
    assert set(module.state_dict()) == {"0.weight", "0.bias", "0.kept", "0.rounded"}
