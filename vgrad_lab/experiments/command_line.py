"""What the commands share: options, JSON on stdout, an interrupt that has its own line."""

import json
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
Seed = Annotated[int, typer.Option(help="Seed.", min=0)]


class Stopped(Exception):
    """An interrupt about which the command has its own line to say."""


def as_json(value: Any) -> str:
    """What a command prints with --json."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
