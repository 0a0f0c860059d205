"""One thread owns the model: it reads prompts in chunks and, between chunks, writes a token of every answer that is under way."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import Cache, PreTrainedTokenizerBase

from longreach.core.errors import InputError, LongreachError
from longreach.decoding.reading import CHUNK, prefill
from longreach.engine.finite import check_finite
from longreach.engine.prompt import prompt_end
from longreach.engine.snapshots import Snapshot, restore, settle, snapshot
from longreach.engine.whole_length import whole_length
from longreach.serving.batches import RowBatch, can_stand_side_by_side, grouped, own_tensors
from longreach.serving.job import LATE, Job, JobFailed, PromptRead, ReadingMoved, ServerBusyError, ServerClosingError, ServerFullError
from longreach.serving.metrics import Metrics
from longreach.serving.prefixes import PrefixStore
from longreach.serving.profiles import Profile
from longreach.serving.texts import OpenText
from longreach.serving.turns import ReadingTurns

_PATIENCE = 64  # steps for which others may pass a job that there is no room for
_LOG = logging.getLogger(__name__)


class Scheduler:
    """Answers jobs, many at a time. `step` does one round; `start` runs rounds in a thread of its own.

    A round reads one chunk of the prompt that has the least left to be read (one that has waited long counts as shorter), and whole prompts
    besides that fit into what is left of the chunk; then it writes one token of every answer. So a short request never waits for a long
    prompt, and a long one is never passed without end (`ReadingTurns`). Answers are written side by side where their caches allow
    (`RowBatch`).

    Args: profiles: that jobs are under. tokenizer: used in the thread alone. chunk_size: tokens of prompts that are read in a round.
    most_tokens: that all caches together may come to hold. most_running: jobs that are read and written at a time. most_waiting: jobs that
    wait besides. reuse_bytes: of what is kept of prompts for those that begin alike.
    """

    def __init__(
        self,
        profiles: Sequence[Profile],
        tokenizer: PreTrainedTokenizerBase,
        *,
        chunk_size: int = CHUNK,
        most_tokens: int = 1 << 16,
        most_running: int = 32,
        most_waiting: int = 256,
        reuse_bytes: int = 0,
        metrics: Metrics | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.chunk_size, self.most_tokens, self.most_running, self.most_waiting = chunk_size, most_tokens, most_running, most_waiting
        self.metrics = Metrics() if metrics is None else metrics
        self.prefixes = PrefixStore(reuse_bytes)
        self.steps = 0
        self._tokenizer, self._now = tokenizer, now
        self._side_by_side = {profile: can_stand_side_by_side(profile) for profile in profiles}
        self._news = threading.Condition()
        self._waiting: list[tuple[Job, int]] = []  # with the step in which each came
        self._closing = self._stopped = False
        self._running: dict[Job, list[OpenText]] = {}
        self._batches: list[RowBatch] = []
        self._thread: threading.Thread | None = None
        self._turns = ReadingTurns(chunk_size)

    @property
    def running(self) -> int:
        """Jobs that are read or written."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Jobs that are not begun."""
        return len(self._waiting)

    @property
    def tokens(self) -> int:
        """Tokens that caches may come to hold of jobs that are begun."""
        return sum(job.tokens for job in list(self._running))  # a copy, for other threads ask, too

    @property
    def closing(self) -> bool:
        """Whether nothing is begun any more."""
        return self._closing

    def submit(self, job: Job) -> None:
        """Have a job done, from any thread.

        Raises: InputError for one that no waiting makes room for; ServerFullError; ServerClosingError.
        """
        if job.tokens > self.most_tokens:
            raise InputError(
                f"this request may need {job.tokens} tokens of cache, and this server has {self.most_tokens} for all requests together "
                "(--max-tokens-in-flight); ask for fewer tokens or choices"
            )
        with self._news:
            if self._closing:
                raise ServerClosingError("the server is closing")
            if len(self._waiting) >= self.most_waiting:
                raise ServerFullError(f"{len(self._waiting)} requests wait already, and no more may (--max-waiting); try again later")
            job.sink(ReadingMoved(stage="waiting", done=0, total=len(job.ids)))
            self._waiting.append((job, self.steps))
            self._news.notify_all()

    def start(self) -> None:
        """Run rounds in a thread of its own until `stop`."""
        self._thread = threading.Thread(target=self._run, name="longreach-scheduler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Begin nothing any more: what waits fails, what is under way goes on."""
        with self._news:
            self._closing = True
            waiting, self._waiting = self._waiting, []
            self._news.notify_all()
        for job, _ in waiting:
            job.sink(JobFailed(error=ServerClosingError("the server is closing")))

    def stop(self) -> None:
        """End everything now, and the thread with it."""
        self.close()
        with self._news:
            self._stopped = True
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._fail(list(self._running), ServerClosingError("the server is closing"))
        self.prefixes.clear()

    def step(self) -> bool:
        """One round. Returns: whether there was anything to do."""
        began = time.perf_counter()
        self.steps += 1
        self._drop_what_nobody_waits_for()
        self._admit()
        worked = self._read()
        self._group()
        worked = self._write() or worked
        if worked:
            self.metrics.step(time.perf_counter() - began)
        return worked

    def _run(self) -> None:
        while True:
            with self._news:
                while not (self._stopped or self._waiting or self._running):
                    self._news.wait()
                if self._stopped:
                    return
            self.step()

    def _drop_what_nobody_waits_for(self) -> None:
        with self._news:
            gone = [job for job, _ in self._waiting if self._over(job)]
            self._waiting = [(job, came) for job, came in self._waiting if job not in gone]
        late = ServerBusyError(LATE)
        for job in gone:
            if not job.cancelled:
                job.sink(JobFailed(error=late))
        for job in [job for job in self._running if self._over(job)]:
            if job.cancelled:
                self._end(job)
            else:
                self._fail([job], late)

    def _over(self, job: Job) -> bool:
        return job.cancelled or (job.deadline is not None and self._now() > job.deadline)

    def _admit(self) -> None:
        """Begin jobs that there is room for, the shortest first. One that has waited long is passed by none."""
        with self._news:
            ordered = sorted(self._waiting, key=lambda each: self._turns.rank(len(each[0].ids), self.steps - each[1]))
        room = self.most_tokens - self.tokens
        begun = []
        for job, came in ordered:
            if len(self._running) == self.most_running:
                break
            if job.tokens <= room:
                room -= job.tokens
                begun.append(job)
                self._running[job] = []
            elif self.steps - came > _PATIENCE:
                break
        with self._news:
            self._waiting = [each for each in self._waiting if each[0] not in begun]
        for job, came in ordered:
            if job in begun:
                self._for([job], partial(self._open, job, came))

    def _open(self, job: Job, since: int) -> None:
        text = OpenText(job, 0, self._tokenizer, since)
        text.reused, text.cache = self.prefixes.find(job.profile, text.alike, job.ids)
        if job.begun is not None and job.begun.tokens > text.reused:
            text.reused, text.cache = job.begun.tokens, job.profile.empty()
            restore(text.cache, job.begun)
        text.read = text.reused
        self._running[job].append(text)

    def _texts(self) -> list[OpenText]:
        return [text for texts in self._running.values() for text in texts]

    def _read(self) -> bool:
        """Read a part of one prompt, and other prompts that the rest of the chunk holds whole."""
        texts = self._texts()
        reading = sorted((text for text in texts if text.left), key=lambda text: self._turns.rank(text.left, self.steps - text.since))
        writing = any(text.writes for text in texts)
        room = self.chunk_size
        for place, text in enumerate(reading):
            count = self._turns.most(text, room=room, first=not place, writing=writing)
            if not count:
                continue
            began = self._now()
            self._for([text.job], partial(self._read_some, text, count))
            self._turns.read(text, count, self._now() - began)
            room -= count
        return bool(reading)

    def _read_some(self, text: OpenText, count: int) -> None:
        job, model, cache = text.job, text.job.profile.model, text.cache
        assert cache is not None  # noqa: S101 - a batch holds none that is being read
        ids = torch.tensor([job.ids[text.read : text.read + count]], device=model.device)
        with whole_length(model, text.whole), prompt_end(len(job.ids)):
            logits = prefill(model, ids, cache=cache, chunk_size=count)
        text.read += count
        self.metrics.read(count)
        if text.left:
            job.sink(ReadingMoved(stage="reading", done=text.read, total=len(job.ids)))
            return
        if not text.choice:
            self.metrics.reused(text.reused)
            job.sink(PromptRead(reused=text.reused))
        taken = self._kept(text)
        self._take(text, logits)
        if not text.choice:
            self._other_choices(text, taken, logits)
        self._end_what_has_ended(job)

    def _kept(self, text: OpenText) -> Snapshot | None:
        """What the cache holds at the end of the prompt, where it is worth something: kept for prompts that begin with this one."""
        profile, cache = text.job.profile, text.cache
        if cache is None or not profile.restores or not (self._keeps(profile) or text.job.choices > 1):
            return None
        if not profile.crops:
            settle(cache)
        taken = snapshot(cache)
        self.prefixes.keep(profile, text.alike, text.job.ids, taken)
        return taken

    def _other_choices(self, text: OpenText, taken: Snapshot | None, logits: Tensor) -> None:
        """The further choices of a job begin where its prompt ends; where that cannot be put back, each reads for itself."""
        job = text.job
        for choice in range(1, job.choices):
            other = OpenText(job, choice, self._tokenizer, text.since)
            other.cache = job.profile.empty()
            self._running[job].append(other)
            if taken is not None:
                restore(other.cache, taken)
                other.read = len(job.ids)
                self._take(other, logits)

    def _group(self) -> None:
        """Put answers side by side that may stand so, and take those apart that no longer do."""
        texts = [text for text in self._texts() if text.writes and self._side_by_side[text.job.profile]]
        groups = [group for group in grouped(texts) if len(group) > 1]
        staying = [batch for batch in self._batches if batch.texts in groups]
        for batch in [batch for batch in self._batches if batch not in staying]:
            self._dissolve(batch)
        for group in groups:
            if not any(batch.texts == group for batch in staying):
                self._for(_jobs(group), partial(self._join, group))

    def _join(self, group: Sequence[OpenText]) -> None:
        self._batches.append(RowBatch(group))

    def _dissolve(self, batch: RowBatch) -> None:
        self._batches.remove(batch)
        batch.give_back()

    def _write(self) -> bool:
        """One token more of every answer."""
        began = self._now()
        batches = list(self._batches)
        alone = [text for text in self._texts() if text.writes and text.cache is not None]
        for batch in batches:
            if batch in self._batches:  # not where one of its jobs failed in another batch
                self._for(_jobs(batch.texts), partial(self._write_batch, batch))
        for text in alone:
            self._for([text.job], partial(self._write_one, text))
        self._turns.wrote(self._now() - began)
        return bool(alone or batches)

    def _write_one(self, text: OpenText) -> None:
        model, cache = text.job.profile.model, text.cache
        assert cache is not None  # noqa: S101 - only those that are in no batch come here
        token = torch.tensor([[text.written[-1]]], device=model.device)
        with whole_length(model, text.whole):
            logits = prefill(model, token, cache=cache)
        text.fed += 1
        self._take(text, logits)
        self._end_what_has_ended(text.job)

    def _write_batch(self, batch: RowBatch) -> None:
        logits = batch.step()
        for row, text in enumerate(batch.texts):
            self._for([text.job], partial(self._take, text, logits[row : row + 1]))
        if any(text.ended for text in batch.texts) and batch in self._batches:
            self._dissolve(batch)
        for job in _jobs(batch.texts):
            self._end_what_has_ended(job)

    def _take(self, text: OpenText, logits: Tensor) -> None:
        before = len(text.written)
        text.take(check_finite(logits, text.job.profile.model, _nothing, whole=False))
        self.metrics.wrote(len(text.written) - before)

    def _end_what_has_ended(self, job: Job) -> None:
        texts = self._running.get(job, [])
        for text in texts:
            if text.ended and text.cache is not None:
                self._keep_whole(text, text.cache)
                text.cache = None
        if texts and all(text.ended for text in texts):
            self._end(job)

    def _keeps(self, profile: Profile) -> bool:
        return profile.reuses and self.prefixes.most_bytes > 0

    def _keep_whole(self, text: OpenText, cache: Cache) -> None:
        """Keep prompt and answer, where a cache can be cut back to the part that a later prompt begins with."""
        profile = text.job.profile
        if profile.crops and self._keeps(profile):
            if profile.stacks:
                own_tensors(cache)
            self.prefixes.keep(profile, text.alike, text.ids, snapshot(cache))

    def _end(self, job: Job) -> None:
        """Let go of a job and of its caches."""
        texts = self._running.pop(job, [])
        for batch in [batch for batch in self._batches if job in _jobs(batch.texts)]:
            self._dissolve(batch)
        for text in texts:
            text.cache = None

    def _fail(self, jobs: Iterable[Job], error: Exception) -> None:
        for job in list(jobs):
            self._end(job)
            job.sink(JobFailed(error=error))

    def _for(self, jobs: Iterable[Job], work: Callable[[], None]) -> None:
        """Do work for jobs; where it fails, they do, and all others go on."""
        jobs = [job for job in jobs if job in self._running]
        if not jobs:
            return
        try:
            work()
        except torch.OutOfMemoryError:
            self.prefixes.clear()
            short = LongreachError("the device's memory is too small for this request beside the others; try again later")
            self._fail(jobs, short)
        except LongreachError as error:
            self._fail(jobs, error)
        except Exception as error:  # noqa: BLE001 - an error that one request meets must not end the others
            _LOG.exception("a request failed")
            self._fail(jobs, error)


def _jobs(texts: Iterable[OpenText]) -> list[Job]:
    return list(dict.fromkeys(text.job for text in texts))


def _nothing() -> None:
    """Where logits stop being finite is not looked for: that takes another pass, and others wait."""
