"""When requests are sent."""

import asyncio
import time

from text_generation_benchmark.http.load import Limit, Rate, Streams
from text_generation_benchmark.http.timeline import Timeline


class Server:
    """Answers after some turns of the loop, and remembers how many requests it had at a time."""

    def __init__(self):
        self.now = self.most = 0
        self.numbers = []

    async def send(self, number, due):
        self.now += 1
        self.most = max(self.most, self.now)
        self.numbers.append(number)
        sent = time.perf_counter()
        timeline = Timeline(sent if due is None else due, 1, sent)
        for _ in range(3):
            await asyncio.sleep(0)
        self.now -= 1
        return [timeline]


async def test_streams_share_the_requests():
    server = Server()
    found = await Streams(3).run(server.send, Limit(requests=10), "")
    assert (len(found), server.most, sorted(server.numbers)) == (10, 3, list(range(10)))


async def test_streams_end_in_time():
    assert await Streams(2).run(Server().send, Limit(duration_s=1e-9), "") == []


async def test_what_arrives_beyond_the_bound_waits_and_its_time_counts():
    server = Server()
    found = await Rate(1e6, max_in_flight=2).run(server.send, Limit(requests=12), "seed")
    assert (len(found), server.most) == (12, 2)
    dues = [timeline.due for timeline in found]
    assert all(timeline.sent >= timeline.due for timeline in found)
    assert max(dues) - min(dues) < 1e-3  # the seed's arrivals, some millionths of a second apart, whatever answers take
