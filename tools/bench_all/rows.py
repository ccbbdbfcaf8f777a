"""What is to be reached, row by row, and whether it is."""

import collections
import math
import operator
import typing

from bench_all.plan import (BACKLOG_LARGE, BACKLOG_SMALL, BACKLOG_WORKLOADS, CPU_WORKLOADS,
                            FAN_SIZES, QUEUES, SIZES, THROUGHPUTS, cpu_us, rate, sync_flushes)
from bench_all.processes import Failed
from bench_all.sitting import (CONNECTIONS, DISK_LINES, FILL_LINE_BYTES, FILL_LINES, GIGABYTE,
                               LARGE_MESSAGE_BYTES, LARGE_MESSAGES)

MEGABYTE = 1_000_000
# Beside "ahead of the peers".
PIPE_TIMES_DURABLE_MIN = 5
PIPE_SIZES_FAR_AHEAD = (100, 1024)
BARE_SHARE_MIN = {100: 0.5, 1024: 0.6, 16384: 0.8}
SYNC_FLUSHES_MAX = 1.3
FAN_TIMES_SYNC_MIN = 20
BACKLOG_SHARE_MIN = 0.8
QUEUES_SHARE_MIN = 0.5
MEMORY_MAX = 150 * MEGABYTE
DISK_RATIO_MAX = 1.3
START_MAX_SECONDS = 1


class Line(typing.NamedTuple):
    """One thing that is to be reached."""
    what: str
    wanted: str
    reached: str
    good: typing.Optional[bool]  # None: there is nothing to compare with


def holds(figure, relation, bound):
    """None: there is no bound to compare with. What failed (nan) reaches nothing."""
    if math.isnan(figure):
        return False
    return None if bound is None else relation(figure, bound)


def per_second(value):
    return f"{value:,.0f}/s"


def microseconds(value):
    return f"{value:,.1f} us"


def megabytes(value):
    return f"{value / MEGABYTE:,.0f} MB"


def peers_row(sitting):
    for name in THROUGHPUTS:
        for size, size_text in SIZES.items():
            own = sitting.figure(sitting.plan.throughput(name, size))
            for durable, kind in ((True, "durable"), (False, "not durable")):
                rival = sitting.others.best(name, size, rate, durable)
                yield rivalry(f"{name}, {size_text}, {kind}", own, operator.gt, rival, per_second)
            if name == "pipe" and size in PIPE_SIZES_FAR_AHEAD:
                yield far_ahead(sitting, own, size)


def rivalry(what, own, relation, rival, text):
    """A figure that is to be above, or below, that of the best peer."""
    wanted = "above" if relation is operator.gt else "below"
    wanted += f" {text(rival.value)} ({rival.peer})" if rival else " every peer"
    reached = text(own) + (f" ({own / rival.value:.2f} times)" if rival else "")
    return Line(what, wanted, reached, holds(own, relation, rival and rival.value))


def far_ahead(sitting, own, size):
    rival = sitting.others.best("pipe", size, rate)
    wanted = f"at least {PIPE_TIMES_DURABLE_MIN} times "
    wanted += f"{per_second(rival.value)} ({rival.peer})" if rival else "the best durable peer"
    reached = f"{own / rival.value:.2f} times" if rival else per_second(own)
    return Line(f"pipe, {SIZES[size]}, far ahead", wanted, reached,
                holds(own, operator.ge, rival and PIPE_TIMES_DURABLE_MIN * rival.value))


def bare_row(sitting):
    for size, share in BARE_SHARE_MIN.items():
        own = sitting.figure(sitting.plan.throughput("pipe", size))
        bare = sitting.others.bare(size)
        reached = f"{own / bare:.2f} ({per_second(own)})" if bare else per_second(own)
        wanted = f"at least {share:.2f} of the bare loop's {per_second(bare) if bare else 'rate'}"
        yield Line(f"pipe, {SIZES[size]}", wanted, reached,
                   holds(own, operator.ge, bare and share * bare))


def sync_row(sitting):
    measure = sitting.plan.sync(100)
    own = sitting.figure(measure, sync_flushes)
    latency, append, pair = (sitting.figure(measure, operator.itemgetter(key)) for key in
                             ("lat_p50_us", "fsync_p50_us", "fsync_pair_p50_us"))
    yield Line("sync, 100 B, median latency",
               f"at most {SYNC_FLUSHES_MAX:.2f} of two flushed appends, {microseconds(2 * append)}",
               f"{own:.2f} ({microseconds(latency)}; {latency / pair:.2f} of two overwrites)",
               holds(own, operator.le, SYNC_FLUSHES_MAX))


def fan_row(sitting):
    for size in FAN_SIZES:
        sync = sitting.figure(sitting.plan.sync(size))
        fan = sitting.figure(sitting.plan.throughput("fan", size))
        yield Line(f"fan, {SIZES[size]}",
                   f"at least {FAN_TIMES_SYNC_MIN} times sync, {per_second(sync)}",
                   f"{fan / sync:.1f} times ({per_second(fan)})",
                   holds(fan / sync, operator.ge, FAN_TIMES_SYNC_MIN))


def paced_row(sitting):
    for key, name in (("lat_p50_us", "p50"), ("lat_p99_us", "p99")):
        latency = operator.itemgetter(key)
        own = sitting.figure(sitting.plan.paced(), latency)
        rival = sitting.others.best("paced", 1024, latency, choose=min)
        yield rivalry(f"paced, 1 KiB, {name}", own, operator.lt, rival, microseconds)


