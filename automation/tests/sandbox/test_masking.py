"""How secrets are hidden: whatever form they have, and wherever they are cut."""

import base64
import html
import json
import random
from urllib.parse import quote, quote_plus

import pytest

from millrace_automation.sandbox.inside.masking import Masker, Stream

SECRET = 'p@ss/w0rd+"ż\\ü\'<&> %x'
PEM = '-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n-----END KEY-----\n'
FORMS = {
    'plain': SECRET,
    'JSON': json.dumps({'a': SECRET}),
    'JSON in UTF-8': json.dumps({'a': SECRET}, ensure_ascii=False),
    'repr': repr([SECRET]),
    'bytes': repr(SECRET.encode()),
    'base64': base64.b64encode(SECRET.encode()).decode(),
    'base64 for addresses': base64.urlsafe_b64encode(SECRET.encode()).decode(),
    'HTTP Basic': base64.b64encode(f'user:{SECRET}'.encode()).decode(),
    'base64 behind one byte': base64.b64encode(f'x{SECRET}more'.encode()).decode(),
    'base64 behind two bytes': base64.b64encode(f'xy{SECRET}more'.encode()).decode(),
    'percent': quote(SECRET),
    'percent, all': quote(SECRET, safe=''),
    'percent, in lower case': quote(SECRET, safe='').replace('%2F', '%2f').replace('%C5%BC', '%c5%bc').lower(),
    'form': quote_plus(SECRET),
    'hexadecimal': SECRET.encode().hex(),
    'HTML': html.escape(SECRET),
}
LEAKS = ('p@ss', 'w0rd', 'cEBzc', 'BAc3Mv', 'AQHNzL', '70407373', 'p%40ss', 'p%40ss')


@pytest.mark.parametrize('form', [name for name in FORMS if 'lower case' not in name])
def test_every_form_is_hidden_and_what_stands_around_stays(form):
    hidden = Masker([SECRET]).text(f'before {FORMS[form]} after')
    assert hidden.startswith('before ')
    assert hidden.endswith(' after')
    assert '***' in hidden
    assert not [leak for leak in LEAKS if leak in hidden], hidden


def test_codes_in_lower_case_are_hidden_too():
    masker = Masker(['abc/defg/hij'])
    assert masker.text('x=abc%2fdefg%2fhij') == 'x=***' == masker.text('x=abc%2Fdefg%2Fhij')


def test_each_line_of_a_secret_is_hidden_by_itself():
    masker = Masker([PEM])
    for line in PEM.splitlines():
        assert masker.text(f'> {line} <') == '> *** <'
    assert masker.text(PEM) == '***'


def test_secrets_that_overlap_or_contain_each_other_leave_no_rest():
    masker = Masker(['abcdefgh12345678', '12345678ZZZZ', 'cdefgh12', 'other-one'])
    assert masker.text('<abcdefgh12345678ZZZZ>') == '<***>'
    assert masker.text('<cdefgh12><other-one>') == '<***><***>'
    assert Masker(['aaaaaaaa']).text('aaaaaaaaaaaaa b') == '*** b'


def test_what_is_like_a_secret_is_not_hidden():
    text = 'p@ss/w0rd is not it, nor p@ss/w0rd+'
    assert Masker([SECRET]).text(text) == text


@pytest.mark.parametrize('name', FORMS)
def test_a_form_is_hidden_however_it_is_cut(name):
    form = FORMS[name].encode() if 'lower case' not in name else SECRET.encode()
    masker = Masker([SECRET, 'p@ss/another'])
    whole = masker.bytes(b'x ' + form + b' y\n')
    data = b'x ' + form + b' y\n'
    for cut in range(1, len(data)):
        stream = Stream(masker)
        assert stream.feed(data[:cut]) + stream.feed(data[cut:]) + stream.close() == whole
    stream = Stream(masker)
    assert b''.join(stream.feed(data[at : at + 1]) for at in range(len(data))) + stream.close() == whole


def test_any_text_in_any_pieces_is_the_same_as_in_one():
    draw = random.Random(7)
    for _ in range(300):
        values = [''.join(draw.choices('ab', k=draw.randint(8, 12))) for _ in range(draw.randint(1, 3))]
        masker = Masker(values)
        data = ''.join(draw.choices('ab', k=draw.randint(0, 80))).encode() + b'|'
        stream, told, at = Stream(masker), b'', 0
        while at < len(data):
            step = draw.randint(1, 9)
            told += stream.feed(data[at : at + step])
            at += step
        told += stream.close()
        assert told == masker.bytes(data), (values, data)
        assert not [value for value in values if value.encode() in told]


def test_only_what_may_be_a_beginning_waits():
    stream = Stream(Masker(['password-1']))
    assert stream.feed(b'Name: Ann, passport') == b'Name: Ann, passport'
    assert stream.feed(b'Name: pass') == b'Name: '
    assert stream.feed(b'ing by') == b'passing by'
    assert stream.feed(b'p') == b''
    assert stream.close() == b'p'


def test_an_endless_secret_is_not_kept():
    stream = Stream(Masker(['aaaaaaaa']))
    told = b''.join(stream.feed(b'a' * 1000) for _ in range(100))
    assert told + stream.feed(b'ab') + stream.close() == b'***b'
    assert len(stream._held) < 8


def test_a_secret_that_the_end_cuts_off_is_hidden():
    stream = Stream(Masker(['password-1']))
    assert stream.feed(b'it is password-') + stream.close() == b'it is ***'


def test_json_stays_json():
    masker = Masker([SECRET, '12345678'])
    value = {'a': [SECRET, 12345678, 1.5, True, None, 'x12345678y'], SECRET: {'b': 'fine'}}
    hidden = json.loads(masker.json(json.dumps(value)))
    assert hidden == {'a': ['***', '***', 1.5, True, None, 'x***y'], '***': {'b': 'fine'}}
    untouched = '{ "a":1 }'
    assert masker.json(untouched) is untouched
    assert '12345678' not in masker.json('{"a": "12345678"')


def test_nothing_short_is_taken_for_a_secret():
    assert Masker(['1234567']).text('1234567') == '1234567'
    assert Masker(['a line\n12\nanother line']).text('12 a line') == '12 a line'
