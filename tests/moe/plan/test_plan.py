"""What `plan` says, against torch's own tracking of real training steps."""

import json
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed._tools.mem_tracker import MemTracker
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lit_core.errors import UserError
from lit_moe.cli import main
from lit_moe.functional.token_nll import token_nll
from lit_moe.module import MoELanguageModel
from lit_moe.nn import AdapterConfig, Decoder, DecoderConfig, MoEConfig, PenaltyRouter
from lit_moe.parallel.sharding import shard, without_reduction
from lit_moe.plan.costs import describe, optimizer_memory, plan, training_flops
from lit_moe.plan.layout import Layout
from lit_moe.plan.memory import StepMemory, total
from lit_moe.plan.network import parameters_by_part
from lit_moe.plan.traffic import wire_bytes

BATCH, LENGTH = 4, 192
LAYOUT = Layout(micro_batch_size=BATCH, sequence_length=LENGTH)
MOE = MoEConfig(n_experts=8, top_k=2, expert_width=48, n_shared=1, shared_gate=True, normalize_top_k=True)
LORA = AdapterConfig(["attention.q", "experts"], rank=2)
VARIANTS = {
    "16 bits": ({}, {"precision": "bf16-true"}),
    "mixed": ({}, {"precision": "bf16-mixed"}),
    "mixed, recomputed": ({"activation_checkpointing": True}, {"precision": "bf16-mixed"}),
    "accumulated": ({}, {"accumulation": 2}),
    "normalised heads": ({"qk_norm": "all", "clip_qkv": 2.0, "n_kv_heads": 1, "norm": "layernorm"}, {}),
    "gated": ({"feed_forward": MOE}, {}),
    "grouped": ({"feed_forward": MoEConfig(n_experts=8, top_k=2, expert_width=48, backend="grouped_mm")}, {}),
    "in chunks": ({"vocab_size": 100_000, "tie_embeddings": True}, {}),
}


def language_model(feed_forward, optimizer=torch.optim.AdamW, **changes):
    shape = {"vocab_size": 600, "n_layers": 3, "d_model": 64, "n_heads": 4, "d_ff": 176, "feed_forward": feed_forward}
    parts = {name: changes.pop(name) for name in ("freeze", "adapter") if name in changes}
    config = DecoderConfig(**{**shape, **changes})
    return MoELanguageModel(config, router=PenaltyRouter, optimizer=lambda weights: optimizer(weights), **parts)


def on_meta(*arguments, **changes):
    with torch.device("meta"):
        return language_model(*arguments, **changes)


def guessed(model, layout):
    return StepMemory(describe(model.decoder, layout), layout, *optimizer_memory(model, layout)).moments


def sent(decoder, layout):
    return wire_bytes(describe(decoder, layout), layout)


def stepped(optimizer):
    optimizer.step()
    optimizer.zero_grad()


def tracked(model, layout):
    """Return the most that a real step of training holds, and what a forward pass leaves behind, in bytes."""
    if layout.stored == 2:
        model.to(torch.bfloat16)
    optimizer = model.configure_optimizers()
    ids = torch.randint(model.config.vocab_size, (layout.micro_batch_size, layout.sequence_length + 1))
    batch = {"input_ids": ids[:, :-1].contiguous(), "labels": ids[:, 1:].contiguous()}
    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    with tracker:
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        stepped(optimizer)  # which makes the optimizer's states
        for _ in range(layout.accumulation):
            tracker.reset_mod_stats()
            with torch.autocast("cpu", torch.bfloat16, enabled="mixed" in layout.precision):
                loss = model.training_step(batch, 0)
            now = tracker.get_tracker_snapshot("current")[torch.device("cpu")]
            loss.backward()
            del loss
        stepped(optimizer)
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
    states = [value for state in optimizer.state.values() for value in state.values()]
    return peak["Total"], now["Total"] - sum(value.nbytes for value in states)


