"""Settings: all faults at once, in words, before anything is started."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from millrace_automation.sandbox import Reuse
from millrace_automation.server.settings import SettingsError, read_settings


@pytest.fixture
def least(tmp_path: Path) -> dict[str, str]:
    """The settings without which the server does not start."""
    (tmp_path / 'py').mkdir()
    (tmp_path / 'image.binpb').write_bytes(b'')
    (tmp_path / 'services.json').write_text('{"keys": []}')
    (tmp_path / 'runner.pem').write_text('')
    return {'MILLRACE_AUTOMATION_STUBS': str(tmp_path / 'py'), 'MILLRACE_SERVICE_JWKS': str(tmp_path / 'services.json')}


def test_defaults(least) -> None:
    settings = read_settings(least)
    assert (settings.address, settings.admin_address) == ('127.0.0.1:0', '127.0.0.1:0')
    assert (settings.slots, settings.prepared, settings.minimum_tier) == (16, 8, 1)
    assert (settings.orphan_seconds, settings.drain_seconds) == (60, 30)
    assert settings.reuse == Reuse(parked=16, runs=1000, age_seconds=600, idle_seconds=60, reserve_mib=256)
    assert read_settings({**least, 'MILLRACE_AUTOMATION_SLOTS': '100'}).reuse.parked == 64
    assert (settings.executions_url, settings.service_key, settings.telemetry) == ('', None, False)


def test_values(least, tmp_path) -> None:
    settings = read_settings(
        {
            **least,
            'MILLRACE_AUTOMATION_ADDRESS': '[::1]:9000',
            'MILLRACE_AUTOMATION_SLOTS': '3',
            'MILLRACE_AUTOMATION_LABELS': 'zone=a, gpu=no,',
            'MILLRACE_AUTOMATION_ORPHAN_SECONDS': '0.5',
            'MILLRACE_EXECUTIONS_URL': 'localhost:1',
            'MILLRACE_SERVICE_KEYS': str(tmp_path),
            'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://localhost:4317',
        }
    )
    assert settings.address == '[::1]:9000'
    assert (settings.slots, settings.prepared, settings.orphan_seconds) == (3, 3, 0.5)
    assert settings.labels == {'zone': 'a', 'gpu': 'no'}
    assert settings.service_key == tmp_path / 'runner.pem'
    assert settings.telemetry


def test_all_faults_are_told_at_once(least) -> None:
    wrong = {
        'MILLRACE_AUTOMATION_STUBS': '/nowhere',
        'MILLRACE_SERVICE_JWKS': '',
        'MILLRACE_AUTOMATION_ADDRESS': '0.0.0.0:0',
        'MILLRACE_AUTOMATION_ADMIN_ADDRESS': 'localhost',
        'MILLRACE_AUTOMATION_SLOTS': 'many',
        'MILLRACE_AUTOMATION_SANDBOX_MIN_TIER': '0',
        'MILLRACE_AUTOMATION_DRAIN_SECONDS': 'nan',
        'MILLRACE_AUTOMATION_LABELS': 'zone',
        'MILLRACE_EXECUTIONS_URL': 'localhost:1',
        'MILLRACE_LOG_LEVEL': 'loud',
    }
    with pytest.raises(SettingsError) as faults:
        read_settings({**least, **wrong})
    told = [line.split()[0] for line in str(faults.value).splitlines()[1:]]
    missing = {'MILLRACE_AUTOMATION_ENDPOINT', 'MILLRACE_SERVICE_KEYS'}
    assert set(told) == wrong.keys() - {'MILLRACE_AUTOMATION_ADDRESS', 'MILLRACE_EXECUTIONS_URL'} | missing
    assert len(told) == len(set(told))


def test_the_process_ends_with_code_2_and_says_why() -> None:
    folder = Path(__file__).resolve().parents[2]
    environment = {'PATH': os.environ['PATH'], 'MILLRACE_AUTOMATION_SLOTS': '0'}
    ended = subprocess.run(
        [sys.executable, '-m', 'millrace_automation'], cwd=folder, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode == 2
    assert 'MILLRACE_AUTOMATION_SLOTS must be a whole number from 1 to 4096' in ended.stderr
    assert 'MILLRACE_SERVICE_JWKS is needed' in ended.stderr
    assert 'Traceback' not in ended.stderr
