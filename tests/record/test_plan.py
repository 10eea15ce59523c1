from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla.core import ConfigError, Kind, Side
from mobile_vla.data import schema
from mobile_vla.language import Grammar, parse
from mobile_vla.record.plan import Plan, default_plan, one_of, read_plan

from .rig import cell


def records(counts):
    return [SimpleNamespace(extras={schema.EXTRA_SCENARIO: name}) for name, n in counts.items() for _ in range(n)]


def test_the_default_is_the_simulators_eight_scenarios_at_three_distances_in_both_languages():
    plan = default_plan(count=4)
    assert len(plan.cells) == 24
    assert len({each.scenario for each in plan.cells}) == 8
    grammar = Grammar.load()
    for each in plan.cells:
        for number in range(4):
            words = each.words_for(number)
            assert words.language == ("en", "ko")[number % 2]
            goal = parse(words.text, grammar)
            assert goal == words.goal
            assert goal.target.kind is Kind.CUP
            assert goal.side is Side(each.scenario.split("_")[2])


def test_extras_are_named_as_in_the_simulator():
    each = default_plan().cells[0]
    assert each.extras(each.words[0]) == {
        "scenario": "1box_vertical_left_close",
        "language": "en",
        "phrasing": "train",
        "goal_mode": "go",
        "goal_kind": "cup",
        "goal_colour": None,
        "goal_side": "left",
    }


cells = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 4)), min_size=1, unique_by=lambda each: each[0])


@given(cells, st.dictionaries(st.sampled_from([f"{name}_close" for name in "abcdefxyz"]), st.integers(0, 6)))
def test_progress_is_counted_from_the_data_alone_and_next_is_the_first_that_lacks(cells, counts):
    plan = Plan(tuple(cell(name, count) for name, count in cells))
    progress = plan.progress(records(counts))
    lacking = [each for each in plan.cells if counts.get(each.name, 0) < each.count]
    assert progress.next() == (lacking[0] if lacking else None)
    assert progress.wanted == sum(count for _, count in cells)
    assert progress.done == sum(min(counts.get(f"{name}_close", 0), count) for name, count in cells)
    assert (progress.done == progress.wanted) == (not lacking)
    seen, at = [], None
    for _ in lacking:
        at = progress.next(at)
        seen.append(at.name)
    assert Counter(seen) == Counter(each.name for each in lacking)
    assert set(progress.table()) == {name for name, _ in cells}


def test_the_table_is_scenario_by_distance():
    plan = Plan((cell("a", 3), cell("a", 3, "far"), cell("b", 1)))
    assert plan.progress(records({"a_far": 2, "other": 1})).table() == {
        "a": {"close": "0/3", "far": "2/3"},
        "b": {"close": "0/1"},
    }


def test_a_plan_of_ones_own(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(
        """
count: 3
distances: [near, far]
scenarios:
  kitchen:
    en: [pass the box on the left to the cup, go to the red cup]
    ko: 빨간 컵까지 가세요
  corridor:
    en: follow the yellow line
    count: 1
    distances: [far]
""",
        encoding="utf-8",
    )
    plan = read_plan(path)
    assert [(each.name, each.count) for each in plan.cells] == [
        ("kitchen_near", 3),
        ("kitchen_far", 3),
        ("corridor_far", 1),
    ]
    assert [words.language for words in plan.cells[0].words] == ["en", "ko", "en", "ko"]
    assert plan.cells[0].words[0].goal.side is Side.LEFT
    assert plan.cells[2].words[0].goal is None
    assert plan.cells[2].extras(plan.cells[2].words[0])["goal_mode"] is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scenarios: {}", "names nothing to record"),
        ("scenarios: {a: {}}", "says nothing to the robot"),
        ("scenarios: {a: {en: go, count: 0}}", "wanted 0 times"),
        ("scenarios: {a: {cuont: 3}}", "did you mean count?"),
        ("scenario: {a: {en: go}}", "did you mean scenarios?"),
        ("scenarios: {a: {en: ' '}}", "the instruction is empty"),
        ("scenarios: {a_b: {en: go, distances: [c]}, a: {en: go, distances: [b_c]}}", "two cells called a_b_c"),
        ("[", "cannot read the plan"),
        ("- a", "need keys and values"),
    ],
)
def test_a_wrong_plan_is_refused_with_what_is_wrong(tmp_path, text, words):
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        read_plan(path)
    assert words in str(error.value)


def test_a_cell_is_found_by_its_name():
    plan = default_plan()
    assert one_of(plan, "2box_vertical_left_far").distance == "far"
    with pytest.raises(ConfigError, match="did you mean 2box_vertical_left_far"):
        one_of(plan, "2box_vertical_left_fur")
