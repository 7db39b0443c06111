"""Makes the INT4 tier of a full-precision model: converted, quantised on prompts, given a recipe, and evaluated.

The tools run in an environment of their own, never in the gateway's. Prompts are handed to them in a file that is
removed again; what they leave holds none. Until its evaluation is passed, the gateway refuses to serve what was made.
"""

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import yaml

from backends.bundled.quantize import TOOLS
from backends.engines.bare_environment import SOURCE_ROOT
from backends.engines.launcher import FULL_PRECISION
from backends.engines.recipes import Recipe, load_recipe
from backends.engines.suite import Message, Suite, Task
from core.errors import ConfigurationError
from gateway.files import write_whole
from policies.safe_yaml import load_yaml

SCRIPTS = SOURCE_ROOT / "backends" / "bundled"
HELD_OUT = 5
"""Every fifth prompt is not calibrated on, so that there is something to evaluate on without a suite."""
LEAST_PROMPTS = 2 * HELD_OUT
MAX_PROMPTS = 10_000
MEND = 'write one {"prompt": …} or {"messages": […]} a line'


class _Part(msgspec.Struct, frozen=True):
    type: str = "text"
    content: str | None = None
    text: str | None = None


class _Turn(msgspec.Struct, frozen=True):
    role: str
    content: str | list[_Part] | None = None
    parts: list[_Part] = []


class _Line(msgspec.Struct, frozen=True):
    prompt: str | None = None
    question: str | None = None
    messages: list[_Turn] = []


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made.

    Attributes:
        source: the full-precision model, a Hugging Face folder.
        out: where the weights go; `out` with the suffix .yaml becomes their recipe.
        full: where the full-precision conversion lies or goes; only engines that need one have it.
        like: the recipe of the full-precision tier, from which context, price and options are taken over.
        python: of the environment with the tools.
    """

    source: Path
    out: Path
    full: Path
    like: Recipe
    method: str
    python: Path
    group_size: int | None = None

    @property
    def recipe_file(self) -> Path:
        """Return where the recipe goes."""
        return self.out.with_name(f"{self.out.name}.yaml")


def check_order(order: Order) -> None:
    """Refuse what cannot be made before minutes are spent on it.

    Raises:
        ConfigurationError: an engine or method that there is no tool for, no such environment, or files in the way.
    """
    engine = order.like.engine
    if engine not in TOOLS:
        mend = f"name a recipe of {' or '.join(TOOLS)} with --like"
        raise ConfigurationError(f"recipe {order.like.name}", "engine", f"nothing quantises for {engine}", mend)
    if order.method not in TOOLS[engine].methods:
        mend = f"choose one of {', '.join(TOOLS[engine].methods)}"
        raise ConfigurationError("--method", "", f"there is no {order.method} for {engine}", mend)
    if not order.python.is_file():
        mend = "run `make models`, or name one with --python"
        raise ConfigurationError(str(order.python), "", "there is no conversion environment", mend)
    for path in (order.out, order.recipe_file):
        if path.exists():
            raise ConfigurationError(str(path), "", "exists already", "remove it or give another --out")
    if not order.out.resolve().parent.is_dir():
        raise ConfigurationError(str(order.out), "", "its folder does not exist", "make it, or give another --out")


def load_prompts(path: Path) -> tuple[tuple[Message, ...], ...]:
    """Read conversations: `prompt`, `question` or `messages`, the latter as sent or as spans record them.

    Raises:
        ConfigurationError: the file cannot be read, a line is no prompt, or there are too few.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as problem:
        raise ConfigurationError(str(path), "", f"cannot be read ({problem.strerror})", "correct the path") from problem
    found = [_conversation(line, str(path), at) for at, line in enumerate(lines, 1) if line.strip()]
    if not LEAST_PROMPTS <= len(found) <= MAX_PROMPTS:
        mend = f"give {LEAST_PROMPTS} to {MAX_PROMPTS}; a few hundred of your own traffic are enough"
        raise ConfigurationError(str(path), "", f"has {len(found)} prompts", mend)
    return tuple(found)


