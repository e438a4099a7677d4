"""Writes files. Returns whether all of them could be written."""


def main(files: int, mib_each: int) -> bool:
    try:
        for number in range(files):
            with open(f'probe-{number}', 'wb') as file:
                file.writelines(bytes(1 << 20) for _ in range(mib_each))
    except OSError:
        return False
    return True
