"""`Tokenizer`: a byte-level BPE trained here, any tokenizer.json, any from Hugging Face, or plain bytes."""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lit_core.errors import UserError
from lit_core.fetch.hub_access import asking_hub, hub_reason
from lit_core.files.json_files import parse_json, read_json
from lit_core.files.listing import refuse_links_out
from lit_core.files.paths import atomic_write, resolve_data_path

END_OF_TEXT = "<|endoftext|>"
#: Tokens of a byte-level BPE without merges: the bytes and the end of a text.
SMALLEST_VOCABULARY = 257
#: Names of end-of-text tokens that are tried, in this order, if there is no tokenizer_config.json.
_END_OF_TEXT_NAMES = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "<|eos|>", "[EOS]")
#: Where a long text may be cut without changing its tokens: after a single line break, before a word.
_CUT = re.compile(r"(?<=\S\n)(?=\w)")
_PIECE = 1 << 20
#: Ids without a token that a tokenizer may have besides as many as it has tokens.
_UNUSED_IDS = 1 << 16
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "▁"
#: Every printable sign of ASCII, words, runs of blanks, and signs of two to four bytes.
_SAMPLE = f"{string.printable} two words,  blanks\n\n\tlines é—日🙂 end."


class Tokenizer:
    """Converts text to token ids and back, and knows how many bytes of text each token stands for.

    Special tokens are not recognised in a text: ``<|endoftext|>`` in a text is encoded as ordinary characters, so that
    no document can end itself. Ids of a text have no special tokens; those that the tokenizer's own template puts
    before a text are in `start`, for who makes documents and prompts.

    Args:
        definition: Parsed content of a tokenizer.json, as the ``tokenizers`` library writes it.
        end_of_text: The special token that ends a document; None tries the usual names.

    Attributes:
        vocab_size: Number of token ids, from 0.
        end_of_text: Id of the token that ends a document.
        start: Ids that begin a document, as the tokenizer's template puts them before a text, such as Llama's and
            Gemma's beginning of a sequence; empty if there are none, or the end-of-text token begins a text as well.
        sha256: Hash of the definition; equal tokenizers have equal hashes, whatever library version reads them.

    Raises:
        UserError: If the definition is not a tokenizer, or has no end-of-text token.
    """

    def __init__(self, definition: dict[str, Any], end_of_text: str | None = None) -> None:
        from tokenizers import Tokenizer as Backend

        # Truncation and padding are left to the code that makes batches.
        self._definition = definition | {"truncation": None, "padding": None}
        try:
            self._backend = Backend.from_str(json.dumps(self._definition))
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"This is not a tokenizer.json ({error}); give one written by `tokenizers`.") from error
        self._backend.encode_special_tokens = True
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        names = _END_OF_TEXT_NAMES if end_of_text is None else (end_of_text,)
        self._end_of_text_name = next((name for name in names if name in vocabulary), "")
        if not self._end_of_text_name:
            raise UserError(
                f"The tokenizer has none of the end-of-text tokens {', '.join(names)}; "
                'put a tokenizer_config.json with "eos_token" beside it.'
            )
        self.end_of_text: int = vocabulary[self._end_of_text_name]
        starts = tuple(number for number in _template_start(self._definition) if number in vocabulary.values())
        self.start: tuple[int, ...] = () if starts == (self.end_of_text,) else starts
        self.vocab_size: int = max(vocabulary.values()) + 1
        if self.vocab_size > 2 * len(vocabulary) + _UNUSED_IDS:
            raise UserError(
                f"The tokenizer has the id {self.vocab_size - 1}, but only {len(vocabulary)} tokens, and a model has a "
                "row for each id; number the tokens without such gaps."
            )
        self.sha256: str = hashlib.sha256(self.to_json().encode()).hexdigest()

    # Building

    @classmethod
    def train_bpe(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Return a trained byte-level BPE; equal texts in equal order give an equal tokenizer.

        Args:
            texts: The training texts.
            vocab_size: Tokens to learn, 257 or more: 256 bytes, the end-of-text token, and merges. The tokenizer has
                fewer if too few pairs occur twice in the texts.

        Raises:
            UserError: If the vocabulary is too small.
        """
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, pre_tokenizers, trainers

        if vocab_size < SMALLEST_VOCABULARY:
            raise UserError(
                f"vocab_size is {vocab_size}, but a byte-level BPE needs 256 bytes and {END_OF_TEXT}; set it to 257 or "
                "more."
            )
        backend = Backend(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls(parse_json(backend.to_str(), "The tokenizer"))

    @classmethod
    def bytes(cls) -> Tokenizer:
        """Return the tokenizer whose ids 0 to 255 are the bytes of UTF-8."""
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, pre_tokenizers

        vocabulary = {character: byte for byte, character in _byte_characters().items()}
        backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([END_OF_TEXT])
        return cls(parse_json(backend.to_str(), "The tokenizer"))

    @classmethod
    def load(cls, spec: str | Path) -> Tokenizer:
        """Return a tokenizer from a file, a folder or Hugging Face.

        Args:
            spec: A ``tokenizer.json``, a folder with one, the name of a Hugging Face model, or ``bytes``.

        Raises:
            UserError: If the tokenizer does not exist.
        """
        if str(spec) == "bytes":
            return cls.bytes()
        path = resolve_data_path(spec)
        if (path / "tokenizer.json").is_file():
            refuse_links_out(path, [path / "tokenizer.json"])
            path = path / "tokenizer.json"
        if path.is_file():
            return cls._load_file(path)
        if not path.is_dir() and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(spec)) and not str(spec).endswith(".json"):
            return cls._load_hugging_face(str(spec))
        raise UserError(
            f"tokenizer is {spec}, but there is no such file, or no tokenizer.json in that folder; give a "
            "tokenizer.json, a folder with one, a Hugging Face name, or bytes."
        )

    @classmethod
    def _load_file(cls, path: Path) -> Tokenizer:
        config = path.with_name("tokenizer_config.json")
        refuse_links_out(path.parent, [config])
        try:
            definition = read_json(path, remedy="give one written by `tokenizers`", lenient=True)
            settings = read_json(config, lenient=True) if config.is_file() else {}
            # Hugging Face writes the token itself, or an object with its properties.
            end_of_text, begin = (
                token.get("content") if isinstance(token, dict) else token
                for token in (settings.get("eos_token"), settings.get("bos_token"))
            )
            tokenizer = cls(definition, end_of_text)
            if settings.get("add_bos_token") is True and begin is not None and not tokenizer.start:
                tokenizer = cls(_with_start(definition, str(begin)), end_of_text)
            return tokenizer
        except UserError as error:
            raise UserError(f"tokenizer is {path}: {error}") from error
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise UserError(
                f"tokenizer is {path}, which is not a tokenizer.json ({error}); give one written by `tokenizers`."
            ) from error

    @classmethod
    def _load_hugging_face(cls, name: str) -> Tokenizer:
        from huggingface_hub import hf_hub_download  # comes with `tokenizers`
        from huggingface_hub.errors import EntryNotFoundError

        def fetch(file: str) -> Path:
            return Path(hf_hub_download(name, file))

        try:
            with asking_hub():
                path = fetch("tokenizer.json")
                with suppress(EntryNotFoundError):  # some models have none
                    fetch("tokenizer_config.json")
        except (OSError, ValueError) as error:
            raise UserError(
                f"tokenizer is {name}, but there is no such file or folder, and tokenizer.json cannot be downloaded "
                f"from Hugging Face ({hub_reason(error)}); correct the path or the name."
            ) from error
        return cls._load_file(path)

    # Text and ids

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without special tokens."""
        ids: list[int] = []
        for piece in self._pieces(text):  # the batch call, even for one piece, since it computes only the ids
            ids += self._backend.encode_batch_fast([piece], add_special_tokens=False)[0].ids
        return ids

    def prompt(self, text: str) -> list[int]:
        """Return the ids with which a document begins: `start` and those of its text; of no text, at least one id."""
        return [*self.start, *self.encode(text)] or [self.end_of_text]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without special tokens, using the library's threads."""
        return [row.ids for row in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return start and end, in characters of the text, of what each token of `encode` stands for.

        Several tokens that share a character, as those of its bytes, have it all.
        """
        spans: list[tuple[int, int]] = []
        before = 0
        for piece in self._pieces(text):
            offsets = self._backend.encode(piece, add_special_tokens=False).offsets
            spans += [(before + start, before + end) for start, end in offsets]
            before += len(piece)
        return spans

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids, without special tokens; bytes that are not valid UTF-8 become U+FFFD."""
        return self._backend.decode([int(token) for token in ids], skip_special_tokens=True)

    def continuation(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """Decode `ids` and return only the text that they add after the text of `before`.

        Tokenizers that mark the start of a word instead of keeping blanks (SentencePiece's) drop the first blank of a
        decoded text, so a continuation must not be decoded alone.

        Args:
            before: Ids before the continuation.
            ids: Ids of the continuation.
        """
        start, whole = self.decode(before), self.decode([*before, *ids])
        # it does not start so if the ids before end inside a character's bytes
        return whole.removeprefix(start) if whole.startswith(start) else self.decode(ids)

    def normalize(self, text: str) -> str:
        """Return the text after the tokenizer's normalization, such as composed accents; often the text itself."""
        normalizer = self._backend.normalizer
        return text if normalizer is None else normalizer.normalize_str(text)

    def _pieces(self, text: str) -> Iterator[str]:
        """Cut a long text, since the library needs some hundred bytes per token while it encodes."""
        start = 0
        while self.exact and len(text) - start > _PIECE:
            cut = _CUT.search(text, start + _PIECE)
            if cut is None:
                break
            yield text[start : cut.start()]
            start = cut.start()
        yield text[start:]

    # Bytes

    @cached_property
    def exact(self) -> bool:
        """Whether the byte lengths of the ids of any text add up to the size of the (normalized) text."""
        pretokenizers = _parts(self._definition.get("pre_tokenizer"), "pretokenizers")
        return (
            self._scheme == "byte-level"
            and self._encodes_all_bytes
            and not self._dropped
            and not any(part.get("add_prefix_space") for part in pretokenizers)
            and self._definition["model"].get("type") == "BPE"
        )

    def byte_lengths(self) -> np.ndarray:
        """Return the number of bytes of UTF-8 text that each token stands for: float64 of shape ``(vocab_size,)``.

        Special tokens stand for no text, 0 bytes. The token for unknown text is NaN, since it may stand for any number
        of bytes, unless the vocabulary has all bytes, so that no text is unknown. Over the ids of a text the lengths
        add up to its size exactly for byte-level tokenizers (:attr:`exact`), and to within the one space that most
        others put before a text.

        Raises:
            UserError: If the tokens do not record blanks, as those of BERT, or text is dropped without a token, as
                repeated blanks by T5.
        """
        return self._byte_lengths.copy()

    @cached_property
    def _byte_lengths(self) -> np.ndarray:
        if self._scheme is None:
            raise UserError(
                "The bytes of this tokenizer's tokens cannot be counted, since its decoder is neither byte-level "
                f"nor marks blanks with {_SPACE}; choose another tokenizer."
            )
        if self._dropped:
            raise UserError(
                "The bytes of this tokenizer's tokens cannot be counted, since it drops text before it encodes, such "
                f"as {self._dropped[0]!r}; choose another tokenizer."
            )
        unknown = self._unknown
        if unknown is None and not self._encodes_all_bytes:
            raise UserError(
                "The bytes of this tokenizer's tokens cannot be counted, since it drops text that its vocabulary lacks "
                "and has no token for unknown text; choose another tokenizer."
            )
        byte_characters = set(_byte_characters().values())
        lengths = np.zeros(self.vocab_size)
        for token, number in self._backend.get_vocab(with_added_tokens=False).items():
            if self._scheme == "byte-level":
                lengths[number] = sum(1 if sign in byte_characters else len(sign.encode()) for sign in token)
            else:
                lengths[number] = 1 if _BYTE_TOKEN.fullmatch(token) else len(token.replace(_SPACE, " ").encode())
        for added in self._definition["added_tokens"]:
            lengths[added["id"]] = 0 if added["special"] else len(added["content"].encode())
        lengths[self.end_of_text] = 0
        if unknown is not None and not self._encodes_all_bytes:
            lengths[unknown] = np.nan
        return lengths

    @cached_property
    def _dropped(self) -> str:
        """What of a sample of text lies in none of the pieces into which it is cut for the model."""
        if self._backend.pre_tokenizer is None:
            return ""
        sample = self.normalize(_SAMPLE)
        pieces = self._backend.pre_tokenizer.pre_tokenize_str(sample)
        covered = {position for _, span in pieces for position in range(*span)}
        return "".join(sign for position, sign in enumerate(sample) if position not in covered)

    @cached_property
    def _unknown(self) -> int | None:
        """The token for text that the vocabulary lacks."""
        model = self._definition["model"]
        number = model.get("unk_id")  # of Unigram; the other models name the token
        return self._backend.token_to_id(model["unk_token"]) if model.get("unk_token") is not None else number

    @cached_property
    def _encodes_all_bytes(self) -> bool:
        """Whether the vocabulary has a token for each byte, so that it encodes any text."""
        vocabulary, model = self._backend.get_vocab(with_added_tokens=False), self._definition["model"]
        if self._scheme == "byte-level":
            return vocabulary.keys() >= set(_byte_characters().values())
        return bool(model.get("byte_fallback")) and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))

    @cached_property
    def _scheme(self) -> str | None:
        decoders = _parts(self._definition.get("decoder"), "decoders")
        if any(part["type"] == "ByteLevel" for part in decoders):
            return "byte-level"
        marks_blanks = any(
            part["type"] == "Metaspace" or (part["type"] == "Replace" and part["pattern"].get("String") == _SPACE)
            for part in decoders
        )
        return "blanks" if marks_blanks else None

    # Storage

    def to_json(self) -> str:
        """Return one line of JSON for :meth:`from_json`: the content of a tokenizer.json plus ``end_of_text``."""
        content = self._definition | {"end_of_text": self._end_of_text_name}
        return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, start: Sequence[int] | None = None) -> Tokenizer:
        """Build a tokenizer from :meth:`to_json`, or from the content of a tokenizer.json.

        Args:
            text: The JSON.
            start: Ids that begin a document where they are not those of the template, as in texts that were prepared
                without them; None takes the template's.

        Raises:
            UserError: If the text is neither.
        """
        try:
            definition = parse_json(text, "The text", remedy="give a tokenizer.json", lenient=True)
            end_of_text = definition.pop("end_of_text", None)
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"This is not a tokenizer.json ({error}); give one written by `tokenizers`.") from error
        tokenizer = cls(definition, end_of_text)
        if start is not None:
            tokenizer.start = tuple(start)
        return tokenizer

    def save(self, path: str | Path) -> None:
        """Write ``tokenizer.json``, and beside it ``tokenizer_config.json``, as Hugging Face reads them.

        Args:
            path: The file to write, or a folder.
        """
        path = Path(path)
        path = path if path.suffix == ".json" else path / "tokenizer.json"
        config = {"eos_token": self._end_of_text_name, "tokenizer_class": "PreTrainedTokenizerFast"}
        # tokenizer_config.json is written first, since tokenizer.json would be misread without it.
        atomic_write(path.with_name("tokenizer_config.json"), json.dumps(config, indent=2) + "\n")
        atomic_write(path, json.dumps(self._definition, ensure_ascii=False, indent=1) + "\n")

    def describe(self) -> dict[str, Any]:
        """Return the tokenizer's entry in the index of a shard set: hash, size, end-of-text token, any `start`."""
        entry = {"sha256": self.sha256, "vocab_size": self.vocab_size, "end_of_text": self.end_of_text}
        return entry | ({"start": list(self.start)} if self.start else {})

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer.from_json, (self.to_json(), self.start)

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, sha256={self.sha256[:12]}…)"


