"""`longreach serve` under load: what short requests wait beside a long prompt, many clients, what breaks, and what stays in memory.

    python benchmarks/serving.py [MODEL] [--method SPEC] [--long 32k] [--clients 200] [--requests 1000] [--malformed 10000]
        [--answers 8] [--prompt 80] [--parts clients,malformed,memory,killed,long,together] [--json FILE]

`together`, which is not among the parts that run unless it is named, has answers written at once and one after the other; with a prompt
beyond the trained window they are under the method.

Starts servers of its own, and prints a row for each measurement: JSON in the file, text on the screen. Seconds hang on the machine and on
what else it does; ratios less so.
"""

import argparse
import asyncio
import json
import math
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from longreach.core.lengths import parse_length
from longreach.testing.malformed import malformed_bodies

WORDS = "the cache of a model holds what it has read and a server keeps it for the next one that asks "
PROMPT, WRITTEN = 48, 16  # words of a short request, and tokens of its answer
ANSWER = 64  # tokens of the answers that are written at once
ROUNDS = 40  # short requests that are timed
WAITS = 7200.0
PARTS = ("clients", "malformed", "memory", "killed", "long")


class Rows:
    """Results, told as they come. Args: file: to which they are appended."""

    def __init__(self, file: Path | None) -> None:
        self.file = file

    def add(self, what: str, **numbers: Any) -> None:
        """A row."""
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"what": what, **numbers}) + "\n")
        told = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in numbers.items())
        print(f"{what}: {', '.join(told)}", flush=True)


