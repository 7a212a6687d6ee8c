"""A real one-node Kubernetes cluster on this machine, without Docker and without a registry: `python3 -m dev.cluster up`.

Only the standard library, so that it runs before anything is installed. docs/adr/0001-local-cluster.md says why it is built this way.
"""
