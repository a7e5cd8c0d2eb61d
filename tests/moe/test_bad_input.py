"""Whatever is wrong with what a user gives ends in one sentence, and everything on disk is as it was."""

import gzip
from pathlib import Path

import pytest
import torch
from bad_input import (
    BRANCH,
    FIT,
    FIT_AS_IS,
    FRACTION,
    GENERATE,
    INDEX,
    LAST,
    MAKE,
    RESUME,
    RUN,
    SHARD,
    TEST,
    TEST_SHARD,
    TEXT,
    bomb,
    changed,
    checkpoint,
    data,
    decoder,
    edited,
    every_token,
    flipped,
    foreign_root,
    foreign_shards,
    json_lines,
    make,
    other_source,
    plain_bomb,
    put,
    refused,
    remove,
    run,
    small_moe,
    without_text,
    write,
)

# name: (arguments, exit code, parts of the sentence, what is changed on disk before)
CASES = {
    # mistyped keys
    "key at the top, file": (FIT, 2, ['trainr is not an argument. Did you mean "trainer"?'], run("trainr", {"a": 1})),
    "key at the top, flag": ([*FIT, "--seed_everythin", "1"], 2, ['Did you mean "seed_everything"?']),
    "key of trainer, file": (FIT, 2, ["trainer.max_stepz is not", '"max_steps"'], run("trainer.max_stepz", 3)),
    "key of trainer, flag": ([*FIT, "--trainer.max_stepz", "3"], 2, ["trainer.max_stepz is not", '"max_steps"']),
    "key of model, file": (FIT, 2, ["model.seeed is not", '"seed"'], run("model.init_args.seeed", 3)),
    "key of model, flag": ([*FIT, "--model.init_args.seeed", "3"], 2, ["model.seeed is not", '"seed"']),
    "key of decoder, file": (
        FIT,
        2,
        ['model.decoder.n_layer is not an argument. Did you mean "n_layers"?'],
        run("model.init_args.decoder.n_layer", 3),
    ),
    "key of decoder, flag": (decoder("n_layer", "3"), 2, ["model.decoder.n_layer is not", '"n_layers"']),
    "key of experts": (FIT, 2, ["model.decoder.feed_forward.top_q is not", '"top_k"'], small_moe(top_q=1)),
    "key of data": (data("sequence_lenght", "3"), 2, ["data.sequence_lenght is not", '"sequence_length"']),
    "key of callback, file": (
        FIT,
        2,
        ['trainer.callbacks.fracton is not an argument. Did you mean "fraction"?'],
        run("trainer.callbacks.1.init_args", {"fracton": 0.5}),
    ),
    "key of callback, flag": (
        [*FIT, "--trainer.callbacks+=lit_moe.SampleText", "--trainer.callbacks.promptz=[x]"],
        2,
        ["trainer.callbacks.promptz is not", '"prompts"'],
    ),
    "key of optimizer": (
        FIT,
        2,
        ["model.optimizer.lrr is not", '"lr"'],
        run("model.init_args.optimizer.init_args.lrr", 1),
    ),
    "name of callback": (
        FIT,
        2,
        ["trainer.callbacks: lit_moe.ReplayMixin is not", '"ReplayMixing"'],
        run("trainer.callbacks.1.class_path", "lit_moe.ReplayMixin"),
    ),
    "name of router": (
        FIT,
        2,
        ["model.router: lit_moe.nn.SinkhornRoutr is not", '"SinkhornRouter"'],
        run("model.init_args.router", {"class_path": "lit_moe.nn.SinkhornRoutr"}),
    ),
    "name of model": (FIT, 2, ['"MoELanguageModel"'], run("model.class_path", "lit_moe.MoELanguageModl")),
    "key of test": ([*TEST, "--data.test_sample", "3"], 2, ["data.test_sample is not", '"test_samples"']),
    "key of prepare, file": (MAKE, 2, ["vocab_sise is not", '"vocab_size"'], make("vocab_sise", 300)),
    "key of prepare, flag": ([*MAKE, "--vocab_sise", "3"], 2, ["vocab_sise is not", '"vocab_size"']),
    "key of corpus": (MAKE, 2, ["corpora.foldr is not", '"folder"'], make("corpora.0.init_args.foldr", "texts")),
    "key of generate": ([*GENERATE, "--temprature", "1"], 2, ["temprature is not", '"temperature"']),
    "shortened flag": ([*GENERATE, "--temp", "1"], 2, ["temp is not an argument."]),
    "command": (["generat"], 2, ["generat is not a command", '"generate"']),
    # wrong types
    "type in trainer": (
        FIT,
        2,
        ["trainer.max_steps is many, but must be of type int"],
        run("trainer.max_steps", "many"),
    ),
    "type in decoder": (decoder("n_layers", "two"), 2, ["model.decoder.n_layers is two, but must be of type int"]),
    "choice in decoder": (
        decoder("feed_forward", "swich"),
        2,
        ["feed_forward is swich, but must be one of dense, switch, granular", '"switch"'],
    ),
    "type of decoder": (FIT, 2, ["of type int"], run("model.init_args.decoder", 3)),
    "type in data": (
        FIT,
        2,
        ["data.sources is ['stdlib'], but must be of type dict; write it as {name: value}."],
        run("data.init_args.sources", ["stdlib"]),
    ),
    "choice in data": (data("bin_dtype", "uint64"), 2, ["data.bin_dtype is uint64, but must be one of uint16, uint32"]),
    "null in data": (data("sequence_length", "null"), 2, ["data.sequence_length is null, but must be of type int"]),
    "type in callback": (
        FIT,
        2,
        ["trainer.callbacks.fraction is half, but must be of type float"],
        run(FRACTION, "half"),
    ),
    "type in optimizer": (
        FIT,
        2,
        ["model.optimizer.lr is fast"],
        run("model.init_args.optimizer.init_args.lr", "fast"),
    ),
    "type in prepare": ([*MAKE, "--workers", "many"], 2, ["workers is many, but must be of type int"]),
    "null in prepare": (
        MAKE,
        2,
        ["workers is null, but must be of type int"],
        put("prepare.yaml", "root: x\nworkers: null\n"),
    ),
    "type in generate": ([*GENERATE, "--seed", "x"], 2, ["seed is x, but must be of type int"]),
    # missing arguments and configs
    "no data": (FIT, 2, ["lacks data; give it"], run("data", None)),
    "no root": (FIT, 2, ["data: TokenDataModule lacks root"], run("data.init_args.root", None)),
    "no fraction": (FIT, 2, ["trainer.callbacks: ReplayMixing lacks fraction"], run(FRACTION, None)),
    "no arguments of schedule": (
        FIT,
        2,
        ["model.scheduler: CosineInf lacks total_steps, const_lr, min_lr"],
        run("model.init_args.scheduler", {"class_path": "lit_moe.CosineInf"}),
    ),
    "no checkpoint to generate from": (["generate"], 2, ["lacks ckpt_path"]),
    "no such config": (
        ["fit", "--config", "configs/moe/quickstart/pretran.yaml"],
        2,
        ["pretran.yaml", "pretrain.yaml"],
    ),
    "no such config of prepare": (["prepare", "--config", "nope.yaml"], 2, ["--config is nope.yaml, but there is no"]),
    "no config named": (["fit", "--config"], 2, ["--config has no value"]),
    "no YAML": (FIT, 2, ["--config run.yaml is not valid YAML", "line 2"], put("run.yaml", "model: [\n")),
    "no YAML for prepare": (MAKE, 2, ["--config prepare.yaml is not valid YAML"], put("prepare.yaml", b"\xff\x00")),
    "empty config": (FIT, 2, ["--config run.yaml is empty"], put("run.yaml", "")),
    "list as config": (MAKE, 2, ["--config prepare.yaml holds a list"], put("prepare.yaml", "- a\n")),
    "name that leads nowhere": (
        FIT,
        2,
        ["data.init_args.seed: ", ".nothing"],
        run("data.init_args.seed", "${data.init_args.nothing}"),
    ),
    # sizes that cannot be
    "too large top_k": (FIT, 2, ["top_k is 9", "4 routed experts", "set top_k to 4 or less"], small_moe(top_k=9)),
    "heads that do not divide": (decoder("n_heads", "3"), 2, ["n_heads is 3 but must divide d_model"]),
    "batches that do not divide": (data("global_batch_size", "5"), 2, ["global_batch_size is 5", "multiple of 2"]),
    "other accumulation": (
        [*FIT, "--trainer.accumulate_grad_batches", "3"],
        2,
        ["accumulate_grad_batches` is 3", "makes 2"],
    ),
    "sequence longer than the data": (data("sequence_length", "100000"), 2, ["stdlib/train has", "tokens, but"]),
    "sequence longer than the model's": (data("sequence_length", "65"), 2, ["65 tokens but max_seq_len is 64"]),
    "empty sequence": (data("sequence_length", "0"), 2, ["sequence_length is 0"]),
    "negative learning rate": (
        FIT,
        2,
        ["lr` is -1.0, but must be above 0"],
        run("model.init_args.optimizer.init_args.lr", -1.0),
    ),
    "no such accelerator": ([*FIT, "--trainer.accelerator", "cpuu"], 2, ["invalid accelerator name"]),
    "negative steps": (
        [*FIT, "--trainer.max_steps", "-5"],
        2,
        ["`trainer.max_steps` is -5, but must be 1 or more, or -1"],
    ),
    # replay
    "replay of 1.5": (FIT, 2, ["`fraction` is 1.5", "give a number from 0 to 1"], run(FRACTION, 1.5)),
    "replay of -0.1": (FIT, 2, ["`fraction` is -0.1", "give a number from 0 to 1"], run(FRACTION, -0.1)),
    "replay that grows to 1.5": (
        FIT,
        2,
        ["`end` is 1.5"],
        run(
            FRACTION,
            {"class_path": "lit_moe.callbacks.LinearReplay", "init_args": {"start": 0, "end": 1.5, "steps": 3}},
        ),
    ),
    "replay without its callback": (
        FIT,
        2,
        ["`replay` names austen", "add lit_moe.callbacks.ReplayMixing"],
        run("trainer.callbacks", []),
    ),
    "replay of nothing": (
        FIT,
        2,
        ["there are no replay sources"],
        lambda: write("run.yaml", edited(edited(RUN, "data.init_args.replay", {}), "trainer.callbacks.2", None)),
    ),
    "forgetting of an unknown source": (
        FIT,
        2,
        ["names the source austin", "austen"],
        run("trainer.callbacks.2.init_args.old", ["austin"]),
    ),
    # data that are not there
    "missing root": (data("root", "nowhere"), 2, ["`data.root` is nowhere", "run `lit-moe prepare`"]),
    "file as root": (data("root", "run.yaml"), 2, ["`data.root` is run.yaml"]),
    "missing source": (data("sources", "{stdlb: 1}"), 2, ["`sources` names stdlb", '"stdlib"']),
    "missing val split": (FIT, 2, ["austen has no val split"], remove("../data/tokens/austen/val")),
    "missing test split": (TEST, 2, ["austen has no test split"], remove("../data/tokens/austen/test")),
    "missing shard": (FIT, 2, ["stdlib/train/000000.tar is missing"], remove(SHARD)),
    "missing index": (FIT, 2, ["stdlib/train", "index.json"], remove(INDEX)),
    "missing tokenizer": (FIT, 2, ["no tokenizer.json"], remove("../data/tokens/tokenizer.json")),
    # data that are damaged
    "truncated shard": (FIT, 2, ["stdlib/train/000000.tar has 1000 bytes"], changed(SHARD, lambda c: c[:1000])),
    "truncated shard in a test": (TEST, 2, ["test/000000.tar has 1000"], changed(TEST_SHARD, lambda c: c[:1000])),
    "flipped byte": (FIT, 2, ["stdlib/train/000000.tar is damaged", "SHA-256"], changed(SHARD, flipped(3000))),
    "flipped byte in a test": (TEST, 2, ["stdlib/test/000000.tar is damaged"], changed(TEST_SHARD, flipped(3000))),
    "flipped header, not verified": (
        data("verify", "false"),
        1,
        ["stdlib/train/000000.tar is damaged", "its header differs"],
        changed(SHARD, flipped(512)),
    ),
    "flipped tokens, not verified": (
        data("verify", "false"),
        1,
        ["stdlib/train holds the token", "its tokenizer has"],
        changed(SHARD, every_token),
    ),
    "flipped tokens, not verified, in a worker": (
        [*data("verify", "false"), "--data.num_workers", "1"],
        1,
        ["stdlib/train holds the token"],
        changed(SHARD, every_token),
    ),
    "truncated index": (FIT, 2, ["train/index.json is not valid JSON"], changed(INDEX, lambda c: c[:100])),
    "list as index": (FIT, 2, ["train/index.json is a list, but must be an object"], put(INDEX, "[]")),
    "index without its tokenizer": (FIT, 2, ["train/index.json is malformed"], changed(INDEX, other_source)),
    "damaged tokenizer": (FIT, 2, ["tokens/tokenizer.json"], put("../data/tokens/tokenizer.json", "{}")),
    # foreign tokenizers
    "shards of another tokenizer": (FIT, 2, ["The source austen", "prepared with the tokenizer"], foreign_shards),
    "root with another tokenizer": (FIT, 2, ["The source stdlib", "prepared with the tokenizer"], foreign_root),
    "test with another tokenizer": ([*TEST, *TEXT], 2, ["was trained with the tokenizer"]),
    "resume with another tokenizer": ([*RESUME, *TEXT], 2, ["was trained with the tokenizer"]),
    "branch with another tokenizer": ([*BRANCH, *TEXT], 2, ["was trained with the tokenizer"]),
    "prepare with another tokenizer": (
        MAKE,
        2,
        ["tokenizer is bytes", "prepared with another one"],
        make("root", "tokens"),
    ),
    "no tokenizer in the file": (
        [*MAKE, "--tokenizer", "run.yaml"],
        2,
        ["tokenizer is run.yaml", "give one written by"],
    ),
    # checkpoints
    "resume with another width": (
        [*RESUME, "--model.decoder.d_model", "24"],
        2,
        ["`decoder.d_model` is 24, but 16 in the checkpoint", "--branch_from"],
    ),
    "test with another depth": (
        [*TEST, "--model.decoder.n_layers", "3"],
        2,
        ["another architecture: decoder.layers.1.", "is missing from it"],
    ),
    "branch to another width": (
        BRANCH,
        2,
        ["--branch_from is", "(384, 24)"],
        run("model.init_args.decoder.d_model", 24),
    ),
    "branch to another depth": (BRANCH, 2, ["is missing from it"], run("model.init_args.decoder.n_layers", 3)),
    "generate with other weights": (
        ["generate", "--ckpt_path", "x.ckpt"],
        2,
        ["do not fit its own description"],
        checkpoint(state_dict={}),
    ),
    "missing checkpoint": (
        ["test", "--ckpt_path", "no.ckpt"],
        2,
        ["--ckpt_path is no.ckpt, but there is no such file"],
    ),
    "YAML as checkpoint": (["test", "--ckpt_path", "run.yaml"], 2, ["--ckpt_path is run.yaml, which cannot be read"]),
    "weights as checkpoint": (
        [*FIT, "--ckpt_path", "x.ckpt"],
        2,
        ["x.ckpt, which is not a Lightning checkpoint"],
        lambda: torch.save({"state_dict": {}}, "x.ckpt"),
    ),
    "another seed of the data": (
        [*RESUME, "--data.seed", "5"],
        2,
        ["`data.init_args.seed` is 5, but the run began with 0"],
    ),
    "resume and branch": ([*RESUME, "--branch_from", LAST], 2, ["give one of the two"]),
    "branch in a test": ([*TEST, "--branch_from", LAST], 2, ["--branch_from starts a training run"]),
    "slash in the run's name": ([*FIT_AS_IS, "--run", "a/b"], 2, ["--run is a/b", "without a slash"]),
    "empty checkpoint": (["test", "--ckpt_path", ""], 2, ["--ckpt_path is empty; give a value"]),
    "empty checkpoint to branch from": ([*FIT_AS_IS, "--branch_from", ""], 2, ["--branch_from is empty; give a value"]),
    "empty name of the run": ([*FIT_AS_IS, "--run", ""], 2, ["run is empty; give a value"]),
    "name of an existing run": ([*FIT_AS_IS, "--run", "first"], 2, ["--run is first", "holds a run already"]),
    # prepare
    "unknown corpus": ([*MAKE, "--corpora+=Austn"], 2, ["Austn is not the name of a known class", '"Austen"']),
    "unknown corpus in the file": (
        MAKE,
        2,
        ['"TextFolder"'],
        make("corpora.0.class_path", "lit_core.corpora.TextFoldr"),
    ),
    "no corpus": (MAKE, 2, ["corpora is empty"], make("corpora", [])),
    "empty corpus": (MAKE, 2, ["The corpus mine is empty"], without_text),
    "missing folder of texts": (MAKE, 2, ["folder of the corpus mine is texts"], remove("texts")),
    "bad JSON line": (MAKE, 2, ["rows.jsonl, line 2 is not valid JSON"], json_lines('{"text": "a"}\n{"text":\n')),
    "JSON line without text": (
        MAKE,
        2,
        ["rows.jsonl, line 2: there is no field text"],
        json_lines('{"text": "a"}\n{"txt": 1}\n'),
    ),
    "text that is not UTF-8": (MAKE, 2, ["texts/3.txt is not in the encoding"], put("texts/3.txt", b"\xff\xfe")),
    "text that is no gzip": (
        MAKE,
        2,
        ["texts/a.txt.gz is not a complete gzip file"],
        lambda: [make("corpora.0.init_args.pattern", "*.gz")(), put("texts/a.txt.gz", gzip.compress(b"x" * 99)[:-9])()],
    ),
    "fraction of 1.5": ([*MAKE, "--val_fraction", "1.5"], 2, ["val_fraction is 1.5"]),
    "file as root of prepare": ([*MAKE, "--root", "./run.yaml"], 2, ["root is", "run.yaml, which is a file"]),
    "nothing to verify": (["prepare", "--root", "new", "--verify", "true"], 2, ["it was not written by prepare"]),
    # generate
    "long prompt": ([*GENERATE, "--prompt", "word " * 99], 2, ["max_new_tokens is 4, but the model takes 64"]),
    "long answer": (["generate", "--ckpt_path", LAST, "--max_new_tokens", "64"], 2, ["the model takes 64 together"]),
    "cold": ([*GENERATE, "--temperature", "-1"], 2, ["temperature is -1.0"]),
    "missing prompts": ([*GENERATE, "--prompt_file", "no.txt"], 2, ["prompt_file is no.txt"]),
    "no prompts": ([*GENERATE, "--prompt_file", "p.txt"], 2, ["p.txt, but it holds no prompt"], put("p.txt", "\n")),
    "bad prompt": (
        [*GENERATE, "--prompt_file", "p.jsonl"],
        2,
        ["p.jsonl, line 2"],
        put("p.jsonl", '{"prompt": "a"}\n{"promt": "b"}\n'),
    ),
    "output that exists": ([*GENERATE, "--output", "run.yaml"], 2, ["output is run.yaml, which exists already"]),
    "output below a file": ([*GENERATE, "--output", "run.yaml/x"], 2, ["output is run.yaml/x"]),
    "no such device": ([*GENERATE, "--device", "gpuu"], 2, ["device is gpuu"]),
}
for torn in ("test", "fit", "generate"):
    name = f"torn checkpoint in {torn}"
    CASES[name] = (
        [torn, "--ckpt_path", LAST],
        2,
        ["it is truncated or was not written"],
        changed(LAST, lambda c: c[: len(c) // 2]),
    )


@pytest.mark.parametrize("case", CASES)
def test_bad_input(place, case):
    args, code, parts, *change = CASES[case]
    for apply in change:
        apply()
    refused(place, args, code, *parts)


@pytest.mark.parametrize("kind", [bomb, plain_bomb])
def test_nothing_in_a_checkpoint_is_executed(place, kind):
    kind()
    for args in (["test"], [*FIT], ["generate"]):
        refused(place, [*args, "--ckpt_path", "x.ckpt"], 2, "--ckpt_path is x.ckpt, which cannot be read")
    refused(place, [*FIT, "--branch_from", "x.ckpt"], 2, "--branch_from is x.ckpt, which cannot be read")
    assert not Path("exploded").exists()
