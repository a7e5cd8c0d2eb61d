"""A resumed run is the run that was never stopped."""

import json
import logging
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import tiny_run
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny_run import Record, TinyLM, train

from lit_core.data import EvalStream, ResumeStream, StreamLoader, TokenWindows, named_loader
from lit_core.data import resume as resume_module
from lit_core.data.order import ORDER
from lit_core.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    return tiny_run.prepare(tmp_path_factory.mktemp("data"))


class Interruption(Exception):
    pass


class Interrupt(Callback):
    """Raises at one micro-batch, counted over the run, and saves as the run falls."""

    def __init__(self, path, micro_batch, hook="on_train_batch_start", kind=Interruption):
        self.path, self.micro_batch, self.kind, self.seen = path, micro_batch, kind, 0
        setattr(self, hook, self._raise)

    def _raise(self, *args):
        self.seen += 1
        if self.seen == self.micro_batch + 1:
            raise self.kind

    def on_exception(self, trainer, pl_module, exception):
        trainer.save_checkpoint(self.path)


class SaveIn(Callback):
    """Saves each time a hook is called, under the number of the call."""

    def __init__(self, folder, hook):
        self.folder, self.hook, self.calls = folder, hook, 0
        setattr(self, hook, self._save)

    def _save(self, trainer, *args):
        if not trainer.sanity_checking:
            self.calls += 1
            trainer.save_checkpoint(self.folder / f"{self.hook}={self.calls}.ckpt")


def saver(folder, checkpoint):
    """Return the callback that saves one kind of checkpoint: ``step=3``, ``epoch=0`` or ``on_validation_end=1``."""
    kind, _, number = checkpoint.partition("=")
    if kind == "step":
        return ModelCheckpoint(folder, filename="{step}", every_n_train_steps=int(number), save_top_k=-1)
    if kind == "epoch":
        return ModelCheckpoint(folder, filename="{epoch}", save_on_train_epoch_end=True, save_top_k=-1)
    return SaveIn(folder, kind)


def savers(folder):
    return [saver(folder, checkpoint) for checkpoint in ("step=1", "epoch=0", "on_validation_end=1", "on_train_end=1")]


@pytest.fixture(scope="module")
def whole_run(data, tmp_path_factory):
    """A run that is never stopped, with checkpoints of every kind, made once for each set of options."""
    runs = {}

    def run(**options):
        key = tuple(sorted(options.items()))
        if key not in runs:
            folder = tmp_path_factory.mktemp("whole")
            runs[key] = train(data, folder, callbacks=savers(folder), **options), folder
        return runs[key]

    return run


def assert_same(resumed, whole):
    rows, weights, moments = resumed
    whole_rows, whole_weights, whole_moments = whole
    assert rows == whole_rows[len(whole_rows) - len(rows) :]
    for name, weight in weights.items():
        assert torch.equal(weight, whole_weights[name]), name
    for number, state in moments.items():
        for name, value in state.items():
            assert torch.equal(value, whole_moments[number][name]), (number, name)


def interrupted(data, out, callback, **options):
    with pytest.raises((Interruption, KeyboardInterrupt, SystemExit)):
        train(data, out, callbacks=[callback], **options)


# 40 + 20 windows; 7 optimizer steps per epoch
LAYOUT = pytest.mark.parametrize("layout", [{"micro": 6}, {"micro": 2}], ids=["accumulate1", "accumulate3"])
LIMITS = [{"max_epochs": 3}, {"max_steps": 16}, {"max_epochs": 3, "max_steps": 16}]
LIMIT = pytest.mark.parametrize("limit", LIMITS, ids=["epochs", "steps", "both"])