# the tracker follows each operation of each of the many experts
@pytest.mark.parametrize(
    ("feed_forward", "recompute"),
    [
        *(("dense", False), ("dense", True), ("switch", False), ("switch", True), ("granular", True)),
        pytest.param("granular", False, marks=pytest.mark.slow),
    ],
)
def test_memory_is_what_torch_tracks(feed_forward, recompute):
    model = language_model(feed_forward, activation_checkpointing=recompute)
    moments = guessed(model, LAYOUT)
    peak, kept = tracked(model, LAYOUT)
    assert max(total(parts) for parts in moments.values()) == pytest.approx(peak, rel=0.15)
    loss = moments["loss"]
    # of a logit's 12 bytes, 4 are there before the backward pass
    assert loss["weights"] + loss["activations"] + loss["logits"] / 3 == pytest.approx(kept, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_memory_of_variants_is_what_torch_tracks(name):
    changes, layout = VARIANTS[name]
    for feed_forward in [changes.get("feed_forward")] if "feed_forward" in changes else ["dense", "granular"]:
        model = language_model(**{"feed_forward": feed_forward, **changes})
        where = Layout(micro_batch_size=BATCH, sequence_length=LENGTH, **layout)
        guess = max(total(parts) for parts in guessed(model, where).values())
        assert guess == pytest.approx(tracked(model, where)[0], rel=0.15), feed_forward


@pytest.fixture
def pretended():
    """Puts a model on the first of several devices, of which the others are only pretended to be there."""

    def divide(model, devices, precision="32-true"):
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=devices)
        names = ("data_parallel", "tensor_parallel")
        shard(model.decoder, init_device_mesh("cpu", (devices, 1), mesh_dim_names=names), precision)

    yield divide
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("devices", [2, 8])
def test_memory_of_a_shard_is_what_torch_tracks(devices, precision, pretended):
    model = language_model("dense")
    layout = Layout(devices, True, 1, precision, BATCH, LENGTH)
    guess = max(total(parts) for parts in guessed(model, layout).values())
    if layout.stored == 2:
        model.to(torch.bfloat16)
    pretended(model, devices, precision)
    assert guess == pytest.approx(tracked(model, layout)[0], rel=0.15)


class Wire(TorchDispatchMode):
    """Counts the bytes of what collectives gather and reduce, whole."""

    def __init__(self):
        super().__init__()
        self.gathered = self.reduced = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.c10d._allgather_base_.default:
            self.gathered += args[0].nbytes
        elif function is torch.ops.c10d._reduce_scatter_base_.default:
            self.reduced += args[1].nbytes
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("feed_forward", "recompute", "precision"),
    [("dense", False, "32-true"), ("dense", True, "32-true"), (MoEConfig(8, 2, 48, n_shared=1), False, "bf16-mixed")],
    ids=str,
)
def test_shards_gather_and_reduce_what_is_said(feed_forward, recompute, precision, pretended):
    model = language_model(feed_forward, activation_checkpointing=recompute)
    said = sent(model.decoder, Layout(4, True, 1, precision))
    pretended(model, 4, precision)
    ids = torch.randint(model.config.vocab_size, (2, 33))
    with Wire() as wire, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        model.training_step({"input_ids": ids[:, :-1], "labels": ids[:, 1:]}, 0).backward()
    assert said["weights, gathered"] == pytest.approx(ring(4, wire.gathered))
    assert said["gradients, reduced"] == pytest.approx(ring(4, wire.reduced))


@pytest.mark.parametrize("foreach", [False, True])
def test_the_optimizer_needs_what_torch_tracks(foreach):
    few = Layout(micro_batch_size=1, sequence_length=8)  # so that the step is the largest moment
    model = language_model("granular", lambda weights: torch.optim.AdamW(weights, foreach=foreach))
    moments = guessed(model, few)
    assert max(moments, key=lambda name: total(moments[name])) == "optimizer step"
    assert total(moments["optimizer step"]) == pytest.approx(tracked(model, few)[0], rel=0.02)


def test_states_are_counted_for_any_optimizer():
    kinds = {
        8: lambda weights: torch.optim.AdamW(weights, fused=True),
        4: lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9),
        0: lambda weights: torch.optim.SGD(weights, lr=0.1),
    }
    for states, kind in kinds.items():
        assert optimizer_memory(on_meta("dense", kind), LAYOUT)[0] == pytest.approx(states)
        assert optimizer_memory(on_meta("dense", kind), Layout(precision="bf16-true"))[0] == pytest.approx(states + 2)
    assert optimizer_memory(on_meta("dense", kinds[8]), LAYOUT)[1] == 0


