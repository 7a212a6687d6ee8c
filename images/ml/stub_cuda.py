"""Stand-ins for the CUDA libraries that a CUDA build of torch links but never calls on a CPU.

Where no CPU wheel of torch is to be had, the ordinary wheel needs 2.7 GB of NVIDIA libraries only to be loaded. This
writes, for each of them, a library of a few kB with the names and symbol versions that torch asks for; every function
returns an error, and those that put an error into words return words, for torch asks them for these before it raises.
`torch.cuda.is_available()` is then False, as on any machine without a GPU.

Usage: stub_cuda.py SITE_PACKAGES   (needs readelf and gcc; a CPU wheel of torch needs no stand-ins, and gets none)
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

# Part of every system; whatever else torch needs and does not ship is a CUDA library.
_SYSTEM = re.compile(r"^(ld-linux|lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s|gomp)\.so)")

# `cudaGetErrorString` and its like. Not `cuGetErrorString`: that returns a code too.
_TEXT = re.compile(r"[a-z]{3,}Get(Last)?(Error|Status)(String|Name)$")


def main() -> None:
    directory = Path(sys.argv[1]) / "torch" / "lib"
    libraries = sorted(directory.glob("*.so*"))
    shipped = {library.name for library in libraries}
    missing = {name for library in libraries for name in needed(library) if not _SYSTEM.match(name)} - shipped
    if not missing:
        return
    versioned, plain = undefined(libraries, missing)
    # A symbol without a version may come from any library of the process: one stand-in holds them all.
    holder = min(missing)
    for name in sorted(missing):
        build(directory / name, versioned.get(name, {}), plain if name == holder else set())
    print(f"wrote stand-ins for {len(missing)} CUDA libraries")


def needed(library: Path) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.+)\]", _readelf("-d", library))


def undefined(libraries: Iterable[Path], missing: set[str]) -> tuple[dict[str, dict[str, set[str]]], set[str]]:
    """Symbols that are asked of the missing libraries, by library and version; and those that nobody defines."""
    versioned: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    wanted: set[str] = set()
    defined: set[str] = set()
    for library in libraries:
        origin = _version_origins(library)
        for section, symbol in re.findall(r"(UND|\d+) (\S+)(?: \(\d+\))?$", _readelf("--dyn-syms", library), re.M):
            name, _, version = symbol.partition("@")
            if section != "UND":
                defined.add(name)
            elif not version:
                wanted.add(name)
            elif origin.get(version) in missing:
                versioned[origin[version]][version].add(name)
    return versioned, {name for name in wanted - defined if re.match(r"(nccl|nvshmem|cu|nv)[A-Za-z_]", name)}


def _version_origins(library: Path) -> dict[str, str]:
    """Which library each symbol version belongs to, from the section of needed versions."""
    origins: dict[str, str] = {}
    file = ""
    for match in re.finditer(r"File: (\S+)|Name: (\S+)\s+Flags", _readelf("-V", library)):
        if match[1]:
            file = match[1]
        else:
            origins[match[2]] = file
    return origins


def build(target: Path, versions: dict[str, set[str]], plain: set[str]) -> None:
    names = sorted(plain.union(*versions.values()))
    script = "".join(f"{version} {{ global: {'; '.join(sorted(found))}; }};\n" for version, found in sorted(versions.items()))
    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "stub.c"
        source.write_text("".join(map(function, names)) or "int unused_stub;\n")
        command = ["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{target.name}", "-o", str(target), str(source)]
        if script:
            (Path(work) / "versions").write_text(script)
            command.append(f"-Wl,--version-script={work}/versions")
        subprocess.run(command, check=True)


def function(name: str) -> str:
    if _TEXT.search(name):
        return f'const char *{name}(void) {{ return "there is no CUDA here, only a stand-in for it"; }}\n'
    return f"int {name}(void) {{ return 100; }}\n"


def _readelf(option: str, library: Path) -> str:
    return subprocess.run(["readelf", "-W", option, str(library)], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
