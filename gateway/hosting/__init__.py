"""The models that the gateway hosts: which there are, what they can do, what they cost."""
