"""The check that runs in a serving pod before vLLM: is this directory the model that was asked for?

It runs with the serving image's Python, so it is a script of the standard library alone. The digest is that of
trainers/flywheel_trainers/digests.py; tests/specs/test_vllm.py compares the two.
"""

SCRIPT = r"""
import hashlib, json, os, sys
from pathlib import Path

DESCRIPTIVE = {"manifest.json", "metrics.json", "README.md", "LICENSE", ".gitattributes"}
IGNORED = (".bin", ".pt", ".pth", ".pkl", ".log", ".lock")


def fail(reason, message):
    print(f"{reason}: {message}", file=sys.stderr, flush=True)
    try:
        with open(os.environ.get("FLYWHEEL_TERMINATION_LOG", "/dev/termination-log"), "w") as log:
            json.dump({"error": {"reason": reason, "message": message}}, log)
    except OSError:
        pass
    sys.exit(65)


def sha256(path):
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def main(directory, expected):
    if not directory.is_dir():
        fail("ModelMissing", f"{directory} does not exist; check the model's uri and that storage.claimName is the claim that holds it")
    files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("."))
    names = {path.relative_to(directory).as_posix(): path for path in files}
    if not any(name.endswith(".safetensors") for name in names):
        fail("ModelInvalid", f"{directory} has no *.safetensors; only safetensors are served: convert the model, or refer to another")
    if "config.json" not in names:
        fail("ModelInvalid", f"{directory} has no config.json; refer to the directory that holds the whole model")
    if not expected:
        return
    try:
        hashes = {name: sha256(path) for name, path in names.items() if name not in DESCRIPTIVE and not name.endswith(IGNORED)}
    except OSError as error:
        fail("ModelInvalid", f"{directory} cannot be read: {error}; files must be readable for UID {os.getuid()}")
    canonical = json.dumps(hashes, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    found = "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
    if found != expected:
        mend = "restore the files, or refer to the new digest on purpose"
        fail("DigestMismatch", f"{directory} has digest {found}, but {expected} was asked for; {mend}")
    print(f"{directory} is {found}", flush=True)


main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
"""
