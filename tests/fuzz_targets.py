"""What the fuzzer alters: a folder for each reader of files, as our own writers make it, and what reads it."""

import gzip
import io
import json
import lzma
import struct
import sys
import tarfile
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import yaml
from fuzz_configs import TARGETS, inside, quiet, target
from PIL import Image
from safetensors.numpy import save_file

from lit_core import record
from lit_core.board.reports import report_parts
from lit_core.board.runs import read_run
from lit_core.cli.arguments import read_config
from lit_core.cli.show import show
from lit_core.corpora import JSONLines, TextFolder
from lit_core.corpora.gather import Gathered
from lit_core.data import TokenWindows, write_index, write_shard
from lit_core.data.shards import ShardSet
from lit_core.files.formats import stamp
from lit_core.files.logged import logged_values
from lit_core.files.text_files import _zstd
from lit_core.lightning.checkpoint import checkpoint_facts, load_checkpoint_file, read_checkpoint_file
from lit_core.lightning.loggers import CSVLog, run_loggers
from lit_core.lightning.sharded_checkpoint import consolidate
from lit_core.lm.language_model import HuggingFaceLM
from lit_core.lm.tokenizer import Tokenizer
from lit_core.study.cells import CONFIG, RESULT, _data_hash, finished, rows_of
from lit_core.study.identity import identity
from lit_detect import formats
from lit_detect.attacks import ArticleDeletion
from lit_detect.data.text_shards import TextSet, TextWriter
from lit_detect.data.user_texts import open_texts
from lit_detect.language.word_vectors import WordVectors
from lit_detect.records import Record
from lit_detect.study.attacked import AttackOnDisk
from lit_moe.commands.generate import read_prompts
from lit_moe.interop.folder import ModelFolder
from lit_valuation.data.class_map import read_class_map
from lit_valuation.data.labelled_sets import LabelledSet, write_labelled
from lit_valuation.exchange.folder import anonymized, incoming, outgoing
from lit_valuation.exchange.manifest import Query
from lit_valuation.samples import Samples
from lit_valuation.sources import Arrays, ImageFolder, Table, WebDataset
from lit_valuation.sources.fashion_mnist import read_idx

sys.path += [str(Path(__file__).parent / folder) for folder in ("detect", "detect/formats")]
from documents import write_docx, write_pdf
from format_files import WRITERS
from test_formats import FILES

CONFIGS = Path(__file__).parents[1] / "configs" / "detect" / "prepare"
TEXTS = ["The quick fox, it is said, jumped.", "Nobody saw it; nobody cared…", "“A text”, with marks."]


def samples(kind="table"):
    x = torch.rand(4, 3) if kind == "table" else torch.randint(0, 255, (4, 1, 5, 5), dtype=torch.uint8)
    return Samples(x, torch.tensor([0, 1, 0, 1]), ("a", "b"), ("k0", "k1", "k2", "k3"), ("g", "h", "g", "h"))


def rows():
    return [
        {"id": str(n), "text": text, "label": n % 2, "domain": "d", "meta": {"n": n}} for n, text in enumerate(TEXTS)
    ]


for _name, _makers in FILES.items():
    if _name == "litshift-cell":  # of which there are two
        continue
    for _number, _make in enumerate(_makers):
        TARGETS[f"{_name}-{_number}"] = lambda folder, make=_make: make(folder)[2]


@target
def cells(folder):
    config = {"function": "lit_moe.study.shift", "values": {"seed": 0}}
    cell = SimpleNamespace(name="c", grid="g", labels={}, identity=identity(config))
    (folder / "c").mkdir()
    (folder / "c" / CONFIG).write_text(json.dumps({**stamp("litshift-cell"), **config}))
    result = {"rows": [{"x": 1.0, "name": "y"}], "data": "", "code": "", "seconds": 1.0}
    (folder / "c" / RESULT).write_text(json.dumps({**stamp("litshift-cell"), **result}))

    def read():
        result = finished(cell, folder)
        return result and rows_of(cell, result)

    return read


