"""A value of the wrong type in a description is told in a sentence by whatever builds what a checkpoint holds."""

import re

import pytest
import torch
from test_foreign_checkpoints import at, changed, last, places
from test_foreign_checkpoints import former as former  # a fixture

from lit_core.errors import UserError
from lit_detect import DetectorTask
from lit_detect.loading import trained
from lit_moe import MoELanguageModel
from lit_moe.lm import load_module
from lit_valuation import ClassifierTask
from lit_valuation.training.loading import load_task

#: What builds a model in Python and in the verbs, by run.
LOADED = {
    "valuation/first": (load_task, ClassifierTask.load_from_checkpoint),
    "detect/ensemble": (trained, DetectorTask.load_from_checkpoint),
    "moe/first": (load_module, MoELanguageModel.load_from_checkpoint),
}
#: Words of jsonargparse and of Python.
RAW = re.compile(r"Does not validate|Parser key|Subtypes|Given value|Got value|Namespace|Problem with|\w+Error\b")


@pytest.mark.parametrize("run", [pytest.param(run, marks=[pytest.mark.slow] * (run[0] == "m")) for run in LOADED])
def test_a_value_of_the_wrong_type_is_told_in_a_sentence_at_each_place(run, former):
    checkpoint = torch.load(last(run), weights_only=True)
    refused = set()
    for path in places({"hyper_parameters": checkpoint["hyper_parameters"]}):
        wrong = 5 if isinstance(at(checkpoint, path), list) else ["x"]
        torch.save(changed(checkpoint, path, wrong), "wrong.ckpt")
        for load in LOADED[run]:
            try:
                load("wrong.ckpt")
            except UserError as error:
                refused.add(path)
                assert "wrong.ckpt" in str(error) or "classes" in str(path[-1])
                assert not RAW.search(str(error)) and len(str(error)) < 500, error
    assert len(refused) > 10