def split(prompts: tuple[tuple[Message, ...], ...], name: str) -> tuple[tuple[tuple[Message, ...], ...], Suite]:
    """Return the prompts to calibrate on, and the rest as a suite without answers."""
    held_out = prompts[HELD_OUT - 1 :: HELD_OUT]
    kept = tuple(one for at, one in enumerate(prompts, 1) if at % HELD_OUT)
    content = msgspec.json.encode(held_out)
    return kept, Suite(f"held-out of {name}", content, tuple(Task(messages=one) for one in held_out))


def make(order: Order, prompts: tuple[tuple[Message, ...], ...]) -> Recipe:
    """Convert where the engine needs it, quantise, and write the recipe; return it.

    Raises:
        ConfigurationError: a tool failed; its own line says why.
    """
    source = order.source
    if order.like.engine == "openvino":
        if not order.full.exists():
            _run(order, "convert.py", [str(source), "--out", str(order.full), "--precision", "fp16"])
        source = order.full
    with TemporaryDirectory(prefix="headgate-quantize-") as folder:
        file = Path(folder) / "prompts.jsonl"
        file.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in prompts))
        arguments = [str(source), "--for", order.like.engine, "--out", str(order.out)]
        arguments += ["--method", order.method, "--prompts", str(file)]
        if order.group_size is not None:
            arguments += ["--group-size", str(order.group_size)]
        _run(order, "quantize.py", arguments)
    write_whole(order.recipe_file, recipe_text(order), check=lambda path: load_recipe(path, load_yaml))
    return load_recipe(order.recipe_file, load_yaml)


def full_precision(order: Order) -> Recipe:
    """Return the recipe of what was quantised, to evaluate beside."""
    served = order.full if order.like.engine == "openvino" else order.source
    precision = order.like.spec.precision if order.like.spec.precision in FULL_PRECISION else "fp16"
    spec = replace(order.like.spec, model_dir=served.resolve(), precision=precision, port=None)
    return replace(order.like, spec=spec)


def recipe_text(order: Order) -> str:
    """Write a recipe of the new weights: what the full-precision one says, at INT4."""
    written = dict(_mapping(load_yaml(order.like.file)))
    for key in ("hub", "weights_digest", "port", "allow_unevaluated", "abilities"):
        written.pop(key, None)
    model = f"{order.like.spec.model}-int4"
    written.update({"weights": f"./{order.out.name}", "precision": "int4", "model": model})
    if order.like.spec.precision in FULL_PRECISION:
        written["full_precision"] = order.like.name
    head = (
        f"# Made by `headgate models quantize` ({order.method}) after the recipe {order.like.name}, whose price and\n"
        "# memory it still says: measure its own with `headgate prices measure`, and lower memory_bytes.\n"
    )
    return head + yaml.safe_dump(written, sort_keys=False, allow_unicode=True)


def _mapping(raw: object) -> dict[str, object]:
    assert isinstance(raw, dict)
    return raw


def _run(order: Order, script: str, arguments: list[str]) -> None:
    command = [str(order.python), "-P", str(SCRIPTS / script), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - an argument list, no shell
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        problem = lines[-1].partition(": ")[2] or lines[-1]
        raise ConfigurationError(str(order.source), "", problem[:400], "mend that and try again")


def _conversation(line: bytes, file: str, at: int) -> tuple[Message, ...]:
    where = f"line {at}"
    try:
        parsed = msgspec.json.decode(line, type=_Line)
    except msgspec.MsgspecError as problem:
        raise ConfigurationError(file, where, str(problem).lower(), MEND) from problem
    text = parsed.prompt or parsed.question
    if text:
        return (Message("user", text),)
    try:
        turns = [{"role": one.role, "content": _text(one)} for one in parsed.messages]
        found = msgspec.convert(turns, tuple[Message, ...])
    except msgspec.ValidationError as problem:
        raise ConfigurationError(file, where, str(problem).lower(), MEND) from problem
    if not found or not any(one.content for one in found):
        raise ConfigurationError(file, where, "holds no text", MEND)
    return found


def _text(turn: _Turn) -> str:
    if isinstance(turn.content, str):
        return turn.content
    return "\n".join(part.content or part.text or "" for part in turn.content or turn.parts)
