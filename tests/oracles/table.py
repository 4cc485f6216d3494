"""Every parity case; the tests and docs/models.md are made from this table."""

from oracles.cases import falcon, gemma, gpt, llama, mistral, moe, phi, qwen2, qwen3, stablelm, starcoder2

CASES = (
    *llama.CASES,
    *mistral.CASES,
    *qwen2.CASES,
    *gemma.CASES,
    *gpt.CASES,
    *falcon.CASES,
    *qwen3.CASES,
    *moe.CASES,
    *phi.CASES,
    *stablelm.CASES,
    *starcoder2.CASES,
)
