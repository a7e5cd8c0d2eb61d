"""The file of chosen experts: what it holds against naive reading, damage, and what `RouterDrift` makes of it."""

import io
import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from lit_core.data import ResumeStream
from lit_core.errors import UserError
from lit_core.files.formats import NewerFormat
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.callbacks import RouterDrift
from lit_moe.fingerprint import Fingerprint
from lit_moe.module import MoELanguageModel
from lit_moe.nn import BiasRouter, DecoderConfig, HFConfig, MoEConfig
from lit_moe.probe import Probe, probe_of

DOMAINS = ("new", "old")


@pytest.fixture(scope="module")
def routed_model():
    """Somebody else's LightningModule that can be compared."""
    from byte_run import ByteModel

    class Routed(ByteModel):
        config = SimpleNamespace(vocab_size=256)

        def routing_step(self, batch):
            return self.nll(batch)[1]

    return Routed


@pytest.fixture(scope="module")
def before(routed_model, tmp_path_factory):
    """Paths of a checkpoint of a model that has learnt a little, and of its fingerprint on the validation's tokens."""
    from byte_run import ByteData

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_steps=8, limit_val_batches=0, callbacks=[ResumeStream()], **quiet)
    model = routed_model()
    trainer.fit(model, datamodule=ByteData(replay=False))
    folder = tmp_path_factory.mktemp("before")
    trainer.save_checkpoint(folder / "before.ckpt")
    windows = ByteData().sources(30)
    samples = [(number, windows[name][i]) for number, name in enumerate(DOMAINS) for i in range(30)]
    rows = torch.stack([torch.cat([one["input_ids"], one["labels"][-1:]]) for _, one in samples])
    probe = Probe(rows, torch.tensor([number for number, _ in samples]), DOMAINS, "0" * 64, batch_size=4)
    (folder / "before.npz").write_bytes(Fingerprint.of(model.eval(), probe).content())
    return SimpleNamespace(checkpoint=str(folder / "before.ckpt"), fingerprint=str(folder / "before.npz"))


def measured(trainer):
    return {key: float(value) for key, value in trainer.callback_metrics.items() if "/router/" in key}


@pytest.mark.parametrize("stage", ["test", "validate"])
def test_a_fingerprint_tells_what_the_second_model_tells(routed_model, byte_data, make_trainer, before, stage):
    told = []
    for reference in (before.checkpoint, before.fingerprint):
        trainer = make_trainer(RouterDrift(reference, min_occurrences=4))
        getattr(trainer, stage)(routed_model(), datamodule=byte_data(), verbose=False)
        told.append(measured(trainer))
    assert len(told[0]) == 2 * 8 * 3 and told[1] == told[0]
    assert 0.4 < told[0][f"{stage[:4].replace('vali', 'val')}/old/router/crs/mean"] < 0.99


def test_the_same_weights_have_the_same_routing_and_no_second_model(routed_model, byte_data, make_trainer, before):
    model = routed_model()
    model.load_state_dict(torch.load(before.checkpoint, weights_only=True)["state_dict"])
    callback = RouterDrift(before.fingerprint)
    trainer = make_trainer(callback)
    trainer.validate(model, datamodule=byte_data(), verbose=False)
    values = measured(trainer)
    for source in DOMAINS:
        for name in ("crs", "coactivation"):
            assert values[f"val/{source}/router/{name}/mean"] == 1
    assert not [part for part in vars(callback).values() if isinstance(part, torch.nn.Module)]


def test_two_processes_compare_as_one(routed_model, byte_data, make_trainer, read_metrics, before):
    for name, devices in (("one", {}), ("two", {"devices": 2, "strategy": "ddp_fork"})):
        trainer = make_trainer(RouterDrift(before.fingerprint, min_occurrences=4), name=name, **devices)
        trainer.validate(routed_model(), datamodule=byte_data(), verbose=False)
    one, two = read_metrics("one"), read_metrics("two")
    keys = [key for key in one if "/router/" in key]
    assert len(keys) == 2 * 8 * 3
    assert {key: two[key] for key in keys} == {key: one[key] for key in keys}