@target
def tokens(folder):
    chunks = [{"__key__": f"{n:03d}", "npy": np.arange(40, dtype=np.uint16)} for n in range(2)]
    about = {"sha256": "x", "vocab_size": 257, "end_of_text": 256}
    kind = {"kind": "tokens", "source": "s", "split": "train", "dtype": "uint16", "tokenizer": about}
    write_index(folder, [write_shard(folder / "0.tar", chunks)], **kind)
    return lambda: [TokenWindows(folder, 8, document_mask=True, verify=False)[index] for index in range(9)]


@target
def token_files(folder):
    np.save(folder / "x.npy", np.arange(40, dtype=np.uint16))
    (folder / "x.bin").write_bytes(np.arange(40, dtype=np.uint32).tobytes())

    def read():
        for windows in (TokenWindows(folder / "x.npy", 8), TokenWindows(folder / "x.bin", 8, dtype="uint32")):
            windows.vocab_size = 50
            windows.verify()
            windows.batch(range(len(windows)))

    return read


@target
def shard_members(folder):
    write = [{"__key__": "a", "npy": np.zeros((2, 2)), "json": {"a": [1, "x"]}, "txt": "é"}]
    write_index(folder, [write_shard(folder / "0.tar", write)], kind="x", source="s", split="val")
    return lambda: list(map(ShardSet(folder, verify=False).read, range(1)))


def labelled(kind):
    def make(folder):
        write_labelled(folder, samples(kind), source="s", split="val", licence="", origin="")

        def read():
            one = LabelledSet(folder, verify=False)  # which the hash would hide
            one.load()
            one.targets()

        return read

    return make


TARGETS |= {f"labelled_{kind}": labelled(kind) for kind in ("table", "image")}


@target
def query(folder):
    sent = anonymized(samples())

    with outgoing(folder / "q", sent, "table", "", lambda contents: Query(contents, ("a", "b", "c"), 3, None)):
        pass
    return lambda: incoming(folder / "q", Query)


@target
def text_shards(folder):
    writer = TextWriter(folder)
    for row in rows():
        writer.add(Record(row["id"], row["text"], label=row["label"]))
    writer.finish(source="s", split="test")

    def read():
        texts = TextSet(folder, verify=False)
        for index in range(len(texts)):
            texts[index]
        list(open_texts(folder, "texts").records())

    return read


@target
def user_texts(folder):
    lines = "".join(json.dumps(row) + "\n" for row in rows())
    table = "text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in rows())
    tabs = "text\tlabel\n" + "".join(f"{row['text'].split()[0]}\t{row['label']}\n" for row in rows())
    files = {"x.jsonl": lines, "x.csv": table, "x.tsv": tabs, "x.txt": "\n".join(TEXTS)}
    for name, text in files.items():
        (folder / name).write_text(text)
        (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        (folder / f"{name}.zst").write_bytes(_zstd().compress(text.encode()))

    return each(folder, lambda path: list(open_texts(path, "texts").records()), lambda path: path.is_file())


def each(folder, read, holds):
    """Return what reads all files, and later those that were altered, since only they can have another outcome."""
    files, before = [path for path in sorted(folder.rglob("*")) if holds(path)], {}

    def altered():
        for path in files:
            content = path.read_bytes() if path.is_file() else None
            if before.setdefault(path, ...) != content:
                read(path)
            if before[path] is ...:
                before[path] = content

    return altered


@target
def documents(folder):
    (folder / "x").mkdir()
    write_docx(folder / "x/a.docx", *TEXTS)
    write_pdf(folder / "x/b.pdf", "The quick fox, it is said,", "jumped.")
    return each(folder, lambda path: list(open_texts(path, "texts").records()), lambda path: path.is_file())


@target
def folder_of_texts(folder):
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
    return lambda: [list(open_texts(folder, "texts").records()), list(TextFolder(str(folder), "c").documents())]


@target
def corpora(folder):
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    (folder / "a.jsonl").write_bytes(lines)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))
    (folder / "c.jsonl.xz").write_bytes(lzma.compress(lines))
    (folder / "d.txt.gz").write_bytes(gzip.compress(TEXTS[0].encode(), mtime=0))

    def read(path):
        if ".jsonl" in path.name:
            list(JSONLines(str(path), "c").documents())
        else:
            list(TextFolder(str(folder), "c", "*.txt.gz").documents())

    return each(folder, read, lambda path: True)


