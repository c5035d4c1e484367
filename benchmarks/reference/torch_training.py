"""PyTorch, trained as its users train it on a CPU: transformers' model, peft's adapter, torch's AdamW, eager, f32,
SDPA.

What: reads a task's folder (`model/`, `adapter/` if one is taught, `task.json`, `steps.npz`), then a line of JSON a
    turn from stdin, {"steps": [first, last + 1]}, and answers each with {"losses": [...], "seconds": ...,
    "peak_mib": ...}.
Invariant: imports nothing of ours: it runs in an interpreter of its own. The examples of a step are sorted by
    length and padded to the longest of a micro-batch, its best case; the loss is the mean over the step's targets.
Interface: `python torch_training.py FOLDER`.
"""

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

FOLDER = Path(sys.argv[1])
TASK = json.loads((FOLDER / "task.json").read_text())
DATA = np.load(FOLDER / "steps.npz")


def model():
    made = AutoModelForCausalLM.from_pretrained(
        FOLDER / "model", dtype=torch.float32, attn_implementation="sdpa"
    )
    if (FOLDER / "adapter").is_dir():
        from peft import PeftModel

        made = PeftModel.from_pretrained(made, FOLDER / "adapter", is_trainable=True)
    made.config.use_cache = False
    return made.train()


def examples(step):
    """(tokens, labels) of a step's examples; labels are -100 where nothing is to be learnt."""
    tokens, counts, ends = (DATA[f"{step}.{name}"] for name in ("tokens", "counts", "ends"))
    labels = np.where(counts > 0, tokens, -100)
    return list(zip(np.split(tokens, ends[:-1]), np.split(labels, ends[:-1]), strict=True))


def micro_batches(step, size):
    chosen = sorted(examples(step), key=lambda e: len(e[0]))
    for at in range(0, len(chosen), size):
        part = chosen[at : at + size]
        longest = max(len(tokens) for tokens, _ in part)
        batch = torch.zeros(3, len(part), longest, dtype=torch.long)
        batch[1] = -100
        for i, (tokens, labels) in enumerate(part):
            batch[0, i, : len(tokens)] = torch.from_numpy(tokens)
            batch[1, i, : len(tokens)] = torch.from_numpy(labels)
            batch[2, i, : len(tokens)] = 1
        yield batch


def rate(step):
    """Up in a line, down along a cosine."""
    up = max(1, round(TASK["steps"] * TASK["warm_up"]))
    if step < up:
        return TASK["rate"] * (step + 1) / up
    done = (step - up) / max(1, TASK["steps"] - up)
    return TASK["rate"] * (TASK["floor"] + (1 - TASK["floor"]) * (1 + math.cos(math.pi * min(1.0, done))) / 2)


def learn(taught, optimiser, step, size):
    for group in optimiser.param_groups:
        group["lr"] = rate(step)
    batches = list(micro_batches(step, size))
    count = sum(int((b[1][:, 1:] != -100).sum()) for b in batches)
    total = 0.0
    for tokens, labels, here in batches:
        whole = bool(here.all())
        out = taught(
            input_ids=tokens, attention_mask=None if whole else here, labels=labels, num_items_in_batch=count
        )
        out.loss.backward()
        total += out.loss.item()
    torch.nn.utils.clip_grad_norm_([p for p in taught.parameters() if p.requires_grad], TASK["clip"])
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return total


def peak_mib():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def main():
    torch.set_num_threads(TASK["threads"])
    torch.manual_seed(0)
    taught = model()
    optimiser = torch.optim.AdamW(
        [p for p in taught.parameters() if p.requires_grad], lr=TASK["rate"], betas=tuple(TASK["betas"]),
        eps=1e-8, weight_decay=0.0,
    )  # fmt: skip
    print(json.dumps({"version": torch.__version__}), flush=True)
    for line in sys.stdin:
        said = json.loads(line)
        began = time.perf_counter()
        losses = [learn(taught, optimiser, step, said["micro"]) for step in range(*said["steps"])]
        seconds = time.perf_counter() - began
        print(json.dumps({"losses": losses, "seconds": seconds, "peak_mib": peak_mib()}), flush=True)


main()