def backlog_row(sitting):
    for workload in BACKLOG_WORKLOADS:
        small, large = (sitting.figure(sitting.plan.backlog(workload, messages))
                        for messages in (BACKLOG_SMALL, BACKLOG_LARGE))
        yield Line(f"{workload}, 100 B, backlog of {sitting.plan.count(BACKLOG_LARGE):,}",
                   f"at least {BACKLOG_SHARE_MIN:.2f} of {per_second(small)} with "
                   f"{sitting.plan.count(BACKLOG_SMALL):,}",
                   f"{large / small:.2f} ({per_second(large)})",
                   holds(large / small, operator.ge, BACKLOG_SHARE_MIN))


def queues_row(sitting):
    one, pipe_one = (sitting.figure(sitting.plan.throughput(workload, 100))
                     for workload in ("publish", "pipe"))
    many, pipe_many = (sitting.figure(sitting.plan.queues(workload))
                       for workload in ("publish", "pipe"))
    yield Line(f"publish, 100 B, {sitting.plan.count(QUEUES):,} queues",
               f"at least {QUEUES_SHARE_MIN:.2f} of {per_second(one)} with one",
               f"{many / one:.2f} ({per_second(many)}; pipe {pipe_many / pipe_one:.2f})",
               holds(many / one, operator.ge, QUEUES_SHARE_MIN))


def memory_row(sitting):
    filled = sitting.filled
    lines = sitting.plan.count(FILL_LINES)
    wanted = f"under {megabytes(MEMORY_MAX)}"
    yield Line(f"{lines:,} messages of {FILL_LINE_BYTES} B", wanted, megabytes(filled.memory),
               holds(filled.memory, operator.lt, MEMORY_MAX))
    yield Line("their ids, published again", f"{filled.asked:,} duplicates", f"{filled.known:,}",
               holds(filled.known, operator.ge, filled.asked))
    yield Line("their ids, forgotten too early", "0", f"{filled.cut_short:,}",
               holds(filled.cut_short, operator.le, 0))
    memory = sitting.large_fill_memory()
    gigabytes = sitting.plan.count(LARGE_MESSAGES) * LARGE_MESSAGE_BYTES / GIGABYTE
    what = f"{gigabytes:.0f} GB in messages of {SIZES[LARGE_MESSAGE_BYTES]}"
    if memory is None:
        yield Line(what, wanted, "not enough disk", None)
    else:
        yield Line(what, wanted, megabytes(memory), holds(memory, operator.lt, MEMORY_MAX))


def disk_row(sitting):
    used, file, live = sitting.disk_use()
    yield Line(f"{sitting.plan.count(DISK_LINES):,} messages of 1 KiB, after pipe",
               f"at most {DISK_RATIO_MAX:.2f} of their {megabytes(live)}",
               f"{used / live:.2f} ({megabytes(used)}, file {megabytes(file)})",
               holds(used / live, operator.le, DISK_RATIO_MAX))


def start_row(sitting):
    seconds = sitting.filled.start_seconds
    yield Line(f"{sitting.plan.count(FILL_LINES):,} messages, after SIGKILL, from the disk",
               f"ready in under {START_MAX_SECONDS} s", f"{seconds:.3f} s",
               holds(seconds, operator.lt, START_MAX_SECONDS))


def connections_row(sitting):
    count = sitting.plan.count(CONNECTIONS)
    what, wanted = f"{count:,} idle connections", f"under {megabytes(MEMORY_MAX)}"
    memory = sitting.idle_connections_memory()
    if memory is None:
        yield Line(what, wanted, "too few open files allowed", None)
        return
    before, then = memory
    yield Line(what, wanted, f"{megabytes(then)} ({(then - before) / count:,.0f} B each)",
               holds(then, operator.lt, MEMORY_MAX))


def cpu_row(sitting):
    for name in CPU_WORKLOADS:
        for size, size_text in SIZES.items():
            own = sitting.figure(sitting.plan.throughput(name, size), cpu_us)
            rival = sitting.others.best(name, size, cpu_us, choose=min)
            yield rivalry(f"{name}, {size_text}, time of a message", own, operator.lt, rival,
                          lambda value: f"{value:.2f} us")


ROWS = {"peers": peers_row, "bare": bare_row, "sync": sync_row, "fan": fan_row,
        "paced": paced_row, "backlog": backlog_row, "queues": queues_row, "memory": memory_row,
        "disk": disk_row, "start": start_row, "connections": connections_row, "cpu": cpu_row}


def lines_of(row, sitting):
    try:
        yield from ROWS[row](sitting)
    except Failed as failure:
        yield Line("all of it", "figures", f"it failed: {failure}", False)


def judge(rows, sitting):
    """Prints every line of the rows; returns how many are reached, fall short, are not compared."""
    verdicts = collections.Counter()
    for row in rows:
        for line in lines_of(row, sitting):
            verdict = {True: "ok", False: "FALLS SHORT", None: "not compared"}[line.good]
            verdicts[verdict] += 1
            print(f"{verdict:<13} {row:<12} {line.what:<42} {line.wanted:<50} {line.reached}",
                  flush=True)
    return verdicts["ok"], verdicts["FALLS SHORT"], verdicts["not compared"]
