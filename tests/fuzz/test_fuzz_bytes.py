"""Any bytes as any call's request, in both versions: the server stands."""

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from conformance.caller import VERSIONS
from fuzz.absurd_messages import messages
from fuzz.raw_bytes import raw_bytes
from fuzz.standing import METHODS, assert_standing, send


def serialised(kind: type) -> SearchStrategy[bytes]:
    """Messages of this type as they are sent."""
    return messages(kind.DESCRIPTOR).map(lambda values: kind(**values).SerializeToString())


CALLS = [
    st.tuples(st.just(version), st.just(method), raw_bytes(serialised(getattr(pb, f"{method}Request"))))
    for version, (pb, _) in VERSIONS.items()
    for method, times in METHODS.items()
    for _ in range(times)
]


def test_any_bytes_are_answered(start, explore):
    shard = start()

    def check(calls: list[tuple[str, str, bytes]]) -> None:
        warmed = False
        for version, method, content in calls:
            answer = send(shard.caller(version), method, content)
            warmed |= method == "Warmup" and answer is not None
        assert_standing(shard, warmed)

    explore(st.one_of(CALLS), check, 200)
