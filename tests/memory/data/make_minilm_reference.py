"""Makes minilm_reference.json: what `transformers` (PyTorch, CPU, f32) says the vectors of a few texts are.

Run where torch and transformers are installed: `python make_minilm_reference.py FOLDER_OF_THE_MODEL`.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

TEXTS = [
    "The cat sat on the mat.",
    "How long may the single line synopsis of a package description be?",
    "x",
    "naïve café — 東京 ﬁ 🙂",
    "Every package must have a maintainer, except for orphaned packages. " * 30,
    "[CLS] control words of the model [SEP] in a text [MASK]",
]

folder = sys.argv[1]
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
with torch.no_grad():
    hidden = model(**batch).last_hidden_state
mask = batch["attention_mask"][..., None].float()
vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
rows = [[round(x, 8) for x in row] for row in vectors.tolist()]
out = {"texts": TEXTS, "tokens": mask.sum(1)[:, 0].int().tolist(), "vectors": rows}
Path(__file__).with_name("minilm_reference.json").write_text(json.dumps(out) + "\n")
