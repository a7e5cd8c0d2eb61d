"""Each rank reads its own part of a checkpoint, and together they have all of it."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

pytest.importorskip("transformers")

from hugging_face import make, save
from torch.distributed.device_mesh import init_device_mesh

from lit_core.errors import UserError
from lit_moe.interop import load_sharded
from lit_moe.interop.folder import ModelFolder
from lit_moe.nn import Decoder
from lit_moe.parallel.sharding import shard


def decoder_like(model, seed=0, **changes):
    """Return a decoder of a model's shape with other weights."""
    folder = ModelFolder(str(model))
    config = folder.family.decoder_config(folder.config)
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    return Decoder(config)


def load_on_rank(rank, models, store, sides):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=sides[0] * sides[1])
    read, numbers = ModelFolder.read, []

    def counted(self, name, place):
        numbers.append(read(self, name, place).numel())
        return read(self, name, place)

    ModelFolder.read = counted
    mesh = init_device_mesh("cpu", sides, mesh_dim_names=("data_parallel", "expert_parallel"))
    for model in models:
        decoder, whole = decoder_like(model), decoder_like(model, seed=1)
        shard(decoder, mesh)
        numbers.clear()
        load_sharded(decoder, str(model))
        own, total = sum(numbers), sum(parameter.numel() for parameter in whole.parameters())
        assert own < 0.7 * total, f"rank {rank} read {own} of {total} numbers of {model}"
        load_sharded(whole, str(model))
        expected = whole.state_dict()
        for name, tensor in decoder.state_dict().items():
            assert torch.equal(tensor.full_tensor(), expected[name]), (model, name)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("sides", [(2, 1), (1, 2), (2, 2)], ids=str)
def test_ranks_read_their_own_parts(sides, tmp_path):
    """Of vocabularies that can't be divided evenly, in shards that begin anywhere."""
    cases = [("Mixtral", 0), ("Qwen2Moe", 1), *([("Llama", 1)] if sides[1] == 1 else [])]
    models = [save(make(*case, vocab_size=261), tmp_path / case[0], max_shard_size="40KB") for case in cases]
    mp.spawn(load_on_rank, (models, tmp_path / "store", sides), nprocs=sides[0] * sides[1])


def test_one_process_loads_what_an_import_holds_and_refuses_another_shape(tmp_path):
    theirs = make("Qwen2Moe", 1)
    save(theirs, tmp_path / "theirs", max_shard_size="40KB")
    decoder = decoder_like(tmp_path / "theirs")
    load_sharded(decoder, str(tmp_path / "theirs"))
    ids = torch.arange(40).view(1, 40)
    with torch.no_grad():
        torch.testing.assert_close(decoder.eval()(ids), theirs(ids).logits, rtol=0, atol=1e-4)
    with pytest.raises(
        UserError, match=r"embedding.weight has the shape \(260, 32\), but the decoder's has \(261, 32\)"
    ):
        load_sharded(decoder_like(tmp_path / "theirs", vocab_size=261), str(tmp_path / "theirs"))
