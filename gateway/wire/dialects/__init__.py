"""The wires that clients speak other than chat, each translated to a chat request and back."""
