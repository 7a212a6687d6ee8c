"""Flywheel: the continuous life of a language model in production, as Kubernetes objects."""
