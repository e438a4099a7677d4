"""Which environments' parents may go."""

from millrace_automation.sandbox.rest import Rest


def test_what_is_unused_for_long_goes_and_what_is_used_stays():
    clock = [0.0]
    rest = Rest(idle_seconds=10, most=8, now=lambda: clock[0])
    rest.use('a')
    clock[0] = 9
    rest.use('b')
    assert rest.due(['a', 'b']) == []
    clock[0] = 11
    assert rest.due(['a', 'b']) == ['a']
    rest.use('b')
    assert rest.due(['b']) == []


def test_of_too_many_the_longest_unused_goes():
    clock = [0.0]
    rest = Rest(idle_seconds=1000, most=2, now=lambda: clock[0])
    for name in 'abc':
        clock[0] += 1
        rest.use(name)
    clock[0] += 1
    rest.use('a')
    assert rest.due('abc') == ['b']
    assert rest.due('ac') == []
