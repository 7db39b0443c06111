"""Writes a tiny Llama of random weights with the bundled tokenizer: what engines load is real, its words are not."""

import shutil
from pathlib import Path

from backends.engines.bare_environment import SOURCE_ROOT

TOKENIZER = SOURCE_ROOT / "backends" / "bundled" / "small-int4"
CONTEXT_TOKENS = 1024


def write_tiny_llama(folder: Path, dtype: str = "bfloat16") -> Path:
    """Save model and tokenizer to `folder`, and return it; the same weights each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(20)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=False,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (TOKENIZER / name).is_file():
            shutil.copyfile(TOKENIZER / name, folder / name)
    return folder
