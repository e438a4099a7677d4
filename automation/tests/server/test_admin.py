"""The admin port: what an operator sees."""

import asyncio
import json
import re
import socket


def test_it_lives_and_is_ready_with_the_state_of_all_it_depends_on(runner) -> None:
    assert runner.get('/livez') == (200, 'ok\n')
    status, text = runner.get('/readyz')
    report = json.loads(text)
    assert status == 200
    assert report['ready']
    assert report['checks']['sandbox'] == 'ok'
    assert report['checks'].keys() == {'sandbox', 'session', 'registration'}
    assert report['sandbox']['tier'] >= 1
    assert report['server'] == runner.server_id
    assert runner.get('/other')[0] == 404


async def test_metrics_tell_of_jobs_slots_output_and_the_process(run, runner) -> None:
    await run('print("x")')
    await run('raise ValueError')
    async with asyncio.timeout(10):  # results are told before their processes have gone
        while True:
            status, text = runner.get('/metrics')
            assert status == 200
            values = dict(re.findall(r'^(\S+) (\S+)$', text, re.MULTILINE))
            if float(values['millrace_runner_running_jobs']) == 0:
                break
            await asyncio.sleep(0.02)
    assert float(values['millrace_runner_jobs_total{outcome="SUCCEEDED"}']) >= 1
    assert float(values['millrace_runner_jobs_total{outcome="FAILED"}']) >= 1
    assert float(values['millrace_runner_free_slots']) == 4
    assert float(values['millrace_runner_running_jobs']) == 0
    assert float(values['millrace_runner_sandbox_tier']) >= 1
    assert float(values['millrace_runner_start_seconds_count']) >= 2
    assert any('millrace.runner.v1.RunnerService/Run' in name for name in values)
    assert 'process_resident_memory_bytes' in values


def test_nonsense_on_the_port_does_no_harm(runner) -> None:
    host, _, port = runner.admin.rpartition(':')
    for nonsense in (b'\x16\x03\x01\x02\x00\r\n\r\n', b'GET /livez\r\n\r\n', b'x' * 100_000 + b'\r\n\r\n'):
        with socket.create_connection((host, int(port))) as connection:
            try:
                connection.sendall(nonsense)
                while connection.recv(1024):
                    pass
            except OSError:
                pass  # it may hang up before it has read everything
    assert runner.get('/livez')[0] == 200


def test_the_log_holds_neither_sources_nor_inputs_nor_tokens(runner) -> None:
    runner.get('/livez')
    text = json.dumps(runner.lines)
    assert 'Bearer' not in text
    assert 'import ' not in text
