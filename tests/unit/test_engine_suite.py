"""Task files: what counts as right, when two answers agree, and one line for a file that cannot be used."""

from pathlib import Path

import pytest

from backends.bundled.suite import SUITE, suite_text
from backends.engines.suite import Task, agree, is_right, load_suite
from core.errors import ConfigurationError


@pytest.mark.parametrize(
    ("task", "text", "right"),
    [
        (Task("q", answer="3 7 9"), " 3 7 9\n", True),
        (Task("q", answer="3 7 9"), "3 7 9.", False),
        (Task("q", answer="Paris", check="contains"), "It is PARIS, of course", True),
        (Task("q", answer="Paris", check="contains"), "It is Rome", False),
        (Task("q", answer="1200", check="number"), "12 times 100 is 1,200.00", True),
        (Task("q", answer="1200", check="number"), "1200 or 12", False),
        (Task("q", answer="1200", check="number"), "I do not know", False),
        (Task("q", answer="-3", check="number"), "so it is -3", True),
        (Task("q", answer=r"^(yes|no)$", check="regex"), "yes", True),
        (Task("q", answer=r"^(yes|no)$", check="regex"), "maybe", False),
        (Task("q"), "anything", None),
    ],
)
def test_an_answer_is_right_as_the_task_says(task: Task, text: str, right: bool | None) -> None:
    assert is_right(task, text) is right


def test_answers_agree_when_they_say_the_same_or_are_both_right() -> None:
    assert agree(Task("q"), "a  b\n", "a b")
    assert not agree(Task("q"), "a b", "a c")
    assert agree(Task("q", answer="yes", check="contains"), "yes!", "well, yes")
    assert agree(Task("q", answer="5", check="number"), "it is 4", "4")
    assert not agree(Task("q", answer="5", check="number"), "no idea", "none")


def test_a_suite_is_read_and_narrowed_to_families(tmp_path: Path) -> None:
    file = tmp_path / "suite.jsonl"
    file.write_text(
        '{"question": "q", "answer": "a", "family": "one"}\n\n'
        '{"messages": [{"role": "user", "content": "m"}], "family": "two"}\n'
    )
    suite = load_suite(file)
    assert [task.conversation[0].content for task in suite.tasks] == ["q", "m"]
    assert [task.family for task in suite.only(frozenset({"two"})).tasks] == ["two"]
    with pytest.raises(ConfigurationError, match="no family 'three'; name some of one, two"):
        suite.only(frozenset({"three"}))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"question": 1}', "line 2: expected `str"),
        ('{"question": "q", "kind": "x"}', "line 2: object contains unknown field `kind`"),
        ("not json", "line 2: json is malformed"),
        ('{"answer": "a"}', "line 2: needs exactly one of `question` and `messages`"),
        ('{"question": "q", "answer": "(", "check": "regex"}', "line 2: its answer cannot be checked"),
        ('{"question": "q", "answer": "five", "check": "number"}', "'five' holds no number"),
        ('{"question": "q", "answer": " "}', "line 2: its answer cannot be checked: is empty"),
    ],
)
def test_a_line_that_is_no_task_is_named(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "suite.jsonl"
    file.write_text('{"question": "fine"}\n' + line + "\n")
    with pytest.raises(ConfigurationError) as caught:
        load_suite(file)
    assert says in caught.value.message
    assert "\n" not in caught.value.message


def test_a_file_without_tasks_or_no_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ConfigurationError, match="has 0 tasks"):
        load_suite(tmp_path / "empty.jsonl")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_suite(tmp_path / "none.jsonl")


def test_the_bundled_suite_is_what_its_program_writes() -> None:
    assert SUITE.read_text(encoding="utf-8") == suite_text()
    assert len({task.family for task in load_suite(SUITE).tasks}) == 9