@pytest.mark.parametrize("parts", [{"freeze": ["experts", "embedding"]}, {"freeze": ["layers.1.*"]}, {"adapter": LORA}])
def test_frozen_weights_have_no_gradients_states_or_traffic(parts):
    if "adapter" in parts:
        pytest.importorskip("peft")
    model = language_model("granular", **parts)
    moments = guessed(model, Layout(accumulation=2))
    optimizer = model.configure_optimizers()
    ids = torch.randint(model.config.vocab_size, (2, 33))
    model.training_step({"input_ids": ids[:, :-1], "labels": ids[:, 1:]}, 0).backward()
    optimizer.step()
    gradients = [weight.grad.nbytes for weight in model.parameters() if weight.grad is not None]
    states = [value.nbytes for state in optimizer.state.values() for value in state.values() if value.dim()]
    assert sum(gradients) < 0.8 * moments["loss"]["weights"]
    step = moments["optimizer step"]
    assert (step["gradients"], step["optimizer states"]) == (sum(gradients), sum(states))
    assert moments["loss"]["gradients"] == sum(gradients)  # of the first micro-batch
    assert moments["backward pass"]["gradients"] >= sum(gradients)
    assert optimizer_memory(model, Layout()) == (8.0, 2 * max(gradients))
    assert sent(model.decoder, Layout(2))["gradients, summed"] == sum(gradients)


def test_a_shard_has_and_sends_gradients_of_trained_weights(pretended):
    model = language_model("dense", freeze=["layers.*.attention"])
    layout = Layout(4, True, micro_batch_size=BATCH, sequence_length=LENGTH)
    said, whole = (sent(one.decoder, layout) for one in (model, language_model("dense")))
    frozen = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
    assert whole["weights, gathered"] == said["weights, gathered"]
    assert whole["gradients, reduced"] - said["gradients, reduced"] == pytest.approx(ring(4, 4 * frozen))
    pretended(model, 4)
    ids = torch.randint(model.config.vocab_size, (2, 33))
    with Wire() as wire:
        model.training_step({"input_ids": ids[:, :-1], "labels": ids[:, 1:]}, 0).backward()
    assert said["gradients, reduced"] == pytest.approx(ring(4, wire.reduced))


def test_a_plan_is_the_same_from_the_meta_device():
    model = language_model("granular")
    assert plan(model, LAYOUT) == plan(on_meta("granular"), LAYOUT)
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    "feed_forward", ["dense", "switch", "granular", MoEConfig(4, 2, 24, n_shared=1, shared_gate=True)], ids=str
)
def test_flops_are_what_torch_counts(feed_forward, recompute):
    config = DecoderConfig(50, 2, 32, 4, d_ff=48, feed_forward=feed_forward, activation_checkpointing=recompute)
    decoder, ids = Decoder(config), torch.arange(48).view(3, 16)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        token_nll(decoder.hidden(ids), ids, decoder.head, 50).sum().backward()
    layout = Layout(micro_batch_size=3, sequence_length=16)
    modelled, done = training_flops(describe(decoder, layout), layout)
    assert counter.get_total_flops() == 48 * done
    assert (done > modelled) == recompute


def ring(n, size):
    """Return what each of n devices sends until all have all parts of something, part by part around a ring."""
    have = [{device} for device in range(n)]
    sent = 0.0
    while any(len(parts) < n for parts in have):
        latest = [(device - len(have[device]) + 1) % n for device in range(n)]
        for device, part in enumerate(latest):
            have[(device + 1) % n].add(part)
        sent += size / n
    return sent


