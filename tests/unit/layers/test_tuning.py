"""Which kernels are picked, kept and found again, with a clock that is made up."""

import json
import threading
from collections import defaultdict
from dataclasses import asdict

import pytest
import torch

from text_generation_server.kernels.matmul.config import CUBLAS, KernelConfig, KernelKind, candidates
from text_generation_server.kernels.matmul.picks import PickFile
from text_generation_server.quantization.tuning import MatmulTuner, Shape
from text_generation_server.specs.activation import Activation

CPU = torch.device("cpu")
BF16 = torch.bfloat16
N, K = 4096, 4096


def weight(n=N, k=K, dtype=BF16):
    """Of this shape, without its memory."""
    return torch.empty(1, dtype=dtype).expand(n, k)


class MadeUp:
    """Takes 10 us for cuBLAS and what it is told for others, 20 us if nothing; counts what it is asked."""

    def __init__(self, times=None):
        self.times = {CUBLAS: 10.0} | (times or {})
        self.asked = defaultdict(list)
        self.prepared = []
        self.together = []
        self.kinds = set()
        self.limits = []

    def prepare(self, cases):
        self.prepared += [(choice, rows) for choice, _, rows, _ in cases]

    def __call__(self, choice, weights, rows, kind, limit):
        self.asked[rows].append(choice)
        self.kinds.add(kind)
        self.together.append(len(weights))
        self.limits.append(limit)
        return self.times.get(choice, 20.0)


def tuned(measure, cache_file=None, rows=(1,), weights=None):
    tuner = MatmulTuner(cache_file, CPU, measure)
    for each in weights or [weight()]:
        tuner.register(each)
    tuner.tune(rows)
    return tuner


def picked(tuner, rows=1):
    return tuner.choice(Shape(N, K, BF16), rows)


def test_the_fastest_is_picked():
    first, second, third, *_ = candidates(1, N, K)
    assert picked(tuned(MadeUp({first: 9.0, second: 7.0, third: 8.0}))) == second


def test_cublas_stays_unless_it_is_beaten_clearly():
    first, second, *_ = candidates(1, N, K)
    assert picked(tuned(MadeUp({first: 9.95}))) == CUBLAS
    assert picked(tuned(MadeUp({first: 9.95, second: 9.8}))) == second


def test_what_adds_more_than_a_product_is_ours_wherever_anything_was_chosen():
    first, *_ = candidates(1, N, K)
    tuner, shape = tuned(MadeUp({first: 5.0}), rows=(1, 32)), Shape(N, K, BF16)
    assert tuner.carrier(shape, 1) == first
    assert tuner.choice(shape, 32) == CUBLAS
    assert tuner.carrier(shape, 32) in candidates(32, N, K)
    assert tuner.carrier(shape, 33) is None
    assert MatmulTuner(None, CPU, MadeUp()).carrier(shape, 32) is None


def test_small_weights_are_not_worth_a_measurement():
    measure = MadeUp()
    tuner = tuned(measure, weights=[weight(256, 256)])
    assert tuner.choice(Shape(256, 256, BF16), 1) == CUBLAS
    assert not measure.asked


def test_what_cannot_run_is_not_picked():
    measure = MadeUp(dict.fromkeys(candidates(1, N, K)))
    assert picked(tuned(measure)) == CUBLAS
    assert len(measure.asked[1]) == 1 + len(candidates(1, N, K))


def test_where_cublas_fails_any_that_runs_is_picked():
    first, *_ = candidates(1, N, K)
    assert picked(tuned(MadeUp({CUBLAS: None, first: 30.0}))) != CUBLAS


def test_a_candidate_is_dropped_early_by_the_best_so_far():
    first, *_ = candidates(1, N, K)
    measure = MadeUp({first: 5.0})
    tuned(measure)
    assert measure.limits[0] == float("inf")
    assert 10.0 < measure.limits[1] < 12.0
    assert all(5.0 < limit < 6.0 for limit in measure.limits[2:])


