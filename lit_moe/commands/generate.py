"""The verb ``lit-moe generate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

from lit_core.errors import UserError, check_at_least, checked_first
from lit_core.files.json_files import checked, json_lines
from lit_core.files.paths import atomic_write
from lit_core.files.text_files import read_text
from lit_core.lightning.devices import device_named
from lit_core.lm.sampling import check_sampling
from lit_core.record import output_with_record, write_record
from lit_core.screen import say
from lit_core.seeds import part_seed
from lit_moe.lm import load_language_model


def _check(
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    repetition_penalty: float,
    samples: int,
    seed: int | None,
    batch_size: int,
) -> None:
    check_sampling(max_new_tokens, temperature, top_k, top_p, repetition_penalty, part_seed(seed), batch_size)
    check_at_least(1, samples=samples)


@checked_first(_check)
def generate(
    ckpt_path: str,
    prompt: list[str] | str | None = None,
    prompt_file: str | None = None,
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = 50,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    samples: int = 1,
    seed: int | None = None,
    batch_size: int = 8,
    output: str | None = None,
    device: str = "auto",
) -> None:
    """Continue prompts with a trained model.

    Args:
        ckpt_path: Checkpoint of ``lit-moe fit``.
        prompt: Text to be continued, or a list of texts; without prompt and prompt_file, a new document begins.
        prompt_file: File with further prompts: one per line, or a .jsonl file of objects with the key "prompt".
        max_new_tokens: Largest number of new tokens per text.
        temperature: Divisor of the logits, 0 or more; 0 takes the likeliest token.
        top_k: How many of the likeliest tokens may be drawn; null allows all.
        top_p: Probability, in (0, 1], that the fewest likeliest tokens to draw from must reach; null allows all tokens.
        repetition_penalty: Factor, above 0, by which tokens that are already in the text become rarer; 1 for none.
        samples: Number of texts per prompt, 1 or more.
        seed: Seed of the sampled tokens, 0 or more, null for 0; each text also depends on its index.
        batch_size: Number of texts continued at once.
        output: JSONL file to be written with the keys prompt, sample and text; null prints on the screen.
        device: Device to run on, such as cpu or cuda:0; auto takes the first GPU if there is one.

    Raises:
        UserError: If an argument is out of its range, a file is missing, or the output exists.
    """
    target = None if output is None else output_with_record(output)
    _check(max_new_tokens, temperature, top_k, top_p, repetition_penalty, samples, seed, batch_size)
    seed = part_seed(seed)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt or [])
    if prompt_file is not None:
        prompts += read_prompts(Path(prompt_file))
        if not prompts:
            raise UserError(f"prompt_file is {prompt_file}, but it holds no prompt; write one per line.")
    wanted = [text for text in prompts or [""] for _ in range(samples)]
    model = load_language_model(ckpt_path, device_named(device))
    records = []
    for start in range(0, len(wanted), batch_size):
        batch = wanted[start : start + batch_size]
        texts = model.generate(
            batch,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            batch_size=batch_size,
            first_row=start,
        )
        for index, (before, text) in enumerate(zip(batch, texts, strict=True), start):
            records.append({"prompt": before, "sample": index % samples, "text": text})
            if target is None:
                say(*(["-" * 80] if index else []), *f"{before}{text}".expandtabs().split("\n"))
        if target is not None:
            say(f"{len(records)} of {len(wanted)} texts", error=True)
    if target is not None:
        write_record(target)  # first, since a command that is given again after a kill refuses an output that exists
        atomic_write(target, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
        say(f"Wrote {target}")


class _Prompt(TypedDict):
    prompt: str


def read_prompts(path: Path) -> list[str]:
    """Read prompts from a file.

    Args:
        path: One prompt per line, empty lines left out; or a ``.jsonl`` file of objects with the key ``prompt``.

    Raises:
        UserError: If there is no such file, it is not UTF-8, or a line is not such an object.
    """
    if not path.is_file():
        raise UserError(f"prompt_file is {path}, but there is no such file; correct the path.")
    if path.suffix != ".jsonl":
        return [line for line in read_text(path).split("\n") if line.strip()]
    remedy = 'give each line the key "prompt" with a text, or use a .txt file'
    return [checked(_Prompt, row, where, remedy)["prompt"] for where, row in json_lines(path)]