def test_gradients_may_be_reduced_once(pretended):
    model = language_model("dense")
    each, once = (Layout(4, True, 1, "32-true", 2, 32, 3, reduce_once=which) for which in (False, True))
    said = {layout.reduce_once: sent(model.decoder, layout)["gradients, reduced"] for layout in (each, once)}
    kept = {layout.reduce_once: guessed(model, layout)["loss"]["gradients"] for layout in (each, once)}
    whole = 4 * sum(weight.numel() for weight in model.parameters())
    assert said[False] == 3 * said[True] and kept == {False: whole / 4, True: whole}
    pretended(model, 4)
    ids = torch.randint(model.config.vocab_size, (2, 33))
    with Wire() as wire:
        for last in (False, False, True):
            with nullcontext() if last else without_reduction(model):
                model.training_step({"input_ids": ids[:, :-1], "labels": ids[:, 1:]}, 0).backward()
    assert said[True] == pytest.approx(ring(4, wire.reduced))


def test_bytes_on_the_wire():
    decoder = on_meta("switch").decoder
    weights = 4.0 * decoder.parameter_counts().total
    assert sent(decoder, Layout(devices=6)) == {"gradients, summed": pytest.approx(2 * ring(6, weights))}
    sharded = sent(decoder, Layout(devices=6, sharded=True, accumulation=3))
    assert sharded["gradients, reduced"] == pytest.approx(3 * ring(6, weights))
    layout = Layout(devices=8, sharded=True, expert_parallel=4, precision="bf16-mixed", sequence_length=128)
    experts = 4.0 * sum(weight.numel() for name, weight in decoder.named_parameters() if "experts" in name)
    parts = sent(decoder, layout)
    # the two devices that hold the same quarter of the experts gather and reduce it between them
    assert parts["gradients, reduced"] == pytest.approx(ring(8, weights - experts) + ring(2, experts / 4))
    # one expert per token, three of four elsewhere: there and back, in three layers, forward and backward
    assert parts["tokens, to experts and back"] == 128 * 3 / 4 * 2 * 3 * 2 * 64 * 2


def test_shards_and_expert_parallelism_divide_the_weights():
    model = on_meta("switch")
    alone = guessed(model, LAYOUT)["optimizer step"]
    for expert_parallel in (1, 4):
        layout = Layout(8, True, expert_parallel, "32-true", BATCH, LENGTH)
        shared = guessed(model, layout)["optimizer step"]
        for part in ("weights", "gradients", "optimizer states"):
            assert shared[part] == pytest.approx(alone[part] / 8)
    gathered = [guessed(model, Layout(8, True, ep, "32-true", 1, 1))["loss"]["communication"] for ep in (1, 4)]
    assert gathered[1] < gathered[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"tflops": -1.0}, "tflops is -1.0"),
        ({"utilisation": 1.5, "tflops": 1.0}, "utilisation is 1.5"),
        ({"price": 2.0}, "price is given but tflops is not"),
        ({"device_memory": 0.0}, "device_memory is 0.0"),
        ({"layout": Layout(6, True, 3)}, "n_experts is 8, but 3 devices"),
        ({"layout": Layout(sequence_length=4096)}, "sequence_length is 4096 but max_seq_len is 2048"),
    ],
)
def test_refuses(arguments, said):
    with pytest.raises(UserError, match=said):
        plan(on_meta("switch"), **{"layout": LAYOUT, **arguments})


@pytest.fixture
def run_plan(tmp_path, monkeypatch, capsys, token_root):
    """Plans with the quickstart's config, on the data of the tests unless told otherwise."""
    monkeypatch.chdir(tmp_path)

    def run(*flags, root=token_root, code=0, config="configs/moe/quickstart/pretrain.yaml"):
        assert main(["plan", "--config", config, "--data.init_args.root", str(root), *flags]) == code
        out, err = capsys.readouterr()
        assert not list(Path().iterdir()), "a plan writes nothing"
        return err if code else out

    return run


def test_plan_takes_what_fit_takes(run_plan):
    """With several configs and flags, an earlier one overridden, and the vocabulary from the data."""
    text = run_plan("--config", "configs/trainer/gpu8_ddp.yaml", "--data.init_args.micro_batch_size=2")
    assert "240 optimizer steps of 8 devices under DDP, 2 × 2 sequences of 128 tokens each, bf16-mixed" in text
    model = MoELanguageModel(DecoderConfig(384, 3, 128, 4, d_ff=384, tie_embeddings=True, feed_forward="granular"))
    counts = model.decoder.parameter_counts()
    assert re.search(rf"sum +{counts.total:,} +{counts.active:,}\n", text)
    assert "time" not in text and "Does not fit" not in text


