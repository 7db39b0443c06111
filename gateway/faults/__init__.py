"""The fault wall: what a gateway's client and upstream get when the upstream misbehaves, case by case."""
