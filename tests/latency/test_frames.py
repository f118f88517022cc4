from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latency import frames
from latency.frames import FrameError, FrameReader, pack

MESSAGE = {"id": 1, "do": "session", "values": [1.5, None, "ä"]}


def read(data: bytes, *, preamble: bool = False) -> list[object]:
    reader = FrameReader(preamble=preamble)
    reader.feed(data)
    found = []
    while (frame := reader.next()) is not None:
        found.append(frame)
    return found


@given(st.lists(st.integers(1, 50), max_size=30))
def test_pieces_of_any_size(sizes: list[int]) -> None:
    data = pack(MESSAGE) + pack(b"\0raw") + pack({})
    reader, found = FrameReader(), []
    for size in [*sizes, len(data)]:
        reader.feed(data[:size])
        data = data[size:]
        while (frame := reader.next()) is not None:
            found.append(frame)
    assert found == [MESSAGE, b"\0raw", {}]


@given(st.data())
def test_a_flipped_bit_is_never_a_message(data: st.DataObject) -> None:
    whole = bytearray(pack(MESSAGE))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with suppress(FrameError):
        assert read(bytes(whole)) == []  # a longer frame, say, whose rest never comes


@given(st.binary(min_size=1, max_size=100))
def test_garbage_is_never_a_message(garbage: bytes) -> None:
    with suppress(FrameError):
        assert read(garbage) == []
    with pytest.raises(FrameError):
        read(pack(MESSAGE)[:-1] + b"x" + garbage + pack(MESSAGE))


def test_a_torn_frame_waits() -> None:
    assert read(pack(MESSAGE)[:-1]) == []


def test_words_before_the_first_frame_are_skipped() -> None:
    assert read(b"Welcome!\n" + pack(MESSAGE), preamble=True) == [MESSAGE]
    with pytest.raises(FrameError, match="garbage in place of a frame"):
        read(pack(MESSAGE) + b"Welcome!\n", preamble=True)
    with pytest.raises(FrameError, match="no frame"):
        read(b"x" * (frames.MAX_PREAMBLE_BYTES + 1), preamble=True)


def test_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "VERSION", 2)
    data = pack(MESSAGE)
    monkeypatch.undo()
    with pytest.raises(FrameError, match="speaks version 2, this one 1"):
        read(data)


def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pack(MESSAGE)
    monkeypatch.setattr(frames, "MAX_BYTES", 10)
    with pytest.raises(FrameError, match="over the limit of 10"):
        read(data)
    with pytest.raises(ValueError, match="over the limit of 10"):
        pack(MESSAGE)
