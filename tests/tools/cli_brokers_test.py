#!/usr/bin/env python3
"""Runs `holdfast` where the broker itself is part of the scenario: it dies, is away, is stopped.

Usage: cli_brokers_test.py HOLDFASTD HOLDFAST

Each scenario is a function named test_* that starts what it needs, on loopback and in a temporary directory.
The last line is "N passed, N failed".
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import cli_harness
from cli_harness import CHECK, LONG_S, Broker, Tool, expect, own_broker, until


def damage(directory, text):
    """Overwrites the first byte of the last occurrence of this text in the data file."""
    for parent, _, names in os.walk(directory):
        for name in set(names) & {"data.mdb"}:
            with open(os.path.join(parent, name), "r+b") as file:
                at = file.read().rfind(text)
                if at >= 0:
                    file.seek(at)
                    file.write(b"X")
                    return True
    return False


def test_bench_alone(daemon, tool_binary):
    """Without -u it starts a broker, and leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="holdfast-cli-") as directory:
        environment = {name: value for name, value in os.environ.items() if name != "HOLDFAST_URL"}
        command = [tool_binary, "bench", "pipe", "--count", "2000", "--json", "--dir", directory]
        done = subprocess.run(command + ["--broker", daemon], capture_output=True, timeout=LONG_S,
                              env=environment)
        CHECK.that(done.returncode == 0, done)
        run = json.loads(done.stdout)
        CHECK.that(run["count"] == 2000 and run["fsync_p50_us"] > 0, run)
        CHECK.that(os.listdir(directory) == [], "its data is gone")
        missing = subprocess.run(command + ["--broker", "/nowhere/holdfastd"], capture_output=True,
                                 timeout=LONG_S, env=environment)
        CHECK.that(missing.returncode == 64 and b"--broker /nowhere/holdfastd cannot be run: No such file"
                   in missing.stderr, missing)
        nowhere = subprocess.run([*command[:-1], "/nowhere", "--broker", daemon], capture_output=True,
                                 timeout=LONG_S, env=environment)
        CHECK.that(nowhere.returncode == 64 and b"made in /nowhere: No such file" in nowhere.stderr, nowhere)


