"""Builds a part from its config as a command does, with small parts in place of those that would have to be fetched."""

import pydoc
from typing import get_args, get_type_hints
from unittest import mock

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from kinds import KINDS, entries
from tiny_models import prose

from lit_core.lm.language_model import HuggingFaceLM, LanguageModel
from lit_detect.detectors import Detector
from lit_detect.language.parts_of_speech import Tagger
from lit_detect.language.similarity import Similarity
from lit_detect.language.synonyms import WORD, Synonyms
from lit_detect.language.word_vectors import WordVectors
from lit_detect.scoring.masked_language_model import MaskedLM

#: What the small causal model has learned to write.
LEARNED = [
    "it is important to note that it was good. it is also of use.",
    "it is also of use. it was good and it is important to note.",
    "it was good. it is of use and it is important to note that.",
    "it is of use. it is important and it was also good to note.",
]


def cases(base):
    """Return the kind of a base class, and each of its configs as a parameter."""
    (kind,) = [kind for kind in KINDS if kind.base is base]
    return kind, [pytest.param(path, id=path.stem) for path in kind.paths]


class StandIns:
    """Small parts by the type of the argument that takes them, saved below a folder.

    Args:
        folder: Folder for the models.
        tiny_gpt2: Folder of a small GPT-2, whose tokenizer is taken.
        tiny_bert: Folder of a small BERT, whose tokenizer is taken.
    """

    def __init__(self, folder, tiny_gpt2, tiny_bert):
        causal, masked = str(folder / "causal"), str(folder / "masked")
        vectors, seq2seq = str(folder / "vectors.txt"), str(folder / "seq2seq")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _save_causal(causal, tiny_gpt2)
            _save_masked(masked, tiny_bert)
            _save_seq2seq(seq2seq, tiny_gpt2)
        _save_vectors(vectors)
        lm = _node("lit_core.lm.HuggingFaceLM.from_pretrained", name=causal)
        detectors = [
            _node("lit_detect.detectors.FastDetectGPT", language_model=lm),
            _node("lit_detect.detectors.EntityStatistics"),
        ]
        #: By type; a type comes before its base class.
        self._parts = {
            MaskedLM: [_node("lit_detect.scoring.MaskedLM.from_pretrained", name=masked)],
            LanguageModel: [lm],
            Detector: detectors,
            WordVectors: [_node("lit_detect.language.WordVectors", vectors=vectors)],
            Synonyms: [_node("lit_detect.language.wordnet.EmbeddedSynonyms")],
            Tagger: [_node("lit_detect.language.parts_of_speech.RuleTagger")],
            Similarity: [_node("lit_detect.language.similarity.WordOverlap")],
        }
        #: In place of a model on Hugging Face that is named by a string, the first one that works.
        self._folders = ["scratch-6x32", seq2seq]

    def build(self, kind, path, check):
        """Return the part of a config.

        Args:
            kind: The kind of the part.
            path: The config.
            check: Called with the part; what it raises tells that the part does not work with a stand-in.
        """
        text = path.read_text().replace("${trainer.max_steps}", "100")
        (entry,) = entries(yaml.safe_load(text), kind.key)
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--part", type=kind.type or kind.base)
        parsed = parser.parse_object({"part": entry}).part.class_path
        arguments = dict(entry.get("init_args", {}))
        named = []
        for name, hint in get_type_hints(pydoc.locate(parsed).__init__).items():
            part = self._stand_in(hint, arguments.get(name))
            if part is not None:
                arguments[name] = part
            elif hint is str and "Hugging Face" in _help(pydoc.locate(parsed), name):
                named.append(name)
        error = None
        for folder in self._folders if named else [None]:
            values = arguments | dict.fromkeys(named, folder)
            try:
                config = parser.parse_object({"part": {"class_path": parsed, "init_args": values}})
                # offline, or a name that is no folder is asked for again and again
                with mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True):
                    part = parser.instantiate(config).part
                    check(part)
                return part
            except Exception as raised:
                error = raised
        if _needs_a_fetch(error):
            pytest.skip(f"{path.name} cannot be built from what is on this machine: {error}")
        raise error

    def _stand_in(self, hint, value):
        """Return the config of a stand-in for an argument of a type, a list of them for a list, or None."""
        wanted = _classes(hint)
        bases = [base for base in self._parts if any(issubclass(one, base) for one in wanted)]
        if not bases:
            return None
        given = _made_by(value)
        base = next((base for base in bases if given and issubclass(given, base)), bases[0])
        nodes = self._parts[base]
        return nodes if list in wanted else nodes[0]


def _node(class_path, **arguments):
    return {"class_path": class_path, "init_args": arguments}


def _classes(hint):
    """Return the classes that a type hint names, at any depth."""
    inner = [one for part in get_args(hint) for one in _classes(part)]
    outer = getattr(hint, "__origin__", hint)
    return [*([outer] if isinstance(outer, type) else []), *inner]


def _made_by(value):
    """Return the class of what the entry of a config makes; None where it is no entry."""
    if not isinstance(value, dict) or "class_path" not in value:
        return None
    part = pydoc.locate(value["class_path"])
    return part if isinstance(part, type) else get_type_hints(part).get("return") if part else None


def _help(part, name):
    parser = ArgumentParser()
    parser.add_class_arguments(part, "part", fail_untyped=False)
    (action,) = [action for action in parser._actions if action.dest == f"part.{name}"]
    return action.help


def _needs_a_fetch(error):
    """Tell whether an error comes from a file or package that is not there."""
    while error is not None:
        if isinstance(error, (OSError, ImportError)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _save_causal(folder, tiny_gpt2):
    """Save a small GPT-2 of 1,024 positions that has learned a few sentences."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    AutoTokenizer.from_pretrained(tiny_gpt2).save_pretrained(folder)
    model = GPT2LMHeadModel(GPT2Config.from_pretrained(tiny_gpt2, n_positions=1024))
    tokenizer = HuggingFaceLM.from_pretrained(tiny_gpt2).tokenizer
    rows = [torch.tensor([[tokenizer.end_of_text, *tokenizer.encode(text)]]) for text in LEARNED]
    _train(model, [{"input_ids": row, "labels": row} for row in rows], steps=15, lr=1e-2)
    model.save_pretrained(folder)


def _train(model, batches, steps, lr):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(model(**batch).loss for batch in batches).backward()
        optimizer.step()


def _save_masked(folder, tiny_bert):
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    sizes = {"num_hidden_layers": 1, "max_position_embeddings": 600, "initializer_range": 0.3}
    BertForMaskedLM(BertConfig.from_pretrained(tiny_bert, **sizes)).save_pretrained(folder)


def _save_seq2seq(folder, tiny_gpt2):
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    ids = {"pad_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
    model = T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), dropout_rate=0.0, **sizes, **ids))
    labels = torch.tensor([[*tokenizer.encode("It was good."), tokenizer.eos_token_id]])
    inputs = [torch.tensor([tokenizer.encode(text[:100])]) for text in (*prose()[:4], *LEARNED)]
    _train(
        model, [{"input_ids": ids, "labels": labels} for ids in inputs], steps=30, lr=3e-2
    )  # so that it comes to an end
    model.save_pretrained(folder)


def _save_vectors(path):
    """Write vectors of the words of some prose that all are near each other."""
    words = sorted({word[0].lower() for text in prose() for word in WORD.finditer(text)})
    rows = (f"{word} 1 {number % 7 / 20:.2f} {number % 5 / 20:.2f}\n" for number, word in enumerate(words))
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(rows)