@target
def gathered(folder):
    (folder / "texts").mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"texts/{number}.txt").write_text(text)
    corpus = TextFolder(str(folder / "texts"), "c")
    Gathered.make(corpus, folder / "made", lambda size: None)
    return lambda: Gathered.make(corpus, folder / "made", lambda size: None)


@target
def tables(folder):
    import pyarrow
    from pyarrow import parquet

    made = [{"x": 1.5, "y": -2.0, "label": "a"}, {"x": 0.5, "y": 1e3, "label": "b"}]
    (folder / "t.csv").write_text("x,y,label\n" + "".join(f"{row['x']},{row['y']},{row['label']}\n" for row in made))
    parquet.write_table(pyarrow.Table.from_pylist(made), folder / "t.parquet")
    return each(folder, lambda path: Table(str(path), "t", "label").samples(), lambda path: True)


@target
def own_samples(folder):
    """Arrays, webdataset shards and class maps of the user's own."""
    np.savez(folder / "a.npz", x=np.arange(6.0).reshape(3, 2), y=np.array(["a", "b", "a"]))
    picture = io.BytesIO()
    Image.new("RGBA", (3, 2), (9, 8, 7, 6)).save(picture, "PNG")
    with tarfile.open(folder / "w.tar", "w") as archive:
        for name, content in (("0.png", picture.getvalue()), ("0.cls", b"a")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (folder / "c.csv").write_text("class,shared\na,b\nc,\n")
    readers = {
        ".npz": lambda path: Arrays(str(path)).samples(),
        ".tar": lambda path: WebDataset(str(path), size=2).samples(),
        ".csv": read_class_map,
    }
    return each(folder, lambda path: readers[path.suffix](path), lambda path: path.suffix in readers)


@target
def pictures(folder):
    for number, suffix in enumerate(("png", "jpg", "gif", "bmp", "tif", "webp")):
        (folder / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(folder / "ab"[number % 2] / f"x.{suffix}")
    return lambda: ImageFolder(str(folder), "i", size=4).samples()


@target
def idx(folder):
    content = struct.pack(">HBBII", 0, 8, 2, 2, 3) + bytes(6)
    (folder / "x-ubyte").write_bytes(content)
    (folder / "x-ubyte.gz").write_bytes(gzip.compress(content, mtime=0))
    return each(folder, read_idx, lambda path: True)


@target
def tokenizer(folder):
    Tokenizer.train_bpe(TEXTS * 3, 270).save(folder)
    return lambda: Tokenizer.load(folder).encode("A text.")


@target
def model_folder(folder):
    sizes = {"vocab_size": 300, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    config = {"model_type": "llama", **sizes, "num_attention_heads": 2, "num_key_value_heads": 2, "rope_theta": 1e4}
    (folder / "config.json").write_text(json.dumps(config))
    weights = {
        "model.embed_tokens.weight": np.zeros((300, 8), np.float32),
        "model.norm.weight": np.zeros(8, np.float32),
    }
    save_file(weights, folder / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(weights, "a.safetensors")})
    )
    Tokenizer.bytes().save(folder)

    def read():
        model = ModelFolder(str(folder))
        model.family.decoder_config(model.config)
        model.check({"model.norm.weight": (8,)}, ["model.embed"])
        model.companions()

    return read


@target
def language_model(folder):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 257, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    config = LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2)
    LlamaForCausalLM(config).save_pretrained(folder)
    Tokenizer.bytes().save(folder)
    return lambda: HuggingFaceLM.from_pretrained(str(folder))


@target
def attacked(folder):
    attack = AttackOnDisk.__new__(AttackOnDisk)
    attack._attack, attack._folder = ArticleDeletion(), folder
    attack("The cat sat on a mat.", 0)
    return lambda: attack("The cat sat on a mat.", 0)