def test_the_limit_warns_once_also_over_a_resume_and_changes_nothing(
    routed_model, byte_data, make_trainer, before, tmp_path, recwarn
):
    def fit(steps, callbacks, **options):
        trainer, model = make_trainer(*callbacks, val_check_interval=4, max_steps=steps), routed_model()
        trainer.fit(model, datamodule=byte_data(replay=False), **options)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return [str(one.message) for one in recwarn if "RouterDrift's limit" in str(one.message)], model.state_dict()

    def drift(limit=0.05):
        return [RouterDrift(before.fingerprint, limit=limit)]

    said, _ = fit(4, drift())
    [sentence] = said
    assert sentence.startswith("At step ") and f"those of {before.fingerprint}, more than RouterDrift's" in sentence
    assert " of layer_0" in sentence.replace("layer ", "layer_0") and "on val/" in sentence and "0.05" in sentence
    recwarn.clear()
    said, resumed = fit(8, drift(), ckpt_path=tmp_path / "4.ckpt", weights_only=True)
    assert not said
    _, whole = fit(8, [])
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    assert not fit(4, drift(limit=1.0))[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"limit": 1.5}, r"limit is 1\.5, but must be a share"),
        ({"limit": float("nan")}, "limit is nan"),
        ({"limit": 0.1, "during_fit": False}, r"limit is 0\.1, but must be null where during_fit is false"),
    ],
)
def test_a_limit_that_cannot_hold_is_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        RouterDrift("f.npz", **arguments)


def tiny(**changes):
    shape = {"n_experts": 4, "top_k": 2, "expert_width": 8, **changes}
    decoder = DecoderConfig(300, 2, 16, 2, feed_forward=MoEConfig(**shape))
    return MoELanguageModel(decoder, router=BiasRouter, seed=0).eval()


PROBE = probe_of({"one": [range(20), range(30, 50)], "two": [[5, 6, 7]]}, 8, 33, Tokenizer.bytes().sha256, 3)


def test_a_probe_is_cut_into_sequences_with_the_token_that_follows():
    rows = [row.tolist() for row in PROBE.rows]
    ids = [*range(20), *range(30, 44)]
    assert rows[:4] == [ids[start : start + 9] for start in (0, 8, 16, 24)]
    assert rows[4] == [ids[32], ids[33], *[-1] * 7] and rows[5] == [5, 6, 7, *[-1] * 6]
    assert PROBE.domain.tolist() == [0] * 5 + [1] and int(PROBE.counted.sum()) == 33 + 2
    with pytest.raises(UserError, match="The text of empty has 1 tokens"):
        probe_of({"empty": [[3]]}, 8, 33, "", 3)


def test_the_experts_are_those_that_each_sequence_gets_alone():
    model = tiny()
    found = Fingerprint.of(model, PROBE)
    for number, row in enumerate(PROBE.rows):
        length = int((row[1:] >= 0).sum())
        with torch.no_grad():
            model(row[:length][None])
        seen = [layer.feed_forward.stats.indices for layer in model.decoder.layers]
        assert all(torch.equal(each[number, :length], one) for each, one in zip(found.experts, seen, strict=True))


@pytest.mark.filterwarnings("ignore")
def test_the_experts_of_a_model_of_transformers_are_those_of_its_router_logits():
    pytest.importorskip("transformers")
    shape = {"model_type": "olmoe", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2}
    model = MoELanguageModel(DecoderConfig(300), hugging_face=HFConfig(config=shape), seed=0).eval()
    found = Fingerprint.of(model, PROBE)
    with torch.no_grad():
        out = model.decoder.model(input_ids=PROBE.ids[:4], output_router_logits=True)
    assert found.sizes == [(4, 2)] * 2
    for each, logits in zip(found.experts, out.router_logits, strict=True):
        wanted = logits.topk(2).indices.view(4, 8, 2)
        assert torch.equal(each[:4].sort(-1).values, wanted.sort(-1).values)


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "f.npz"
    path.write_bytes(Fingerprint.of(tiny(), PROBE).content())
    return path


