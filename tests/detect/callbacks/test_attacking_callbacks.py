"""RobustnessMonitor and AdversarialTraining on a foreign module, one process and two."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from lit_core.errors import UserError
from lit_detect.attacks import Attack
from lit_detect.attacks.base import Attacked
from lit_detect.callbacks import AdversarialTraining, RobustnessMonitor
from lit_detect.records import Edit

# machine texts say "alpha", some of them twice; an attack that replaces the first one hides those that say it once
MACHINE = [f"alpha number {number}" + " alpha" * (number % 3 == 0) for number in range(12)]
HUMAN = [f"beta number {number}" for number in range(12)]
TEXTS = [text for pair in zip(HUMAN, MACHINE, strict=True) for text in pair]


class Replace(Attack):
    """Replaces the first "alpha"."""

    name = "Replace first/alpha"

    def __init__(self, queries=0):
        self.queries, self.calls = queries, 0

    def __call__(self, text, seed):
        self.calls += 1
        start = text.find("alpha")
        if start < 0:
            return Attacked(text, ())
        edits = (Edit(start, start + 5, "alpha", "omega"),)
        return Attacked(text.replace("alpha", "omega", 1), edits, self.queries)


class Delete(Replace):
    """Deletes all of it."""

    name = "Delete"

    def __call__(self, text, seed):
        self.calls += 1
        return Attacked("omega", (Edit(0, len(text), text, "omega"),))


class Detector(pl.LightningModule):
    """Somebody else's module: machine is a text that says alpha."""

    threshold = 1.0

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.read = []

    def score(self, texts):
        return torch.tensor([float(text.count("alpha")) for text in texts])

    def training_step(self, batch, batch_idx):
        self.read += list(zip(batch["index"].tolist(), batch["text"], strict=True))
        return self.weight.sum()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Data(pl.LightningDataModule):
    normalize = False

    def loader(self, texts=TEXTS):
        rank, world = self.trainer.global_rank, self.trainer.world_size
        rows = [{"text": text, "y": number % 2, "index": number} for number, text in enumerate(texts)]
        return DataLoader(rows[rank::world], batch_size=4)

    def train_dataloader(self):
        return self.loader()

    def val_dataloader(self):
        return {"wild": self.loader(), "short": self.loader(TEXTS[:4])}

    test_dataloader = val_dataloader


def trainer(tmp_path, *callbacks, **arguments):
    settings = {"accelerator": "cpu", "devices": 1, "enable_checkpointing": False, "enable_model_summary": False}
    settings |= {
        "enable_progress_bar": False,
        "log_every_n_steps": 1,
        "max_epochs": 2,
        "use_distributed_sampler": False,
    }
    logger = CSVLogger(tmp_path, name="", version="", flush_logs_every_n_steps=1)
    return pl.Trainer(**settings | {"logger": logger} | arguments, callbacks=list(callbacks))


def test_robustness_is_logged_for_each_source(tmp_path):
    attack = Replace()
    run = trainer(tmp_path, RobustnessMonitor([attack, Delete()], documents=6))
    by_loader = run.test(Detector(), Data(), verbose=False)
    wild = {name: value for values in by_loader for name, value in values.items()}
    key = "test/wild/attack/Replace_first_alpha"
    # of the first six machine texts all are detected; numbers 0 and 3 say alpha twice
    assert wild[f"{key}/evasion"] == pytest.approx(4 / 6)
    assert wild[f"{key}/recall_before"] == 1 and wild[f"{key}/recall_after"] == pytest.approx(2 / 6)
    assert wild[f"{key}/edits"] == 1 and wild[f"{key}/queries"] == 0 and wild[f"{key}/score_drop"] == 1
    assert wild[f"{key}/words_changed"] == pytest.approx((4 / 3 + 2 / 4) / 6)
    assert wild["test/wild/attack/Delete/evasion"] == 1
    assert wild["test/short/attack/Delete/recall_before"] == 1
    assert attack.calls == 6  # the short source holds texts that are attacked already