def test_rows_between_are_served_as_the_next_tuned_number():
    one, four = candidates(1, N, K)[0], candidates(4, N, K)[-1]
    tuner = tuned(MadeUp({one: 5.0, four: 4.0}), rows=(4, 1))
    assert [picked(tuner, rows) for rows in (1, 2, 3, 4)] == [one, four, four, four]
    assert picked(tuner, 5) == CUBLAS


def test_what_is_not_tuned_is_left_to_cublas():
    first, *_ = candidates(1, N, K)
    tuner = tuned(MadeUp({first: 5.0}), weights=[weight(), weight(dtype=torch.float32)])
    assert tuner.choice(Shape(N, K, torch.float16), 1) == CUBLAS
    assert tuner.choice(Shape(N, K, torch.float32), 1) == CUBLAS
    assert tuner.choice(Shape(K, N + 16, BF16), 1) == CUBLAS
    assert tuner.choice(Shape(N, K, BF16, Activation.SILU), 1) == CUBLAS
    assert MatmulTuner(None, CPU, MadeUp()).choice(Shape(N, K, BF16), 1) == CUBLAS


def test_gated_weights_are_measured_with_their_gates_and_only_so():
    first, *_ = candidates(1, N, K)
    measure, gates = MadeUp({first: 5.0}), weight()
    tuner = MatmulTuner(None, CPU, measure)
    plain = tuner.register(gates)
    shape = tuner.register(gates, Activation.SILU)
    tuner.tune((1,))
    assert measure.kinds == {Activation.SILU}
    assert (tuner.choice(shape, 1), tuner.choice(plain, 1)) == (first, CUBLAS)


def test_many_rows_are_not_measured():
    measure = MadeUp()
    assert picked(tuned(measure, rows=(256,)), 64) == CUBLAS
    assert not measure.asked


def test_weights_measured_together_exceed_a_cache_and_not_much_more():
    measure = MadeUp()
    # 32 MiB each.
    tuned(measure, weights=[weight() for _ in range(40)])
    assert set(measure.together) == {16}


def test_all_that_is_measured_is_prepared_at_once():
    measure = MadeUp()
    tuned(measure, rows=(2, 8))
    assert measure.prepared == [(choice, rows) for rows in (2, 8) for choice in candidates(rows, N, K)]


def test_a_second_start_measures_nothing(tmp_path):
    first, *_ = candidates(1, N, K)
    cache_file = tmp_path / "not yet there" / "picks.json"
    tuned(MadeUp({first: 5.0}), cache_file, rows=(1, 2))
    measure = MadeUp()
    again = tuned(measure, cache_file, rows=(1, 2))
    assert picked(again) == first
    assert not measure.asked


def test_only_what_the_file_lacks_is_measured(tmp_path):
    cache_file = tmp_path / "picks.json"
    tuned(MadeUp(), cache_file, rows=(1, 2))
    measure = MadeUp()
    tuned(measure, cache_file, rows=(1, 2, 4))
    assert set(measure.asked) == {4}
    tuned(measure, cache_file, rows=(1, 2, 4), weights=[weight(dtype=torch.float16)])
    assert set(measure.asked) == {1, 2, 4}


def test_another_machine_measures_for_itself_and_both_are_kept(tmp_path):
    cache_file = tmp_path / "picks.json"
    PickFile(cache_file, "another").add({"a case": CUBLAS})
    measure = MadeUp()
    tuned(measure, cache_file)
    assert measure.asked
    assert PickFile(cache_file, "another").read() == {"a case": CUBLAS}
    assert len(json.loads(cache_file.read_text())) == 2


def test_a_kept_choice_that_is_no_candidate_any_more_is_measured_again(tmp_path):
    cache_file = tmp_path / "picks.json"
    first, *_ = candidates(1, N, K)
    tuned(MadeUp({first: 5.0}), cache_file)
    content = cache_file.read_text()
    cache_file.write_text(content.replace(f'"block_k": {first.block_k}', '"block_k": 3'))
    assert cache_file.read_text() != content
    assert picked(tuned(MadeUp({first: 5.0}), cache_file)) == first
    assert cache_file.read_text() == content


