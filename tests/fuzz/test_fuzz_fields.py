"""Any values in the fields of any call's request, in both versions: each is refused or served."""

import pytest
from hypothesis import strategies as st

from conformance.caller import VERSIONS
from fuzz.absurd_messages import Values, messages
from fuzz.standing import METHODS, assert_standing, call

Call = tuple[str, str, Values]

CALLS = [
    st.tuples(st.just(version), st.just(method), messages(getattr(pb, f"{method}Request").DESCRIPTOR))
    for version, (pb, _) in VERSIONS.items()
    for method, times in METHODS.items()
    for _ in range(times)
]


@pytest.mark.parametrize("speculate", [0, 3])
def test_any_values_are_answered(start, explore, speculate):
    shard = start(speculate=speculate)

    def check(calls: list[Call]) -> None:
        warmed = False
        for version, method, values in calls:
            answer = call(shard.caller(version), method, values)
            warmed |= method == "Warmup" and answer is not None
            if method == "Prefill" and answer is not None and answer.HasField("batch"):
                call(shard.caller(version), "Decode", {"batches": [{"id": answer.batch.id}]})
        assert_standing(shard, warmed)

    explore(st.one_of(CALLS), check, 200)
