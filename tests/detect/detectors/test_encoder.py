import copy
import json
import shutil

import pytest
import torch
from tiny_models import HUMAN, MACHINE, overfit, save_bert

from lit_core.errors import UserError
from lit_detect.detectors import EncoderDetector
from lit_detect.nn.encoders import freeze_unused, load_encoder

TEXTS = [*HUMAN, "", "one " * 200, "😀😀", "[SEP] </s> <|endoftext|>"]


@pytest.fixture(scope="module", params=["tiny_bert", "tiny_roberta", "scratch-1x32"])
def detector(request):
    model = request.param if "scratch" in request.param else request.getfixturevalue(request.param)
    return EncoderDetector(model, max_tokens=40)


@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_roberta"])
def test_scores_are_those_of_transformers_one_text_at_a_time(kind, request):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = request.getfixturevalue(kind)
    detector = EncoderDetector(folder, max_tokens=40, machine_label=1)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = TEXTS[:-1]  # special tokens that a text spells out are read by transformers
    expected = []
    for text in texts:
        with torch.no_grad():
            logits = model(**tokenizer(text, truncation=True, max_length=40, return_tensors="pt")).logits[0]
        expected.append(float(logits[1] - logits[0]))
    torch.testing.assert_close(detector.score(texts), torch.tensor(expected).double(), atol=1e-5, rtol=0)
    swapped = EncoderDetector(folder, max_tokens=40, machine_label=0)
    torch.testing.assert_close(swapped.score(texts), -torch.tensor(expected).double(), atol=1e-5, rtol=0)
    assert detector.count_tokens(texts) == [len(tokenizer(text, add_special_tokens=False).input_ids) for text in texts]


def test_it_is_fitted_where_all_weights_of_a_classifier_are_loaded(tiny_bert, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    assert EncoderDetector(tiny_bert, 40, machine_label=1).is_fitted
    AutoModel.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    new = [EncoderDetector(str(tmp_path), 40), EncoderDetector(tiny_bert, 40, reinit_layers=1)]
    for detector in (*new, EncoderDetector("scratch-1x32")):
        assert not detector.is_fitted


@pytest.mark.parametrize(
    ("labels", "more", "machine"),
    [
        (["Fake", "Real"], {}, 0),
        (["Real", "Fake"], {}, 1),
        (["Human", "ChatGPT"], {}, 1),
        (["GPT-2", "human-written"], {}, 0),
        (["AI-generated", "other"], {}, 0),
        (["Fake", "Real"], {"label2id": {"Fake": 0, "Real": 1}}, 0),
        (["Fake", "Real"], {"label2id": {"Fake": 1, "Real": 0}}, None),
        (["LABEL_0", "LABEL_1"], {}, None),
        (["0", "1"], {}, None),
        (["negative", "positive"], {}, None),
        (["Fake", "fake"], {}, None),
        (["human", "real"], {}, None),
    ],
)
def test_the_label_that_means_machine_is_read_from_their_names(labels, more, machine, tiny_bert, tmp_path):
    shutil.copytree(tiny_bert, tmp_path / "published")
    path = tmp_path / "published/config.json"
    config = json.loads(path.read_text()) | {"id2label": {str(i): name for i, name in enumerate(labels)}} | more
    path.write_text(json.dumps(config))
    detector = EncoderDetector(str(path.parent), 40)
    if machine is not None:
        with pytest.raises(UserError, match=rf"labels of published are called 0 '{labels[0]}'.*leave it out"):
            EncoderDetector(str(path.parent), 40, machine_label=1 - machine)
    config["id2label"] = {"0": "LABEL_0", "1": "LABEL_1"}
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "label2id"}))
    first = EncoderDetector(str(path.parent), 40, machine_label=0)
    assert first.is_fitted
    if machine is None:
        with pytest.raises(UserError, match=rf"labels 0 '{labels[0]}' and 1 '{labels[1]}'.* set machine_label to 0 or"):
            detector.require_fitted()
        detector.has_trained_weights = True  # after a training
    sign = 1 if machine == 0 else -1
    detector.require_fitted()
    assert torch.equal(detector.score(TEXTS), sign * first.score(TEXTS))


def test_the_batch_does_not_matter_and_evaluation_is_deterministic(detector):
    scores = detector.score(TEXTS)
    assert scores.dtype == torch.float64 and scores.shape == (len(TEXTS),)
    torch.testing.assert_close(scores, torch.cat([detector.score([text]) for text in TEXTS]), atol=1e-5, rtol=0)
    assert torch.equal(scores, detector.score(TEXTS))
    assert detector.score([]).shape == (0,)
    assert detector.training  # left as it was


def test_no_text_spells_a_special_token(detector):
    end = detector.tokenizer(["x"], torch.device("cpu")).ids_BT[0, -1].item()
    spelled = "[SEP] </s> <|endoftext|>"
    ids = detector.tokenizer([spelled], torch.device("cpu")).ids_BT[0].tolist()
    assert end not in ids[1:-1] and detector.count_tokens([spelled])[0] == len(ids) - 2