def _parts(component: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """Return a component of a tokenizer.json as a list; a sequence of components is flattened."""
    if component is None:
        return []
    return [inner for part in component[name] for inner in _parts(part, name)] if name in component else [component]


def _template_start(definition: dict[str, Any]) -> list[int]:
    """Return the ids that the post-processors of a tokenizer.json put before a text."""
    for part in reversed(_parts(definition.get("post_processor"), "processors")):
        if part["type"] == "TemplateProcessing":
            pieces = part["single"]
            text = next((index for index, piece in enumerate(pieces) if "Sequence" in piece), 0)
            names = [piece["SpecialToken"]["id"] for piece in pieces[:text]]
            return [number for name in names for number in part["special_tokens"][name]["ids"]]
        if part["type"] in ("BertProcessing", "RobertaProcessing"):
            return [part["cls"][1]]
    return []


def _with_start(definition: dict[str, Any], token: str) -> dict[str, Any]:
    """Return a tokenizer.json whose template puts a token before a text."""
    number = next((each["id"] for each in definition.get("added_tokens", ()) if each["content"] == token), None)
    if number is None:
        return definition
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }
    former = definition.get("post_processor")
    processor = template if former is None else {"type": "Sequence", "processors": [former, template]}
    return definition | {"post_processor": processor}


def _byte_characters() -> dict[int, str]:
    """Return the printable character by which byte-level tokenizers write each byte.

    Printable bytes stand for themselves; the others follow from U+0100 on in the order of their values.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + rank) for rank, byte in enumerate(hidden)}
