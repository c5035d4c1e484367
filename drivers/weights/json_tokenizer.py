"""The tokenizer and chat template of a Hugging Face folder.

What: `tokenizer.json` run by the `tokenizers` library, with what its neighbours say about special ids and
    template.
Invariant: the library is given a vocabulary without added tokens: they are taken out of its dictionary and
    of its merges, so content cannot become one. (The id of "unknown" alone can come out, where a vocabulary
    has no bytes.)
Interface: `from_folder(folder)` -> Tokenizer; `chat_template(folder)` -> (source, its variables).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmos.abi.errors import CorruptWeights, ModelNotFound
from llmos.drivers.weights.bpe import symbol_bytes
from llmos.drivers.weights.gguf_tokenizer import END_TEXTS, byte_of
from llmos.drivers.weights.safetensors import read_json
from llmos.drivers.weights.tokenizer import Added, Tokenizer

_SPACE = "\u2581"


class _Library:
    """A vocabulary run by `tokenizers`."""

    def __init__(self, source: Mapping[str, Any], size: int, style: str) -> None:
        import tokenizers

        try:
            self._library = tokenizers.Tokenizer.from_str(json.dumps(source))
        except Exception as e:  # the library raises nothing narrower
            raise _bad(str(e)) from e
        self.size, self._style = size, style

    def encode(self, text: str, *, start: bool) -> list[int]:
        ids: list[int] = self._library.encode((" " if start else "") + text, add_special_tokens=False).ids
        return ids

    def token_bytes(self, token: int) -> bytes:
        text = self._library.id_to_token(token)
        if text is None:
            return b""
        if self._style == "bytes":
            return symbol_bytes(text.encode())
        if self._style == "pieces":
            byte = byte_of(text.encode())
            return text.replace(_SPACE, " ").encode() if byte is None else bytes((byte,))
        return text[2:].encode() if text.startswith("##") else b" " + text.encode()


def from_folder(folder: Path) -> Tokenizer:
    """Build the tokenizer of a Hugging Face folder.

    Raises:
        ModelNotFound: there is no `tokenizer.json`.
        CorruptWeights: it cannot be understood.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelNotFound(
            f"{folder} has no tokenizer.json",
            do="fetch it too, or convert the model's own tokenizer file to it",
        )
    source = read_json(path)
    try:
        return _build(source, folder)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
        raise _bad(f"{type(e).__name__}: {e}") from e


def _build(source: dict[str, Any], folder: Path) -> Tokenizer:
    listed = source.get("added_tokens") or []
    added = {
        int(t["id"]): Added(
            t["content"], bool(t.get("special")), bool(t.get("lstrip")), bool(t.get("rstrip"))
        )
        for t in listed
        # Runs of blanks (Gemma) are text that a document may contain, and can command nothing.
        if t.get("special") or t["content"].strip()
    }
    model = source["model"]
    vocab = model["vocab"]
    ids = vocab.values() if isinstance(vocab, dict) else range(len(vocab))
    size = 1 + max([*ids, *(int(t["id"]) for t in listed)])
    post = source.get("post_processor")
    prefix = _without_prefix(source)
    content = {
        **source,
        "model": _without(model, {t.text for t in added.values()}),
        "added_tokens": [t for t in listed if int(t["id"]) not in added],
        "post_processor": None,
        "truncation": None,
        "padding": None,
    }
    vocabulary = _Library(content, size, _style(source))
    configs = [
        _optional(folder / name)
        for name in ("generation_config.json", "tokenizer_config.json", "config.json")
    ]
    by_text = {t.text: i for i, t in added.items()}
    ends = {i for text, i in by_text.items() if text in END_TEXTS}
    for config in configs:
        ends |= {i for i in _numbers(config.get("eos_token_id")) if i < size}
    if (eos := by_text.get(_text(configs[1].get("eos_token")))) is not None:
        ends.add(eos)
    bos = by_text.get(_text(configs[1].get("bos_token")))
    if bos is None:
        bos = next((i for c in configs for i in _numbers(c.get("bos_token_id")) if i in added), None)
    declared = configs[1].get("add_bos_token")
    add_bos = _begins_with(post, added[bos].text) if declared is None and bos is not None else bool(declared)
    return Tokenizer(
        vocabulary,
        added,
        frozenset(ends),
        bos_id=bos,
        add_bos=add_bos and bos is not None,
        space_prefix=prefix,
    )


def _without(model: dict[str, Any], gone: set[str]) -> dict[str, Any]:
    """The model without the tokens `gone`; "unknown" stays, out of reach of merges."""
    unknown, vocab = model.get("unk_token"), model["vocab"]
    gone = gone - {unknown}
    if isinstance(vocab, list):
        # Ids are places in the list: an unreachable text keeps the place.
        salt = secrets.token_hex(16)
        pieces = [[f"{salt}{i}" if piece in gone else piece, score] for i, (piece, score) in enumerate(vocab)]
        return {**model, "vocab": pieces}
    out = {**model, "vocab": {text: i for text, i in vocab.items() if text not in gone}}
    if "merges" in model:
        pairs = [m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"]]
        out["merges"] = [pair for pair in pairs if not {*pair, "".join(pair)} & {*gone, unknown}]
    return out


def _without_prefix(source: dict[str, Any]) -> bool:
    """Whether it puts a space before the first word; if so, takes that away (`Tokenizer` does it)."""
    found = False

    def walk(node: Any) -> Any:
        nonlocal found
        if isinstance(node, list):
            return [walk(item) for item in node if not prepends(item)]
        if not isinstance(node, dict):
            return node
        node = {key: walk(value) for key, value in node.items()}
        if node.get("prepend_scheme") in ("always", "first"):
            found, node["prepend_scheme"] = True, "never"
        if node.get("add_prefix_space"):
            found, node["add_prefix_space"] = True, False
        return node

    def prepends(node: Any) -> bool:
        nonlocal found
        if isinstance(node, dict) and node.get("type") == "Prepend":
            found = True
            return True
        return False

    for part in ("normalizer", "pre_tokenizer"):
        source[part] = None if prepends(source.get(part)) else walk(source.get(part))
    return found


def _style(source: Mapping[str, Any]) -> str:
    """How tokens are written: GPT-2's printable bytes, SentencePiece's pieces, or WordPiece's words."""
    text = json.dumps([source.get("decoder"), source.get("pre_tokenizer")])
    if '"ByteLevel"' in text:
        return "bytes"
    return "words" if '"WordPiece"' in text or source["model"].get("type") == "WordPiece" else "pieces"


def _begins_with(post: Any, bos: str) -> bool:
    """Whether a post-processor puts `bos` before a text."""
    if not isinstance(post, dict):
        return False
    if post.get("type") == "Sequence":
        return any(_begins_with(inner, bos) for inner in post.get("processors", ()))
    first = (post.get("single") or [{}])[0]
    return isinstance(first, dict) and (first.get("SpecialToken") or {}).get("id") == bos


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _numbers(value: object) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, int) and not isinstance(v, bool) and v >= 0]


def _text(value: object) -> str:
    """A token's text: written plainly, or as an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def chat_template(folder: Path) -> tuple[str, dict[str, str]]:
    """The folder's chat template ("" if it has none), and the tokens that it may name."""
    config = _optional(folder / "tokenizer_config.json")
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    tokens = {name: text for name in names if (text := _text(config.get(name)))}
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8", "replace"), tokens
    found = config.get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else "", tokens


def _bad(why: str) -> CorruptWeights:
    return CorruptWeights("tokenizer.json cannot be understood", why=why[:300], do="fetch it again")
