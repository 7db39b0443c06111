"""A scripted OpenAI-compatible upstream that misbehaves on demand, over a real socket."""
