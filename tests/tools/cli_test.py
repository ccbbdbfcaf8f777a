#!/usr/bin/env python3
"""Runs every command of `holdfast` against a real broker and checks what it prints and exits with.

Usage: cli_test.py HOLDFASTD HOLDFAST

Each scenario is a function named test_*; it has queues of its own. The broker listens on a free port of
the loopback interface and keeps its data in a temporary directory. The last line is
"N passed, N failed".
"""

import base64
import datetime
import json
import os
import pathlib
import pty
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time

import cli_harness
from cli_harness import CHECK, LONG_S, Run, Tool, expect, make_dead_letters, until


def test_queue_life(tool):
    made = tool.make("life", "--lease", "20s", "--max-attempts", "3", "--backoff", "2s..1m",
                     "--dedup-window", "5m", "--max-messages", "100", "--max-bytes", "1MiB",
                     "--max-message-bytes", "64KiB", "--outstanding-max", "50")
    CHECK.that(made["queue"] == "life" and made["dead_queue"] == "life.dead", made)
    CHECK.that(made["settings"] == {
        "lease": 20000, "max-attempts": 3, "backoff-min": 2000, "backoff-max": 60000,
        "dedup-window": 300000, "max-messages": 100, "max-bytes": 1048576,
        "max-message-bytes": 65536, "outstanding-max": 50}, made["settings"])
    expect(tool.run("queue", "create", "life"), 65, "queue_exists", "life")
    again = tool.ok("queue", "create", "life", "--lease", "1s", "--if-not-exists")[0]
    CHECK.that(again["settings"]["lease"] == 20000, "an existing queue keeps its settings")

    edited = tool.ok("queue", "edit", "life", "lease=10s", "backoff=1s..2s", "max-bytes=none")[0]
    CHECK.that(edited["settings"]["lease"] == 10000, edited)
    CHECK.that(edited["settings"]["backoff-max"] == 2000, edited)
    CHECK.that(edited["settings"]["max-bytes"] == 0, edited)
    CHECK.that(tool.report("life")["settings"] == edited["settings"], "edits last")

    names = [queue["queue"] for queue in tool.ok("queue", "ls")]
    CHECK.that("life" in names and "life.dead" not in names, names)
    table = tool.run("queue", "ls")
    CHECK.that(table.code == 0 and table.out.startswith("QUEUE "), table)
    shown = tool.run("queue", "show", "life")
    CHECK.that("max-bytes" in shown.out and "none" in shown.out and "10s" in shown.out, shown)

    CHECK.that(tool.report("life")["oldest"] is None, "an empty queue has no oldest message")
    tool.lines("life", ["a", "b", "c"])
    oldest = tool.report("life")["oldest"]
    CHECK.that(oldest["sequence"] == 1 and oldest["state"] == "ready" and "body" not in oldest and
               oldest["published_at"].endswith("Z"), oldest)
    shown = tool.run("queue", "show", "life")
    CHECK.that("sequence 1, ready, published 20" in shown.out and " ago" in shown.out, shown)
    expect(tool.run("queue", "purge", "life"), 64, "--yes")
    CHECK.that(tool.report("life")["messages"] == 3, "nothing was purged without --yes")
    purged = tool.ok("queue", "purge", "life", "--yes")[0]
    CHECK.that(purged == {"queue": "life", "purged": 3}, purged)
    CHECK.that(tool.report("life")["messages"] == 0, "the purge is done")
    expect(tool.run("queue", "rm", "life"), 64, "--yes")
    CHECK.that(tool.ok("queue", "rm", "life", "--yes")[0]["deleted"] is True, "deleted")
    expect(tool.run("queue", "show", "life"), 65, "queue_not_found", "life")
    expect(tool.run("queue", "show", "life.dead"), 65, "queue_not_found")


def test_bad_queues(tool):
    tool.make("badly")
    expect(tool.run("queue", "create", "no spaces"), 65, "name_invalid", "A-Z a-z 0-9")
    expect(tool.run("queue", "create", "q" * 121), 65, "name_invalid", "121 bytes", "120")
    expect(tool.run("queue", "create", "x.dead"), 65)
    expect(tool.run("queue", "create", "x", "--lease", "1ms"), 64, "100ms to 12h")
    expect(tool.run("queue", "create", "x", "--lease", "30"), 64, "lacks a unit")
    expect(tool.run("queue", "create", "x", "--backoff", "10s..1s"), 64, "backoff-min")
    expect(tool.run("queue", "create", "x", "--backoff", "1s..2s", "--backoff-min", "1s"), 64,
           "twice")
    expect(tool.run("queue", "edit", "badly", "max-atempts=3"), 64, "max-attempts")
    expect(tool.run("queue", "edit", "badly", "lease"), 64, "name=value")
    expect(tool.run("queue", "edit", "badly"), 64, "SETTING")
    expect(tool.run("queue", "edit", "badli", "lease=1s"), 65, "queue_not_found", "badly")
    expect(tool.run("queue", "shwo", "badly"), 64, "Did you mean show?")
    expect(tool.run("mesage", "send", "badly"), 64, "Did you mean message?")
    expect(tool.run("queue", "rm", "badly.dead", "--yes"), 65)
    CHECK.that(tool.report("badly")["messages"] == 0, "the queue is as it was")