@target
def checkpoints(folder):
    content = {
        **stamp("litshift-checkpoint"),
        **{
            "epoch": 0,
            "global_step": 3,
            "state_dict": {"w": torch.zeros(2)},
            "optimizer_states": [],
            "lr_schedulers": [],
        },
        "config": {"model": {"class_path": "lit_moe.MoELanguageModel", "init_args": {"seed": 0}}},
        "hyper_parameters": {"seed": 0},
        record.KEY: record.new_record(inputs=[]),
    }
    torch.save(content, folder / "x.ckpt")

    def read():
        for reader in (load_checkpoint_file, read_checkpoint_file, checkpoint_facts):
            reader(folder / "x.ckpt")
        with quiet():
            show([str(folder / "x.ckpt")])

    return read


@target
def checkpoint_folder(folder):
    whole = {"w": torch.arange(6.0).reshape(3, 2), "b": torch.arange(4.0)}
    content = {**stamp("litshift-checkpoint"), "global_step": 3, "parts": 2, "optimizer_states": []}
    meta = {name: torch.empty_like(tensor, device="meta") for name, tensor in whole.items()}
    torch.save({**content, "state_dict": meta}, folder / "meta.pt")
    for rank, rows in enumerate((slice(0, 2), slice(2, None))):
        parts = {
            f"/state_dict/{name}": {"start": [rows.start, *[0] * (tensor.dim() - 1)], "part": tensor[rows].clone()}
            for name, tensor in whole.items()
        }
        torch.save(parts, folder / f"part_{rank:05d}.pt")

    def read():
        with tempfile.TemporaryDirectory() as place, quiet():
            consolidate(str(folder), f"{place}/x.ckpt")

    return read


@target
def run_folder(folder):
    events, log = run_loggers(folder, None)
    events.experiment.add_custom_scalars({"learning": {"loss": ["Multiline", ["train/loss"]]}})
    events.experiment.add_text("what", "to look at")
    for step in range(3):
        for one in (events, log):
            one.log_metrics({"train/loss": 1.5, f"val/{step}": 0.1}, step)
    events.finalize("success")
    record.write(
        folder / record.RECORD, record.new_record(inputs=[]) | {"sessions": record.new_record(inputs=[])["sessions"]}
    )
    config = {"model": {"class_path": "x", "init_args": {"a": 1}}, "trainer": {"max_steps": 3}, "seed_everything": 0}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))

    def read():
        before = (folder / "metrics.csv").read_bytes()
        CSVLog(folder, resume_step=2).log_metrics({"train/loss": 1.0}, 2)
        (folder / "metrics.csv").write_bytes(before)
        logged_values(folder)
        _data_hash(folder)
        read_config(str(folder / "config.yaml"))
        with quiet():
            show([str(folder)])
            read_run(folder)

    return read


@target
def report(folder):
    (folder / "report").mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "report" / "x.png")
    table = "| claim | verdict |\n|---|---|\n| C1 | **reproduced** |"
    (folder / "report.md").write_text(f"# Study x\n\n{table}\n\n- term: 1 < 2 & [x]\n\n![F](report/x.png)\n")
    return lambda: report_parts(folder)


@target
def word_vectors(folder):
    words = ["the", "cat", "sat"]
    (folder / "v.txt").write_text("".join(f"{word} {n} 0.5 1e-3\n" for n, word in enumerate(words)))
    np.save(folder / "v.npy", np.eye(3, dtype=np.float32))
    (folder / "w.txt").write_text("\n".join(words))

    def read():
        WordVectors(str(folder / "v.txt")).cosine("the", "cat")
        WordVectors(str(folder / "v.npy"), words=str(folder / "w.txt")).cosine("the", "cat")

    return read


@target
def prompts(folder):
    (folder / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    (folder / "p.txt").write_text("a\nb\n")
    return lambda: [read_prompts(folder / "p.jsonl"), read_prompts(folder / "p.txt")]


def published(name):
    def make(folder):
        with inside(folder):
            WRITERS[name](3)

        def read():
            with inside(folder):
                for source in yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["sources"]:
                    list(getattr(formats, source["class_path"])(**source.get("init_args", {})).records())

        return read

    return make


#: Formats of others, by the config that names their files; the embedded one is checked by its hash.
TARGETS |= {f"published_{name}": published(name) for name in WRITERS if name != "embedded"}
