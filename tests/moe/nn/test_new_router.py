"""A router that no module of lit_moe knows is logged, initialised, planned, exported and refused by what it says."""

import ast
from pathlib import Path

import pytest
import torch
import yaml
from all_routers import CLASSES, CONFIGS, draws
from torch import nn

import lit_moe
from lit_core.errors import UserError
from lit_core.study.options import bind
from lit_core.trust import sign
from lit_moe import MoELanguageModel, RouterBalance
from lit_moe.interop.exporting import export_model
from lit_moe.interop.importing import new_checkpoint
from lit_moe.nn import Decoder, DecoderConfig, MoEConfig, PenaltyRouter, Router
from lit_moe.plan.costs import plan
from lit_moe.plan.layout import Layout
from lit_moe.plan.network import parameters_by_part
from lit_moe.study import experiment

SHAPE = {"vocab_size": 40, "n_layers": 2, "d_model": 32, "n_heads": 4, "d_ff": 48, "max_seq_len": 64}
MIXTURE = MoEConfig(n_experts=4, top_k=2, expert_width=24)


class Turns(Router):
    """Takes turns in training, the largest scores in inference; remembers its load and learns a temperature."""

    def __init__(self, n_experts, top_k, normalize_top_k=False):
        super().__init__(n_experts, top_k, normalize_top_k)
        self.register_buffer("load", torch.zeros(n_experts))
        self.temperature = nn.Parameter(torch.ones(()))

    def reset_parameters(self, generator=None):
        nn.init.zeros_(self.load)
        nn.init.ones_(self.temperature)

    def scores(self, logits_TE, probs_TE):
        return (logits_TE / self.temperature).softmax(-1)

    def select_in_training(self, logits_TE, scores_TE, mask_T):
        first = torch.arange(len(logits_TE))[:, None] + torch.arange(self.top_k)
        return first % self.n_experts

    def end_step(self, counts_E):
        self.load += counts_E


class Remembering(PenaltyRouter):
    """Routes as its base class does, and says so; remembers its load."""

    def __init__(self, n_experts, top_k):
        super().__init__(n_experts, top_k)
        self.register_buffer("load", torch.zeros(n_experts))

    def reset_parameters(self, generator=None):
        nn.init.zeros_(self.load)

    def is_softmax_top_k(self):
        return True

    def end_step(self, counts_E):
        self.load += counts_E


class Sharper(PenaltyRouter):
    """Weighs the experts otherwise than its base class."""

    def scores(self, logits_TE, probs_TE):
        return (2 * logits_TE).softmax(-1)


class Careless(PenaltyRouter):
    """Has a buffer, but no initial values of it."""

    def __init__(self, n_experts, top_k):
        super().__init__(n_experts, top_k)
        self.register_buffer("load", torch.zeros(n_experts))


class Drawn(PenaltyRouter):
    """Draws the experts of training."""

    def select_in_training(self, logits_TE, scores_TE, mask_T):
        return torch.rand_like(logits_TE).topk(self.top_k).indices


class Shaken(PenaltyRouter):
    """Draws a change of the tokens that the gate reads."""

    def perturb(self, x_TD):
        return x_TD * torch.rand_like(x_TD)


def test_a_router_that_draws_is_told_from_others():
    kinds = (Drawn, Shaken, Turns, Remembering, lambda n, k: PenaltyRouter(n, k, jitter=0.1))
    assert [draws(kind(8, 2)) for kind in kinds] == [True, True, False, False, True]


def test_its_inference_routing_is_logged_beside_that_of_training(byte_model, byte_data, make_trainer, read_metrics):
    class Ending(byte_model):
        def on_before_optimizer_step(self, optimizer):
            lit_moe.nn.step_routers(self)

    balance, model = RouterBalance(), Ending(Turns)
    make_trainer(balance).fit(model, datamodule=byte_data(replay=False))
    metrics = read_metrics()
    assert dict(metrics["train/router/mri/layer_01"])[2] == pytest.approx(0.5, abs=0.02)  # turns are even
    assert dict(metrics["train/router/raw_mri/layer_01"])[2] > 0.55
    assert dict(metrics["train/router/raw_mri/mean"]).keys() == {0, 1, 2}
    assert all(block.router.load.sum() == 3 * 8 * 16 * 2 for block in model.blocks)  # steps × rows × tokens × k


def test_its_state_is_initialised_with_the_decoder():
    decoder = Decoder(DecoderConfig(**SHAPE, feed_forward=MIXTURE), Turns)
    for layer in decoder.layers:
        nn.init.constant_(layer.feed_forward.router.load, 7.0)
        nn.init.constant_(layer.feed_forward.router.temperature, 7.0)
    decoder.reset_parameters()
    for layer in decoder.layers:
        assert layer.feed_forward.router.load.tolist() == [0.0] * 4 and layer.feed_forward.router.temperature == 1.0


