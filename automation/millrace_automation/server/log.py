"""Log lines as JSON, in the shape of the other services' logger: level number, time in ms, msg, fields."""

import json
import logging
import os
import sys
import traceback

LEVELS = {'trace': 5, 'debug': 10, 'info': 20, 'warn': 30, 'error': 40, 'fatal': 50, 'silent': 100}
_NUMBERS = {5: 10, 10: 20, 20: 30, 30: 40, 40: 50, 50: 60}
_logger = logging.getLogger('millrace')


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {'level': _NUMBERS.get(record.levelno, 30), 'time': int(record.created * 1000), 'pid': os.getpid(), 'name': 'runner'}
        line.update(getattr(record, 'fields', {}))
        if record.exc_info and record.exc_info[1]:
            kind, error, trace = record.exc_info
            stack = ''.join(traceback.format_exception(kind, error, trace))
            line['err'] = {'type': kind.__name__ if kind else '', 'message': str(error), 'stack': stack}
        line['msg'] = record.getMessage()
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(level: str) -> None:
    """Sends every log line of the process, libraries included, to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Json())
    logging.basicConfig(handlers=[handler], level=max(LEVELS[level], logging.WARNING), force=True)
    _logger.setLevel(LEVELS[level])


def debug(message: str, **fields: object) -> None:
    _logger.debug('%s', message, extra={'fields': fields})


def info(message: str, **fields: object) -> None:
    _logger.info('%s', message, extra={'fields': fields})


def warn(message: str, **fields: object) -> None:
    _logger.warning('%s', message, extra={'fields': fields})


def error(message: str, fault: BaseException | None = None, **fields: object) -> None:
    _logger.error('%s', message, exc_info=fault, extra={'fields': fields})