def test_padding_and_offsets(detector):
    tokens = detector.tokenizer(["Emma smiled.", "one " * 200], torch.device("cpu"))
    assert tokens.ids_BT.shape == tokens.mask_BT.shape == tokens.offsets_BT2.shape[:2] == (2, 40)
    length = int(tokens.mask_BT[0].sum())
    assert tokens.mask_BT[0].tolist() == [True] * length + [False] * (40 - length)
    spans = tokens.offsets_BT2[0, 1 : length - 1].tolist()
    assert "".join("Emma smiled."[start:end].strip() for start, end in spans) == "Emmasmiled."
    assert tokens.offsets_BT2[0, [0, length - 1]].tolist() == [[0, 0], [0, 0]]


def test_equal_seeds_give_equal_weights(tiny_bert):
    def weights(**options):
        return torch.cat([p.detach().flatten() for p in EncoderDetector(max_tokens=40, **options).parameters()])

    state = torch.random.get_rng_state()
    for options in ({"model": "scratch-1x32"}, {"model": tiny_bert, "reinit_layers": 1}):
        assert torch.equal(weights(**options, seed=3), weights(**options, seed=3))
        assert not torch.equal(weights(**options, seed=3), weights(**options, seed=4))
    assert torch.equal(state, torch.random.get_rng_state())


def test_renewed_layers(tiny_bert):
    plain, renewed = EncoderDetector(tiny_bert, 40), EncoderDetector(tiny_bert, 40, reinit_layers=2)
    torch.nn.init.constant_(plain.network.bert.encoder.layer[0].output.LayerNorm.weight, 1.0)
    theirs = dict(plain.network.named_parameters())
    for name, weight in renewed.network.named_parameters():
        new = name.startswith(("bert.encoder.layer.1", "bert.encoder.layer.2", "bert.pooler"))
        if not new:
            assert torch.equal(weight, theirs[name]), name
        elif "LayerNorm.weight" in name:
            assert weight.eq(1).all()
        elif name.endswith("bias"):
            assert weight.eq(0).all()
        else:
            assert not torch.equal(weight, theirs[name]) and 0.015 < weight.std() < 0.025, name
    assert (
        renewed.name == "EncoderDetector[tiny-bert, last 2 layers renewed]"
        and plain.name == "EncoderDetector[tiny-bert]"
    )


def test_all_trained_parameters_get_a_gradient(detector):
    detector = copy.deepcopy(detector)
    detector(TEXTS).sum().backward()
    assert all(p.grad is not None for p in detector.parameters() if p.requires_grad)


def test_unused_parameters_are_frozen():
    network = load_encoder("scratch-1x32", 16, 0, classifies=False).network
    freeze_unused(network, network(input_ids=torch.tensor([[1, 2]])).last_hidden_state)
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert frozen == {"pooler.dense.weight", "pooler.dense.bias"}


@pytest.mark.parametrize("kind", ["tiny_bert", "tiny_roberta", "scratch-1x32"])
def test_it_learns_eight_texts(kind, request):
    model = kind if "scratch" in kind else request.getfixturevalue(kind)
    detector = EncoderDetector(model, max_tokens=40)
    assert overfit(detector, 30, 3e-3) == 1
    assert detector.score(MACHINE).min() > detector.score(HUMAN).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "scratch-1x33"}, "multiple of 32"),
        ({"model": "no/such-folder/here"}, "minilm.*scratch-4x128"),
        ({"model": "scratch-1x32", "max_tokens": 7}, "must be 8 or more"),
        ({"model": "scratch-1x32", "max_tokens": 513}, "at most 512"),
        ({"model": "scratch-1x32", "reinit_layers": 2}, "has 1 layers"),
        ({"model": "scratch-1x32", "reinit_layers": -1}, "0 or more"),
        ({"model": "scratch-1x32", "machine_label": 2}, "machine_label is 2, but must be 0 or 1"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        EncoderDetector(**options)


def test_the_longest_input_is_known(tiny_bert, tiny_roberta):
    for folder, limit in (
        (tiny_bert, 48),
        (tiny_roberta, 64),
    ):  # the tokenizer's; 66 places of which RoBERTa leaves 2 unused
        assert EncoderDetector(folder, limit).score(["one " * 200]).isfinite().all()
        with pytest.raises(UserError, match=f"takes at most {limit}"):
            EncoderDetector(folder, limit + 1)


def test_weights_that_are_pickled_are_not_read(tiny_bert, tmp_path):
    save_bert(tmp_path)
    from safetensors.torch import load_file

    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="safetensors"):
        EncoderDetector(str(tmp_path), 40)


@pytest.mark.slow
def test_minilm():
    detector = EncoderDetector("minilm")
    assert detector.name == "EncoderDetector[MiniLM]" and detector.score(["Hello.", ""]).isfinite().all()