def test_what_is_known_of_such_cards_is_tried_once_and_kept(tmp_path):
    first, second, *_ = candidates(1, N, K)
    case = Shape(N, K, BF16).case
    PickFile(tmp_path / "shipped.json", "cpu").add({case(1): second, case(2): CUBLAS})
    PickFile(tmp_path / "shipped.json", "another card").add({case(4): CUBLAS})
    for measure, tried in ((MadeUp({first: 5.0}), {1: [second], 2: []}), (MadeUp(), {1: [], 2: []})):
        tuner = MatmulTuner(tmp_path / "picks.json", CPU, measure, shipped=tmp_path / "shipped.json")
        tuner.register(weight())
        tuner.tune((1, 2, 4))
        assert (picked(tuner, 1), picked(tuner, 2)) == (second, CUBLAS)
        assert {rows: measure.asked[rows] for rows in (1, 2)} == tried
        assert (second, 1) in measure.prepared


def test_what_is_known_of_such_cards_and_does_not_run_here_is_measured(tmp_path):
    first, second, *_ = candidates(1, N, K)
    PickFile(tmp_path / "shipped.json", "cpu").add({Shape(N, K, BF16).case(1): second})
    measure = MadeUp({first: 5.0, second: None})
    tuner = MatmulTuner(None, CPU, measure, shipped=tmp_path / "shipped.json")
    tuner.register(weight())
    tuner.tune((1,))
    assert picked(tuner) == first


@pytest.mark.parametrize("content", ("", "{", "[]", "\x00", '{"cpu": 3}', "null"))
def test_an_unreadable_file_is_written_anew(tmp_path, content):
    cache_file = tmp_path / "picks.json"
    cache_file.write_text(content)
    first, *_ = candidates(1, N, K)
    assert picked(tuned(MadeUp({first: 5.0}), cache_file)) == first
    assert picked(tuned(MadeUp(), cache_file)) == first


def test_without_a_place_for_the_file_every_start_measures(tmp_path):
    (tmp_path / "a file").touch()
    first, *_ = candidates(1, N, K)
    for _ in range(2):
        measure = MadeUp({first: 5.0})
        assert picked(tuned(measure, tmp_path / "a file" / "picks.json")) == first
        assert measure.asked


@pytest.mark.parametrize(
    "value", (None, 3, "dot", {}, {"kernel": "unheard of"}, {"kernel": "dot", "colour": 1}, {"block_n": 1})
)
def test_an_entry_that_means_nothing_is_not_there(tmp_path, value):
    cache_file = tmp_path / "picks.json"
    good = KernelConfig(KernelKind.GEMV, 1, 1024, 4, 2)
    entries = {"bad": value, "good": asdict(good) | {"kernel": "gemv"}}
    cache_file.write_text(json.dumps({"cpu": entries}))
    assert PickFile(cache_file, "cpu").read() == {"good": good}


def test_ranks_that_start_together_measure_once_and_agree(tmp_path):
    cache_file = tmp_path / "picks.json"
    first, second, *_ = candidates(1, N, K)
    # Each would pick differently.
    ranks = [MadeUp({first: 5.0}), MadeUp({second: 5.0})]
    both = threading.Barrier(2, timeout=10)
    picks = []

    def rank(measure):
        both.wait()
        picks.append(picked(tuned(measure, cache_file)))

    threads = [threading.Thread(target=rank, args=(measure,)) for measure in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert picks[0] == picks[1] in (first, second)
    assert sorted(bool(measure.asked) for measure in ranks) == [False, True]


def test_a_reader_without_the_lock_never_sees_half_a_file(tmp_path):
    cache_file = tmp_path / "picks.json"
    cases = {f"case {number}": KernelConfig(KernelKind.DOT, 16, 256, 4, 4) for number in range(200)}
    picks = PickFile(cache_file, "cpu")
    picks.add(cases)
    written = threading.Event()

    def write():
        for _ in range(20):
            picks.add(cases)
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not written.is_set() or not reads:
        assert picks.read() == cases
        reads += 1
    writer.join(10)
    assert [path.name for path in tmp_path.iterdir()] == ["picks.json"]
