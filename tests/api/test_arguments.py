"""Which arguments of vLLM a spec may not give; the CRD's rules use these expressions in RE2, where they mean the same."""

from __future__ import annotations

import re

import pytest

from flywheel.api.common import RESERVED_ARGUMENT, UNTRUSTED_ARGUMENT


@pytest.mark.parametrize(
    "argument",
    [
        *("--trust-remote-code", "--trust_remote_code", "--trust-remote_code=true", "--trust-remote-code=True"),
        *("--tr", "--tru", "--trust", "--trust=1", "--trust_", "--trust-r", "--trust-re", "--trust-remote", "--trust_rem"),
        '{"trust_remote_code": true}',
    ],
)
def test_no_spelling_and_no_prefix_makes_a_models_own_code_run(argument: str) -> None:
    assert re.search(UNTRUSTED_ARGUMENT, argument)


@pytest.mark.parametrize(
    "argument",
    [
        *("--port", "--port=1", "--por", "--po=1", "--host", "--ho", "--hos=0.0.0.0", "--model", "--model=x", "--mod"),
        *("--served-model-name", "--served_model_name=x", "--served-model_name", "--served", "--serve=x", "--served_m"),
    ],
)
def test_no_spelling_and_no_prefix_takes_what_the_operator_sets(argument: str) -> None:
    assert re.search(RESERVED_ARGUMENT, argument)


@pytest.mark.parametrize(
    "argument",
    [
        *("--max-model-len=4096", "--model-impl=vllm", "--model_loader_extra_config={}", "--seed", "--tokenizer=x", "--task"),
        *("--tensor-parallel-size", "--trust-request-chat-template", "--hf-overrides={}", "--pooler-config={}", "serve", "8000"),
    ],
)
def test_other_arguments_pass(argument: str) -> None:
    assert not re.search(RESERVED_ARGUMENT, argument)
    assert not re.search(UNTRUSTED_ARGUMENT, argument)
