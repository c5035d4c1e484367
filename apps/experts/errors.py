"""What can go wrong with an expert beyond its file's syntax (that is a ConfigError).

AppError
└── ExpertError        an expert cannot be had or used as asked
    ├── ConsentMissing     it wants grants that nobody has agreed to
    ├── KnowledgeGone      a document that it reads from is not there
    └── PackError          a pack or a store that cannot be believed
        ├── BadSignature       no signature, a forged one, or another signer than before
        └── UnsafePack         a pack that would write elsewhere, or without bounds
"""

from __future__ import annotations

from llmos.abi.errors import AppError


class ExpertError(AppError):
    """An expert cannot be had or used as asked."""


class ConsentMissing(ExpertError):
    """It wants grants that nobody has agreed to."""


class KnowledgeGone(ExpertError):
    """A document that it reads from is not there."""


class PackError(ExpertError):
    """A pack or a store that cannot be believed."""


class BadSignature(PackError):
    """No signature, a forged one, or another signer than before."""


class UnsafePack(PackError):
    """A pack that would write elsewhere, or without bounds."""
