"""Who may call: a service with a fresh token of its own, and only where the method's policy names it."""

import time

import grpc
import jwt
import pytest
from millrace.runner.v1 import runner_service_pb2 as pb


async def refusal(stub, metadata=(), method='DescribeRunner') -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(stub, method)(getattr(pb, f'{method}Request')(), metadata=metadata)
    return refused.value


async def test_a_call_without_a_token_is_refused(stub, details) -> None:
    error = await refusal(stub)
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED
    assert (details(error)['ErrorInfo'].reason, details(error)['ErrorInfo'].domain) == ('TOKEN_MISSING', 'runner.millrace')


def forgeries(keys) -> dict[str, str]:
    now = int(time.time())
    good = keys.token()
    head, body, signature = good.split('.')
    claims = {'iss': 'millrace', 'sub': 'service/dispatcher', 'aud': 'service/runner', 'iat': now, 'exp': now + 60}
    header = {'kid': 'dispatcher', 'typ': 'service+jwt'}
    return {
        'expired': keys.token(iat=now - 120, exp=now - 60),
        'without end': keys.token(exp=None),
        'of another audience': keys.token(aud='service/executions'),
        'without audience': keys.token(aud=None),
        'of another issuer': keys.token(iss='elsewhere'),
        'of another type': keys.token(header={'typ': 'at+jwt'}),
        'of an unknown key': keys.token(header={'kid': 'nobody'}),
        'signed by another service': keys.token('tasks', header={'kid': 'dispatcher'}, sub='service/dispatcher'),
        'naming another service': keys.token('tasks', sub='service/dispatcher'),
        'not yet valid': keys.token(nbf=now + 600),
        'unsigned': jwt.encode(claims, None, algorithm='none', headers=header),
        'signed with a shared secret': jwt.encode(claims, 'a secret that is long enough for it', algorithm='HS256', headers=header),
        'cut': f'{head}.{body}.{signature[:-4]}',
        'no token': 'x',
    }


KINDS = (
    'expired',
    'without end',
    'of another audience',
    'without audience',
    'of another issuer',
    'of another type',
    'of an unknown key',
    'signed by another service',
    'naming another service',
    'not yet valid',
    'unsigned',
    'signed with a shared secret',
    'cut',
    'no token',
)


@pytest.mark.parametrize('kind', KINDS)
async def test_a_token_that_is_not_right_is_refused(stub, details, keys, kind) -> None:
    error = await refusal(stub, (('authorization', f'Bearer {forgeries(keys)[kind]}'),))
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED
    assert details(error)['ErrorInfo'].reason == 'TOKEN_INVALID'


async def test_two_tokens_and_another_scheme_are_refused(stub, details, keys) -> None:
    twice = await refusal(stub, (('authorization', f'Bearer {keys.token()}'),) * 2)
    assert details(twice)['ErrorInfo'].reason == 'TOKEN_INVALID'
    basic = await refusal(stub, (('authorization', f'Basic {keys.token()}'),))
    assert details(basic)['ErrorInfo'].reason == 'TOKEN_MISSING'


async def test_each_method_accepts_the_services_of_its_policy(stub, details, keys) -> None:
    def metadata(name: str) -> tuple[tuple[str, str]]:
        return (('authorization', f'Bearer {keys.token(name)}'),)

    for method, accepted in (('DescribeRunner', {'dispatcher', 'automations'}), ('Cancel', {'dispatcher'})):
        for name in ('dispatcher', 'automations', 'tasks', 'runner'):
            if name not in accepted:
                error = await refusal(stub, metadata(name), method)
                assert error.code() == grpc.StatusCode.PERMISSION_DENIED
                assert details(error)['ErrorInfo'].reason == 'SERVICE_NOT_ACCEPTED'
    assert (await stub.DescribeRunner(pb.DescribeRunnerRequest(), metadata=metadata('automations'))).server_id


async def test_streams_are_guarded_before_anything_is_read(stub, keys) -> None:
    wrong = (('authorization', f'Bearer {keys.token("tasks")}'),)
    assert await stub.Session(metadata=wrong).code() == grpc.StatusCode.PERMISSION_DENIED
    assert await stub.Session().code() == grpc.StatusCode.UNAUTHENTICATED
    assert await stub.Run(pb.RunRequest()).code() == grpc.StatusCode.UNAUTHENTICATED


async def test_a_changed_key_set_is_in_force_at_once(stub, keys, runner) -> None:
    earlier = (('authorization', f'Bearer {keys.token("automations")}'),)
    assert await stub.DescribeRunner(pb.DescribeRunnerRequest(), metadata=earlier)
    keys.make('automations')
    assert (await refusal(stub, earlier)).code() == grpc.StatusCode.UNAUTHENTICATED
    later = (('authorization', f'Bearer {keys.token("automations")}'),)
    assert await stub.DescribeRunner(pb.DescribeRunnerRequest(), metadata=later)
