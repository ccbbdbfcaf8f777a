#!/usr/bin/env python3
"""Runs tools/bench-all with a tool that does as it is told here, and looks at its verdicts.

Usage: bench_all_test.py BENCH_ALL

The last line is "N passed, N failed".
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from cli_harness import CHECK, end, run_all, tests_of

# Runs as `holdfast bench` prints them, whatever the workload.
TOOL = """#!/bin/bash
echo '{"workload":"'"$3"'","rate":1000,"count":100,"server_cpu_s":0.001,"lat_p50_us":261,
  "lat_p99_us":400,"fsync_p50_us":100,"fsync_pair_p50_us":180}' | tr -d '\\n'
"""
FAILS = "#!/bin/bash\necho 'no disk' >&2\nexit 70\n"


def peer(name, workload, **figures):
    return {"peer": name, "durable": True, "workload": workload, "size": 1024, "producers": 1,
            **figures}


class Trial:
    def __init__(self, bench_all, directory):
        self.bench_all = bench_all
        self.directory = pathlib.Path(directory)

    def script(self, name, text):
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def file(self, name, *lines):
        path = self.directory / name
        path.write_text("".join(line + "\n" for line in lines))
        return str(path)

    def run(self, *arguments, tool=TOOL):
        """The exit code and what was said."""
        stand_in = self.script("holdfast", tool)
        done = subprocess.run(
            [self.bench_all, "--rounds", "2", "--dir", str(self.directory), "--broker", stand_in,
             "--tool", stand_in, *arguments],
            capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr


def test_what_is_reached_and_what_falls_short(trial):
    code, said, _ = trial.run("sync")
    CHECK.that(code == 1 and "FALLS SHORT   sync " in said and "1.30 (261.0 us;" in said, said)
    CHECK.that(said.endswith("0 reached, 1 fall short, 0 not compared\n"), said)
    code, said, _ = trial.run("sync", tool=TOOL.replace('"lat_p50_us":261', '"lat_p50_us":260'))
    CHECK.that(code == 0 and said.startswith("ok ") and said.endswith("1 reached, 0 fall short, 0 not compared\n"),
          said)


def test_without_peers_nothing_is_compared_with_them(trial):
    code, said, _ = trial.run("paced")
    CHECK.that(code == 0 and said.endswith("0 reached, 0 fall short, 2 not compared\n"), said)


def test_the_best_durable_peer_is_compared_with(trial):
    peers = trial.file("peers",
                       *map(json.dumps, [peer("slow", "paced", lat_p50_us=900, lat_p99_us=401),
                                         peer("quick", "paced", lat_p50_us=250, lat_p99_us=500),
                                         {**peer("unsafe", "paced", lat_p50_us=1, lat_p99_us=1),
                                          "durable": False},
                                         {"error": "it died"}]))
    code, said, _ = trial.run("--peers", peers, "paced")
    CHECK.that(code == 1, said)
    CHECK.that("FALLS SHORT   paced        paced, 1 KiB, p50" in said and "250.0 us (quick)" in said, said)
    CHECK.that("ok            paced        paced, 1 KiB, p99" in said and "401.0 us (slow)" in said, said)
    CHECK.that("left out: 1." in said and said.endswith("1 reached, 1 fall short, 0 not compared\n"), said)


def test_what_failed_reaches_nothing(trial):
    code, said, errors = trial.run("paced", "fan", tool=FAILS)
    CHECK.that(code == 1 and "no disk" in errors, errors)
    CHECK.that(said.endswith("0 reached, 4 fall short, 0 not compared\n"), said)


def test_what_is_wrong_is_told(trial):
    wrong = trial.file("wrong", "{}", "{")
    code, _, errors = trial.run("--peers", wrong, "paced")
    CHECK.that(code == 1 and f"{wrong}, line 2: " in errors, errors)
    code, _, errors = trial.run("speed")
    CHECK.that(code == 2 and "there is no row speed" in errors, errors)
    code, _, errors = trial.run("--rounds", "0", "sync")
    CHECK.that(code == 2 and "--rounds must be at least 1" in errors, errors)


def in_a_directory(test):
    def run(bench_all):
        with tempfile.TemporaryDirectory(prefix="holdfast-bench-all-") as directory:
            test(Trial(bench_all, directory))
            left = sorted(path.name for path in pathlib.Path(directory).iterdir() if path.is_dir())
            CHECK.that(not left, f"{test.__name__} leaves {left}")
    return run


def main():
    if len(sys.argv) != 2:
        print(__doc__.split("\n\n")[1])
        return 64
    run_all([(name, in_a_directory(test)) for name, test in tests_of(globals())], sys.argv[1])
    return end()


if __name__ == "__main__":
    sys.exit(main())