def test_robustness_is_logged_in_training_and_attacks_are_made_once(tmp_path):
    plain, asking = Replace(), Delete()
    asking.__class__ = type("Asking", (Replace,), {"name": "Asking"})
    asking.queries = 3
    monitor = RobustnessMonitor([plain, asking], documents=5, every_n_epochs=2)
    run = trainer(tmp_path, monitor, max_epochs=3)
    run.fit(Detector(), Data())
    assert plain.calls == 5
    assert asking.calls == (5 + 2) * 2  # epochs 0 and 2, both sources: it asks the detector, which changes
    rows = (tmp_path / "metrics.csv").read_text()
    assert "val/wild/attack/Replace_first_alpha/evasion" in rows and "val/short/attack/Asking/queries" in rows


class Kept(RobustnessMonitor):
    """Leaves what was logged where the test finds it."""

    def on_test_end(self, trainer, pl_module):
        folder = trainer.default_root_dir
        values = {name: float(value) for name, value in trainer.logged_metrics.items()}
        torch.save(values, f"{folder}/{trainer.world_size}-{trainer.global_rank}.pt")


def test_two_processes_attack_what_one_attacks(tmp_path):
    for devices in (1, 2):
        strategy = "ddp_spawn" if devices == 2 else "auto"
        run = trainer(
            tmp_path,
            Kept([Replace()], documents=5),
            devices=devices,
            strategy=strategy,
            default_root_dir=tmp_path,
            logger=False,
        )
        run.test(Detector(), Data(), verbose=False)
    one, *two = (torch.load(tmp_path / name) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    assert two == [one, one] and len(one) == 14


def read(tmp_path, share=0.5, **arguments):
    detector = Detector()
    callback = AdversarialTraining([Replace(), Delete()], share=share, **arguments)
    trainer(tmp_path, callback, limit_val_batches=0).fit(detector, Data())
    return detector.read, callback


def test_a_share_of_the_machine_texts_is_replaced(tmp_path):
    seen, callback = read(tmp_path)
    assert all(text == HUMAN[index // 2] for index, text in seen if index % 2 == 0)
    changed = {index for index, text in seen if text != TEXTS[index]}
    assert changed <= set(range(1, 24, 2)) and 2 <= len(changed) <= 10
    assert sum(attack.calls for attack in callback.attacks.attacks) == len(changed)  # two epochs, made once
    assert {text for index, text in seen if index in changed} - {"omega"}  # both attacks occur
    assert seen == read(tmp_path / "again")[0]
    assert seen != read(tmp_path / "other", seed=1)[0]
    rows = (tmp_path / "metrics.csv").read_text()
    assert "train/adversarial/share" in rows and "train/adversarial/edits" in rows


def test_what_is_attacked_depends_on_the_index_alone(tmp_path):
    # half the texts, as a second process or a resumed run would read them
    whole = dict(read(tmp_path / "whole")[0])
    detector = Detector()
    run = trainer(tmp_path, AdversarialTraining([Replace(), Delete()]), limit_val_batches=0, max_epochs=1)
    data = Data()
    data.train_dataloader = lambda: DataLoader(
        [{"text": TEXTS[number], "y": number % 2, "index": number} for number in range(23, 11, -1)], batch_size=3
    )
    run.fit(detector, data)
    assert dict(detector.read) == {number: whole[number] for number in range(12, 24)}


def test_epochs_without_attacks(tmp_path):
    seen, _ = read(tmp_path, share=1.0, start_epoch=1)
    first, second = seen[:24], seen[24:]
    assert [text for _, text in first] == TEXTS
    assert all("alpha" not in text or text.count("omega") == 1 for index, text in second if index % 2)


def test_mistakes_are_said():
    with pytest.raises(UserError, match="`attacks` is empty"):
        RobustnessMonitor([])
    with pytest.raises(UserError, match="twice"):
        AdversarialTraining([Replace(), Replace()])
    with pytest.raises(UserError, match="`share` is 0"):
        AdversarialTraining([Replace()], share=0.0)
    with pytest.raises(UserError, match="documents is 0"):
        RobustnessMonitor([Replace()], documents=0)


def test_a_module_that_cannot_score_is_told(tmp_path):
    module = Detector()
    module.score = None
    with pytest.raises(UserError, match="Detector cannot score texts"):
        trainer(tmp_path, RobustnessMonitor([Replace()])).test(module, Data(), verbose=False)
