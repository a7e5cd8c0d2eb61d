"""Small data and arguments with which each verb of lit-valuation runs."""

from pathlib import Path

import yaml
from options import Case

from lit_valuation.cli import main

OWNERS = {"owner_1": {"useful": 0.5}, "owner_2": {"useful": 0.1}}
PREPARE = {
    "root": "new",
    "source": "Digits",
    "planting": {"class_path": "PlantedBackground", "init_args": {"classes": ["3", "8"], "hard_fraction": 0.3}},
    "division": {"train": 60, "val": 120, "test": 60, "owners": OWNERS, "owner_samples": 60},
    "noise": {"labels": 0.2},
}
FIT = {
    "data": {"class_path": "OwnersDataModule", "init_args": {"root": "data", "batch_size": 32}},
    "model": {"class_path": "ClassifierTask", "init_args": {"network": "lit_valuation.nn.LinearHead"}},
    "trainer": {
        **{"max_steps": 4, "limit_val_batches": 0, "accelerator": "cpu", "devices": 1, "logger": False},
        **{"enable_progress_bar": False, "enable_model_summary": False},
    },
}
CHECKPOINT = "runs/valuation/{}/checkpoints/last.ckpt"
QUERY = {
    "ckpt_path": CHECKPOINT.format("trainer"),
    "data": "data/trainer",
    "to": ["alice", "bob"],
    "ledger": "own.jsonl",
}
PROBE = {"gradients": "probe", "encoder": "Identity", "per_class": 8, "fewest": 2}
SELECT = {"query": "query", "data": "data/owners/owner_1", "to": "trainer", "limit": 50, "ledger": "own_1.jsonl"}
GRADIENTS = {"selector": "GradientMatchingSelector", "ckpt_path": CHECKPOINT.format("owner_1")}
NO_DEVICE = {"trainer.accelerator": "none", "trainer.strategy": "none", "trainer.devices": 0}
ROWS = {"class_path": "Table", "init_args": {"path": "rows.csv", "label": "kind"}}
OTHER = {"class_path": "Table", "init_args": {"path": "other.csv", "label": "kind"}}
CASES = {
    "prepare": Case(
        {"root": "mine", "source": ROWS},
        {"root": "other", "source": OTHER, "val": OTHER, "test": OTHER, "classes": "classes.csv", "shard_size": 20}
        | {"val_fraction": 0.3, "test_fraction": 0.3},
        alone={"verify": {"root": "own"}},
    ),
    "divide": Case(
        PREPARE,
        {"root": "other", "source": {"class_path": "SklearnTable", "init_args": {"table": "wine"}}, "shard_size": 20}
        | {"planting": {"class_path": "PlantedBackground", "init_args": {"classes": ["1", "4"], "hard_fraction": 0.5}}}
        | {"division": {**PREPARE["division"], "train": 50}, "noise": {"labels": 0.4}},
        alone={"verify": {"root": "data"}},
    ),
    "query": Case(
        {**QUERY, "output": "new", "per_class": 2, "budget": 9},
        {"ckpt_path": CHECKPOINT.format("owner_1"), "data": "data/owners/owner_1", "to": ["carol"], "output": "other"}
        | {"classes": ["3"], "encoder": "Identity", "seed": 1, "ledger": "other.jsonl", "new_party": False}
        | {"limit": 3, "total_limit": 3, "model": "mine.Module", "clip": 0.01, "epsilon": 2.0, "clusters": 2}
        | {"fewest": 3},
        under={"new_party": {"to": ["carol"], "new_party": True}}
        | dict.fromkeys(("clusters", "fewest", "clip"), PROBE)
        | dict.fromkeys(("epsilon", "delta"), PROBE | {"clip": 1.0, "epsilon": 1.0}),
    ),
    "select": Case(
        {**SELECT, "selector": "RandomSelector", "output": "new"},
        {"query": "query_2", "data": "data/owners/owner_2", "to": "other", "output": "other", "limit": 2, "budget": 2}
        | {
            "selector": "KNNShapleySelector",
            "ckpt_path": CHECKPOINT.format("trainer"),
            "encoder": "Identity",
            "seed": 1,
        }
        | {"withhold": ["none"], "expect_digest": "0" * 12, "ledger": "other.jsonl", "near": 0.99}
        | NO_DEVICE
        | {"trainer.precision": "64-true", "total_limit": 2, "new_party": False, "model": "mine.Module"},
        under={"ckpt_path": GRADIENTS, "new_party": {"ledger": "bob.jsonl", "to": "carol", "new_party": True}},
    ),
    "rank": Case(
        {
            **{key: QUERY[key] for key in ("ckpt_path", "data", "ledger")},
            "query": "query",
            "answers": {"alice": "alice", "bob": "bob"},
            "output": "new",
            "seeds": 2,
        },
        {"query": "query_2", "answers": {"bob": "bob"}, "ckpt_path": CHECKPOINT.format("owner_1"), "seeds": 3}
        | {"data": "data/owners/owner_2", "output": "other", "encoder": "Identity", "near": 0.9, "fewest": 10}
        | {"expect_digests": {"alice": "0" * 12}, "seed": 1, "ledger": "other.jsonl"}
        | NO_DEVICE
        | {"trainer.precision": "64-true", "model": "mine.Module", "batch_size": 7, "mass": 0.3},
        slow=("all",),  # trains
    ),
}


def begin():
    """Put in the working directory: prepared data, checkpoints of two parties, two queries and two answers."""

    def run(verb, **arguments):
        Path("verb.yaml").write_text(yaml.safe_dump(arguments))
        assert main([verb, "--config", "verb.yaml"]) == 0
        Path("verb.yaml").unlink()

    for name, first in (("rows", 0), ("other", 40)):
        lines = [f"{i * 37 % 101},{i * 53 % 97},{('calm', 'attack', 'scan')[i % 3]}" for i in range(first, first + 40)]
        Path(f"{name}.csv").write_text("\n".join(["bytes,packets,kind", *lines]) + "\n")
    Path("classes.csv").write_text("class,shared\ncalm,usual\nattack,attack\nscan,attack\n")
    run("prepare", root=str(Path("own").absolute()), source=ROWS)
    run("divide", **{**PREPARE, "root": str(Path("data").absolute())})
    for party in ("trainer", "owner_1"):
        Path("fit.yaml").write_text(yaml.safe_dump(FIT))
        assert main(["fit", "--config", "fit.yaml", "--data.init_args.party", party, "--run", party]) == 0
    run("query", **QUERY, output="query", per_class=2, budget=9)
    run("query", **QUERY, output="query_2", per_class=1, budget=9)
    for number, name in enumerate(("alice", "bob"), 1):
        own = {"data": f"data/owners/owner_{number}", "ledger": f"{name}.jsonl", "output": name}
        run("select", **{**SELECT, **own, "selector": "RandomSelector"})
