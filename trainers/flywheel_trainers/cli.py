"""`python -m flywheel_trainers run|launch|schema|make-base`."""

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
    launch = commands.add_parser("launch", help="run it in several processes: one a GPU, on one or many nodes")
    launch.add_argument("--config", type=Path, required=True, help="path of run.json (ARCHITECTURE.md, section 2)")
    launch.add_argument("--nodes", type=int, default=1, help="pods of the run")
    launch.add_argument("--node-rank", type=int, help="which of them this is; default: $JOB_COMPLETION_INDEX, or 0")
    launch.add_argument("--processes-per-node", type=int, default=1, help="processes in each pod: one a GPU")
    launch.add_argument("--leader", default="127.0.0.1", help="host name of the pod with node rank 0")
    launch.add_argument("--port", type=int, default=29500, help="port of the leader where the processes meet")
    schema = commands.add_parser("schema", help="print the JSON schema of a method's parameters")
    schema.add_argument("method", nargs="?", help="a method's name; all of them when left out")
    base = commands.add_parser("make-base", help="train the demo's tiny base model")
    base.add_argument("--output", type=Path, required=True, help="directory of the new model artifact")
    base.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    if options.command == "run":
        from .run import run_file

        return run_file(options.config)
    if options.command == "launch":
        from .launch import Group, from_environment
        from .launch import launch as launch_all

        node_rank = from_environment() if options.node_rank is None else options.node_rank
        return launch_all(options.config, Group(options.nodes, node_rank, options.processes_per_node, options.leader, options.port))
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
