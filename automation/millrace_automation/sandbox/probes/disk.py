"""Writes files. Returns whether all of them could be written."""


def main(files: int, mib_each: int) -> bool:
    try:
        for number in range(files):
            with open(f'probe-{number}', 'wb') as file:
                for _ in range(mib_each):
                    file.write(bytes(1 << 20))
    except OSError:
        return False
    return True
