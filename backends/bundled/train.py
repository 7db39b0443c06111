"""Train the two bundled models and their tokenizer from scratch, on generated questions, with fixed seeds, on the CPU.

`python -m backends.bundled.train --tier small --out DIR` writes a Hugging Face directory. It runs in the conversion
environment (constraints-convert.txt). It exits with an error when the model misses its target accuracy.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from backends.bundled.tasks import Split, draw, families

END, PAD = "<|end|>", "<|pad|>"
ROLES: Final = ("system", "user", "assistant")
SPECIAL_TOKENS: Final = [PAD, END, *(f"<|{role}|>" for role in ROLES)]
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SYSTEM_TEXTS: Final = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a concise assistant.",
    "Answer briefly.",
    "Be polite and brief.",
    "You are a friendly bot. Give short answers.",
)
VOCABULARY_TOKENS: Final = 1024
CONTEXT_TOKENS: Final = 1024
TOKENIZER_SEED: Final = 20
BATCH: Final = 64
PART: Final = 16
IGNORED: Final = -100


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the training: how many steps, and each family's share of the questions (weights, any sum)."""

    steps: int
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Spec:
    """One model: its shape, its schedule, and the accuracy below which training counts as failed."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    seed: int
    learning_rate: float
    stages: tuple[Stage, ...]
    target: float


_EASY: Final = {"greet": 0.05, "copy": 0.32, "sort": 0.36, "add1": 0.12, "fact_head": 0.1, "other": 0.05}
_REST: Final = {"greet": 0.02, "add1": 0.03, "fact_head": 0.02, "other": 0.02}
_LISTS_FIRST: Final = {**_REST, "copy": 0.18, "sort": 0.18, "sort_long": 0.28, "add2": 0.15, "fact_tail": 0.12}
_SUMS_LATER: Final = {**_REST, "copy": 0.12, "sort": 0.12, "sort_long": 0.28, "add2": 0.29, "fact_tail": 0.1}
SPECS: Final = {
    "small": Spec(128, 3, 4, 384, 1, 3e-3, (Stage(2300, _EASY),), 0.95),
    "large": Spec(192, 4, 6, 576, 2, 2.5e-3, (Stage(900, _LISTS_FIRST), Stage(1300, _SUMS_LATER)), 0.90),
}


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids of one conversation; only the ids from `answer_start` on are learned."""

    ids: list[int]
    answer_start: int


def build_tokenizer(seed: int = TOKENIZER_SEED) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on generated conversations.

    Every digit stands alone. A space belongs to the word before it, not after it: a text then has the same tokens in a
    question and at the start of an answer, and copying is learned in a fraction of the steps.
    """
    rng = random.Random(seed)
    names = [family.name for family in families()]
    corpus = (f"{q.prompt}\n{q.answer}" for q in (draw(rng.choice(names), rng, "train") for _ in range(40_000)))
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d|[^\s\d\p{P}]+ ?|\p{P} ?|\s"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_TOKENS,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([*SYSTEM_TEXTS, *corpus], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=END, pad_token=PAD, model_max_length=CONTEXT_TOKENS, padding_side="left"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _conversation(shares: Mapping[str, float], rng: random.Random, split: Split) -> tuple[str, str]:
    """Draw a rendered conversation up to the assistant's turn, and the answer with its end mark."""
    names, weights = tuple(shares), tuple(shares.values())
    text = f"<|system|>{rng.choice(SYSTEM_TEXTS)}{END}" if rng.random() < 0.15 else ""
    for _ in range(rng.choice((0,) * 17 + (1, 1, 2))):
        earlier = draw(rng.choices(names, weights)[0], rng, split)
        text += f"<|user|>{earlier.prompt}{END}<|assistant|>{earlier.answer}{END}"
    question = draw(rng.choices(names, weights)[0], rng, split)
    return f"{text}<|user|>{question.prompt}{END}<|assistant|>", question.answer + END


def _examples(
    tokenizer: PreTrainedTokenizerFast, shares: Mapping[str, float], rng: random.Random, n: int, split: Split = "train"
) -> list[Example]:
    pairs = [_conversation(shares, rng, split) for _ in range(n)]
    prompts = tokenizer([prompt for prompt, _ in pairs], add_special_tokens=False)["input_ids"]
    answers = tokenizer([answer for _, answer in pairs], add_special_tokens=False)["input_ids"]
    return [Example(prompt + answer, len(prompt)) for prompt, answer in zip(prompts, answers, strict=True)]


