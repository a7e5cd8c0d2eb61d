"""Go on pre-training two mixtures of transformers on two processes; kill, resume, export and compare.

The models are small, random, and shaped as DeepSeek-V3 (latent attention, a first dense layer, groups of experts, a
shared expert, a selection bias that goes on balancing) and GPT-OSS (windows, attention sinks, experts with biases).
Each is trained twice: once without a break, and once killed with SIGKILL and resumed. Weights and moments are compared
to the bit, and logits of the export with those of transformers.

To be run by `python examples/mixtures_of_transformers.py`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, DeepseekV3Config, GptOssConfig, PretrainedConfig

from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_moe.lm import load_module

IDS = {"vocab_size": 257, "bos_token_id": None, "eos_token_id": 256, "pad_token_id": None}
SIZE = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, **IDS}
MODELS: dict[str, PretrainedConfig] = {
    "deepseek_v3": DeepseekV3Config(
        **SIZE, intermediate_size=96, moe_intermediate_size=32, n_routed_experts=16, num_experts_per_tok=4, n_group=4,
        topk_group=2, first_k_dense_replace=1, num_key_value_heads=4, q_lora_rank=32, kv_lora_rank=16,
        qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
    ),
    "gpt_oss": GptOssConfig(
        **SIZE, intermediate_size=32, num_local_experts=16, num_experts_per_tok=4, num_key_value_heads=2, head_dim=16,
        sliding_window=32,
    ),
}  # fmt: skip
FLAGS = {
    "deepseek_v3": "--model.init_args.hugging_face.selection_bias loss_free",
    "gpt_oss": "--model.init_args.hugging_face.balance_weight 0.01",
}
RUN = """
data:
  class_path: lit_moe.TokenDataModule
  init_args: {root: data/austen, sources: {austen: 1}, sequence_length: 64, global_batch_size: 8, micro_batch_size: 2,
    validation_samples: 8, document_mask: true}
model:
  class_path: lit_moe.MoELanguageModel
  init_args: {hugging_face: {model: null}, optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 0.003}}}
trainer:
  accelerator: cpu
  devices: 2
  strategy: ddp
  max_steps: 12
  log_every_n_steps: 4
  val_check_interval: 24
  check_val_every_n_epoch: null
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - {class_path: lit_core.callbacks.RunCheckpoint, init_args: {every_n_train_steps: 3}}
"""


def run(command: str, until: Path | None = None) -> None:
    """Run a command of the package.

    Args:
        command: The command line.
        until: The command and its processes are killed when this file appears; None lets it end.
    """
    print(f"\n$ {command}", flush=True)
    program, *words = shlex.split(command)
    process = subprocess.Popen(
        [sys.executable, "-m", program.replace("-", "_"), *words],
        env={**os.environ, "LITSHIFT_DATA": "data"},
        start_new_session=until is not None,
    )
    if until is not None:
        while process.poll() is None and not until.exists():
            time.sleep(0.01)
        if process.returncode is not None:
            sys.exit(f"The run ended with {process.returncode} before it could be killed.")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"killed with SIGKILL when {until} appeared", flush=True)
    elif process.wait():
        sys.exit(process.returncode)


def differences(one: object, other: object) -> int:
    """Return the number of tensors of two nested values that are not the same to the bit."""
    if isinstance(one, torch.Tensor):
        return int(not torch.equal(one, other))
    if isinstance(one, dict):
        return sum(differences(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return sum(map(differences, one, other))
    return 0


def show(name: str) -> None:
    """Train a model with and without a kill, and compare."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(MODELS[name]).save_pretrained(name)
    shutil.copy("data/austen/tokenizer.json", name)
    fit = f"lit-moe fit --config run.yaml --model.init_args.hugging_face.model {name} {FLAGS[name]}"
    whole, killed = (Path(f"runs/moe/{name}-{kind}/checkpoints/last.ckpt") for kind in ("whole", "killed"))
    run(f"{fit} --run {name}-whole")
    run(f"{fit} --run {name}-killed", until=killed)
    stopped = load_checkpoint_file(killed)["global_step"]
    run(f"lit-moe fit --ckpt_path {killed}")
    one, other = load_checkpoint_file(whole), load_checkpoint_file(killed)
    apart = sum(differences(one[key], other[key]) for key in ("state_dict", "optimizer_states"))
    print(f"{name}: killed after step {stopped}, resumed to {other['global_step']}; {apart} tensors differ")
    run(f"lit-moe export --ckpt_path {killed} --output {name}-exported")
    module, _ = load_module(killed)
    theirs = AutoModelForCausalLM.from_pretrained(f"{name}-exported", dtype=torch.float32)
    ids = torch.randint(256, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = module.decoder.eval()(ids)
        apart = float((theirs.eval()(input_ids=ids, use_cache=False).logits - ours).abs().max())
    print(
        f"{name}: logits of the export that transformers loads differ by {apart:.1e}, of {float(ours.abs().max()):.1f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", choices=[[], *MODELS], metavar="MODEL", help=f"of {', '.join(MODELS)}")
    names = parser.parse_args().models or list(MODELS)
    Path("run.yaml").write_text(RUN)
    run("lit-moe prepare --config configs/moe/prepare/austen.yaml --root austen --tokenizer bytes --max_bytes 100000")
    for model in names:
        show(model)
