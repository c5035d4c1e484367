"""Records llama.cpp's token ids for varied text: the fixture that `test_tokenizer.py` compares ours with.

Run from the repository root, with `llama-cpp-python` installed (the `bench` extra):
    python -m tests.drivers.weights.record_tokens
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path

import numpy as np

from tests.drivers.weights import files

FIXTURE = Path(__file__).with_name("fixtures") / "tokens.json"
MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b")
TEXTS = [
    "Hello, world! How's it going? I'd say we've done what they'll want, HE'LL see 'Twas.",
    "The cat sat on the mat.",
    "  two spaces, then a tab\tand  a trailing space ",
    "line one\nline two\r\nline three\n\n\nafter three newlines   \n  indented\n\t\ttabs\n",
    "1234567890 3.14159 1,000,000 0x1F 1e-9 ½ ² ٣ 四",
    "def f(x: int) -> str:\n    return f\"{x!r}\" if x >= 0 else '-'  # comment\n\n\nclass A(B):\n    pass\n",
    "SELECT * FROM t WHERE a <> b AND c != 'd';\n{\"k\": [1, 2.5, null, true]}",
    "café naïve Ångström coöperate Zürich œuvre ﬁne",
    "cafe\u0301 n\u0303 e\u0302\u0301 combining",
    "日本語のテキストと中文字符，标点。한국어 텍스트도 있습니다",
    "Привет, мир! Γειά σου Κόσμε. שלום עולם مرحبا بالعالم สวัสดีชาวโลก नमस्ते दुनिया",
    "😀😃 👨‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 emoji❤️done",
    "a\u00a0b\u2003c\u200bd\u3000e\ufeff\u2028f\u0085g",
    "\x00\x01\x07\x1b[31mred\x1b[0m\x7f",
    "https://example.org/path?q=a%20b&x=1#frag user@mail.example +49 (0)30 123-456",
    "WordsInCamelCase snake_case_words SCREAMING_CASE kebab-case mixedUP123abc",
    "!!!??? ...--- ***===>>><<< ~~~ ``` $$$ €£¥ §¶ «quoted» “quotes” ‘single’",
    "don't DON'T Don'T it's IT'S y'all'd've 'sup l'eau",
    "<|im_start|>system\nNot a control token<|im_end|> <|endoftext|>",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    " " * 300 + "x" + "\n" * 40 + "y" + "\t" * 17,
    "ab" * 300,
    "\u200d\u200c\ufffd\U0010ffff\ue000 private",
    "x=1;y=2;z=x+y;print(z)//comment/*block*/",
    "ǅ ß ſ İ ı Σς ﷽ ㍿ ① Ⅳ ㊙",
]


# A SentencePiece vocabulary made up here, since no model of that kind is in the catalogue.
SPM_TEXTS = [
    "the cat sat on the mat",
    "  the  cats and the hats  ",
    "thethe catcat\nthat",
    "unknown: é 日本 😀 \t tab",
    "a",
    " ",
    "",
    "</s> is text here <s>",
    "hatthathatthe" * 20,
]


def spm_metadata() -> dict[str, object]:
    """The header keys of that vocabulary: specials, bytes, letters and pieces with scores."""
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz:</>\n[]INST"]
    pieces = [
        "th",
        "at",
        "he",
        "the",
        "\u2581the",
        "\u2581t",
        "hat",
        "that",
        "\u2581\u2581",
        "ca",
        "cat",
        "\u2581cat",
        "an",
        "tt",
    ]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *pieces, *letters]
    types = [2, 3, 3, *[6] * 256, *[1] * (len(pieces) + len(letters))]
    scores = [0.0] * 259 + [-float(i) for i in range(len(pieces) + len(letters))]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def texts() -> list[str]:
    """The written texts, and some of random characters of many scripts."""
    draw = random.Random(0)
    ranges = [
        (0x20, 0x7F),
        (0xA0, 0x250),
        (0x370, 0x530),
        (0x600, 0x700),
        (0x4E00, 0x4F00),
        (0x1F300, 0x1F650),
    ]
    blanks = " \n\t\r\u00a0"
    made = []
    for _ in range(15):
        letters = [chr(draw.randrange(*draw.choice(ranges))) for _ in range(60)]
        made.append("".join(c if draw.random() > 0.2 else draw.choice(blanks) for c in letters))
    return TEXTS + made


def main() -> None:
    """Write the fixture."""
    import llama_cpp

    from llmos.drivers.weights import find

    recorded = {}
    for name in MODELS:
        model = llama_cpp.Llama(str(find(name).path), vocab_only=True, verbose=False)
        recorded[name] = [model.tokenize(t.encode(), add_bos=False, special=False) for t in texts()]
    with tempfile.TemporaryDirectory() as folder:
        path = files.written(Path(folder), "spm.gguf", files.gguf(spm_metadata()))
        model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
        spm = [model.tokenize(t.encode(), add_bos=False, special=False) for t in SPM_TEXTS]
    body = json.dumps({"texts": texts(), "ids": recorded, "sentencepiece": spm}, ensure_ascii=True)
    FIXTURE.write_text(body.replace("], [", "],\n["))


if __name__ == "__main__":
    main()
