from corten.core.meter import Meter


def test_a_meter_tells_of_every_hundredth_part_and_counts_what_moved():
    events = []
    meter = Meter("push", 1_000_000_000, events.append)
    for _ in range(500):
        meter.add(1_000_000)
        meter.skip(1_000_000)
    assert len(events) == 100
    assert dict(events[-1].data) == {"bytes": 1_000_000_000, "total_bytes": 1_000_000_000}
    assert events[-1].message == "1000 of 1000 MB"
    assert meter.moved_bytes == 500_000_000


def test_small_things_are_not_worth_an_event():
    events = []
    Meter("push", 1000, events.append).add(1000)
    assert not events
