"""Keys and signatures of packs.

What: an author's ed25519 key, made on this machine, and the check of a signature.
Invariant: the private key is readable by its owner alone and never leaves the state folder. Nothing here is our own
    cryptography: it is the `cryptography` library's.
Interface: `Key.make(file)`, `Key.load(file)`, `.public`, `.sign(data)`; `verify(public, signature, data)`;
    `short(public)` for people.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from llmos.apps.experts.errors import BadSignature, ExpertError
from llmos.drivers.whole import write_whole


def _library(name: str) -> Any:
    """A module of the optional library; ExpertError where it is not installed."""
    try:
        return import_module(f"cryptography.{name}")
    except ImportError:
        raise ExpertError(
            "packs cannot be signed or checked here", why="the library cryptography is not installed",
            do="pip install 'llmos[experts]'",
        ) from None  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """An author's key. `public` is its public half, base64."""

    public: str
    _private: Any = field(repr=False)

    @classmethod
    def make(cls, file: Path) -> Key:
        """A new key, kept in `file`. ExpertError: there is one already."""
        if file.exists():
            raise ExpertError(
                "there is a key already", why=f"{file}: what it signed is upgraded by what it signs alone",
                do="keep it; to begin anew, move that file away",
            )  # fmt: skip
        private = _library("hazmat.primitives.asymmetric.ed25519").Ed25519PrivateKey.generate()
        forms = _library("hazmat.primitives.serialization")
        pem = private.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
        write_whole(file, pem, private=True)
        return cls(_public(private), private)

    @classmethod
    def load(cls, file: Path) -> Key:
        """The key in `file`. ExpertError: there is none, or something else."""
        forms = _library("hazmat.primitives.serialization")
        try:
            private = forms.load_pem_private_key(file.read_bytes(), None)
            return cls(_public(private), private)
        except FileNotFoundError:
            raise ExpertError("you have no key to sign with", do="make one: llmos expert key") from None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ExpertError(
                f"{file} holds no key", why=str(error), do="restore it, or move it away"
            ) from None

    def sign(self, data: bytes) -> str:
        """The signature of `data`, base64."""
        return base64.b64encode(self._private.sign(data)).decode()


def _public(private: Any) -> str:
    forms = _library("hazmat.primitives.serialization")
    raw = private.public_key().public_bytes(forms.Encoding.Raw, forms.PublicFormat.Raw)
    return base64.b64encode(raw).decode()


def verify(public: str, signature: str, data: bytes) -> None:
    """BadSignature where `signature` is not that of `data` by the holder of `public`."""
    ed25519, errors = _library("hazmat.primitives.asymmetric.ed25519"), _library("exceptions")
    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        key.verify(base64.b64decode(signature, validate=True), data)
    except (ValueError, binascii.Error, errors.InvalidSignature):
        raise BadSignature(
            "the pack's signature is forged", why=f"it was not made by the key {short(public)} that the pack names",
            do="do not use it: fetch it from its author",
        ) from None  # fmt: skip


def short(public: str) -> str:
    """A public key as people compare it: four groups of its sha256."""
    digest = hashlib.sha256(public.encode()).hexdigest()
    return ":".join(digest[i : i + 4] for i in range(0, 16, 4)) if public else "nobody"