def _tensors(examples: Sequence[Example], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and labels, both (n, longest) int64; padding comes last, so that causal attention never sees it."""
    longest = max(len(example.ids) for example in examples)
    ids = np.full((len(examples), longest), pad, dtype=np.int64)
    labels = np.full((len(examples), longest), IGNORED, dtype=np.int64)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = example.ids
        labels[row, example.answer_start : len(example.ids)] = example.ids[example.answer_start :]
    return torch.from_numpy(ids), torch.from_numpy(labels)


def _batches(
    tokenizer: PreTrainedTokenizerFast, stages: Sequence[Stage], rng: random.Random
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Yield batches, each cut into parts of similar length that share one optimiser step.

    Whole batches of one length save the same padding, but each then holds one kind of question, and training crawls.
    """
    for stage in stages:
        for _ in range(stage.steps):
            examples = _examples(tokenizer, stage.shares, rng, BATCH)
            examples.sort(key=lambda example: len(example.ids))
            parts = (examples[start : start + PART] for start in range(0, BATCH, PART))
            yield [_tensors(part, tokenizer.pad_token_id) for part in parts]


def build_model(spec: Spec, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return an untrained Llama of the spec's shape; the caller seeds torch."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.hidden,
        intermediate_size=spec.intermediate,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        max_position_embeddings=CONTEXT_TOKENS,
        initializer_range=0.7 / spec.hidden**0.5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def _optimizers(model: LlamaForCausalLM, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the layers' matrices (in about half of AdamW's steps, tried) and AdamW for everything else."""
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    chosen = set(map(id, matrices))
    others = [weight for weight in model.parameters() if id(weight) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=learning_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _backward(model: LlamaForCausalLM, batch: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Add the batch's gradients, with bfloat16 products; return the mean loss per learned token."""
    tokens = sum(int((labels[:, 1:] != IGNORED).sum()) for _, labels in batch)
    total = 0.0
    for ids, labels in batch:
        learned = labels[:, 1:] != IGNORED  # logits of prompts would cost more than the layers
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            logits = model.lm_head(states[learned])
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][learned], reduction="sum") / tokens
        loss.backward()
        total += loss.item()
    return total


def fit(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, spec: Spec) -> float:
    """Train in place over all stages, with one warm-up and one cosine. Return the last mean loss."""
    steps = sum(stage.steps for stage in spec.stages)
    optimizers = _optimizers(model, spec.learning_rate)
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(
            optimizer, spec.learning_rate, total_steps=steps, pct_start=0.06, final_div_factor=100, cycle_momentum=False
        )
        for optimizer in optimizers
    ]
    model.train()
    recent: list[float] = []
    started = time.perf_counter()
    for step, batch in enumerate(_batches(tokenizer, spec.stages, random.Random(spec.seed)), start=1):
        model.zero_grad(set_to_none=True)
        recent = [*recent[-49:], _backward(model, batch)]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        if step % 100 == 0 or step == steps:
            elapsed_s = time.perf_counter() - started
            print(f"step {step}/{steps} loss {sum(recent) / len(recent):.4f} {elapsed_s:.0f} s", flush=True)
        if step % 400 == 0:
            print(accuracy(model, tokenizer, list(spec.stages[0].shares), 128), flush=True)
            model.train()
    return sum(recent) / len(recent)


def accuracy(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, names: Sequence[str], n: int
) -> dict[str, float]:
    """Return exact match per family on test questions: right at every step when teacher-forced is right when greedy."""
    model.eval()
    scores = {}
    for name in names:
        examples = _examples(tokenizer, {name: 1.0}, random.Random(f"{name}/check"), n, "test")
        right = 0
        for start in range(0, n, BATCH):
            ids, labels = _tensors(examples[start : start + BATCH], tokenizer.pad_token_id)
            with torch.no_grad():
                guesses = model(input_ids=ids, use_cache=False).logits[:, :-1].argmax(-1)
            wanted = labels[:, 1:]
            right += int(((guesses == wanted) | (wanted == IGNORED)).all(-1).sum())
        scores[name] = round(right / n, 4)
    return scores


def main(argv: Sequence[str] | None = None) -> None:
    """Train one tier's model and write it as a Hugging Face directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tier", choices=tuple(SPECS), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps, for a quick trial")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    full = SPECS[args.tier]
    stages = tuple(replace(stage, steps=max(1, round(stage.steps * args.scale))) for stage in full.stages)
    spec = Spec(
        full.hidden, full.layers, full.heads, full.intermediate, full.seed, full.learning_rate, stages, full.target
    )
    torch.manual_seed(spec.seed)
    tokenizer = build_tokenizer()
    model = build_model(spec, tokenizer)
    wall, cpu = time.perf_counter(), time.process_time()
    loss = fit(model, tokenizer, spec)
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    scores = accuracy(model, tokenizer, list(spec.stages[0].shares), 1024)
    print(scores, flush=True)
    missed = {name: score for name, score in scores.items() if score < spec.target}
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=128
    )
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    record = {
        "tier": args.tier,
        "parameters": model.num_parameters(),
        "examples": BATCH * sum(stage.steps for stage in stages),
        "wall_s": round(wall_s, 1),
        "cpu_s": round(cpu_s, 1),
        "threads": args.threads,
        "loss": round(loss, 5),
        "fp32_exact_match": scores,
        "torch": torch.__version__,
        "spec": asdict(spec),
    }
    (args.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    if missed:
        raise SystemExit(f"{args.tier}: below the target of {spec.target}: {missed}; do not ship {args.out}")


if __name__ == "__main__":
    main()
