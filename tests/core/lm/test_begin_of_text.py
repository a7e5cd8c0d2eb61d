"""What begins a text by its tokenizer's own template begins documents and prompts, against transformers' tokenizer."""

import json

import pytest
import torch

from lit_core.corpora import TextFolder
from lit_core.data import ShardSet, TokenWindows
from lit_core.errors import UserError
from lit_core.lm import tokenizer as tokenizers
from lit_core.lm.language_model import LanguageModel
from lit_core.lm.tokenizer import Tokenizer
from lit_core.prepare import prepare
from lit_moe import TokenDataModule

TEXTS = [f"This is the text number {number}. " * (number + 3) for number in range(40)]


def definition(begin="<s>", template=True):
    """Return a tokenizer.json as Llama has one: a token that begins a text, another one that ends it."""
    content = json.loads(Tokenizer.bytes().to_json())
    del content["end_of_text"]
    added = {key: False for key in ("single_word", "lstrip", "rstrip", "normalized")}
    content["added_tokens"].append({"id": 257, "content": "<s>", "special": True, **added})
    if template:
        content = tokenizers._with_start(content, begin)
    return content


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(definition()))
    settings = {"eos_token": "<|endoftext|>", "bos_token": "<s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path / "model"


def test_the_template_begins_a_text_as_transformers_does(folder):
    transformers = pytest.importorskip("transformers")
    ours, theirs = Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert ours.start == (257,) and ours.describe()["start"] == [257]
    for text in ("Some text", "", "<s> in a text"):
        assert ours.prompt(text)[:1] == theirs(text).input_ids[:1] == [257]
    assert ours.prompt("Some text") == theirs("Some text").input_ids
    assert ours.encode("Some text") == ours.prompt("Some text")[1:]
    again = Tokenizer.from_json(ours.to_json())
    assert again.start == (257,) and again.sha256 == ours.sha256
    assert Tokenizer.from_json(ours.to_json(), ()).start == ()


def test_a_setting_that_adds_the_token_has_the_same_effect(folder):
    (folder / "tokenizer.json").write_text(json.dumps(definition(template=False)))
    assert Tokenizer.load(folder).start == ()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"add_bos_token": True}))
    assert Tokenizer.load(folder).start == (257,)


def test_where_the_end_of_text_begins_a_text_nothing_changes():
    ours = Tokenizer(definition(begin="<|endoftext|>"))
    assert ours.start == () and "start" not in ours.describe()
    assert ours.prompt("") == [ours.end_of_text] and ours.prompt("a") == ours.encode("a")
    assert Tokenizer.bytes().prompt("") == [256]


def corpora(tmp_path, name="mine"):
    (tmp_path / "texts").mkdir(exist_ok=True)
    for number, text in enumerate(TEXTS):
        (tmp_path / "texts" / f"{number}.txt").write_text(text)
    return [TextFolder(str(tmp_path / "texts"), name)]


def test_documents_begin_with_it_and_it_is_no_target(folder, tmp_path):
    prepare(str(tmp_path / "root"), corpora(tmp_path), tokenizer=str(folder))
    split = tmp_path / "root" / "mine" / "train"
    shards = ShardSet(split)
    assert shards.index["tokenizer"]["start"] == [257]
    stream = [token for sample in range(len(shards)) for token in shards[sample]["npy"].tolist()]
    documents = bytes(token if token < 256 else 0 for token in stream).split(b"\0\0")
    assert stream[0] == 257 and stream[-1] == 256 and stream.count(257) == stream.count(256)
    assert {each.strip(b"\0").decode() for each in documents} <= set(TEXTS)
    windows = TokenWindows(split, 64, document_mask=True)
    batch = windows.batch(range(len(windows)))
    ids, labels = batch["input_ids"], batch["labels"]
    assert not (labels == 257).any() and (labels == -100).any()
    after_the_end = torch.zeros_like(ids)
    after_the_end[:, 1:] = ids[:, :-1] == 256
    after_the_end[:, 0] = ids[:, 0] == 257
    assert torch.equal(batch["document_ids"], after_the_end.cumsum(1))


def test_a_root_of_before_keeps_what_it_was_made_with_and_says_so(folder, tmp_path, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(tokenizers, "_template_start", lambda definition: [])
        prepare(str(tmp_path / "root"), corpora(tmp_path), tokenizer=str(folder))
    stored = tmp_path / "root" / "mine" / "train"
    assert TokenWindows(stored, 64).start == ()
    data = TokenDataModule(str(tmp_path / "root"), {"mine": 1.0}, sequence_length=64)
    with pytest.warns(UserWarning, match=r"mine begin with the tokens \[\].*template begins a text with \[257\]"):
        data._windows("mine", "val")
    assert data.tokenizer.start == ()
    with pytest.raises(UserError, match=r"mine/t\w+ begin with the tokens \[\].*choose a new root"):
        prepare(str(tmp_path / "root"), corpora(tmp_path, name="other"))
    prepare(str(tmp_path / "new"), corpora(tmp_path, name="other"), tokenizer=str(folder))
    paths = {"other": str(tmp_path / "new" / "other")}
    data = TokenDataModule(str(tmp_path / "root"), {"mine": 1.0, "other": 1.0}, sequence_length=64, paths=paths)
    data._windows("other", "val")
    with pytest.raises(UserError, match=r"documents of mine begin with the tokens \[\], but those of other with \[257"):
        data._windows("mine", "val")


class Noted(LanguageModel):
    """Notes the prompts that it is to continue."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def generate_ids(self, prompts, **options):
        self.prompts = prompts
        return [[] for _ in prompts]

    new_cache = logits = keep_rows = None


def test_prompts_begin_with_it(folder):
    model = Noted(Tokenizer.load(folder))
    assert model.generate(["", "ab"]) == ["", ""]
    assert model.prompts == [[257], [257, 97, 98]]
