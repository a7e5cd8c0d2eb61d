"""What a checkpoint says of the state of a run is refused if it is of the wrong type."""

import copy
from types import SimpleNamespace

import pytest
import torch
from kinds import exports
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from test_foreign_checkpoints import at, places

from lit_core.callbacks import PresentOptimizer
from lit_core.data import ResumeStream
from lit_core.errors import UserError
from lit_moe import Forgetting, RouterDrift
from lit_moe.meter import TrainingMeter
from lit_moe.study.shift import Trace
from lit_valuation.callbacks import GradientMatching

COUNTERS = {"total": {"processed": 2, "completed": 2, "ready": 2}, "current": {"processed": 2, "completed": 2}}
LOOPS = {"fit_loop": {"epoch_loop.batch_progress": {**COUNTERS, "is_last_batch": False}, "epoch_progress": COUNTERS}}
MADE = {"count": 1, "epoch": 0, "step": 2}
#: The state of each callback of ours that has one.
STATES = {
    ResumeStream: {
        **{"step": 2, "consumed": {"a": 8}, "samples": {"a": 9}, "global_batch_size": 4, "batches_per_step": 1},
        **{"seed": 0, "begun": {"a": 0}, "earlier_tokens": {"a": 3}, "noise_seed": 1, "order": 1},
        "sources": {"a": {"samples": 9, "content": "x"}},
    },
    RouterDrift: {"has_warned": True},
    Forgetting: {"baseline": {"a/loss": 1.5}, "costs": [{"step": 1, "tokens": 2.0, "losses": {"a": 1.5}}]},
    GradientMatching: {
        **{"numbers": torch.tensor([1]), "weights": torch.ones(1), "order": 1, "batches": 2},
        **{"made": MADE, "facts": {"size": 1.0}},
    },
    Trace: {"steps": [{"loss": 1.5}]},
    TrainingMeter: {"tokens": 3, "flops": 2.0},
    PresentOptimizer: [{"state": {0: {"step": torch.ones(())}}, "param_groups": [{"params": [0]}]}],
}
WRONG = [5, "x", [], {}, [5], {"a": []}]


def restore(kind, state):
    """Let a part of a run take its state."""
    trainer = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.FITTING), accumulate_grad_batches=1)
    checkpoint = {"callbacks": {kind.__name__: state}, "optimizer_states": state, "loops": copy.deepcopy(LOOPS)}
    part = kind.__new__(kind)
    if "load_state_dict" in vars(kind):
        part.load_state_dict(state)
    else:
        part.on_load_checkpoint(trainer, None, checkpoint)


def derived(kind):
    for inner in kind.__subclasses__():
        yield inner
        yield from derived(inner)


def test_each_callback_of_ours_that_has_a_state_is_here():
    assert any(exports())
    restoring = {"load_state_dict", "on_load_checkpoint"}
    ours = {kind for kind in derived(Callback) if kind.__module__.startswith("lit_") and restoring & vars(kind).keys()}
    assert ours == STATES.keys() - {TrainingMeter}


@pytest.mark.parametrize("kind", STATES, ids=lambda kind: kind.__name__)
def test_a_state_of_the_wrong_type_is_refused_at_each_place(kind):
    restore(kind, copy.deepcopy(STATES[kind]))
    for wrong in WRONG:
        with pytest.raises(UserError, match="give another checkpoint"):
            restore(kind, wrong if type(wrong) is not type(STATES[kind]) or wrong == [5] else 5)
    for path in places(STATES[kind]):
        for wrong in WRONG:
            state = copy.deepcopy(STATES[kind])
            if type(at(state, path)) is type(wrong) or (path[-1] in (0, "step") and kind is PresentOptimizer):
                continue
            at(state, path[:-1])[path[-1]] = wrong
            if (isinstance(at(STATES[kind], path), float) and wrong == 5) or (path[0] == "sources" and len(path) == 3):
                continue
            with pytest.raises(UserError, match="give another checkpoint"):
                restore(kind, state)


@pytest.mark.parametrize("kind", STATES, ids=lambda kind: kind.__name__)
def test_a_number_that_no_run_counts_is_refused_at_each_place(kind):
    """A loop over as many would not end; each step of the optimizers' own is a matter of theirs."""
    for path in places(STATES[kind]) if kind is not PresentOptimizer else ():
        if type(at(STATES[kind], path)) is int:
            for wrong in (-1, 10**30, *[10**12] * (path == ("step",)), *[0] * (path == ("batches_per_step",))):
                state = copy.deepcopy(STATES[kind])
                at(state, path[:-1])[path[-1]] = wrong
                with pytest.raises(UserError, match="give another"):
                    restore(kind, state)


@pytest.mark.parametrize("step", [-1, 10**12, 2.5, "3"])
def test_a_schedule_is_at_a_step_that_a_run_can_reach(step):
    """Also one that is a function of the step."""
    checkpoint = {"optimizer_states": [], "lr_schedulers": [{"last_epoch": step}]}
    with pytest.raises(UserError, match=f"The schedule in --ckpt_path is at step {step}, but must be"):
        PresentOptimizer().on_load_checkpoint(None, None, checkpoint)
