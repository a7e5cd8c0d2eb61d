"""A run that carries its own fingerprint, which later runs take as their reference."""

import pytest
import torch
from test_module import tiny_data, tiny_decoder

from lit_core.errors import UserError
from lit_moe.callbacks import RouterDrift, RoutingFingerprint
from lit_moe.commands.fingerprint import fingerprint
from lit_moe.fingerprint import Fingerprint
from lit_moe.module import MoELanguageModel
from lit_moe.nn import BiasRouter


def fit(make_trainer, root, *callbacks, decoder=None):
    model = MoELanguageModel(decoder or tiny_decoder(), router=BiasRouter, seed=0)
    trainer = make_trainer(*callbacks, max_steps=2, limit_val_batches=0)
    trainer.fit(model, datamodule=tiny_data(root))
    return model, trainer


def test_it_is_that_of_the_last_checkpoint_and_the_run_is_the_run_without(token_root, make_trainer, tmp_path):
    plain, _ = fit(make_trainer, token_root)
    model, trainer = fit(make_trainer, token_root, RoutingFingerprint(tokens=90, sequence_length=12))
    assert model.training
    weights = plain.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    more = {"tokens": 90, "sequence_length": 12, "device": "cpu"}
    fingerprint(str(tmp_path / "last.ckpt"), str(tmp_path / "verb.npz"), **more)
    path = f"{trainer.default_root_dir}/fingerprint.npz"
    own, verb = (Fingerprint.load(each, "reference") for each in (path, tmp_path / "verb.npz"))
    assert own.sha256 == verb.sha256 and own.probe.rows.shape[1] == 13
    trainer = make_trainer(RouterDrift(path))
    trainer.validate(model, datamodule=tiny_data(token_root), verbose=False)
    assert trainer.callback_metrics["val/emma/router/crs/mean"] == 1


def test_what_it_cannot_store_is_refused_before_the_training(token_root, make_trainer, byte_model, byte_data):
    with pytest.raises(UserError, match="texts has nowhere for a, but there is no such file"):
        fit(make_trainer, token_root, RoutingFingerprint(texts={"a": "nowhere"}))
    with pytest.raises(UserError, match="sequence_length is 99999, but the model takes at most"):
        fit(make_trainer, token_root, RoutingFingerprint(sequence_length=99999))
    with pytest.raises(UserError, match="but the model has no mixture layers; leave it out"):
        fit(make_trainer, token_root, RoutingFingerprint(), decoder=tiny_decoder(feed_forward="dense"))
    with pytest.raises(UserError, match=r"routing_step\(batch\), which ByteModel does not have"):
        make_trainer(RoutingFingerprint(), max_steps=1).fit(byte_model(), datamodule=byte_data(replay=False))
    with pytest.raises(UserError, match="batch_size is 0"):
        RoutingFingerprint(batch_size=0)