def test_state_without_initial_values_is_refused():
    with pytest.raises(NotImplementedError, match=r"Careless has load .* define reset_parameters"):
        Decoder(DecoderConfig(**SHAPE, feed_forward=MIXTURE), Careless)


def test_a_plan_counts_its_parameters_as_the_routers():
    config = DecoderConfig(**SHAPE, feed_forward=MIXTURE)
    parts = parameters_by_part(Decoder(config, Turns))
    plain = parameters_by_part(Decoder(config, PenaltyRouter))
    added = {part: parts[part][0] - plain[part][0] for part in parts}
    assert added == {part: 2 * (part == "routers") for part in parts}
    layout = Layout(
        devices=1, sharded=False, expert_parallel=1, precision="32-true", micro_batch_size=1, sequence_length=16
    )
    assert "routers" in plan(MoELanguageModel(config, Turns), layout)


@pytest.fixture
def written(tmp_path):
    """Writes the checkpoint of a small decoder with a router, and returns decoder, checkpoint and output."""

    def write(kind):
        torch.manual_seed(0)
        decoder = Decoder(DecoderConfig(**SHAPE, feed_forward=MIXTURE), kind)
        weights = {f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()}
        checkpoint = new_checkpoint(decoder.config, weights)
        checkpoint["hyper_parameters"]["router"]["class_path"] = f"{kind.__module__}.{kind.__name__}"
        sign(checkpoint)
        torch.save(checkpoint, tmp_path / "ours.ckpt")
        return decoder.eval(), str(tmp_path / "ours.ckpt"), str(tmp_path / "out")

    return write


@pytest.mark.parametrize("kind", [Turns, Sharper])
def test_its_export_is_refused_where_it_does_not_say_that_it_routes_alike(written, kind, tmp_path):
    _, checkpoint, output = written(kind)
    with pytest.raises(UserError, match=f"whose {kind.__name__} does not choose and weigh experts"):
        export_model(checkpoint, output)
    assert [path.name for path in tmp_path.iterdir()] == ["ours.ckpt"]


def test_its_export_has_equal_logits_where_it_says_so(written):
    transformers = pytest.importorskip("transformers")
    decoder, checkpoint, output = written(Remembering)
    export_model(checkpoint, output)
    ids = torch.arange(30).reshape(2, 15)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32).eval()
    torch.testing.assert_close(theirs(ids).logits, decoder(ids), rtol=1e-4, atol=1e-5)


def test_a_study_traces_both_of_its_routings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    setting = yaml.safe_load((CONFIGS.parent / "studies" / "continual.yaml").read_text())["grids"]["routers"]
    model = {"feed_forward": "granular", "router": {"class_path": f"{__name__}.Turns"}}
    cell = {"seed": 0, "model": "turns", "schedule": "infinite", "replay": 0.3, "shift": "code"}
    short = {"pretrain_steps": 8, "steps": 4, "window": 2, "test_samples": 2}
    values = setting["arguments"] | cell | short | {"models": {"turns": model}}
    rows = experiment(**bind(experiment, values))
    steps = [row for row in rows if row["what"] == "step"]
    assert [row["mri_training"] for row in steps] == pytest.approx(
        [27 / 256] * 6
    )  # turns are even: 256 × 3 / 31 is 24.8
    assert all(row["mri"] > row["mri_training"] + 0.01 for row in steps)


def is_asked_about(node, parents):
    """Tell whether a name or string stands where a class is compared, matched, looked up or listed, not used."""
    while node in parents:
        node, child = parents[node], node
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("isinstance", "issubclass") and child in node.args:
                return True
        if isinstance(node, (ast.Compare, ast.MatchClass, ast.MatchValue, ast.Tuple, ast.List, ast.Set)):
            return True
        if isinstance(node, ast.Dict) and child in node.keys:
            return True
        if isinstance(node, ast.stmt):
            return False
    return False


def asked_classes(source, names):
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        text = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value.rpartition(".")[2]
        if text in names and is_asked_about(node, parents):
            yield text, node.lineno


def test_no_module_asks_for_a_router_by_its_class():
    root, own = Path(lit_moe.__file__).parent, {kind.__name__: kind.__module__ for kind in CLASSES}
    assert len(own) >= 5
    found = [
        (str(path.relative_to(root)), *asked)
        for path in sorted(root.rglob("*.py"))
        for asked in asked_classes(path.read_text(), own)
        if path.name != "__init__.py" and not own[asked[0]].endswith(f".{path.stem}")
    ]
    assert not found


def test_asking_for_a_class_is_seen():
    names = {"A", "B"}
    for source in ("isinstance(x, A)", "type(x) is m.A", "x.name == 'A'", "KINDS = (A, B)", "table = {A: 1}"):
        assert list(asked_classes(source, names)), source
    assert not list(asked_classes("def f(router=A): return A(1, 2) if router else B", names))
