"""Files that scripts keep, where nothing keeps them. The rest of the way is tested with the executions area: dispatcher/artifacts.test.ts."""

import json

SOURCE = """
import millrace
def main() -> list:
    said = []
    for size in (1, 5_000_000):
        try:
            millrace.artifact('file', b'x' * size)
        except millrace.ArtifactError as refused:
            said.append(refused.reason)
    return said
"""


async def test_a_run_by_hand_is_told_that_nothing_is_kept_and_goes_on(run) -> None:
    result = (await run(SOURCE))[-1].result
    assert json.loads(result.output_json) == ['NOT_KEPT', 'NOT_KEPT'], result
