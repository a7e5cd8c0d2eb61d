import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import data_stream
import gpu
import hf_decoder
import layers
import loop_overhead
import moe_ffn
import report
import side_by_side
import step_profile
import train_step
from layers import Mismatch, Mixture, Weights
from products import Products

SHAPE = Mixture(d_model=16, n_experts=5, top_k=2, width=8, n_shared=1)


@pytest.fixture
def ours():
    torch.manual_seed(0)
    return layers.ours(SHAPE, Weights.draw(SHAPE), "loop")


def quick(script, folder, monkeypatch):
    """Run a benchmark's smallest form; return what it wrote."""
    output = folder / f"{script.__name__}.json"
    monkeypatch.setattr(sys, "argv", [script.__name__, "--quick", "--output", str(output)])
    script.main()
    return json.loads(output.read_text())


def test_quick_runs_print_tables_and_the_report_is_written_from_their_numbers(tmp_path, monkeypatch, capsys):
    result = quick(moe_ffn, tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert {(case["preset"], case["dtype"]) for case in result["cases"]} == {
        (preset, dtype) for preset in ("switch", "granular") for dtype in ("fp32", "bf16")
    }
    for case in result["cases"]:
        everyone = {"dense", moe_ffn.PRODUCTS, *moe_ffn.OURS, *moe_ffn.PEERS}
        assert set(case["ratios"]) == everyone - set(case["left_out"]), "a peer is timed or said to be missing"
        assert set(moe_ffn.OURS) <= set(case["ratios"])
        assert case["ratios"]["dense"]["ratio"] == 1
        assert all(len(times) == result["rounds"] and min(times) > 0 for times in case["seconds"].values())
        assert all(name in printed for name in case["left_out"])
    assert result["machine"]["versions"]["torch"] == torch.__version__

    result = quick(train_step, tmp_path, monkeypatch)
    printed += capsys.readouterr().out
    for case in result["cases"]:
        assert set(case["ratios"]) == set(train_step.MODELS)
        parameters = case["parameters"]
        assert parameters["granular, penalty"]["total"] > 2 * parameters["dense"]["total"]

    monkeypatch.setattr(sys, "argv", ["report", str(tmp_path)])
    report.main()
    page = (tmp_path / "speed.md").read_text()
    tables = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(tables) == 4 * 2 + 4
    assert all(line in page for line in tables)
    assert "python benchmarks/moe_ffn.py --quick" in page and "python benchmarks/train_step.py --quick" in page


def test_the_time_of_a_step_is_shared_out_among_kinds_of_operations(tmp_path, monkeypatch, capsys):
    result = quick(step_profile, tmp_path, monkeypatch)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    for case in result["cases"]:
        assert sum(case["shares"].values()) == pytest.approx(1)
        assert min(case["shares"][kind] for kind in ("products", "attention", "loss", "optimizer", "elementwise")) > 0
        assert case["gflops"]["step"] > 0
    section = report.profile_section(result)
    assert len(table) == 4 and all(line in section for line in table)
    assert step_profile.kind_of("aten::mul") == "elementwise" and step_profile.kind_of("aten::mm") == "products"


# slow: it times six decoders in turn; the next test compares their numbers
@pytest.mark.slow
def test_our_decoder_stands_beside_transformers_with_the_same_weights(tmp_path, monkeypatch, capsys):
    result = quick(hf_decoder, tmp_path, monkeypatch)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [(case["dtype"], case["preset"]) for case in result["cases"]] == [
        (dtype, preset) for dtype in ("fp32", "bf16") for preset in ("dense", "switch", "granular")
    ]
    for case in result["cases"]:
        left_out = {hf_decoder.EAGER} if case["preset"] == "dense" else set()
        assert set(case["ratios"]) == {*hf_decoder.PEERS, hf_decoder.WRAPPED, hf_decoder.OURS} - left_out
    section = report.decoder_section(result)
    assert len(table) == 8 and all(line in section for line in table) and "ahead of it in" in section


def test_decoders_with_other_weights_are_refused():
    case = hf_decoder.cases(quick=True)[1]
    models = hf_decoder.build(case)
    hf_decoder.check(models, case)
    with torch.no_grad():
        models[hf_decoder.OURS].network.layers[0].feed_forward.experts.down.mul_(1.5)
    with pytest.raises(Mismatch, match="of ours is"):
        hf_decoder.check(models, case)


# slow: it times each way to read; the next test refuses what they read
@pytest.mark.slow
def test_our_stream_stands_beside_others_that_read_the_same_text(tmp_path, monkeypatch, capsys):
    result = quick(data_stream, tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert [len(case["sources"]) for case in result["cases"]] == [1, 3]
    for case in result["cases"]:
        everyone = {data_stream.MAP, data_stream.OURS, *data_stream.PEERS} - set(case["left_out"])
        assert set(case["ratios"]) == set(case["seconds_to_first_batch"]) == everyone
        assert set(case["left_out"]) <= {data_stream.LITDATA} and all(name in printed for name in case["left_out"])
        assert all(len(waits) == result["rounds"] for waits in case["seconds_to_first_batch"].values())
    section = report.stream_section(result)
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(table) == 4 and all(line in section for line in table) and "of the memory map's speed" in section


TEXT = {"x": np.random.default_rng(0).integers(256, size=2000).astype(np.uint16)}


@pytest.mark.parametrize(
    ("starts", "change", "message"),
    [
        (lambda n: 733 * n % 1900, lambda rows: rows.int(), "batches of torch.int32"),
        (lambda n: 733 * n % 1900, lambda rows: rows[:, 1:], "shape"),
        (lambda n: 733 * n % 1900, lambda rows: rows.flip(1), "nowhere in the text"),
        (lambda n: 20 * n, lambda rows: rows, "in the order of the text"),
        (lambda n: 733 * n % 1900, lambda rows: rows, None),
    ],
)
def test_streams_are_refused_that_do_not_give_shuffled_windows_of_the_text(starts, change, message):
    case = data_stream.Case(("x",), 32, 4, 10)
    rows = [TEXT["x"][starts(number) :][:33].astype(np.int64) for number in range(64)]
    batches = [change(torch.from_numpy(np.stack(rows[first : first + 4]))) for first in range(0, 64, 4)]
    feed = data_stream.Feed(lambda: batches)
    if message is None:
        data_stream.check("it", feed, TEXT, case)
        with pytest.raises(Mismatch, match="no row of y"):
            data_stream.check("it", feed, {**TEXT, "y": np.zeros(99, np.uint16)}, case)
        return
    with pytest.raises(Mismatch, match=message):
        data_stream.check("it", feed, TEXT, case)


# slow: it times whole runs; the next test compares their losses
@pytest.mark.slow
def test_a_trainer_and_a_whole_run_train_as_the_bare_loop(tmp_path, monkeypatch, capsys):
    result = quick(loop_overhead, tmp_path, monkeypatch)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    (case,) = result["cases"]
    assert set(case["ratios"]) == set(loop_overhead.WAYS) and case["parameters"]["total"] > 0
    section = report.loop_section(result)
    assert len(table) == 3 and all(line in section for line in table)
    added = loop_overhead.overhead(case, loop_overhead.TRAINER)
    pairs = zip(case["seconds"][loop_overhead.TRAINER], case["seconds"][loop_overhead.BARE], strict=True)
    assert added == pytest.approx(1000 * sum(mine - base for mine, base in pairs) / 2), (
        "the median of two is their mean"
    )


def test_losses_that_differ_are_refused():
    losses = {way: [torch.tensor(2.0), torch.tensor(1.5)] for way in loop_overhead.WAYS}
    loop_overhead.check(losses, 2)
    with pytest.raises(Mismatch, match="took 2 steps, not 3"):
        loop_overhead.check(losses, 3)
    losses[loop_overhead.RUN][1] = torch.tensor(1.6)
    with pytest.raises(Mismatch, match="whole run in step 1"):
        loop_overhead.check(losses, 2)


def test_ratios_are_taken_round_by_round():
    seconds = {"base": [1.0, 2.0, 10.0], "mine": [2.0, 3.0, 40.0]}
    found = side_by_side.ratios(seconds, "base")["mine"]
    assert found == {"ratio": 2.0, "spread": (3.0 - 1.75) / 2, "milliseconds": 3000.0}


def test_each_contender_takes_one_step_per_round_on_a_new_input():
    seen, inputs = [], iter(range(100))

    def contender(name):
        return side_by_side.Contender(name, lambda value: seen.append((name, value)), lambda: next(inputs))

    seconds = side_by_side.measure([contender(name) for name in "abc"], rounds=20, warm_up=1)
    assert {name: len(times) for name, times in seconds.items()} == {"a": 20, "b": 20, "c": 20}
    assert [value for _, value in seen] == list(range(63))
    orders = [tuple(name for name, _ in seen[start : start + 3]) for start in range(0, 63, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders) and len(set(orders)) > 3


def test_a_contender_may_say_which_of_its_seconds_count():
    clocked = side_by_side.Contender("clocked", lambda _: 123.0, lambda: None)
    other = side_by_side.Contender("other", lambda _: torch.tensor(123.0), lambda: None)
    seconds = side_by_side.measure([clocked, other], rounds=2, warm_up=0)
    assert seconds["clocked"] == [123.0, 123.0] and max(seconds["other"]) < 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_check_accepts_a_right_layer(ours, dtype):
    ours.module.to(dtype)
    layers.check([ours], dtype)
    assert all(parameter.grad is None for parameter in ours.module.parameters())


@pytest.mark.parametrize("value", [1.1, float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_check_refuses_a_wrong_layer(ours, dtype, value):
    with torch.no_grad():
        ours.module.shared.down.weight.mul_(value)
    ours.module.to(dtype)
    with pytest.raises(Mismatch, match="output is off"):
        layers.check([ours], dtype)


def test_the_check_refuses_a_wrong_gradient(ours):
    ours.module.experts.gate_up.register_hook(lambda grad: grad * 1.1)
    with pytest.raises(Mismatch, match="gradient of weight 1"):
        layers.check([ours], torch.float32)


def test_the_check_refuses_another_rule_for_the_weights(ours):
    ours.normalize = False
    with pytest.raises(Mismatch):
        layers.check([ours], torch.float32)


def test_a_layer_with_an_unfilled_parameter_is_refused(ours):
    with pytest.raises(Mismatch, match="other parameters"):
        layers.Layer("broken", ours.module, SHAPE, ours.weights, True, lambda w: ours.pairs(w)[1:])


def test_peers_without_shared_experts_get_equal_flops():
    bare = SHAPE.without_shared()
    assert bare == Mixture(16, n_experts=6, top_k=3, width=8)
    assert bare.active_width == SHAPE.active_width


def test_products_are_those_of_the_chosen_experts():
    torch.manual_seed(0)
    weights = Weights.draw(SHAPE)
    products = Products(SHAPE, weights, tokens=12, dtype=torch.float32)
    x_TD = torch.randn(12, 16)
    counts = products.counts(x_TD)
    chosen = [(weights.router_ED @ x_D).topk(2).indices.tolist() for x_D in x_TD]
    assert counts == [sum(expert in experts for experts in chosen) for expert in range(5)]
    products.run(counts)
    group, end = products.routed, sum(counts[:3])
    rows = slice(end, end + counts[3])
    assert counts[3] > 0
    torch.testing.assert_close(group.double_N2I[rows], group.x_ND[rows] @ weights.gate_up[3].T)
    torch.testing.assert_close(group.out_ND[rows], group.hidden_NI[rows] @ weights.down[3].T)
    torch.testing.assert_close(group.grad_hidden_NI[rows], group.grad_out_ND[rows] @ weights.down[3])
    torch.testing.assert_close(group.grad_down_EDI[3], group.grad_out_ND[rows].T @ group.hidden_NI[rows])
    torch.testing.assert_close(group.grad_gate_up_E2ID[3], group.grad_double_N2I[rows].T @ group.x_ND[rows])
    torch.testing.assert_close(group.grad_x_ND[rows], group.grad_double_N2I[rows] @ weights.gate_up[3])
    assert products.shared is not None and len(products.shared.x_ND) == 12


def test_what_is_for_gpus_says_that_there_is_none(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    gpu.main()
    assert capsys.readouterr().out == "There is no GPU here, so nothing was measured.\n"


@pytest.mark.slow
def test_what_is_for_gpus_runs_on_a_cpu_in_its_smallest_form(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = quick(gpu, tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert result["not_begun"] == [] and result["tests"]["failed"] == 0
    for case in result["cases"]:
        everyone = {"dense", "ours, loop", "ours, grouped_mm", *(f"Hugging Face, {kind}" for kind in gpu.PEERS)}
        assert set(case["ratios"]) == everyone - set(case["left_out"])
    step = result["step"]
    assert step["tokens_per_second"] > 0 and 0 < step["flops_per_second"] < step["product_flops_per_second"]
    assert f"{step['memory_planned'] / 2**30:.2f} GiB by the plan" in printed

    monkeypatch.setattr(sys, "argv", ["gpu", "--quick", "--minutes", "0"])
    gpu.main()
    assert capsys.readouterr().out.count("not begun for lack of time") == 4
