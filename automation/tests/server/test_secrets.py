"""Secrets and variables of a job: who reads them, and where they never show."""

import base64
import json

import pytest
from millrace.automations.v1 import spec_pb2
from millrace.runner.v1 import job_pb2

from millrace_automation.sandbox import ArtifactOpened
from millrace_automation.server.masks import Masks

SECRET = 'correct-horse-battery'
OTHER = 'another "secret"\nin two long lines'
GIVEN = {
    'secrets': [job_pb2.JobSecret(name='TOKEN', value=SECRET), job_pb2.JobSecret(name='OTHER', value=OTHER)],
    'variables': [job_pb2.JobVariable(name='LIMITS', value_json='{"most": 5, "of": ["é"]}')],
}


def texts(frames) -> list[str]:
    return [frame.line.text for frame in frames if frame.HasField('line')]


def result(frames) -> job_pb2.Result:
    (found,) = [frame.result for frame in frames if frame.HasField('result')]
    return found


async def test_a_script_reads_what_its_revision_names(run):
    source = """
        import millrace
        def main():
            token, other, limits = millrace.secret("TOKEN"), millrace.secret("OTHER"), millrace.variable("LIMITS")
            limits["of"].append(1)
            return [len(token), len(other), millrace.variable("LIMITS"), token[::-1]]
    """
    frames = await run(dedented(source), **GIVEN)
    assert json.loads(result(frames).output_json) == [len(SECRET), len(OTHER), {'most': 5, 'of': ['é']}, SECRET[::-1]]


@pytest.mark.parametrize(('kind', 'field'), [('secret', 'secrets'), ('variable', 'variables')])
async def test_a_script_reads_nothing_else(run, kind, field):
    ended = result(await run(f'import millrace\nmillrace.{kind}("OTHERS")', **GIVEN))
    assert (ended.error_type, ended.error_message) == (
        'LookupError',
        f"This revision has no {kind} 'OTHERS': its spec must name it in {field}.",
    )


async def test_nothing_that_a_script_tells_holds_a_secret(run):
    source = """
        import base64, json, logging, os, sys, time, urllib.parse
        import millrace
        token, other = millrace.secret("TOKEN"), millrace.secret("OTHER")
        print("plain", token, flush=True)
        print("halves " + token[:9], end="", flush=True)
        time.sleep(0.5)
        print(token[9:])
        os.write(2, ("err " + token[:3]).encode()); time.sleep(0.3); os.write(2, token[3:].encode() + b" end")
        print("base64", base64.b64encode(("user:" + token).encode()).decode())
        print("url", urllib.parse.quote(other))
        print(other)
        print("json", json.dumps(other))
        logging.warning("logged %s", token)
        millrace.log("said " + token, level=token)
        millrace.progress(0.5, "at " + token)
        print("x" * 9000 + token)
        try:
            raise RuntimeError("y" * 7990 + token)
        except RuntimeError as fault:
            raise type(token, (ValueError,), {})(f"cannot use {token}") from fault
    """
    frames = await run(dedented(source), **GIVEN)
    lines = texts(frames)
    at = lines.index('halves ')
    assert lines[at + 1] == '***'  # the first half waited for the second
    for line in ('plain ***', 'url ***', '***', 'logged ***', 'said ***', 'x' * 9000 + '***'):
        assert line in lines, line
    assert 'err ' in lines
    assert '*** end' in lines
    progress = [frame.progress.message for frame in frames if frame.HasField('progress')]
    assert progress[-1] == 'at ***'
    ended = result(frames)
    assert (ended.error_type, ended.error_message) == ('***', 'cannot use ***')
    assert '.***: cannot use ***' in ended.traceback or '***: cannot use ***' in ended.traceback
    told = '\n'.join(str(frame) for frame in frames)
    encoded = base64.b64encode(SECRET.encode()).decode()
    assert not [leak for leak in (SECRET, SECRET[:10], SECRET[9:], 'secret', encoded[4:16]) if leak in told.replace('millrace.secret', '')]


async def test_what_it_returns_holds_no_secret_and_stays_json(run):
    source = 'import millrace\ndef main():\n    return {"a": ["x " + millrace.secret("TOKEN")], millrace.secret("OTHER"): 1}'
    assert json.loads(result(await run(source, **GIVEN)).output_json) == {'a': ['x ***'], '***': 1}


async def test_a_secret_cut_off_by_a_kill_is_hidden(run):
    source = f'import os, millrace\nos.write(1, b"now " + millrace.secret("TOKEN")[:{len(SECRET) - 1}].encode())\nos.kill(os.getpid(), 9)'
    assert texts(await run(source, **GIVEN)) == ['now ***']


async def test_a_long_message_is_cut_behind_its_secrets(run):
    source = 'import millrace\nt = millrace.secret("TOKEN")\nmillrace.progress(1, "z" * 490 + t)\nraise ValueError("y" * 7990 + t)'
    frames = await run(source, **GIVEN)
    ended = result(frames)
    assert ended.error_message == 'y' * 7990 + '***'
    assert [frame.progress.message for frame in frames if frame.HasField('progress')][-1] == 'z' * 490 + '***'


async def test_secrets_stand_in_no_environment_argument_or_file(run):
    source = """
        import os, millrace
        token = millrace.secret("TOKEN").encode()
        found = []
        places = ["/proc/self/environ", "/proc/self/cmdline"] + [os.path.join(f, n) for f, _, ns in os.walk(".") for n in ns]
        for place in places:
            with open(place, "rb") as file:
                if token in file.read():
                    found.append(place)
        def main():
            return [len(places) >= 3, found, token.decode() in str(dict(os.environ))]
    """
    assert json.loads(result(await run(dedented(source), **GIVEN)).output_json) == [True, [], False]


async def test_a_kept_process_has_only_what_its_present_run_was_given(dispatch, job):
    source = 'import millrace\ndef main(name):\n    print(millrace.secret(name))\n    return len(millrace.secret(name))\n'
    shared = {'isolation': spec_pb2.AutomationSpec.REUSED, 'reuse_key': 'secrets', 'principal': 'usr_a'}
    dispatcher = await dispatch()
    found = []
    for name, value in (('A', 'first-value'), ('B', 'the-second-value'), ('A', None)):
        secrets = [job_pb2.JobSecret(name=name, value=value)] if value else []
        one = job(source, input_json=json.dumps({'name': name}), secrets=secrets, **shared)
        await dispatcher.start(one)
        ended = await dispatcher.result(one)
        found.append((ended.output_json or ended.error_type, [line.text for line in dispatcher.lines(one)]))
        await dispatcher.confirm(one, lines=2**31 - 1, started=True, result=True)
    assert found == [('11', ['***']), ('16', ['***']), ('LookupError', [])]


async def test_no_secret_stands_in_the_log_of_the_server(run, runner):
    await run('import millrace\nraise ValueError(millrace.secret("TOKEN"))', **GIVEN)
    assert SECRET not in str(runner.lines)


def test_the_name_of_a_file_that_it_keeps_holds_no_secret():
    (told,) = Masks(GIVEN['secrets']).parts(ArtifactOpened(1, f'of {SECRET}.txt', 'text/plain', 1))
    assert told == ArtifactOpened(1, 'of ***.txt', 'text/plain', 1)


def dedented(text: str) -> str:
    import textwrap

    return textwrap.dedent(text).lstrip('\n')