@contextmanager
def served(model: str, *options: str) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """A server: its address, the model's name, and its process."""
    command = [sys.executable, "-m", "longreach", "serve", model, "--port", "0", "--grace", "2s", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stdout is not None  # noqa: S101
    try:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(command)} did not start")
        yield line.split(" is served at ")[1].split()[0], line.split(" (")[0], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def resident(process: "subprocess.Popen[str]") -> float:
    """MiB of a process that are in memory."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20


def quantile(values: list[float], share: float) -> float:
    """The value that so large a share do not exceed."""
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def short(name: str, number: int, **more: Any) -> dict[str, Any]:
    """A short chat, each of its own."""
    said = f"{number}: {WORDS * 10}"[: PROMPT * 5]
    return {"model": name, "messages": [{"role": "user", "content": said}], "max_tokens": WRITTEN, "temperature": 0, **more}


async def timed(http: httpx2.AsyncClient, body: dict[str, Any]) -> tuple[float, float]:
    """(seconds to the first piece, to the end) of a stream. Raises: RuntimeError for a refusal."""
    began, first = time.perf_counter(), 0.0
    async with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as reply:
        if reply.status_code != 200:
            raise RuntimeError(f"{reply.status_code}: {(await reply.aread())[:300]!r}")
        async for line in reply.aiter_lines():
            if not first and '"content": "' in line and '"content": ""' not in line:
                first = time.perf_counter() - began
    return first, time.perf_counter() - began


async def beside_a_long_prompt(url: str, name: str, tokens: int, rows: Rows) -> None:
    """Short requests, one after the other, on an idle server and while a long prompt is read."""
    async with httpx2.AsyncClient(base_url=url, timeout=WAITS) as http:
        idle = [await timed(http, short(name, number)) for number in range(ROUNDS)]
        text = WORDS * (tokens // 8)
        ids = (await http.post("/tokenize", json={"model": name, "prompt": text})).json()["tokens"][: tokens - 1]
        body = {"model": name, "prompt": ids, "max_tokens": 1, "temperature": 0}
        began = time.perf_counter()
        reading = asyncio.ensure_future(http.post("/v1/completions", json=body))
        await asyncio.sleep(0.5)
        beside = []
        while not reading.done():
            beside.append(await timed(http, short(name, 1000 + len(beside))))
        reply = (await reading).json()
        took = time.perf_counter() - began
    for what, place in (("first piece", 0), ("whole answer", 1)):
        before, after = ([each[place] for each in found] for found in (idle, beside))
        rows.add(
            f"short requests beside {reply['usage']['prompt_tokens']} tokens that are read, {what}",
            requests=len(beside), idle_p50=quantile(before, 0.5), idle_p95=quantile(before, 0.95), beside_p50=quantile(after, 0.5),
            beside_p95=quantile(after, 0.95), ratio_p95=quantile(after, 0.95) / quantile(before, 0.95),
        )  # fmt: skip
    rows.add("the long prompt", seconds=took, profile=reply["longreach"]["profile"])


async def many_clients(url: str, name: str, clients: int, rows: Rows) -> None:
    """Clients that come at once; of every ten, one reads slowly and one goes in the middle."""
    outcomes: Counter[str] = Counter()
    seconds: list[float] = []

    async def client(http: httpx2.AsyncClient, number: int) -> None:
        body, kind = short(name, number), number % 10
        try:
            if kind == 8:
                async with http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as reply:
                    async for _ in reply.aiter_lines():
                        await asyncio.sleep(0.05)
                outcomes["slow, and answered"] += 1
            elif kind == 9:
                async with http.stream("POST", "/v1/chat/completions", json={**body, "max_tokens": 200, "stream": True}) as reply:
                    async for _ in reply.aiter_lines():
                        break
                outcomes["gone"] += 1
            else:
                seconds.append((await timed(http, body))[1])
                outcomes["answered"] += 1
        except RuntimeError as error:
            outcomes[str(error)[:3]] += 1

    limits = httpx2.Limits(max_connections=clients)
    async with httpx2.AsyncClient(base_url=url, timeout=WAITS, limits=limits) as http:
        began = time.perf_counter()
        await asyncio.gather(*(client(http, number) for number in range(clients)))
        took = time.perf_counter() - began
        await settled(http)
    rows.add(
        f"{clients} clients at once", **outcomes, seconds=took, p50=quantile(seconds, 0.5), p95=quantile(seconds, 0.95),
        tokens_a_second=len(seconds) * WRITTEN / took,
    )  # fmt: skip
    one = await alone(url, name)
    rows.add("one client at a time", tokens_a_second=one)


async def alone(url: str, name: str) -> float:
    """Tokens a second of answers that are asked for one after the other."""
    async with httpx2.AsyncClient(base_url=url, timeout=WAITS) as http:
        began = time.perf_counter()
        for number in range(20):
            await timed(http, short(name, 5000 + number))
        return 20 * WRITTEN / (time.perf_counter() - began)


async def together(url: str, name: str, answers: int, tokens: int, rows: Rows) -> None:
    """Tokens a second of answers that are written at once, beside those of the same ones one after the other."""
    async with httpx2.AsyncClient(base_url=url, timeout=WAITS, limits=httpx2.Limits(max_connections=answers)) as http:
        ids = (await http.post("/tokenize", json={"model": name, "prompt": WORDS * tokens})).json()["tokens"]
        common = {"model": name, "max_tokens": ANSWER, "min_tokens": ANSWER, "temperature": 0, "seed": 0}

        async def answer(number: int) -> dict[str, Any]:
            reply = await http.post("/v1/completions", json={**common, "prompt": ids[number : number + tokens]})
            reply.raise_for_status()
            found: dict[str, Any] = reply.json()
            return found

        replies = [await answer(number) for number in range(answers)]  # reads the prompts, which are kept for what is timed
        began = time.perf_counter()
        alone = [(await answer(number))["choices"][0]["text"] for number in range(answers)]
        one = time.perf_counter() - began
        began = time.perf_counter()
        beside = [each["choices"][0]["text"] for each in await asyncio.gather(*map(answer, range(answers)))]
        took = time.perf_counter() - began
    rows.add(
        f"{answers} answers at once behind {tokens} tokens each, {name}", profile=replies[0]["longreach"]["profile"],
        tokens_a_second=answers * ANSWER / took, one_at_a_time=answers * ANSWER / one, ratio=one / took,
        same_answers=sum(map(str.__eq__, alone, beside)),
    )  # fmt: skip


async def settled(http: httpx2.AsyncClient) -> None:
    """Wait until nothing runs. Raises: RuntimeError where something never ends."""
    for _ in range(600):
        text = (await http.get("/metrics")).text
        if "longreach_requests_running 0" in text and "longreach_requests_waiting 0" in text:
            return
        await asyncio.sleep(0.05)
    raise RuntimeError("requests are still running that nobody waits for")


async def memory(url: str, name: str, process: "subprocess.Popen[str]", requests: int, rows: Rows) -> None:
    """Resident memory over many requests; the first fifth fills what is kept of prompts."""
    async with httpx2.AsyncClient(base_url=url, timeout=WAITS) as http:
        found = []
        for number in range(requests):
            reply = await http.post("/v1/chat/completions", json=short(name, number, max_tokens=4))
            reply.raise_for_status()
            if number % (requests // 5) == requests // 5 - 1:
                found.append(round(resident(process), 1))
    rows.add(f"memory over {requests} requests", mib=found, growth_after_the_first_fifth_mib=found[-1] - found[0])


async def malformed(url: str, name: str, count: int, rows: Rows) -> None:
    """Bodies as no client should send them: nothing but refusals, and a server that answers afterwards."""
    statuses: Counter[int] = Counter()
    async with httpx2.AsyncClient(base_url=url, timeout=WAITS) as http:
        began = time.perf_counter()
        for path, content in malformed_bodies(count, model=name, seed=1):
            statuses[(await http.post(path, content=content)).status_code] += 1
        took = time.perf_counter() - began
        after = (await http.post("/v1/chat/completions", json=short(name, 1))).status_code
    rows.add(f"{count} malformed bodies", statuses=dict(sorted(statuses.items())), seconds=took, status_of_a_sound_one_after=after)


def killed(model: str, rows: Rows) -> None:
    """A server that is killed while it answers, and started again."""
    with served(model) as (url, name, process):
        with httpx2.stream("POST", f"{url}/v1/chat/completions", json=short(name, 1, max_tokens=400, stream=True), timeout=WAITS) as reply:
            lines = reply.iter_lines()
            next(lines)
            process.kill()
            try:
                ended = "the end of the answer" if "[DONE]" in "".join(lines) else "the end of the connection"
            except httpx2.HTTPError as error:
                ended = type(error).__name__
        process.wait()
        port = url.rsplit(":", 1)[1]
    began = time.perf_counter()
    with served(model, "--port", port) as (url, name, _):
        reply = httpx2.post(f"{url}/v1/chat/completions", json=short(name, 1), timeout=WAITS)
        took = time.perf_counter() - began
    rows.add("killed in the middle, started at the same port", client_saw=ended, seconds_to_an_answer=took, status=reply.status_code)


def main() -> None:
    """All of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--method", default="yarn:factor=auto")
    parser.add_argument("--long", type=parse_length, default=32768)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--malformed", type=int, default=10_000)
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--prompt", type=parse_length, default=80)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}, together")
    parser.add_argument("--json", type=Path, help="rows are appended to it")
    given = parser.parse_args()
    rows = Rows(given.json)
    parts = given.parts.split(",")
    if strange := set(parts) - {*PARTS, "together"}:
        parser.error(f"--parts: no part is called {', '.join(sorted(strange))}")
    to = ("--to", str(given.long)) if given.method.endswith("auto") or ":" not in given.method else ()
    measures: dict[str, Callable[[str, str, subprocess.Popen[str]], Awaitable[None]]] = {
        "clients": lambda url, name, _: many_clients(url, name, given.clients, rows),
        "malformed": lambda url, name, _: malformed(url, name, given.malformed, rows),
        "memory": lambda url, name, process: memory(url, name, process, given.requests, rows),
    }
    for measure in [measure for part, measure in measures.items() if part in parts]:
        with served(given.model, "--reuse", "8MiB") as (url, name, process):
            asyncio.run(measure(url, name, process))  # type: ignore[arg-type]
    if "killed" in parts:
        killed(given.model, rows)
    if "long" in parts:
        with served(given.model, "--method", given.method, *to) as (url, name, _):
            asyncio.run(beside_a_long_prompt(url, name, given.long, rows))
    if "together" in parts:
        with served(given.model, "--method", given.method, *to) as (url, name, _):
            asyncio.run(together(url, name, given.answers, given.prompt, rows))


if __name__ == "__main__":
    main()
