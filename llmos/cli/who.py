"""Who answers: the expert that the command line names, or nobody in particular.

What: reads `--expert`, `--config` and `--model` together, for an expert may be made for a model of its own.
Invariant: an expert is found whole, and its grants are agreed to, before any model is loaded.
Interface: `who(arguments) -> (config, specialist)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.abi.specialist import Specialist
from llmos.connect import load_config

if TYPE_CHECKING:
    import argparse

    from llmos.abi.config import Config


def who(arguments: argparse.Namespace) -> tuple[Config, Specialist]:
    """The configuration to boot with or to attach by, and who is to be spawned; without a name one who is nobody."""
    config = load_config(arguments.config, model=arguments.model)
    if arguments.expert is None:
        return config, Specialist()
    from llmos.apps.experts.agreeing import at_terminal
    from llmos.apps.experts.launch import prepare
    from llmos.apps.experts.shelf import Shelf

    expert, ready = prepare(Shelf(config), arguments.expert, at_terminal())
    if arguments.model is None and expert.manifest.base is not None:
        config = load_config(arguments.config, model=expert.manifest.base)
    return config, ready
