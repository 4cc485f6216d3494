"""Figures of timelines that were made up, computed by hand."""

from array import array

import pytest

from text_generation_benchmark.http.figures import Run, figures
from text_generation_benchmark.http.timeline import Timeline


def timeline(due, times, end, tokens, error=None, sent=None, prompt_tokens=5):
    return Timeline(due, 4, due if sent is None else sent, array("d", times), end, tokens, prompt_tokens, error)


STEADY = timeline(10.0, [10.5, 10.6, 10.7, 10.8], 10.9, 4)
AT_ONCE = timeline(10.0, [10.25, 10.25, 11.25], 11.25, 3, sent=10.125)
DOUBLE = timeline(11.0, [11.5, 12.5], 12.5, 4)  # two events of two tokens each
FAILED = timeline(11.0, [11.5], 11.6, 1, error="no room")
RUN = Run([STEADY, AT_ONCE, DOUBLE, FAILED], started=10.0, window_s=2.0, cpu_share=0.5)


def test_each_request_counts_from_when_it_was_due():
    found = figures([RUN], {})
    assert (found.requests, found.failed, found.first_error) == (4, 1, "no room")
    assert found.ttft_ms.p50 == pytest.approx(500)
    assert found.ttft_ms.average == pytest.approx((500 + 250 + 500) / 3)
    assert found.e2e_ms.p50 == pytest.approx(1250)
    assert found.late_ms.p99 == pytest.approx(125 * 0.97)
    assert found.goodput is None


def test_gaps_are_between_events_and_tokens_are_the_servers():
    found = figures([RUN], {})
    assert found.itl_ms.average == pytest.approx((100 * 3 + 0 + 1000 + 1000) / 6)
    assert found.itl_ms.p50 == pytest.approx(100)
    assert found.tpot_ms.average == pytest.approx((100 + 500 + 1000 / 3) / 3)
    assert found.tokens_per_event == pytest.approx(11 / 9)
    assert (found.prompt_tokens, found.asked_tokens) == (5, 4)


def test_rates_are_of_the_window_and_of_each_repetition():
    other = Run([STEADY], started=10.0, window_s=4.0, cpu_share=0.7)
    found = figures([RUN, other], {})
    assert found.tokens_per_second.highest == pytest.approx((4 + 3 + 2) / 2)  # the second of DOUBLE comes too late
    assert found.tokens_per_second.lowest == pytest.approx(4 / 4)
    assert found.requests_per_second.highest == pytest.approx(2 / 2)
    assert found.client_cpu_share == 0.7


@pytest.mark.parametrize(
    ("goals", "share", "rate"),
    [
        ({"ttft": 400}, 1 / 4, 1 / 2),
        ({"itl": 200}, 1 / 4, 1 / 2),
        ({"tpot": 400}, 2 / 4, 1 / 2),
        ({"ttft": 600, "e2e": 1300}, 2 / 4, 2 / 2),
        ({"ttft": 1000, "e2e": 10000}, 3 / 4, 2 / 2),  # DOUBLE is good, but ends after the window; a failure is never
    ],
)
def test_goodput_is_of_requests_that_keep_all_goals(goals, share, rate):
    found = figures([RUN], goals).goodput
    assert (found.share, found.requests_per_second.average) == pytest.approx((share, rate))


def test_without_answers_there_are_no_latencies():
    found = figures([Run([FAILED], 11.0, 1.0, 0.1)], {"ttft": 10})
    assert (found.failed, found.ttft_ms, found.answer_tokens, found.goodput.share) == (1, None, None, 0)
