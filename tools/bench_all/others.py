"""What Holdfast is compared with."""

import collections
import json
import pathlib
import typing

from bench_all.plan import median


class Rival(typing.NamedTuple):
    """The best of the others, in one figure."""
    value: float
    peer: str


class Others:
    """What other brokers, and the bare loop, reached: medians of their runs."""

    def __init__(self, peer_files, bare_file):
        self.runs = collections.defaultdict(list)
        self.bare_rates = collections.defaultdict(list)
        self.failed = 0
        for file in peer_files:
            for run in json_lines(file):
                self.add_peer(run)
        for run in json_lines(bare_file) if bare_file else []:
            if run.get("workload") == "pipe":
                self.bare_rates[run["size"]].append(run["rate"])

    def add_peer(self, run):
        if "error" in run:
            self.failed += 1
            return
        several = run["workload"] == "publish" and (run.get("producers") or 1) > 1
        name = "publish x8" if several else run["workload"]
        self.runs[run["peer"], run.get("durable"), name, run["size"]].append(run)

    def best(self, name, size, figure, durable=True, choose=max):
        """The peer that is best in this figure, a function of a run; None: there is none."""
        rivals = [Rival(value, peer)
                  for (peer, *what), runs in self.runs.items() if what == [durable, name, size]
                  if (value := median(map(figure, runs))) is not None]
        return choose(rivals) if rivals else None

    def bare(self, size):
        return median(self.bare_rates[size])


def json_lines(file):
    runs = []
    for number, line in enumerate(pathlib.Path(file).read_text(encoding="utf-8").splitlines(), 1):
        try:
            if line.strip():
                runs.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}") from None
    return runs
