"""Each format as its owners write it, by the path that its YAML names: real passages and the same words shuffled."""

import csv
import gzip
import json
from pathlib import Path

from austen_pairs import passages, shuffled

#: Human passages of each set.
N = 30


def lines(path, rows):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content)


def document(path, content):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content))


def table(path, rows, separator=","):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)


def litshift(n=N):
    from austen_pairs import pairs

    lines("twins.jsonl", (record.to_dict() for record in pairs(n)))


def pu(n=N):
    for name, key in (("AI-Writer", "text"), ("ArticleForge", "article"), ("Kafkai", "text"), ("RedditBot", "text")):
        rows = []
        for number, text in enumerate(passages(n)):
            rows.append({"id": number, key: text, "label": "human"})
            rows.append({"id": number + n, key: shuffled(text, len(name)), "label": "machine"})
        lines(f"wild/{name}.jsonl", rows)


def grover(n=N):
    rows = []
    for number, text in enumerate(passages(n + 6)):
        split = ("train", "train", "val", "test")[number % 4]
        about = {"domain": "cnn.com", "headline": "H", "date": "May 1, 2019", "authors": "A", "split": split}
        burner = number >= n
        kind = {"orig_split": "train_burner" if burner else "gen", "ind30k": number}
        rows.append({"article": text, "label": "human", "id": 2 * number, **about, **kind})
        if not burner:
            rows.append({"article": shuffled(text), "label": "machine", "id": 2 * number + 1, **about, **kind})
    lines("generator=mega~dataset=p0.94.jsonl", rows)


def gpt2_output(n=N):
    for source in ("webtext", "small-117M", "xl-1542M", "xl-1542M-k40", "xl-1542M-nucleus"):
        for split, first in (("train", 0), ("valid", n), ("test", 2 * n)):
            texts = passages(3 * n)[first : first + n]
            rows = [
                {"id": number, "ended": True, "length": len(text.split()), "text": text}
                for number, text in enumerate(texts if source == "webtext" else [shuffled(t, source) for t in texts])
            ]
            lines(f"gpt-2-output-dataset/data/{source}.{split}.jsonl", rows)


def raid(n=N, attacks=("none", "homoglyph")):
    rows = []
    for number, text in enumerate(passages(n)):
        for attack in attacks:
            for model, decoding, penalty in (("human", "", ""), ("gpt2", "greedy", "no"), ("mpt", "sampling", "yes")):
                made = text if model == "human" else shuffled(text, model)
                name = f"{number}-{model}"
                rows.append(
                    {
                        "id": name if attack == "none" else f"{name}-{attack}",
                        "adv_source_id": name,
                        "source_id": f"{number}-human",
                        "model": model,
                        "decoding": decoding,
                        "repetition_penalty": penalty,
                        "attack": attack,
                        "domain": ("books", "news")[number % 2],
                        "title": 'A "title",\nin two lines',
                        "prompt": "" if model == "human" else "Write",
                        "generation": made if attack == "none" else made.replace("a", "а"),
                    }
                )
    table("raid/train_none.csv", rows)


def hc3(n=N):
    texts = passages(2 * n)
    rows = [
        {
            "id": str(number),
            "question": f"Why {texts[number][:30]}?",
            "human_answers": [texts[2 * number], texts[2 * number + 1]] if number % 3 else [texts[2 * number]],
            "chatgpt_answers": [shuffled(texts[number])] if number % 5 else ["", shuffled(texts[number])],
            "source": ("finance", "medicine")[number % 2],
        }
        for number in range(n)
    ]
    lines("hc3/all.jsonl", [*rows, {**rows[0], "id": "x", "question": "What?", "chatgpt_answers": []}])


def m4(n=N):
    for model in ("chatGPT", "davinci"):
        rows = [
            {
                "prompt": "Write an abstract",
                "human_text": text,
                "machine_text": shuffled(text, model),
                "model": model,
                "source": "arxiv",
                "source_ID": number,
            }
            for number, text in enumerate(passages(n))
        ]
        lines(f"m4/data/arxiv_{model}.jsonl", rows)


def mgtbench(n=N):
    content = {}
    for split, texts in (("train", passages(2 * n)[:n]), ("test", passages(2 * n)[n:])):
        both = [(text, 0) for text in texts] + [(shuffled(text), 1) for text in texts]
        content[split] = {"text": [text for text, _ in both], "label": [label for _, label in both]}
    document("Essay_ChatGPT.json", content)


def imgtb(n=N):
    rows = [{"": i, "text": t, "label": "0"} for i, t in enumerate(passages(n))]
    table(
        "imgtb/dataset.csv", rows + [{"": n + i, "text": shuffled(t), "label": "7"} for i, t in enumerate(passages(n))]
    )


def fast_detectgpt(n=N):
    document(
        "exp_main/data/xsum_gpt2-xl.raw_data.json",
        {"original": list(passages(n)), "sampled": [shuffled(text) for text in passages(n)]},
    )
    settings = {"dataset": "xsum", "n_samples": n, "openai_model": None, "base_model_name": "gpt2-xl", "seed": 3}
    decoding = {"do_top_k": False, "top_k": 40, "do_top_p": True, "top_p": 0.96, "do_temperature": False}
    document("exp_main/data/xsum_gpt2-xl.args.json", {**settings, **decoding, "temperature": 0.8})


def binoculars(n=N):
    rows = [
        {
            "text": text,
            "old_generated_text_wo_prompt": "x",
            "meta-llama-Llama-2-13b-hf_generated_text_wo_prompt": shuffled(text),
        }
        for text in passages(n)
    ]
    lines("datasets/core/cc_news/cc_news-llama2_13.jsonl", rows)


def coco(n=N):
    for split, first in (("train", 0), ("valid", n), ("test", 2 * n)):
        texts = passages(3 * n)[first : first + n]
        rows = [{"article": text, "label": "human", "information": {"graph": {"nodes": []}}} for text in texts]
        lines(f"coco/{split}.jsonl", rows + [{"article": shuffled(text), "label": "machine"} for text in texts])


def essays(n=N):
    import pyarrow
    from pyarrow import parquet

    rows = [{"essay": text, "course": ("a", "b")[number % 2]} for number, text in enumerate(passages(n))]
    table("essays/students.csv", rows)
    made = pyarrow.Table.from_pylist([{**row, "essay": shuffled(row["essay"])} for row in rows])
    parquet.write_table(made, "essays/generated.parquet")


#: What writes the files of each YAML.
WRITERS = {
    "binoculars": binoculars,
    "coco": coco,
    "embedded": lambda: None,  # shipped
    "fast_detectgpt": fast_detectgpt,
    "gpt2_output": gpt2_output,
    "grover": grover,
    "hc3": hc3,
    "imgtb": imgtb,
    "litshift": litshift,
    "m4": m4,
    "mgtbench": mgtbench,
    "pu": pu,
    "raid": raid,
    "table": essays,
}
