"""How do several processes serve one port as one gateway?"""
