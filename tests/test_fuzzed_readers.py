"""Each function that reads a file is run by a target of the fuzzer, or there is a reason why not."""

import ast
import re
import sys
from pathlib import Path

import pytest
from fuzz_configs import quiet
from fuzz_targets import TARGETS

ROOT = Path(__file__).parents[1]
PACKAGES = ("lit_core", "lit_detect", "lit_moe", "lit_valuation")
#: Calls that read a file, or the text of one.
READING = {
    *("read_json", "read_stamped", "parse_json", "json_lines", "parse_yaml", "read_mapping", "read_config"),
    *("csv_rows", "csv_cells", "parquet_rows", "ParquetFile", "logged_rows", "map_npy", "parse_npy", "memmap"),
    *("opened", "lines_of", "read_whole", "read_text", "read_bytes", "read_prepared", "safe_open", "frombuf"),
    *("from_pretrained", "csv.reader", "torch.load", "open"),
}
#: Readers that no target runs, by the reason.
WITHOUT = {
    "its result is parsed, or written, by what is fuzzed": [
        "lit_core/cli/checkpoint_config.py _appended",
        "lit_core/cli/checkpoint_config.py _given_to",
        "lit_core/cli/entries.py _refusals",
        "lit_core/parser_messages.py _quoting",
        "lit_core/cli/new_run.py begin_run",
        "lit_core/lightning/loggers.py _begin",
        "lit_core/corpora/build.py finish",
        "lit_core/lm/tokenizer.py from_json",
        "lit_core/lm/tokenizer.py train_bpe",
        "lit_core/study/cells.py _command_rows",
        "lit_core/study/parts.py description",
        "lit_detect/nn/encoders.py _scratch_backend",
        "lit_moe/nn/hf_decoder.py describe",
        "lit_valuation/commands/divide.py _verify",
    ],
    "a file of this package, or of Python or the system": [
        "lit_core/cli/configs.py _description",
        "lit_core/cli/main.py _reader_has_left",
        "lit_core/cli/source.py tree_of",
        "lit_core/corpora/austen.py documents",
        "lit_core/corpora/stdlib.py documents",
        "lit_core/files/paths.py _holder",
        "lit_core/files/shipped.py read_shipped",
        "lit_detect/attacks/alternative_spelling.py british",
        "lit_detect/attacks/entity_swap.py _names",
        "lit_detect/attacks/perplexity_misspelling.py misspellings",
        "lit_detect/attacks/word_lists.py lines_of",
        "lit_detect/formats/embedded.py _read",
    ],
    "fetched, and compared with a hash that this package names": [
        "lit_core/corpora/anarchism.py documents",
        "lit_core/corpora/handbook.py html_paragraphs",
        "lit_core/corpora/manpages.py documents",
        "lit_core/corpora/pythondocs.py documents",
        "lit_core/fetch/packages.py _fetch",
        "lit_core/fetch/packages.py check_file",
        "lit_core/fetch/packages.py fetch_npm",
        "lit_core/lm/pretrained.py _dequantize",
        "lit_core/lm/pretrained.py smollm2",
        "lit_detect/language/wordnet.py _lines",
        "lit_valuation/encoders/efficientnet_lite0.py __init__",
        "lit_valuation/sources/newsgroups.py read_tab",
    ],
    "what the same process has just written, or bytes of any kind": [
        "lit_core/corpora/build.py _check_room",
        "lit_core/corpora/build.py sample",
        "lit_core/corpora/gather.py _cut",
        "lit_core/corpora/write.py _documents",
        "lit_core/data/shards.py write_shard",
        "lit_core/lightning/checkpoint.py streamed_checkpoint",
        "lit_core/lightning/checkpoint_module.py _is_readable",
        "lit_core/study/study.py _is_page_of",
        "lit_detect/callbacks/prediction_writer.py setup",
        "lit_moe/study/texts.py content_hash",
    ],
    "a folder of transformers, read as by the target language_model": [
        "lit_detect/attacks/paraphrase.py _loaded",
        "lit_detect/language/similarity.py _loaded",
        "lit_detect/nn/encoders.py _load",
        "lit_detect/scoring/gruen.py __init__",
        "lit_detect/scoring/gruen.py _classifier",
        "lit_detect/scoring/masked_language_model.py from_pretrained",
        "lit_moe/nn/hf_decoder.py __init__",
        "lit_valuation/encoders/hugging_face.py __init__",
        "lit_valuation/encoders/hugging_face.py _tokenizer",
    ],
    "torch.load of weights alone, as by the target checkpoints": [
        "lit_core/lightning/checkpoint_module.py _content",
    ],
}


def reads(node):
    """Tell whether a call reads a file; one that opens a file to write does not."""
    name = ast.unparse(node.func)
    if name.rpartition(".")[2] == "open":
        words = [word.value for word in ast.walk(node) if isinstance(word, ast.Constant)]
        return not any(re.fullmatch(r"[rwab+t]*[wa+][b+t]*", str(word)) for word in words)
    return name in READING or name.rpartition(".")[2] in READING


def readers():
    """Return the functions that read files, by their file and first line."""
    found = {}
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        outer = [ast.parse(path.read_text())]
        while outer:
            for node in ast.iter_child_nodes(outer.pop()):
                if isinstance(node, ast.ClassDef):
                    outer.append(node)
                elif isinstance(node, ast.FunctionDef) and any(
                    isinstance(call, ast.Call) and reads(call) for call in ast.walk(node)
                ):
                    line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                    found[str(path), line] = f"{path.relative_to(ROOT).as_posix()} {node.name}"
    return found


@pytest.mark.slow
def test_each_reader_is_fuzzed_or_has_a_reason(tmp_path):
    run = set()

    def note(frame, event, _):
        if event == "call":
            run.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    for name, make in TARGETS.items():
        (tmp_path / name).mkdir()
        with quiet():
            read = make(tmp_path / name)
            sys.setprofile(note)
            try:
                read()
            finally:
                sys.setprofile(None)
    found = readers()
    assert len(found) > 100
    unread = {name for place, name in found.items() if place not in run}
    assert sorted(unread) == sorted(name for names in WITHOUT.values() for name in names)