def test_what_is_written_is_read_and_equal_models_give_equal_files(written, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 2e9)
    found, again = Fingerprint.load(written, "reference"), Fingerprint.of(tiny(), PROBE)
    assert again.content() == written.read_bytes() == found.content()
    assert torch.equal(found.probe.rows, PROBE.rows) and found.n_experts == (4, 4)
    with np.load(written) as plain:  # as anybody reads it
        assert json.loads(str(plain["about"]))["domains"] == ["one", "two"] and plain["experts_1"].shape == (6, 8, 2)


def rewrite(path, **changes):
    with np.load(path) as plain:
        arrays = dict(plain)
    about = json.loads(str(arrays["about"])) | changes.pop("about", {})
    arrays |= {"about": np.array(json.dumps(about))} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def damage(path, how):
    with np.load(path) as plain:
        rows, experts = plain["rows"], plain["experts_0"]
    if how == "torn":
        path.write_bytes(path.read_bytes()[:400])
    elif how == "no npz":
        path.write_text("no fingerprint")
    elif how == "another npz":
        np.savez(path, x=np.zeros(3))
    elif how == "objects":
        rewrite(path, rows=np.array([print], dtype=object))
    elif how == "other tokens":
        rewrite(path, rows=rows + (rows == 3))
    elif how == "experts that are not there":
        rewrite(path, experts_0=experts + 3)
    elif how == "a layer less":
        rewrite(path, experts_1=None)
    elif how == "fewer sequences":
        rewrite(path, experts_0=experts[1:])
    elif how == "texts for numbers":
        rewrite(path, rows=rows.astype(str))
    elif how == "infinite":
        rewrite(path, rows=np.where(rows > 3, np.inf, rows))
    elif how == "no mapping":
        rewrite(path)
        with zipfile.ZipFile(path, "a") as archive, io.BytesIO() as content:
            np.save(content, np.array("[1]"))
            archive.writestr("about.npy", content.getvalue())
    else:
        rewrite(path, about=how)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "how",
    [
        *("torn", "no npz", "another npz", "objects", "other tokens", "experts that are not there", "a layer less"),
        *("fewer sequences", "texts for numbers", "infinite", "no mapping", {"format": "other"}, {"version": 0}),
        *({"domains": []}, {"domains": ["a"]}, {"batch_size": 0}, {"n_experts": "4"}, {"n_experts": [4]}),
        {"n_experts": [4, 4, 4]},
    ],
    ids=str,
)
def test_a_damaged_file_is_refused_in_a_sentence(written, how):
    damage(written, how)
    with pytest.raises(UserError, match=r"f\.npz") as error:
        Fingerprint.load(written, "reference")
    assert "\n" not in str(error.value) and "lit-moe fingerprint" in str(error.value)


def test_a_newer_version_and_no_file_are_refused(written):
    rewrite(written, about={"version": 99})
    with pytest.raises(NewerFormat):
        Fingerprint.load(written, "reference")
    with pytest.raises(UserError, match=r"reference is nowhere.npz, but there is no such file"):
        Fingerprint.load("nowhere.npz", "reference")


def test_what_cannot_be_compared_is_refused(written):
    from lit_moe.callbacks.reference import load_fingerprint

    assert load_fingerprint(str(written), tiny(), Tokenizer.bytes()).sizes == [(4, 2)] * 2
    with pytest.raises(UserError, match=r"2 mixture layers of 4 experts, 2 per token, but this model has .* 8 experts"):
        load_fingerprint(str(written), tiny(n_experts=8), None)
    with pytest.raises(UserError, match=r"2 mixture layers of 4 experts, 2 per token, but this model has .* 3 per"):
        load_fingerprint(str(written), tiny(top_k=3), None)
    other = Tokenizer.train_bpe(["a text, and a text"], 270)
    with pytest.raises(UserError, match=r"whose tokens are of the tokenizer .* but the data were prepared with"):
        load_fingerprint(str(written), tiny(), other)
    model = tiny()
    model.config = SimpleNamespace(vocab_size=40)
    with pytest.raises(UserError, match="has the token 43, but this model knows 40 tokens"):
        load_fingerprint(str(written), model, None)
    with pytest.raises(UserError, match=r"routing_step\(batch\), which LightningModule does not have"):
        from lightning.pytorch import LightningModule

        load_fingerprint(str(written), LightningModule(), None)
