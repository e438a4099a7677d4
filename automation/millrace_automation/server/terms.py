"""What a job asks of its process, in the sandbox's words."""

import hashlib

from millrace.automations.v1 import spec_pb2
from millrace.runner.v1 import job_pb2

from millrace_automation.sandbox import Limits


def reuse_of(request: job_pb2.Job) -> str:
    """What its process may be shared by, beside what it runs. Empty: nothing."""
    if not (request.isolation == spec_pb2.AutomationSpec.REUSED and request.reuse_key and request.principal):
        return ''
    shared = f'{request.reuse_key} {request.principal}'
    if request.HasField('egress'):
        shared += f' {hashlib.sha256(request.egress.SerializeToString(deterministic=True)).hexdigest()}'
    return shared


def limits_of(resources: spec_pb2.Resources) -> Limits:
    names = ('memory_mib', 'processes', 'cpu_seconds', 'disk_mib')
    return Limits(**{name: value for name in names if (value := getattr(resources, name))})


def seconds(duration: object, default: float) -> float:
    return duration.seconds + duration.nanos / 1e9 or default
