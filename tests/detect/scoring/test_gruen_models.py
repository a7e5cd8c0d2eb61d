"""GRUEN with tiny random models, against one sentence at a time through transformers, and in a report."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from austen_pairs import pairs

from lit_core.errors import UserError
from lit_detect.attacks import ArticleDeletion
from lit_detect.commands.attack import attacked_record
from lit_detect.functional.gruen import parts_of, redundancy
from lit_detect.language.entities import split_sentences
from lit_detect.language.similarity import WordOverlap
from lit_detect.language.word_vectors import WordVectors
from lit_detect.report.quality import quality
from lit_detect.scoring.gruen import Gruen


@pytest.fixture(scope="module")
def masked(tiny_bert, tmp_path_factory):
    """The tiny BERT as a masked language model."""
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("masked")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        BertForMaskedLM(BertConfig.from_pretrained(tiny_bert)).save_pretrained(folder)
    return str(folder)


def naive(text, masked, classifier):
    """The published steps, one sentence at a time, in float64."""
    from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(masked)
    lm = AutoModelForMaskedLM.from_pretrained(masked).eval().double()
    cola = AutoModelForSequenceClassification.from_pretrained(classifier).eval().double()
    sentences = [" ".join(text[start:end].split()) for start, end in split_sentences(text)]
    scores = []
    for part in parts_of(sentences):
        exponentials, logits = [], []
        for sentence in part:
            ids = tokenizer(sentence, truncation=True, max_length=48, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                exponentials.append(math.exp(float(lm(ids, labels=ids).loss)))
                logits.append(float(cola(ids).logits[0, 1]))
        grammar = max(0.0, (math.exp(-0.5 * np.mean(exponentials)) + np.mean(logits)) / 8 + 0.5)
        scores.append(min(1.0, max(0.0, grammar + redundancy(part))))
    return np.mean(scores)


def test_the_score_is_that_of_one_sentence_at_a_time(masked, tiny_bert):
    texts = ["It was late. The rain fell softly on Highbury; she saw him and left.", *(one.text for one in pairs(4))]
    texts.append(" ".join(f"This is sentence number {place} of many." for place in range(14)))
    scorer = Gruen(masked, tiny_bert, batch_size=3)
    found = scorer(texts)
    assert found == pytest.approx([naive(text, masked, tiny_bert) for text in texts], abs=1e-5)
    assert len({round(score, 3) for score in found}) > 2
    assert scorer(["", "word", "!"]) == [0, 0, 0]
    assert scorer.name.startswith("Gruen[")


def test_sentences_without_a_common_theme_cost_a_tenth(masked, tiny_bert, tmp_path):
    (tmp_path / "vectors.txt").write_text("rain 1 0\nwater 1 0.1\nmoney 0 1\nbank 0.1 1\n")
    near, far = "The rain fell again. There was water.", "The rain fell again. There was money."
    plain = Gruen(masked, tiny_bert)
    with_focus = Gruen(masked, tiny_bert, WordVectors(str(tmp_path / "vectors.txt")))
    assert with_focus([near]) == plain([near])
    assert with_focus([far])[0] == pytest.approx(plain([far])[0] - 0.1)
    assert with_focus(["No vector here. None there."]) == plain(["No vector here. None there."])


def test_models_that_cannot_be_loaded_are_named(masked, tiny_bert):
    with pytest.raises(UserError, match="`acceptability` is /nowhere"):
        Gruen(masked, "/nowhere")
    with pytest.raises(UserError, match="masked language model is /nowhere"):
        Gruen("/nowhere", tiny_bert)
    with pytest.raises(UserError, match=r"`acceptability` is .*it has no trained classifier"):
        Gruen(masked, masked)


def test_the_price_of_an_attack_is_measured_once(masked, tiny_bert, tiny_gpt2, tmp_path):
    from lit_core.lm.language_model import HuggingFaceLM
    from lit_detect.scoring.causal import score_tokens

    lm, scorer, attack = HuggingFaceLM.from_pretrained(tiny_gpt2), Gruen(masked, tiny_bert), ArticleDeletion(1.0)
    clean = [replace(one, text=one.text[:120]) for one in pairs(6)]
    attacked = [attacked_record(one, attack.name, attack(one.text, 0)) for one in clean if one.label]
    arguments = (clean + attacked, tmp_path / "quality.jsonl", WordOverlap(), lm, scorer, 50)
    ((name, values),) = quality(*arguments)
    assert name == attack.name and values["texts"] == 6
    machine = [one for one in clean if one.label]
    losses = [-float(row["log_prob"].double().mean()) for row in score_tokens(lm, [one.text for one in machine], 64)]
    assert values["perplexity_before"].mean == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert values["gruen_before"].mean == pytest.approx(np.mean(scorer([one.text for one in machine])), abs=1e-6)
    assert values["gruen_after"].mean == pytest.approx(np.mean(scorer([one.text for one in attacked])), abs=1e-6)
    articles = [sum(word in ("a", "an", "the") for word in one.text.split()[1:-1]) for one in machine]
    assert values["edits"].mean == pytest.approx(np.mean(articles))
    assert values["similarity"].mean < 1 and values["words_changed"].mean > 0 and values["queries"].mean == 0
    lines = (tmp_path / "quality.jsonl").read_text().splitlines()
    assert quality(*arguments) == [(name, values)]
    assert (tmp_path / "quality.jsonl").read_text().splitlines() == lines
    assert set(json.loads(lines[0])) == {"format", "version"}
    assert all(set(json.loads(line)) == {"pair", "value"} for line in lines[1:])
    assert "gruen_before" not in dict(quality(*arguments[:3], resamples=50))[name]
