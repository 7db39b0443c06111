"""What the conformance probe asks of a model, and what a right answer is: tools, JSON, scripts; nothing of tenants.

Every case is greedy, short and has one right answer that needs next to no knowledge, so that a miss tells of the
ability and not of the model's learning.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from core.facts import Script

QUESTIONS_VERSION: Final = 1
"""Goes up with every change of a case; what older questions found does not count any more."""
MAX_TOKENS: Final = 128


@dataclass(frozen=True, slots=True)
class Answered:
    """The first choice of an answer: its text and the tools that it calls, as names and argument texts."""

    text: str
    calls: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One request without its model: which ability it is about, its body, and what says that an answer is right."""

    ability: str
    body: Mapping[str, Any]
    is_right: Callable[[Answered], bool]

    @property
    def prompt(self) -> str:
        """Return what is asked."""
        return str(self.body["messages"][0]["content"])


def _body(prompt: str, **fields: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        **fields,
    }


def _tool(name: str, says: str, **types: str) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in types.items()},
        "required": list(types),
    }
    return {"type": "function", "function": {"name": name, "description": says, "parameters": parameters}}


TOOLS: Final = [
    _tool("get_weather", "Tells the present weather of a city.", city="string"),
    _tool("add_numbers", "Adds two whole numbers.", a="integer", b="integer"),
]
_CALLS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("What is the weather in Paris right now?", "get_weather", {"city": "Paris"}),
    ("Wie ist gerade das Wetter in Berlin?", "get_weather", {"city": "Berlin"}),
    ("Quel temps fait-il à Madrid en ce moment ?", "get_weather", {"city": "Madrid"}),
    ("Use the tool to add 348 and 271.", "add_numbers", {"a": 348, "b": 271}),
    ("Suma 17 y 25 con la herramienta.", "add_numbers", {"a": 17, "b": 25}),
)
_NUMBER: Final = re.compile(r"\d+")
_NO_CALL: Final = "Say hello. You need no tool for this."

PERSON: Final = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
    "required": ["name", "age", "city"],
    "additionalProperties": False,
}
_PEOPLE: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("Anna is 31 years old and lives in Oslo.", {"name": "Anna", "age": 31, "city": "Oslo"}),
    ("Bernd ist 45 Jahre alt und wohnt in Wien.", {"name": "Bernd", "age": 45, "city": "Wien"}),
    ("Lucia tiene 28 años y vive en Toledo.", {"name": "Lucia", "age": 28, "city": "Toledo"}),
    ("Paul a 52 ans et habite à Lyon.", {"name": "Paul", "age": 52, "city": "Lyon"}),
)
_OBJECTS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ('Answer in JSON: an object whose only key "ok" is true.', {"ok": True}),
    ('Answer in JSON: an object with the keys "a" and "b", whose values are the numbers 1 and 2.', {"a": 1, "b": 2}),
)

