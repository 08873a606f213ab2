"""Damage to files, for the fuzz tests."""


def flipped(rng, data):
    """Bytes with some of them replaced."""
    data = bytearray(data)
    for _ in range(min(len(data), rng.choice((1, 3, 30)))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def cut(rng, data):
    """The first bytes."""
    return data[:rng.randrange(len(data) + 1)]
