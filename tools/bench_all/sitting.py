"""All that is measured in one sitting: in rounds, or once in a broker of its own."""

import collections
import functools
import math
import os
import random
import shutil
import statistics
import sys
import typing

from bench_all.connections import open_connection, raised_descriptor_limit, recorded_hello
from bench_all.plan import median, rate
from bench_all.processes import Broker, Failed, MemoryWatch, anonymous_bytes

GIGABYTE = 1_000_000_000
FILL_LINES = 10_000_000
FILL_LINE_BYTES = 100
IDS_ASKED = 1_000
LARGE_MESSAGES = 1_250_000
LARGE_MESSAGE_BYTES = 16384
LARGE_FREE_MIN = 30 * GIGABYTE
DISK_LINES = 1_000_000
DISK_LINE_BYTES = 1024
DISK_PIPE_SECONDS = 20
CONNECTIONS = 10_000
SPARE_DESCRIPTORS = 200


class Filled(typing.NamedTuple):
    """What ten million messages cost, and a broker that starts with them."""
    memory: int
    asked: int
    known: int  # of those asked for again: answered as duplicates with their first sequence
    cut_short: int
    start_seconds: float


class Sitting:
    """All that is measured, and where."""

    def __init__(self, plan, tool, others, directory, rounds):
        self.plan = plan
        self.tool = tool
        self.others = others
        self.directory = directory
        self.rounds = rounds
        self.runs = collections.defaultdict(list)
        self.failed = set()

    # ---- in rounds ----

    def make_rounds(self, measures):
        for number in range(1, self.rounds + 1):
            for measure in measures:
                tell(f"round {number} of {self.rounds}: {measure}")
                try:
                    self.runs[measure].append(run := self.tool.bench(measure))
                    tell(f"    {run['rate']:,.0f}/s")
                except Failed as failure:
                    self.failed.add(measure)
                    tell(f"    FAILED: {failure}")

    def figure(self, measure, of_run=rate):
        """The median over the rounds. What failed once has none: nan, which reaches nothing."""
        value = None if measure in self.failed else median(map(of_run, self.runs[measure]))
        return math.nan if value is None else value

    # ---- once ----

    def new_broker(self, name, *options):
        os.sync()
        return Broker(self.tool.broker_binary, self.directory / name, *options)

    def remove(self, name):
        shutil.rmtree(self.directory / name, ignore_errors=True)

    @functools.cached_property
    def filled(self):
        lines = self.plan.count(FILL_LINES)
        tell(f"filling a queue with {lines:,} messages of {FILL_LINE_BYTES} B")
        try:
            with self.new_broker("filled") as broker:
                with MemoryWatch(broker.pid) as memory:
                    self.tool.fill(broker, "filled", lines, FILL_LINE_BYTES)
                    numbers = sampled_numbers(lines, self.plan.count(IDS_ASKED))
                    tell(f"asking for {len(numbers):,} of its ids again")
                    unknown = [number for number in numbers
                               if not self.is_known(broker, "filled", number)]
                    if unknown:
                        tell(f"{len(unknown):,} were not known, for example {unknown[:5]}")
                report = self.tool.ask(broker, "queue", "show", "filled")
            starts = []
            for _ in range(self.rounds):
                # Leaving the `with` is a SIGKILL, that before this one, too.
                drop_from_cache(self.directory / "filled")
                with self.new_broker("filled") as broker:
                    starts.append(broker.start_seconds)
        finally:
            self.remove("filled")
        return Filled(memory.largest, len(numbers), len(numbers) - len(unknown),
                      report["dedup_cut_short"], statistics.median(starts))

    def is_known(self, broker, queue, number):
        receipt = self.tool.ask(broker, "message", "send", queue, "again", "--id",
                                f"{queue}-{number}")
        return receipt["duplicate"] and receipt["sequence"] == number

    def large_fill_memory(self):
        """The largest RssAnon while 20 GB are published; None: the disk has no room for them."""
        if shutil.disk_usage(self.directory).free < self.plan.count(LARGE_FREE_MIN):
            return None
        measure = self.plan.measure("publish", LARGE_MESSAGE_BYTES,
                                    count=self.plan.count(LARGE_MESSAGES))
        tell(str(measure))
        try:
            with self.new_broker("large") as broker, MemoryWatch(broker.pid) as memory:
                self.tool.bench(measure, broker, "memory")
        finally:
            self.remove("large")
        return memory.largest

    def disk_use(self):
        """Bytes of the store in use, of its file, and of the messages in a standing backlog."""
        lines = self.plan.count(DISK_LINES)
        measure = self.plan.measure("pipe", 1024, count=0,
                                    seconds=self.plan.seconds(DISK_PIPE_SECONDS))
        try:
            with self.new_broker("disk") as broker:
                tell(f"filling a queue with {lines:,} messages of {DISK_LINE_BYTES} B")
                self.tool.fill(broker, "standing", lines, DISK_LINE_BYTES)
                tell(f"{measure}, beside it")
                self.tool.bench(measure, broker, "disk")
                status = self.tool.ask(broker, "status")
                report = self.tool.ask(broker, "queue", "show", "standing")
        finally:
            self.remove("disk")
        return status["store_bytes"], status["store_file_bytes"], report["bytes"]

    def idle_connections_memory(self):
        """RssAnon of a broker before and with so many idle connections; None: too few files."""
        count = self.plan.count(CONNECTIONS)
        if raised_descriptor_limit() < count + SPARE_DESCRIPTORS:
            return None
        tell(f"opening {count:,} connections")
        config = self.directory / "connections.toml"
        config.write_text(f"[limits]\nconnections_max = {count + SPARE_DESCRIPTORS}\n",
                          encoding="utf-8")
        hello = recorded_hello(self.tool.binary)
        idle = []
        try:
            with self.new_broker("connections", "--config", str(config)) as broker:
                before = anonymous_bytes(broker.pid)
                for _ in range(count):
                    idle.append(open_connection(broker.address, hello))
                memory = anonymous_bytes(broker.pid)
                there = self.tool.ask(broker, "status")["connections"]
        finally:
            for connection in idle:
                connection.close()
            self.remove("connections")
        if there < count:
            raise Failed(f"of {count:,} connections {there:,} were left")
        return before, memory


def sampled_numbers(lines, samples):
    """The first line, the last one, and lines from anywhere between."""
    return [1, lines, *random.sample(range(2, lines), samples)]


def drop_from_cache(directory):
    """As after a loss of power: what is in the files must come from the disk."""
    os.sync()
    for path in directory.rglob("*"):
        if not path.is_file():
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def tell(text):
    print(text, file=sys.stderr, flush=True)
