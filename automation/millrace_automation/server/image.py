"""The descriptor image: the contracts as data, with the policy of each method."""

from pathlib import Path

from google.protobuf import descriptor_pb2
from millrace.options.v1 import policy_pb2


def load(path: Path) -> descriptor_pb2.FileDescriptorSet:
    return descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())


def policies(image: descriptor_pb2.FileDescriptorSet, service_name: str) -> dict[str, policy_pb2.MethodPolicy]:
    """The policy of each method of the service by its path. Raises when one has none, or one that this server cannot enforce."""
    found = {}
    for file in image.file:
        for service in file.service:
            if f'{file.package}.{service.name}' != service_name:
                continue
            for method in service.method:
                policy = method.options.Extensions[policy_pb2.policy]
                if policy.access != policy_pb2.SERVICE or not policy.services:
                    raise ValueError(f'{service_name}/{method.name} has no policy that names the services that may call it')
                found[f'/{service_name}/{method.name}'] = policy
    if not found:
        raise ValueError(f'the descriptor image has no service {service_name}')
    return found
