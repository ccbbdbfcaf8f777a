"""Which runs of the bench each row needs, and the figures of a run."""

import statistics
import typing

SIZES = {100: "100 B", 1024: "1 KiB", 16384: "16 KiB"}
COUNTS = {100: 400_000, 1024: 200_000, 16384: 40_000}
THROUGHPUTS = ("publish", "publish x8", "drain", "pipe", "fan")
CPU_WORKLOADS = ("publish", "drain", "pipe", "fan")
FAN_SIZES = (100, 1024)
BACKLOG_WORKLOADS = ("publish", "drain")
BACKLOG_SMALL = 10_000
BACKLOG_LARGE = 10_000_000
QUEUES = 10_000


class Measure(typing.NamedTuple):
    """One run of the bench, made once in each round."""
    workload: str
    options: tuple

    def __str__(self):
        return " ".join((self.workload, *self.options))


class Plan:
    """The runs and the counts of all rows, at their full size or at a tenth of it."""

    def __init__(self, quick):
        self.divisor = 10 if quick else 1

    def count(self, number):
        return number // self.divisor

    def seconds(self, number):
        return number / self.divisor

    def measure(self, workload, size, **options):
        words = [f"--{name}={value:g}" if isinstance(value, float) else f"--{name}={value}"
                 for name, value in options.items()]
        return Measure(workload, (f"--size={size}", *words))

    def throughput(self, name, size):
        if name == "fan":
            return self.measure("fan", size, seconds=self.seconds(3))
        bounds = {"count": self.count(COUNTS[size]), "seconds": 5}
        if name == "publish x8":
            return self.measure("publish", size, producers=8, window=128, **bounds)
        return self.measure(name, size, **bounds)

    def sync(self, size):
        return self.measure("sync", size, count=0, seconds=self.seconds(3))

    def paced(self):
        return self.measure("paced", 1024, rate=1000, seconds=self.seconds(5))

    def backlog(self, workload, messages):
        return self.measure(workload, 100, backlog=self.count(messages), count=self.count(200_000))

    def queues(self, workload):
        return self.measure(workload, 100, queues=self.count(QUEUES), active=64,
                            count=self.count(640_000))

    def of_row(self, row):
        """The runs that a row needs."""
        if row == "peers":
            return [self.throughput(name, size) for size in SIZES for name in THROUGHPUTS]
        if row == "bare":
            return [self.throughput("pipe", size) for size in SIZES]
        if row == "sync":
            return [self.sync(100)]
        if row == "fan":
            return [run for size in FAN_SIZES
                    for run in (self.sync(size), self.throughput("fan", size))]
        if row == "paced":
            return [self.paced()]
        if row == "backlog":
            return [self.backlog(workload, messages) for workload in BACKLOG_WORKLOADS
                    for messages in (BACKLOG_SMALL, BACKLOG_LARGE)]
        if row == "queues":
            return [run for workload in ("publish", "pipe")
                    for run in (self.throughput(workload, 100), self.queues(workload))]
        if row == "cpu":
            return [self.throughput(name, size) for size in SIZES for name in CPU_WORKLOADS]
        return []

    def of_rows(self, rows):
        """Those of all these rows, each once."""
        return list(dict.fromkeys(run for row in rows for run in self.of_row(row)))


def rate(run):
    return run["rate"]


def cpu_us(run):
    """Processor time of the broker for one message; None: it was not measured."""
    seconds, count = run.get("server_cpu_s"), run.get("count")
    return None if seconds is None or not count else seconds * 1e6 / count


def sync_flushes(run):
    """Median latency in pairs of flushed appends of 4 KiB."""
    return run["lat_p50_us"] / (2 * run["fsync_p50_us"])


def median(values):
    """Of the values that are there; None: of none."""
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None
