"""`python3 -m dev.cluster up | down [--purge] | images [NAME ...] | released TREE TAG | volume NAME | status | env`"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import addons, build, lifecycle
from .settings import Settings
from .shell import ClusterError, exclusive


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m dev.cluster", description="A one-node Kubernetes on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the cluster, building what is missing")
    down = commands.add_parser("down", help="stop it and leave nothing behind")
    down.add_argument("--purge", action="store_true", help="remove its images too")
    images = commands.add_parser("images", help="build the images that changed and load them")
    images.add_argument("names", nargs="*", metavar="NAME", help=", ".join(image.name for image in build.IMAGES))
    released = commands.add_parser("released", help="build the operator's image of an earlier release from its source tree, and load it")
    released.add_argument("tree", type=Path)
    released.add_argument("tag")
    volume = commands.add_parser("volume", help="make a PersistentVolume that is owned by UID 10001, or free one whose claim is gone")
    volume.add_argument("name")
    commands.add_parser("status", help="which processes run")
    commands.add_parser("env", help="print the shell lines that point kubectl and helm at it")
    arguments = parser.parse_args()
    settings = Settings.from_environment()
    try:
        return _run(arguments, settings)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.command == "up":
        with exclusive(settings.cache / "lock"):
            lifecycle.up(settings)
        print(f'eval "$(python3 -m dev.cluster env)"   # or: export KUBECONFIG={settings.kubeconfig}')
    elif arguments.command == "down":
        with exclusive(settings.cache / "lock"):
            lifecycle.down(settings, arguments.purge)
        print("the cluster is gone" + ("" if arguments.purge else "; its images are kept for the next start"))
    elif arguments.command == "images":
        build.build_and_load(settings, arguments.names)
    elif arguments.command == "released":
        build.build_released(settings, arguments.tree.absolute(), arguments.tag)
    elif arguments.command == "volume":
        print(addons.volume(settings, arguments.name))
    elif arguments.command == "env":
        print(f'export KUBECONFIG={settings.kubeconfig} PATH={settings.bin}:"$PATH"')
    else:
        states = lifecycle.status(settings)
        for name, is_running in states.items():
            print(f"{name:24} {'running' if is_running else 'stopped'}")
        return 0 if all(states.values()) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
