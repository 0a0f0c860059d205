import threading
from contextlib import suppress

import pytest

from longreach.core.errors import InputError
from longreach.endpoint.base import Request
from longreach.endpoint.errors import ContextLengthError, EndpointError, UnusableEndpointError
from longreach.endpoint.ordered import in_order
from longreach.endpoint.pacing import Pacer
from longreach.testing.endpoint_server import EndpointServer, Fault
from tests.endpoint.clock import Clock, endpoint_at


def requests(count):
    return [Request(prompt=str(number), most_tokens=1) for number in range(count)]


def echo(body):
    return body["prompt"]


@pytest.fixture
def end_of_workers():
    """Waits for the workers of this test; those of another that failed may wait for ever."""
    others = set(threading.enumerate())

    def wait():
        for thread in threading.enumerate():
            if thread.name == "longreach-endpoint" and thread not in others:
                thread.join(60)
                assert not thread.is_alive()

    return wait


def test_answers_come_in_order_though_the_first_is_the_last_to_be_ready():
    last_came = threading.Event()

    def answer(body):
        if body["prompt"] == "5":
            last_came.set()
        if body["prompt"] == "0":
            assert last_came.wait(10)
        return body["prompt"]

    with EndpointServer(answer) as server, endpoint_at(server, model="stub", concurrency=2) as endpoint:
        assert [each.text for each in endpoint.many(requests(6))] == list("012345")


def test_no_more_are_under_way_than_agreed():
    together = threading.Barrier(3)  # nobody is answered until three have come, and a fourth would never be

    def answer(body):
        together.wait(10)
        return body["prompt"]

    with EndpointServer(answer) as server, endpoint_at(server, model="stub", concurrency=3) as endpoint:
        assert [each.text for each in endpoint.many(requests(30))] == list(map(str, range(30)))
        assert server.most_at_once == 3


def test_the_model_is_asked_for_once_however_many_need_it():
    second = threading.Barrier(2)

    class Slow(EndpointServer):
        def reply(self, received):
            if received.body is None:
                with suppress(threading.BrokenBarrierError):  # nobody else comes
                    second.wait(0.05)
            return super().reply(received)

    with Slow(echo) as server, endpoint_at(server, concurrency=3) as endpoint:
        assert [each.text for each in endpoint.many(requests(3))] == list("012")
    assert len(server.received) == 1 + 3


def test_those_who_ask_by_themselves_count_too():
    third = threading.Barrier(3)

    def answer(body):
        with suppress(threading.BrokenBarrierError):  # from the first wait on, which nobody ended
            third.wait(0.05)
        return body["prompt"]

    with EndpointServer(answer) as server, endpoint_at(server, model="stub", concurrency=2) as endpoint:
        threads = [threading.Thread(target=lambda: list(endpoint.many(requests(10)))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.posts) == 40
        assert server.most_at_once <= 2


def test_a_request_that_fails_has_its_error_in_its_place():
    with EndpointServer(echo, most_characters=2) as server, endpoint_at(server, model="stub") as endpoint:
        short, long, last = endpoint.many(Request(prompt=prompt, most_tokens=1) for prompt in ("a", "much too long", "b"))
    assert (short.text, last.text) == ("a", "b")
    assert isinstance(long, ContextLengthError)


def test_an_endpoint_that_nobody_can_use_ends_it(end_of_workers):
    with EndpointServer(echo, key="right") as server, endpoint_at(server, model="stub", api_key="wrong", concurrency=2) as endpoint:
        with pytest.raises(UnusableEndpointError, match="401: Incorrect API key"):
            list(endpoint.many(requests(1000)))
        end_of_workers()
        assert len(server.posts) <= 8


def test_what_is_no_error_of_an_endpoint_ends_it(end_of_workers):
    def ask(number):
        if number == 1:
            raise InputError("no")
        return number

    answers = in_order(ask, range(5), 1)
    assert next(answers) == 0
    with pytest.raises(InputError, match="no"):
        next(answers)
    end_of_workers()


def test_who_stops_listening_stops_the_asking(end_of_workers):
    four_taken, second_began, closed = threading.Event(), threading.Event(), threading.Event()
    asked = []

    def numbers():
        yield from range(3)
        four_taken.set()
        yield from range(3, 100)

    def ask(number):
        asked.append(number)
        if number == 0:
            assert four_taken.wait(10)
        if number == 1:
            second_began.set()
            assert closed.wait(10)
        return number

    answers = in_order(ask, numbers(), 1)
    assert next(answers) == 0
    assert second_began.wait(10)
    answers.close()
    closed.set()
    end_of_workers()
    assert asked == [0, 1]


def test_there_are_no_more_workers_than_agreed():
    workers = set()

    def ask(number):
        workers.add(threading.get_ident())
        return number

    assert list(in_order(ask, range(200), 2)) == list(range(200))
    assert len(workers) <= 2


def test_requests_are_taken_as_they_are_needed():
    first_may_end, ninth_taken = threading.Event(), threading.Event()

    def numbers():
        yield from range(8)
        ninth_taken.set()
        yield from range(8, 20)

    def ask(number):
        if number == 0:
            assert first_may_end.wait(10)
        if number == 7:
            assert not ninth_taken.wait(0.05)  # 4 a worker are the most that are ahead
            first_may_end.set()
        return number

    assert list(in_order(ask, numbers(), 2)) == list(range(20))


def test_nothing_asked_is_nothing_answered():
    assert list(in_order(lambda number: number, [], 3)) == []


def test_requests_a_minute():
    clock = Clock()
    begun = []

    def answer(body):
        begun.append(clock.time)
        return body["prompt"]

    with EndpointServer(answer) as server, endpoint_at(server, clock, model="stub", concurrency=1, requests_per_minute=30) as endpoint:
        assert [each.text for each in endpoint.many(requests(4))] == list("0123")
        clock.time += 60  # time that was not used is not made up for
        list(endpoint.many(requests(2)))
    assert begun == [0, 2, 4, 6, 66, 68]


def test_tries_count_as_requests():
    clock = Clock()
    faults = {0: Fault.rate_limit("1")}
    with EndpointServer(echo, faults=faults) as server, endpoint_at(server, clock, model="stub", requests_per_minute=6) as endpoint:
        endpoint.complete("a", most_tokens=1)
    assert clock.slept == [10]


def test_a_pause_is_for_all_and_the_longest_counts():
    clock = Clock()
    pacer = Pacer(None, clock.sleep, clock.now)
    pacer.wait()
    assert clock.slept == []
    pacer.pause(20)
    pacer.pause(5)
    pacer.wait()
    pacer.wait()
    assert clock.slept == [20]


def test_errors_of_endpoints_take_the_place_of_answers():
    error = EndpointError("http://a/v1", "bad", status=400)

    def ask(number):
        if number == 1:
            raise error
        return number

    assert list(in_order(ask, range(3), 2)) == [0, error, 2]
