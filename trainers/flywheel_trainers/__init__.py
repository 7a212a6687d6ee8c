"""Flywheel's training program: one process, one method, one artifact. The contract is ARCHITECTURE.md, section 2."""

__version__ = "0.1.0"
