"""Arrays of elevation in damaged archives."""

import numpy as np
import pytest

from earthsr.data.arrays import read_elevation
from earthsr.errors import DataError, InputError


def test_a_compression_that_nobody_knows_is_damage_and_names_the_file(tmp_path):
    """Found by mutated inputs: zipfile raises NotImplementedError, which is no error of reading by its type."""
    path = tmp_path / "dem.npz"
    np.savez(path, elevation=np.ones((4, 4), np.float32))
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        place = content.index(signature) + offset
        content[place : place + 2] = (77).to_bytes(2, "little")
    path.write_bytes(bytes(content))
    with pytest.raises((DataError, InputError), match=r"dem\.npz.*not a readable \.npz"):
        read_elevation(path)
