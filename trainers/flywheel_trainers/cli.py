"""`python -m flywheel_trainers run|schema|make-base`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from . import environment


def main(arguments: Sequence[str] | None = None) -> int:
    environment.prepare()  # before anything imports torch
    parser = argparse.ArgumentParser(prog="flywheel_trainers", description="Run one training method of Flywheel and leave one artifact.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the method described by a run.json")
    run.add_argument("--config", type=Path, required=True, help="path of run.json (ARCHITECTURE.md, section 2)")
    schema = commands.add_parser("schema", help="print the JSON schema of a method's parameters")
    schema.add_argument("method", nargs="?", help="a method's name; all of them when left out")
    base = commands.add_parser("make-base", help="train the demo's tiny base model")
    base.add_argument("--output", type=Path, required=True, help="directory of the new model artifact")
    base.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    if options.command == "run":
        from .run import run_file

        return run_file(options.config)
    if options.command == "schema":
        from .methods import schema_text

        try:
            print(schema_text(options.method))
        except KeyError as error:
            print(error.args[0], file=sys.stderr)
            return 64
        return 0
    from .tiny import make_base

    environment.limit_threads()
    print(json.dumps(make_base(options.output, seed=options.seed).to_json()))
    return 0