def test_send_one(tool):
    tool.make("one")
    expect(tool.run("message", "send", "one", "hello", "--id", ""), 65, "message_id_invalid", "--id")
    receipt = tool.send("one", "hello", "--id", "first", "-H", "type=greeting", "-H", "x=a=b")
    CHECK.that(receipt == {"queue": "one", "sequence": 1, "id": "first", "duplicate": False},
               receipt)
    again = tool.send("one", "hello", "--id", "first")
    CHECK.that(again["sequence"] == 1 and again["duplicate"] is True, again)
    piped = tool.ok("message", "send", "one", "-", stdin=b"two\nlines\n")[0]
    CHECK.that(piped["sequence"] == 2 and piped["id"], piped)
    binary = tool.ok("message", "send", "one", stdin=b"\x00\xff")[0]
    empty = tool.send("one", "")
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"from a file")
        file.flush()
        tool.send("one", "@" + file.name)
    tool.send("one", "[1,2]")
    tool.ok("message", "send", "one", "--", "-5")
    got = tool.ok("message", "get", "one", "1")[0]
    CHECK.that(got["body"] == "hello" and got["headers"] == {"type": "greeting", "x": "a=b"}, got)
    CHECK.that(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", got["published_at"]), got)
    CHECK.that(got["attempt"] == 0 and got["state"] == "ready", got)
    CHECK.that(got["held_by"] is None and got["due_at"] is None and got["failed"] == [], got)
    bodies = [m.get("body") for m in tool.ok("message", "peek", "one")]
    CHECK.that(bodies == ["hello", "two\nlines\n", None, "", "from a file", "[1,2]", "-5"], bodies)
    peeked = tool.ok("message", "peek", "one", "--from", str(binary["sequence"]), "-n", "1")[0]
    CHECK.that(peeked["body_base64"] == "AP8=" and "body" not in peeked, peeked)
    CHECK.that(empty["sequence"] == 4, empty)
    table = tool.run("message", "peek", "one", "-n", "2")
    CHECK.that("two\\nlines\\n" in table.out and "SEQUENCE" in table.out, table)
    CHECK.that(tool.report("one")["in_flight"] == 0, "peeking takes nothing")
    as_json = tool.run("-o", "json", "message", "peek", "one", "-n", "2")
    CHECK.that([m["sequence"] for m in json.loads(as_json.out)] == [1, 2], as_json)
    table = tool.run("message", "send", "one", "x")
    CHECK.that(table.code == 0 and "Sequence" in table.out, table)


def test_send_refused(tool):
    tool.make("strict", "--max-message-bytes", "10", "--max-messages", "3")
    expect(tool.run("message", "send", "strict", "x" * 11), 65, "message_too_large", "10")
    expect(tool.run("message", "send", "strict", stdin=b"x" * (17 << 20)), 65, "message_too_large",
           "16777216")
    expect(tool.run("message", "send", "strict", "x", "--id", "i" * 129), 65, "message_id_invalid",
           "128")
    expect(tool.run("message", "send", "strict", "x", "-H", "a=" + "v" * 17000), 65,
           "headers_too_large")
    expect(tool.run("message", "send", "strict", "x", "-H", "novalue"), 64, "name=value")
    expect(tool.run("message", "send", "strict", "@/no/such/file"), 64, "/no/such/file")
    # It was stored as the text "@".
    for lines in ([], ["--lines"]):
        expect(tool.run("message", "send", "strict", "@", *lines), 64, "@ names no file", "say @FILE",
               "from standard input, with - in its place")
    # The one was 65, the other 64.
    for option, text, told in (("--id", b"a\xff", r'--id "a\xff" is not UTF-8'),
                               ("-H", b"a\xff=v", r'-H "a\xff=v" is not UTF-8'),
                               ("-H", b"a=\xff", r'-H "a=\xff" is not UTF-8')):
        expect(tool.run("message", "send", "strict", "x", option, text), 64, "invalid_argument", told)
    expect(tool.run("message", "send", "nowhere", "x"), 65, "queue_not_found", "nowhere")
    expect(tool.run("message", "send", "strict.dead", "x"), 65, "operation_refused")
    expect(tool.run("message", "send", "stritc", "x"), 65, "Did you mean \"strict\"?")
    expect(tool.run("message", "send", "strict", "text", "--lines"), 64, "--lines")
    expect(tool.run("message", "get", "strict", "99"), 65, "message_not_found", "99")
    for body in "abc":
        tool.send("strict", body)
    expect(tool.run("message", "send", "strict", "d"), 75, "queue_full")


def test_send_lines(tool):
    tool.make("lines")
    count = 20000
    receipts = tool.lines("lines", [f"line {i}" for i in range(count)], "--id", "run")
    CHECK.that(len(receipts) == count, len(receipts))
    CHECK.that([r["id"] for r in receipts] == [f"run-{i + 1}" for i in range(count)],
               "the objects come in the order of the lines")
    CHECK.that([r["sequence"] for r in receipts] == list(range(1, count + 1)), "in sequence order")
    again = tool.lines("lines", [f"line {i}" for i in range(count)], "--id", "run")
    CHECK.that(all(r["duplicate"] for r in again), "the same run again is stored once")
    CHECK.that([r["sequence"] for r in again] == list(range(1, count + 1)), "same sequences")
    CHECK.that(tool.report("lines")["messages"] == count, "stored once")
    last = tool.json("message", "send", "lines", "--lines", stdin=b"a\n\nb")
    CHECK.that(last.code == 0 and len(last.objects()) == 3, last)
    CHECK.that("3 messages are stored" in last.err, last)
    quiet = tool.json("-q", "message", "send", "lines", "--lines", stdin=b"a\n")
    CHECK.that(quiet.err == "", quiet)
    nothing = tool.json("message", "send", "lines", "--lines", stdin=b"")
    CHECK.that(nothing.code == 0 and nothing.out == "", nothing)
    as_json = tool.run("-o", "json", "message", "send", "lines", "--lines", stdin=b"a\nb\n")
    CHECK.that(len(json.loads(as_json.out)) == 2, as_json)


def test_send_lines_refused(tool):
    tool.make("picky", "--max-message-bytes", "10")
    done = tool.json("message", "send", "picky", "--lines",
                     stdin=b"ok\n" + b"x" * 11 + b"\nfine\n" + b"y" * 11 + b"\n" + b"z" * 11 + b"\n")
    expect(done, 3, "line 2: message_too_large", "lines 4 to 5: message_too_large", "2 of 5 lines")
    CHECK.that([m["body"] for m in tool.ok("message", "peek", "picky")] == ["ok", "fine"], "stored")
    expect(tool.json("message", "send", "picky", "--lines", stdin=b"x" * 11), 65,
           "line 1: message_too_large")
    expect(tool.json("message", "send", "nowhere", "--lines", stdin=b"a\n" * 100000), 65,
           "queue_not_found")
    tool.make("small", "--max-messages", "5")
    done = tool.json("message", "send", "small", "--lines", stdin=b"a\n" * 9)
    expect(done, 3, "queue_full", "5 of ")
    CHECK.that(tool.report("small")["messages"] == 5, "as many as fit")


def test_send_jsonl(tool):
    """What is exported is sent again, as it was."""
    tool.make("failing")
    tool.send("failing", "text", "--id", "t-1", "-H", "kind=a", "-H", "kind=b")
    tool.ok("message", "send", "failing", "-", "--id", "t-2", stdin=bytes(range(256)))
    tool.ok("message", "receive", "failing", "-n", "2", "--reject")
    exported = tool.run("dlq", "export", "failing", "-").out
    tool.make("restored")
    done = tool.json("message", "send", "restored", "--jsonl", "-H", "again=yes",
                     stdin=exported.encode())
    expect(done, 0, "2 messages are stored")
    CHECK.that([r["id"] for r in done.objects()] == ["t-1", "t-2"], done)
    text, binary = tool.ok("message", "peek", "restored", "-n", "2")
    CHECK.that(text["body"] == "text" and text["headers"] == {"kind": ["a", "b"], "again": "yes"},
               text)
    CHECK.that(binary["body_base64"] == base64.b64encode(bytes(range(256))).decode(), binary)
    # Their ids are in the dedup window of the queue where they failed.
    again = tool.ok("message", "send", "failing", "--jsonl", stdin=exported.encode())
    CHECK.that(all(r["duplicate"] for r in again), again)
    mixed = tool.json("message", "send", "restored", "--jsonl",
                      stdin=b'{"body":"fine"}\n\n{"body":1}\n{"body":"","id":"t-3"}\n')
    expect(mixed, 3, "lines 2 to 3: invalid_argument", "2 of 4 lines")
    CHECK.that(tool.report("restored")["messages"] == 4, "two more")
    expect(tool.run("message", "send", "restored", "--jsonl", "--id", "x"), 64, "--id")
    expect(tool.run("message", "send", "restored", "--jsonl", "--lines"), 64, "--lines")
    expect(tool.run("message", "send", "restored", '{"body":"x"}', "--jsonl"), 64, "--jsonl")


def test_send_lines_as_they_come(tool):
    tool.make("live")
    process = subprocess.Popen(tool.command("-o", "jsonl", "message", "send", "live", "--lines"),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
    try:
        for i in range(3):
            process.stdin.write(f"line {i}\n".encode())
            process.stdin.flush()
            readable, _, _ = select.select([process.stdout], [], [], LONG_S)
            CHECK.that(readable, "a confirm is printed while the input is still open")
            CHECK.that(json.loads(process.stdout.readline())["sequence"] == i + 1, i)
        process.stdin.close()
        CHECK.that(process.wait(timeout=LONG_S) == 0, "done")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_receive(tool):
    tool.make("work", "--backoff", "0..0")
    tool.lines("work", [f"m{i}" for i in range(200)])
    one = tool.ok("message", "receive", "work", "--ack")
    CHECK.that(len(one) == 1 and one[0]["body"] == "m0" and one[0]["attempt"] == 1, one)
    CHECK.that(one[0]["queue"] == "work" and one[0]["sequence"] == 1, one)
    many = tool.ok("message", "receive", "work", "-n", "150", "--ack")
    CHECK.that([m["body"] for m in many] == [f"m{i}" for i in range(1, 151)], len(many))
    released = tool.ok("message", "receive", "work", "-n", "2", "--release")
    CHECK.that([m["attempt"] for m in released] == [1, 1], released)
    again = tool.ok("message", "receive", "work", "-n", "2", "--nack", "--reason", "boom",
                    "--delay", "0")
    CHECK.that([m["sequence"] for m in again] == [m["sequence"] for m in released], again)
    CHECK.that([m["attempt"] for m in again] == [1, 1], "a release costs no attempt")
    until(lambda: tool.report("work")["waiting"] == 0, "nacked without a delay they are ready again")
    third = tool.ok("message", "receive", "work", "-n", "2", "--nack", "--delay", "1h")
    CHECK.that(sorted(m["attempt"] for m in third) == [2, 2], "a nack costs one")
    report = tool.report("work")
    CHECK.that(report["waiting"] == 2 and report["ready"] == 47, report)
    # It cost an attempt before it was refused.
    expect(tool.run("message", "receive", "work", "--nack", "--delay", "36500d"), 64, "36500d", "7d")
    next_one = tool.ok("message", "receive", "work", "--release")[0]
    CHECK.that(next_one["attempt"] == 1, next_one)
    rest = tool.ok("message", "receive", "work", "-n", "1000", "--ack")
    CHECK.that(len(rest) == 47, len(rest))
    nothing = tool.json("message", "receive", "work", "--ack")
    expect(nothing, 1, "no message")
    CHECK.that(nothing.out == "", nothing)
    before = time.monotonic()
    expect(tool.json("message", "receive", "work", "--ack", "--wait", "300ms"), 1)
    CHECK.that(time.monotonic() - before >= 0.3, "it waited")
    expect(tool.run("message", "receive", "work"), 64, "--ack", "--hold")
    for lease in ("10ms", "13h"):
        expect(tool.run("message", "receive", "work", "--ack", "--lease", lease), 64,
               f"--lease {lease} is out of bounds: it can be 100ms to 12h.")
    expect(tool.run("message", "receive", "work", "--ack", "--reason", "x"), 64, "--reason")
    expect(tool.run("message", "receive", "nowhere", "--ack"), 65, "queue_not_found")
    table = tool.send("work", "shown") and tool.run("message", "receive", "work", "--ack")
    CHECK.that("shown" in table.out and "ATTEMPT" in table.out, table)


# It said that no message was ready, and nothing else told why none came.
def test_ready_messages_of_a_queue_with_too_many_outstanding_were_denied(tool):
    tool.make("choked", "--outstanding-max", "2", "--backoff", "10m..10m")
    tool.lines("choked", [f"m{i}" for i in range(5)])
    tool.ok("message", "receive", "choked", "-n", "2", "--nack")
    done = tool.run("message", "receive", "choked", "--ack")
    expect(done, 1, "Queue choked has 3 messages that are ready and delivers none of them: its outstanding-max (2) "
           "is used up by 0 in flight, 2 waiting.", "holdfast queue edit choked outstanding-max=N")
    CHECK.that("no message" not in done.err, done)
    CHECK.that(tool.report("choked")["stalled"] is True, tool.report("choked"))
    shown = tool.run("queue", "show", "choked")
    CHECK.that("Stalled" in shown.out and "outstanding-max (2) is used up by 0 in flight, 2 waiting\n" in shown.out,
               shown)
    tool.ok("queue", "edit", "choked", "outstanding-max=3")
    CHECK.that(tool.report("choked")["stalled"] is False, tool.report("choked"))
    CHECK.that("Stalled" not in tool.run("queue", "show", "choked").out, "no word of it")
    CHECK.that(tool.ok("message", "receive", "choked", "--ack")[0]["body"] == "m2", "the next one comes")


def test_receive_waits(tool):
    tool.make("late")
    process = subprocess.Popen(
        tool.command("-o", "jsonl", "message", "receive", "late", "--ack", "--wait", "60s"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        # It looks for an interrupt now and then, and for that moment it is none.
        consumers = []
        until(lambda: consumers.extend(tool.ok("consumer", "ls", "late")) or consumers,
              "its consumer is there before the message")
        CHECK.that(len(consumers) == 1 and consumers[0]["queue"] == "late", consumers)
        CHECK.that(tool.run("consumer", "ls").out.startswith("CONSUMER"), "as a table")
        # Its end, which tells one process from another, was cut.
        name = consumers[0]["name"]
        for noun in ("consumer", "connection"):
            until(lambda: f" {name} " in tool.run(noun, "ls").out, f"{noun} {name} is told by its name")
        tool.send("late", "here")
        out, _ = process.communicate(timeout=LONG_S)
        CHECK.that(json.loads(out)["body"] == "here" and process.returncode == 0, out)
    finally:
        process.kill()
        process.wait()
    CHECK.that(tool.report("late")["messages"] == 0, "acked")


def time_of(text):
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")


def test_hold(tool):
    tool.make("held", "--backoff", "0..0")
    tool.send("held", "precious")
    process = subprocess.Popen(tool.command("-o", "jsonl", "message", "receive", "held", "--hold"),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        CHECK.that(json.loads(process.stdout.readline())["body"] == "precious", "printed at once")
        CHECK.that(tool.report("held")["in_flight"] == 1, "held")
        got = tool.ok("message", "get", "held", "1")[0]
        CHECK.that(got["state"] == "in_flight" and got["attempt"] == 1 and got["held_by"], got)
        CHECK.that(got["failed"] == [], got)
        lease_s = (time_of(got["due_at"]) - time_of(got["published_at"])).total_seconds()
        CHECK.that(30 <= lease_s < 30 + LONG_S, got)
        CHECK.that("in_flight, held by" in tool.run("message", "get", "held", "1").out, "as fields")
        CHECK.that(b"Ctrl-C" in process.stderr.readline(), "it says how to end it")
        process.send_signal(signal.SIGINT)
        CHECK.that(process.wait(timeout=LONG_S) == 0, "ended by the interrupt")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    got = tool.ok("message", "receive", "held", "--hold", "--lease", "100ms")
    CHECK.that(got[0]["attempt"] == 1, "given back, which costs no attempt")
    last = tool.ok("message", "receive", "held", "--ack", "--wait", "10s")
    CHECK.that(last[0]["attempt"] == 2, "a lease that ran out costs one")


# More was waited for than the queue lets out, until the leases of what was held had run out.
def test_one_run_held_the_same_message_twice(tool):
    tool.make("narrow", "--outstanding-max", "1", "--backoff", "0..0")
    tool.lines("narrow", ["a", "b", "c"])
    held = tool.json("message", "receive", "narrow", "-n", "5", "--hold", "--lease", "500ms")
    CHECK.that(held.code == 0 and [m["sequence"] for m in held.objects()] == [1], held)
    released = tool.ok("message", "receive", "narrow", "-n", "5", "--release", "--wait", "10s")
    CHECK.that([(m["sequence"], m["attempt"]) for m in released] == [(1, 2)], released)


def test_failed_attempts(tool):
    tool.make("fails")
    tool.send("fails", "order")
    tool.ok("message", "receive", "fails", "--nack", "--delay", "1h", "--reason", "no route")
    got = tool.ok("message", "get", "fails", "1")[0]
    CHECK.that(got["state"] == "waiting" and got["attempt"] == 1 and got["held_by"] is None, got)
    CHECK.that(got["due_at"] > got["published_at"], got)
    attempt = got["failed"][0]
    CHECK.that(len(got["failed"]) == 1 and attempt["cause"] == "nacked", got)
    CHECK.that(attempt["error"] == "no route" and attempt["consumer"] and attempt["ended_at"], got)
    told = tool.run("message", "get", "fails", "1").out
    CHECK.that("waiting, until" in told and "no route" in told and "Attempt 1" in told, told)


def test_dead_letters(tool):
    tool.make("risky", "--max-attempts", "2", "--backoff", "0..0")
    tool.send("risky", "poison", "--id", "p1", "-H", "k=v")
    for attempt in (1, 2):
        got = tool.ok("message", "receive", "risky", "--nack", "--reason", f"boom {attempt}",
                      "--wait", "10s")
        CHECK.that(got[0]["attempt"] == attempt, got)
    tool.send("risky", "bad", "--id", "p2")
    tool.ok("message", "receive", "risky", "--reject", "--reason", "no good", "--wait", "10s")
    # Too long, and not UTF-8: each message had an error of its own.
    tool.make("wordy")
    for reason in (b"x" * 2000, b"\xff"):
        tool.lines("wordy", ["a", "b"])
        done = tool.json("message", "receive", "wordy", "-n", "2", "--reject", "--reason", reason)
        expect(done, 0)
    errors = [m["error"] for m in tool.ok("dlq", "peek", "wordy", "-n", "4")]
    CHECK.that(errors == ["x" * 1024] * 2 + ["\\xff"] * 2, errors)
    listed = {queue["queue"]: queue["messages"] for queue in tool.ok("dlq", "ls")}
    CHECK.that(listed.get("risky.dead") == 2, listed)
    CHECK.that("risky" in tool.run("dlq", "ls").out, "as a table")
    dead = tool.ok("dlq", "peek", "risky")
    CHECK.that([m["id"] for m in dead] == ["p1", "p2"], dead)
    first = dead[0]
    CHECK.that(first["source"] == "risky" and first["source_sequence"] == 1, first)
    CHECK.that(first["reason"] == "retry_limit" and first["attempts"] == 2, first)
    CHECK.that([a["error"] for a in first["history"]] == ["boom 1", "boom 2"], first)
    CHECK.that([a["cause"] for a in first["history"]] == ["nacked", "nacked"], first)
    CHECK.that(first["headers"] == {"k": "v"} and first["body"] == "poison", first)
    CHECK.that(dead[1]["reason"] == "rejected" and dead[1]["error"] == "no good", dead[1])
    CHECK.that("retry_limit" in tool.run("dlq", "peek", "risky.dead").out, "as a table")
    later = tool.ok("dlq", "peek", "risky", "--from", str(first["sequence"] + 1))
    CHECK.that([m["id"] for m in later] == ["p2"], later)
    shown = tool.ok("dlq", "show", "risky")[0]
    CHECK.that(shown["messages"] == 2 and shown["oldest"]["id"] == "p1", shown)
    CHECK.that("risky" in tool.run("dlq", "show", "risky").out, "as fields")
    one = tool.run("message", "get", "risky.dead", str(first["sequence"]))
    CHECK.that("boom 2" in one.out and "Attempt 1 there" in one.out, one)

    exported = tool.run("dlq", "export", "risky", "-")
    CHECK.that([m["id"] for m in exported.objects()] == ["p1", "p2"], exported)
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "dead.jsonl")
        expect(tool.run("dlq", "export", "risky", path), 0, "2 dead letters")
        with open(path) as file:
            CHECK.that([json.loads(line)["id"] for line in file] == ["p1", "p2"], "in the file")
        CHECK.that(os.listdir(directory) == ["dead.jsonl"], "nothing beside it")
        expect(tool.run("dlq", "export", "nowhere", path), 65, "queue_not_found")
        CHECK.that(os.listdir(directory) == ["dead.jsonl"], "nothing beside it after an error")
        expect(tool.run("dlq", "export", "risky", os.path.join(directory, "no", "file")), 64)
    # A device was replaced by a file.
    expect(tool.run("dlq", "export", "risky", "/dev/full"), 70, "/dev/full")
    expect(tool.run("dlq", "export", "risky", "/dev/null"), 0, "2 dead letters")
    CHECK.that(all(stat.S_ISCHR(os.stat(device).st_mode) for device in ("/dev/full", "/dev/null")),
               "devices stay devices")

    # What stands for a pipe was taken for the path of a file.
    for words in ('"$@" /dev/stdout | cat', '"$@" >(cat) | cat'):
        piped = subprocess.run(["bash", "-c", words, "bash", *tool.command("dlq", "export", "risky")],
                               capture_output=True, timeout=LONG_S)
        CHECK.that(b"2 dead letters" in piped.stderr, piped)
        CHECK.that([json.loads(line)["id"] for line in piped.stdout.splitlines()] == ["p1", "p2"],
                   piped)
    expect(tool.run("dlq", "export", "risky", tempfile.gettempdir()), 64, "Is a directory")

    dry = tool.ok("dlq", "redrive", "risky", "--all", "--dry-run")[0]
    CHECK.that(dry["redriven"] == 2 and dry["dry_run"] is True, dry)
    CHECK.that(tool.report("risky.dead")["messages"] == 2, "a dry run moves nothing")
    expect(tool.run("dlq", "redrive", "risky"), 64, "--all")
    expect(tool.run("dlq", "redrive", "risky", "--all", "1"), 64, "--all")
    partly = tool.json("dlq", "redrive", "risky", str(first["sequence"]), "999")
    expect(partly, 3, "message_not_found")
    CHECK.that(partly.objects()[0]["redriven"] == 1, partly)
    expect(tool.json("dlq", "redrive", "risky", "999"), 65, "message_not_found", "Message 999")
    expect(tool.json("dlq", "redrive", "risky", "1003", "1001"), 65, "2 of the messages",
           "1001 first of all")
    back = tool.ok("message", "receive", "risky", "--ack", "--wait", "10s")[0]
    CHECK.that(back["id"] == "p1" and back["headers"] == {"k": "v"}, back)
    CHECK.that(back["attempt"] == 1 and back["body"] == "poison", back)

    expect(tool.run("dlq", "discard", "risky", "--all"), 64, "--yes")
    discarded = tool.ok("dlq", "discard", "risky", "--all", "--yes")[0]
    CHECK.that(discarded["discarded"] == 1, discarded)
    # What went back is counted by the other queue, so it said 0.
    shown = tool.run("dlq", "show", "risky").out
    CHECK.that("1 redriven, 1 discarded" in shown, shown)
    expect(tool.run("dlq", "ls"), 0)
    CHECK.that(tool.report("risky.dead")["messages"] == 0, "discarded")
    expect(tool.run("dlq", "peek", "nowhere"), 65, "queue_not_found")
    expect(tool.run("dlq", "peek", "risky"), 0, "no dead letters")


# Tables, and the oldest of a queue, told when it died.
def test_a_dead_letter_had_two_times_of_its_publication(tool):
    tool.make("twofold")
    tool.send("twofold", "x")
    published = tool.ok("message", "get", "twofold", "1")[0]["published_at"]
    tool.ok("message", "receive", "twofold", "--reject")
    dead = "twofold.dead"
    CHECK.that(tool.ok("dlq", "peek", "twofold")[0]["dead_at"] > published, "it died later")
    CHECK.that(tool.report(dead)["oldest"]["published_at"] == published, tool.report(dead))
    for words in (["queue", "show", dead], ["message", "peek", dead], ["message", "get", dead, "1"],
                  ["message", "receive", dead, "--release"]):
        as_table = tool.run(*words)
        as_json = tool.json(*words)
        CHECK.that(published in as_table.out, as_table)
        CHECK.that(f'"published_at":"{published}"' in as_json.out, as_json)


# As many times as -n allowed, each of them written to the disk.
def test_a_dead_letter_was_rejected_again_and_again_by_one_run(tool):
    tool.make("rounds")
    make_dead_letters(tool, "rounds", 300)
    for first in (1, 301):
        taken = tool.ok("message", "receive", "rounds.dead", "-n", "1000", "--reject")
        CHECK.that([m["sequence"] for m in taken] == list(range(first, first + 300)), len(taken))
        report = tool.report("rounds.dead")
        CHECK.that(report["ready"] == 300 and report["since_start"]["deliveries_lost"] == 0, report)


# It exited as if trying again made no sense.
def test_dead_letters_held_by_a_consumer_were_refused_for_good(tool):
    tool.make("gripped")
    make_dead_letters(tool, "gripped", 2)
    process = subprocess.Popen(
        tool.command("-o", "jsonl", "message", "receive", "gripped.dead", "--hold"),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        CHECK.that(json.loads(process.stdout.readline())["sequence"] == 1, "the first one is held")
        for words in (["redrive", "gripped", "1"], ["discard", "gripped", "1", "--yes"]):
            expect(tool.json("dlq", *words), 75, "operation_refused", "held by a consumer")
        expect(tool.json("dlq", "redrive", "gripped", "--all"), 3, "held by a consumer")
        expect(tool.json("dlq", "redrive", "gripped", "1", "999"), 65, "message_not_found",
               "held by a consumer")
    finally:
        process.terminate()
        process.wait(timeout=LONG_S)
        process.stdout.close()


def test_redrive_many(tool):
    tool.make("crowd")
    count = 700
    make_dead_letters(tool, "crowd", count)
    exported = tool.run("dlq", "export", "crowd", "-")
    CHECK.that(len(exported.objects()) == count, "all pages are exported")
    done = tool.ok("dlq", "redrive", "crowd", "--all")[0]
    CHECK.that(done["redriven"] == count, done)
    bodies = [m["body"] for m in tool.ok("message", "receive", "crowd", "-n", "1000", "--ack")]
    CHECK.that(sorted(bodies) == sorted(f"m{i}" for i in range(count)), len(bodies))
    none = tool.ok("dlq", "redrive", "crowd", "--all")[0]
    CHECK.that(none["redriven"] == 0, none)


def test_broker_views(tool):
    tool.make("seen")
    tool.send("seen", "x")
    status = tool.ok("status")[0]
    CHECK.that(status["queues"] >= 1 and status["ready"] >= 1 and status["pid"] > 0, status)
    CHECK.that(status["publishes_allowed"] is True and status["since_start"]["commits"] > 0, status)
    screen = tool.run("status")
    CHECK.that(screen.code == 0 and "Holdfast" in screen.out and "QUEUE" in screen.out, screen)
    CHECK.that(len(screen.out.splitlines()) <= 24, "one screen")
    connections = tool.ok("connection", "ls")
    CHECK.that(len(connections) >= 1 and "client_name" in connections[0], connections)
    CHECK.that(tool.run("connection", "ls").out.startswith("CONNECTION"), "as a table")
    expect(tool.run("consumer", "ls", "nowhere"), 65, "queue_not_found")
    # It said so of all queues.
    expect(tool.run("consumer", "ls", "seen"), 0, "Queue seen has no consumers.")


def test_it_said_that_nothing_was_done_when_only_the_output_was_not_written(tool):
    def to_a_full_disk(*words, stdin=b"", redirection=">/dev/full"):
        done = subprocess.run(["bash", "-c", f'"$@" {redirection}', "bash",
                               *tool.command("-o", "jsonl", *words)],
                              input=stdin, capture_output=True, timeout=LONG_S)
        return Run(done.returncode, "", done.stderr.decode())
    full = "Standard output cannot be written: No space left on device. "
    expect(to_a_full_disk("queue", "create", "unseen"), 70, full + "Queue unseen is there.")
    expect(to_a_full_disk("queue", "edit", "unseen", "lease=5s"), 70,
           full + "The settings of queue unseen are changed.")
    expect(to_a_full_disk("message", "send", "unseen", "hello", "--id", "one"), 70,
           full + 'The message is stored in queue unseen with sequence 1 and id "one".')
    expect(to_a_full_disk("message", "send", "unseen", "hello", "--id", "one"), 70,
           'with sequence 1 and id "one", and was before.')
    expect(to_a_full_disk("message", "send", "unseen", "hello", redirection=">&-"), 70,
           "Bad file descriptor. The message is stored in queue unseen with sequence 2 and id ")
    expect(to_a_full_disk("message", "send", "unseen", "--lines", stdin=b"a\nb\n"), 70, full,
           " lines are stored.")
    expect(to_a_full_disk("message", "receive", "unseen", "--ack"), 70,
           full + "What was not written is given back.")
    held = tool.ok("message", "receive", "unseen", "-n", "9", "--reject", "--wait", "10s")
    CHECK.that([m["sequence"] for m in held][:3] == [1, 2, 3], held)
    expect(to_a_full_disk("dlq", "redrive", "unseen", "1"), 70,
           full + "1 dead letters of unseen.dead redriven.")
    expect(to_a_full_disk("dlq", "discard", "unseen", "2", "--yes"), 70,
           full + "1 dead letters of unseen.dead discarded.")
    expect(to_a_full_disk("queue", "purge", "unseen", "--yes"), 70,
           full + "1 messages are removed from queue unseen.")
    looked = to_a_full_disk("queue", "show", "unseen")
    CHECK.that(looked.code == 70 and looked.err.endswith(full.rstrip() + "\n"), looked)
    expect(to_a_full_disk("queue", "rm", "unseen", "--yes"), 70, full + "Queue unseen is deleted.")


def setting_meanings():
    """What docs/OPERATIONS.md says of each queue setting."""
    text = (pathlib.Path(__file__).parents[2] / "docs" / "OPERATIONS.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| \d+ \| `([\w-]+)` \|.*\| (.*) \|$", text, re.MULTILINE))


def test_usage(tool):
    expect(tool.run(), 64, "needs a command")
    expect(tool.run("queue"), 64, "create, ls")
    expect(tool.run("-o", "xml", "status"), 64, "xml")
    version = tool.run("--version")
    CHECK.that(version.code == 0 and re.search(r"\d+\.\d+\.\d+", version.out), version)
    for words in (["--help"], ["queue", "--help"], ["message", "send", "--help"]):
        shown = tool.run(*words)
        CHECK.that(shown.code == 0 and "Usage" in shown.out and shown.err == "", shown)
    # The broker's configuration was left out.
    shown = tool.run("queue", "create", "--help")
    CHECK.that("names its own (default 30s, if the broker sets no other)" in shown.out, shown)
    # What is about to be a dead letter was not among the outstanding.
    documented = setting_meanings()
    for name, meaning in re.findall(r"--([\w-]+) (?:N|SIZE|DURATION) +(.*) \(default", shown.out):
        CHECK.that(documented.pop(name).startswith(meaning), f"{name}: {meaning}")
    CHECK.that(not documented, documented)
    full = subprocess.run(["bash", "-c", '"$@" > /dev/full', "bash", *tool.command("--help")],
                          capture_output=True, timeout=LONG_S)
    CHECK.that(full.returncode == 70 and b"No space left" in full.stderr, full)


def test_unreachable(tool):
    elsewhere = Tool(tool.binary, "127.0.0.1:1")
    before = time.monotonic()
    for words in (["status"], ["message", "send", "q", "x"], ["message", "receive", "q", "--ack"],
                  ["message", "send", "q", "--lines"]):
        expect(elsewhere.run(*words), 69, "unreachable", "127.0.0.1:1")
    CHECK.that(time.monotonic() - before < 10, "it does not wait for a broker that is not there")
    expect(Tool(tool.binary, "no port").run("status"), 64, "no port")
    expect(Tool(tool.binary, "tcp://localhost:7501").run("status"), 64, "without a scheme")
    environment = dict(os.environ, HOLDFAST_URL=tool.address)
    done = subprocess.run([tool.binary, "-o", "jsonl", "status"], capture_output=True,
                          env=environment, timeout=LONG_S)
    CHECK.that(done.returncode == 0 and b"uptime_ms" in done.stdout, "HOLDFAST_URL is used")
    # It was not told where a wrong address came from.
    environment["HOLDFAST_URL"] = "foo"
    for words in (["status"], ["bench", "sync"]):
        done = subprocess.run([tool.binary, *words], capture_output=True, env=environment,
                              timeout=LONG_S)
        CHECK.that(done.returncode == 64 and b"is foo, from HOLDFAST_URL." in done.stderr, done)
    expect(tool.run("status", environment=environment), 0)


def flood_one(listener):
    connection, _ = listener.accept()
    try:
        while True:
            connection.sendall(b"of something else " * 1000)
    except OSError:
        connection.close()


def test_something_else_listens(tool):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        elsewhere = Tool(tool.binary, f"127.0.0.1:{listener.getsockname()[1]}")
        expect(elsewhere.run("--timeout", "300ms", "status"), 69, "unreachable",
               "another program listens")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        elsewhere = Tool(tool.binary, f"127.0.0.1:{listener.getsockname()[1]}")
        flooding = threading.Thread(target=flood_one, args=[listener])
        flooding.start()
        expect(elsewhere.run("status"), 69, "frame_malformed", "another protocol",
               elsewhere.address)
        flooding.join()


def test_pipe_closed(tool):
    tool.make("pipe", "--backoff", "0..0")
    tool.lines("pipe", ["x" * 1000] * 2000)
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -c 10; exit ${PIPESTATUS[0]}', "bash",
         *tool.command("-o", "jsonl", "message", "peek", "pipe", "-n", "2000")],
        capture_output=True, timeout=LONG_S)
    CHECK.that(done.returncode == 128 + signal.SIGPIPE and done.stderr == b"", done)
    done = subprocess.run(
        ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "bash",
         *tool.command("-q", "-o", "jsonl", "message", "receive", "pipe", "-n", "2000", "--ack")],
        capture_output=True, timeout=LONG_S)
    CHECK.that(done.stderr == b"", done)
    left = tool.report("pipe")["messages"]
    CHECK.that(left > 0, "what nobody saw is not acked")
    seen = tool.ok("message", "receive", "pipe", "-n", "1", "--release", "--wait", "10s")
    CHECK.that(len(seen) == 1, seen)
    full = subprocess.run(
        ["bash", "-c", '"$@" > /dev/full', "bash",
         *tool.command("-o", "jsonl", "message", "receive", "pipe", "--ack")],
        capture_output=True, timeout=LONG_S)
    CHECK.that(full.returncode == 70 and b"No space left" in full.stderr, full)
    CHECK.that(tool.report("pipe")["messages"] == left, "what was not written is not acked")
    tool.ok("message", "receive", "pipe", "-n", str(left), "--reject", "--wait", "10s")
    for file in ("-", "/dev/stdout"):
        cut = subprocess.run(
            ["bash", "-c", '"$@" | head -c 10; exit ${PIPESTATUS[0]}', "bash",
             *tool.command("dlq", "export", "pipe", file)],
            capture_output=True, timeout=LONG_S)
        CHECK.that(cut.returncode == 128 + signal.SIGPIPE and cut.stderr == b"", cut)


def test_a_bench_meant_for_its_own_broker_measured_the_one_that_is_named(tool):
    named = {"in the environment": (dict(os.environ, HOLDFAST_URL=tool.address), [tool.binary],
                                    ["HOLDFAST_URL names one", "Unset HOLDFAST_URL"]),
             "by -u": (dict(os.environ), tool.command(), ["-u names one", "Leave -u out"])}
    with tempfile.TemporaryDirectory(prefix="holdfast-cli-") as directory:
        for option, value in (("--dir", directory), ("--broker", "/nowhere/holdfastd")):
            for environment, command, texts in named.values():
                done = subprocess.run([*command, "bench", "sync", "--count", "5", option, value],
                                      capture_output=True, env=environment, timeout=LONG_S)
                expect(Run(done.returncode, "", done.stderr.decode()), 64, option + " is about",
                       tool.address, "or leave " + option + " out", *texts)
        CHECK.that(os.listdir(directory) == [], "nothing is made there")


def on_terminal(command, answer):
    """Runs the command on a terminal of its own and types the answer once it asks."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(command[0], command)
    shown = b""
    answered = False
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        readable, _, _ = select.select([terminal], [], [], 1)
        if not readable:
            continue
        try:
            piece = os.read(terminal, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
        if not answered and shown.endswith(b"to go on: "):
            os.write(terminal, answer + b"\n")
            answered = True
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode()


def test_terminal_questions(tool):
    tool.make("asked")
    tool.send("asked", "x")
    code, shown = on_terminal(tool.command("queue", "purge", "asked"), b"wrong")
    CHECK.that(code == 64 and "nothing was changed" in shown and "1 messages" in shown, shown)
    CHECK.that(tool.report("asked")["messages"] == 1, "nothing was purged")
    code, shown = on_terminal(tool.command("queue", "purge", "asked"), b"asked")
    CHECK.that(code == 0, shown)
    CHECK.that(tool.report("asked")["messages"] == 0, "purged")
    code, shown = on_terminal(tool.command("queue", "rm", "asked"), b"asked")
    CHECK.that(code == 0, shown)
    expect(tool.run("queue", "show", "asked"), 65)


def test_bench(tool):
    small = {"publish": ["--count", "2000"], "drain": ["--count", "3000", "--consumers", "2"],
             "pipe": ["--count", "3000", "--size", "100"], "sync": ["--count", "20"],
             "fan": ["--count", "500"], "paced": ["--rate", "2000", "--count", "200"]}
    for workload, options in small.items():
        done = tool.run("bench", workload, "--json", *options)
        expect(done, 0)
        run = json.loads(done.out)
        CHECK.that(run["workload"] == workload and run["rate"] > 0, run)
        CHECK.that(run["count"] == int(options[options.index("--count") + 1]), run)
        CHECK.that(run["redelivered"] == 0 and run["server_cpu_s"] is None, run)
        has_latency = workload in ("pipe", "sync", "fan", "paced")
        CHECK.that((run["lat_p50_us"] is not None) == has_latency, run)
    pid = tool.ok("status")[0]["pid"]
    spread = tool.run("bench", "pipe", "--count", "5000", "--queues", "30", "--active", "8",
                      "--server-pid", str(pid), "--json")
    expect(spread, 0)
    CHECK.that(json.loads(spread.out)["server_peak_rss_mb"] > 1, spread)
    behind = tool.run("bench", "drain", "--count", "500", "--backlog", "5000", "--json")
    expect(behind, 0)
    CHECK.that(json.loads(behind.out)["backlog"] == 5000, behind)
    left = [queue["queue"] for queue in tool.ok("queue", "ls") if queue["queue"].startswith("bench")]
    CHECK.that(left == [], f"the bench deletes its queues: {left}")
    # A queue of somebody else's was deleted with its messages.
    for options, name in (([], "bench"), (["--queues", "3", "--active", "1"], "bench-00001")):
        tool.ok("queue", "create", name)
        expect(tool.run("bench", "sync", "--count", "10", *options), 65, "queue_exists", name,
               "--queue")
        left = [queue["queue"] for queue in tool.ok("queue", "ls")
                if queue["queue"].startswith("bench")]
        CHECK.that(left == [name], f"and that it found stays: {left}")
        tool.ok("queue", "rm", name, "--yes")
    expect(tool.run("bench", "gallop"), 64, "There is no workload", "gallop")
    # "Could not convert" was all that was said.
    for option in ("--seconds", "--rate"):
        for value in ("x", "1s", "nan", ""):
            expect(tool.run("bench", "paced", option, value), 64,
                   f'{option}: "{value}" is not a number', "e.g. 100 or 2.5")
    expect(tool.run("bench", "paced", "--rate", "2e3", "--seconds", "0.05"), 0)
    expect(Tool(tool.binary, "127.0.0.1:1").run("bench", "pipe"), 69, "127.0.0.1:1")


if __name__ == "__main__":
    sys.exit(cli_harness.with_one_broker(__doc__, globals()))
