"""What one job has to tell: every interleaving of printing, sending, confirming and new streams gives each line once and in order."""

import random

from google.protobuf.timestamp_pb2 import Timestamp
from millrace.automations.v1 import spec_pb2
from millrace.runner.v1 import job_pb2

from millrace_automation.server.lines import STDOUT, Entry
from millrace_automation.server.outbox import FLYING_BYTES, KEPT_BYTES, Outbox


def new_outbox() -> Outbox:
    return Outbox('exe_1', b'c' * 16, lambda _: None)


def entry(seq: int, size: int = 10) -> Entry:
    return Entry(seq, STDOUT, '', b'x' * size, False)


def test_every_interleaving_gives_each_line_once_and_in_order() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        outbox, printed, is_started, is_ended = new_outbox(), 0, False, False
        received: list[int] = []  # on the present stream
        opened_at = 0  # what was confirmed when it was opened
        outbox.start(job_pb2.Started(sandbox_tier=2))
        for _ in range(400):
            match chance.choice(['print', 'print', 'take', 'take', 'confirm', 'rewind']):
                case 'print' if printed < 150:
                    outbox.add(entry(printed, chance.choice([0, 10, 16_000])), Timestamp())
                    printed += 1
                case 'print' if not is_ended:
                    is_ended = True
                    outbox.end(job_pb2.Result(outcome=job_pb2.Result.SUCCEEDED, log_count=printed))
                case 'take' if outbox.has_news:
                    item, _ = outbox.take(chance.choice([100, 50_000, 1_000_000]))
                    is_started = is_started or item.HasField('started')
                    received += [line.seq for line in item.lines]
                    if item.HasField('result'):
                        assert opened_at + len(received) == printed
                case 'confirm' if received:
                    outbox.confirm(chance.choice(received) + 1, started=is_started)
                case 'rewind':
                    outbox.rewind()
                    received, opened_at = [], outbox.confirmed_lines
            assert received == list(range(opened_at, opened_at + len(received)))
        outbox.rewind()
        opened_at, rest, results = outbox.confirmed_lines, [], 0
        while outbox.has_news:
            item, _ = outbox.take(100_000)
            rest += [line.seq for line in item.lines]
            results += item.HasField('result')
            outbox.confirm(opened_at + len(rest))
        assert rest == list(range(opened_at, printed))
        assert results == is_ended
        assert is_started


def test_what_flies_and_what_is_kept_are_bounded() -> None:
    outbox, seq = new_outbox(), 0
    while not outbox.is_full:
        outbox.add(entry(seq, 1000), Timestamp())
        seq += 1
    assert KEPT_BYTES <= outbox.kept_bytes < KEPT_BYTES + 2000
    flying = 0
    while outbox.has_news:
        item, size = outbox.take(64 * 1024)
        assert size <= 64 * 1024 + 1100
        flying += len(item.lines)
    assert FLYING_BYTES <= flying * 1000 + flying * 30 < FLYING_BYTES * 1.1
    outbox.confirm(10)
    assert outbox.has_news
    assert not outbox.is_full


def test_a_confirmation_may_come_before_the_lines_were_sent_again() -> None:
    outbox = new_outbox()
    for seq in range(5):
        outbox.add(entry(seq), Timestamp())
    outbox.take(1000)
    outbox.rewind()
    outbox.confirm(3)
    assert [line.seq for line in outbox.take(1000)[0].lines] == [3, 4]
    outbox.confirm(2**31 - 1)
    assert (outbox.confirmed_lines, outbox.kept_bytes) == (5, 0)


def test_a_start_that_is_not_due_is_not_told_to_a_new_stream_either() -> None:
    outbox = new_outbox()
    outbox.start(job_pb2.Started(), is_due=False)
    outbox.rewind()
    assert not outbox.has_news
    outbox.tell_start()
    for _ in range(2):
        assert outbox.take(1000)[0].HasField('started')
        outbox.rewind()


def test_nothing_goes_before_all_of_the_start_is_known() -> None:
    outbox = new_outbox()
    started = job_pb2.Started()
    outbox.start(started, is_due=False, is_known=False)
    outbox.tell_start()
    outbox.add(entry(0), Timestamp())  # a line of the network does not wait for the script's first word
    outbox.rewind()
    assert not outbox.has_news
    started.isolation = spec_pb2.AutomationSpec.REUSED
    outbox.know_start()
    item, _ = outbox.take(1000)
    assert item.started.isolation == spec_pb2.AutomationSpec.REUSED
    assert [line.seq for line in item.lines] == [0]


def test_an_end_before_the_first_word_is_told_with_the_start() -> None:
    outbox = new_outbox()
    outbox.start(job_pb2.Started(), is_due=False, is_known=False)
    outbox.end(job_pb2.Result())
    item, _ = outbox.take(1000)
    assert item.HasField('started')
    assert item.HasField('result')


def test_a_large_result_comes_alone() -> None:
    outbox = new_outbox()
    outbox.add(entry(0), Timestamp())
    outbox.end(job_pb2.Result(output_json='x' * 1_000_000))
    assert not outbox.take(64 * 1024)[0].HasField('result')
    assert outbox.take(64 * 1024)[0].HasField('result')
    assert not outbox.has_news


def test_only_the_newest_progress_counts_and_a_new_stream_gets_it_again() -> None:
    outbox = new_outbox()
    for fraction in (0.1, 0.2):
        outbox.progress(job_pb2.ProgressReport(fraction=fraction))
    assert outbox.take(1000)[0].progress.fraction == 0.2
    assert not outbox.has_news
    outbox.rewind()
    assert outbox.take(1000)[0].progress.fraction == 0.2


def test_a_closed_one_holds_nothing_and_blocks_nobody() -> None:
    outbox, seq = new_outbox(), 0
    while not outbox.is_full:
        outbox.add(entry(seq, 1000), Timestamp())
        seq += 1
    outbox.close()
    outbox.add(entry(seq), Timestamp())
    assert (outbox.kept_bytes, outbox.has_news, outbox.is_full) == (0, False, False)