def test_plan_without_data(run_plan):
    assert "--vocab_size" in run_plan(root="/nowhere", code=2)
    flags = [
        "--config=configs/moe/trainer/gpu8_fsdp2.yaml",
        "--trainer.devices=4",
        "--data.init_args.micro_batch_size=8",
    ]
    flags += ["--vocab_size=2048", "--tflops=0.001", "--price=3", "--device_memory=0.01"]
    text = run_plan(*flags, root="/nowhere")
    assert "4 devices under FSDP2, 1 × 8" in text and "Does not fit: a device has 0.01 GiB" in text
    flops, hours = (float(re.search(rf"{word} +([\d,.]+)", text)[1].replace(",", "")) for word in ("model", "hours"))
    assert hours == pytest.approx(flops * 1e12 / (0.001e12 * 0.4) / 3600, rel=0.02)
    assert float(re.search(r"money at 3 for an hour +([\d,]+)", text)[1].replace(",", "")) == pytest.approx(
        3 * hours, 1
    )


def test_a_folder_needs_its_config_alone(run_plan, tmp_path_factory):
    pytest.importorskip("transformers", minversion="5.23")
    folder = tmp_path_factory.mktemp("model")
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 600, **shape}))
    flag, config = f"--model.init_args.hugging_face.model={folder}", "configs/moe/quickstart/hugging_face.yaml"
    text = run_plan(flag, root="/nowhere", config=config)
    every = 2 * 600 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 96 + 2 * 64) + 64
    assert re.search(rf"sum +{every:,} +{every:,}\n", text) and "Memory of a device" in text
    (folder / "config.json").write_text('{"model_type": "nonsense"}')
    assert "whose model_type is nonsense" in run_plan(flag, root="/nowhere", config=config, code=2)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--trainer.devices=3"], "`data.global_batch_size` is 32, but 3 × 32"),
        (["--trainer.devices=-1"], "`trainer.devices` is -1"),
        (["--trainer.precision=64-true"], "`trainer.precision` is 64-true"),
        (["--trainer.strategy=lit_moe.ShardedStrategy"], "a class without arguments"),
        (["--trainer.strategy=deepspeed"], "`trainer.strategy` is deepspeed"),
        (
            ["--config=configs/moe/trainer/ep_cpu2.yaml", "--trainer.devices=1"],
            "`expert_parallel` is 2, but must divide 1",
        ),
        (
            ["--config=configs/moe/trainer/ep_cpu2.yaml", "--data.init_args.micro_batch_size=16"],
            "n_experts is 31, but 2",
        ),
        (["--vocab_size=0"], "vocab_size is 0"),
        (["--bandwidth=0"], "bandwidth is 0"),
        (["--model.init_args.decoder.n_heads=3"], "n_heads is 3"),
        (["--model.init_args.scheduler.warmup=2"], "`warmup` is 2"),
        (["--model.init_args.hugging_face.model=some/model"], "The language model is some/model, whose config"),
        (
            ['--model.init_args.hugging_face.config={"model_type": "mixtral"}'],
            "have no effect beside `hugging_face`",
        ),
        (
            ["--model.init_args.hugging_face.model=some/model", "--data.init_args.root=/nowhere"],
            "The language model is some/model, whose config",
        ),
        (["--model.init_args.hugging_face.z_weight=0.1"], "`hugging_face` has neither `model` nor `config`"),
        (["--tflop=3"], "tflop is not an argument"),
    ],
)
def test_mistakes_are_one_sentence(run_plan, flags, said):
    text = run_plan(*flags, code=2)
    assert said in text and text.count("\n") == 1


def test_experts_that_were_added_count_as_all_others():
    shape = {"vocab_size": 50, "n_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 16}
    grown, whole = (Decoder(DecoderConfig(**shape, feed_forward=MoEConfig(6, 2, 8, n_added=added))) for added in (2, 0))
    assert parameters_by_part(grown) == parameters_by_part(whole)
    assert grown.parameter_counts() == whole.parameter_counts()
    layout = Layout(2, True)
    assert sent(grown, layout) == sent(whole, layout)
