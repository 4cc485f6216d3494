"""When FlashInfer's plans are made, without FlashInfer."""

from text_generation_server.attention.flashinfer import LatePlan


class Told:
    """A plan that answers with what it was asked."""

    def run(self, q, layer, cache):
        return q, layer, cache


def test_a_late_plan_is_made_once_and_by_the_first_layer():
    made = []

    def make():
        made.append(Told())
        return made[-1]

    plan = LatePlan(make)
    assert not made
    assert [plan.run("q", layer, "cache") for layer in (0, 1)] == [("q", 0, "cache"), ("q", 1, "cache")]
    assert len(made) == 1