@LAYOUT
@LIMIT
def test_from_a_step_checkpoint(data, tmp_path, whole_run, layout, limit):
    whole, folder = whole_run(**layout, **limit)
    assert len(whole[0]) == (16 if "max_steps" in limit else 21) * (6 // layout["micro"])
    for step in (3, 7, 10):  # in the middle of an epoch, at its end, in the second
        resumed = train(data, tmp_path, ckpt_path=folder / f"step={step}.ckpt", **layout, **limit)
        assert len(resumed[0]) == len(whole[0]) - step * (6 // layout["micro"])
        assert_same(resumed, whole)


@LAYOUT
@LIMIT
def test_from_the_end_of_an_epoch(data, tmp_path, whole_run, layout, limit):
    whole, folder = whole_run(**layout, **limit)
    for epoch in (0, 1):
        resumed = train(data, tmp_path, ckpt_path=folder / f"epoch={epoch}.ckpt", **layout, **limit)
        assert len(resumed[0]) == len(whole[0]) - (epoch + 1) * 7 * (6 // layout["micro"])
        assert_same(resumed, whole)


@LAYOUT
def test_from_a_validation(data, tmp_path, whole_run, layout):
    """With accumulation 3, a validation every 4 micro-batches falls between two of a step, and is saved there."""
    options = {"max_epochs": 3, "val_check_interval": 4, **layout}
    whole, folder = whole_run(**options)
    for call, micro_batch in ((1, 4), (2, 8 if layout["micro"] == 2 else 11), (3, 12 if layout["micro"] == 2 else 18)):
        resumed = train(data, tmp_path, ckpt_path=folder / f"on_validation_end={call}.ckpt", **options)
        accumulation = 6 // layout["micro"]
        assert len(resumed[0]) == len(whole[0]) - micro_batch // accumulation * accumulation
        assert_same(resumed, whole)


@pytest.mark.parametrize(("before", "after", "context"), [(2, 2, "fork"), (0, 2, "spawn"), (2, 1, "forkserver")])
def test_with_any_number_of_workers(data, tmp_path, whole_run, before, after, context):
    whole, folder = whole_run(max_steps=9, workers=before)
    last = 9 if context == "fork" else 7  # at 7 an epoch ends, and the slow start of other processes is spared
    resumed = train(data, tmp_path, ckpt_path=folder / "step=5.ckpt", max_steps=last, workers=after, context=context)
    assert len(resumed[0]) == (last - 5) * 3
    assert resumed[0] == whole[0][15 : last * 3]
    if last == 9:
        assert_same(resumed, whole)


@pytest.mark.parametrize(
    ("hook", "call", "micro_batches"),  # the hook's call that raises, and how many micro-batches the resume skips
    [
        ("on_train_batch_start", 0, 0),
        ("on_train_batch_start", 4, 3),
        ("on_train_batch_start", 21, 21),
        ("on_train_batch_start", 31, 30),
        ("on_train_batch_end", 4, 3),
        ("on_train_batch_end", 5, 6),
        ("on_train_batch_end", 20, 21),
        ("on_before_backward", 22, 21),
        ("on_before_optimizer_step", 1, 3),
        ("on_before_optimizer_step", 6, 18),
    ],
)
def test_from_an_exception(data, tmp_path, whole_run, hook, call, micro_batches):
    whole, _ = whole_run(max_epochs=2)
    interrupted(data, tmp_path, Interrupt(tmp_path / "x.ckpt", call, hook), max_epochs=2)
    resumed = train(data, tmp_path, ckpt_path=tmp_path / "x.ckpt", max_epochs=2)
    assert len(resumed[0]) == len(whole[0]) - micro_batches
    assert_same(resumed, whole)


def test_from_a_callback_that_failed_before_this_one_counted(data, tmp_path, whole_run):
    whole, _ = whole_run(max_steps=9, workers=2)
    failing, path = Interrupt(tmp_path / "x.ckpt", 11, "on_train_batch_end"), tmp_path / "x.ckpt"

    class First(ResumeStream):
        """Lightning keeps the order of callbacks, so that the failure comes before the count."""

        def on_train_batch_end(self, *args):
            failing._raise()
            super().on_train_batch_end(*args)

        @property
        def state_key(self):
            return "ResumeStream"

    saver = Interrupt(path, -1)
    with pytest.raises(Interruption):
        train(data, tmp_path, resume=First(), callbacks=[saver], max_steps=9)
    resumed = train(data, tmp_path, ckpt_path=path, max_steps=9)
    assert len(resumed[0]) == (9 - 4) * 3
    assert_same(resumed, whole)


def test_from_ctrl_c(data, tmp_path, whole_run):
    whole, _ = whole_run(max_steps=9, workers=2)
    interrupted(data, tmp_path, Interrupt(tmp_path / "x.ckpt", 7, kind=KeyboardInterrupt), max_steps=9)
    resumed = train(data, tmp_path, ckpt_path=tmp_path / "x.ckpt", max_steps=9)
    assert len(resumed[0]) == (9 - 2) * 3
    assert_same(resumed, whole)


@pytest.mark.parametrize("limit", [{"max_epochs": 1}, {"max_steps": 7}, {"max_steps": 5}])
def test_prolonging_a_finished_run(data, tmp_path, whole_run, limit):
    longer = {"max_epochs": 2} if "max_epochs" in limit else {"max_steps": 16, "micro": 2}
    whole, _ = whole_run(**longer)
    resumed = train(data, tmp_path, ckpt_path=whole_run(**limit)[1] / "on_train_end=1.ckpt", **longer)
    done = limit.get("max_steps", 7)
    assert len(resumed[0]) == len(whole[0]) - done * 3
    # Lightning opens no new epoch for a run that ended by steps at the epoch's last batch
    assert [row["ids"] for row in resumed[0]] == [row["ids"] for row in whole[0][done * 3 :]]
    assert all(torch.equal(weight, whole[1][name]) for name, weight in resumed[1].items())


def test_limited_epochs(data, tmp_path, whole_run):
    whole, folder = whole_run(max_epochs=4, limit_train_batches=12)
    assert [row["step"] for row in whole[0]] == [place // 3 for place in range(48)]
    resumed = train(data, tmp_path, ckpt_path=folder / "step=7.ckpt", max_epochs=4, limit_train_batches=12)
    assert_same(resumed, whole)


@pytest.mark.parametrize(
    "checkpoints",
    [
        ["step=7", "step=10", "step=14", "step=16"],
        ["step=3", "step=7", "step=14", "step=15"],
        ["step=6", "step=7", "step=8", "step=14"],
        ["epoch=0", "step=14", "step=15"],
        ["epoch=0", "epoch=1", "step=16"],
        ["step=7", "epoch=1", "step=15"],
        ["on_validation_end=1", "step=14", "step=15"],
        ["on_validation_end=1", "on_validation_end=1", "step=16"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("limit", [{"max_epochs": 3}, {"max_steps": 18}], ids=["epochs", "steps"])
def test_resuming_a_resumed_run(data, tmp_path, whole_run, checkpoints, limit):
    """Counters that one resume leaves askew must not show at the next."""
    whole, folder = whole_run(**limit)
    for number, (checkpoint, following) in enumerate(zip(checkpoints, [*checkpoints[1:], None], strict=True)):
        path, folder = folder / f"{checkpoint}.ckpt", tmp_path / str(number)
        callbacks = [saver(folder, following)] if following else []
        resumed = train(data, tmp_path, ckpt_path=path, callbacks=callbacks, **limit)
        step = torch.load(path, weights_only=True)["global_step"]
        assert len(resumed[0]) == len(whole[0]) - step * 3
        assert_same(resumed, whole)


@pytest.mark.parametrize(("checkpoint", "ended"), [("on_validation_end=1", [0, 1, 2]), ("epoch=0", [1, 2])])
def test_the_end_of_an_epoch_is_told_once(data, tmp_path, whole_run, checkpoint, ended):
    epochs = []

    class Ends(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            epochs.append(trainer.current_epoch)

    path = whole_run(max_epochs=3)[1] / f"{checkpoint}.ckpt"
    train(data, tmp_path, ckpt_path=path, max_epochs=3, callbacks=[Ends()])
    assert epochs == ended


def test_falling_again_and_again(data, tmp_path, whole_run):
    """Counters that a fall leaves askew must not show at a later one."""
    whole, _ = whole_run(max_epochs=2)
    path, rows = None, 0
    for number, micro_batch in enumerate([4, 2, 8, 10]):
        new = tmp_path / f"{number}.ckpt"
        hook = "on_train_batch_start" if number % 2 else "on_before_backward"
        interrupted(data, tmp_path, Interrupt(new, micro_batch, hook), max_epochs=2, ckpt_path=path)
        path, rows = new, rows + micro_batch // 3
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    resumed = train(data, tmp_path, ckpt_path=path, max_epochs=2, callbacks=[saver])
    assert len(resumed[0]) == (14 - rows) * 3
    assert_same(resumed, whole)
    assert_same(train(data, tmp_path, ckpt_path=tmp_path / f"step={rows + 2}.ckpt", max_epochs=2), whole)


def test_another_replay_fraction_loses_and_repeats_nothing(data, tmp_path):
    first, second = Record(), Record()
    interrupted(data, tmp_path, Interrupt(tmp_path / "x.ckpt", 25), max_steps=20, record=first)
    train(data, tmp_path, ckpt_path=tmp_path / "x.ckpt", max_steps=20, record=second, fraction=_half_from_12)
    numbers = {0: [], 1: []}
    for row in first.rows[:24] + second.rows:
        for source, number in row["ids"]:
            numbers[source].append(number)
    assert sorted(numbers[0]) == list(range(len(numbers[0])))
    assert sorted(numbers[1]) == list(range(len(numbers[1])))
    assert len(numbers[1]) == round(0.25 * 8 * 6) + 4 * 0 + 8 * 3


def _half_from_12(step):
    return 0.5 if step >= 12 else 0.0


def test_state_is_plain_and_says_what_was_consumed(data, tmp_path, whole_run):
    resume = ResumeStream()
    train(data, tmp_path, resume=resume, max_steps=9)
    path = whole_run(max_steps=9, workers=2)[1] / "step=9.ckpt"
    state = torch.load(path, weights_only=True)["callbacks"]["ResumeStream"]
    assert state["step"] == resume.step == 9
    assert state["consumed"] == resume.consumed == {"new": 54 - 14, "old": 14}  # 13.5, halves up


def test_branching_goes_on_behind_what_was_consumed(data, tmp_path):
    resume = ResumeStream()
    resume.branch({"new": 31, "gone": 7})
    rows, *_ = train(data, tmp_path, resume=resume, max_steps=2, micro=6)
    new = sorted(number for row in rows for source, number in row["ids"] if source == 0)
    assert new == list(range(31, 31 + 9))
    assert rows[0]["step"] == 0
    assert resume.consumed == {"new": 40, "old": 3, "gone": 7}


def branched(data, tmp_path, state, steps=1, **options):
    """Train after another run's samples; return the new run's state and the running numbers of its first source."""
    resume = ResumeStream()
    resume.branch(state["consumed"], state)
    rows, *_ = train(data, tmp_path, resume=resume, max_steps=steps, micro=options.get("batch", 6), **options)
    return resume, sorted(number for row in rows for source, number in row["ids"] if source == 0)


@pytest.fixture
def parent(whole_run):
    """The state of a run of 9 steps, whose sources have 40 and 20 samples of 16 tokens."""
    checkpoint = torch.load(whole_run(max_steps=9, workers=2)[1] / "step=9.ckpt", weights_only=True)
    return checkpoint["callbacks"]["ResumeStream"]


@pytest.mark.parametrize("length", [8, 12, 24, 32])
def test_a_branch_with_other_windows_continues_after_as_many_tokens(data, tmp_path, parent, monkeypatch, length):
    """Of the whole life of the weights: tokens and epochs are those that were read, to a window."""
    assert parent["consumed"] == {"new": 40, "old": 14}
    monkeypatch.setattr(tiny_run, "LENGTH", length)
    resume, numbers = branched(data, tmp_path, parent)
    before = {name: count * 16 // length for name, count in parent["consumed"].items()}
    assert numbers[0] == before["new"]
    assert sum(resume.consumed.values()) == sum(before.values()) + 6
    again, numbers = branched(data, tmp_path, resume_state(resume), seed=0)  # a branch of the branch
    assert numbers[0] == resume.consumed["new"]
    assert sum(again.consumed.values()) == sum(before.values()) + 12


def resume_state(resume):
    """What the callback saves in a checkpoint."""
    trainer = SimpleNamespace(global_step=resume._global_step)
    progress = {kind: {"processed": 0, "completed": 0} for kind in ("total", "current")}
    checkpoint = {"callbacks": {}, "loops": {"fit_loop": {"epoch_loop.batch_progress": progress}}}
    resume.on_save_checkpoint(trainer, None, checkpoint)
    return checkpoint["callbacks"][resume.state_key]


def test_a_branch_refuses_other_data_by_the_name_of_a_source(data, tmp_path, parent):
    other = tiny_run.prepare(tmp_path / "other", samples=30)
    with pytest.raises(UserError, match=r"'new' has 30 samples, but had 40 .* give the source another name"):
        branched(other, tmp_path, parent)
    text = tiny_run.real_documents()[2]
    tiny_run.write_tokens(tmp_path / "same" / "new", tiny_run.byte_tokens([text])[: 40 * 16 + 1])
    shutil.copytree(data / "old", tmp_path / "same" / "old")
    with pytest.raises(UserError, match="'new' holds other data"):
        branched(tmp_path / "same", tmp_path, parent)
    with pytest.raises(UserError, match="'new' holds other data"):  # as a resume does
        path = tmp_path / "x.ckpt"
        train(data, tmp_path, max_steps=1, micro=6, callbacks=[ModelCheckpoint(tmp_path, "x", every_n_train_steps=1)])
        train(tmp_path / "same", tmp_path, max_steps=2, micro=6, ckpt_path=path)


def test_a_branch_of_a_stream_without_names_reads_other_data_from_the_start(data, tmp_path, parent):
    stream = tiny_run.make_stream(data, micro=6)
    stream.names_data = False
    state = {**parent, "sources": {name: {**facts, "content": "x"} for name, facts in parent["sources"].items()}}
    assert resume_module._continued(stream, state, state["consumed"]) == {"new": 0, "old": 0}


@pytest.mark.parametrize(
    "options", [{}, {"seed": 1}, {"batch": 12}, {"fraction": 0.75}], ids=["alike", "seed", "batch size", "fraction"]
)
def test_a_branch_continues_after_the_same_samples(data, tmp_path, parent, options):
    resume, numbers = branched(data, tmp_path, parent, **options)
    assert numbers[0] == parent["consumed"]["new"]
    assert sum(resume.consumed.values()) == 54 + options.get("batch", 6)


def test_a_branch_starts_new_sources_at_the_first_sample_and_keeps_old_ones(data, tmp_path, parent):
    state = {
        **parent,
        "consumed": {"gone": 7, "old": 14},
        "samples": {"gone": 9, "old": 20},
        "sources": {"gone": {"samples": 9, "length": 16, "content": "x"}, "old": parent["sources"]["old"]},
    }
    resume, numbers = branched(data, tmp_path, state)
    assert numbers[0] == 0 and resume.consumed["gone"] == 7
    assert resume_state(resume)["sources"]["gone"] == state["sources"]["gone"]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_branch_keeps_the_order_of_its_parent_where_it_continues_it(data, tmp_path, parent, seed):
    former = {key: value for key, value in parent.items() if key not in ("order", "sources")}
    resume, _ = branched(data, tmp_path, former, seed=seed)
    assert resume_state(resume)["order"] == (1 if seed == 0 else ORDER)
    resume, _ = branched(data, tmp_path, parent, seed=seed)
    assert resume_state(resume)["order"] == ORDER


def test_a_resumed_run_keeps_the_order_that_it_began_in(data, tmp_path):
    """The order of a checkpoint without a version is the first one; a version that is not known is refused."""

    class Former(ResumeStream):
        def on_train_start(self, trainer, pl_module):
            trainer.train_dataloader.stream.order = 1
            super().on_train_start(trainer, pl_module)

    def texts(rows):
        return [text for row in rows for text in row["text"]]

    whole = texts(train(data, tmp_path, max_steps=4, micro=6, resume=Former())[0])
    assert whole != texts(train(data, tmp_path, max_steps=4, micro=6)[0])
    saving = ModelCheckpoint(tmp_path, "x", every_n_train_steps=2, save_top_k=-1)
    train(data, tmp_path, max_steps=2, micro=6, resume=Former(), callbacks=[saving])
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    state = checkpoint["callbacks"].pop(Former().state_key)
    for version in (None, 1, ORDER + 1):
        checkpoint["callbacks"]["ResumeStream"] = {k: v for k, v in state.items() if k != "order"}
        if version is not None:
            checkpoint["callbacks"]["ResumeStream"]["order"] = version
        torch.save(checkpoint, tmp_path / "former.ckpt")
        if version == ORDER + 1:
            with pytest.raises(UserError, match=f"version {ORDER + 1} of the order"):
                train(data, tmp_path, max_steps=4, micro=6, ckpt_path=tmp_path / "former.ckpt")
        else:
            rest = train(data, tmp_path, max_steps=4, micro=6, ckpt_path=tmp_path / "former.ckpt")[0]
            assert texts(rest) == whole[12:]


def test_a_second_fit_goes_on(data, tmp_path):
    record = Record()
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        callbacks=[ResumeStream(), record], default_root_dir=tmp_path,
    )  # fmt: skip
    module = TinyLM()
    trainer.fit(module, StreamLoader(tiny_run.make_stream(data, micro=6)))
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, StreamLoader(tiny_run.make_stream(data, micro=6)))
    assert [row["ids"] for row in record.rows] == [
        row["ids"] for row in train(data, tmp_path, micro=6, max_epochs=2)[0]
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 12, "accumulate_grad_batches": 6}, "global_batch_size is 12"),
        ({"seed": 1}, "seed is 1"),
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches is 2"),
        ({"limit_train_batches": 10}, "10 micro-batches"),
        ({"world": 2, "micro": 1, "rank": 1}, "rank 1 of 2"),
    ],
)
def test_refusals(data, tmp_path, whole_run, options, words):
    with pytest.raises(UserError, match=words):
        train(data, tmp_path, max_steps=9, ckpt_path=whole_run(max_steps=9, workers=2)[1] / "step=1.ckpt", **options)


def test_other_data_are_refused(data, tmp_path, whole_run):
    other = tiny_run.prepare(tmp_path / "other", samples=30)
    with pytest.raises(UserError, match="has 30 samples, but had 40"):
        train(other, tmp_path, max_steps=9, ckpt_path=whole_run(max_steps=9, workers=2)[1] / "step=1.ckpt")


def test_a_checkpoint_without_the_state_is_refused(data, tmp_path, whole_run):
    path = tmp_path / "x.ckpt"
    checkpoint = torch.load(whole_run(max_steps=9, workers=2)[1] / "step=1.ckpt", weights_only=True)
    del checkpoint["callbacks"]["ResumeStream"]
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match="ResumeStream was not"):
        train(data, tmp_path, max_steps=2, ckpt_path=path)


def test_evaluating_a_checkpoint_does_not_move_the_training(data, whole_run):
    path, resume = whole_run(max_steps=9, workers=2)[1] / "step=3.ckpt", ResumeStream()
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[resume], enable_progress_bar=False)
    loader = StreamLoader(EvalStream(TokenWindows(data / "old", 16), 4))
    trainer.validate(TinyLM(), loader, ckpt_path=path, weights_only=True)
    assert (resume.step, resume.consumed) == (0, {})


def test_other_loaders_are_left_alone(data, tmp_path):
    loader = torch.utils.data.DataLoader(EvalStream(TokenWindows(data / "old", 16), 4), batch_size=None)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, callbacks=[ResumeStream()], default_root_dir=tmp_path,
        enable_progress_bar=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(TinyLM(), loader)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert "ResumeStream" not in torch.load(tmp_path / "x.ckpt", weights_only=True)["callbacks"]


def test_named_loader(data, tmp_path):
    names = []

    class Name(Callback):
        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
            names.append(named_loader(trainer, "val", dataloader_idx))

    train(data, tmp_path, max_steps=1, callbacks=[Name()], num_sanity_val_steps=0, val_check_interval=3)
    assert set(names) == {"old"}


def test_one_device_then_two_then_one(data, tmp_path):
    """The same samples in each optimizer step, and the same weights but for the order of summation."""
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    options = {"batch": 4, "micro": 1, "dropout": 0.0, "max_steps": 18}  # dropout differs from rank to rank
    whole = train(data, tmp_path, callbacks=[saver], **options)
    first, out = tmp_path / "step=4.ckpt", tmp_path / "two"
    arguments = tiny_run.command(data, out, devices=2, micro=1, dropout=0.0, steps=14, every=14, ckpt_path=first)
    result = subprocess.run(**arguments, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr[-3000:]
    last = train(data, tmp_path, ckpt_path=out / "last.ckpt", **options)

    ids = samples_by_step(whole[0])
    two = [json.loads(line) for rank in (0, 1) for line in (out / f"rows.{rank}").open()]
    places = [(step // 10, step % 10 * 2 + part) for step in range(4, 14) for part in (0, 1)]
    assert [(row["epoch"], row["batch_idx"]) for row in two] == places * 2  # accumulation 2, where one device has 4
    assert samples_by_step(two) == {step: ids[step] for step in range(4, 14)}
    assert samples_by_step(last[0]) == {step: ids[step] for step in range(14, 18)}
    assert [row["epoch"] for row in last[0]] == [row["epoch"] for row in whole[0][14 * 4 :]]
    for name, weight in last[1].items():
        torch.testing.assert_close(weight, whole[1][name], atol=1e-6, rtol=1e-5)


def samples_by_step(rows):
    steps = {}
    for row in rows:
        steps.setdefault(row["step"], []).extend(map(tuple, row["ids"]))
    return {step: sorted(ids) for step, ids in steps.items()}
