"""UUIDs."""

from __future__ import annotations

from uuid import RFC_4122, UUID

from masa_ros.tracking.identity import UuidSource


def as_uuids(source: UuidSource, count: int) -> list[UUID]:
    return [UUID(bytes=row.tobytes()) for row in source.take(count)]


def test_uuids_are_version_4_of_the_rfc() -> None:
    for uuid in as_uuids(UuidSource(), 200):
        assert (uuid.version, uuid.variant) == (4, RFC_4122)


def test_uuids_never_repeat_within_or_across_sources() -> None:
    first, second = UuidSource(), UuidSource()
    everything = as_uuids(first, 500) + as_uuids(first, 500) + as_uuids(second, 500)
    assert len(set(everything)) == 1500


def test_a_seed_makes_them_equal_however_they_are_taken() -> None:
    first, second = UuidSource('camera'), UuidSource('camera')
    assert as_uuids(first, 4) == as_uuids(second, 1) + as_uuids(second, 3)


def test_other_seeds_give_other_uuids() -> None:
    assert not set(as_uuids(UuidSource('left'), 9)) & set(as_uuids(UuidSource('right'), 9))


def test_a_seed_may_be_long_or_empty() -> None:
    assert as_uuids(UuidSource('x' * 1000), 1) != as_uuids(UuidSource(''), 1)


def test_none_taken_is_empty() -> None:
    assert UuidSource().take(0).shape == (0, 16)
