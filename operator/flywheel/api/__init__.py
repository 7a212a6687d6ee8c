"""The five kinds of `modelflywheel.dev/v1alpha1` as pydantic models: the one source of the CRDs. No I/O."""
