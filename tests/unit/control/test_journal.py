"""The journal: what happened, from where one left off."""

from state_changes import IMAGE, serving

from corten.core.events import Event, Phase


def test_forgetting_leaves_the_journal(make_state):
    state = make_state()
    serving(state, IMAGE)
    state.delete("m", now_s=3.0)
    state.forget("m", now_s=4.0)
    assert state.find("m") is None
    assert state.events("m")[-1].message == "stopped"


def test_the_journal_is_read_from_where_one_left_off(make_state):
    state = make_state()
    for number in range(5):
        state.journal("m", Event("step", Phase.NOTE, str(number), {"n": number}), now_s=1.0)
    first = state.events("m", limit=2)
    rest = state.events("m", after=first[-1].seq)
    assert [entry.message for entry in rest] == ["2", "3", "4"]
    assert rest[0].data == {"n": 2}