SCRIPT_QUESTIONS: Final[Mapping[Script, tuple[tuple[str, tuple[str, ...]], ...]]] = {
    "latin": (
        ("What is the capital of France? Answer with one word.", ("paris",)),
        ("Wie viel ist zwei plus drei? Antworte nur mit einer Ziffer.", ("5",)),
        ("Répète exactement : maison verte", ("maison verte",)),
    ),
    "cyrillic": (
        ("Какой город является столицей Франции? Ответь одним словом.", ("париж",)),
        ("Сколько будет два плюс три? Ответь только цифрой.", ("5",)),
        ("Повтори дословно: зелёный дом", ("зелёный дом", "зеленый дом")),
    ),
    "greek": (
        ("Ποια είναι η πρωτεύουσα της Γαλλίας; Απάντησε με μία λέξη.", ("παρίσι",)),
        ("Πόσο κάνει δύο συν τρία; Απάντησε μόνο με ένα ψηφίο.", ("5",)),
        ("Επανάλαβε ακριβώς: πράσινο σπίτι", ("πράσινο σπίτι",)),
    ),
    "arabic": (
        ("ما هي عاصمة فرنسا؟ أجب بكلمة واحدة.", ("باريس",)),
        ("كم يساوي اثنان زائد ثلاثة؟ أجب برقم فقط.", ("5", "٥")),
        ("كرر حرفيا: بيت أخضر", ("بيت أخضر",)),
    ),
    "hebrew": (
        ("מהי בירת צרפת? ענה במילה אחת.", ("פריז", "פאריס")),
        ("כמה זה שתיים ועוד שלוש? ענה רק בספרה.", ("5",)),
        ("חזור בדיוק על המילים: בית ירוק", ("בית ירוק",)),
    ),
    "devanagari": (
        ("फ़्रांस की राजधानी क्या है? एक शब्द में उत्तर दो।", ("पेरिस",)),
        ("दो और तीन का योग कितना है? केवल अंक लिखो।", ("5", "५")),
        ("ठीक यही दोहराओ: हरा घर", ("हरा घर",)),
    ),
    "kana": (
        ("フランスの首都はどこですか。一語で答えてください。", ("パリ",)),
        ("二たす三はいくつですか。数字だけで答えてください。", ("5", "\uff15")),
        ("次の言葉をそのまま繰り返してください: みどりのいえ", ("みどりのいえ",)),
    ),
    "hangul": (
        ("프랑스의 수도는 어디입니까? 한 단어로 답하세요.", ("파리",)),
        ("둘 더하기 셋은 얼마입니까? 숫자로만 답하세요.", ("5",)),
        ("다음 말을 그대로 반복하세요: 초록색 집", ("초록색 집",)),
    ),
    "thai": (
        ("เมืองหลวงของฝรั่งเศสคือเมืองอะไร ตอบคำเดียว", ("ปารีส",)),
        ("สองบวกสามเท่ากับเท่าไร ตอบเป็นตัวเลขเท่านั้น", ("5", "๕")),
        ("พูดซ้ำตามนี้: บ้านสีเขียว", ("บ้านสีเขียว",)),
    ),
    "han": (
        ("法国的首都是哪座城市？只回答一个词。", ("巴黎",)),
        ("二加三等于几？只回答数字。", ("5",)),
        ("请原样重复：绿色的房子", ("绿色的房子",)),
    ),
}


def cases() -> tuple[Case, ...]:
    """Return every case; the ability of a script's cases is the script's name."""
    return (*_tool_cases(), *_json_cases(), *_script_cases())


def _tool_cases() -> tuple[Case, ...]:
    calls = (
        Case("tools", _body(prompt, tools=TOOLS), partial(_calls, name=name, wanted=wanted))
        for prompt, name, wanted in _CALLS
    )
    return (*calls, Case("tools", _body(_NO_CALL, tools=TOOLS), _speaks_alone))


def _json_cases() -> tuple[Case, ...]:
    schema = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": PERSON}}
    return (
        *(_json_case(f"Give name, age and city as JSON. {text}", schema, wanted) for text, wanted in _PEOPLE),
        *(_json_case(prompt, {"type": "json_object"}, wanted) for prompt, wanted in _OBJECTS),
    )


def _json_case(prompt: str, response_format: dict[str, Any], wanted: dict[str, Any]) -> Case:
    return Case("json", _body(prompt, response_format=response_format), partial(_is_json, wanted=wanted))


def _script_cases() -> tuple[Case, ...]:
    return tuple(
        Case(script, _body(prompt), partial(_says_one_of, accepted=accepted))
        for script, questions in SCRIPT_QUESTIONS.items()
        for prompt, accepted in questions
    )


def _speaks_alone(answered: Answered) -> bool:
    return not answered.calls and bool(answered.text.strip())


def _is_json(answered: Answered, wanted: dict[str, Any]) -> bool:
    return bool(_parsed(answered.text) == wanted)


def _says_one_of(answered: Answered, accepted: tuple[str, ...]) -> bool:
    """Tell whether an accepted text is said; of numbers the last one counts, so that no list of digits passes."""
    if all(text.isdigit() for text in accepted):
        return _NUMBER.findall(answered.text)[-1:] in [[text] for text in accepted]
    return any(text in answered.text.casefold() for text in accepted)


def _calls(answered: Answered, name: str, wanted: dict[str, Any]) -> bool:
    """Tell whether exactly the wanted call is made; a city may be told with its country ("Paris, France")."""
    if [call for call, _ in answered.calls] != [name]:
        return False
    given = _parsed(answered.calls[0][1])
    if not isinstance(given, dict) or given.keys() != wanted.keys():
        return False
    return all(
        given[key] == value or (isinstance(value, str) and str(given[key]).startswith(f"{value},"))
        for key, value in wanted.items()
    )


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