def test_hold_at_a_broker_that_dies(daemon, tool_binary):
    with own_broker(daemon, tool_binary) as (broker, tool, _):
        tool.make("held")
        tool.send("held", "precious")
        process = subprocess.Popen(tool.command("message", "receive", "held", "--hold"),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            CHECK.that(b"Ctrl-C" in process.stderr.readline(), "it holds")
        finally:
            broker.stop(signal.SIGKILL)
        _, err = process.communicate(timeout=LONG_S)
        CHECK.that(process.returncode == 69 and b"connection_lost" in err,
                   (process.returncode, err))


# The stop took as long as it might, and the messages lost an attempt.
def test_hold_at_a_broker_that_is_stopped_gave_nothing_back(daemon, tool_binary):
    with own_broker(daemon, tool_binary) as (broker, tool, data):
        tool.make("held", "--max-attempts", "1")
        tool.lines("held", ["a", "b"])
        process = subprocess.Popen(tool.command("message", "receive", "held", "-n", "2", "--hold"),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        CHECK.that(b"Ctrl-C" in process.stderr.readline(), "it holds")
        CHECK.that(broker.stop() == 0, "the broker ends well")
        _, err = process.communicate(timeout=LONG_S)
        CHECK.that(process.returncode == 75 and b"draining: The broker is shutting down: 2 messages that "
                   b"were held are given back." in err, (process.returncode, err))
        broker = Broker(daemon, data)
        try:
            report = Tool(tool_binary, broker.address).report("held")
            CHECK.that(report["ready"] == 2 and report["dead"] == 0, report)
        finally:
            broker.stop()


# It said nothing until its timeout was over.
def test_lines_while_the_broker_is_away(daemon, tool_binary):
    with tempfile.TemporaryDirectory(prefix="holdfast-cli-") as directory:
        data, path = os.path.join(directory, "data"), os.path.join(directory, "socket")
        broker = Broker(daemon, data, "--unix", path)
        tool = Tool(tool_binary, f"unix:{path}")
        tool.make("lines")
        process = subprocess.Popen(tool.command("message", "send", "lines", "-", "--lines"),
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        process.stdin.write(b"one\n")
        process.stdin.flush()
        until(lambda: tool.report("lines")["messages"] == 1, "the first line is stored")
        broker.stop(signal.SIGKILL)
        process.stdin.write(b"two\n")
        process.stdin.flush()
        told = process.stderr.readline()
        CHECK.that(b"Trying again." in told, told)
        broker = Broker(daemon, data, "--unix", path)
        try:
            _, err = process.communicate(timeout=LONG_S)
            CHECK.that(process.returncode == 0 and b"Connected again." in err,
                       (process.returncode, err))
            CHECK.that(tool.report("lines")["messages"] == 2, "both are stored")
        finally:
            broker.stop()


# 256 lines said the same.
def test_receiving_from_a_broker_that_dies(daemon, tool_binary):
    with own_broker(daemon, tool_binary) as (broker, tool, _):
        tool.make("lost")
        tool.lines("lost", ["x" * 4000] * 300)
        tool.ok("message", "receive", "lost", "-n", "10", "--ack")
        process = subprocess.Popen(
            tool.command("-o", "jsonl", "message", "receive", "lost", "-n", "300", "--ack"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            # More than the pipe holds: the rest is written, and then settled, when the broker is gone.
            first = json.loads(process.stdout.readline())
        finally:
            broker.stop(signal.SIGKILL)
        _, err = process.communicate(timeout=LONG_S)
        CHECK.that(process.returncode == 69 and first["sequence"] == 11, (process.returncode, first))
        told = err.decode().splitlines()
        CHECK.that(len(told) == 1 and re.match(
            r"holdfast: messages 11 to \d+: connection_lost: ", told[0]), told)


# They were counted among those that are not stored.
def test_lines_whose_confirms_do_not_come(daemon, tool_binary):
    with own_broker(daemon, tool_binary) as (broker, tool, _):
        tool.make("lines", "--max-message-bytes", "10")
        process = subprocess.Popen(
            tool.command("--timeout", "1s", "message", "send", "lines", "--lines"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            process.stdin.write(b"one\n" + b"x" * 11 + b"\nthree\n")
            process.stdin.flush()
            until(lambda: tool.report("lines")["messages"] == 2, "two are stored")
            CHECK.that(b"SEQUENCE" in process.stdout.readline(), "their confirms are in")
            broker.process.send_signal(signal.SIGSTOP)
            process.stdin.write(b"four\nfive\n")
            _, err = process.communicate(timeout=LONG_S)
        finally:
            broker.process.send_signal(signal.SIGCONT)
            broker.stop()
        CHECK.that(process.returncode == 3, (process.returncode, err))
        CHECK.that(b"line 2: message_too_large" in err and b"lines 4 to 5: timeout" in err, err)
        CHECK.that(b"2 of 5 lines are stored, 1 are not, of 2 it is not known." in err, err)


def test_bench_of_a_broker_that_dies(daemon, tool_binary):
    with own_broker(daemon, tool_binary) as (broker, tool, _):
        process = subprocess.Popen(tool.command("bench", "pipe", "--count", "0", "--seconds", "60"),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            until(lambda: tool.ok("status")[0]["since_start"]["acked"] > 1000,
                  "the bench is under way")
        finally:
            broker.stop(signal.SIGKILL)
        out, err = process.communicate(timeout=LONG_S)
        CHECK.that(process.returncode != 0 and out == b"", (process.returncode, out))
        CHECK.that(b"connection_lost" in err, err)


def test_directory(daemon, tool_binary):
    with own_broker(daemon, tool_binary) as (broker, tool, data):
        tool.make("kept")
        tool.lines("kept", [f"m{i}" for i in range(100)])
        expect(tool.run("check", data), 75, "directory_locked")
        CHECK.that(broker.stop() == 0, "the broker ends well: " + "".join(broker.log))
        sound = tool.run("check", data)
        # `status` counts one, and it was not said that this is another count.
        expect(sound, 0, "nothing is wrong", "2 queues (with dead-letter queues)", "100 messages")
        CHECK.that(sound.out == "", sound)
        report = json.loads(tool.run("-o", "json", "check", data).out)
        CHECK.that(report["messages"] == 100 and report["findings"] == [], report)
        CHECK.that(report["queues"] == 2, report)
        expect(tool.run("check", os.path.join(os.path.dirname(data), "missing")), 65, "missing")

        CHECK.that(damage(data, b"m50"), "the stored body is found in the data directory")
        damaged = tool.json("check", data)
        expect(damaged, 1, "findings")
        CHECK.that(len(damaged.objects()) >= 1 and damaged.objects()[0]["what"], damaged)
        CHECK.that(tool.run("check", data).out.strip() != "", "a line per finding")


def test_a_whole_copy_in_the_place_of_the_directory(daemon, tool_binary):
    """What a backup is for: what was confirmed before it is there, what was acked after it comes again."""
    with own_broker(daemon, tool_binary) as (broker, tool, data):
        tool.make("jobs")
        tool.lines("jobs", ["first", "second", "third"], "--id", "job")
        tool.ok("message", "receive", "jobs", "--ack")
        broker.stop()
        copy = data + ".copy"
        shutil.copytree(data, copy)
        expect(tool.run("check", copy), 0, "3 messages (2 not settled)", "nothing is wrong")
        broker = Broker(daemon, data)
        try:
            tool = Tool(tool_binary, broker.address)
            tool.ok("message", "receive", "jobs", "--ack")
            tool.send("jobs", "later")
        finally:
            broker.stop(signal.SIGKILL)
        shutil.rmtree(data)
        shutil.copytree(copy, data)
        broker = Broker(daemon, data)
        try:
            tool = Tool(tool_binary, broker.address)
            left = [message["sequence"] for message in tool.ok("message", "peek", "jobs")]
            CHECK.that(left == [2, 3], left)
            CHECK.that(tool.send("jobs", "again", "--id", "job-1")["duplicate"], "its ids are known")
            CHECK.that(tool.send("jobs", "new")["sequence"] == 4, "later is gone")
        finally:
            broker.stop()


# What the disk has free was all that was shown.
def test_the_room_that_a_limit_leaves_was_not_shown(daemon, tool_binary):
    with tempfile.TemporaryDirectory(prefix="holdfast-cli-") as directory:
        config = os.path.join(directory, "config")
        with open(config, "w") as file:
            file.write('[limits]\ndisk_bytes_max = "32MiB"\n')
        broker = Broker(daemon, os.path.join(directory, "data"), "--config", config)
        try:
            tool = Tool(tool_binary, broker.address)
            room_mib = tool.ok("status")[0]["room_bytes"] / (1 << 20)
            CHECK.that(1 < room_mib < 32, room_mib)
            shown = tool.run("status")
            CHECK.that(f"free, room for {room_mib:.1f} MiB more\n" in shown.out, shown)
        finally:
            broker.stop()


def test_a_damaged_message_was_said_not_to_be_there(daemon, tool_binary):
    with own_broker(daemon, tool_binary) as (broker, tool, data):
        tool.make("spoilt")
        tool.lines("spoilt", ["before", "to be damaged", "after"])
        broker.stop()
        CHECK.that(damage(data, b"to be damaged"), "the stored body is found")
        broker = Broker(daemon, data)
        try:
            tool = Tool(tool_binary, broker.address)
            expect(tool.run("message", "get", "spoilt", "2"), 65, "message_corrupt", "Message 2 of")
            expect(tool.run("message", "get", "spoilt", "4"), 65, "message_not_found", "message 4:")
            left = [message["sequence"] for message in tool.ok("message", "peek", "spoilt")]
            CHECK.that(left == [1, 3], left)
        finally:
            broker.stop()


# Its log lines were written over the pages of the data file.
def test_closed_descriptors(daemon, tool_binary):
    with tempfile.TemporaryDirectory(prefix="holdfast-cli-") as directory:
        data, path = os.path.join(directory, "data"), os.path.join(directory, "socket")
        tool = Tool(tool_binary, f"unix:{path}")

        def close_all():
            os.closerange(0, 3)
        for start in range(2):
            process = subprocess.Popen([daemon, "--data", data, "--listen", "", "--unix", path],
                                       preexec_fn=close_all)
            try:
                until(lambda: tool.run("status").code == 0, "it serves")
                if start == 0:
                    tool.make("kept")
                    tool.send("kept", "precious")
                CHECK.that(tool.report("kept")["messages"] == 1, "the message is there")
                closed = subprocess.run(
                    ["bash", "-c", '"$@" >&-', "bash", *tool.command("status")],
                    capture_output=True, timeout=LONG_S)
                CHECK.that(closed.returncode == 70 and
                           b"Standard output cannot be written: Bad file" in closed.stderr, closed)
                silent = subprocess.run(tool.command("status"), preexec_fn=close_all,
                                        timeout=LONG_S)
                CHECK.that(silent.returncode == 70, silent)
            finally:
                process.terminate()
                CHECK.that(process.wait(timeout=LONG_S) == 0, "the broker ends well")
            expect(tool.run("check", data), 0, "1 messages", "nothing is wrong")


def test_disk(daemon, tool_binary):
    tool = Tool(tool_binary, "127.0.0.1:1")  # no broker is asked
    with tempfile.TemporaryDirectory(prefix="holdfast-cli-", dir="/dev/shm") as directory:
        in_memory = tool.run("diskcheck", directory)
        CHECK.that(in_memory.code == 1 and "tmpfs keeps files in memory" in in_memory.out, in_memory)
        report = json.loads(tool.run("-o", "json", "diskcheck", directory).out)
        CHECK.that(report["file_system"] == "tmpfs" and len(report["warnings"]) >= 1, report)
        CHECK.that(0 < report["median_us"] <= report["p99_us"] <= report["max_us"], report)
        CHECK.that(report["flushes"] > 0 and report["flushes_per_second"] > 0, report)
        CHECK.that(os.listdir(directory) == [], os.listdir(directory))
        expect(tool.run("diskcheck", os.path.join(directory, "missing")), 65, "missing")
    with tempfile.TemporaryDirectory(prefix="holdfast-cli-") as directory:
        # What kind of disk this is, is not the test's to say; that both agree, is.
        found = tool.json("diskcheck", directory)
        CHECK.that(found.code == (1 if found.objects()[0]["warnings"] else 0), found)


if __name__ == "__main__":
    sys.exit(cli_harness.with_own_brokers(__doc__, globals()))
