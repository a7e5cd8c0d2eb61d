"""Tiny random models of transformers' own classes, saved in folders as the Hub has them."""

import re
from collections import Counter
from functools import cache

from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from lit_core.corpora import Austen

HUMAN = ["Emma smiled at Mr. Knightley.", "The rain fell softly on Highbury.", "She saw Anna and left.", "It was late."]
MACHINE = ["In conclusion, it is important.", "As a model, I cannot say.", "However, the the the.", "Overall, yes."]


@cache
def prose(characters=60_000):
    text, length = [], 0
    for document in Austen().documents():
        text.append(document.text)
        length += len(document.text)
        if length >= characters:
            return text


def save_bert(folder):
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    vocabulary = word_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], 600)
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=ends)
    BertTokenizerFast(tokenizer_object=backend, model_max_length=48).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    settings = sizes | {"vocab_size": 600, "max_position_embeddings": 64, "num_labels": 2}
    BertForSequenceClassification(BertConfig(**settings)).save_pretrained(folder)


def word_pieces(special, size):
    """A vocabulary of characters and frequent words, always the same: a trained one breaks ties at random."""
    words = Counter(re.findall(r"\w+|[^\w\s]", " ".join(prose())))
    characters = sorted(set("".join(words)))
    frequent = sorted((word for word in words if len(word) > 1), key=lambda word: (-words[word], word))
    pieces = [*special, *characters, *(f"##{character}" for character in characters if character.isalnum()), *frequent]
    return {piece: index for index, piece in enumerate(pieces[:size])}


def save_roberta(folder):
    from transformers import RobertaConfig, RobertaForSequenceClassification, RobertaTokenizerFast

    backend = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], 600)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    RobertaTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    settings = sizes | {"vocab_size": 600, "max_position_embeddings": 66, "num_labels": 2}
    RobertaForSequenceClassification(RobertaConfig(**settings)).save_pretrained(folder)


def save_gpt2(folder):
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    backend = _byte_level(["<|endoftext|>"], 600)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>").save_pretrained(folder)
    settings = {"vocab_size": 600, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0, **settings)).save_pretrained(folder)


def _byte_level(special, size):
    from tokenizers import decoders

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        prose(),
        trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return backend


def overfit(detector, steps, lr):
    """Train on 8 texts, and return the share of them that is then told right."""
    import torch
    from torch.nn import functional as F

    texts, y = HUMAN + MACHINE, torch.tensor([0] * 4 + [1] * 4)
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr)
    torch.manual_seed(0)
    detector.train()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(detector(texts), y).backward()
        optimizer.step()
    return float(((detector.score(texts) > 0).long() == y).double().mean())
